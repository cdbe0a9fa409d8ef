/*
 * The yardstick of bench.py: what the memory allows, asked for between two measurements of the daemon.
 *
 * A hand-written streaming triad a = b + s * c of the widest vectors, on memory like the daemon's: memfds,
 * preallocated, touched, in huge pages where the system gives them. It moves 12 bytes for 4 bytes of a (two reads, one
 * streaming store) and does nothing else. Every line on standard input is a number of threads; the answer is a line
 * with the bytes a second of the better of two triads, one with and one without prefetching, because which of them is
 * faster depends on the machine. The end of the input ends the program.
 *
 *   bench_triad MEBIBYTES    the size of each of the three arrays
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
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
	THREADS_MAX = 64,
	HUGE_PAGE_BYTES = 2 * 1024 * 1024,
	LINE_DOUBLES = 8,
	AHEAD_BYTES = 2048,
	/* The arrays begin this far apart within their pages: side by side they were 4 % slower. */
	STAGGER_DOUBLES = 17 * LINE_DOUBLES,
};

struct arrays {
	double *a, *b, *c;
	size_t count; /* doubles in each */
};

typedef void (*triad_function)(const struct arrays *arrays, size_t first, size_t end, size_t ahead);

struct job {
	const struct arrays *arrays;
	triad_function triad;
	size_t first, end, ahead; /* doubles; ahead 0 does not prefetch */
	pthread_barrier_t *start;
	double begun, ended;
};

static double clock_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void prefetch_ahead(const struct arrays *arrays, size_t i, size_t ahead)
{
	if (ahead && i + ahead < arrays->count) {
		__builtin_prefetch(arrays->b + i + ahead);
		__builtin_prefetch(arrays->c + i + ahead);
	}
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void triad_avx512(const struct arrays *arrays, size_t first, size_t end,
							    size_t ahead)
{
	const __m512d s = _mm512_set1_pd(0.75);

	for (size_t i = first; i < end; i += LINE_DOUBLES) {
		prefetch_ahead(arrays, i, ahead);
		__m512d sum = _mm512_fmadd_pd(s, _mm512_load_pd(arrays->c + i), _mm512_load_pd(arrays->b + i));
		_mm512_stream_pd(arrays->a + i, sum);
	}
	_mm_sfence();
}

__attribute__((target("avx2,fma"))) static void triad_avx2(const struct arrays *arrays, size_t first, size_t end,
							   size_t ahead)
{
	const __m256d s = _mm256_set1_pd(0.75);

	for (size_t i = first; i < end; i += LINE_DOUBLES) {
		prefetch_ahead(arrays, i, ahead);
		for (size_t j = i; j < i + LINE_DOUBLES; j += 4) {
			__m256d sum = _mm256_fmadd_pd(s, _mm256_load_pd(arrays->c + j), _mm256_load_pd(arrays->b + j));
			_mm256_stream_pd(arrays->a + j, sum);
		}
	}
	_mm_sfence();
}
#endif

static void triad_plain(const struct arrays *arrays, size_t first, size_t end, size_t ahead)
{
	for (size_t i = first; i < end; i += LINE_DOUBLES) {
		prefetch_ahead(arrays, i, ahead);
		for (size_t j = i; j < i + LINE_DOUBLES; j += 2) {
#if defined(__x86_64__)
			__m128d product = _mm_mul_pd(_mm_set1_pd(0.75), _mm_load_pd(arrays->c + j));
			_mm_stream_pd(arrays->a + j, _mm_add_pd(_mm_load_pd(arrays->b + j), product));
#else
			arrays->a[j] = arrays->b[j] + 0.75 * arrays->c[j];
			arrays->a[j + 1] = arrays->b[j + 1] + 0.75 * arrays->c[j + 1];
#endif
		}
	}
#if defined(__x86_64__)
	_mm_sfence();
#endif
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

static void *job_run(void *context)
{
	struct job *job = context;

	pthread_barrier_wait(job->start);
	job->begun = clock_seconds();
	job->triad(job->arrays, job->first, job->end, job->ahead);
	job->ended = clock_seconds();
	return NULL;
}

/* Seconds from the first thread's start to the last one's end. */
static double triad_measure(const struct arrays *arrays, unsigned thread_count, size_t ahead)
{
	struct job jobs[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	pthread_barrier_t start;
	size_t share = arrays->count / thread_count / LINE_DOUBLES * LINE_DOUBLES;
	double begun = 0, ended = 0;

	pthread_barrier_init(&start, NULL, thread_count);
	for (unsigned t = 0; t < thread_count; t++) {
		jobs[t] = (struct job){
			.arrays = arrays,
			.triad = triad_best(),
			.first = t * share,
			.end = t + 1 == thread_count ? arrays->count : (t + 1) * share,
			.ahead = ahead,
			.start = &start,
		};
		if (pthread_create(&threads[t], NULL, job_run, &jobs[t]) != 0) {
			fprintf(stderr, "bench_triad: cannot start a thread\n");
			exit(1);
		}
	}
	for (unsigned t = 0; t < thread_count; t++) {
		pthread_join(threads[t], NULL);
		if (t == 0 || jobs[t].begun < begun)
			begun = jobs[t].begun;
		if (jobs[t].ended > ended)
			ended = jobs[t].ended;
	}
	pthread_barrier_destroy(&start);
	return ended - begun;
}

/* Lives until the program ends. The array begins behind `skipped` doubles. */
static double *array_create(size_t count, double value, size_t skipped)
{
	size_t bytes = (skipped + count) * sizeof(double);
	int fd = memfd_create("bench_triad", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char *room = mmap(NULL, bytes + HUGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	double *array = MAP_FAILED;

	if (fd >= 0 && posix_fallocate(fd, 0, (off_t)bytes) == 0 && room != MAP_FAILED)
		array = mmap(room + -(uintptr_t)room % HUGE_PAGE_BYTES, bytes, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED, fd, 0);
	if (array == MAP_FAILED) {
		fprintf(stderr, "bench_triad: cannot have %zu bytes of shared memory\n", bytes);
		exit(1);
	}
	close(fd);
	for (size_t i = 0; i < skipped + count; i++)
		array[i] = value;
	(void)madvise(array, bytes, MADV_COLLAPSE);
	return array + skipped;
}

int main(int argc, char **argv)
{
	unsigned long mebibytes = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
	struct arrays arrays = {.count = mebibytes * (1024 * 1024 / sizeof(double))};
	char line[32];

	if (mebibytes == 0 || mebibytes > 65536) {
		fprintf(stderr, "usage: bench_triad MEBIBYTES\n");
		return 2;
	}
	arrays.a = array_create(arrays.count, 0, 0);
	arrays.b = array_create(arrays.count, 1, STAGGER_DOUBLES);
	arrays.c = array_create(arrays.count, 2, 2 * STAGGER_DOUBLES);
	while (fgets(line, sizeof line, stdin)) {
		unsigned long thread_count = strtoul(line, NULL, 10);
		double plain, ahead;

		if (thread_count == 0 || thread_count > THREADS_MAX) {
			fprintf(stderr, "bench_triad: %s threads: 1 to %d are possible\n", line, THREADS_MAX);
			return 2;
		}
		plain = triad_measure(&arrays, (unsigned)thread_count, 0);
		ahead = triad_measure(&arrays, (unsigned)thread_count, AHEAD_BYTES / sizeof(double));
		printf("%.0f\n", (double)(arrays.count * 3 * sizeof(double)) / (plain < ahead ? plain : ahead));
		fflush(stdout);
	}
	return 0;
}
