/*
 * The client handle inside the library: sending requests and reading answers, for trainers and views.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/emad.h"
#include "client/identity.h"
#include "client/link.h"
#include "proto/message.h"
#include "proto/status.h"

struct emad_client {
	pid_t pid;         /* the process that opened it; no other may use it */
	struct link *link; /* owned */
	char *url;         /* owned */
	char *socket_path; /* owned; the file behind an ipc url, else NULL */
	char *attach_path; /* owned; the attach socket beside it, else NULL */
	struct identity identity;
	uint8_t *greeting; /* owned; an encoded hello; NULL: none */
	size_t greeting_bytes;
	uint64_t id;       /* random, not 0 */
	int timeout_ms;    /* what a negative timeout means */
	emad_progress *progress; /* of chunks; NULL: nobody is told */
	void *progress_context;

	/* Learnt from the daemon's latest hello. */
	_Atomic uint64_t instance;
	_Atomic uint64_t header_bytes_max;
	_Atomic uint64_t body_bytes_max;

	_Atomic uint64_t sequence; /* of the latest mutating request */
};

/* An answer of the daemon. Texts and body live until client_answer_finish. */
struct client_answer {
	struct reply reply;
	const uint8_t *body;
	size_t body_bytes;
	int fd; /* attach socket only; -1 when none came; belongs to whoever takes it out */

	uint8_t *bytes;              /* owned */
	struct unpacked *unpacked;   /* owned */
};

/* 0, STATUS_EARGUMENT for NULL, STATUS_EFORKED in another process than the one that opened it. */
int client_check(const struct emad_client *client, struct reason *reason);

/* 0 in the process that opened a handle, else STATUS_EFORKED. */
int client_process_check(pid_t opened_by, struct reason *reason);

/* The timeout that is meant. */
int client_timeout(const struct emad_client *client, int timeout_ms);

/* Until when to wait for the daemon's answer to a request with that (meant) timeout. */
int64_t client_deadline(int timeout_ms);

/* Checks a model's name. STATUS_EARGUMENT, STATUS_ENAME. */
int client_model_check(const char *model, struct reason *reason);

/* Names the request for ever: client and the next sequence number. */
void client_stamp(struct emad_client *client, struct request *request);
/* No request will be stamped with a lower number from now on. */
uint64_t client_stamp_min(const struct emad_client *client);

/* What is sent, and where the answer goes. */
struct client_message {
	const struct request *request;
	const void *body;
	size_t body_bytes;
	uint8_t *place; /* an answer's body of place_bytes is received there, and is the answer's body; NULL: none is */
	size_t place_bytes;
};

/*
 * Sends a request over the link and waits for the answer. 0 when there is an answer, whatever it says: see
 * client_answer_code. STATUS_ELIMIT: larger than the daemon reads. Else as link_call.
 */
int client_exchange(struct emad_client *client, const struct client_message *message, int64_t deadline_ms,
                    struct client_answer *ret_answer, struct reason *reason);

/* The same for an answer whose body goes nowhere else. */
int client_call(struct emad_client *client, const struct request *request, const void *body, size_t body_bytes,
                int64_t deadline_ms, struct client_answer *ret_answer, struct reason *reason);

/* The status of an answer that is all in memory. */
int client_greeted(const uint8_t *bytes, size_t count, struct reason *reason);

/* The same over a connection to the attach socket. */
int client_attach_call(int connection, const struct request *request, int64_t deadline_ms,
                       struct client_answer *ret_answer, struct reason *reason);

/* Opens a connection to the attach socket. STATUS_EARGUMENT when the url is not ipc. */
int client_attach_open(const struct emad_client *client, int64_t deadline_ms, int *ret_connection,
                       struct reason *reason);

/* The answer's status, with its sentence. */
int client_answer_code(const struct client_answer *answer, struct reason *reason);

/* Also closes an fd that was not taken out. */
void client_answer_finish(struct client_answer *answer);

/* Copies with a terminating NUL, cut between characters when it does not fit. */
void client_text_copy(struct text text, char *target, size_t capacity);

/* Exchanges versions and limits. ret_daemon may be NULL. */
int client_hello(struct emad_client *client, int64_t deadline_ms, struct emad_daemon *ret_daemon,
                 struct reason *reason);
