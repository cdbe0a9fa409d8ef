/*
 * The trainer: registering a model, staying registered, and asking what became of the pushes. The pushes themselves
 * are in push.c.
 */
#include "client/trainer.h"

#include "client/error.h"
#include "client/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Memory for a large model takes the daemon many seconds, and no training step waits for it. */
enum { OPEN_TIMEOUT_MS_MIN = 60000 };

enum { LEAVE_TIMEOUT_MS = 1000 }; /* for finding out whether another daemon is there */

int trainer_check(const struct emad_trainer *trainer, struct reason *reason)
{
	if (!trainer)
		return reason_set(reason, STATUS_EARGUMENT, "the trainer is NULL");
	return client_check(trainer->client, reason);
}

/* Takes over what the latest claim has brought. */
static void trainer_note_claim(struct emad_trainer *trainer, bool again)
{
	const struct registration *registration = &trainer->registration;

	trainer->refused_count = 0;
	pthread_mutex_lock(&trainer->lock);
	trainer->info.resumed = registration->resumed;
	trainer->info.last_step = registration->last_step;
	trainer->info.updates = registration->updates;
	trainer->info.version = registration->version;
	trainer->info.epoch = registration->epoch;
	trainer->info.payload_bytes = registration->manifest->stage_bytes;
	memcpy(trainer->info.report, registration->report, sizeof(trainer->info.report));
	if (again)
		trainer->info.restart_count++;
	pthread_mutex_unlock(&trainer->lock);
}

void trainer_note_lost(struct emad_trainer *trainer)
{
	pthread_mutex_lock(&trainer->lock);
	trainer->info.lost_count++;
	pthread_mutex_unlock(&trainer->lock);
}

void trainer_note_coalesced(struct emad_trainer *trainer, uint64_t count)
{
	pthread_mutex_lock(&trainer->lock);
	trainer->info.coalesced_count = count;
	pthread_mutex_unlock(&trainer->lock);
}

void trainer_note_skipped(struct emad_trainer *trainer)
{
	pthread_mutex_lock(&trainer->lock);
	trainer->info.skipped_count++;
	pthread_mutex_unlock(&trainer->lock);
}

int trainer_ready(struct emad_trainer *trainer, int64_t deadline_ms, bool *ret_lost, struct reason *reason)
{
	struct registration *registration = &trainer->registration;
	bool lost;
	int code;

	if (registration->fenced)
		return reason_set(reason, STATUS_EFENCED,
		                  "a newer registration of model '%s' rank %u has taken over from epoch %" PRIu64
		                  ": this trainer can push no more",
		                  registration->model, registration->rank, registration->epoch);
	if (!registration_alive(registration)) {
		code = registration_renew(registration, deadline_ms, &lost, reason);
		if (code)
			return code;
		if (lost)
			trainer_note_claim(trainer, true);
		if (lost && ret_lost)
			*ret_lost = true;
	}
	code = push_repeat(trainer, deadline_ms - WAIT_MARGIN_MS, reason);
	return code == STATUS_ENOMODEL ? trainer_reclaim(trainer, deadline_ms, reason) : code;
}

int trainer_reclaim(struct emad_trainer *trainer, int64_t deadline_ms, struct reason *reason)
{
	int code;

	do {
		reason->text[0] = '\0';
		/* Which daemon is it? */
		code = client_hello(trainer->client, deadline_ms, NULL, reason);
		if (code == 0)
			code = registration_claim(&trainer->registration, EMAD_RESUME_AUTO, deadline_ms, reason);
		if (code)
			return code;
		trainer_note_claim(trainer, true);
		code = push_repeat(trainer, deadline_ms - WAIT_MARGIN_MS, reason);
	} while (code == STATUS_ENOMODEL && wait_left_ms(deadline_ms) > 0);
	return code;
}

struct request trainer_request(const struct emad_trainer *trainer, enum operation operation)
{
	struct request request = {.operation = operation};

	request_set(&request, model, text_of(trainer->registration.model));
	request_set(&request, rank, trainer->registration.rank);
	request_set(&request, epoch, trainer->registration.epoch);
	request_set(&request, client, trainer->client->id);
	return request;
}

int trainer_call(struct emad_trainer *trainer, const struct request *request, int64_t deadline_ms,
                 struct client_answer *ret_answer, struct reason *reason)
{
	return client_call(trainer->client, request, NULL, 0, deadline_ms, ret_answer, reason);
}

int trainer_answer_code(struct emad_trainer *trainer, const struct client_answer *answer, struct reason *reason)
{
	int code = client_answer_code(answer, reason);

	if (code == STATUS_EFENCED)
		trainer->registration.fenced = true;
	return code;
}

int trainer_settle(struct emad_trainer *trainer, int64_t deadline_ms, struct reason *reason)
{
	return trainer->pusher ? pusher_settle(trainer->pusher, deadline_ms, reason) : 0;
}

/* Accepts a half-built trainer. */
static void trainer_destroy(struct emad_trainer *trainer)
{
	pusher_destroy(trainer->pusher);
	enclosure_destroy(trainer->enclosure);
	snapshot_finish(&trainer->snapshot);
	registration_finish(&trainer->registration);
	pthread_mutex_destroy(&trainer->lock);
	free(trainer);
}

static int trainer_open(struct emad_client *client, const char *model, const struct emad_tensor *tensors,
                        size_t tensor_count, const struct emad_trainer_options *options,
                        struct emad_trainer **ret_trainer, struct reason *reason)
{
	int timeout_ms = client_timeout(client, options->timeout_ms);
	struct emad_trainer *trainer;
	int64_t deadline_ms;
	int code;

	if (options->timeout_ms < 0 && timeout_ms < OPEN_TIMEOUT_MS_MIN)
		timeout_ms = OPEN_TIMEOUT_MS_MIN;
	deadline_ms = client_deadline(timeout_ms);

	if (tensor_count > TENSOR_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "%zu tensors: a model has at most %d", tensor_count,
		                  TENSOR_COUNT_MAX);
	trainer = calloc(1, sizeof(*trainer));
	if (!trainer)
		return -ENOMEM;
	pthread_mutex_init(&trainer->lock, NULL);
	trainer->client = client;
	code = registration_init(&trainer->registration, client, model, options, reason);
	if (code == 0)
		code = registration_tensors(&trainer->registration, tensors, tensor_count, reason);
	if (code == 0)
		code = snapshot_init(&trainer->snapshot, trainer->registration.manifest);
	if (code == 0)
		code = registration_claim(&trainer->registration, options->resume, deadline_ms, reason);
	if (code) {
		trainer_destroy(trainer);
		return code;
	}
	trainer_note_claim(trainer, false);
	*ret_trainer = trainer;
	return 0;
}

int emad_trainer_open(struct emad_client *client, const char *model, const struct emad_tensor *tensors,
                      size_t tensor_count, const struct emad_trainer_options *options,
                      struct emad_trainer **ret_trainer)
{
	static const struct emad_trainer_options fallback = {.timeout_ms = -1};
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0 && (!ret_trainer || (!tensors && tensor_count > 0)))
		code = reason_set(&reason, STATUS_EARGUMENT, "%s is NULL", ret_trainer ? "tensors" : "ret_trainer");
	if (code == 0)
		code = trainer_open(client, model, tensors, tensor_count, options ? options : &fallback, ret_trainer,
		                    &reason);
	return error_report(code, &reason);
}

/* Whether another daemon may answer than the one that has accepted what is not averaged yet. */
static bool daemon_changed(struct emad_trainer *trainer)
{
	struct registration *registration = &trainer->registration;

	if (!registration->stands)
		return !registration_alive(registration);
	return client_hello(trainer->client, wait_deadline(LEAVE_TIMEOUT_MS), NULL, NULL) == 0 &&
	       trainer->client->instance != registration->instance;
}

/* The snapshots that a daemon has lost go with the trainer: it tries once to hand them to the next one. */
static void trainer_leave(struct emad_trainer *trainer)
{
	struct registration *registration = &trainer->registration;
	int64_t deadline_ms = client_deadline(trainer->client->timeout_ms);
	struct reason reason = {.text = ""};

	pusher_destroy(trainer->pusher);
	trainer->pusher = NULL;
	if (registration->fenced || !stages_hold(&registration->stages) || !daemon_changed(trainer))
		return;
	registration->stands = false;
	(void)trainer_ready(trainer, deadline_ms, NULL, &reason);
}

void emad_trainer_close(struct emad_trainer *trainer)
{
	struct reason reason;

	if (!trainer || trainer_check(trainer, &reason) != 0)
		return;
	trainer_leave(trainer);
	trainer_destroy(trainer);
}

int emad_trainer_info(struct emad_trainer *trainer, struct emad_trainer_info *ret_info)
{
	struct reason reason = {.text = ""};
	int code = trainer_check(trainer, &reason);

	if (code == 0 && !ret_info)
		code = reason_set(&reason, STATUS_EARGUMENT, "ret_info is NULL");
	if (code)
		return error_report(code, &reason);
	pthread_mutex_lock(&trainer->lock);
	*ret_info = trainer->info;
	pthread_mutex_unlock(&trainer->lock);
	return 0;
}

/*
 * The daemon has lost the registration and a new one stands: 0 when its model holds nevertheless what was accepted, but
 * for that which was pushed again.
 */
static int flush_loss_check(const struct emad_trainer *trainer, struct reason *reason)
{
	const struct registration *registration = &trainer->registration;

	if (!registration->has_lost)
		return 0;
	return reason_set(reason, STATUS_ENOMODEL,
	                  "the daemon has lost model '%s' since step %" PRIu64
	                  " was pushed: it is registered again, from step %" PRIu64,
	                  registration->model, registration->lost_step, registration->last_step);
}

static void flush_result(const struct reply *reply, struct emad_flush_result *ret_result)
{
	*ret_result = (struct emad_flush_result){
		.version = reply->version,
		.step = reply->present & REPLY_HAS(step) ? reply->step : reply->last_step,
		.refused_count = reply->refused,
		.coalesced_count = reply->coalesced,
	};
	client_text_copy(reply->refusal, ret_result->refusal, sizeof(ret_result->refusal));
}

static int trainer_flush(struct emad_trainer *trainer, int timeout_ms, struct emad_flush_result *ret_result,
                         struct reason *reason)
{
	int64_t until_ms = wait_deadline(client_timeout(trainer->client, timeout_ms));
	int64_t deadline_ms = until_ms + WAIT_MARGIN_MS;
	struct request request;
	struct client_answer answer;
	struct emad_flush_result result;
	bool lost = false;
	int code = 0;

	if (trainer->pusher)
		code = pusher_drain(trainer->pusher, until_ms, reason);
	if (code == 0)
		code = trainer_ready(trainer, deadline_ms, &lost, reason);
	if (code == 0 && lost)
		code = flush_loss_check(trainer, reason);
	if (code)
		return code;
	request = trainer_request(trainer, OP_FLUSH);
	request_set(&request, timeout_ms, (uint64_t)wait_left_ms(until_ms));
	code = trainer_call(trainer, &request, deadline_ms, &answer, reason);
	if (code)
		return code;
	code = trainer_answer_code(trainer, &answer, reason);
	/* Where no connection tells that the daemon has gone, it is found out here. */
	if (code == STATUS_ENOMODEL && trainer->registration.stands) {
		trainer->registration.stands = false;
		client_answer_finish(&answer);
		return trainer_flush(trainer, wait_left_ms(until_ms), ret_result, reason);
	}
	if (code == 0) {
		stages_decided(&trainer->registration.stages);
		flush_result(&answer.reply, &result);
		trainer_note_coalesced(trainer, result.coalesced_count);
		if (result.refused_count > trainer->refused_count)
			code = reason_set(reason, STATUS_EREFUSED, "%" PRIu64 " snapshots were refused since the last flush: %s",
			                  result.refused_count - trainer->refused_count, result.refusal);
		trainer->refused_count = result.refused_count;
		if (ret_result)
			*ret_result = result;
	}
	client_answer_finish(&answer);
	return code;
}

int emad_flush(struct emad_trainer *trainer, int timeout_ms, struct emad_flush_result *ret_result)
{
	struct reason reason = {.text = ""};
	int code = trainer_check(trainer, &reason);

	if (code == 0)
		code = trainer_flush(trainer, timeout_ms, ret_result, &reason);
	return error_report(code, &reason);
}

static int trainer_attributes(struct emad_trainer *trainer, const char *json, int timeout_ms, struct reason *reason)
{
	int64_t until_ms = wait_deadline(client_timeout(trainer->client, timeout_ms));
	int64_t deadline_ms = until_ms + WAIT_MARGIN_MS;
	struct registration *registration = &trainer->registration;
	struct request request;
	struct client_answer answer;
	char *copy, *before = registration->attributes;
	int code;

	if (strlen(json) > ATTRIBUTES_BYTES_MAX)
		return reason_set(reason, STATUS_ELIMIT, "the attributes have %zu bytes, %d are possible", strlen(json),
		                  ATTRIBUTES_BYTES_MAX);
	code = trainer_settle(trainer, until_ms, reason);
	if (code == 0)
		code = trainer_ready(trainer, deadline_ms, NULL, reason);
	if (code)
		return code;
	copy = strdup(json);
	if (!copy)
		return -ENOMEM;
	request = trainer_request(trainer, OP_ATTRIBUTES);
	client_stamp(trainer->client, &request);
	request_set(&request, attributes, text_of(json));
	code = trainer_call(trainer, &request, deadline_ms, &answer, reason);
	if (code == 0) {
		code = trainer_answer_code(trainer, &answer, reason);
		client_answer_finish(&answer);
	}
	/* From now on a new claim carries them, the one right here to begin with. */
	registration->attributes = copy;
	if (code == STATUS_ENOMODEL)
		code = trainer_reclaim(trainer, deadline_ms, reason);
	if (code)
		registration->attributes = before;
	free(code ? copy : before);
	return code;
}

int emad_attributes_set(struct emad_trainer *trainer, const char *json, int timeout_ms)
{
	struct reason reason = {.text = ""};
	int code = trainer_check(trainer, &reason);

	if (code == 0 && !json)
		code = reason_set(&reason, STATUS_EARGUMENT, "json is NULL");
	if (code == 0)
		code = trainer_attributes(trainer, json, timeout_ms, &reason);
	return error_report(code, &reason);
}
