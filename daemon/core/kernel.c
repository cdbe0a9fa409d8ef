/*
 * What all kernel sets share, and the choice among them: by what the processor says about itself, once per question,
 * so that one binary runs everywhere and a test can ask for every set that can run here.
 */
#include "daemon/core/kernel.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <stdatomic.h>
#endif

extern const struct kernel_set kernel_portable;
#if defined(__x86_64__)
extern const struct kernel_set kernel_avx2;
extern const struct kernel_set kernel_avx512;
#endif

/* Fastest first: each processor's sets are a tail of this list. */
static const struct kernel_set *const SETS[] = {
#if defined(__x86_64__)
	&kernel_avx512,
	&kernel_avx2,
#endif
	&kernel_portable,
	&kernel_scalar,
};

enum { SET_COUNT = sizeof SETS / sizeof SETS[0] };

/* How many sets at the front of the list this processor cannot run. */
static size_t sets_first(void)
{
#if defined(__x86_64__)
	__builtin_cpu_init();
	/* Every processor with AVX2 has F16C. */
	bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	if (!avx2)
		return 2;
	return __builtin_cpu_supports("avx512f") ? 0 : 1;
#else
	return 0;
#endif
}

const struct kernel_set *const *kernel_sets(size_t *ret_count)
{
	size_t first = sets_first();
	*ret_count = SET_COUNT - first;
	return SETS + first;
}

const struct kernel_set *kernel_best(void)
{
	return SETS[sets_first()];
}

const struct kernel_set *kernel_named(const char *name)
{
	for (size_t i = sets_first(); i < SET_COUNT; i++)
		if (strcmp(SETS[i]->name, name) == 0)
			return SETS[i];
	return NULL;
}

double kernel_lanes_sum(const struct kernel_lanes *lanes)
{
	double sum = 0;
	for (unsigned i = 0; i < KERNEL_LANES; i++)
		sum += lanes->lane[i];
	return sum;
}

/* A float is not finite when the bits of its exponent are all ones; the source may lie at any byte. */
#define COUNT(name, element, exponent)                                                                                \
	static uint64_t name##_count_nonfinite(const char *source, size_t count)                                      \
	{                                                                                                             \
		uint64_t found = 0;                                                                                   \
		for (size_t i = 0; i < count; i++) {                                                                  \
			element bits;                                                                                 \
			memcpy(&bits, source + i * sizeof bits, sizeof bits);                                         \
			found += (bits & (exponent)) == (exponent);                                                   \
		}                                                                                                     \
		return found;                                                                                         \
	}

COUNT(f64, uint64_t, UINT64_C(0x7ff0000000000000))
COUNT(f32, uint32_t, UINT32_C(0x7f800000))
COUNT(f16, uint16_t, 0x7c00)
COUNT(bf16, uint16_t, 0x7f80)
COUNT(f8_e4m3, uint8_t, 0x7f) /* no infinities, and only the all-ones magnitude is NaN */
COUNT(f8_e5m2, uint8_t, 0x7c)

uint64_t kernel_count_nonfinite(enum dtype dtype, const void *source, size_t count)
{
	switch (dtype) {
	case DTYPE_F64:
		return f64_count_nonfinite(source, count);
	case DTYPE_F32:
		return f32_count_nonfinite(source, count);
	case DTYPE_F16:
		return f16_count_nonfinite(source, count);
	case DTYPE_BF16:
		return bf16_count_nonfinite(source, count);
	case DTYPE_F8_E4M3:
		return f8_e4m3_count_nonfinite(source, count);
	case DTYPE_F8_E5M2:
		return f8_e5m2_count_nonfinite(source, count);
	case DTYPE_I64:
	case DTYPE_I32:
	case DTYPE_I16:
	case DTYPE_I8:
	case DTYPE_U8:
	case DTYPE_BOOL:
	case DTYPE_COUNT:
		break;
	}
	return 0; /* integers are always finite */
}

double kernel_first_nonfinite(enum dtype dtype, const void *source, size_t count, size_t *ret_index)
{
	uint64_t element_bytes = dtype_bytes(dtype);

	for (size_t i = 0; i < count; i++) {
		const char *element = (const char *)source + i * element_bytes;
		double value;

		if (kernel_count_nonfinite(dtype, element, 1) == 0)
			continue;
		*ret_index = i;
		if (dtype == DTYPE_F64)
			memcpy(&value, element, sizeof value);
		else
			kernel_scalar.widen_f64[dtype](&value, element, 1);
		return value;
	}
	return 0;
}

void kernel_fence(void)
{
#if defined(__x86_64__)
	_mm_sfence();
#else
	atomic_thread_fence(memory_order_release);
#endif
}
