/*
 * Asking the daemon to write averages to disk, to keep what is there, and to go back.
 */
#include "client/client.h"
#include "client/error.h"

static int checkpoint_ask(struct emad_client *client, const char *model, int timeout_ms, uint64_t *ret_step,
                          struct reason *reason)
{
	struct request request = {.operation = OP_CHECKPOINT};
	int wanted_ms = client_timeout(client, timeout_ms);
	struct client_answer answer;
	int code = model ? client_model_check(model, reason) : 0;

	if (code)
		return code;
	if (model)
		request_set(&request, model, text_of(model));
	request_set(&request, timeout_ms, (uint64_t)wanted_ms);
	request_set(&request, client, client->id);
	code = client_call(client, &request, NULL, 0, client_deadline(wanted_ms), &answer, reason);
	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	if (code == 0 && ret_step)
		*ret_step = answer.reply.step;
	client_answer_finish(&answer);
	return code;
}

int emad_checkpoint(struct emad_client *client, const char *model, int timeout_ms, uint64_t *ret_step)
{
	struct reason reason = {.text = ""};
	int code = client_check(client, &reason);

	if (code == 0)
		code = checkpoint_ask(client, model, timeout_ms, ret_step, &reason);
	return error_report(code, &reason);
}

/* Sends a request about a model and waits for its answer. */
static int model_ask(struct emad_client *client, struct request *request, const char *model, int timeout_ms,
                     struct client_answer *ret_answer, struct reason *reason)
{
	int wanted_ms = client_timeout(client, timeout_ms), code = client_model_check(model, reason);

	if (code)
		return code;
	request_set(request, model, text_of(model));
	request_set(request, timeout_ms, (uint64_t)wanted_ms);
	request_set(request, client, client->id);
	code = client_call(client, request, NULL, 0, client_deadline(wanted_ms), ret_answer, reason);
	if (code)
		return code;
	code = client_answer_code(ret_answer, reason);
	if (code)
		client_answer_finish(ret_answer);
	return code;
}

int emad_checkpoint_keep(struct emad_client *client, const char *model, uint64_t step, int keep, int timeout_ms)
{
	struct request request = {.operation = OP_CHECKPOINT_KEEP};
	struct reason reason = {.text = ""};
	struct client_answer answer;
	int code = client_check(client, &reason);

	request_set(&request, step, step);
	request_set(&request, keep, keep != 0);
	if (code == 0)
		code = model_ask(client, &request, model, timeout_ms, &answer, &reason);
	if (code == 0)
		client_answer_finish(&answer);
	return error_report(code, &reason);
}

int emad_rollback(struct emad_client *client, const char *model, uint64_t step, unsigned flags, int timeout_ms,
                  struct emad_rolled_back *ret_rolled_back)
{
	struct request request = {.operation = OP_ROLLBACK};
	struct reason reason = {.text = ""};
	struct client_answer answer;
	int code = client_check(client, &reason);

	if (code == 0 && flags & ~(unsigned)EMAD_ROLLBACK_DRY_RUN)
		code = reason_set(&reason, STATUS_EARGUMENT, "flags are %#x, of which only %#x is known", flags,
		                  EMAD_ROLLBACK_DRY_RUN);
	request_set(&request, step, step);
	if (flags & EMAD_ROLLBACK_DRY_RUN)
		request_set(&request, dry_run, true);
	if (code == 0)
		code = model_ask(client, &request, model, timeout_ms, &answer, &reason);
	if (code)
		return error_report(code, &reason);
	if (ret_rolled_back)
		*ret_rolled_back = (struct emad_rolled_back){
			.version = answer.reply.version,
			.step = answer.reply.step,
			.updates = answer.reply.updates,
			.step_before = answer.reply.last_step,
			.taken = answer.reply.taken,
			.from_disk = text_equal(answer.reply.source, "disk"),
		};
	client_answer_finish(&answer);
	return error_report(0, &reason);
}
