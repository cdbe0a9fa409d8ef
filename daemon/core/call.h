/*
 * Inside the service: one request in hand, and the handlers of the operations.
 */
#pragma once

#include "daemon/core/host.h"
#include "daemon/core/metrics.h"
#include "daemon/core/model.h"
#include "daemon/core/recover.h"
#include "daemon/core/service.h"
#include "daemon/core/update.h"
#include "proto/counters.h"
#include "proto/message.h"
#include "proto/name.h"

/* A request that waits. */
struct parked {
	struct parked *next;
	uint64_t model; /* id of what it waits for */
	bool wants_profiles;   /* it waits for slots of another geometry, or may */
	uint64_t attach_epoch; /* of the registration whose stages it waits for; 0: for something else */
	uint64_t deadline_ms;
	uint64_t awaited; /* as in struct call */
	enum operation operation;
	struct exchange exchange;
	size_t capacity, header_bytes, body_bytes;
	uint8_t bytes[]; /* header, then body */
};

struct service {
	struct host host;
	struct settings settings;
	struct service_facts facts;
	struct counters counters;
	struct metrics_times update_times;
	struct unpacked *unpacked; /* owned */
	struct model *models;      /* owned; by name those that are not doomed */
	struct model *touched;     /* to be looked at when the entry point settles, in this order */
	struct model **touched_end;
	struct parked *parked;     /* owned; oldest first */
	struct parked **parked_end;
	struct parked *parked_spare; /* owned; so that waiting for pushes in turn allocates nothing */
	uint64_t parked_count;
	uint64_t parked_due_ms; /* no deadline of theirs is earlier; the earliest of all when service_tick has been */
	uint64_t parked_bytes;
	uint64_t instance; /* random */
	uint64_t model_id_next;
	uint64_t epoch_next;
	uint64_t awaited_due_ms; /* when nobody is waited for any more who has not come back; 0: nobody is */
	uint64_t asks;        /* requests that wait for the disk, numbered from 1 */
	uint64_t stray_count; /* orders for the disk that belong to no model and are with the host */
	struct file_order *inquiries; /* owned; orders that are done, until their requests have looked at them */
	struct recovery recovery;
	struct loan *loans; /* owned */
	uint64_t loan_count;
	uint64_t away_due_ms; /* no remote trainer is to be given up before; 0: none at all */
	uint64_t loan_next; /* counts them */
	bool stopping;
	bool lingers; /* while stopping: steps that some ranks have pushed may still be completed */
	uint64_t linger_due_ms;
};

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

/* The model of that id, or NULL. */
struct model *service_model(const struct service *service, uint64_t id);

/* The model of that name, also while its memory is being made, or NULL. */
struct model *service_find(const struct service *service, const char *name, size_t name_bytes);

/*
 * Adds a model to the service and orders its memory. other: the model of that name, which it replaces at once, or
 * (inherits) whose heir it becomes; NULL for none.
 */
int service_admit(struct service *service, struct model *model, struct model *other, bool inherits,
                  struct reason *reason);

/* Bytes of a model's segments, also those on their way; 0 when it is gone. Of all models. */
uint64_t service_model_bytes(const struct model *model);
uint64_t service_memory_bytes(const struct service *service);

/* Says of each limit that the models are beyond: they stay, as they do after a restart and when it is lowered. */
void service_limits_warn(const struct service *service);

/*
 * Whether a model's segments fit beside all others' and its owner's, by their bytes and their number. replaced: a model
 * that gives its own back for it; NULL for none. STATUS_EMEMORY, STATUS_ELIMIT.
 */
int service_memory_check(const struct service *service, const struct model *model, const struct model *replaced,
                         struct reason *reason);

/* Whether a request waits that has that number in `awaited`. */
bool service_awaited(const struct service *service, uint64_t awaited);

/* Takes a model out of the service; it is destroyed when the entry point settles and no update of it runs. */
void service_doom(struct service *service, struct model *model);

/* Puts a model that has its memory already into the service's list. */
void service_include(struct service *service, struct model *model);

/* Something changed in the model: look at it again before the entry point returns. */
void service_touch(struct service *service, struct model *model);

/* Looks at every touched model: next update, freed stages, requests that waited. Every entry point ends with it. */
void service_settle(struct service *service, const struct instant *now);

/* Orders memory. -ENOMEM. */
int service_order(struct service *service, const struct segment_order *order);

/* The same; takes an order from the heap. */
void service_order_take(struct service *service, struct segment_order *order);

/* Tells of something without an id that concerns a model (NULL: none); error is of our int space, 0 for none. */
void service_event(const struct service *service, enum event_severity severity, const char *model, int error,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The same with all that is known: about's text and origin are filled in here. */
void service_event_about(const struct service *service, const struct event *about, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
