/*
 * Operands. See operand.h.
 */
#include "client/emactl/operand.h"

#include "client/emactl/ask.h"
#include "client/emactl/table.h"
#include "client/emactl/transfer.h"
#include "client/view.h"
#include "proto/sentence.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool text_ends(const char *text, const char *end)
{
	const size_t bytes = strlen(text), end_bytes = strlen(end);

	return bytes >= end_bytes && strcmp(text + bytes - end_bytes, end) == 0;
}

bool operand_is_file(const char *text)
{
	struct stat facts;

	if (text[0] == '/' || strncmp(text, "./", 2) == 0 || strncmp(text, "../", 3) == 0 ||
	    text_ends(text, ".safetensors"))
		return true;
	return stat(text, &facts) == 0 && S_ISREG(facts.st_mode);
}

int operand_split(const struct emactl *emactl, const char *text, char model[MODEL_NAME_BYTES_MAX + 1],
                  const char **ret_profile)
{
	const char *colon = strchr(text, ':');
	const size_t bytes = colon ? (size_t)(colon - text) : strlen(text);

	if (bytes > MODEL_NAME_BYTES_MAX)
		return output_error(emactl, EMAD_ENAME, "a model's name has at most %d bytes, '%.*s...' has %zu",
		                    MODEL_NAME_BYTES_MAX, sentence_name_bytes(text), text, bytes);
	if (colon && !colon[1])
		return output_error(emactl, EMAD_EARGUMENT, "'%s': a profile is missing behind the colon", text);
	memcpy(model, text, bytes);
	model[bytes] = '\0';
	*ret_profile = colon ? colon + 1 : NULL;
	return 0;
}

static int file_open(const struct emactl *emactl, struct operand *operand)
{
	struct reason reason = {""};
	int code;

	operand->is_file = true;
	code = source_begin_reading(operand->text, &operand->source, &operand->owned, &reason);
	if (code)
		return output_error(emactl, code, "%s", reason.text);
	operand->contents = operand->owned;
	return 0;
}

static int model_open(const struct emactl *emactl, struct operand *operand, const char *tensor,
                      struct emad_client *client)
{
	const struct emad_view_options options = {
		.timeout_ms = emactl->timeout_ms,
		.tensors = tensor ? &tensor : NULL,
		.tensor_count = 1,
	};
	struct transfer transfer;
	struct reason reason = {""};
	int code, status;

	status = operand_split(emactl, operand->text, operand->model, &operand->profile);
	if (status)
		return status;
	transfer_begin(&transfer, emactl, client);
	code = emad_view_open_with(client, operand->model, operand->profile, &options, &operand->view);
	transfer_end(&transfer);
	if (!code)
		code = emad_view_info(operand->view, &operand->info);
	if (code)
		return output_library_error(emactl, code);
	code = view_tensors(operand->view, &operand->contents, &reason);
	return code ? output_error(emactl, code, "%s", reason.text) : 0;
}

int operand_connect(const struct emactl *emactl, char *const *texts, unsigned count, struct emad_client **ret_client)
{
	char model[MODEL_NAME_BYTES_MAX + 1];
	bool needs_daemon = false;
	const char *profile;
	int status;

	for (unsigned i = 0; i < count; i++) {
		if (operand_is_file(texts[i]))
			continue;
		status = operand_split(emactl, texts[i], model, &profile);
		if (status)
			return status;
		needs_daemon = true;
	}
	*ret_client = NULL;
	return needs_daemon ? ask_connect(emactl, ret_client) : 0;
}

int operand_open(const struct emactl *emactl, struct operand *operand, const char *text, const char *tensor,
                 struct emad_client *client)
{
	*operand = (struct operand){.text = text, .source.fd = -1};
	return operand_is_file(text) ? file_open(emactl, operand) : model_open(emactl, operand, tensor, client);
}

void operand_close(struct operand *operand)
{
	emad_view_close(operand->view);
	safetensors_destroy(operand->owned);
	source_close(&operand->source);
	*operand = (struct operand){.source.fd = -1};
}

int operand_read(struct operand *operand, uint64_t offset, void *bytes, size_t byte_count, struct reason *reason)
{
	if (operand->is_file)
		return source_read(&operand->source, offset, bytes, byte_count, reason);
	memcpy(bytes, operand->info.image + offset, byte_count);
	return 0;
}

int operand_check(struct operand *operand, struct reason *reason)
{
	return operand->view ? view_check(operand->view, reason) : 0;
}

const struct safetensors_entry *operand_find(const struct emactl *emactl, const struct operand *operand, const char *name,
                                             int *ret_status)
{
	const struct safetensors *contents = operand->contents;
	const struct safetensors_entry *entry = safetensors_find(contents, name);
	const char **names, *nearest = NULL;

	if (entry)
		return entry;
	names = calloc((size_t)contents->entry_count + 1, sizeof(*names));
	for (uint32_t i = 0; names && i < contents->entry_count; i++)
		names[i] = contents->entries[i].name;
	if (names)
		nearest = arguments_nearest(name, names);
	*ret_status = output_error(emactl, -ENOENT, "%s holds no tensor '%s'%s%s%s", operand->text, name,
	                           nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
	free(names);
	return NULL;
}

static const char *profile_name(const struct operand *operand)
{
	const char *name = operand->profile ? operand->profile : safetensors_metadata_get(operand->contents, "emad.profile");

	return name ? name : "";
}

void operand_json(const struct operand *operand)
{
	if (operand->is_file) {
		printf("{\"file\":");
		output_json_string(operand->text);
		printf("}");
		return;
	}
	printf("{\"model\":");
	output_json_string(operand->model);
	printf(",\"profile\":");
	output_json_string(profile_name(operand));
	printf(",\"version\":%" PRIu64 ",\"step\":%" PRIu64 "}", operand->info.version, operand->info.step);
}

void operand_print(const struct operand *operand)
{
	if (operand->is_file) {
		table_write_safe(stdout, operand->text);
		return;
	}
	table_write_safe(stdout, operand->model);
	putchar(':');
	table_write_safe(stdout, profile_name(operand));
	printf(", version %" PRIu64 ", step %" PRIu64, operand->info.version, operand->info.step);
}
