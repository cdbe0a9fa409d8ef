/*
 * Tokens and certificates. See network_files.h.
 */
#include "daemon/network_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/network.h"
#include "daemon/edge/credentials.h"

static int file_take(const char *key, const char *name, bool is_secret, char **ret_text, struct reason *reason)
{
	return name[0] ? credential_read(key, name, is_secret, ret_text, reason) : 0;
}

static int tokens_take(const struct config *config, struct tokens *tokens, struct reason *reason)
{
	struct reason why = { "" };
	char *text = NULL;
	int error = file_take("token-file", config->token_file, true, &text, reason);

	if (error || !text)
		return error;
	error = tokens_parse(text, tokens, &why);
	explicit_bzero(text, strlen(text));
	free(text);
	return error ? reason_set(reason, error, "token-file=%.200s, %.250s", config->token_file, why.text) : 0;
}

static int files_check(const struct config *config, const struct network_files *files, struct reason *reason)
{
	char url[CONFIG_PATH_BYTES_MAX];

	for (uint32_t i = 0; network_url(config->listen, i, url, sizeof url); i++) {
		if (!network_url_is_local(url) && !config->token_file[0])
			return reason_set(reason, STATUS_EARGUMENT, "listen=%s: other hosts may connect there, and without token-file= "
			                  "nobody could tell who they are: name one, or listen at 127.0.0.1", url);
		if (network_url_is_secret(url) && (!files->certificate || !files->key))
			return reason_set(reason, STATUS_EARGUMENT, "listen=%s needs %s=: a file in PEM format", url,
			                  files->certificate ? "tls-key" : "tls-certificate");
	}
	return 0;
}

int network_files_read(const struct config *config, struct network_files **ret_files, struct reason *reason)
{
	struct network_files *files = calloc(1, sizeof *files);
	int error;

	if (!files)
		return reason_set(reason, -ENOMEM, "not enough memory for tokens and certificates");
	error = tokens_take(config, &files->tokens, reason);
	if (!error)
		error = file_take("tls-certificate", config->tls_certificate, false, &files->certificate, reason);
	if (!error)
		error = file_take("tls-key", config->tls_key, true, &files->key, reason);
	if (!error)
		error = file_take("tls-ca", config->tls_ca, false, &files->authority, reason);
	if (!error)
		error = files_check(config, files, reason);
	if (error) {
		network_files_free(files);
		return error;
	}
	*ret_files = files;
	return 0;
}

static bool is_same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

bool network_files_same(const struct network_files *a, const struct network_files *b)
{
	return is_same(a->certificate, b->certificate) && is_same(a->key, b->key) && is_same(a->authority, b->authority);
}

void network_files_free(struct network_files *files)
{
	if (!files)
		return;
	if (files->key)
		explicit_bzero(files->key, strlen(files->key));
	explicit_bzero(&files->tokens, sizeof files->tokens);
	free(files->certificate);
	free(files->key);
	free(files->authority);
	free(files);
}
