/*
 * Inside the service: one request in hand, and the handlers of the operations.
 */
#pragma once

#include "daemon/core/host.h"
#include "daemon/core/model.h"
#include "daemon/core/service_state.h"
#include "daemon/core/update.h"
#include "proto/message.h"
#include "proto/name.h"

/* What a handler returns beside 0 (it has replied) and a negative code (the dispatcher replies with the reason). */
enum { CALL_PARK = 1 };

struct call {
	struct service *service;
	const struct instant *now;
	const struct request *request;
	const uint8_t *body;
	size_t body_bytes;
	const struct exchange *exchange;
	bool expired;        /* its deadline has passed: answer now */
	bool retried;        /* it has waited */
	uint64_t awaited;    /* the handler's own: set when it parks the call, and there again when it is retried */
	struct model *waits; /* set with CALL_PARK */
	struct reason reason;
};

int register_handle(struct call *call); /* register.c */
int attach_handle(struct call *call);
int push_handle(struct call *call); /* push.c */
int reserve_handle(struct call *call);
int flush_handle(struct call *call);
int attributes_handle(struct call *call);
int profile_set_handle(struct call *call); /* profiles.c */
int profile_remove_handle(struct call *call);
int hello_handle(struct call *call); /* query.c */
int view_handle(struct call *call);
int status_handle(struct call *call);
int list_handle(struct call *call);
int show_handle(struct call *call);
int remove_handle(struct call *call);
int checkpoint_handle(struct call *call); /* checkpoint.c */
int history_handle(struct call *call);    /* inquiry.c */
int checkpoint_keep_handle(struct call *call);
int rollback_handle(struct call *call); /* restore.c */

/* Handles a request: CALL_PARK with call->waits, or 0 when it has been answered in whatever way. */
int call_handle(struct call *call, const uint8_t *header, size_t header_bytes);

/* Answers with a failure; its text where the reason has none. */
void call_fail(struct service *service, const struct exchange *exchange, int error, const struct reason *reason);

/* Sends a reply with status 0. attachment may be NULL. */
void call_reply(struct call *call, struct reply *reply, const struct attachment *attachment);

/* The serving model of request->model. STATUS_ENOMODEL with a sentence that lists what there is. */
int call_model(struct call *call, struct model **ret_model);

/* The rank of request->rank in that model. STATUS_EARGUMENT. */
int call_rank(struct call *call, struct model **ret_model, uint32_t *ret_rank);

/*
 * The stages of the request's rank, for the registration that holds it; ordered where there are none. CALL_PARK until they
 * are there.
 */
int call_stages(struct call *call, struct model **ret_model, uint32_t *ret_rank);

/* The newest version that a request for one asks for, and the profile in it. CALL_PARK until it is there. */
int call_version(struct call *call, struct model **ret_model, uint32_t *ret_profile);

/*
 * The index of the profile that the request names, the first when it names none. STATUS_ENOPROFILE with a sentence that
 * lists what there is, STATUS_ENAME.
 */
int call_profile(struct call *call, const struct model *model, const struct geometry *geometry, uint32_t *ret_index);

/* The client that the request names; where it names none, whoever holds the rank. */
uint64_t call_client(const struct call *call, const struct rank_record *record);

/* At least one profile, each name once. STATUS_EPROFILE, and what profile_parse says. */
int profiles_parse(const struct text_list *list, struct profile *ret_profiles, uint32_t *ret_count,
                   struct reason *reason);

/* 0 when the model averages by these profiles; CALL_PARK until it does; or a failure. */
int profiles_want(struct call *call, struct model *model, const struct profile *profiles, uint32_t profile_count);
