/*
 * PROTOCOL.md spoken by hand: sockets, frames and datagrams, for tests that say what no library would say.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/manifest.h"
#include "proto/message.h"

enum { WIRE_HANDSHAKE_BYTES = 8, WIRE_FRAME_BYTES_MAX = 9 + 4 + MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX };

/* What a REQ peer sends first. */
extern const uint8_t wire_handshake[WIRE_HANDSHAKE_BYTES];

/* One connection on which requests are made one after the other. */
struct wire {
	int fd;
	bool attach; /* datagrams, not frames */
	uint32_t request_id;
	struct unpacked *unpacked; /* owned */
	struct reply reply;        /* the latest; its texts point into bytes */
	uint8_t *bytes;            /* owned; the latest reply's message */
	const uint8_t *body;       /* of the latest reply, inside bytes */
	size_t body_bytes;
	int passed; /* the descriptor that came with it, -1 for none; the caller's to close */
};

/* Connects to "emad.sock" (SOCK_STREAM) or "attach.sock" (SOCK_SEQPACKET) in the directory. The descriptor or -errno. */
int wire_dial(const char *directory, const char *name, int type);

/* Writes all of it within the time; -errno where the peer has gone, -ETIMEDOUT. */
int wire_write(int fd, const void *bytes, size_t count, int timeout_ms);

/* Reads exactly that much within the time; -ECONNRESET when the peer closes first. */
int wire_read(int fd, void *bytes, size_t count, int timeout_ms);

/* Reads and throws away until the peer closes. False when it has not within the time. */
bool wire_closes(int fd, int timeout_ms);

/* The frame of a request as it goes over ipc: marker, length, request id, message. The bytes used. */
size_t wire_frame(const struct request *request, const void *body, size_t body_bytes, uint32_t request_id, uint8_t *bytes,
                  size_t capacity);

/* A connection to either socket, handshakes done. -errno. */
int wire_open(struct wire *wire, const char *directory, bool attach);
void wire_close(struct wire *wire);

/* Sends a request and reads its reply. The reply's status, or what went wrong on the way: -ECONNRESET, -ETIMEDOUT. */
int wire_call(struct wire *wire, const struct request *request, const void *body, size_t body_bytes, int timeout_ms);

/* Sends one without waiting; reads the next reply. */
int wire_ask(struct wire *wire, const struct request *request, const void *body, size_t body_bytes, int timeout_ms);
int wire_hear(struct wire *wire, int timeout_ms);

/* A register request for one rank of one, first sequence number. */
struct request wire_register(const char *model, uint64_t client);
