/*
 * Asking the daemon to write averages to disk.
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
