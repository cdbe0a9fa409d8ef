/*
 * Changing the profiles of a model.
 */
#include "client/client.h"
#include "client/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Slots of another geometry may have to be made and an update to end. */
static int profiles_call(struct emad_client *client, struct request *request, int timeout_ms, char **ret_report,
                         struct reason *reason)
{
	int wanted_ms = client_timeout(client, timeout_ms);
	struct client_answer answer;
	char *report = NULL;
	int code;

	request_set(request, timeout_ms, (uint64_t)wanted_ms);
	request_set(request, client, client->id);
	code = client_call(client, request, NULL, 0, client_deadline(wanted_ms), &answer, reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0 && ret_report) {
		report = strndup(answer.reply.report.bytes ? answer.reply.report.bytes : "", answer.reply.report.count);
		code = report ? 0 : -ENOMEM;
	}
	client_answer_finish(&answer);
	if (code == 0 && ret_report)
		*ret_report = report;
	return code;
}

static int profiles_set(struct emad_client *client, const char *model, const char *const *profiles,
                        uint32_t profile_count, int timeout_ms, char **ret_report, struct reason *reason)
{
	struct request request = {.operation = OP_PROFILE_SET};
	int code = client_model_check(model, reason);

	if (code)
		return code;
	if (profile_count < 1 || profile_count > PROFILE_COUNT_MAX || !profiles)
		return reason_set(reason, STATUS_EARGUMENT, "%u profiles: 1 to %d can be set at once",
		                  profiles ? profile_count : 0, PROFILE_COUNT_MAX);
	request.profiles.count = profile_count;
	for (uint32_t i = 0; i < profile_count; i++) {
		if (!profiles[i])
			return reason_set(reason, STATUS_EARGUMENT, "profile %u is NULL", i);
		request.profiles.items[i] = text_of(profiles[i]);
	}
	request.present |= REQUEST_HAS(profiles);
	request_set(&request, model, text_of(model));
	return profiles_call(client, &request, timeout_ms, ret_report, reason);
}

int emad_profile_set(struct emad_client *client, const char *model, const char *const *profiles,
                     uint32_t profile_count, int timeout_ms, char **ret_report)
{
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0)
		code = profiles_set(client, model, profiles, profile_count, timeout_ms, ret_report, &reason);
	return error_report(code, &reason);
}

int emad_profile_remove(struct emad_client *client, const char *model, const char *profile, int timeout_ms,
                        char **ret_report)
{
	struct request request = {.operation = OP_PROFILE_REMOVE};
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0)
		code = client_model_check(model, &reason);
	if (code == 0 && !profile)
		code = reason_set(&reason, STATUS_EARGUMENT, "profile is NULL");
	if (code == 0) {
		request_set(&request, model, text_of(model));
		request_set(&request, profile, text_of(profile));
		code = profiles_call(client, &request, timeout_ms, ret_report, &reason);
	}
	return error_report(code, &reason);
}
