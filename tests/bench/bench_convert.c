/*
 * How fast elements become another dtype, beside a memcpy that moves as many bytes.
 *
 * Each row converts the same number of elements from one dtype to another, between memory that has been touched. The
 * yardstick copies half of the bytes read and written from one place to another, so that both move the same; the two
 * take turns, and the best rounds of both are compared. The default is more than the caches of most processors hold.
 *
 *   bench_convert [ROUNDS [MEBI-ELEMENTS]]    best of 5 rounds of 32 Mi elements
 */
#include "proto/convert.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct row {
	enum dtype from, to;
} ROWS[] = {
	{DTYPE_F32, DTYPE_BF16},    {DTYPE_F32, DTYPE_F16},  {DTYPE_F32, DTYPE_F8_E4M3}, {DTYPE_F32, DTYPE_F8_E5M2},
	{DTYPE_F32, DTYPE_F64},     {DTYPE_F64, DTYPE_F32},  {DTYPE_F64, DTYPE_BF16},    {DTYPE_F64, DTYPE_F16},
	{DTYPE_BF16, DTYPE_F32},    {DTYPE_F16, DTYPE_F32},  {DTYPE_F16, DTYPE_BF16},    {DTYPE_BF16, DTYPE_F16},
	{DTYPE_F8_E4M3, DTYPE_F32}, {DTYPE_F8_E5M2, DTYPE_F32},
};

enum { ROW_COUNT = sizeof(ROWS) / sizeof(ROWS[0]) };

static double clock_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double seconds_min(double best, double begun)
{
	const double seconds = clock_seconds() - begun;

	return best == 0 || seconds < best ? seconds : best;
}

static void row_measure(const struct row *row, enum convert_kind kind, uint8_t *source, uint8_t *target, size_t count,
                        unsigned long round_count)
{
	const uint64_t bytes = count * (dtype_bytes(row->from) + dtype_bytes(row->to));
	double best = 0, copy_best = 0, begun;

	/* By way of the target, which is large enough. */
	for (size_t i = 0; i < count; i++) {
		const double value = ((double)(i % 2003) - 1001) / 997;

		memcpy(target + i * sizeof(value), &value, sizeof(value));
	}
	convert_elements(DTYPE_F64, target, row->from, source, count);
	for (unsigned long round = 0; round < round_count; round++) {
		begun = clock_seconds();
		memcpy(target, source, bytes / 2);
		copy_best = seconds_min(copy_best, begun);
		begun = clock_seconds();
		convert_by_kind(kind, row->from, source, row->to, target, count);
		best = seconds_min(best, begun);
	}
	printf("%-9s %-8s -> %-8s %7.2f G elements/s %7.2f GB/s  memcpy %6.2f GB/s  ratio %.2f\n",
	       convert_kind_name(kind), dtype_name(row->from), dtype_name(row->to), (double)count / best / 1e9,
	       (double)bytes / best / 1e9, (double)bytes / copy_best / 1e9, copy_best / best);
}

int main(int argc, char **argv)
{
	const unsigned long round_count = argc > 1 ? strtoul(argv[1], NULL, 10) : 5;
	const size_t count = (argc > 2 ? strtoul(argv[2], NULL, 10) : 32) << 20;
	uint8_t *source, *target;

	if (round_count == 0 || count == 0 || argc > 3) {
		fprintf(stderr, "usage: bench_convert [ROUNDS [MEBI-ELEMENTS]]\n");
		return 2;
	}
	source = malloc(count * sizeof(double));
	target = malloc(count * sizeof(double));
	if (!source || !target) {
		fprintf(stderr, "bench_convert: no memory for %zu bytes\n", 2 * count * sizeof(double));
		return 1;
	}
	memset(source, 1, count * sizeof(double));
	memset(target, 1, count * sizeof(double));
	printf("%zu Mi elements, best of %lu rounds\n", count >> 20, round_count);
	for (enum convert_kind kind = 0; kind < CONVERT_KIND_COUNT; kind++) {
		for (size_t i = 0; i < ROW_COUNT && convert_kind_supported(kind); i++)
			row_measure(&ROWS[i], kind, source, target, count, round_count);
	}
	free(source);
	free(target);
	return 0;
}
