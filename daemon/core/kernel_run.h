/*
 * The loops over one run for one work type, included by kernel_inner.h once for float and once for double.
 * REAL is the type, X(name) is name_f32 or name_f64. Deliberately without an include guard.
 */

/*
 * One block. step and streams are constants in the hot loops. The sums may be NULL; drift only for STEP_ASSIGN, and
 * then there is no shadow either.
 */
INLINE void X(block)(REAL *target, const REAL *shadow, const REAL *value, enum step step, REAL keep, REAL take,
		     bool streams, struct sums *drift, struct sums *value_squares)
{
	UNROLLED
	for (unsigned p = 0; p < KERNEL_LANES / X(WIDTH); p++) {
		unsigned j = p * X(WIDTH);
		X(vector) x = X(load)(value + j);
		X(vector) result = x;

		if (value_squares)
			X(sums_add_loaded)(value_squares, p, value + j);
		if (drift) {
			X(vector) s = X(load)(shadow + j);
			X(vector) difference = step == STEP_SUB ? s - x : x - s;
			X(sums_add)(drift, p, difference);
			switch (step) {
			case STEP_LERP:
				result = s + take * difference;
				break;
			case STEP_MUL_ADD:
				result = s * keep + take * x;
				break;
			case STEP_SUB:
				result = s - take * difference;
				break;
			case STEP_ASSIGN:
				break;
			}
		}
		if (streams)
			X(stream)(target + j, result);
		else
			X(store)(target + j, result);
	}
}

/* count elements from lane number `first` on, inside one block: a run's head or tail. */
static __attribute__((noinline)) void X(part)(REAL *target, const REAL *shadow, const REAL *value, unsigned first,
					      unsigned count, enum step step, double decay, struct kernel_lanes *drift,
					      struct kernel_lanes *value_squares)
{
	REAL to[KERNEL_LANES], s[KERNEL_LANES], x[KERNEL_LANES];
	struct sums drift_sums, square_sums;

	X(part_load)(x, value, first, count);
	if (drift) {
		X(part_load)(s, shadow, first, count);
		drift_sums = sums_load(drift);
	}
	if (value_squares)
		square_sums = sums_load(value_squares);
	X(block)
	(to, s, x, step, (REAL)decay, (REAL)(1.0 - decay), false, drift ? &drift_sums : NULL,
	 value_squares ? &square_sums : NULL);
	X(part_store)(target, to, first, count);
	if (drift)
		sums_store(&drift_sums, drift);
	if (value_squares)
		sums_store(&square_sums, value_squares);
}

/* The whole blocks of a run; drifts and squares are constants where this is inlined, so that no lane is dead weight. */
INLINE void X(blocks)(REAL *target, const REAL *shadow, const REAL *value, size_t block_count, enum step step,
		      double decay, bool drifts, bool squares, struct kernel_lanes *drift,
		      struct kernel_lanes *value_squares)
{
	REAL keep = (REAL)decay, take = (REAL)(1.0 - decay);
	bool streams = (uintptr_t)target % CACHE_LINE == 0;
	struct sums drift_sums, square_sums;

	if (drifts)
		drift_sums = sums_load(drift);
	if (squares)
		square_sums = sums_load(value_squares);
	for (size_t i = 0; i < block_count * KERNEL_LANES; i += KERNEL_LANES) {
		const REAL *s = drifts ? shadow + i : NULL;
		UNROLLED
		for (unsigned j = 0; j < KERNEL_LANES; j += CACHE_LINE / sizeof(REAL)) {
			prefetch(value + i + j);
			if (drifts)
				prefetch(s + j);
		}
		X(block)
		(target + i, s, value + i, step, keep, take, streams, drifts ? &drift_sums : NULL,
		 squares ? &square_sums : NULL);
	}
	if (drifts)
		sums_store(&drift_sums, drift);
	if (squares)
		sums_store(&square_sums, value_squares);
}

/* One run: its head up to the first whole block, the whole blocks, its tail. */
INLINE void X(run)(REAL *target, const REAL *shadow, const REAL *value, size_t count, unsigned phase, enum step step,
		   double decay, struct kernel_lanes *drift, struct kernel_lanes *value_squares)
{
	assert(phase < KERNEL_LANES);
	size_t head = (KERNEL_LANES - phase) % KERNEL_LANES;
	if (head > count)
		head = count;
	size_t block_count = (count - head) / KERNEL_LANES;
	size_t tail = head + block_count * KERNEL_LANES;

	if (head)
		X(part)(target, shadow, value, phase, (unsigned)head, step, decay, drift, value_squares);
	if (block_count) {
		REAL *to = target + head;
		const REAL *s = drift ? shadow + head : NULL;
		const REAL *x = value + head;
		if (drift && value_squares)
			X(blocks)(to, s, x, block_count, step, decay, true, true, drift, value_squares);
		else if (drift)
			X(blocks)(to, s, x, block_count, step, decay, true, false, drift, NULL);
		else if (step == STEP_ASSIGN && value_squares)
			X(blocks)(to, NULL, x, block_count, step, decay, false, true, NULL, value_squares);
		else if (step == STEP_ASSIGN)
			X(blocks)(to, NULL, x, block_count, step, decay, false, false, NULL, NULL);
	}
	if (tail < count)
		X(part)
		(target + tail, drift ? shadow + tail : NULL, value + tail, 0, (unsigned)(count - tail), step, decay,
		 drift, value_squares);
}

static void X(lerp)(REAL *target, const REAL *shadow, const REAL *value, size_t count, unsigned phase, double decay,
		    struct kernel_lanes *drift, struct kernel_lanes *value_squares)
{
	assert(drift);
	X(run)(target, shadow, value, count, phase, STEP_LERP, decay, drift, value_squares);
}

static void X(mul_add)(REAL *target, const REAL *shadow, const REAL *value, size_t count, unsigned phase, double decay,
		       struct kernel_lanes *drift, struct kernel_lanes *value_squares)
{
	assert(drift);
	X(run)(target, shadow, value, count, phase, STEP_MUL_ADD, decay, drift, value_squares);
}

static void X(sub)(REAL *target, const REAL *shadow, const REAL *value, size_t count, unsigned phase, double decay,
		   struct kernel_lanes *drift, struct kernel_lanes *value_squares)
{
	assert(drift);
	X(run)(target, shadow, value, count, phase, STEP_SUB, decay, drift, value_squares);
}

static void X(assign)(REAL *target, const REAL *shadow, const REAL *value, size_t count, unsigned phase,
		      struct kernel_lanes *drift, struct kernel_lanes *value_squares)
{
	X(run)(target, shadow, value, count, phase, STEP_ASSIGN, 0.0, shadow ? drift : NULL, value_squares);
}
