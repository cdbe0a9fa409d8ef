/*
 * Inside the service: what it holds, and what its parts do for each other. Who asks something of the daemon from
 * outside includes service.h.
 */
#pragma once

#include "daemon/core/host.h"
#include "daemon/core/metrics.h"
#include "daemon/core/model.h"
#include "daemon/core/recover.h"
#include "daemon/core/service.h"
#include "proto/counters.h"
#include "proto/message.h"

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

/* ---- service_models.c -------------------------------------------------------------------------------------------- */

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

/* Puts a model that has its memory already into the service's list; takes one out of it for good, and destroys it. */
void service_include(struct service *service, struct model *model);
void service_unlink(struct service *service, struct model *model);

/* Takes a model out of the service; it is destroyed when the entry point settles and no update of it runs. */
void service_doom(struct service *service, struct model *model);

/* ---- service_memory.c -------------------------------------------------------------------------------------------- */

/* Bytes of a model's segments, also those on their way; 0 when it is gone. Of all models. */
uint64_t service_model_bytes(const struct model *model);
uint64_t service_memory_bytes(const struct service *service);

/*
 * Whether a model's segments fit beside all others' and its owner's, by their bytes and their number. replaced: a model
 * that gives its own back for it; NULL for none. STATUS_EMEMORY, STATUS_ELIMIT.
 */
int service_memory_check(const struct service *service, const struct model *model, const struct model *replaced,
                         struct reason *reason);

/* Says of each limit that the models are beyond: they stay, as they do after a restart and when it is lowered. */
void service_limits_warn(const struct service *service);

/* Orders memory. -ENOMEM. */
int service_order(struct service *service, const struct segment_order *order);

/* The same; takes an order from the heap. */
void service_order_take(struct service *service, struct segment_order *order);

/* ---- service_settle.c -------------------------------------------------------------------------------------------- */

/* Something changed in the model: look at it again before the entry point returns. */
void service_touch(struct service *service, struct model *model);

/* Looks at every touched model: next update, freed stages, requests that waited. Every entry point ends with it. */
void service_settle(struct service *service, const struct instant *now);

/* ---- service_updates.c ------------------------------------------------------------------------------------------- */

/* Begins the model's next update, if there is one to begin, and tells of what has been refused since. */
void service_update(struct service *service, const struct instant *now, struct model *model);

/* ---- service_events.c -------------------------------------------------------------------------------------------- */

/* Tells of something without an id that concerns a model (NULL: none); error is of our int space, 0 for none. */
void service_event(const struct service *service, enum event_severity severity, const char *model, int error,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The same with all that is known: about's text and origin are filled in here. */
void service_event_about(const struct service *service, const struct event *about, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- parking.c --------------------------------------------------------------------------------------------------- */

/* Whether a request waits that has that number in `awaited`. */
bool service_awaited(const struct service *service, uint64_t awaited);
