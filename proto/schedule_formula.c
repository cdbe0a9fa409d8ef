/*
 * The formulas of the schedules: (key values, call) -> action.
 *
 * Each is written for accuracy in double: 1 - (1+x)^-p as -expm1(-p*log1p(x)) and (1-x)^p as exp(p*log1p(-x)), which
 * keeps the decay within 1e-15 of the formula at any call number, and keeps small decays good to the last digits too.
 * The exceptions are yolo and half-life, which perform their library's operations in its order: there the promise is
 * equality to the bit with the loop in PyTorch, and a decay that is better by half a unit would break it.
 *
 * Call numbers are kept as integers wherever a remainder is taken, and turned into doubles only inside a formula:
 * beyond 2^53 all of them have reached their limit.
 */
#include "proto/schedule_formula.h"

#include <math.h>

static struct schedule_result copy(void)
{
	return (struct schedule_result){ACTION_COPY, 0.0};
}

static struct schedule_result noop(void)
{
	return (struct schedule_result){ACTION_NOOP, 1.0};
}

static struct schedule_result lerp(double decay)
{
	return (struct schedule_result){ACTION_LERP, decay};
}

static bool is_multiple(uint64_t number, double period)
{
	return number % (uint64_t)period == 0;
}

/* 1 - (1 + s/gamma)^-power, the warm-up that timm, diffusers, k-diffusion and ema-pytorch share. */
static double inverse_power(double s, double gamma, double power)
{
	double x = s / gamma, y = power * (x < 1 ? log1p(x) : log(1 + x));

	/* log and exp take half the time of log1p and expm1, and are as accurate where nothing cancels. */
	return y < M_LN2 ? -expm1(-y) : 1 - exp(-y);
}

/* How many steps this call advances. A step that does not move forward advances none. */
static double step_delta(const struct schedule_call *call)
{
	return call->step > call->step_previous ? (double)(call->step - call->step_previous) : 0.0;
}

double schedule_power_exponent(double std)
{
	/*
	 * Newton's method from g = 1/std, where the polynomial is positive: it is convex to the right of its largest
	 * root, so the iterates fall monotonically towards the root until rounding stops them.
	 */
	const double t = 1.0 / (std * std);
	double g = 1.0 / std;

	for (int i = 0; i < 64; i++) {
		double value = ((g + 7.0) * g + (16.0 - t)) * g + (12.0 - t);
		double next = g - value / ((3.0 * g + 14.0) * g + (16.0 - t));

		if (!(next < g))
			break;
		g = next;
	}
	return g > 0 ? g : 0.0;
}

void schedule_values_prepare(const struct schedule_kind *kind, double *values)
{
	if (kind->at == power_at && values[POWER_GAMMA] < 0)
		values[POWER_GAMMA] = schedule_power_exponent(values[POWER_STD]);
	if (kind->at == ema_pytorch_karras_at && values[KARRAS_GAMMA] < 0)
		values[KARRAS_GAMMA] = schedule_power_exponent(values[KARRAS_SIGMA]);
}

struct schedule_result constant_at(const double *values, const struct schedule_call *call)
{
	(void)call;
	return lerp(values[CONSTANT_DECAY]);
}

struct schedule_result yolo_at(const double *values, const struct schedule_call *call)
{
	double updates = (double)call->n + values[YOLO_UPDATES];

	return lerp(values[YOLO_DECAY] * (1.0 - exp(-updates / values[YOLO_TAU])));
}

struct schedule_result tf_at(const double *values, const struct schedule_call *call)
{
	double k = (double)(call->n - 1);

	if (values[TF_NUM_UPDATES] == 0)
		return lerp(values[TF_DECAY]);
	return lerp(fmin(values[TF_DECAY], (1.0 + k) / (10.0 + k)));
}

struct schedule_result torch_ema_at(const double *values, const struct schedule_call *call)
{
	double n = (double)call->n;

	if (values[TORCH_EMA_USE_NUM_UPDATES] == 0)
		return lerp(values[TORCH_EMA_DECAY]);
	return lerp(fmin(values[TORCH_EMA_DECAY], (1.0 + n) / (10.0 + n)));
}

struct schedule_result timm_at(const double *values, const struct schedule_call *call)
{
	double s = (double)(call->n - 1) - values[WARMUP_AFTER];
	double decay;

	if (s <= 0)
		return copy();
	if (values[WARMUP_WARMUP] == 0)
		return lerp(values[WARMUP_DECAY]);
	decay = fmin(inverse_power(s, values[WARMUP_GAMMA], values[WARMUP_POWER]), values[WARMUP_DECAY]);
	return lerp(fmax(decay, values[WARMUP_MIN_DECAY]));
}

struct schedule_result diffusers_at(const double *values, const struct schedule_call *call)
{
	double s = (double)(call->n - 1) - values[WARMUP_AFTER];
	double decay;

	if (s <= 0)
		return copy();
	if (values[WARMUP_WARMUP] == 0)
		decay = (1.0 + s) / (10.0 + s);
	else
		decay = inverse_power(s, values[WARMUP_GAMMA], values[WARMUP_POWER]);
	return lerp(fmax(fmin(decay, values[WARMUP_DECAY]), values[WARMUP_MIN_DECAY]));
}

struct schedule_result k_diffusion_at(const double *values, const struct schedule_call *call)
{
	double epoch = fmax(0.0, (double)(call->n - 1) - values[KD_START_AT]);
	double decay = inverse_power(epoch, values[KD_GAMMA], values[KD_POWER]);

	return lerp(fmin(values[KD_MAX], fmax(values[KD_MIN], decay)));
}

struct schedule_result ema_pytorch_at(const double *values, const struct schedule_call *call)
{
	uint64_t step = call->n - 1;
	double epoch = (double)step - values[EP_AFTER];

	if (!is_multiple(step, values[EP_EVERY]))
		return noop();
	if (epoch <= 0 || step == 0)
		return copy();
	return lerp(fmin(values[EP_DECAY],
	                 fmax(values[EP_MIN], inverse_power(epoch, values[EP_GAMMA], values[EP_POWER]))));
}

struct schedule_result ema_pytorch_karras_at(const double *values, const struct schedule_call *call)
{
	double gamma = values[KARRAS_GAMMA];

	if (!is_multiple(call->n - 1, values[KARRAS_EVERY]))
		return noop();
	if (call->n == 1)
		return copy();
	if (gamma < 0)
		gamma = schedule_power_exponent(values[KARRAS_SIGMA]);
	return lerp(exp((1.0 + gamma) * log1p(-1.0 / ((double)call->n + 1.0))));
}

struct schedule_result power_at(const double *values, const struct schedule_call *call)
{
	double gamma = values[POWER_GAMMA], t = (double)call->step, delta = step_delta(call);

	if (call->n == 1 || delta >= t)
		return copy();
	if (gamma < 0)
		gamma = schedule_power_exponent(values[POWER_STD]);
	return lerp(exp((gamma + 1.0) * log1p(-delta / t)));
}

struct schedule_result edm_at(const double *values, const struct schedule_call *call)
{
	double half_life = fmin(values[EDM_HALFLIFE], values[EDM_RAMPUP] * (double)call->step);

	return lerp(exp2(-step_delta(call) / fmax(half_life, 1e-8)));
}

struct schedule_result half_life_at(const double *values, const struct schedule_call *call)
{
	uint64_t start = (uint64_t)values[HL_START];

	if (call->step < start)
		return noop();
	if (call->step_previous < start)
		return copy();
	if (!is_multiple(call->step, values[HL_INTERVAL]))
		return noop();
	return lerp(pow(2.0, -(values[HL_INTERVAL] / values[HL_HALF_LIFE])));
}

struct schedule_result torchtitan_at(const double *values, const struct schedule_call *call)
{
	uint64_t start = (uint64_t)values[TITAN_START], every = (uint64_t)values[TITAN_EVERY];
	uint64_t elapsed = call->step > start ? call->step - start : 0;
	double k;

	if (elapsed == 0 || elapsed % every != 0)
		return noop();
	if (values[TITAN_DECAY] >= 0)
		return lerp(values[TITAN_DECAY]);
	k = fmax((double)(elapsed / every) + values[TITAN_BIAS], 1.0);
	return lerp(exp2(-1.0 / (values[TITAN_FRACTION] * k)));
}

struct schedule_result swa_at(const double *values, const struct schedule_call *call)
{
	double m = (double)((call->n - 1) / (uint64_t)values[SWA_INTERVAL]);

	if (!is_multiple(call->n - 1, values[SWA_INTERVAL]))
		return noop();
	return m > 0 ? lerp(m / (m + 1.0)) : copy();
}

struct schedule_result averaged_model_at(const double *values, const struct schedule_call *call)
{
	return call->n == 1 ? copy() : lerp(values[AVERAGED_MODEL_DECAY]);
}

/* The mmengine family differs in the momentum alone: `decay` is what it comes to after call->n - 1 earlier calls. */
static struct schedule_result mmengine_action(const double *values, const struct schedule_call *call, double decay)
{
	if (call->n == 1)
		return copy();
	return is_multiple(call->n - 1, values[MM_INTERVAL]) ? lerp(decay) : noop();
}

struct schedule_result mmengine_at(const double *values, const struct schedule_call *call)
{
	return mmengine_action(values, call, 1.0 - values[MM_MOMENTUM]);
}

struct schedule_result mmengine_annealing_at(const double *values, const struct schedule_call *call)
{
	double steps = (double)(call->n - 1);

	/* 1 - max(momentum, gamma/(gamma+steps)) without the cancellation of the first calls */
	return mmengine_action(values, call, fmin(1.0 - values[MM_MOMENTUM], steps / (values[MM_GAMMA] + steps)));
}

struct schedule_result mmdet_exp_at(const double *values, const struct schedule_call *call)
{
	double n = (double)call->n;

	/* 1 - ((1-momentum)*e + momentum) = (1-momentum)*(1-e) */
	return mmengine_action(values, call, (1.0 - values[MM_MOMENTUM]) * -expm1(-n / values[MM_GAMMA]));
}

struct schedule_result keras_at(const double *values, const struct schedule_call *call)
{
	return call->n == 1 ? copy() : lerp(values[KERAS_MOMENTUM]);
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
	while (b != 0) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

struct schedule_result lightning_at(const double *values, const struct schedule_call *call)
{
	uint64_t every = (uint64_t)values[LIGHTNING_EVERY], start = (uint64_t)values[LIGHTNING_START];
	uint64_t stride = call->step > call->step_previous ? call->step - call->step_previous : 1;
	uint64_t period, since_start;

	if (call->step < start || (call->step - start) % every != 0)
		return noop();
	/*
	 * Is this the first firing? With calls a stride of steps apart, the firing before this one was `period` calls
	 * ago, so the answer needs no memory: it was before the shadow's start, or before the step `start`.
	 */
	period = every / greatest_common_divisor(every, stride);
	since_start = call->step - start;
	if (period >= call->n || period > since_start / stride)
		return copy();
	return lerp(values[LIGHTNING_DECAY]);
}

struct schedule_result fairseq_at(const double *values, const struct schedule_call *call)
{
	if (!is_multiple(call->n, values[FAIRSEQ_EVERY]))
		return noop();
	return (double)call->n <= values[FAIRSEQ_START] ? copy() : lerp(values[FAIRSEQ_DECAY]);
}

struct schedule_result linear_at(const double *values, const struct schedule_call *call)
{
	double start = values[RAMP_START], end = values[RAMP_END], total = values[RAMP_TOTAL];
	double k = (double)(call->n - 1);

	if (k >= total)
		return lerp(end);
	return lerp(end - (end - start) * (1.0 - k / total));
}

struct schedule_result cosine_at(const double *values, const struct schedule_call *call)
{
	double start = values[RAMP_START], end = values[RAMP_END], last = values[RAMP_TOTAL] - 1.0;
	double k = (double)(call->n - 1);

	if (k >= last)
		return lerp(end);
	return lerp(end - (end - start) * (cos(M_PI * k / last) + 1.0) / 2.0);
}

struct schedule_result optax_at(const double *values, const struct schedule_call *call)
{
	(void)call;
	return lerp(values[OPTAX_DECAY]);
}

struct schedule_result paddle_at(const double *values, const struct schedule_call *call)
{
	double n = (double)call->n;

	if (values[PADDLE_MODE] == PADDLE_THRESHOLD)
		return lerp(fmin(values[PADDLE_DECAY], n / (9.0 + n)));
	return lerp(values[PADDLE_DECAY] * -expm1(-n / 2000.0));
}
