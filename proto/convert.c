/*
 * Conversion between floating-point dtypes, in blocks of a constant size, of which the compiler makes vectors.
 *
 * Everything goes by way of F32, which holds every value of the smaller dtypes: a smaller dtype is widened exactly, a
 * smaller one is rounded from F32. F64 is first rounded to F32 "to odd": what does not fit exactly takes the
 * neighbour whose last bit is 1. That bit then says "a little more or less", so that the second rounding decides as if
 * it saw the F64 value itself: two steps, one rounding.
 * source: Boldo, Melquiond, "Emulation of FMA and Correctly Rounded Sums: Proved Algorithms Using Rounding to Odd"
 *
 * The steps are written once, as functions of a format, and compiled for each kind of processor.
 */
#include "proto/convert.h"

#include <assert.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

enum {
	BLOCK = 256, /* elements */
	F32_MANTISSA_BITS = 23,
	F32_BIAS = 127,
	F32_INFINITY = 0x7f800000,
	F32_MAGNITUDE = 0x7fffffff,
	F32_QUIET = 0x00400000,
};

/* A format of 8 or 16 bits: sign, exponent, mantissa. */
struct format {
	unsigned bytes;
	unsigned mantissa_bits;
	unsigned bias;
	uint32_t infinity; /* the smallest magnitude that is not finite */
	bool has_infinity; /* false: that is a NaN, and what is too large becomes the largest value */
};

#define F16 ((struct format){2, 10, 15, 0x7c00, true})
#define BF16 ((struct format){2, 7, 127, 0x7f80, true})
#define F8_E4M3 ((struct format){1, 3, 7, 0x7f, false})
#define F8_E5M2 ((struct format){1, 2, 15, 0x7c, true})

INLINE float float_of(uint32_t bits)
{
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

INLINE uint32_t bits_of(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

/*
 * a < b ? yes : no. The compiler would make branches of that, and no vectors. Magnitudes have no sign bit and are
 * compared as signed numbers: SSE2 has no other comparison.
 */
INLINE uint32_t if_less(uint32_t a, uint32_t b, uint32_t yes, uint32_t no)
{
	uint32_t mask = -(uint32_t)((int32_t)a < (int32_t)b);

	return (yes & mask) | (no & ~mask);
}

INLINE uint32_t widen(struct format format, uint32_t value)
{
	const unsigned shift = F32_MANTISSA_BITS - format.mantissa_bits, sign_bit = 8 * format.bytes - 1;
	const uint32_t rebias = (F32_BIAS - format.bias) << F32_MANTISSA_BITS;
	const uint32_t unit = (F32_BIAS + 1 - format.bias - format.mantissa_bits) << F32_MANTISSA_BITS;
	uint32_t sign = value >> sign_bit << 31, magnitude = value & ((1u << sign_bit) - 1);
	uint32_t special = magnitude << shift | F32_INFINITY, bits;

	special |= if_less(magnitude, format.infinity + format.has_infinity, 0, F32_QUIET);
	/* Zero or subnormal: a multiple of the format's smallest value. */
	bits = if_less(magnitude, 1u << format.mantissa_bits, bits_of((float)(int32_t)magnitude * float_of(unit)),
	               (magnitude << shift) + rebias);
	return sign | if_less(magnitude, format.infinity, bits, special);
}

INLINE uint32_t narrow(struct format format, uint32_t bits)
{
	const unsigned shift = F32_MANTISSA_BITS - format.mantissa_bits, sign_bit = 8 * format.bytes - 1;
	const uint32_t rebias = (F32_BIAS - format.bias) << F32_MANTISSA_BITS;
	/* Where infinity would be if it were a number; and a float in whose last place is the smallest value. */
	const uint32_t limit = (format.infinity << shift) + rebias, ruler = rebias + ((shift + 1) << F32_MANTISSA_BITS);
	uint32_t sign = bits >> 31 << sign_bit, magnitude = bits & F32_MAGNITUDE, value, subnormal, nan;

	/* A carry out of the mantissa is the next exponent, out of the largest exponent infinity. */
	value = (magnitude - rebias + (1u << (shift - 1)) - 1 + (magnitude >> shift & 1)) >> shift;
	/* The addition rounds to the smallest value's multiples. */
	subnormal = bits_of(float_of(magnitude) + float_of(ruler)) - ruler;
	nan = format.infinity | 1u << (format.mantissa_bits - 1) |
		(magnitude >> shift & ((1u << format.mantissa_bits) - 1));
	value = if_less(magnitude, rebias + (1u << F32_MANTISSA_BITS), subnormal, value);
	value = if_less(magnitude, limit, value, format.infinity);
	if (!format.has_infinity)
		value = if_less(value, format.infinity, value, format.infinity - 1);
	return sign | if_less(F32_INFINITY, magnitude, nan, value);
}

/* BF16 is the upper half of F32, subnormal numbers too. */
INLINE uint32_t narrow_upper_half(uint32_t bits)
{
	uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;

	return if_less(F32_INFINITY, bits & F32_MAGNITUDE, bits >> 16 | F32_QUIET >> 16, rounded);
}

INLINE uint32_t round_to_odd(double value)
{
	double magnitude = __builtin_fabs(value), back;
	uint32_t bits = bits_of((float)magnitude);
	uint64_t even = ~(uint64_t)bits & 1, sign;

	back = (double)float_of(bits);
	/* An even neighbour is left for the odd one on the other side; a NaN is neither less nor more. */
	bits += (uint32_t)(even & (back < magnitude ? 1 : 0));
	bits -= (uint32_t)(even & (back > magnitude ? 1 : 0));
	memcpy(&sign, &value, sizeof(sign));
	return bits | (uint32_t)(sign >> 63 << 31);
}

/* ---- steps: a block each, memory at any byte ------------------------------------------------------------------ */

typedef void step(const uint8_t *restrict source, uint8_t *restrict target);

/* The largest magnitude in a block of elements of 1, 2 or 4 bytes. */
typedef uint32_t largest(const uint8_t *block);

struct convert_set {
	step *widen[DTYPE_COUNT];  /* to F32 */
	step *narrow[DTYPE_COUNT]; /* from F32 */
	step *f32_to_f64, *f64_to_f32, *f64_to_f32_odd;
	largest *largest[5]; /* by bytes */
};

#define LOAD(type, source, index)                                                                                     \
	({                                                                                                            \
		type element_;                                                                                        \
		memcpy(&element_, (source) + (index) * sizeof(type), sizeof(type));                                   \
		element_;                                                                                             \
	})

#define STORE(type, target, index, value)                                                                             \
	do {                                                                                                          \
		const type element_ = (type)(value);                                                                  \
		memcpy((target) + (index) * sizeof(type), &element_, sizeof(type));                                   \
	} while (0)

#define STEP(attributes, name, type_from, type_to, result)                                                            \
	attributes static void name(const uint8_t *restrict source, uint8_t *restrict target)                         \
	{                                                                                                             \
		for (size_t i = 0; i < BLOCK; i++) {                                                                  \
			const type_from value = LOAD(type_from, source, i);                                           \
			STORE(type_to, target, i, result);                                                            \
		}                                                                                                     \
	}

#define LARGEST(attributes, name, type, mask)                                                                         \
	attributes static uint32_t name(const uint8_t *block)                                                         \
	{                                                                                                             \
		type found = 0;                                                                                       \
                                                                                                                      \
		for (size_t i = 0; i < BLOCK; i++) {                                                                  \
			const type value = (type)(LOAD(type, block, i) & (mask));                                     \
			found = value > found ? value : found;                                                        \
		}                                                                                                     \
		return (uint32_t)found;                                                                               \
	}

/* All steps of a kind but those between F16 and F32, and its table. */
#define CONVERT_SET(set, attributes)                                                                                  \
	STEP(attributes, set##_widen_bf16, uint16_t, uint32_t, (uint32_t)value << 16)                                 \
	STEP(attributes, set##_widen_f8_e4m3, uint8_t, uint32_t, widen(F8_E4M3, value))                               \
	STEP(attributes, set##_widen_f8_e5m2, uint8_t, uint32_t, widen(F8_E5M2, value))                               \
	STEP(attributes, set##_narrow_bf16, uint32_t, uint16_t, narrow_upper_half(value))                             \
	STEP(attributes, set##_narrow_f8_e4m3, uint32_t, uint8_t, narrow(F8_E4M3, value))                             \
	STEP(attributes, set##_narrow_f8_e5m2, uint32_t, uint8_t, narrow(F8_E5M2, value))                             \
	STEP(attributes, set##_f32_to_f64, float, double, value)                                                      \
	STEP(attributes, set##_f64_to_f32, double, float, value)                                                      \
	STEP(attributes, set##_f64_to_f32_odd, double, uint32_t, round_to_odd(value))                                 \
	LARGEST(attributes, set##_largest_1, uint8_t, 0x7f)                                                           \
	LARGEST(attributes, set##_largest_2, int16_t, 0x7fff)                                                         \
	LARGEST(attributes, set##_largest_4, int32_t, F32_MAGNITUDE)                                                  \
	static const struct convert_set set = {                                                                       \
		.widen = {[DTYPE_F16] = set##_widen_f16,                                                              \
		          [DTYPE_BF16] = set##_widen_bf16,                                                            \
		          [DTYPE_F8_E4M3] = set##_widen_f8_e4m3,                                                      \
		          [DTYPE_F8_E5M2] = set##_widen_f8_e5m2},                                                     \
		.narrow = {[DTYPE_F16] = set##_narrow_f16,                                                            \
		           [DTYPE_BF16] = set##_narrow_bf16,                                                          \
		           [DTYPE_F8_E4M3] = set##_narrow_f8_e4m3,                                                    \
		           [DTYPE_F8_E5M2] = set##_narrow_f8_e5m2},                                                   \
		.f32_to_f64 = set##_f32_to_f64,                                                                       \
		.f64_to_f32 = set##_f64_to_f32,                                                                       \
		.f64_to_f32_odd = set##_f64_to_f32_odd,                                                               \
		.largest = {[1] = set##_largest_1, [2] = set##_largest_2, [4] = set##_largest_4},                     \
	};

STEP(, portable_widen_f16, uint16_t, uint32_t, widen(F16, value))
STEP(, portable_narrow_f16, uint32_t, uint16_t, narrow(F16, value))
CONVERT_SET(portable, )

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2,f16c")))

/* The processor's own instructions between F16 and F32 round as narrow() does and look at no mode but the rounding. */
AVX2 static void avx2_widen_f16(const uint8_t *restrict source, uint8_t *restrict target)
{
	for (size_t i = 0; i < BLOCK; i += 8) {
		__m128i halves = _mm_loadu_si128((const void *)(source + 2 * i));

		_mm256_storeu_ps((void *)(target + 4 * i), _mm256_cvtph_ps(halves));
	}
}

AVX2 static void avx2_narrow_f16(const uint8_t *restrict source, uint8_t *restrict target)
{
	for (size_t i = 0; i < BLOCK; i += 8) {
		__m256 values = _mm256_loadu_ps((const void *)(source + 4 * i));

		_mm_storeu_si128((void *)(target + 2 * i), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
	}
}

CONVERT_SET(avx2, AVX2)

static const struct convert_set *const SETS[CONVERT_KIND_COUNT] = {&portable, &avx2};

bool convert_kind_supported(enum convert_kind kind)
{
	/* Every processor with AVX2 has F16C; clang 14 cannot ask for that. */
	return kind == CONVERT_PORTABLE || (kind == CONVERT_AVX2 && __builtin_cpu_supports("avx2"));
}

/* Rounds to nearest and flushes nothing from here on; returns what was set before. */
static unsigned mode_set(void)
{
	enum { MODE_DEFAULT = 0x1f80 };
	unsigned before = _mm_getcsr();

	_mm_setcsr(MODE_DEFAULT);
	return before;
}

static void mode_restore(unsigned before)
{
	_mm_setcsr(before);
}

#else

static const struct convert_set *const SETS[CONVERT_KIND_COUNT] = {&portable, NULL};

bool convert_kind_supported(enum convert_kind kind)
{
	return kind == CONVERT_PORTABLE;
}

static unsigned mode_set(void)
{
	return 0;
}

static void mode_restore(unsigned before)
{
	(void)before;
}

#endif

/* ---- blocks --------------------------------------------------------------------------------------------------- */

static void block_convert(const struct convert_set *set, enum dtype from, const uint8_t *source, enum dtype to,
                          uint8_t *target)
{
	uint8_t middle[BLOCK * sizeof(float)];
	const uint8_t *f32 = source;

	if (from == DTYPE_F64 && to == DTYPE_F32) {
		set->f64_to_f32(source, target);
		return;
	}
	if (from != DTYPE_F32) {
		step *first = from == DTYPE_F64 ? set->f64_to_f32_odd : set->widen[from];

		first(source, to == DTYPE_F32 ? target : middle);
		f32 = middle;
	}
	if (to == DTYPE_F64)
		set->f32_to_f64(f32, target);
	else if (to != DTYPE_F32)
		set->narrow[to](f32, target);
}

/* The magnitudes that a value may have. */
static const struct bounds {
	uint64_t infinity; /* the smallest that is not finite */
	uint64_t e4m3_max; /* the largest that F8_E4M3 need not clip: 464, or the next smaller one */
} BOUNDS[DTYPE_COUNT] = {
	[DTYPE_F64] = {UINT64_C(0x7ff0000000000000), UINT64_C(0x407d000000000000)},
	[DTYPE_F32] = {F32_INFINITY, 0x43e80000},
	[DTYPE_F16] = {0x7c00, 0x5f40},
	[DTYPE_BF16] = {0x7f80, 0x43e8},
	[DTYPE_F8_E4M3] = {0x7f, 0x7e},
	[DTYPE_F8_E5M2] = {0x7c, 0x5f},
};

static uint64_t magnitude_at(const uint8_t *block, uint64_t bytes, size_t index)
{
	uint64_t bits = 0;

	for (uint64_t i = 0; i < bytes; i++)
		bits |= (uint64_t)block[index * bytes + i] << 8 * i;
	return bits & ((UINT64_C(1) << (8 * bytes - 1)) - 1);
}

/* How many of a block's first count values were too large. */
static uint64_t block_overflows(const struct convert_set *set, enum dtype from, const uint8_t *source, enum dtype to,
                                const uint8_t *target, size_t count)
{
	const uint64_t from_bytes = dtype_bytes(from), to_bytes = dtype_bytes(to), infinity = BOUNDS[to].infinity;
	const bool is_clipped = to == DTYPE_F8_E4M3;
	uint64_t overflows = 0;

	/* Mostly there is nothing that looks like it, which is found out fast. */
	if (to == DTYPE_F64 || set->largest[to_bytes](target) < infinity - is_clipped)
		return 0;
	for (size_t i = 0; i < count; i++) {
		uint64_t was = magnitude_at(source, from_bytes, i), is = magnitude_at(target, to_bytes, i);

		if (is_clipped)
			overflows += is == infinity - 1 && was > BOUNDS[from].e4m3_max;
		else
			overflows += is >= infinity && was < BOUNDS[from].infinity;
	}
	return overflows;
}

uint64_t convert_by_kind(enum convert_kind kind, enum dtype from, const void *source, enum dtype to, void *target,
                         size_t count)
{
	const uint64_t from_bytes = dtype_bytes(from), to_bytes = dtype_bytes(to);
	uint8_t last_source[BLOCK * sizeof(double)], last_target[BLOCK * sizeof(double)];
	const struct convert_set *set = SETS[kind];
	const uint8_t *in = source;
	uint8_t *out = target;
	uint64_t overflows = 0;
	unsigned mode;

	if (from == to) {
		if (count > 0)
			memcpy(target, source, count * from_bytes);
		return 0;
	}
	assert(dtype_is_float(from) && dtype_is_float(to));
	mode = mode_set();
	for (; count >= BLOCK; count -= BLOCK, in += BLOCK * from_bytes, out += BLOCK * to_bytes) {
		block_convert(set, from, in, to, out);
		overflows += block_overflows(set, from, in, to, out, BLOCK);
	}
	if (count > 0) {
		memset(last_source, 0, sizeof(last_source));
		memcpy(last_source, in, count * from_bytes);
		block_convert(set, from, last_source, to, last_target);
		overflows += block_overflows(set, from, last_source, to, last_target, count);
		memcpy(out, last_target, count * to_bytes);
	}
	mode_restore(mode);
	return overflows;
}

const char *convert_kind_name(enum convert_kind kind)
{
	static const char *const names[CONVERT_KIND_COUNT] = {"portable", "avx2"};

	return kind < CONVERT_KIND_COUNT ? names[kind] : "?";
}

uint64_t convert_elements(enum dtype from, const void *source, enum dtype to, void *target, size_t count)
{
	enum convert_kind best = convert_kind_supported(CONVERT_AVX2) ? CONVERT_AVX2 : CONVERT_PORTABLE;

	return convert_by_kind(best, from, source, to, target, count);
}
