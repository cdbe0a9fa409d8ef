/*
 * The service: every decision of the daemon. Requests, finished updates, made memory, time and departures come in as
 * arguments; replies and work go out through the host's table. It knows no socket, thread or clock.
 *
 * A request that cannot be answered yet (a wait for a version, for a free stage, for memory) is `parked`: its bytes are
 * kept, and it is simply handled again whenever something has changed in its model, until it is answered or its
 * deadline passes. Every handler is therefore written as if it were asked for the first time.
 *
 * Loop thread only. Every entry point ends by settling: models that were touched begin their next update and their
 * parked requests are looked at again.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/core/host.h"
#include "daemon/core/settings.h"
#include "proto/counters.h"

struct service;

/* What the daemon says about itself. Borrowed for the service's life. */
struct service_facts {
	const char *agent; /* "emad 0.1.0" */
	const char *runtime_dir;
	const char *state_dir; /* NULL or "": nothing is kept on disk */
	const char *segments_dir; /* where segments are files, whose size cannot be sealed; NULL or "": they are sealed */
	int64_t uid;              /* the daemon's own */
	uint64_t pid;
	uint64_t worker_count;
	uint64_t started_ms; /* monotonic */
};

/* The settings are copied, what they point to is borrowed until service_reconfigure. */
int service_create(const struct host *host, const struct settings *settings, const struct service_facts *facts,
                   struct service **ret_service);

/* Drops all models. No update may be under way, and no file be written (service_idle). */
void service_destroy(struct service *service);

/* A whole request. Header and body are read before this returns and not kept. */
void service_request(struct service *service, const struct instant *now, const struct exchange *exchange,
                     const uint8_t *header, size_t header_bytes, const uint8_t *body, size_t body_bytes);

/*
 * Where the body of a message whose header has come is to be received; NULL: anywhere. It must be handed to
 * service_request with its header, or given up when host.withdraw says so.
 */
uint8_t *service_body_place(struct service *service, const struct instant *now, const struct exchange *exchange,
                            const uint8_t *header, size_t header_bytes, uint64_t body_bytes);

/* A connection has ended: its leases, waits and claims on stages end too. */
void service_peer_gone(struct service *service, const struct instant *now, uint64_t peer);

/* The host has fulfilled an order, or failed to. Takes the order back. */
void service_memory_made(struct service *service, const struct instant *now, struct segment_order *order);

/* The workers have finished an update. */
void service_applied(struct service *service, const struct instant *now, struct apply *apply);

/* The host has written an order's files, or failed to. */
void service_file_written(struct service *service, const struct instant *now, struct file_order *order);

/*
 * Takes over the segments that an earlier daemon has left behind, all of them mapped: whole models go on where they
 * were, what is left over is given back. Before service_recover. The array itself stays the caller's. -ENOMEM: the
 * daemon must end, and leave everything for the next one.
 */
int service_adopt(struct service *service, const struct instant *now, const struct memory *segments, uint32_t count);

/*
 * Makes the models whose checkpoints lie in the state directory, before anybody is listened to: until it is done
 * service_recovering is true. -ENOMEM. Then service_recovery_error is 0, or -ENOMEM when the daemon must end because some
 * of them could not be looked at.
 */
int service_recover(struct service *service, const struct instant *now);
bool service_recovering(const struct service *service);
int service_recovery_error(const struct service *service);

/* Deadlines. */
void service_tick(struct service *service, const struct instant *now);

/* When service_tick must be called next; UINT64_MAX for never. */
uint64_t service_due_ms(const struct service *service);

/*
 * Other settings from now on: for what is asked for from now on. Models and waiting requests that are there stay, also
 * beyond a lowered limit, which is then logged. The defaults of the settings before are not looked at any more.
 */
void service_reconfigure(struct service *service, const struct instant *now, const struct settings *settings);

/*
 * From now on new work is refused with STATUS_ESHUTDOWN; what was accepted is finished, and for a moment that may be
 * completed which only some ranks have pushed.
 */
void service_stop(struct service *service, const struct instant *now);

/*
 * Whether no update is under way, nothing accepted waits for one, and no file is being written; after service_stop
 * also, whether everything is on disk that will be.
 */
bool service_idle(const struct service *service);

/* Before the end: tells of every snapshot that was accepted and is in no average. */
void service_leave(const struct service *service);

/* Whether a checkpoint is being written, or will be before the end. */
bool service_checkpointing(const struct service *service);

/* Counters, for the edges to count in. */
struct counters *service_counters(struct service *service);

/*
 * One line for humans: "2 models, step 1200, lag 0, 3.1 GiB, checkpoint 12 s ago", or at its end what is wrong with a
 * checkpoint.
 */
void service_summary(const struct service *service, const struct instant *now, char *text, size_t text_capacity);
