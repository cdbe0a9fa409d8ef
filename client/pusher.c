/*
 * The thread for asynchronous pushes: see pusher.h.
 */
#include "client/pusher.h"

#include "client/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum pusher_state {
	PUSHER_IDLE,
	PUSHER_COPYING, /* the caller's memory is being read, or will be */
	PUSHER_SENDING,
};

struct pusher {
	pusher_run *run;
	void *context; /* borrowed from the creator until pusher_destroy */
	uint32_t pointer_count;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* pairs with lock */

	/* Guarded by lock. */
	enum pusher_state state;
	bool stop;
	uint64_t step;
	struct enclosure *enclosure; /* owned until the job takes it */
	int failure;          /* kept until asked for; 0 for none */
	struct reason reason; /* of failure */

	const void *data[]; /* pointer_count; written while idle, read by the thread while not */
};

static void *pusher_thread(void *argument)
{
	struct pusher *pusher = argument;
	struct reason reason;
	int code;
	const struct sched_param parameters = {0};

	/* Where every processor is busy, an ordinary thread that is woken would interrupt the caller, for milliseconds. */
	(void)sched_setscheduler(0, SCHED_BATCH, &parameters);
	pthread_mutex_lock(&pusher->lock);
	for (;;) {
		while (pusher->state == PUSHER_IDLE && !pusher->stop)
			pthread_cond_wait(&pusher->changed, &pusher->lock);
		if (pusher->state == PUSHER_IDLE)
			break;
		pthread_mutex_unlock(&pusher->lock);

		reason.text[0] = '\0';
		code = pusher->run(pusher->context, pusher, pusher->step, pusher->data, pusher->enclosure, &reason);

		pthread_mutex_lock(&pusher->lock);
		if (code) {
			pusher->failure = code;
			pusher->reason = reason;
		}
		pusher->state = PUSHER_IDLE;
		pthread_cond_broadcast(&pusher->changed);
	}
	pthread_mutex_unlock(&pusher->lock);
	return NULL;
}

int pusher_create(uint32_t pointer_count, pusher_run *run, void *context, struct pusher **ret_pusher)
{
	struct pusher *pusher = calloc(1, sizeof(*pusher) + (size_t)pointer_count * sizeof(pusher->data[0]));
	int code;

	if (!pusher)
		return -ENOMEM;
	pusher->run = run;
	pusher->context = context;
	pusher->pointer_count = pointer_count;
	code = wait_condition_init(&pusher->changed);
	if (code)
		goto fail;
	pthread_mutex_init(&pusher->lock, NULL);
	code = wait_thread_start(&pusher->thread, "emad-pusher", pusher_thread, pusher);
	if (code) {
		pthread_mutex_destroy(&pusher->lock);
		pthread_cond_destroy(&pusher->changed);
		goto fail;
	}
	*ret_pusher = pusher;
	return 0;
fail:
	free(pusher);
	return code;
}

void pusher_destroy(struct pusher *pusher)
{
	if (!pusher)
		return;
	pthread_mutex_lock(&pusher->lock);
	pusher->stop = true;
	pthread_cond_broadcast(&pusher->changed);
	pthread_mutex_unlock(&pusher->lock);
	pthread_join(pusher->thread, NULL);
	pthread_mutex_destroy(&pusher->lock);
	pthread_cond_destroy(&pusher->changed);
	free(pusher);
}

void pusher_copied(struct pusher *pusher)
{
	pthread_mutex_lock(&pusher->lock);
	pusher->state = PUSHER_SENDING;
	pthread_cond_broadcast(&pusher->changed);
	pthread_mutex_unlock(&pusher->lock);
}

/* Under the lock: waits until the job has ended, or at least its copy. False when the deadline passed. */
static bool pusher_wait(struct pusher *pusher, bool until_copied, int64_t deadline_ms)
{
	for (;;) {
		if (pusher->state == PUSHER_IDLE || (until_copied && pusher->state == PUSHER_SENDING))
			return true;
		if (wait_left_ms(deadline_ms) == 0)
			return false;
		wait_condition(&pusher->changed, &pusher->lock, deadline_ms);
	}
}

/* Under the lock: the kept failure, once. */
static int pusher_failure_take(struct pusher *pusher, struct reason *reason)
{
	int code = pusher->failure;

	if (code) {
		*reason = pusher->reason;
		pusher->failure = 0;
	}
	return code;
}

int pusher_begin(struct pusher *pusher, uint64_t step, const void *const *data, struct enclosure *enclosure,
                 int64_t deadline_ms, struct reason *reason)
{
	int code = 0;

	pthread_mutex_lock(&pusher->lock);
	if (!pusher_wait(pusher, false, deadline_ms))
		code = reason_set(reason, STATUS_EBUSY, "the push of step %" PRIu64 " is still under way", pusher->step);
	if (code == 0)
		code = pusher_failure_take(pusher, reason);
	if (code == 0) {
		memcpy(pusher->data, data, pusher->pointer_count * sizeof(pusher->data[0]));
		pusher->step = step;
		pusher->enclosure = enclosure;
		pusher->state = PUSHER_COPYING;
		pthread_cond_broadcast(&pusher->changed);
	}
	pthread_mutex_unlock(&pusher->lock);
	return code;
}

int pusher_fence(struct pusher *pusher, int64_t deadline_ms, struct reason *reason)
{
	int code;

	pthread_mutex_lock(&pusher->lock);
	if (pusher_wait(pusher, true, deadline_ms))
		code = pusher_failure_take(pusher, reason);
	else
		code = reason_set(reason, STATUS_ETIMEOUT,
		                  "the values of step %" PRIu64 " are still being copied: do not change them yet",
		                  pusher->step);
	pthread_mutex_unlock(&pusher->lock);
	return code;
}

static int pusher_settle_locked(struct pusher *pusher, int64_t deadline_ms, struct reason *reason)
{
	if (pusher_wait(pusher, false, deadline_ms))
		return 0;
	return reason_set(reason, STATUS_ETIMEOUT, "the push of step %" PRIu64 " is still under way", pusher->step);
}

int pusher_settle(struct pusher *pusher, int64_t deadline_ms, struct reason *reason)
{
	int code;

	pthread_mutex_lock(&pusher->lock);
	code = pusher_settle_locked(pusher, deadline_ms, reason);
	pthread_mutex_unlock(&pusher->lock);
	return code;
}

int pusher_drain(struct pusher *pusher, int64_t deadline_ms, struct reason *reason)
{
	int code;

	pthread_mutex_lock(&pusher->lock);
	code = pusher_settle_locked(pusher, deadline_ms, reason);
	if (code == 0)
		code = pusher_failure_take(pusher, reason);
	pthread_mutex_unlock(&pusher->lock);
	return code;
}
