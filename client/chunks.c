/*
 * Chunks in turn, by a few threads: see chunks.h.
 */
#include "client/chunks.h"

#include "client/wait.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

enum { HELPER_COUNT_MAX = 3 };

struct shift {
	const struct chunks *chunks;
	_Atomic uint64_t next; /* number of the next chunk */
	_Atomic uint64_t moved_count;
	pthread_mutex_t lock;
	int code;             /* guarded by lock; of the first failure */
	struct reason reason; /* guarded by lock */
};

static int shift_code(struct shift *shift)
{
	int code;

	pthread_mutex_lock(&shift->lock);
	code = shift->code;
	pthread_mutex_unlock(&shift->lock);
	return code;
}

static void shift_fail(struct shift *shift, int code, const struct reason *reason)
{
	pthread_mutex_lock(&shift->lock);
	if (shift->code == 0) {
		shift->code = code;
		shift->reason = *reason;
	}
	pthread_mutex_unlock(&shift->lock);
}

/* The calling thread alone. */
static void progress_tell(struct shift *shift)
{
	const uint64_t count = atomic_load_explicit(&shift->moved_count, memory_order_relaxed);
	const struct chunks *chunks = shift->chunks;
	const struct emad_client *client = chunks->client;
	const uint64_t done_bytes = (uint64_t)((double)chunks->bytes * (double)count / (double)chunks->end);
	struct reason reason = {.text = "stopped by the caller"};

	if (client->progress && client->progress(client->progress_context, done_bytes, chunks->bytes))
		shift_fail(shift, -ECANCELED, &reason);
}

static void shift_move(struct shift *shift, bool is_caller)
{
	const struct chunks *chunks = shift->chunks;
	struct reason reason = {.text = ""};

	while (shift_code(shift) == 0) {
		uint64_t index = atomic_fetch_add_explicit(&shift->next, 1, memory_order_relaxed);
		int64_t deadline_ms = chunks->deadline_ms;
		int code;

		if (index >= chunks->end)
			break;
		if (chunks->patient)
			deadline_ms = client_deadline(chunks->client->timeout_ms);
		code = chunks->move(chunks, index, deadline_ms, &reason);
		if (code)
			shift_fail(shift, code, &reason);
		atomic_fetch_add_explicit(&shift->moved_count, 1, memory_order_relaxed);
		if (is_caller)
			progress_tell(shift);
	}
}

static void *shift_help(void *argument)
{
	shift_move(argument, false);
	return NULL;
}

int chunks_move(const struct chunks *chunks, struct reason *reason)
{
	struct shift shift = {.chunks = chunks, .next = chunks->begin, .moved_count = chunks->begin,
	                      .lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t helpers[HELPER_COUNT_MAX];
	uint64_t count;
	uint32_t helper_count = 0;

	if (chunks->begin >= chunks->end)
		return 0;
	progress_tell(&shift);
	count = chunks->end - chunks->begin - 1;
	/* Where no thread can be made the others do its part. */
	while (helper_count < HELPER_COUNT_MAX && helper_count < count &&
	       wait_thread_start(&helpers[helper_count], "emad-chunks", shift_help, &shift) == 0)
		helper_count++;
	shift_move(&shift, true);
	for (uint32_t i = 0; i < helper_count; i++)
		pthread_join(helpers[i], NULL);
	if (shift.code && reason)
		*reason = shift.reason;
	return shift.code;
}
