/*
 * HTTP requests: what is answered to each. The bytes of HTTP itself are the edge's (edge/http.h).
 *
 *     GET /                                      a page that shows what is going on
 *     GET /metrics                               metrics.h
 *     GET /healthz /readyz                       the loop runs; recovery is over and clients can connect
 *     GET /v1/status /v1/models /v1/models/M     what `emactl status`, `list` and `show` print with --json;
 *                                                of the last with ?tensors=0 all but the tensors
 *     GET /v1/models/M/P.safetensors             the newest average, with ranges
 *
 * Nothing can be changed by HTTP. On a port nobody's user is known, so there is a token, which is all or nothing.
 *
 * A download holds the version that it is about by a lease, as any reader (versions.h). So it is guaranteed lease-min,
 * and after that an update that needs the slot takes it: the fence is bumped, whoever sends sees that after it has
 * copied the next piece, throws the piece away and closes the connection in the middle of the body. The client sees
 * fewer bytes than were announced, and asks for the rest with If-Range: that gives it another whole version instead.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/host.h"
#include "daemon/core/web_range.h"

struct service;

enum { WEB_HEADER_COUNT_MAX = 12, WEB_HEADER_BYTES_MAX = 400, WEB_TOKEN_BYTES_MAX = 256 };

/* A request. All texts are borrowed for the call; NULL: it does not say. */
struct web_request {
	uint64_t peer;    /* who will hold the lease: from PEER_DOWNLOAD_FIRST up, never used twice */
	bool head;
	bool is_loopback; /* it came to an address that only this host can reach */
	const char *path; /* as it stands in the request, without the query */
	const char *tensors; /* of the query */
	const char *host, *accept;
	const char *token; /* the bearer token, or the password of basic authentication */
	struct web_conditions conditions;
};

/* How things stand. */
struct web_rules {
	const char *token; /* what requests must bear; "": nothing */
	bool is_ready;     /* clients can connect */
	bool is_unread;    /* whoever's user is not known may not read */
};

struct web_header {
	const char *name;
	char value[WEB_HEADER_BYTES_MAX];
};

struct web_answer {
	int code;
	uint32_t header_count;
	struct web_header headers[WEB_HEADER_COUNT_MAX];
	char *body; /* owned by whoever gets it; NULL: there is none, or a download */
	size_t body_bytes;
	/* Of a download: the bytes are in the descriptor as long as the slot header at its start has this fence. */
	int fd; /* borrowed from the model until the next event; -1: none is needed */
	uint64_t fence;
	uint64_t offset;     /* in the descriptor */
	uint64_t byte_count; /* announced in any case, also where fd is -1: to HEAD, and with 304 */
	bool is_download;
};

/* Without memory, code 503 and no body. */
void web_handle(struct service *service, const struct instant *now, const struct web_request *request,
                const struct web_rules *rules, struct web_answer *ret_answer);

/* The answer to any other method than GET and HEAD. Any thread. */
void web_refuse_method(const char *method, struct web_answer *ret_answer);

/* Whether a download must be cut: its lease was taken back, or went with its model, and its guaranteed time is over. */
bool web_is_over(const struct service *service, const struct instant *now, uint64_t peer, uint64_t since_ms);

/* Whether a token is the right one, in a time that tells nothing about where they differ. given: may be NULL. */
bool web_token_equal(const char *right, const char *given);
