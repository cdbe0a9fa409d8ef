/*
 * Paths of HTTP requests, as they stand in the request: %-escapes are read here, after the path was divided at its
 * slashes.
 *
 *     /v1/models/MODEL                          a model
 *     /v1/models/MODEL/PROFILE.safetensors      an average of it
 *
 * A model's name may hold slashes and dots, so which is which must not depend on what models there are. The last part
 * is a profile if it ends in ".safetensors" and is not the only one; all parts before it, or else all of them, are the
 * model's name. Slashes of a name may stand as they are or as %2F: "/v1/models/run42/net/ema.safetensors" and
 * "/v1/models/run42%2Fnet/ema.safetensors" are the same. A model "a/b.safetensors" is "/v1/models/a%2Fb.safetensors",
 * and nothing else: whoever writes the slashes of names as %2F always means what the names say.
 */
#pragma once

#include <stddef.h>

#include "proto/limits.h"
#include "proto/status.h"

enum web_resource {
	WEB_PAGE,    /* / */
	WEB_METRICS, /* /metrics */
	WEB_HEALTH,  /* /healthz */
	WEB_READY,   /* /readyz */
	WEB_STATUS,  /* /v1/status */
	WEB_MODELS,  /* /v1/models */
	WEB_MODEL,
	WEB_IMAGE,
};

struct web_path {
	enum web_resource resource;
	char model[MODEL_NAME_BYTES_MAX + 1];     /* not checked further; may hold a NUL */
	size_t model_bytes;
	char profile[PROFILE_NAME_BYTES_MAX + 1]; /* the same */
	size_t profile_bytes;
};

/* -ENOENT: there is nothing of the kind; STATUS_ENAME: a name that is too long, or a broken escape. With a sentence. */
int web_path_parse(const char *path, struct web_path *ret_path, struct reason *reason);
