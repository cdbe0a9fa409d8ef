/*
 * Routing, who may ask, and downloads. See web.h.
 */
#include "daemon/core/web.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/call.h"
#include "daemon/core/report.h"
#include "daemon/core/web_page.h"
#include "daemon/core/web_path.h"

static void header(struct web_answer *answer, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void header(struct web_answer *answer, const char *name, const char *format, ...)
{
	struct web_header *added = &answer->headers[answer->header_count++];
	va_list arguments;

	added->name = name;
	va_start(arguments, format);
	vsnprintf(added->value, sizeof added->value, format, arguments);
	va_end(arguments);
}

static void answer_init(struct web_answer *answer, int code)
{
	answer->code = code;
	answer->header_count = 0;
	answer->body = NULL;
	answer->body_bytes = 0;
	answer->fd = -1;
	answer->is_download = false;
	header(answer, "X-Content-Type-Options", "nosniff");
	header(answer, "Cross-Origin-Resource-Policy", "same-origin");
}

/* Takes the text; what it says is of this moment. */
static void answer_text(struct web_answer *answer, int code, const char *type, char *text)
{
	answer_init(answer, text ? code : 503);
	header(answer, "Content-Type", "%s", type);
	header(answer, "Cache-Control", "no-store");
	answer->body = text;
	answer->body_bytes = text ? strlen(text) : 0;
}

static void answer_json(struct web_answer *answer, int code, char *text)
{
	answer_text(answer, code, "application/json", text);
}

static void answer_error(struct web_answer *answer, int code, int status, const char *sentence)
{
	answer_json(answer, code, report_error(status, sentence));
}

static int code_of(int status)
{
	switch (status) {
	case -ENOENT:
	case STATUS_ENOMODEL:
	case STATUS_ENOPROFILE:
	case STATUS_ENOVERSION:
		return 404;
	case STATUS_ENAME:
		return 400;
	case -ENOMEM:
		return 503;
	default:
		return 500;
	}
}

static void answer_failure(struct web_answer *answer, int status, const struct reason *reason)
{
	answer_error(answer, code_of(status), status, reason->text[0] ? reason->text : status_text(status));
}

void web_refuse_method(const char *method, struct web_answer *ret_answer)
{
	struct reason reason;

	reason_set(&reason, STATUS_EARGUMENT, "'%.20s' is not answered here: GET and HEAD are; what changes something "
	           "goes by emactl or libemad", method);
	answer_error(ret_answer, 405, STATUS_EARGUMENT, reason.text);
	header(ret_answer, "Allow", "GET, HEAD");
}

/* ---- who may ask ------------------------------------------------------------------------------------------------- */

bool web_token_equal(const char *right, const char *given)
{
	char a[WEB_TOKEN_BYTES_MAX + 1] = "", b[WEB_TOKEN_BYTES_MAX + 1] = "";
	volatile unsigned char difference = 0;

	if (!given || strlen(given) > WEB_TOKEN_BYTES_MAX)
		return false;
	strcpy(a, right);
	strcpy(b, given);
	/* All of the room, whatever the lengths. */
	for (size_t i = 0; i < sizeof a; i++)
		difference |= (unsigned char)(a[i] ^ b[i]);
	return difference == 0;
}

/* Whether the host that the client thinks it talks to is a number, or this host. */
static bool host_is_plain(const char *host)
{
	static const char LOCAL[] = "localhost";
	size_t count = strcspn(host, ":"), i = 0;

	if (host[0] == '[' || strspn(host, "0123456789.") == count)
		return true;
	while (i < sizeof LOCAL - 1 && tolower((unsigned char)host[i]) == LOCAL[i])
		i++;
	return i == sizeof LOCAL - 1 && i == count;
}

/* Answers and returns true when the request may not be made. */
static bool refuse(const struct web_request *request, const struct web_rules *rules, struct web_answer *answer)
{
	if (rules->token[0]) {
		if (web_token_equal(rules->token, request->token))
			return false;
		answer_error(answer, 401, -EACCES, request->token ? "the token is not the right one" :
		             "a token is wanted: 'Authorization: Bearer TOKEN', or as the password of any user; it is "
		             "in the file that http-token-file= of the daemon's configuration names");
		header(answer, "WWW-Authenticate", "Basic realm=\"emad\", charset=\"UTF-8\"");
		header(answer, "WWW-Authenticate", "Bearer realm=\"emad\"");
		return true;
	}
	if (rules->is_unread) {
		answer_error(answer, 403, -EACCES, "read-users= or read-groups= say who may read, and by HTTP nobody's "
		             "user is known: set http-token-file= in the daemon's configuration");
		return true;
	}
	/* A page from anywhere may have its own name lead to this host, and would then be let read the answers. */
	if (request->is_loopback && request->host && !host_is_plain(request->host)) {
		answer_error(answer, 421, -EACCES, "without a token requests to an address of this host itself must "
		             "name it by its number or as localhost");
		return true;
	}
	return false;
}

/* ---- averages ---------------------------------------------------------------------------------------------------- */

/* Equal for equal bytes alone, also over restarts of the daemon. */
static void tag_write(char *tag, size_t capacity, const struct service *service, const struct model *model,
                      const struct slot_header *slot, const char *profile)
{
	snprintf(tag, capacity, "\"%016" PRIx64 "-%" PRIu64 "-%" PRIu64 "-%s\"", service->instance, model->id,
	         slot->version, profile);
}

static void image_headers(struct web_answer *answer, const struct model *model, const struct slot_header *slot,
                          const char *profile, const char *tag)
{
	char name[MODEL_NAME_BYTES_MAX + 1];

	strcpy(name, model->name);
	for (char *at = name; *at; at++)
		*at = *at == '/' ? '-' : *at;
	header(answer, "Content-Type", "application/octet-stream");
	header(answer, "Content-Disposition", "attachment; filename=\"%s-%s-%" PRIu64 ".safetensors\"", name, profile,
	       slot->step);
	header(answer, "ETag", "%s", tag);
	header(answer, "Accept-Ranges", "bytes");
	header(answer, "Cache-Control", "no-cache");
	header(answer, "X-Emad-Step", "%" PRIu64, slot->step);
	header(answer, "X-Emad-Version", "%" PRIu64, slot->version);
}

/* The bytes themselves, pinned. */
static int image_lease(struct call *call, struct model *model, uint64_t peer, struct web_answer *answer)
{
	uint32_t slot;
	int error = versions_lease(&model->versions, peer, call->now->monotonic_ms, &slot);

	if (error)
		return error;
	call->service->counters.downloads_begun++;
	answer->fd = model_newest_memory(model)->fd_read_only;
	answer->fence = versions_newest(&model->versions)->fence;
	return 0;
}

static int image_answer(struct call *call, const struct web_request *request, struct web_answer *answer)
{
	struct web_conditions conditions = request->conditions;
	const struct geometry *geometry;
	const struct slot_header *newest;
	enum web_outcome outcome;
	struct model *model;
	uint32_t profile = 0;
	uint64_t bytes;
	char tag[PROFILE_NAME_BYTES_MAX + 64];
	int error = call_model(call, &model);

	if (error)
		return error;
	geometry = model_newest_geometry(model);
	error = call_profile(call, model, geometry, &profile);
	if (error)
		return error;
	newest = versions_newest(&model->versions);
	if (!newest)
		return reason_set(&call->reason, STATUS_ENOVERSION, "model '%s' has no averaged version yet: its first "
		                  "snapshot has not been applied", model->name);
	bytes = geometry->images[profile]->image_bytes;
	if (request->head)
		conditions.range = NULL; /* it is for GET alone */
	tag_write(tag, sizeof tag, call->service, model, newest, geometry->profiles[profile].name);
	outcome = web_range_choose(&conditions, tag, bytes, &answer->offset, &answer->byte_count);
	switch (outcome) {
	case WEB_MISMATCH:
		answer_error(answer, 412, -ESTALE, "If-Match names another version than the newest");
		header(answer, "ETag", "%s", tag);
		return 0;
	case WEB_UNSATISFIABLE:
		reason_set(&call->reason, -ERANGE, "the range begins behind the end: there are %" PRIu64 " bytes",
		           bytes);
		answer_error(answer, 416, -ERANGE, call->reason.text);
		header(answer, "Content-Range", "bytes */%" PRIu64, bytes);
		return 0;
	case WEB_UNCHANGED:
		answer_init(answer, 304);
		answer->is_download = true; /* its length is told, as to HEAD */
		image_headers(answer, model, newest, geometry->profiles[profile].name, tag);
		return 0;
	case WEB_WHOLE:
	case WEB_PART:
		break;
	}
	answer_init(answer, outcome == WEB_PART ? 206 : 200);
	image_headers(answer, model, newest, geometry->profiles[profile].name, tag);
	if (outcome == WEB_PART)
		header(answer, "Content-Range", "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, answer->offset,
		       answer->offset + answer->byte_count - 1, bytes);
	answer->offset += geometry->region_offsets[profile];
	answer->is_download = true;
	return request->head ? 0 : image_lease(call, model, request->peer, answer);
}

bool web_is_over(const struct service *service, const struct instant *now, uint64_t peer, uint64_t since_ms)
{
	for (const struct model *model = service->models; model; model = model->next)
		for (uint32_t i = 0; i < model->versions.lease_count; i++)
			if (model->versions.leases[i].peer == peer)
				return false;
	return now->monotonic_ms - since_ms >= service->settings.lease_min_ms;
}

/* ---- everything else --------------------------------------------------------------------------------------------- */

static void page_answer(struct service *service, struct web_answer *answer)
{
	const struct host *host = &service->host;
	char nonce[40];

	snprintf(nonce, sizeof nonce, "%016" PRIx64 "%016" PRIx64, host->random(host->context),
	         host->random(host->context));
	answer_text(answer, 200, "text/html; charset=utf-8", web_page_text(nonce));
	header(answer, "Content-Security-Policy", "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; "
	       "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", nonce, nonce);
	header(answer, "Referrer-Policy", "no-referrer");
}

static void metrics_answer(const struct service *service, const struct instant *now, const char *accept,
                           struct web_answer *answer)
{
	/* Who asks for nothing in particular gets the newer one; its comments are comments in the older one. */
	bool open = accept && strstr(accept, "application/openmetrics-text");

	answer_text(answer, 200, open ? METRICS_TYPE_OPEN : METRICS_TYPE_TEXT, metrics_text(service, now, open));
	header(answer, "Vary", "Accept");
}

static void ready_answer(const struct service *service, const struct web_rules *rules, struct web_answer *answer)
{
	if (service_recovering(service))
		answer_error(answer, 503, STATUS_EBUSY, "models are being recovered from their checkpoints");
	else if (service->stopping || !rules->is_ready)
		answer_error(answer, 503, STATUS_ESHUTDOWN, "the daemon is shutting down");
	else
		answer_json(answer, 200, strdup("{\"status\":\"ready\"}"));
}

static int model_answer(struct call *call, const struct web_request *request, struct web_answer *answer)
{
	struct model *model;
	int error = call_model(call, &model);

	if (error)
		return error;
	answer_json(answer, 200, report_show(call->service, model,
	                                     !request->tensors || strcmp(request->tensors, "0") != 0));
	return 0;
}

static int dispatch(struct call *call, const struct web_path *path, const struct web_request *request,
                    const struct web_rules *rules, struct web_answer *answer)
{
	struct service *service = call->service;

	switch (path->resource) {
	case WEB_PAGE:
		page_answer(service, answer);
		return 0;
	case WEB_METRICS:
		metrics_answer(service, call->now, request->accept, answer);
		return 0;
	case WEB_HEALTH:
		answer_json(answer, 200, strdup("{\"status\":\"alive\"}"));
		return 0;
	case WEB_READY:
		ready_answer(service, rules, answer);
		return 0;
	case WEB_STATUS:
		answer_json(answer, 200, report_status(service, call->now));
		return 0;
	case WEB_MODELS:
		answer_json(answer, 200, report_list(service));
		return 0;
	case WEB_MODEL:
		return model_answer(call, request, answer);
	case WEB_IMAGE:
		return image_answer(call, request, answer);
	}
	return STATUS_EINTERNAL;
}

void web_handle(struct service *service, const struct instant *now, const struct web_request *request,
                const struct web_rules *rules, struct web_answer *ret_answer)
{
	struct request named = { 0 };
	struct call call = { .service = service, .now = now, .request = &named };
	struct web_path path = { .resource = WEB_PAGE };
	int error = web_path_parse(request->path, &path, &call.reason);
	bool is_open = !error && (path.resource == WEB_HEALTH || path.resource == WEB_READY);

	service->counters.http_requests++;
	named.present = path.resource == WEB_IMAGE ? REQUEST_HAS(profile) : 0;
	named.model = (struct text){ path.model, path.model_bytes };
	named.profile = (struct text){ path.profile, path.profile_bytes };
	/* What there is not is nobody's business either who may not ask. */
	if (is_open || !refuse(request, rules, ret_answer)) {
		if (!error)
			error = dispatch(&call, &path, request, rules, ret_answer);
		if (error)
			answer_failure(ret_answer, error, &call.reason);
	}
	service->counters.http_failed += ret_answer->code >= 400;
}
