/*
 * Small requests: the daemon's hello against an echo by NNG's own REP socket, in one run.
 *
 * Both are asked by the same stock REQ client over ipc with requests of the same bytes, and both answer with as many.
 * "One at a time" is one request after the other, "pipelined" keeps DEPTH of them in flight. The rounds of all four
 * take turns. The echo is a process of its own (this program once more) and serves DEPTH requests at once, so that it
 * has no smaller share of the machine than the daemon.
 *
 *   bench_requests DAEMON_URL FOLDER ROUNDS MILLISECONDS    one JSON object a line: requests a second of every round
 *   bench_requests --echo URL REPLY_BYTES                   the echo, until its standard input ends
 */
#include "proto/message.h"

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
	DEPTH = 64,
	ROUNDS_MAX = 100,
	WAIT_MS = 10000,
};

extern char **environ;

static void check(int code, const char *what)
{
	if (code) {
		fprintf(stderr, "bench_requests: %s: %s\n", what, nng_strerror(code));
		exit(1);
	}
}

static double clock_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- the echo ------------------------------------------------------------------------------------------------- */

struct serving {
	nng_ctx context;
	nng_aio *aio;
	size_t reply_bytes;
	bool replying;
};

static void serving_advance(void *argument)
{
	struct serving *serving = argument;
	nng_msg *message;

	if (nng_aio_result(serving->aio))
		return; /* the end */
	if (serving->replying) {
		serving->replying = false;
		nng_ctx_recv(serving->context, serving->aio);
		return;
	}
	message = nng_aio_get_msg(serving->aio);
	check(nng_msg_realloc(message, serving->reply_bytes), "a reply");
	nng_aio_set_msg(serving->aio, message);
	serving->replying = true;
	nng_ctx_send(serving->context, serving->aio);
}

static int echo(const char *url, size_t reply_bytes)
{
	static struct serving servings[DEPTH];
	nng_socket socket;
	char byte;

	check(nng_rep0_open(&socket), "the echo's socket");
	for (int i = 0; i < DEPTH; i++) {
		servings[i].reply_bytes = reply_bytes;
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

/* Starts the echo; *ret_input is the end of its standard input: closing it ends the echo. */
static pid_t echo_start(const char *program, const char *url, size_t reply_bytes, int *ret_input)
{
	char bytes[24];
	char *arguments[] = {(char *)(uintptr_t)program, "--echo", (char *)(uintptr_t)url, bytes, NULL};
	posix_spawn_file_actions_t actions;
	int ends[2];
	pid_t pid;

	snprintf(bytes, sizeof bytes, "%zu", reply_bytes);
	if (pipe(ends) != 0 || posix_spawn_file_actions_init(&actions) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO) != 0 ||
	    posix_spawn_file_actions_addclose(&actions, ends[1]) != 0 ||
	    posix_spawn(&pid, "/proc/self/exe", &actions, NULL, arguments, environ) != 0) {
		fprintf(stderr, "bench_requests: cannot start the echo\n");
		exit(1);
	}
	posix_spawn_file_actions_destroy(&actions);
	close(ends[0]);
	*ret_input = ends[1];
	return pid;
}

/* ---- the client ----------------------------------------------------------------------------------------------- */

static nng_msg *request_make(void)
{
	struct request request = {.operation = OP_HELLO};
	uint8_t bytes[256];
	size_t count;
	nng_msg *message;

	request_set(&request, agent, text_of("bench_requests"));
	if (request_encode(&request, bytes, sizeof bytes, &count, NULL) != 0) {
		fprintf(stderr, "bench_requests: the request does not fit\n");
		exit(1);
	}
	check(nng_msg_alloc(&message, 0), "a message");
	check(nng_msg_append(message, bytes, count), "a message");
	return message;
}

/* Asks once; the bytes of the reply. */
static size_t ask(nng_socket socket)
{
	nng_msg *reply;
	size_t count;

	check(nng_sendmsg(socket, request_make(), 0), "sending");
	check(nng_recvmsg(socket, &reply, 0), "receiving");
	count = nng_msg_len(reply);
	nng_msg_free(reply);
	return count;
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

static double one_at_a_time(nng_socket socket, double seconds)
{
	double begun = clock_seconds(), now = begun;
	unsigned long count = 0;

	while (now - begun < seconds) {
		ask(socket);
		count++;
		now = clock_seconds();
	}
	return (double)count / (now - begun);
}

/* One of the requests in flight. */
struct asking {
	nng_ctx context;
	nng_aio *aio;
	bool receiving;
	double until;
	unsigned long count;
	atomic_int *left;
};

static void asking_send(struct asking *asking)
{
	asking->receiving = false;
	nng_aio_set_msg(asking->aio, request_make());
	nng_ctx_send(asking->context, asking->aio);
}

static void asking_advance(void *argument)
{
	struct asking *asking = argument;

	check(nng_aio_result(asking->aio), "a pipelined request");
	if (!asking->receiving) {
		asking->receiving = true;
		nng_ctx_recv(asking->context, asking->aio);
		return;
	}
	nng_msg_free(nng_aio_get_msg(asking->aio));
	asking->count++;
	if (clock_seconds() < asking->until)
		asking_send(asking);
	else
		atomic_fetch_sub(asking->left, 1);
}

static double pipelined(nng_socket socket, double seconds)
{
	static struct asking askings[DEPTH];
	double begun = clock_seconds();
	unsigned long count = 0;
	atomic_int left = DEPTH;

	for (int i = 0; i < DEPTH; i++) {
		askings[i] = (struct asking){.until = begun + seconds, .left = &left};
		check(nng_ctx_open(&askings[i].context, socket), "a context");
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
	return (double)count / seconds;
}

/* ---- the rounds ----------------------------------------------------------------------------------------------- */

static void rates_print(const char *row, const double *daemon, const double *peer, int count)
{
	printf("{\"row\": \"%s\", \"daemon\": [", row);
	for (int i = 0; i < count; i++)
		printf("%s%.1f", i ? ", " : "", daemon[i]);
	printf("], \"nng_rep0\": [");
	for (int i = 0; i < count; i++)
		printf("%s%.1f", i ? ", " : "", peer[i]);
	printf("]}\n");
}

static int measure(const char *program, const char *daemon_url, const char *folder, int round_count, double seconds)
{
	double single[2][ROUNDS_MAX], many[2][ROUNDS_MAX];
	nng_socket sockets[2];
	char url[512];
	int input, status;
	pid_t pid;

	snprintf(url, sizeof url, "ipc://%s/echo.sock", folder);
	sockets[0] = connect_to(daemon_url);
	pid = echo_start(program, url, ask(sockets[0]), &input);
	sockets[1] = connect_to(url);
	ask(sockets[1]);
	for (int round = 0; round < round_count; round++) {
		for (int which = 0; which < 2; which++)
			single[which][round] = one_at_a_time(sockets[which], seconds);
		for (int which = 0; which < 2; which++)
			many[which][round] = pipelined(sockets[which], seconds);
	}
	rates_print("one at a time", single[0], single[1], round_count);
	rates_print("64 in flight", many[0], many[1], round_count);
	nng_close(sockets[0]);
	nng_close(sockets[1]);
	close(input);
	waitpid(pid, &status, 0);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "--echo") == 0)
		return echo(argv[2], strtoul(argv[3], NULL, 10));
	if (argc == 5) {
		int round_count = atoi(argv[3]), milliseconds = atoi(argv[4]);

		if (round_count > 0 && round_count <= ROUNDS_MAX && milliseconds > 0)
			return measure(argv[0], argv[1], argv[2], round_count, milliseconds * 1e-3);
	}
	fprintf(stderr, "usage: bench_requests DAEMON_URL FOLDER ROUNDS MILLISECONDS\n");
	return 2;
}
