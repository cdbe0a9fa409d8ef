/*
 * A host for the service in one thread: memory from the heap, a clock that only the test moves, segments and updates
 * that are made when the test says so (or at once, when it is `prompt`), and replies that have been through the bytes.
 *
 * Nothing here calls malloc while the service runs, so that a failing heap fails the service and not its surroundings.
 */
#pragma once

#include "daemon/core/service.h"
#include "proto/layout.h"
#include "proto/manifest.h"
#include "proto/message.h"

enum {
	FAKE_WAITING_MAX = 64,
	FAKE_SEGMENT_COUNT_MAX = 256,
	FAKE_KEPT_COUNT_MAX = 2048,
	FAKE_REPLY_COUNT = 128, /* of the latest requests */
	FAKE_HEADER_BYTES_MAX = 4096,
	FAKE_ELEMENTS = 24,
	FAKE_BLOCK_BYTES = 1024 * 1024,
};

struct fake_reply {
	uint64_t number; /* of the request that it answers; 0: none yet */
	size_t header_bytes;
	uint8_t header[FAKE_HEADER_BYTES_MAX];
	char *body; /* owned; NUL-terminated; NULL for none */
	int fd;     /* -1: none */
	struct reply reply;
	char error[512], refusal[512], outcome[24], report[2048];
};

struct fake_segment {
	uint8_t *base;
	uint64_t bytes;
	uint64_t segment;
};

/*
 * Memory that outlives the process, for daemons that are killed: a block for each segment, and who has which. Made by
 * fake_arena_create before anybody forks.
 */
struct fake_arena {
	struct fake_segment segments[FAKE_SEGMENT_COUNT_MAX];
	_Alignas(LAYOUT_PAGE_BYTES) uint8_t blocks[FAKE_SEGMENT_COUNT_MAX][FAKE_BLOCK_BYTES];
};

struct fake_host {
	struct service *service;
	struct settings settings;
	struct instant now;
	bool keeps;                       /* what is dropped stays mapped until the end, as readers have it */
	uint64_t kept_count;
	uint8_t *kept[FAKE_KEPT_COUNT_MAX]; /* owned */
	bool crashing;                    /* what is dropped is not: the daemon is dead */
	bool prompt;                      /* segments are made and updates done before a call below returns */
	int memory_status;                /* what orders come back with */
	bool holds_files;                 /* files are written when the test says so, even if the host is prompt */
	int file_status;                  /* what they come back with */
	void (*file_do)(struct file_order *order); /* does them instead; NULL: nothing is done */
	const char *state_dir;            /* NULL: the service has none */
	const char *segments_dir;         /* NULL: segments are sealed */
	int64_t uid, daemon_uid;          /* of peers from now on, and the service's own */
	struct service_facts facts;
	uint64_t order_count, apply_count, file_count; /* that wait */
	struct segment_order *orders[FAKE_WAITING_MAX];
	struct apply *applies[FAKE_WAITING_MAX];
	struct file_order *files[FAKE_WAITING_MAX];
	struct fake_segment *segments;         /* fd is 2 * index, fd_read_only one more: the arena's, or these */
	struct fake_segment segments_own[FAKE_SEGMENT_COUNT_MAX];
	struct fake_arena *arena; /* NULL: segments are from the heap */
	uint64_t segment_count, segment_bytes;                /* that are there */
	struct fake_reply replies[FAKE_REPLY_COUNT];
	uint32_t refused; /* classes that peers are not let into from now on */
	struct unpacked *unpacked;
	uint64_t request_count;
	uint64_t random;
	uint64_t clients; /* trainers so far */
	bool remote; /* peers come over tcp from now on */
	char identified[PEER_NAME_BYTES_MAX + 1]; /* the name of the latest token that was shown */
	uint64_t withdraw_count; /* times that receiving was ended */
	uint64_t event_count, complaint_count; /* these: errors and warnings */
	uint64_t damage_count;   /* events of damaged data */
	char damage[768];        /* the latest such event's text */
	char event[768]; /* the latest event's text, and the rest of it */
	enum event_kind event_kind;
	uint64_t event_step;
	int64_t event_pid;
};

/* Settings that are roomy: 1 GiB, 3 slots, 2 stages, leases of 30 s. Change them in between. */
void fake_host_init(struct fake_host *host);
void fake_host_start(struct fake_host *host);

/* Another service in the place of this one, as after a daemon's end; what waits is forgotten. */
void fake_host_restart(struct fake_host *host);

/* For a host that is not started yet: its segments lie there from now on. */
struct fake_arena *fake_arena_create(void);
void fake_arena_destroy(struct fake_arena *arena);
void fake_host_use(struct fake_host *host, struct fake_arena *arena);

/* The segments that are there, as the next daemon is handed them. Returns how many; room for FAKE_SEGMENT_COUNT_MAX. */
uint32_t fake_host_segments(const struct fake_host *host, struct memory *ret_segments);

/*
 * The daemon dies where it stands, and another one adopts its segments: nothing that was under way or waited is there
 * any more. Returns what service_adopt does; where that is an error the new daemon is dead, too.
 */
int fake_host_crash(struct fake_host *host);

/* Destroys the service and asserts that every segment was given back. */
void fake_host_finish(struct fake_host *host);

/* Sends a request from a peer's connection; returns its number. Asserts nothing and allocates nothing. */
uint64_t fake_host_ask(struct fake_host *host, uint64_t peer, const struct request *request, const void *body,
                       size_t body_bytes);

/* The answer to a request, NULL while it waits. */
const struct fake_reply *fake_host_answer(struct fake_host *host, uint64_t number);

/* The answer, asserting its status. */
const struct fake_reply *fake_host_expect(struct fake_host *host, uint64_t number, int status);

/* Makes the oldest segment order, does the oldest update, or writes the oldest order of files. */
void fake_host_make(struct fake_host *host);
void fake_host_apply(struct fake_host *host);
void fake_host_write(struct fake_host *host);

/* All of them, until nothing waits. */
void fake_host_settle(struct fake_host *host);

/* Moves all clocks alike, and tells nobody. */
void fake_host_pass(struct fake_host *host, uint64_t milliseconds);

/* The same, and calls service_tick as often as the service wants. Asserts that it does not want it for ever. */
void fake_host_wait(struct fake_host *host, uint64_t milliseconds);

void fake_host_gone(struct fake_host *host, uint64_t peer);

/* The memory behind a descriptor that came with a reply. */
uint8_t *fake_host_map(struct fake_host *host, int fd);

/* ---- a trainer --------------------------------------------------------------------------------------------------- */

struct fake_trainer {
	struct fake_host *host;
	const char *model;
	const char *resume;     /* NULL: not said, like the others */
	const char *attributes;
	const char *rewind, *policy, *guards;
	const uint64_t *start_step;
	uint64_t stride; /* 0: not said */
	const char *profiles[PROFILE_COUNT_MAX];
	uint32_t profile_count;
	uint32_t rank, world;
	uint64_t client, sequence;
	uint64_t peer; /* of the attach connection; the requests' connection is 1000 above */
	uint8_t *manifest; /* owned; encoded */
	size_t manifest_bytes;
	uint64_t epoch;
	uint8_t *stages;       /* the segment's base */
	uint64_t stage_stride;
};

/* A trainer of rank 0 of 1 with the profile "ema=yolo"; takes the manifest. Every trainer is a new client and peer. */
void fake_trainer_init(struct fake_trainer *trainer, struct fake_host *host, const char *model,
                       struct manifest *manifest);
void fake_trainer_finish(struct fake_trainer *trainer);

/* Sends register with the next sequence number. */
uint64_t fake_trainer_register(struct fake_trainer *trainer);

/* Sends attach with the epoch. */
uint64_t fake_trainer_attach(struct fake_trainer *trainer);

/* Registers and attaches; asserts success. The host must be prompt. */
void fake_trainer_join(struct fake_trainer *trainer);

/* Takes the epoch from the reply to register, and the stages from that to attach. */
void fake_trainer_registered(struct fake_trainer *trainer, uint64_t number);
void fake_trainer_attached(struct fake_trainer *trainer, uint64_t number);

/* The first byte of a stage. */
void *fake_trainer_stage(const struct fake_trainer *trainer, uint32_t stage);

/* What goes along with a push. */
struct fake_push {
	uint64_t step;
	uint32_t stage;
	bool waits;
	const char *metadata; /* NULL: none */
	const double *loss;   /* NULL: none */
	const char *profile;  /* not NULL: the snapshot is the average of this profile */
	uint64_t updates;     /* after so many updates */
};

/* Sends push with the next sequence number. */
uint64_t fake_trainer_push_with(struct fake_trainer *trainer, const struct fake_push *push);

/* The same without anything else. */
uint64_t fake_trainer_push(struct fake_trainer *trainer, uint64_t step, uint32_t stage, bool wait);

/* Sends reserve or flush. */
uint64_t fake_trainer_reserve(struct fake_trainer *trainer, uint64_t timeout_ms);
uint64_t fake_trainer_flush(struct fake_trainer *trainer, uint64_t timeout_ms);

/* ---- others ------------------------------------------------------------------------------------------------------ */

/* Sends view. profile may be NULL; min_step 0: any. */
uint64_t fake_view(struct fake_host *host, uint64_t peer, const char *model, const char *profile, uint64_t min_step,
                   uint64_t timeout_ms);

/* Sends profile_set with profiles that end with NULL, or profile_remove; gives up after timeout_ms. */
uint64_t fake_profiles_set(struct fake_host *host, const char *model, const char *const *profiles, uint64_t timeout_ms);
uint64_t fake_profile_remove(struct fake_host *host, const char *model, const char *profile, uint64_t timeout_ms);

/* A string of an image's metadata, to be freed with free(); NULL where it is not there. */
char *fake_metadata(struct fake_host *host, const struct fake_reply *view, const char *key);

/* Sends an operation that names at most a model. */
uint64_t fake_query(struct fake_host *host, enum operation operation, const char *model);

/* The bytes of a tensor in the image that a view's reply describes; NULL where it is not there. */
const uint8_t *fake_tensor(struct fake_host *host, const struct fake_reply *view, const char *name);

/* ---- a model of one tensor --------------------------------------------------------------------------------------- */

/* "w", F32 [FAKE_ELEMENTS / 2, 2], of which a rank holds its share of the rows. */
struct manifest *fake_manifest(uint32_t rank, uint32_t world);

/* Fills a stage of such a model with one value. */
void fake_trainer_fill(const struct fake_trainer *trainer, uint32_t stage, float value);

/* The average of such a model, all of whose elements must be equal. */
float fake_average(struct fake_host *host, const char *model, const char *profile);
