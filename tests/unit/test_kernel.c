/*
 * The kernels: the scalar set against the arithmetic spelled out here, and every other set that this processor can
 * run against the scalar one, bit by bit, on values of every kind, at every phase and alignment.
 */
#include "daemon/core/kernel.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	ELEMENTS_MAX = 2200,
	MARGIN = 64, /* elements around an array that must stay as they are */
	FORM_COUNT = 3,
	STEP_COUNT = FORM_COUNT + 2, /* the forms, the assignment with a shadow and without */
};

static const enum dtype NARROW[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F8_E4M3, DTYPE_F8_E5M2};
static const size_t COUNTS[] = {0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 47, 64, 100, 255, 511, 512, 513, 2049};
static const double DECAYS[] = {0.9999, 0.999, 0.5, 0.1, 0.0, 1.0, 0.3333333333333333};

enum mix {
	MIX_ORDINARY,
	MIX_FINITE, /* with zeros of both signs, subnormals, and the largest values */
	MIX_ANY,    /* with infinities and NaN too */
	MIX_COUNT,
};

/* Check records every assertion that it passes: the loops over elements speak up only when something differs. */

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static double random_value(uint64_t *state, enum mix mix, bool is_f64)
{
	static const double f32_special[] = {0.0,      -0.0,           0x1p-149,       -0x1.8p-140,
					     0x1p-126, 0x1.fffffep127, -0x1.fffffep127};
	static const double f64_special[] = {0.0, -0.0, 0x1p-1074, -0x1.8p-1060, 0x1p-1022, 0x1p511, -0x1.8p512};
	static const double nonfinite[] = {INFINITY, -INFINITY, NAN};
	uint64_t bits = random_next(state);
	double value = ldexp((double)(int64_t)bits, -63 + (int)(random_next(state) % 41) - 20);

	if (mix != MIX_ORDINARY && bits % 7 == 0)
		value = (is_f64 ? f64_special : f32_special)[random_next(state) % 7];
	if (mix == MIX_ANY && bits % 61 == 0)
		value = nonfinite[random_next(state) % 3];
	return value;
}

static bool same_f32(float a, float b)
{
	return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

static bool same_f64(double a, double b)
{
	return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

static void lanes_assert_same(const struct kernel_lanes *a, const struct kernel_lanes *b, const char *what)
{
	for (unsigned i = 0; i < KERNEL_LANES; i++)
		if (!same_f64(a->lane[i], b->lane[i]))
			ck_abort_msg("%s lane %u: %a and %a", what, i, a->lane[i], b->lane[i]);
}

/* Lanes that have counted before, so that a set which starts from zero is found out. */
static struct kernel_lanes lanes_used(void)
{
	struct kernel_lanes lanes;
	for (unsigned i = 0; i < KERNEL_LANES; i++)
		lanes.lane[i] = 0x1.23456789abcdep-5 * (i + 1);
	return lanes;
}

/* The sets to hold against the scalar one: its own entry is last, and compares trivially. */
static const struct kernel_set *set_at(int index)
{
	size_t count;
	const struct kernel_set *const *sets = kernel_sets(&count);
	return (size_t)index < count ? sets[index] : NULL;
}

enum { SETS_MAX = 4 };

/* One update or assignment, by either work type. */
struct call {
	unsigned step;
	size_t count;
	unsigned phase;
	double decay;
	bool squares; /* whether value_squares is given */
};

static void call_f32(const struct kernel_set *set, const struct call *call, float *target, const float *shadow,
		     const float *value, struct kernel_lanes *drift, struct kernel_lanes *squares)
{
	struct kernel_lanes *counted = call->squares ? squares : NULL;
	if (call->step < FORM_COUNT)
		set->update_f32[call->step](target, shadow, value, call->count, call->phase, call->decay, drift,
					    counted);
	else
		set->assign_f32(target, call->step == FORM_COUNT ? shadow : NULL, value, call->count, call->phase,
				drift, counted);
}

static void call_f64(const struct kernel_set *set, const struct call *call, double *target, const double *shadow,
		     const double *value, struct kernel_lanes *drift, struct kernel_lanes *squares)
{
	struct kernel_lanes *counted = call->squares ? squares : NULL;
	if (call->step < FORM_COUNT)
		set->update_f64[call->step](target, shadow, value, call->count, call->phase, call->decay, drift,
					    counted);
	else
		set->assign_f64(target, call->step == FORM_COUNT ? shadow : NULL, value, call->count, call->phase,
				drift, counted);
}

static void bytes_assert_filled(const void *bytes, size_t count, const char *where)
{
	for (size_t i = 0; i < count; i++)
		if (((const unsigned char *)bytes)[i] != 0xa5)
			ck_abort_msg("%s was written, byte %zu", where, i);
}

/* One call of a set and of the scalar set on the same arrays, the target `shift` elements off a cache line. */
static void compare_f32(const struct kernel_set *set, const struct call *call, unsigned shift, enum mix mix)
{
	static _Alignas(128) float room[ELEMENTS_MAX + 2 * MARGIN], expected[ELEMENTS_MAX];
	static float shadow[ELEMENTS_MAX + 1], value[ELEMENTS_MAX + 1];
	struct kernel_lanes drift = lanes_used(), drift_expected = drift, squares = drift, squares_expected = drift;
	uint64_t state = 88172645463325252u + call->count + shift;
	float *target = room + MARGIN + shift;

	for (size_t i = 0; i <= call->count; i++) {
		shadow[i] = (float)random_value(&state, mix, false);
		value[i] = i % 5 ? (float)random_value(&state, mix, false) : shadow[i];
	}
	memset(room, 0xa5, (call->count + 2 * MARGIN) * sizeof *room);
	call_f32(&kernel_scalar, call, expected, shadow + 1, value, &drift_expected, &squares_expected);
	call_f32(set, call, target, shadow + 1, value, &drift, &squares);
	kernel_fence();
	for (size_t i = 0; i < call->count; i++)
		if (!same_f32(target[i], expected[i]))
			ck_abort_msg("%s step %u phase %u count %zu shift %u: [%zu] is %a, not %a", set->name,
				     call->step, call->phase, call->count, shift, i, (double)target[i],
				     (double)expected[i]);
	bytes_assert_filled(room, (MARGIN + shift) * sizeof *room, "before the target");
	bytes_assert_filled(target + call->count, (MARGIN - shift) * sizeof *room, "behind the target");
	lanes_assert_same(&drift, &drift_expected, "drift");
	lanes_assert_same(&squares, &squares_expected, "squares");
}

static void compare_f64(const struct kernel_set *set, const struct call *call, unsigned shift, enum mix mix)
{
	static _Alignas(128) double room[ELEMENTS_MAX + 2 * MARGIN], expected[ELEMENTS_MAX];
	static double shadow[ELEMENTS_MAX + 1], value[ELEMENTS_MAX + 1];
	struct kernel_lanes drift = lanes_used(), drift_expected = drift, squares = drift, squares_expected = drift;
	uint64_t state = 88172645463325252u + call->count + shift;
	double *target = room + MARGIN + shift;

	for (size_t i = 0; i <= call->count; i++) {
		shadow[i] = random_value(&state, mix, true);
		value[i] = i % 5 ? random_value(&state, mix, true) : shadow[i];
	}
	memset(room, 0xa5, (call->count + 2 * MARGIN) * sizeof *room);
	call_f64(&kernel_scalar, call, expected, shadow + 1, value, &drift_expected, &squares_expected);
	call_f64(set, call, target, shadow + 1, value, &drift, &squares);
	kernel_fence();
	for (size_t i = 0; i < call->count; i++)
		if (!same_f64(target[i], expected[i]))
			ck_abort_msg("%s step %u phase %u count %zu shift %u: [%zu] is %a, not %a", set->name,
				     call->step, call->phase, call->count, shift, i, target[i], expected[i]);
	bytes_assert_filled(room, (MARGIN + shift) * sizeof *room, "before the target");
	bytes_assert_filled(target + call->count, (MARGIN - shift) * sizeof *room, "behind the target");
	lanes_assert_same(&drift, &drift_expected, "drift");
	lanes_assert_same(&squares, &squares_expected, "squares");
}

START_TEST(every_set_returns_the_bits_of_the_scalar_one)
{
	const struct kernel_set *set = set_at(_i);
	if (!set)
		return;
	unsigned turn = 0;
	for (unsigned step = 0; step < STEP_COUNT; step++) {
		for (size_t c = 0; c < sizeof COUNTS / sizeof COUNTS[0]; c++) {
			for (unsigned phase = 0; phase < KERNEL_LANES; phase++, turn++) {
				struct call call = {
					.step = step,
					.count = COUNTS[c],
					.phase = phase,
					.decay = DECAYS[turn % (sizeof DECAYS / sizeof DECAYS[0])],
					.squares = turn % 3 != 0,
				};
				for (enum mix mix = 0; mix < MIX_COUNT; mix++) {
					compare_f32(set, &call, phase, mix);
					compare_f64(set, &call, phase, mix);
				}
				/* And where the target is not aligned as the phase promises. */
				compare_f32(set, &call, (phase + 1 + turn % 15) % KERNEL_LANES, MIX_FINITE);
				compare_f64(set, &call, (phase + 1 + turn % 15) % KERNEL_LANES, MIX_FINITE);
			}
		}
	}
}
END_TEST

START_TEST(rounds_every_operation_on_its_own)
{
	uint64_t state = 42;
	for (unsigned n = 0; n < 2000; n++) {
		float s = (float)random_value(&state, MIX_ORDINARY, false);
		float x = (float)random_value(&state, MIX_ORDINARY, false);
		double decay = DECAYS[n % 4];
		float shadow[16], value[16], target[16];
		for (unsigned i = 0; i < 16; i++) {
			shadow[i] = s;
			value[i] = x;
		}
		/* volatile, so that nothing here can be fused or kept in higher precision */
		volatile float keep = (float)decay, take = (float)(1.0 - decay);
		volatile float difference = x - s, reverse = s - x, part = take * difference,
			       reverse_part = take * reverse;
		volatile float kept = s * keep, taken = take * x;
		volatile float expected[FORM_COUNT] = {
			[FORM_LERP] = s + part, [FORM_MUL_ADD] = kept + taken, [FORM_SUB] = s - reverse_part};
		volatile double square = (double)difference * (double)difference;

		for (int index = 0; set_at(index); index++) {
			for (unsigned form = 0; form < FORM_COUNT; form++) {
				struct kernel_lanes drift = {0}, squares = {0};
				set_at(index)->update_f32[form](target, shadow, value, 16, 0, decay, &drift, &squares);
				ck_assert(same_f32(target[n % 16], expected[form]));
				ck_assert(same_f64(drift.lane[n % 16], square));
				ck_assert(same_f64(squares.lane[n % 16], (double)x * (double)x));
			}
		}
	}
}
END_TEST

START_TEST(rounds_every_operation_on_its_own_in_double)
{
	uint64_t state = 43;
	for (unsigned n = 0; n < 2000; n++) {
		double s = random_value(&state, MIX_ORDINARY, true), x = random_value(&state, MIX_ORDINARY, true);
		double decay = DECAYS[n % 4], shadow[16], value[16], target[16];
		for (unsigned i = 0; i < 16; i++) {
			shadow[i] = s;
			value[i] = x;
		}
		volatile double take = 1.0 - decay, difference = x - s, reverse = s - x, part = take * difference;
		volatile double reverse_part = take * reverse, kept = s * decay, taken = take * x;
		volatile double expected[FORM_COUNT] = {
			[FORM_LERP] = s + part, [FORM_MUL_ADD] = kept + taken, [FORM_SUB] = s - reverse_part};
		volatile double before = 0.1, square = difference * difference, after = before + square;

		for (int index = 0; set_at(index); index++) {
			for (unsigned form = 0; form < FORM_COUNT; form++) {
				struct kernel_lanes drift, squares = {0};
				for (unsigned i = 0; i < KERNEL_LANES; i++)
					drift.lane[i] = before;
				set_at(index)->update_f64[form](target, shadow, value, 16, 0, decay, &drift, &squares);
				ck_assert(same_f64(target[n % 16], expected[form]));
				ck_assert(same_f64(drift.lane[n % 16], after));
			}
		}
	}
}
END_TEST

START_TEST(a_constant_input_is_a_fixed_point_of_lerp_and_sub)
{
	const struct kernel_set *set = set_at(_i);
	if (!set)
		return;
	static float values[1000], target[1000];
	uint64_t state = 7;
	for (unsigned i = 0; i < 1000; i++)
		values[i] = (float)random_value(&state, MIX_ORDINARY, false);
	static const enum schedule_form forms[] = {FORM_LERP, FORM_SUB};
	for (unsigned f = 0; f < 2; f++) {
		struct kernel_lanes drift = {0};
		set->update_f32[forms[f]](target, values, values, 1000, 3, 0.9999, &drift, NULL);
		ck_assert_mem_eq(target, values, sizeof values);
		ck_assert_double_eq(kernel_lanes_sum(&drift), 0.0);
	}
}
END_TEST

START_TEST(the_sums_do_not_depend_on_where_a_run_is_cut)
{
	const struct kernel_set *set = set_at(_i);
	if (!set)
		return;
	static float shadow[700], value[700], target[700];
	uint64_t state = 9;
	for (unsigned i = 0; i < 700; i++) {
		shadow[i] = (float)random_value(&state, MIX_FINITE, false) * 0x1p-3f;
		value[i] = (float)random_value(&state, MIX_FINITE, false) * 0x1p-3f;
	}
	struct kernel_lanes drift = {0}, squares = {0};
	set->update_f32[FORM_LERP](target, shadow, value, 700, 11, 0.99, &drift, &squares);
	for (size_t cut = 0; cut <= 700; cut += 13) {
		struct kernel_lanes drift_cut = {0}, squares_cut = {0};
		set->update_f32[FORM_LERP](target, shadow, value, cut, 11, 0.99, &drift_cut, &squares_cut);
		set->update_f32[FORM_LERP](target + cut, shadow + cut, value + cut, 700 - cut, (11 + cut) % 16, 0.99,
					   &drift_cut, &squares_cut);
		lanes_assert_same(&drift_cut, &drift, "drift");
		lanes_assert_same(&squares_cut, &squares, "squares");
	}
}
END_TEST

START_TEST(a_nonfinite_value_always_shows_in_the_squares)
{
	const struct kernel_set *set = set_at(_i);
	if (!set)
		return;
	static const float bad[] = {INFINITY, -INFINITY, NAN};
	static float shadow[100], value[100], target[100];
	for (unsigned at = 0; at < 100; at++) {
		struct kernel_lanes drift = {0}, squares = {0};
		for (unsigned i = 0; i < 100; i++)
			value[i] = 0x1.fffffep127f;
		set->update_f32[FORM_LERP](target, shadow, value, 100, 0, 0.5, &drift, &squares);
		ck_assert(isfinite(kernel_lanes_sum(&squares)));
		value[at] = bad[at % 3];
		set->update_f32[FORM_LERP](target, shadow, value, 100, 0, 0.5, &drift, &squares);
		ck_assert(!isfinite(kernel_lanes_sum(&squares)));
	}
}
END_TEST

/* What the bits of a narrow float mean, from its definition alone. */
static double narrow_value(enum dtype dtype, unsigned bits)
{
	int exponent_bits = dtype == DTYPE_BF16 ? 8 : dtype == DTYPE_F8_E4M3 ? 4 : 5;
	int mantissa_bits = dtype == DTYPE_F16 ? 10 : dtype == DTYPE_BF16 ? 7 : dtype == DTYPE_F8_E4M3 ? 3 : 2;
	int exponent = (int)(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
	int mantissa = (int)bits & ((1 << mantissa_bits) - 1);
	int bias = (1 << (exponent_bits - 1)) - 1;
	bool is_negative = bits >> (exponent_bits + mantissa_bits) & 1;
	double value;

	if (dtype == DTYPE_F8_E4M3 ? exponent == 15 && mantissa == 7 : exponent == (1 << exponent_bits) - 1)
		value = dtype == DTYPE_F8_E4M3 || mantissa ? NAN : INFINITY;
	else if (exponent == 0)
		value = ldexp(mantissa, 1 - bias - mantissa_bits);
	else
		value = ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
	return is_negative ? -value : value;
}

START_TEST(widens_every_narrow_float_exactly)
{
	const struct kernel_set *set = set_at(_i);
	if (!set)
		return;
	for (unsigned d = 0; d < sizeof NARROW / sizeof NARROW[0]; d++) {
		bool is_byte = NARROW[d] == DTYPE_F8_E4M3 || NARROW[d] == DTYPE_F8_E5M2;
		unsigned patterns = is_byte ? 256 : 65536, chunk = is_byte ? 256 : KERNEL_CHUNK;
		for (unsigned first = 0; first < patterns; first += chunk) {
			unsigned char bytes[KERNEL_CHUNK];
			uint16_t halves[KERNEL_CHUNK];
			float f32[KERNEL_CHUNK];
			double f64[KERNEL_CHUNK];
			for (unsigned i = 0; i < chunk; i++) {
				bytes[i] = (unsigned char)(first + i);
				halves[i] = (uint16_t)(first + i);
			}
			const void *source = is_byte ? (const void *)bytes : halves;
			set->widen_f32[NARROW[d]](f32, source, chunk);
			set->widen_f64[NARROW[d]](f64, source, chunk);
			for (unsigned i = 0; i < chunk; i++) {
				double expected = narrow_value(NARROW[d], first + i);
				if (!same_f64((double)f32[i], expected) || !same_f64(f64[i], expected))
					ck_abort_msg("%s of %#x is %a and %a, not %a", set->name, first + i,
						     (double)f32[i], f64[i], expected);
			}
		}
	}
}
END_TEST

START_TEST(widens_from_any_byte_and_of_any_count)
{
	const struct kernel_set *set = set_at(_i);
	if (!set)
		return;
	uint64_t state = 3;
	unsigned char source[KERNEL_CHUNK * 4 + 8];
	for (size_t i = 0; i < sizeof source; i++)
		source[i] = (unsigned char)(random_next(&state) >> 20);
	for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_F8_E5M2; dtype++) {
		for (size_t count = 0; count < 100; count++) {
			float f32[101], f32_expected[101];
			double f64[101], f64_expected[101];
			const unsigned char *from = source + count % 7;
			memset(f32, 0xa5, sizeof f32);
			memset(f64, 0xa5, sizeof f64);
			set->widen_f64[dtype](f64, from, count);
			kernel_scalar.widen_f64[dtype](f64_expected, from, count);
			for (size_t i = 0; i < count; i++)
				ck_assert(same_f64(f64[i], f64_expected[i]));
			bytes_assert_filled(f64 + count, sizeof f64 - count * sizeof *f64, "behind the doubles");
			if (!set->widen_f32[dtype])
				continue;
			set->widen_f32[dtype](f32, from, count);
			kernel_scalar.widen_f32[dtype](f32_expected, from, count);
			for (size_t i = 0; i < count; i++)
				ck_assert(same_f32(f32[i], f32_expected[i]));
			bytes_assert_filled(f32 + count, sizeof f32 - count * sizeof *f32, "behind the floats");
		}
	}
}
END_TEST

START_TEST(narrows_doubles_to_the_nearest_float)
{
	static const double doubles[] = {
		1.0 + 0x1p-24, 1.0 + 0x1.8p-23, -1.0 - 0x1.000002p-24, 3.4028235677973366e38, 3.4028235e38, -1e300, INFINITY, NAN,
		0x1p-149, 0x1p-150, 0x1.8p-149, -0.0,
	};
	const size_t count = sizeof doubles / sizeof doubles[0];
	const struct kernel_set *set = set_at(_i);
	float f32[sizeof doubles / sizeof doubles[0] + 1];

	if (!set)
		return;
	for (size_t first = 0; first < count; first++) {
		memset(f32, 0xa5, sizeof f32);
		set->widen_f32[DTYPE_F64](f32, doubles + first, count - first);
		for (size_t i = 0; i < count - first; i++)
			ck_assert(same_f32(f32[i], (float)doubles[first + i]));
		bytes_assert_filled(f32 + count - first, sizeof f32 - (count - first) * sizeof *f32, "behind the floats");
	}
}
END_TEST

START_TEST(has_a_widening_exactly_where_one_is_needed)
{
	const struct kernel_set *set = set_at(_i);
	if (!set)
		return;
	for (enum dtype dtype = 0; dtype < DTYPE_COUNT; dtype++) {
		bool is_narrow = dtype >= DTYPE_F16 && dtype <= DTYPE_F8_E5M2;
		ck_assert_int_eq(set->widen_f32[dtype] != NULL, is_narrow || dtype == DTYPE_F64);
		ck_assert_int_eq(set->widen_f64[dtype] != NULL, is_narrow || dtype == DTYPE_F32);
	}
}
END_TEST

START_TEST(moves_bytes_of_any_alignment_and_count)
{
	const struct kernel_set *set = set_at(_i);
	if (!set)
		return;
	static const size_t counts[] = {0, 1, 5, 63, 64, 65, 127, 128, 130, 1000};
	unsigned char source[1100], room[1300];
	for (size_t i = 0; i < sizeof source; i++)
		source[i] = (unsigned char)(i * 37 + i / 256); /* among these many signalling NaN, were they floats */
	for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
		for (size_t shift = 0; shift < 70; shift++) {
			memset(room, 0xa5, sizeof room);
			set->move(room + 64 + shift, source + shift % 9, counts[c]);
			kernel_fence();
			ck_assert(memcmp(room + 64 + shift, source + shift % 9, counts[c]) == 0);
			bytes_assert_filled(room, 64 + shift, "before the target");
			bytes_assert_filled(room + 64 + shift + counts[c], sizeof room - 64 - shift - counts[c],
					    "behind the target");
		}
	}
}
END_TEST

/* Two readable pages between two that fault; the address of the first readable byte. */
static char *pages_create(size_t page_bytes)
{
	char *pages = mmap(NULL, 4 * page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(pages, MAP_FAILED);
	ck_assert_int_eq(mprotect(pages + page_bytes, 2 * page_bytes, PROT_READ | PROT_WRITE), 0);
	return pages + page_bytes;
}

/* All functions of a set on arrays that begin or end where the memory does. */
static void touch_edges(const struct kernel_set *set, char *pages[3], size_t page_bytes, size_t count, bool at_end)
{
	for (unsigned wide = 0; wide < 2; wide++) {
		size_t skip = at_end ? 2 * page_bytes - count * (wide ? sizeof(double) : sizeof(float)) : 0;
		void *target = pages[0] + skip, *shadow = pages[1] + skip, *value = pages[2] + skip;
		/* At the end: whole blocks up to the edge. At the start: a block whose first elements would be outside.
		 */
		unsigned phase = (unsigned)((at_end ? 15 * count : count) % KERNEL_LANES);
		for (unsigned step = 0; step < STEP_COUNT; step++) {
			struct call call = {
				.step = step, .count = count, .phase = phase, .decay = 0.9, .squares = true};
			struct kernel_lanes drift = {0}, squares = {0};
			if (wide)
				call_f64(set, &call, target, shadow, value, &drift, &squares);
			else
				call_f32(set, &call, target, shadow, value, &drift, &squares);
		}
	}
	for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_F8_E5M2; dtype++) {
		size_t bytes = count * dtype_bytes(dtype);
		const void *value = pages[2] + (at_end ? 2 * page_bytes - bytes : 0);
		if (set->widen_f32[dtype])
			set->widen_f32[dtype](
				(void *)(pages[0] + (at_end ? 2 * page_bytes - count * sizeof(float) : 0)), value,
				count);
		set->widen_f64[dtype]((void *)(pages[0] + (at_end ? 2 * page_bytes - count * sizeof(double) : 0)),
				      value, count);
	}
	set->move(pages[0] + (at_end ? 2 * page_bytes - count : 0), pages[1] + (at_end ? 2 * page_bytes - count : 0),
		  count);
}

START_TEST(touches_nothing_outside_of_the_arrays)
{
	const struct kernel_set *set = set_at(_i);
	if (!set)
		return;
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	char *pages[3];
	for (unsigned i = 0; i < 3; i++)
		pages[i] = pages_create(page_bytes);
	for (size_t count = 0; count < 150; count++) {
		touch_edges(set, pages, page_bytes, count, false);
		touch_edges(set, pages, page_bytes, count, true);
	}
	for (unsigned i = 0; i < 3; i++)
		munmap(pages[i] - page_bytes, 4 * page_bytes);
}
END_TEST

START_TEST(lists_the_sets_fastest_first_and_finds_them_by_name)
{
	size_t count;
	const struct kernel_set *const *sets = kernel_sets(&count);
	ck_assert_uint_ge(count, 2);
	ck_assert_uint_le(count, SETS_MAX);
	ck_assert_ptr_eq(sets[0], kernel_best());
	ck_assert_str_eq(sets[count - 2]->name, "portable");
	ck_assert_ptr_eq(sets[count - 1], &kernel_scalar);
	for (size_t i = 0; i < count; i++)
		ck_assert_ptr_eq(kernel_named(sets[i]->name), sets[i]);
	ck_assert_ptr_null(kernel_named("vax"));
	ck_assert_ptr_null(kernel_named(""));
}
END_TEST

START_TEST(adds_the_lanes_in_order)
{
	/* In any other order the small ones would survive or the large ones not cancel. */
	struct kernel_lanes lanes = {{1.0, 0x1p60, -0x1p60, 3.0, 4.0}};
	ck_assert_double_eq(kernel_lanes_sum(&lanes), 7.0);
}
END_TEST

START_TEST(counts_what_is_not_finite)
{
	for (unsigned d = 0; d < sizeof NARROW / sizeof NARROW[0]; d++) {
		unsigned expected = 0, found = 0;
		bool is_byte = NARROW[d] == DTYPE_F8_E4M3 || NARROW[d] == DTYPE_F8_E5M2;
		for (unsigned bits = 0; bits < (is_byte ? 256 : 65536); bits++) {
			unsigned char byte = (unsigned char)bits;
			uint16_t half = (uint16_t)bits;
			expected += isfinite(narrow_value(NARROW[d], bits)) ? 0 : 1;
			found +=
				(unsigned)kernel_count_nonfinite(NARROW[d], is_byte ? (void *)&byte : (void *)&half, 1);
		}
		ck_assert_uint_eq(found, expected);
	}
	const float f32[] = {1, INFINITY, 0x1.fffffep127f, NAN, -INFINITY, 0, 0x1p-149f, -NAN};
	const double f64[] = {1, INFINITY, 0x1.fffffffffffffp1023, NAN, -INFINITY, 0, 0x1p-1074, -NAN, 2, NAN};
	char shifted[sizeof f64 + 1];
	memcpy(shifted + 1, f64, sizeof f64);
	ck_assert_uint_eq(kernel_count_nonfinite(DTYPE_F32, f32, 8), 4);
	ck_assert_uint_eq(kernel_count_nonfinite(DTYPE_F32, f32, 1), 0);
	ck_assert_uint_eq(kernel_count_nonfinite(DTYPE_F64, f64, 10), 5);
	ck_assert_uint_eq(kernel_count_nonfinite(DTYPE_F64, shifted + 1, 10), 5);
	ck_assert_uint_eq(kernel_count_nonfinite(DTYPE_I64, f64, 10), 0);
	ck_assert_uint_eq(kernel_count_nonfinite(DTYPE_F32, NULL, 0), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kernel");
	TCase *sets = tcase_create("each set");
	TCase *shared = tcase_create("shared");

	tcase_set_timeout(sets, 60);
	tcase_add_loop_test(sets, every_set_returns_the_bits_of_the_scalar_one, 0, SETS_MAX);
	tcase_add_loop_test(sets, a_constant_input_is_a_fixed_point_of_lerp_and_sub, 0, SETS_MAX);
	tcase_add_loop_test(sets, the_sums_do_not_depend_on_where_a_run_is_cut, 0, SETS_MAX);
	tcase_add_loop_test(sets, a_nonfinite_value_always_shows_in_the_squares, 0, SETS_MAX);
	tcase_add_loop_test(sets, widens_every_narrow_float_exactly, 0, SETS_MAX);
	tcase_add_loop_test(sets, widens_from_any_byte_and_of_any_count, 0, SETS_MAX);
	tcase_add_loop_test(sets, narrows_doubles_to_the_nearest_float, 0, SETS_MAX);
	tcase_add_loop_test(sets, has_a_widening_exactly_where_one_is_needed, 0, SETS_MAX);
	tcase_add_loop_test(sets, moves_bytes_of_any_alignment_and_count, 0, SETS_MAX);
	tcase_add_loop_test(sets, touches_nothing_outside_of_the_arrays, 0, SETS_MAX);
	tcase_add_test(shared, rounds_every_operation_on_its_own);
	tcase_add_test(shared, rounds_every_operation_on_its_own_in_double);
	tcase_add_test(shared, lists_the_sets_fastest_first_and_finds_them_by_name);
	tcase_add_test(shared, adds_the_lanes_in_order);
	tcase_add_test(shared, counts_what_is_not_finite);
	suite_add_tcase(suite, sets);
	suite_add_tcase(suite, shared);

	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
