/*
 * Asking the daemon: what every command that only shows something does before it shows it.
 */
#include "client/emactl/ask.h"

int ask_connect(const struct emactl *emactl, struct emad_client **ret_client)
{
	const int code = emad_client_open(emactl->url, emactl->connect_ms, ret_client);

	return code ? output_library_error(emactl, code) : 0;
}

int ask_json(const struct emactl *emactl, ask_question *question, const char *model, json_t **ret_answer)
{
	struct emad_client *client;
	json_error_t complaint;
	char *json = NULL;
	json_t *answer;
	int code, status;

	status = ask_connect(emactl, &client);
	if (status)
		return status;
	code = model ? emad_show_json(client, model, emactl->timeout_ms, &json)
	             : question(client, emactl->timeout_ms, &json);
	status = code ? output_library_error(emactl, code) : 0;
	emad_client_close(client);
	if (status)
		return status;
	answer = facts_parse(json, &complaint);
	emad_free(json);
	if (!answer)
		return output_error(emactl, EMAD_EPROTOCOL, "the daemon's answer is not the JSON that was expected: %s",
		                    complaint.text);
	*ret_answer = answer;
	return 0;
}
