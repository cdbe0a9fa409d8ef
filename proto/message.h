/*
 * Messages: one flat set of fields for requests and one for replies.
 *
 * A message is a 4-byte big-endian header size, the header (a msgpack map), and raw bytes (the body). Every field of
 * every message stands once in the tables below; a row of `message_operations` says which fields an operation needs
 * and which it may have. Decoder, encoder, PROTOCOL.md's tables and the fuzzer all follow them, so a new field is one
 * line.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"
#include "proto/pack.h"
#include "proto/status.h"

enum {
	PROTOCOL_VERSION = 1,
	MESSAGE_PREFIX_BYTES = 4,
	FETCH_RANGE_BYTES = 16, /* in the body of a fetch: first byte and number of bytes, both big-endian */
};

/* Lists of short texts inside a header. */
struct text_list {
	uint32_t count;
	struct text items[PROFILE_COUNT_MAX];
};

/* X(type, name, what it is): types TEXT, U64, I64, F64, BOOL, LIST */
#define REQUEST_FIELDS(X)                                                                                             \
	X(TEXT, op, "operation")                                                                                      \
	X(U64, v, "protocol version of the sender")                                                                   \
	X(TEXT, model, "model name")                                                                                  \
	X(TEXT, profile, "profile name")                                                                              \
	X(U64, client, "random number of the sending client: with sequence, names the request for ever")              \
	X(U64, sequence, "counts the client's mutating requests from 1; a repeat carries the same number")             \
	X(U64, rank, "0-based rank of the trainer process")                                                           \
	X(U64, world, "number of ranks that hold pieces of the model")                                                \
	X(U64, epoch, "fencing number from the registration")                                                         \
	X(U64, step, "the trainer's step")                                                                            \
	X(U64, stage, "0-based stage that holds the snapshot")                                                        \
	X(BOOL, wait, "answer when the snapshot has been applied or refused, not when it is accepted")                \
	X(U64, min_step, "answer when a version of this step or later is there")                                      \
	X(U64, timeout_ms, "give up waiting after this long")                                                         \
	X(TEXT, resume, "auto, adapt, never or must")                                                                 \
	X(U64, start_step, "step of the first snapshot")                                                              \
	X(U64, stride, "steps from one call of the schedules to the next; 1 where it is left out")                    \
	X(TEXT, rewind, "what a start_step that is averaged already means: refuse, continue or back")                 \
	X(TEXT, policy, "when the daemon lags: block, or coalesce")                                                   \
	X(TEXT, guards, "what a snapshot must satisfy: nonfinite=refuse,loss_max=10,norm_jump=5")                     \
	X(F64, loss, "the loss at this step")                                                                         \
	X(TEXT, metadata, "JSON object that stays with the version")                                                  \
	X(U64, updates, "the snapshot is the average itself, of the named profile, after that many updates")          \
	X(LIST, profiles, "profile specifications, name=schedule;rules")                                              \
	X(TEXT, attributes, "JSON object of plain model attributes")                                                  \
	X(BOOL, dry_run, "only say what would happen")                                                                \
	X(BOOL, keep, "whether the checkpoint is to stay")                                                            \
	X(BOOL, chunked, "the snapshot came by `chunk`: take it only when every byte of it is there")                 \
	X(U64, offset, "first byte, in the snapshot or in the image")                                                 \
	X(U64, count, "how many bytes are wanted")                                                                    \
	X(U64, lease, "random number that the reader draws for one lease")                                            \
	X(TEXT, dtype, "floating-point values that are wider travel in this one: F32, BF16, ...")                      \
	X(TEXT, token, "what the operator has given the client to be known by")                                       \
	X(TEXT, agent, "program and version of the sender, for logs")

#define REPLY_FIELDS(X)                                                                                               \
	X(I64, status, "0 or a code of proto/status.h")                                                               \
	X(TEXT, error, "sentence that goes with status")                                                              \
	X(U64, v, "protocol version of the daemon")                                                                   \
	X(TEXT, agent, "program and version of the daemon")                                                           \
	X(U64, instance, "random number of this daemon process")                                                      \
	X(U64, pid, "process id of the daemon")                                                                       \
	X(U64, uptime_ms, "time since the daemon started")                                                            \
	X(U64, header_bytes_max, "largest message header that the daemon reads")                                      \
	X(U64, body_bytes_max, "largest message body that the daemon reads")                                          \
	X(U64, epoch, "fencing number of the new registration")                                                       \
	X(BOOL, resumed, "the model existed and is continued")                                                        \
	X(U64, last_step, "step of the newest version")                                                               \
	X(U64, updates, "updates in the newest version")                                                              \
	X(U64, version, "sequence number of a version; 0 for none")                                                   \
	X(U64, stage_count, "stages of this rank")                                                                    \
	X(U64, segment_bytes, "size of the attached segment")                                                         \
	X(TEXT, outcome, "what became of the snapshot")                                                               \
	X(U64, step, "step that the answer is about")                                                                 \
	X(U64, stage, "a free stage")                                                                                 \
	X(U64, calls, "calls of the schedules that the applied snapshot stood for: 1, or more after a gap")           \
	X(U64, coalesced, "snapshots of this registration that gave way to a newer one")                              \
	X(U64, refused, "snapshots of this registration that were refused")                                           \
	X(TEXT, refusal, "why the latest of them was refused")                                                        \
	X(U64, segment, "identity of the attached segment")                                                           \
	X(U64, fence, "value of the slot's fence word while the view is valid")                                       \
	X(U64, region_offset, "first byte of the profile's image in the segment")                                     \
	X(U64, region_bytes, "bytes of the image")                                                                    \
	X(U64, header_bytes, "bytes of the image's header in front of the spaces that fill it up")                    \
	X(U64, profile_index, "0-based index of the profile in the slot's header")                                    \
	X(U64, freed_bytes, "memory given back")                                                                      \
	X(U64, taken, "version that the average goes back to")                                                        \
	X(TEXT, source, "where that version is: memory or disk")                                                      \
	X(TEXT, report, "what a registration averages, copies, freezes and drops; what is new, what has vanished")           \
	X(U64, missing, "first byte of the snapshot that has not come; its size when all have")                       \
	X(F64, decay, "of the profile's last update")                                                                 \
	X(U64, published_us, "when the version was published: microseconds since 1970")

#define MESSAGE_MEMBER_TEXT(name) struct text name;
#define MESSAGE_MEMBER_U64(name) uint64_t name;
#define MESSAGE_MEMBER_I64(name) int64_t name;
#define MESSAGE_MEMBER_F64(name) double name;
#define MESSAGE_MEMBER_BOOL(name) bool name;
#define MESSAGE_MEMBER_LIST(name) struct text_list name;
#define MESSAGE_MEMBER(type, name, text) MESSAGE_MEMBER_##type(name)

/* Bits of `present`: which fields a message carries. */
enum request_field {
#define X(type, name, text) REQUEST_BIT_##name,
	REQUEST_FIELDS(X)
#undef X
	REQUEST_FIELD_COUNT
};
enum reply_field {
#define X(type, name, text) REPLY_BIT_##name,
	REPLY_FIELDS(X)
#undef X
	REPLY_FIELD_COUNT
};
#define REQUEST_HAS(name) (UINT64_C(1) << REQUEST_BIT_##name)
#define REPLY_HAS(name) (UINT64_C(1) << REPLY_BIT_##name)

enum operation {
	OP_HELLO,      /* exchange versions and limits */
	OP_REGISTER,   /* claim a rank of a model; body: the manifest */
	OP_ATTACH,     /* attach socket only: the stage segment of a registration */
	OP_PUSH,       /* a stage holds a whole snapshot */
	OP_RESERVE,    /* wait for a free stage */
	OP_FLUSH,      /* wait until everything accepted so far is decided */
	OP_ATTRIBUTES, /* replace the model's attributes */
	OP_VIEW,       /* attach socket only: lease a version */
	OP_STATUS,     /* body of the reply: JSON about the daemon */
	OP_LIST,       /* body of the reply: JSON about all models */
	OP_SHOW,       /* body of the reply: JSON about one model */
	OP_REMOVE,     /* forget a model */
	OP_PROFILE_SET,    /* add profiles, or change those of the same names */
	OP_PROFILE_REMOVE, /* stop one profile */
	OP_CHECKPOINT,     /* write a model, or all, to disk */
	OP_HISTORY,        /* body of the reply: JSON about what there is of a model, in memory and on disk */
	OP_ROLLBACK,       /* go back to an earlier version */
	OP_CHECKPOINT_KEEP, /* mark a checkpoint as one that stays, or take the mark away */
	OP_CLAIM,   /* stages for a trainer that shares no memory with the daemon */
	OP_CHUNK,   /* a part of a snapshot for a stage; body: its bytes */
	OP_LEASE,   /* lease a version for a reader that shares no memory with the daemon */
	OP_FETCH,   /* body of the reply: a part of a leased version's image */
	OP_RELEASE, /* end a lease or a claim on stages */
	OPERATION_COUNT
};

/* What a peer must be let into to be answered. Each class is let into those before it. */
enum access {
	ACCESS_OPEN, /* everybody who can connect */
	ACCESS_READ,
	ACCESS_PUSH,
	ACCESS_ADMIN,
	ACCESS_COUNT
};

struct message_operation {
	const char *name;  /* on the wire */
	enum access access;
	uint64_t required; /* REQUEST_HAS bits besides op and v */
	uint64_t optional;
	bool needs_attach; /* answered on the attach socket only: its reply carries a file descriptor or a lease */
	bool may_wait;     /* the answer may come later */
	const char *text;
};

extern const struct message_operation message_operations[OPERATION_COUNT];

struct request {
	enum operation operation;
	uint64_t present;
	REQUEST_FIELDS(MESSAGE_MEMBER)
};

struct reply {
	uint64_t present;
	REPLY_FIELDS(MESSAGE_MEMBER)
};

/*
 * Decodes a header. Unknown keys are ignored (newer peers), a known key of a wrong type, a missing required field, or
 * a field that the operation does not have is STATUS_EPROTOCOL with a sentence; another protocol version is
 * STATUS_EVERSION with both; a list of more than PROFILE_COUNT_MAX texts is STATUS_ELIMIT. Texts point into the bytes.
 * A request must carry op and v, a reply status; all other fields of a reply are optional.
 */
int request_decode(struct unpacked *unpacked, const uint8_t *header, size_t header_bytes, struct request *ret_request,
                   struct reason *reason);
int reply_decode(struct unpacked *unpacked, const uint8_t *header, size_t header_bytes, struct reply *ret_reply,
                 struct reason *reason);

/*
 * Writes prefix and header (not the body) of a message; op and v are filled in from request->operation, and v and
 * status (0 unless set) are in every reply. STATUS_ELIMIT when it does not fit into capacity or
 * MESSAGE_HEADER_BYTES_MAX.
 */
int request_encode(const struct request *request, uint8_t *bytes, size_t capacity, size_t *ret_bytes,
                   struct reason *reason);
int reply_encode(const struct reply *reply, uint8_t *bytes, size_t capacity, size_t *ret_bytes, struct reason *reason);

/* Sets a field and its bit: request_set(&request, step, 7). */
#define request_set(request, name, ...) ((request)->name = __VA_ARGS__, (request)->present |= REQUEST_HAS(name))
#define reply_set(reply, name, ...) ((reply)->name = __VA_ARGS__, (reply)->present |= REPLY_HAS(name))

/* The text of a NUL-terminated string. */
struct text text_of(const char *string);

/* What a message's first MESSAGE_PREFIX_BYTES say: the bytes of the header behind them. */
static inline size_t message_header_bytes(const uint8_t *prefix)
{
	return (size_t)prefix[0] << 24 | (size_t)prefix[1] << 16 | (size_t)prefix[2] << 8 | prefix[3];
}

/*
 * Splits a whole message that lies in memory (prefix, header, body). STATUS_EPROTOCOL when the sizes do not add up,
 * STATUS_ELIMIT when the header is larger than allowed.
 */
int message_split(const uint8_t *bytes, size_t count, const uint8_t **ret_header, size_t *ret_header_bytes,
                  const uint8_t **ret_body, size_t *ret_body_bytes, struct reason *reason);

/* What became of a pushed snapshot. */
#define OUTCOMES(X)                                                                                                   \
	X(ACCEPTED, "accepted")   /* recorded; it will be applied */                                                  \
	X(STARTED, "started")     /* it became the start of the average */                                            \
	X(APPLIED, "applied")     /* it is in a published version */                                                  \
	X(DUPLICATE, "duplicate") /* this step was pushed before */                                                   \
	X(STALE, "stale")         /* an older step than the newest */                                                 \
	X(NONFINITE, "nonfinite") /* refused: it holds NaN or infinity */                                             \
	X(INCOMPLETE, "incomplete") /* dropped: another rank left this step out */                                    \
	X(LOSS, "loss")             /* refused: its loss is above loss_max, or NaN */                                 \
	X(JUMP, "norm-jump")        /* refused: a tensor's norm has changed by more than norm_jump */                 \
	X(COALESCED, "coalesced")   /* gave way to a newer snapshot, which stands for its call as well */             \
	X(SKIPPED, "skipped")       /* never sent: the library found no free stage, and its policy is skip */

enum outcome {
#define X(name, wire) OUTCOME_##name,
	OUTCOMES(X)
#undef X
	OUTCOME_COUNT
};

const char *outcome_name(enum outcome outcome);

/* The snapshot was there and will never be in an average. */
bool outcome_refuses(enum outcome outcome);
bool outcome_parse(struct text text, enum outcome *ret_outcome);
