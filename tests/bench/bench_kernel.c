/*
 * How close the averaging kernels come to what the memory allows.
 *
 * Each row updates the same number of parameters with one kernel set, input dtype and number of profiles, on memory
 * like the daemon's: memfds, preallocated, touched, in huge pages where the system gives them. The work is cut into
 * chunks like the daemon's plan does: a chunk of the snapshot is read (and widened) once, then averaged into every
 * profile. The yardstick is a hand-written streaming triad a = b + s * c of the widest vectors, which moves the same
 * three streams and does nothing else; it runs directly before every row of every round on the same memory, and the
 * best rounds of both are compared. Bytes count what must be moved: snapshot and shadows read, slots written.
 */
#include "daemon/core/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum {
	PROFILES_MAX = 4,
	THREADS_MAX = 2,
	HUGE_PAGE = 2 * 1024 * 1024,
};

/* The memory all rows share: the snapshot, and the profiles one behind the other. Doubles: half as many elements. */
struct arena {
	size_t element_count;
	char *stage;  /* 4 bytes for each element */
	char *shadow; /* 4 bytes for each element of each profile */
	char *target;
	bool is_huge;
};

typedef void (*triad_function)(double *a, const double *b, const double *c, size_t count, size_t ahead);

/* What one thread does: the triad, or a range of chunks of a row. */
struct job {
	const struct arena *arena;
	const struct kernel_set *set; /* NULL: the triad */
	triad_function triad;
	size_t triad_ahead;
	enum dtype dtype;
	unsigned profile_count;
	size_t first, count; /* elements */
	pthread_barrier_t *start;
	double seconds;
};

struct row {
	const struct kernel_set *set;
	enum dtype dtype;
	unsigned profile_count;
	unsigned thread_count;
	double seconds, triad_seconds; /* the best round's */
};

static double clock_seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* -- the yardstick -- */

/* Doubles to prefetch ahead: whether that helps depends on the machine, so both triads run and the better one counts.
 */
static void prefetch_ahead(const double *address, size_t ahead)
{
	if (ahead)
		__builtin_prefetch((const void *)((uintptr_t)address + ahead * sizeof(double)));
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void triad_avx512(double *a, const double *b, const double *c, size_t count,
							    size_t ahead)
{
	__m512d s = _mm512_set1_pd(0.75);
	for (size_t i = 0; i < count; i += 8) {
		prefetch_ahead(b + i, ahead);
		prefetch_ahead(c + i, ahead);
		_mm512_stream_pd(a + i, _mm512_fmadd_pd(s, _mm512_load_pd(c + i), _mm512_load_pd(b + i)));
	}
	_mm_sfence();
}

__attribute__((target("avx2,fma"))) static void triad_avx2(double *a, const double *b, const double *c, size_t count,
							   size_t ahead)
{
	__m256d s = _mm256_set1_pd(0.75);
	for (size_t i = 0; i < count; i += 8) {
		prefetch_ahead(b + i, ahead);
		prefetch_ahead(c + i, ahead);
		__m256d first = _mm256_fmadd_pd(s, _mm256_load_pd(c + i), _mm256_load_pd(b + i));
		__m256d second = _mm256_fmadd_pd(s, _mm256_load_pd(c + i + 4), _mm256_load_pd(b + i + 4));
		_mm256_stream_pd(a + i, first);
		_mm256_stream_pd(a + i + 4, second);
	}
	_mm_sfence();
}
#endif

static void triad_plain(double *a, const double *b, const double *c, size_t count, size_t ahead)
{
	for (size_t i = 0; i < count; i += 8) {
		prefetch_ahead(b + i, ahead);
		prefetch_ahead(c + i, ahead);
		for (size_t j = i; j < i + 8; j += 2) {
#if defined(__x86_64__)
			__m128d product = _mm_mul_pd(_mm_set1_pd(0.75), _mm_load_pd(c + j));
			_mm_stream_pd(a + j, _mm_add_pd(_mm_load_pd(b + j), product));
#else
			a[j] = b[j] + 0.75 * c[j];
			a[j + 1] = b[j + 1] + 0.75 * c[j + 1];
#endif
		}
	}
	kernel_fence();
}

static triad_function triad_best(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f"))
		return triad_avx512;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return triad_avx2;
#endif
	return triad_plain;
}

/* -- the rows -- */

/* Averages one chunk into every profile, in the way of the daemon's plan. */
static void chunk_update(const struct job *job, size_t first, size_t count, struct kernel_lanes *drift,
			 struct kernel_lanes *squares)
{
	const struct arena *arena = job->arena;
	const void *value = arena->stage + first * dtype_bytes(job->dtype);
	bool is_f64 = job->dtype == DTYPE_F64;
	size_t bytes = is_f64 ? sizeof(double) : sizeof(float);
	float widened[KERNEL_CHUNK] __attribute__((aligned(64)));

	if (!is_f64 && job->set->widen_f32[job->dtype]) {
		job->set->widen_f32[job->dtype](widened, value, count);
		value = widened;
	}
	for (unsigned p = 0; p < job->profile_count; p++) {
		size_t offset = p * arena->element_count * sizeof(float) + first * bytes;
		void *to = arena->target + offset;
		const void *s = arena->shadow + offset;
		if (is_f64)
			job->set->update_f64[FORM_LERP](to, s, value, count, 0, 0.9999, &drift[p], p ? NULL : squares);
		else
			job->set->update_f32[FORM_LERP](to, s, value, count, 0, 0.9999, &drift[p], p ? NULL : squares);
	}
}

static void *job_run(void *context)
{
	struct job *job = context;
	struct kernel_lanes drift[PROFILES_MAX] = {0}, squares = {0};

	pthread_barrier_wait(job->start);
	double begin = clock_seconds();
	if (!job->set) {
		size_t skip = job->first * sizeof(float);
		job->triad((double *)(void *)(job->arena->target + skip), (double *)(void *)(job->arena->shadow + skip),
			   (double *)(void *)(job->arena->stage + skip), job->count / 2, job->triad_ahead);
	} else {
		for (size_t i = 0; i < job->count; i += KERNEL_CHUNK)
			chunk_update(job, job->first + i, KERNEL_CHUNK, drift, &squares);
		kernel_fence();
	}
	job->seconds = clock_seconds() - begin;
	if (job->set && !(kernel_lanes_sum(&squares) > 0)) { /* also keeps the sums alive */
		fprintf(stderr, "bench_kernel: the sum of squares is %g\n", kernel_lanes_sum(&squares));
		exit(1);
	}
	return NULL;
}

/* Doubles take the room of two floats. */
static size_t elements_of(const struct arena *arena, enum dtype dtype)
{
	return dtype == DTYPE_F64 ? arena->element_count / 2 : arena->element_count;
}

/* Seconds of the slowest thread. */
static double job_measure(const struct job *pattern, unsigned thread_count)
{
	struct job jobs[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	pthread_barrier_t start;
	double seconds = 0;

	pthread_barrier_init(&start, NULL, thread_count);
	for (unsigned t = 0; t < thread_count; t++) {
		jobs[t] = *pattern;
		jobs[t].count = elements_of(pattern->arena, pattern->dtype) / thread_count;
		jobs[t].first = t * jobs[t].count;
		jobs[t].start = &start;
		if (pthread_create(&threads[t], NULL, job_run, &jobs[t]) != 0) {
			fprintf(stderr, "bench_kernel: cannot start a thread\n");
			exit(1);
		}
	}
	for (unsigned t = 0; t < thread_count; t++) {
		pthread_join(threads[t], NULL);
		if (jobs[t].seconds > seconds)
			seconds = jobs[t].seconds;
	}
	pthread_barrier_destroy(&start);
	return seconds;
}

static void row_measure(struct row *row, const struct arena *arena)
{
	struct job job = {.arena = arena, .triad = triad_best(), .dtype = DTYPE_F32};
	for (job.triad_ahead = 0; job.triad_ahead <= 256; job.triad_ahead += 256) {
		double seconds = job_measure(&job, row->thread_count);
		if (row->triad_seconds == 0 || seconds < row->triad_seconds)
			row->triad_seconds = seconds;
	}

	job.set = row->set;
	job.dtype = row->dtype;
	job.profile_count = row->profile_count;
	double seconds = job_measure(&job, row->thread_count);
	if (row->seconds == 0 || seconds < row->seconds)
		row->seconds = seconds;
}

static void row_print(const struct row *row, const struct arena *arena, double triad_seconds, bool as_json)
{
	double parameters = (double)elements_of(arena, row->dtype) * 1e-9;
	double shadow_bytes = row->dtype == DTYPE_F64 ? 8 : 4;
	double bytes = (double)dtype_bytes(row->dtype) + 2 * row->profile_count * shadow_bytes;
	double gb_per_s = parameters * bytes / row->seconds;
	double triad_gb_per_s = (double)arena->element_count * 12e-9 / triad_seconds;
	char name[64];

	snprintf(name, sizeof name, "%s/%s/profiles=%u/threads=%u", row->set->name, dtype_name(row->dtype),
		 row->profile_count, row->thread_count);
	if (as_json)
		printf("{\"row\": \"%s\", \"seconds\": %.6f, \"gparam_per_s\": %.3f, \"gb_per_s\": %.2f, "
		       "\"triad_gb_per_s\": %.2f, \"triad_ratio\": %.3f}\n",
		       name, row->seconds, parameters / row->seconds, gb_per_s, triad_gb_per_s,
		       gb_per_s / triad_gb_per_s);
	else
		printf("%-36s %9.4f s %7.3f Gparam/s %7.2f GB/s %7.3f of the triad's %6.2f GB/s\n", name, row->seconds,
		       parameters / row->seconds, gb_per_s, gb_per_s / triad_gb_per_s, triad_gb_per_s);
}

/* -- memory -- */

/* A touched shared mapping of a memfd, aligned to huge pages and moved into them where possible. Lives until exit. */
static char *memory_create(const char *name, size_t bytes, bool *is_huge)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || posix_fallocate(fd, 0, (off_t)bytes) != 0) {
		fprintf(stderr, "bench_kernel: cannot create %zu bytes of shared memory\n", bytes);
		exit(1);
	}
	char *reserved = mmap(NULL, bytes + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (reserved == MAP_FAILED) {
		fprintf(stderr, "bench_kernel: cannot reserve addresses\n");
		exit(1);
	}
	char *aligned = reserved + (-(uintptr_t)reserved % HUGE_PAGE);
	char *memory = mmap(aligned, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (memory == MAP_FAILED) {
		fprintf(stderr, "bench_kernel: cannot map %zu bytes\n", bytes);
		exit(1);
	}
	close(fd);
	/* Of any dtype these bytes make normal numbers of moderate size, and neighbours differ. */
	for (size_t i = 0; i < bytes; i++)
		memory[i] = (char)(0x38 + (i * 7 + i / 4096) % 8);
	if (*is_huge) {
		madvise(memory, bytes, MADV_HUGEPAGE);
		if (madvise(memory, bytes, MADV_COLLAPSE) != 0)
			*is_huge = false;
	}
	return memory;
}

/* -- the table -- */

enum { ROWS_MAX = 128 };

static size_t rows_choose(struct row rows[ROWS_MAX], const char *set_name)
{
	static const struct {
		enum dtype dtype;
		unsigned profile_count;
	} work[] = {
		{DTYPE_F32, 1}, {DTYPE_F32, 2}, {DTYPE_F32, 4}, {DTYPE_BF16, 1}, {DTYPE_BF16, 2}, {DTYPE_BF16, 4},
		{DTYPE_F16, 1}, {DTYPE_F16, 2}, {DTYPE_F16, 4}, {DTYPE_F64, 1},  {DTYPE_F64, 2},  {DTYPE_F64, 4},
	};
	size_t set_count, row_count = 0;
	const struct kernel_set *const *sets = kernel_sets(&set_count);

	for (unsigned threads = 1; threads <= THREADS_MAX; threads++) {
		for (size_t s = 0; s < set_count; s++) {
			if (set_name && strcmp(sets[s]->name, set_name) != 0)
				continue;
			for (size_t w = 0; w < sizeof work / sizeof work[0]; w++)
				rows[row_count++] = (struct row){
					.set = sets[s],
					.dtype = work[w].dtype,
					.profile_count = work[w].profile_count,
					.thread_count = threads,
				};
		}
	}
	return row_count;
}

/* The best triad of all rounds on that many threads. */
static double triad_seconds(const struct row *rows, size_t row_count, unsigned thread_count)
{
	double best = 0;
	for (size_t r = 0; r < row_count; r++)
		if (rows[r].thread_count == thread_count && (best == 0 || rows[r].triad_seconds < best))
			best = rows[r].triad_seconds;
	return best;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},         {"small-pages", no_argument, NULL, 'p'},
		{"rounds", required_argument, NULL, 'r'}, {"mebi-elements", required_argument, NULL, 'm'},
		{"set", required_argument, NULL, 's'},    {NULL, 0, NULL, 0},
	};
	bool as_json = false;
	struct arena arena = {.element_count = (size_t)128 << 20, .is_huge = true};
	unsigned long round_count = 3;
	const char *set_name = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'j':
			as_json = true;
			break;
		case 'p':
			arena.is_huge = false;
			break;
		case 'r':
			round_count = strtoul(optarg, NULL, 10);
			break;
		case 'm':
			arena.element_count = strtoul(optarg, NULL, 10) << 20;
			break;
		case 's':
			set_name = optarg;
			break;
		default:
			fprintf(stderr, "usage: bench_kernel [--json] [--rounds N] [--mebi-elements N] [--set NAME] "
					"[--small-pages]\n");
			return 2;
		}
	}

	arena.stage = memory_create("stage", arena.element_count * 4, &arena.is_huge);
	arena.shadow = memory_create("shadow", arena.element_count * 4 * PROFILES_MAX, &arena.is_huge);
	arena.target = memory_create("target", arena.element_count * 4 * PROFILES_MAX, &arena.is_huge);

	struct row rows[ROWS_MAX];
	size_t row_count = rows_choose(rows, set_name);
	for (unsigned long round = 0; round < round_count; round++)
		for (size_t r = 0; r < row_count; r++)
			row_measure(&rows[r], &arena);

	if (!as_json)
		printf("%zu Mi parameters, %s pages, best of %lu rounds\n", arena.element_count >> 20,
		       arena.is_huge ? "huge" : "small", round_count);
	for (size_t r = 0; r < row_count; r++)
		row_print(&rows[r], &arena, triad_seconds(rows, row_count, rows[r].thread_count), as_json);
	return 0;
}
