/*
 * Reading tokens and certificates: see identity.h.
 */
#include "client/identity.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1024 * 1024 };

static const char TCP[] = "tcp://";
static const char TLS[] = "tls+tcp://";

static int file_read(const char *variable, const char *path, char **ret_text, struct reason *reason)
{
	char *text = malloc(FILE_BYTES_MAX + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t count = fd < 0 ? -1 : 1;
	int error = fd < 0 ? errno : 0;

	while (text && !error && count > 0) {
		count = read(fd, text + used, FILE_BYTES_MAX - used);
		if (count < 0 && errno != EINTR)
			error = errno;
		used += count > 0 ? (size_t)count : 0;
	}
	if (fd >= 0)
		close(fd);
	if (text && !error && used > 0 && used < FILE_BYTES_MAX) {
		text[used] = '\0';
		*ret_text = text;
		return 0;
	}
	free(text);
	if (!error && text)
		return reason_set(reason, STATUS_EARGUMENT, "%s: %s has %zu bytes, and 1 to %d are possible", variable, path, used,
		                  FILE_BYTES_MAX - 1);
	return reason_set(reason, error ? -error : -ENOMEM, "%s: cannot read %s: %s", variable, path,
	                  strerrordesc_np(error ? error : ENOMEM));
}

/* The option, or else the variable; NULL where there is neither. */
static const char *setting(const char *option, const char *variable)
{
	const char *value = option && *option ? option : secure_getenv(variable);

	return value && *value ? value : NULL;
}

static int file_take(const char *option, const char *variable, char **ret_text, struct reason *reason)
{
	const char *path = setting(option, variable);

	return path ? file_read(variable, path, ret_text, reason) : 0;
}

/* The first word of a file that may end with a newline. */
static int token_take(const char *option, char **ret_token, struct reason *reason)
{
	char *text = NULL, *end;
	int code = file_take(option, "EMAD_TOKEN_FILE", &text, reason);

	if (code || !text)
		return code;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char)end[-1]))
		*--end = '\0';
	*ret_token = text;
	return 0;
}

int identity_init(struct identity *identity, const char *url, const struct emad_client_options *options,
                  struct reason *reason)
{
	static const struct emad_client_options nothing;
	bool is_secret = strncmp(url, TLS, strlen(TLS)) == 0;
	const char *name;
	int code;

	*identity = (struct identity){0};
	options = options ? options : &nothing;
	if (!is_secret && strncmp(url, TCP, strlen(TCP)) != 0)
		return 0;
	code = token_take(options->token_file, &identity->token, reason);
	if (code || !is_secret)
		return code;
	code = file_take(options->tls_ca, "EMAD_TLS_CA", &identity->authority, reason);
	if (code == 0 && !identity->authority)
		code = reason_set(reason, STATUS_EARGUMENT,
		                  "%s: set EMAD_TLS_CA to a file with the certificate of the authority that the daemon's is from",
		                  url);
	if (code == 0)
		code = file_take(options->tls_certificate, "EMAD_TLS_CERTIFICATE", &identity->certificate, reason);
	if (code == 0)
		code = file_take(options->tls_key, "EMAD_TLS_KEY", &identity->key, reason);
	if (code == 0 && !identity->certificate != !identity->key)
		code = reason_set(reason, STATUS_EARGUMENT, "%s is set and %s is not: a certificate needs its key",
		                  identity->key ? "EMAD_TLS_KEY" : "EMAD_TLS_CERTIFICATE",
		                  identity->key ? "EMAD_TLS_CERTIFICATE" : "EMAD_TLS_KEY");
	name = setting(options->tls_name, "EMAD_TLS_NAME");
	if (code == 0 && name) {
		identity->name = strdup(name);
		code = identity->name ? 0 : -ENOMEM;
	}
	return code;
}

void identity_finish(struct identity *identity)
{
	char *texts[] = {identity->token, identity->authority, identity->certificate, identity->key, identity->name};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (texts[i])
			explicit_bzero(texts[i], strlen(texts[i]));
		free(texts[i]);
	}
	*identity = (struct identity){0};
}
