/*
 * The table of schedules: one row each, read by the parser, the listings and the documentation.
 *
 * To add a schedule: an enumeration of its keys and a formula in schedule_formula.{h,c}, a row here, its recorded or
 * golden values in tests/unit/test_schedule_formula.c, and `make schedules` for its section of SCHEDULES.md. Keys that
 * mean the same have the same name in every row; the libraries' own parameter names are aliases, unless theirs is in
 * another unit or means the complement (mmengine's momentum is the weight of the NEW value, so `momentum` is no alias of
 * `decay` where both readings are in use).
 *
 * The entry policies are what each library does with what it does not average:
 * - Libraries that hold parameters only drop every buffer. They drop integers as well: in a state_dict an integer entry
 *   is a buffer (num_batches_tracked) unless the state says otherwise.
 * - Libraries that average all floating-point entries and meet integers too: the latest value, unless the library
 *   visibly leaves them at the start.
 */
#include "proto/schedule_formula.h"

#include <math.h>

#define WHOLE_MAX 9e15 /* below 2^53: every whole number up to here is a double */
#define LENGTH_MIN 1e-9
#define LENGTH_MAX 1e18
#define STD_MIN 1e-3
#define STD_MAX 0.28867513459481287 /* 12^-1/2: the uniform average, exponent 0 */
#define BELOW_ONE 0x1.fffffffffffffp-1 /* a start at zero could never be divided out at 1 */
#define NOT_GIVEN (-1.0)

/* Why a schedule cannot be scaled for another batch. */
#define RISES_ALONE "its warm-up rises with the call number alone, and no key is its length"
#define SAME_SHARE \
	"its decay is a function of the call number alone, by which it reaches back over the same share of the run at " \
	"any batch size: leave it as it is"

/* clang-format off */
#define NUMBER(name, aliases, fallback, minimum, maximum, scale, text) \
	{name, aliases, fallback, minimum, maximum, false, false, text, SCALE_##scale, NULL}
#define ALTERNATIVE(name, aliases, minimum, maximum, scale, text) \
	{name, aliases, NOT_GIVEN, minimum, maximum, false, true, text, SCALE_##scale, NULL}
#define WHOLE(name, aliases, fallback, minimum, scale, text) \
	{name, aliases, fallback, minimum, WHOLE_MAX, true, false, text, SCALE_##scale, NULL}
#define FLAG(name, aliases, fallback, text) \
	{name, aliases, fallback, 0, 1, true, false, text, SCALE_NONE, NULL}
#define WORD(name, aliases, fallback, maximum, words, text) \
	{name, aliases, fallback, 0, maximum, true, false, text, SCALE_NONE, words}
#define STARTS_AS_COPY .debias_key = -1
#define STARTS_AT_ZERO(debias) .starts_at_zero = true, .debias_key = debias
#define BUFFERS_FIXED .buffers_key = -1
#define BUFFERS_BY(key, integers) .buffers_key = key, .integer_with_buffers = integers
#define SCALES .is_scalable = true, .scale_key = -1
#define SCALES_WHERE(key, value, why) .is_scalable = true, .scale_key = key, .scale_value = value, .unscaled = why
#define SCALES_NOT(why) .scale_key = -1, .unscaled = why
#define KEYS(...) \
	.key_count = (uint32_t)(sizeof((struct schedule_key[]){__VA_ARGS__}) / sizeof(struct schedule_key)), \
	.keys = {__VA_ARGS__}

static const struct schedule_kind KINDS[] = {
{
	.name = "constant",
	.text = "The plain exponential moving average: from the first call on it averages over about "
	        "1/(1-decay) calls.",
	.source = "none: the plain exponential moving average",
	.formula = "LERP decay",
	.form = FORM_LERP, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_COPY, .at = constant_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([CONSTANT_DECAY] = NUMBER("decay", "beta ema_decay smoothing", .9999, 0, 1, DECAY,
	                               "weight of the old shadow")),
},
{
	.name = "yolo",
	.text = "The average of the YOLO detectors. The decay rises from near 0 while the training settles, so "
	        "that the first weights are soon forgotten; after a few `tau` it is constant.",
	.source = "YOLOv5 and YOLOv7, utils/torch_utils.py, ModelEMA",
	.formula = "LERP decay*(1-exp(-(n+updates)/tau))",
	.form = FORM_MUL_ADD, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_FREEZE, .at = yolo_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([YOLO_DECAY] = NUMBER("decay", "ema_decay", .9999, 0, 1, DECAY, "decay at the end of the warm-up"),
	     [YOLO_TAU] = NUMBER("tau", NULL, 2000, LENGTH_MIN, LENGTH_MAX, LENGTH, "length of the warm-up in updates"),
	     [YOLO_UPDATES] = WHOLE("updates", NULL, 0, 0, LENGTH, "updates done before the start, to resume")),
},
{
	.name = "tf",
	.text = "TensorFlow's average of variables: constant, or with `num_updates=1` rising from 0.1 until it "
	        "reaches `decay`.",
	.source = "TensorFlow, tf.train.ExponentialMovingAverage; holds the variables it is given only",
	.formula = "LERP decay; num_updates=1: LERP min(decay, (1+k)/(10+k)), k = n-1",
	.form = FORM_SUB, .float_buffer = ENTRY_DROP, .integer = ENTRY_DROP, .at = tf_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES_WHERE(TF_NUM_UPDATES, 0, RISES_ALONE "; with num_updates=0 it can be"),
	KEYS([TF_DECAY] = NUMBER("decay", "ema_decay", .9999, 0, 1, DECAY, "largest decay"),
	     [TF_NUM_UPDATES] = FLAG("num_updates", "use_num_updates", 0,
	                             "1: as when the caller passes num_updates = n-1; 0: as when it passes none")),
},
{
	.name = "torch-ema",
	.text = "A small library for PyTorch that warms up as TensorFlow does, counted from 1.",
	.source = "torch_ema, ExponentialMovingAverage; holds parameters only",
	.formula = "LERP min(decay, (1+n)/(10+n)); use_num_updates=0: LERP decay",
	.form = FORM_SUB, .float_buffer = ENTRY_DROP, .integer = ENTRY_DROP, .at = torch_ema_at,
	STARTS_AS_COPY, BUFFERS_FIXED,
	SCALES_WHERE(TORCH_EMA_USE_NUM_UPDATES, 0, RISES_ALONE "; with use_num_updates=0 it can be"),
	KEYS([TORCH_EMA_DECAY] = NUMBER("decay", "ema_decay", .995, 0, 1, DECAY, "largest decay"),
	     [TORCH_EMA_USE_NUM_UPDATES] = FLAG("use_num_updates", "num_updates", 1, "1: warm up; 0: constant decay")),
},
{
	.name = "timm",
	.text = "The average of PyTorch Image Models. It follows the weights for `after` calls; from there on "
	        "the decay is constant, or with `warmup=1` rises by an inverse power of the calls.",
	.source = "timm, ModelEmaV3",
	.formula = "s = max(0, n-after-1); s = 0: COPY; "
	           "warmup=1: LERP max(min(1-(1+s/gamma)^-power, decay), min_decay); warmup=0: LERP decay",
	.form = FORM_LERP, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_COPY, .at = timm_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([WARMUP_DECAY] = NUMBER("decay", "ema_decay", .9999, 0, 1, DECAY, "largest decay"),
	     [WARMUP_MIN_DECAY] = NUMBER("min_decay", "min_value", 0, 0, 1, DECAY, "smallest decay, with warmup=1"),
	     [WARMUP_AFTER] = WHOLE("after", "update_after_step", 0, 0, LENGTH, "calls that only copy"),
	     [WARMUP_WARMUP] = FLAG("warmup", "use_warmup", 0, "1: the decay rises from 0"),
	     [WARMUP_GAMMA] = NUMBER("gamma", "warmup_gamma inv_gamma", 1, LENGTH_MIN, LENGTH_MAX, RAMP,
	                             "length of the warm-up"),
	     [WARMUP_POWER] = NUMBER("power", "warmup_power", 2. / 3, 0, 1000, NONE, "steepness of the warm-up")),
},
{
	.name = "diffusers",
	.text = "The average of Hugging Face's diffusion models. It always warms up: by (1+s)/(10+s), or with "
	        "`warmup=1` by an inverse power of the calls.",
	.source = "diffusers, training_utils.EMAModel; holds parameters only",
	.formula = "s = max(0, n-after-1); s = 0: COPY; v = (1+s)/(10+s), with warmup=1: 1-(1+s/gamma)^-power; "
	           "LERP max(min(v, decay), min_decay)",
	.form = FORM_SUB, .float_buffer = ENTRY_DROP, .integer = ENTRY_DROP, .at = diffusers_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES_WHERE(WARMUP_WARMUP, 1, RISES_ALONE "; with warmup=1 it can be"),
	KEYS([WARMUP_DECAY] = NUMBER("decay", "max_value", .9999, 0, 1, DECAY, "largest decay"),
	     [WARMUP_MIN_DECAY] = NUMBER("min_decay", "min_value", 0, 0, 1, DECAY, "smallest decay"),
	     [WARMUP_AFTER] = WHOLE("after", "update_after_step", 0, 0, LENGTH, "calls that only copy"),
	     [WARMUP_WARMUP] = FLAG("warmup", "use_ema_warmup", 0, "1: warm up by gamma and power"),
	     [WARMUP_GAMMA] = NUMBER("gamma", "inv_gamma", 1, LENGTH_MIN, LENGTH_MAX, RAMP, "length of the warm-up"),
	     [WARMUP_POWER] = NUMBER("power", NULL, 2. / 3, 0, 1000, NONE, "steepness of the warm-up")),
},
{
	.name = "k-diffusion",
	.text = "A warm-up without an end: with the defaults every call weighs alike, with a power below 1 the "
	        "recent ones weigh more.",
	.source = "k-diffusion, utils.EMAWarmup with ema_update",
	.formula = "LERP 1-(1+max(0, n-1-start_at)/gamma)^-power, clamped to [min, max]",
	.form = FORM_LERP, .float_buffer = ENTRY_COPY, .integer = ENTRY_COPY, .at = k_diffusion_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([KD_GAMMA] = NUMBER("gamma", "inv_gamma", 1, LENGTH_MIN, LENGTH_MAX, RAMP, "length of the warm-up"),
	     [KD_POWER] = NUMBER("power", NULL, 1, 0, 1000, NONE, "steepness of the warm-up"),
	     [KD_MIN] = NUMBER("min", "min_value min_decay", 0, 0, 1, DECAY, "smallest decay, before start_at too"),
	     [KD_MAX] = NUMBER("max", "max_value decay", 1, 0, 1, DECAY, "largest decay"),
	     [KD_START_AT] = WHOLE("start_at", NULL, 0, 0, LENGTH, "calls before the warm-up")),
},
{
	.name = "ema-pytorch",
	.text = "Copies the weights every so many calls up to `after`, and from there on averages every so many "
	        "calls with a decay that rises by an inverse power.",
	.source = "ema_pytorch, EMA",
	.formula = "fires when (n-1) % every = 0; n = 1 or n-1 <= after: COPY; "
	           "LERP 1-(1+(n-after-1)/gamma)^-power, clamped to [min, decay]",
	.form = FORM_LERP, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_FREEZE, .at = ema_pytorch_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([EP_DECAY] = NUMBER("decay", "beta", .9999, 0, 1, DECAY, "largest decay"),
	     [EP_AFTER] = WHOLE("after", "update_after_step", 100, 0, LENGTH, "calls that only copy"),
	     [EP_EVERY] = WHOLE("every", "update_every", 10, 1, NONE, "calls from one firing to the next"),
	     [EP_GAMMA] = NUMBER("gamma", "inv_gamma", 1, LENGTH_MIN, LENGTH_MAX, RAMP, "length of the warm-up"),
	     [EP_POWER] = NUMBER("power", NULL, 2. / 3, 0, 1000, NONE, "steepness of the warm-up"),
	     [EP_MIN] = NUMBER("min", "min_value min_decay", 0, 0, 1, DECAY, "smallest decay")),
},
{
	.name = "ema-pytorch-karras",
	.text = "A power-function average counted in calls. It moves only each `every` calls, by the decay of a "
	        "single one.",
	.source = "ema_pytorch, KarrasEMA",
	.formula = "fires when (n-1) % every = 0; n = 1: COPY; LERP (1-1/(n+1))^(1+gamma), gamma from sigma",
	.form = FORM_LERP, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_FREEZE, .at = ema_pytorch_karras_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES_NOT(SAME_SHARE),
	KEYS([KARRAS_SIGMA] = NUMBER("sigma", "sigma_rel", .05, STD_MIN, STD_MAX, NONE,
	                             "relative width of the average"),
	     [KARRAS_EVERY] = WHOLE("every", "update_every", 10, 1, NONE, "calls from one firing to the next"),
	     [KARRAS_GAMMA] = ALTERNATIVE("gamma", NULL, 0, 1e6, NONE, "the exponent itself, instead of sigma")),
},
{
	.name = "power",
	.text = "A power-function average: at any time it covers the same share of the run, whose width is "
	        "`std`. From stored snapshots of two or more of them an average of any other width can be put "
	        "together afterwards.",
	.source = "EDM2, training/phema.py, PowerFunctionEMA",
	.formula = "t the step, dt since the previous call; n = 1: COPY; LERP (1-dt/t)^(gamma+1), gamma from std",
	.form = FORM_LERP, .float_buffer = ENTRY_COPY, .integer = ENTRY_COPY, .uses_step = true, .at = power_at,
	.spans_steps = true, STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([POWER_STD] = NUMBER("std", "sigma_rel", .05, STD_MIN, STD_MAX, NONE, "relative width of the average"),
	     [POWER_GAMMA] = ALTERNATIVE("gamma", "exp", 0, 1e6, NONE, "the exponent itself, instead of std")),
},
{
	.name = "edm",
	.text = "An exponential average whose half-life is at most a part of the run so far, so that the start "
	        "is forgotten.",
	.source = "EDM2, training/phema.py, TraditionalEMA (half-life here in steps, there in millions of images)",
	.formula = "t the step, dt since the previous call; LERP 2^-(dt/max(min(halflife, rampup*t), 1e-8))",
	.form = FORM_LERP, .float_buffer = ENTRY_COPY, .integer = ENTRY_COPY, .uses_step = true, .at = edm_at,
	.spans_steps = true, STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([EDM_HALFLIFE] = NUMBER("halflife", "half_life", INFINITY, 0, LENGTH_MAX, NONE,
	                             "half-life in the unit of the step; unlimited unless given"),
	     [EDM_RAMPUP] = NUMBER("rampup", "rampup_ratio ema_rampup_ratio", .09, 0, LENGTH_MAX, NONE,
	                           "largest half-life as a part of the step")),
},
{
	.name = "half-life",
	.text = "An exponential average given by its half-life: what is that many steps old weighs half.",
	.source = "Composer, algorithms/ema, EMA; averages parameters and buffers",
	.formula = "step < start: NOOP; first call from start on, if the shadow is older: COPY; "
	           "fires when step % interval = 0: LERP 2^-(interval/half_life)",
	.form = FORM_MUL_ADD, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_COPY, .uses_step = true,
	.at = half_life_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([HL_HALF_LIFE] = NUMBER("half_life", "halflife", 1000, LENGTH_MIN, LENGTH_MAX, LENGTH,
	                             "half-life in steps"),
	     [HL_INTERVAL] = WHOLE("interval", "update_interval", 1, 1, NONE, "steps from one firing to the next"),
	     [HL_START] = WHOLE("start", "ema_start", 0, 0, LENGTH, "first step that counts")),
},
{
	.name = "torchtitan",
	.text = "An exponential average whose half-life is always the same part of the firings so far, or of "
	        "constant decay.",
	.source = "torchtitan, components/ema.py, EMAOptimizersContainer; holds parameters only, refuses integer ones",
	.formula = "elapsed = step-start; fires when elapsed > 0 and elapsed % every = 0; "
	           "k = max(elapsed/every + bias, 1); LERP 2^(-1/(fraction*k)), or LERP decay",
	.form = FORM_LERP, .float_buffer = ENTRY_DROP, .integer = ENTRY_DROP, .uses_step = true, .at = torchtitan_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([TITAN_FRACTION] = NUMBER("fraction", "half_life_fraction", .05, LENGTH_MIN, LENGTH_MAX, NONE,
	                               "half-life as a part of the firings so far"),
	     [TITAN_START] = WHOLE("start", "start_step", 0, 0, LENGTH, "last step before the first firing"),
	     [TITAN_EVERY] = WHOLE("every", "update_every_n_steps", 1, 1, NONE, "steps from one firing to the next"),
	     [TITAN_BIAS] = WHOLE("bias", "step_bias", 0, -WHOLE_MAX, LENGTH, "added to the number of firings"),
	     [TITAN_DECAY] = ALTERNATIVE("decay", NULL, 0, 1, DECAY, "a constant decay, instead of fraction")),
},
{
	.name = "swa",
	.text = "Stochastic weight averaging: the plain mean of all snapshots that fired so far.",
	.source = "torch.optim.swa_utils.AveragedModel without avg_fn; mmengine, StochasticWeightAverage",
	.formula = "fires when (n-1) % interval = 0; m = (n-1)/interval; m = 0: COPY; LERP m/(m+1)",
	.form = FORM_LERP, .float_buffer = ENTRY_COPY, .integer = ENTRY_COPY, .at = swa_at,
	STARTS_AS_COPY, BUFFERS_BY(SWA_USE_BUFFERS, ENTRY_COPY), SCALES_NOT(SAME_SHARE),
	KEYS([SWA_INTERVAL] = WHOLE("interval", NULL, 1, 1, NONE, "calls from one firing to the next"),
	     [SWA_USE_BUFFERS] = FLAG("use_buffers", NULL, 0, "1: average floating-point buffers too")),
},
{
	.name = "averaged-model",
	.text = "PyTorch's own averaged model with an exponential average: the first call copies, from there on "
	        "the decay is constant.",
	.source = "torch.optim.swa_utils.AveragedModel with get_ema_avg_fn",
	.formula = "n = 1: COPY; LERP decay",
	.form = FORM_LERP, .float_buffer = ENTRY_COPY, .integer = ENTRY_COPY, .at = averaged_model_at,
	STARTS_AS_COPY, BUFFERS_BY(AVERAGED_MODEL_USE_BUFFERS, ENTRY_COPY), SCALES,
	KEYS([AVERAGED_MODEL_DECAY] = NUMBER("decay", NULL, .999, 0, 1, DECAY, "weight of the old shadow"),
	     [AVERAGED_MODEL_USE_BUFFERS] = FLAG("use_buffers", NULL, 0, "1: average floating-point buffers too")),
},
{
	.name = "mmengine",
	.text = "The average of OpenMMLab. The first call copies; `momentum` is the weight of the NEW value.",
	.source = "mmengine, ExponentialMovingAverage",
	.formula = "n = 1: COPY; fires when (n-1) % interval = 0: LERP 1-momentum",
	.form = FORM_LERP, .float_buffer = ENTRY_COPY, .integer = ENTRY_COPY, .at = mmengine_at,
	STARTS_AS_COPY, BUFFERS_BY(MM_UPDATE_BUFFERS, ENTRY_FIRST), SCALES,
	KEYS([MM_MOMENTUM] = NUMBER("momentum", NULL, .0002, 0, 1, WEIGHT, "weight of the new value"),
	     [MM_INTERVAL] = WHOLE("interval", NULL, 1, 1, NONE, "calls from one firing to the next"),
	     [MM_UPDATE_BUFFERS] = FLAG("update_buffers", NULL, 0,
	                                "1: average floating-point buffers, keep integers as at the first call")),
},
{
	.name = "mmengine-annealing",
	.text = "As mmengine, with a weight of the new value that is large at first and falls as "
	        "gamma/(gamma+n-1).",
	.source = "mmengine, MomentumAnnealingEMA",
	.formula = "n = 1: COPY; fires when (n-1) % interval = 0: LERP 1-max(momentum, gamma/(gamma+n-1))",
	.form = FORM_LERP, .float_buffer = ENTRY_COPY, .integer = ENTRY_COPY, .at = mmengine_annealing_at,
	STARTS_AS_COPY, BUFFERS_BY(MM_UPDATE_BUFFERS, ENTRY_FIRST), SCALES,
	KEYS([MM_MOMENTUM] = NUMBER("momentum", NULL, .0002, 0, 1, WEIGHT, "smallest weight of the new value"),
	     [MM_INTERVAL] = WHOLE("interval", NULL, 1, 1, NONE, "calls from one firing to the next"),
	     [MM_UPDATE_BUFFERS] = FLAG("update_buffers", NULL, 0,
	                                "1: average floating-point buffers, keep integers as at the first call"),
	     [MM_GAMMA] = NUMBER("gamma", NULL, 100, LENGTH_MIN, LENGTH_MAX, NONE, "length of the warm-up in calls")),
},
{
	.name = "mmdet-exp",
	.text = "As mmengine, with a weight of the new value that falls exponentially; the average of YOLOX in "
	        "OpenMMLab.",
	.source = "mmdetection, ExpMomentumEMA",
	.formula = "n = 1: COPY; fires when (n-1) % interval = 0: LERP 1-((1-momentum)*exp(-n/gamma)+momentum)",
	.form = FORM_LERP, .float_buffer = ENTRY_COPY, .integer = ENTRY_COPY, .at = mmdet_exp_at,
	STARTS_AS_COPY, BUFFERS_BY(MM_UPDATE_BUFFERS, ENTRY_FIRST), SCALES,
	KEYS([MM_MOMENTUM] = NUMBER("momentum", NULL, .0002, 0, 1, WEIGHT,
	                             "weight of the new value at the end of the warm-up"),
	     [MM_INTERVAL] = WHOLE("interval", NULL, 1, 1, NONE, "calls from one firing to the next"),
	     [MM_UPDATE_BUFFERS] = FLAG("update_buffers", NULL, 0,
	                                "1: average floating-point buffers, keep integers as at the first call"),
	     [MM_GAMMA] = NUMBER("gamma", "total_iter", 2000, LENGTH_MIN, LENGTH_MAX, LENGTH,
	                         "length of the warm-up in calls")),
},
{
	.name = "keras",
	.text = "The average that Keras' optimizers keep. The first call copies; `momentum` is the weight of "
	        "the OLD average here.",
	.source = "Keras, optimizers with use_ema; averages trainable variables, the others stay the model's own",
	.formula = "n = 1: COPY; LERP momentum",
	.form = FORM_MUL_ADD, .float_buffer = ENTRY_COPY, .integer = ENTRY_COPY, .at = keras_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([KERAS_MOMENTUM] = NUMBER("momentum", "ema_momentum decay", .99, 0, 1, DECAY, "weight of the old shadow")),
},
{
	.name = "lightning",
	.text = "The callback of Lightning, counted in the trainer's steps: it begins at step `start`, with a "
	        "copy.",
	.source = "Lightning, EMAWeightAveraging; averages parameters and buffers (use_buffers=True)",
	.formula = "fires when step >= start and (step-start) % every = 0; first firing: COPY; LERP decay",
	.form = FORM_LERP, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_COPY, .uses_step = true, .at = lightning_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([LIGHTNING_DECAY] = NUMBER("decay", NULL, .999, 0, 1, DECAY, "weight of the old shadow"),
	     [LIGHTNING_EVERY] = WHOLE("every", "update_every_n_steps", 1, 1, NONE,
	                               "steps from one firing to the next"),
	     [LIGHTNING_START] = WHOLE("start", "update_starting_at_step", 0, 0, LENGTH, "first step that fires")),
},
{
	.name = "fairseq",
	.text = "Follows the weights for `start` calls, from there on the decay is constant.",
	.source = "fairseq, models/ema; averages the whole state_dict",
	.formula = "fires when n % every = 0; n <= start: COPY; LERP decay",
	.form = FORM_MUL_ADD, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_COPY, .at = fairseq_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([FAIRSEQ_DECAY] = NUMBER("decay", "ema_decay", .9999, 0, 1, DECAY, "weight of the old shadow"),
	     [FAIRSEQ_START] = WHOLE("start", "ema_start_update", 0, 0, LENGTH, "calls that only copy"),
	     [FAIRSEQ_EVERY] = WHOLE("every", "ema_update_freq", 1, 1, NONE, "calls from one firing to the next")),
},
{
	.name = "linear",
	.text = "The teacher of self-supervised training: the decay rises in a straight line from `start` to "
	        "`end`.",
	.source = "data2vec, I-JEPA",
	.formula = "k = n-1; k >= total: LERP end; LERP end-(end-start)*(1-k/total)",
	.form = FORM_LERP, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_COPY, .at = linear_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([RAMP_START] = NUMBER("start", "ema_decay", .999, 0, 1, DECAY, "first decay"),
	     [RAMP_END] = NUMBER("end", "ema_end_decay", .9999, 0, 1, DECAY, "last decay"),
	     [RAMP_TOTAL] = WHOLE("total", "ema_anneal_end_step", 100000, 1, LENGTH, "calls of the ramp")),
},
{
	.name = "cosine",
	.text = "The teacher of self-supervised training: the decay rises along half a cosine, by default to 1, "
	        "where the teacher stands still.",
	.source = "BYOL, DINO, lightly.utils.scheduler.cosine_schedule",
	.formula = "k = n-1; k >= total-1: LERP end; LERP end-(end-start)*(cos(pi*k/(total-1))+1)/2",
	.form = FORM_LERP, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_COPY, .at = cosine_at,
	STARTS_AS_COPY, BUFFERS_FIXED, SCALES,
	KEYS([RAMP_START] = NUMBER("start", "start_value base_momentum momentum_teacher", .996, 0, 1, DECAY,
	                           "first decay"),
	     [RAMP_END] = NUMBER("end", "end_value", 1, 0, 1, DECAY, "last decay"),
	     [RAMP_TOTAL] = WHOLE("total", "max_steps", 100000, 1, LENGTH, "calls of the ramp")),
},
{
	.name = "optax",
	.text = "Starts at zero, whose share is divided out: the weighted mean of what was pushed, and nothing of "
	        "the start.",
	.source = "Optax, optax.ema",
	.formula = "starts at zero: LERP decay; what is served is divided by 1 - the product of all decays",
	.form = FORM_MUL_ADD, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_COPY, .at = optax_at,
	STARTS_AT_ZERO(OPTAX_DEBIAS), BUFFERS_FIXED, SCALES,
	KEYS([OPTAX_DECAY] = NUMBER("decay", NULL, .999, 0, BELOW_ONE, DECAY, "weight of the old shadow"),
	     [OPTAX_DEBIAS] = FLAG("debias", NULL, 1, "1: divide the start at zero out; 0: serve it as it is")),
},
{
	.name = "paddle",
	.text = "The average of PaddlePaddle's detectors: it starts at zero, whose share is divided out, and has one "
	        "of two warm-ups.",
	.source = "PaddleDetection, ppdet/optimizer/ema.py, ModelEMA; "
	          "the start is divided out by the true product of the decays",
	.formula = "starts at zero: k = n-1; mode=threshold: LERP min(decay, (1+k)/(10+k)); "
	           "mode=exponential: LERP decay*(1-exp(-n/2000)); "
	           "what is served is divided by 1 - the product of all decays",
	.form = FORM_MUL_ADD, .float_buffer = ENTRY_AVERAGE, .integer = ENTRY_COPY, .at = paddle_at,
	STARTS_AT_ZERO(PADDLE_DEBIAS), BUFFERS_FIXED,
	SCALES_NOT(RISES_ALONE),
	KEYS([PADDLE_DECAY] = NUMBER("decay", "ema_decay", .9998, 0, 1, DECAY, "largest decay"),
	     [PADDLE_MODE] = WORD("mode", "ema_decay_type", PADDLE_THRESHOLD, PADDLE_EXPONENTIAL,
	                          "threshold exponential", "how the decay rises"),
	     [PADDLE_DEBIAS] = FLAG("debias", NULL, 1, "1: divide the start at zero out; 0: serve it as it is")),
},
};
/* clang-format on */

const struct schedule_kind *schedule_kinds(size_t *ret_count)
{
	*ret_count = sizeof(KINDS) / sizeof(*KINDS);
	return KINDS;
}
