/*
 * Weights by messages: snapshots sent to the daemon in chunks and images fetched from it, against NNG's own REQ and REP
 * sockets that move the same bytes from the same memory into a store and back, in one run.
 *
 * The peer is a process of its own (this program once more), which copies what comes to its place in a store, and what
 * is asked for out of it; NNG's REQ socket asks it, DEPTH requests at a time. The daemon is sent snapshots in two ways:
 * by the library's own client, which sends from where the weights are, and by that very REQ socket with the same
 * messages, which shows what of the difference is the daemon's. The rounds take turns.
 *
 *   bench_network IPC_URL TCP_URL FOLDER STORE_TCP_URL ROUNDS MILLISECONDS
 *                                   one JSON object a line: bytes a second of every round
 *   bench_network --store URL       the peer, until its standard input ends
 */
#include "client/chunks.h"
#include "proto/manifest.h"
#include "proto/message.h"

#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	DEPTH = 4,
	CHUNK_COUNT = 64, /* of the model */
	ROUNDS_MAX = 100,
	WAIT_MS = 20000,
	HEADER_BYTES_MAX = 512,
	LEASE = 1,
	SEQUENCE = 2, /* of the push whose chunks are sent; 1 was the registration */
};

extern char **environ;

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "bench_network: %s: %s\n", what, why);
	exit(1);
}

static void check(int code, const char *what)
{
	if (code)
		fail(what, nng_strerror(code));
}

static double clock_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- the peer -------------------------------------------------------------------------------------------------- */

struct serving {
	nng_ctx context;
	nng_aio *aio;
	bool replying;
	uint64_t place;
	uint8_t *store;
};

/* What is longer than a chunk is one, anything else asks for one. */
static void serving_advance(void *argument)
{
	struct serving *serving = argument;
	uint8_t *place = serving->store + serving->place % CHUNK_COUNT * CHUNK_BYTES_MAX;
	nng_msg *message;
	size_t bytes;

	if (nng_aio_result(serving->aio))
		return; /* the end */
	if (serving->replying) {
		serving->replying = false;
		nng_ctx_recv(serving->context, serving->aio);
		return;
	}
	message = nng_aio_get_msg(serving->aio);
	bytes = nng_msg_len(message);
	serving->place += DEPTH;
	if (bytes > CHUNK_BYTES_MAX) {
		memcpy(place, (const uint8_t *)nng_msg_body(message) + bytes - CHUNK_BYTES_MAX, CHUNK_BYTES_MAX);
		check(nng_msg_realloc(message, 64), "a reply");
	} else {
		check(nng_msg_realloc(message, CHUNK_BYTES_MAX), "a reply");
		memcpy(nng_msg_body(message), place, CHUNK_BYTES_MAX);
	}
	nng_aio_set_msg(serving->aio, message);
	serving->replying = true;
	nng_ctx_send(serving->context, serving->aio);
}

static int store(const char *url)
{
	static struct serving servings[DEPTH];
	uint8_t *bytes = malloc((size_t)CHUNK_COUNT * CHUNK_BYTES_MAX);
	nng_socket socket;
	char byte;

	if (!bytes)
		fail("the store", "no memory");
	memset(bytes, 1, (size_t)CHUNK_COUNT * CHUNK_BYTES_MAX);
	check(nng_rep0_open(&socket), "the peer's socket");
	for (int i = 0; i < DEPTH; i++) {
		servings[i].store = bytes;
		servings[i].place = (uint64_t)i;
		check(nng_ctx_open(&servings[i].context, socket), "a context");
		check(nng_aio_alloc(&servings[i].aio, serving_advance, &servings[i]), "an operation");
		nng_ctx_recv(servings[i].context, servings[i].aio);
	}
	check(nng_listen(socket, url, NULL, 0), url);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		continue;
	nng_close(socket);
	return 0;
}

/* *ret_input is the end of its standard input: closing it ends the peer. */
static pid_t store_start(const char *program, const char *url, int *ret_input)
{
	char *arguments[] = {(char *)(uintptr_t)program, "--store", (char *)(uintptr_t)url, NULL};
	posix_spawn_file_actions_t actions;
	int ends[2];
	pid_t pid;

	/* The next one must not inherit our end, or neither would ever end. */
	if (pipe2(ends, O_CLOEXEC) != 0 || posix_spawn_file_actions_init(&actions) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO) != 0 ||
	    posix_spawn_file_actions_addclose(&actions, ends[1]) != 0 ||
	    posix_spawn(&pid, "/proc/self/exe", &actions, NULL, arguments, environ) != 0)
		fail("the peer", "cannot be started");
	posix_spawn_file_actions_destroy(&actions);
	close(ends[0]);
	*ret_input = ends[1];
	return pid;
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static uint64_t epoch;   /* of the registration */
static uint8_t *weights; /* CHUNK_COUNT chunks */

static struct request request_of(enum operation operation)
{
	struct request request = {.operation = operation};

	request_set(&request, model, text_of("bench"));
	request_set(&request, client, 1);
	request_set(&request, rank, 0);
	if (operation != OP_REGISTER)
		request_set(&request, epoch, epoch);
	return request;
}

static nng_msg *message_make(const struct request *request, const void *body, size_t body_bytes)
{
	uint8_t header[HEADER_BYTES_MAX];
	size_t count;
	nng_msg *message;

	if (request_encode(request, header, sizeof header, &count, NULL) != 0)
		fail("a request", "does not fit");
	check(nng_msg_alloc(&message, count + body_bytes), "a message");
	memcpy(nng_msg_body(message), header, count);
	if (body_bytes > 0)
		memcpy((uint8_t *)nng_msg_body(message) + count, body, body_bytes);
	return message;
}

static struct request chunk_request(uint64_t index)
{
	struct request request = request_of(OP_CHUNK);

	request_set(&request, sequence, SEQUENCE);
	request_set(&request, stage, 0);
	request_set(&request, offset, index % CHUNK_COUNT * CHUNK_BYTES_MAX);
	return request;
}

static nng_msg *chunk_make(uint64_t index)
{
	struct request request = chunk_request(index);

	return message_make(&request, weights + index % CHUNK_COUNT * CHUNK_BYTES_MAX, CHUNK_BYTES_MAX);
}

static nng_msg *fetch_make(uint64_t index)
{
	struct request request = {.operation = OP_FETCH};

	request_set(&request, lease, LEASE);
	request_set(&request, offset, index % CHUNK_COUNT * CHUNK_BYTES_MAX);
	request_set(&request, count, CHUNK_BYTES_MAX);
	return message_make(&request, NULL, 0);
}

/* The end of the answer to a fetch is its part of the image. */
static void fetch_take(uint64_t index, nng_msg *answer)
{
	size_t bytes = nng_msg_len(answer);

	if (bytes < CHUNK_BYTES_MAX)
		fail("a fetch", "was refused");
	memcpy(weights + index % CHUNK_COUNT * CHUNK_BYTES_MAX, (uint8_t *)nng_msg_body(answer) + bytes - CHUNK_BYTES_MAX,
	       CHUNK_BYTES_MAX);
}

/* Asks the daemon once; the reply's epoch. */
static uint64_t ask(nng_socket socket, nng_msg *message)
{
	const uint8_t *header, *body;
	size_t header_bytes, body_bytes;
	struct unpacked *unpacked;
	struct reply reply;
	nng_msg *answer;
	uint64_t number;

	check(nng_sendmsg(socket, message, 0), "sending");
	check(nng_recvmsg(socket, &answer, 0), "receiving");
	if (unpacked_create(&unpacked) != 0 || message_split(nng_msg_body(answer), nng_msg_len(answer), &header, &header_bytes,
	                                                     &body, &body_bytes, NULL) != 0 ||
	    reply_decode(unpacked, header, header_bytes, &reply, NULL) != 0)
		fail("an answer", "cannot be read");
	if (reply.status != 0) {
		fprintf(stderr, "bench_network: %.*s\n", (int)reply.error.count, reply.error.bytes);
		exit(1);
	}
	number = reply.epoch;
	unpacked_destroy(unpacked);
	nng_msg_free(answer);
	return number;
}

/* A model of one tensor, one version of it, and a lease on that. */
static void model_make(nng_socket socket)
{
	const uint64_t extent = (uint64_t)CHUNK_COUNT * CHUNK_BYTES_MAX / sizeof(float);
	struct request request = request_of(OP_REGISTER);
	struct manifest *manifest;
	uint8_t *body;
	size_t body_bytes;

	if (manifest_create(&manifest) != 0 || manifest_add_tensor(manifest, "w", 1, DTYPE_F32, false, &extent, 1, NULL) != 0 ||
	    manifest_add_piece(manifest, NULL, NULL, NULL) != 0 || manifest_finish(manifest, NULL) != 0 ||
	    manifest_encode(manifest, &body, &body_bytes, NULL) != 0)
		fail("the manifest", "cannot be made");
	request_set(&request, sequence, 1);
	request_set(&request, world, 1);
	request_set(&request, profiles, (struct text_list){.count = 1, .items = {text_of("ema=constant:decay=0.5")}});
	epoch = ask(socket, message_make(&request, body, body_bytes));
	free(body);
	manifest_destroy(manifest);
	request = request_of(OP_CLAIM);
	ask(socket, message_make(&request, NULL, 0));
	for (uint64_t i = 0; i < CHUNK_COUNT; i++)
		ask(socket, chunk_make(i));
	/* From the other stage, so that this one goes on being filled. */
	request = request_of(OP_PUSH);
	request_set(&request, sequence, SEQUENCE + 1);
	request_set(&request, step, 1);
	request_set(&request, stage, 1);
	request_set(&request, wait, true);
	ask(socket, message_make(&request, NULL, 0));
	request = (struct request){.operation = OP_LEASE};
	request_set(&request, model, text_of("bench"));
	request_set(&request, lease, LEASE);
	ask(socket, message_make(&request, NULL, 0));
}

static nng_socket connect_to(const char *url)
{
	nng_socket socket;

	check(nng_req0_open(&socket), "a socket");
	check(nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, WAIT_MS), "a deadline");
	check(nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, WAIT_MS), "a deadline");
	check(nng_dial(socket, url, NULL, NNG_FLAG_NONBLOCK), url);
	return socket;
}

/* ---- the rounds ------------------------------------------------------------------------------------------------ */

/* Who moves weights in a row, and how. */
struct side {
	double (*rate)(const struct side *side, double seconds); /* bytes of weights a second */
	nng_socket socket;
	nng_msg *(*make)(uint64_t index);
	void (*take)(uint64_t index, nng_msg *answer); /* NULL: there is nothing in it */
	struct emad_client *client;
};

/* One of the requests in flight. */
struct asking {
	nng_ctx context;
	nng_aio *aio;
	const struct side *side;
	bool receiving;
	double until;
	uint64_t index;
	uint64_t count;
	atomic_int *left;
};

static void asking_send(struct asking *asking)
{
	asking->receiving = false;
	nng_aio_set_msg(asking->aio, asking->side->make(asking->index));
	asking->index += DEPTH;
	nng_ctx_send(asking->context, asking->aio);
}

static void asking_advance(void *argument)
{
	struct asking *asking = argument;
	nng_msg *answer;

	check(nng_aio_result(asking->aio), "a pipelined request");
	if (!asking->receiving) {
		asking->receiving = true;
		nng_ctx_recv(asking->context, asking->aio);
		return;
	}
	answer = nng_aio_get_msg(asking->aio);
	if (asking->side->take)
		asking->side->take(asking->index - DEPTH, answer);
	nng_msg_free(answer);
	asking->count++;
	if (clock_seconds() < asking->until)
		asking_send(asking);
	else
		atomic_fetch_sub(asking->left, 1);
}

/* By NNG's REQ socket. Bytes of weights a second. */
static double pipelined(const struct side *side, double seconds)
{
	static struct asking askings[DEPTH];
	double begun = clock_seconds();
	uint64_t count = 0;
	atomic_int left = DEPTH;

	for (int i = 0; i < DEPTH; i++) {
		askings[i] = (struct asking){.side = side, .until = begun + seconds, .index = (uint64_t)i, .left = &left};
		check(nng_ctx_open(&askings[i].context, side->socket), "a context");
		check(nng_aio_alloc(&askings[i].aio, asking_advance, &askings[i]), "an operation");
		nng_aio_set_timeout(askings[i].aio, WAIT_MS);
	}
	for (int i = 0; i < DEPTH; i++)
		asking_send(&askings[i]);
	while (atomic_load(&left) > 0)
		nng_msleep(1);
	seconds = clock_seconds() - begun;
	for (int i = 0; i < DEPTH; i++) {
		nng_aio_stop(askings[i].aio);
		count += askings[i].count;
		nng_aio_free(askings[i].aio);
		nng_ctx_close(askings[i].context);
	}
	return (double)count * CHUNK_BYTES_MAX / seconds;
}

static int chunk_send(const struct chunks *chunks, uint64_t index, int64_t deadline_ms, struct reason *reason)
{
	struct request request = chunk_request(index);
	struct client_answer answer;
	int code = client_call(chunks->client, &request, weights + index * CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, deadline_ms,
	                       &answer, reason);

	if (code)
		return code;
	code = client_answer_code(&answer, reason);
	client_answer_finish(&answer);
	return code;
}

/* By the library, one snapshot after the other. */
static double sent(const struct side *side, double seconds)
{
	const struct chunks snapshot = {.client = side->client, .end = CHUNK_COUNT, .bytes = CHUNK_COUNT * CHUNK_BYTES_MAX,
	                                .patient = true, .move = chunk_send};
	double begun = clock_seconds(), now;
	struct reason reason = {.text = ""};
	uint64_t count = 0;

	do {
		if (chunks_move(&snapshot, &reason) != 0)
			fail("a snapshot", reason.text);
		count += CHUNK_COUNT;
		now = clock_seconds();
	} while (now - begun < seconds);
	return (double)count * CHUNK_BYTES_MAX / (now - begun);
}

/* By the library, whole views one after the other. */
static double viewed(const struct side *side, double seconds)
{
	double begun = clock_seconds(), now;
	uint64_t count = 0;

	do {
		struct emad_view *view;

		if (emad_view_open(side->client, "bench", NULL, 0, WAIT_MS, &view) != 0)
			fail("a view", emad_error());
		emad_view_close(view);
		count += CHUNK_COUNT;
		now = clock_seconds();
	} while (now - begun < seconds);
	return (double)count * CHUNK_BYTES_MAX / (now - begun);
}

static void row_measure(const char *row, const struct side sides[2], int round_count, double seconds)
{
	double rates[2][ROUNDS_MAX];

	/* One that is not counted: after a registration the daemon makes its memory's pages huge. */
	for (int which = 0; which < 2; which++)
		(void)sides[which].rate(&sides[which], seconds);
	for (int round = 0; round < round_count; round++)
		for (int which = 0; which < 2; which++)
			rates[which][round] = sides[which].rate(&sides[which], seconds);
	printf("{\"row\": \"%s\"", row);
	for (int which = 0; which < 2; which++) {
		printf(", \"%s\": [", which ? "nng" : "daemon");
		for (int i = 0; i < round_count; i++)
			printf("%s%.1f", i ? ", " : "", rates[which][i]);
		printf("]");
	}
	printf("}\n");
	fflush(stdout);
}

/* The same bytes between the same kind of endpoints. */
struct pair {
	nng_socket daemon, peer;
	struct emad_client *client;
};

static struct pair pair_connect(const char *url, const char *peer_url)
{
	struct pair pair = {.daemon = connect_to(url), .peer = connect_to(peer_url)};

	if (emad_client_open(url, WAIT_MS, &pair.client) != 0)
		fail(url, emad_error());
	return pair;
}

static void pair_close(struct pair *pair)
{
	emad_client_close(pair->client);
	nng_close(pair->daemon);
	nng_close(pair->peer);
}

static void pair_measure(const struct pair *pair, const char *way, int round_count, double seconds)
{
	const struct side peer = {.rate = pipelined, .socket = pair->peer, .make = chunk_make};
	char row[80];

	snprintf(row, sizeof row, "snapshots over %s", way);
	row_measure(row, (struct side[]){{.rate = sent, .client = pair->client}, peer}, round_count, seconds);
	snprintf(row, sizeof row, "snapshots over %s, sent by a stock client", way);
	row_measure(row, (struct side[]){{.rate = pipelined, .socket = pair->daemon, .make = chunk_make}, peer}, round_count,
	            seconds);
}

static void views_measure(const struct pair *pair, int round_count, double seconds)
{
	const struct side peer = {.rate = pipelined, .socket = pair->peer, .make = fetch_make, .take = fetch_take};

	row_measure("views over tcp", (struct side[]){{.rate = viewed, .client = pair->client}, peer}, round_count, seconds);
	row_measure("views over tcp, fetched by a stock client",
	            (struct side[]){{.rate = pipelined, .socket = pair->daemon, .make = fetch_make, .take = fetch_take}, peer}, round_count, seconds);
}

static int measure(char **argv, int round_count, double seconds)
{
	char url[512];
	struct pair ipc, tcp;
	int inputs[2], status;
	pid_t pids[2];

	weights = malloc((size_t)CHUNK_COUNT * CHUNK_BYTES_MAX);
	if (!weights)
		fail("the weights", "no memory");
	memset(weights, 0, (size_t)CHUNK_COUNT * CHUNK_BYTES_MAX);
	snprintf(url, sizeof url, "ipc://%s/store.sock", argv[3]);
	pids[0] = store_start(argv[0], url, &inputs[0]);
	pids[1] = store_start(argv[0], argv[4], &inputs[1]);
	ipc = pair_connect(argv[1], url);
	tcp = pair_connect(argv[2], argv[4]);
	model_make(ipc.daemon);
	pair_measure(&ipc, "ipc", round_count, seconds);
	pair_measure(&tcp, "tcp", round_count, seconds);
	views_measure(&tcp, round_count, seconds);
	pair_close(&ipc);
	pair_close(&tcp);
	free(weights);
	for (int i = 1; i >= 0; i--) {
		close(inputs[i]);
		waitpid(pids[i], &status, 0);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--store") == 0)
		return store(argv[2]);
	if (argc == 7) {
		int round_count = atoi(argv[5]), milliseconds = atoi(argv[6]);

		if (round_count > 0 && round_count <= ROUNDS_MAX && milliseconds > 0)
			return measure(argv, round_count, milliseconds * 1e-3);
	}
	fprintf(stderr, "usage: bench_network IPC_URL TCP_URL FOLDER STORE_TCP_URL ROUNDS MILLISECONDS\n");
	return 2;
}
