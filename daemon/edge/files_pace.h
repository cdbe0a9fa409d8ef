/*
 * How fast the files thread may write: checkpoint-bandwidth. Writing in chunks, it waits before each until what came
 * before is paid for at that many bytes a second; a moment's worth may be written at once. When the daemon ends, nothing
 * is limited any more, and who waits goes on at once.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct files_calls;

struct files_pace {
	pthread_mutex_t lock;
	pthread_cond_t changed;   /* its clock is the monotonic one */
	uint64_t bytes_per_s;     /* guarded by lock; 0: no limit */
	bool ends;                /* guarded by lock; no limit any more, whatever comes */
	uint64_t paid_ns;         /* guarded by lock; until when what was written is paid for */
};

void files_pace_init(struct files_pace *pace);
void files_pace_finish(struct files_pace *pace);

/* Another limit, also for who waits. Any thread, like the next. */
void files_pace_set(struct files_pace *pace, uint64_t bytes_per_s);
void files_pace_end(struct files_pace *pace);

/*
 * Waits until as many of the wanted bytes may be written as it returns: all, or a chunk of a limit's size, which is a
 * multiple of a page. The files thread only. NULL: nothing is limited.
 */
size_t files_pace_wait(struct files_pace *pace, const struct files_calls *calls, size_t wanted_bytes);
