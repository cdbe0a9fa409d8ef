/*
 * Waiting, and what may come between. See following.h.
 */
#include "client/emactl/following.h"

#include "client/emactl/facts.h"

#include <string.h>
#include <time.h>

enum { SLICE_MS = 10000, RETRY_MS = 500 };

static void pause_ms(int ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

/* What the daemon's list says of the model; NULL when it cannot be had. The caller calls json_decref. */
static json_t *model_ask(const struct following *following)
{
	json_t *answer = NULL, *row, *found = NULL;
	json_error_t complaint;
	char *json = NULL;
	size_t i;

	if (emad_list_json(following->client, following->emactl->timeout_ms, &json) == 0)
		answer = facts_parse(json, &complaint);
	emad_free(json);
	json_array_foreach(json_object_get(answer, "models"), i, row)
	{
		const char *name = json_string_value(json_object_get(row, "model"));

		if (name && strcmp(name, following->model) == 0)
			found = json_incref(row);
	}
	json_decref(answer);
	return found;
}

int64_t following_lag(const struct following *following)
{
	json_t *row = model_ask(following);
	const json_t *lag = json_object_get(row, "lag");
	const int64_t count = json_is_integer(lag) ? json_integer_value(lag) : -1;

	json_decref(row);
	return count;
}

bool following_passes(int code)
{
	return code == EMAD_EAWAY || code == EMAD_ESHUTDOWN || code == EMAD_ETIMEOUT || code == EMAD_EREVOKED ||
	       code == EMAD_EBUSY || code == EMAD_ENOVERSION;
}

static uint64_t instance_ask(const struct following *following)
{
	struct emad_daemon daemon;

	return emad_hello(following->client, following->emactl->timeout_ms, &daemon) ? 0 : daemon.instance;
}

/* Facts are wanted, and no tensors: from another host none comes. */
static int facts_open(const struct following *following, uint64_t min_step, int timeout_ms, struct emad_view **ret_view)
{
	static const char *const none[1];
	const struct emad_view_options options = {.min_step = min_step, .timeout_ms = timeout_ms, .tensors = none};

	return emad_view_open_with(following->client, following->model, following->profile, &options, ret_view);
}

int following_begin(struct following *following, uint64_t every, uint64_t until)
{
	struct emad_view_info info = {0};
	struct emad_view *view;
	int code;

	following->instance = instance_ask(following);
	code = facts_open(following, 0, following->emactl->timeout_ms, &view);
	if (code == 0) {
		code = emad_view_info(view, &info);
		emad_view_close(view);
	}
	if (code && code != EMAD_ENOVERSION && code != EMAD_EREVOKED)
		return output_library_error(following->emactl, code);
	cadence_begin(&following->cadence, every, until, info.step);
	return 0;
}

/* A daemon that was started meanwhile may not have the model yet: its trainer brings it back. */
static int absence_judge(struct following *following, int code)
{
	const uint64_t instance = instance_ask(following);

	if (instance == 0 || following->instance == 0 || instance != following->instance) {
		if (!following->is_waiting_told)
			output_note(following->emactl, "the daemon was started anew; waiting for its trainer to bring back %s",
			            following->model);
		following->is_waiting_told = true;
		return 0;
	}
	return output_error(following->emactl, code, "model '%s' or its profile has been removed", following->model);
}

/* Why there was no view: 0 to go on waiting. */
static int failure_judge(struct following *following, int code)
{
	json_t *row, *step;

	switch (code) {
	case EMAD_ETIMEOUT:
		row = model_ask(following);
		step = json_object_get(row, "step");
		if (json_is_integer(step) && cadence_see(&following->cadence, (uint64_t)json_integer_value(step)))
			output_note(following->emactl, "training went back to step %" JSON_INTEGER_FORMAT,
			            json_integer_value(step));
		json_decref(row);
		return 0;
	case EMAD_ENOMODEL:
	case EMAD_ENOPROFILE:
		pause_ms(RETRY_MS);
		return absence_judge(following, code);
	case EMAD_EAWAY:
	case EMAD_ESHUTDOWN:
		if (!following->is_waiting_told)
			output_note(following->emactl, "the daemon is away; waiting for it");
		following->is_waiting_told = true;
		pause_ms(RETRY_MS);
		return 0;
	case EMAD_ENOVERSION:
	case EMAD_EREVOKED:
	case EMAD_EBUSY:
		pause_ms(RETRY_MS);
		return 0;
	}
	return output_library_error(following->emactl, code);
}

int following_next(struct following *following, struct emad_view **ret_view)
{
	int code, status = 0;

	while (!status) {
		code = facts_open(following, following->cadence.due, SLICE_MS, ret_view);
		if (code == 0)
			break;
		status = failure_judge(following, code);
	}
	if (status)
		return status;
	/* It may have been started anew without anybody noticing, while a command ran. */
	following->instance = instance_ask(following);
	if (following->is_waiting_told)
		output_note(following->emactl, "the daemon is back");
	following->is_waiting_told = false;
	return 0;
}
