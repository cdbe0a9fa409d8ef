/*
 * Dividing paths. See web_path.h.
 */
#include "daemon/core/web_path.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

static const struct {
	const char *path;
	enum web_resource resource;
} plain[] = {
	{ "/", WEB_PAGE },        { "/metrics", WEB_METRICS },  { "/healthz", WEB_HEALTH },
	{ "/readyz", WEB_READY }, { "/v1/status", WEB_STATUS }, { "/v1/models", WEB_MODELS },
};

static const char MODELS[] = "/v1/models/", SUFFIX[] = ".safetensors";

static int digit(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	return isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

/* Reads the escapes of so many characters of a path into a name. */
static int name_read(const char *text, size_t count, const char *what, char *name, size_t capacity, size_t *ret_bytes,
                     struct reason *reason)
{
	size_t bytes = 0;

	for (size_t i = 0; i < count; i++, bytes++) {
		char c = text[i];

		if (c == '%') {
			int high = i + 1 < count ? digit(text[i + 1]) : -1;
			int low = i + 2 < count ? digit(text[i + 2]) : -1;

			if (high < 0 || low < 0)
				return reason_set(reason, STATUS_ENAME, "'%%' in a path begins an escape of two "
				                  "hexadecimal digits, as %%2F");
			c = (char)(high * 16 + low);
			i += 2;
		}
		if (bytes + 1 == capacity)
			return reason_set(reason, STATUS_ENAME, "the name of a %s has at most %zu bytes, and that in the "
			                  "path has more", what, capacity - 1);
		name[bytes] = c;
	}
	name[bytes] = '\0';
	*ret_bytes = bytes;
	return 0;
}

static bool ends_in_suffix(const char *text, size_t count)
{
	return count > sizeof SUFFIX - 1 && memcmp(text + count - (sizeof SUFFIX - 1), SUFFIX, sizeof SUFFIX - 1) == 0;
}

static int model_parse(const char *names, struct web_path *path, struct reason *reason)
{
	const char *slash = strrchr(names, '/');
	size_t model_count = strlen(names), profile_count = slash ? strlen(slash + 1) : 0;
	int error = 0;

	path->resource = WEB_MODEL;
	if (slash && ends_in_suffix(slash + 1, profile_count)) {
		path->resource = WEB_IMAGE;
		model_count = (size_t)(slash - names);
		error = name_read(slash + 1, profile_count - (sizeof SUFFIX - 1), "profile", path->profile,
		                  sizeof path->profile, &path->profile_bytes, reason);
	}
	if (!error)
		error = name_read(names, model_count, "model", path->model, sizeof path->model, &path->model_bytes,
		                  reason);
	return error;
}

int web_path_parse(const char *text, struct web_path *ret_path, struct reason *reason)
{
	struct web_path path = { .resource = WEB_PAGE };
	int error;

	for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
		if (strcmp(text, plain[i].path) != 0)
			continue;
		path.resource = plain[i].resource;
		*ret_path = path;
		return 0;
	}
	if (strncmp(text, MODELS, sizeof MODELS - 1) != 0 || !text[sizeof MODELS - 1])
		return reason_set(reason, -ENOENT, "there is nothing at '%.100s'; there are: /, /metrics, /healthz, "
		                  "/readyz, /v1/status, /v1/models, /v1/models/MODEL and "
		                  "/v1/models/MODEL/PROFILE.safetensors", text);
	error = model_parse(text + sizeof MODELS - 1, &path, reason);
	if (error)
		return error;
	*ret_path = path;
	return 0;
}
