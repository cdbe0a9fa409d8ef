/*
 * The daemon's sockets, as seen by clients that speak PROTOCOL.md by hand: stock NNG sockets, and peers that are
 * broken, slow, greedy or hostile. Whatever they do, others are served and memory stays bounded.
 */
#include "tests/integration/harness.h"
#include "tests/integration/process.h"
#include "tests/integration/wire.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	CALL_MAX_MS = 20000,
	CLOSE_MAX_MS = 10000, /* far below the daemon's default limits of 10 and 30 s times the scale */
};

static struct harness harness;

static void daemon_open(void)
{
	harness_open(&harness, NULL);
}

/* The address sanitizer makes the exit status of a daemon that has lost memory another one. */
static void daemon_close(void)
{
	int status = harness_stop(&harness);

	if (status != 0)
		harness_log_print(&harness);
	ck_assert_msg(status == 0, "the daemon ended with status %#x", (unsigned)status);
	harness_close(&harness);
}

/* Makes the daemon start anew with settings; the file is read once. */
static void daemon_configure(const char *settings)
{
	static char path[96];
	FILE *file;

	ck_assert_int_eq(harness_stop(&harness), 0);
	snprintf(path, sizeof(path), "%s/conf", harness.directory);
	file = fopen(path, "we");
	ck_assert_ptr_nonnull(file);
	fputs(settings, file);
	ck_assert_int_eq(fclose(file), 0);
	for (size_t i = 0; i < HARNESS_ARGUMENT_COUNT_MAX; i++) {
		if (harness.arguments[i])
			continue;
		harness.arguments[i] = "--config";
		harness.arguments[i + 1] = path;
		break;
	}
	harness_start(&harness);
}

static int ask_hello(struct wire *wire)
{
	struct request request = {.operation = OP_HELLO};

	return wire_call(wire, &request, NULL, 0, CALL_MAX_MS);
}

/* Both sockets answer newcomers. */
static void still_serves(void)
{
	for (int attach = 0; attach < 2; attach++) {
		struct wire wire;

		ck_assert_int_eq(wire_open(&wire, harness.directory, attach), 0);
		ck_assert_int_eq(ask_hello(&wire), 0);
		ck_assert_uint_eq(wire.reply.pid, (uint64_t)harness.pid);
		wire_close(&wire);
	}
}

/* A number in a JSON reply; UINT64_MAX when it is not there. */
static uint64_t json_number(const struct wire *wire, const char *name)
{
	char pattern[64], *text = strndup((const char *)wire->body, wire->body_bytes), *at;
	uint64_t number = UINT64_MAX;

	snprintf(pattern, sizeof(pattern), "\"%s\":", name);
	at = text ? strstr(text, pattern) : NULL;
	if (at)
		number = strtoull(at + strlen(pattern), NULL, 10);
	free(text);
	return number;
}

static uint64_t counter(const char *name)
{
	struct request request = {.operation = OP_STATUS};
	struct wire wire;
	uint64_t number;

	ck_assert_int_eq(wire_open(&wire, harness.directory, false), 0);
	ck_assert_int_eq(wire_call(&wire, &request, NULL, 0, CALL_MAX_MS), 0);
	number = json_number(&wire, name);
	wire_close(&wire);
	return number;
}

/* The body of a register request: so many float32 tensors of so many elements. */
static uint8_t *body_make(uint32_t tensor_count, uint64_t element_count, size_t *ret_bytes)
{
	struct manifest *manifest;
	uint8_t *bytes;

	ck_assert_int_eq(manifest_create(&manifest), 0);
	for (uint32_t i = 0; i < tensor_count; i++) {
		char name[64];
		int length = snprintf(name, sizeof(name), "layer%u.weight", i);

		ck_assert_int_eq(manifest_add_tensor(manifest, name, (size_t)length, DTYPE_F32, false, &element_count, 1,
		                                     NULL), 0);
		ck_assert_int_eq(manifest_add_piece(manifest, NULL, NULL, NULL), 0);
	}
	ck_assert_int_eq(manifest_finish(manifest, NULL), 0);
	ck_assert_int_eq(manifest_encode(manifest, &bytes, ret_bytes, NULL), 0);
	manifest_destroy(manifest);
	return bytes;
}

/* Registers a model; its epoch. */
static uint64_t model_register(struct wire *wire, const char *name, uint32_t tensor_count, uint64_t element_count)
{
	struct request request = wire_register(name, 77);
	size_t body_bytes;
	uint8_t *body = body_make(tensor_count, element_count, &body_bytes);

	ck_assert_int_eq(wire_call(wire, &request, body, body_bytes, CALL_MAX_MS), 0);
	free(body);
	return wire->reply.epoch;
}

/* Claims the stages of the registration; the connection must stay open. */
static void model_attach(struct wire *wire, const char *name, uint64_t epoch)
{
	struct request request = {.operation = OP_ATTACH};

	request_set(&request, model, text_of(name));
	request_set(&request, rank, 0);
	request_set(&request, epoch, epoch);
	ck_assert_int_eq(wire_call(wire, &request, NULL, 0, CALL_MAX_MS), 0);
	ck_assert_int_ge(wire->passed, 0);
	close(wire->passed);
}

static struct request push_request(const char *name, uint64_t epoch, uint64_t sequence, uint64_t step)
{
	struct request request = {.operation = OP_PUSH};

	request_set(&request, model, text_of(name));
	request_set(&request, client, 77);
	request_set(&request, sequence, sequence);
	request_set(&request, rank, 0);
	request_set(&request, epoch, epoch);
	request_set(&request, step, step);
	request_set(&request, stage, 0);
	request_set(&request, wait, true);
	return request;
}

static struct request view_request(const char *name, uint64_t min_step, uint64_t timeout_ms)
{
	struct request request = {.operation = OP_VIEW};

	request_set(&request, model, text_of(name));
	if (min_step > 0)
		request_set(&request, min_step, min_step);
	if (timeout_ms > 0)
		request_set(&request, timeout_ms, timeout_ms);
	return request;
}

/* ---- stock clients ----------------------------------------------------------------------------------------------- */

static nng_msg *message_make(const struct request *request)
{
	static uint8_t bytes[MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX];
	size_t count = 0;
	nng_msg *message;

	ck_assert_int_eq(request_encode(request, bytes, sizeof(bytes), &count, NULL), 0);
	ck_assert_int_eq(nng_msg_alloc(&message, 0), 0);
	ck_assert_int_eq(nng_msg_append(message, bytes, count), 0);
	return message;
}

/* The reply in a message: its texts point into it. The body follows the header. */
static struct reply message_read(nng_msg *message, const uint8_t **ret_body, size_t *ret_body_bytes)
{
	const uint8_t *header;
	size_t header_bytes;
	struct unpacked *unpacked;
	struct reply reply;

	ck_assert_int_eq(unpacked_create(&unpacked), 0);
	ck_assert_int_eq(message_split(nng_msg_body(message), nng_msg_len(message), &header, &header_bytes, ret_body,
	                               ret_body_bytes, NULL), 0);
	ck_assert_int_eq(reply_decode(unpacked, header, header_bytes, &reply, NULL), 0);
	unpacked_destroy(unpacked);
	return reply;
}

START_TEST(answers_a_stock_req_socket)
{
	static const enum operation operations[] = {OP_HELLO, OP_STATUS, OP_LIST};
	nng_socket socket;

	ck_assert_int_eq(nng_req0_open(&socket), 0);
	ck_assert_int_eq(nng_dial(socket, harness.url, NULL, 0), 0);
	ck_assert_int_eq(nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, CALL_MAX_MS), 0);
	for (int i = 0; i < 30; i++) {
		struct request request = {.operation = operations[i % 3]};
		nng_msg *message = message_make(&request);
		const uint8_t *body;
		size_t body_bytes;
		struct reply reply;

		ck_assert_int_eq(nng_sendmsg(socket, message, 0), 0);
		ck_assert_int_eq(nng_recvmsg(socket, &message, 0), 0);
		reply = message_read(message, &body, &body_bytes);
		ck_assert_int_eq((int)reply.status, 0);
		ck_assert_uint_eq(reply.v, PROTOCOL_VERSION);
		if (i % 3 == 0)
			ck_assert(text_equal(reply.agent, "emad " EMAD_VERSION));
		else
			ck_assert_int_eq(body[0] == '{' && body[body_bytes - 1] == '}', 1);
		nng_msg_free(message);
	}
	nng_close(socket);
}
END_TEST

/* Every answer finds the context that asked: each asks for a model of another name. */
START_TEST(answers_pipelined_contexts)
{
	enum { COUNT = 64, ROUND_COUNT = 5 };
	nng_ctx contexts[COUNT];
	nng_aio *jobs[COUNT];
	nng_socket socket;
	char name[32], expected[48];

	ck_assert_int_eq(nng_req0_open(&socket), 0);
	ck_assert_int_eq(nng_dial(socket, harness.url, NULL, 0), 0);
	for (int i = 0; i < COUNT; i++) {
		ck_assert_int_eq(nng_ctx_open(&contexts[i], socket), 0);
		ck_assert_int_eq(nng_aio_alloc(&jobs[i], NULL, NULL), 0);
		nng_aio_set_timeout(jobs[i], CALL_MAX_MS);
	}
	for (int round = 0; round < ROUND_COUNT; round++) {
		for (int i = 0; i < COUNT; i++) {
			struct request request = {.operation = OP_SHOW};

			snprintf(name, sizeof(name), "model-%d-%d", round, i);
			request_set(&request, model, text_of(name));
			nng_aio_set_msg(jobs[i], message_make(&request));
			nng_ctx_send(contexts[i], jobs[i]);
		}
		for (int i = 0; i < COUNT; i++) {
			nng_aio_wait(jobs[i]);
			ck_assert_int_eq(nng_aio_result(jobs[i]), 0);
			nng_ctx_recv(contexts[i], jobs[i]);
		}
		for (int i = 0; i < COUNT; i++) {
			const uint8_t *body;
			size_t body_bytes;
			struct reply reply;
			char error[512];

			nng_aio_wait(jobs[i]);
			ck_assert_int_eq(nng_aio_result(jobs[i]), 0);
			reply = message_read(nng_aio_get_msg(jobs[i]), &body, &body_bytes);
			ck_assert_int_eq((int)reply.status, STATUS_ENOMODEL);
			ck_assert_int_eq(text_copy(reply.error, error, sizeof(error)), 0);
			snprintf(expected, sizeof(expected), "'model-%d-%d'", round, i);
			ck_assert_msg(strstr(error, expected), "%s is not in: %s", expected, error);
			nng_msg_free(nng_aio_get_msg(jobs[i]));
		}
	}
	for (int i = 0; i < COUNT; i++) {
		nng_aio_free(jobs[i]);
		nng_ctx_close(contexts[i]);
	}
	nng_close(socket);
}
END_TEST

/* A thousand requests in one write, and a thousand answers, each id once. */
START_TEST(answers_pipelined_frames)
{
	enum { COUNT = 1000 };
	struct request request = {.operation = OP_HELLO};
	static uint8_t frames[COUNT * 128];
	static bool answered[COUNT];
	uint8_t frame[64 + WIRE_FRAME_BYTES_MAX], reply[512], prefix[13];
	size_t used = 0;
	struct wire wire;

	memset(answered, 0, sizeof(answered));
	for (uint32_t i = 0; i < COUNT; i++) {
		size_t count = wire_frame(&request, NULL, 0, i, frame, sizeof(frame));

		memcpy(frames + used, frame, count);
		used += count;
	}
	ck_assert_int_eq(wire_open(&wire, harness.directory, false), 0);
	ck_assert_int_eq(wire_write(wire.fd, frames, used, CALL_MAX_MS), 0);
	for (int i = 0; i < COUNT; i++) {
		uint32_t id;

		ck_assert_int_eq(wire_read(wire.fd, prefix, sizeof(prefix), CALL_MAX_MS), 0);
		id = (uint32_t)prefix[10] << 16 | (uint32_t)prefix[11] << 8 | prefix[12];
		ck_assert_uint_lt(id, COUNT);
		ck_assert(!answered[id]);
		answered[id] = true;
		ck_assert_uint_lt(prefix[7], 2);
		ck_assert_int_eq(wire_read(wire.fd, reply, (size_t)prefix[7] * 256 + prefix[8] - 4, CALL_MAX_MS), 0);
	}
	wire_close(&wire);
}
END_TEST

/* ---- what is not the protocol ------------------------------------------------------------------------------------ */

START_TEST(survives_a_storm_of_connections)
{
	enum { COUNT = 500 };
	uint64_t seed = seed_take("connections");
	size_t before;

	still_serves();
	before = process_fd_count(harness.pid, "");
	for (int i = 0; i < COUNT; i++) {
		bool attach = i % 2;
		int fd = wire_dial(harness.directory, attach ? "attach.sock" : "emad.sock",
		                   attach ? SOCK_SEQPACKET : SOCK_STREAM);

		ck_assert_int_ge(fd, 0);
		/* Some say a little; a socket closed with unread bytes is a reset for the other side. */
		if (seed_next(&seed, 2))
			(void)wire_write(fd, wire_handshake, 1 + (size_t)seed_next(&seed, 8), 100);
		close(fd);
	}
	still_serves();
	for (int i = 0; i < 200 && process_fd_count(harness.pid, "") > before; i++)
		process_sleep_ms(10 * process_scale());
	ck_assert_uint_le(process_fd_count(harness.pid, ""), before);
}
END_TEST

#define BYTES(literal) literal, sizeof(literal) - 1
#define HANDSHAKE "\0SP\0\0\x30\0\0"
#define LENGTH(text) "\x01\0\0\0\0" text
#define ID "\x80\0\0\x01"

static const struct {
	const char *what, *bytes;
	size_t count;
} nonsense[] = {
	{"HTTP", BYTES("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
	{"SSH", BYTES("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")},
	{"TLS", BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a")},
	{"zeros", BYTES("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")},
	{"ones", BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")},
	{"wrong byte at once", BYTES("\x01")},
	{"a publisher", BYTES("\0SP\0\0\x20\0\0")},
	{"a rep socket", BYTES("\0SP\0\0\x31\0\0")},
	{"another version of SP", BYTES("\0SP\x01\0\x30\0\0")},
	{"reserved bytes", BYTES("\0SP\0\0\x30\0\x01")},
	{"wrong marker", BYTES(HANDSHAKE "\x02\0\0\0\0\0\0\0\x28" ID "\0\0\0\x20")},
	{"a length of 0", BYTES(HANDSHAKE LENGTH("\0\0\0\0"))},
	{"a length of 7", BYTES(HANDSHAKE LENGTH("\0\0\0\x07"))},
	{"the largest length", BYTES(HANDSHAKE "\x01\xff\xff\xff\xff\xff\xff\xff\xff")},
	{"a length of 4 GiB", BYTES(HANDSHAKE "\x01\0\0\0\x01\0\0\0\0" ID "\0\0\0\x20")},
	{"a body of 64 MiB and a byte", BYTES(HANDSHAKE LENGTH("\x04\0\0\x0a") ID "\0\0\0\x01\x80")},
	{"a header larger than the message", BYTES(HANDSHAKE LENGTH("\0\0\0\x08") ID "\0\0\0\x01")},
	{"a header over the limit", BYTES(HANDSHAKE LENGTH("\0\x02\0\0") ID "\0\x01\0\x01")},
	{"a header of 4 GiB", BYTES(HANDSHAKE LENGTH("\0\x02\0\0") ID "\xff\xff\xff\xff")},
	{"a backtrace without end",
	 BYTES(HANDSHAKE LENGTH("\0\0\0\x40") "\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05\0\0\0\x06\0\0\0\x07"
	                                      "\0\0\0\x08\0\0\0\x09")},
	{"a message that is all backtrace", BYTES(HANDSHAKE LENGTH("\0\0\0\x08") "\0\0\0\x01" ID)},
};

START_TEST(closes_what_is_not_the_protocol)
{
	int fd = wire_dial(harness.directory, "emad.sock", SOCK_STREAM);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(wire_write(fd, nonsense[_i].bytes, nonsense[_i].count, CALL_MAX_MS), 0);
	ck_assert_msg(wire_closes(fd, CLOSE_MAX_MS - 2000), "'%s' is still connected", nonsense[_i].what);
	close(fd);
	ck_assert_uint_eq(counter("violations"), 1);
	still_serves();
}
END_TEST

START_TEST(survives_random_bytes)
{
	enum { COUNT = 300 };
	uint64_t seed = seed_take("random bytes");
	uint8_t bytes[256];

	for (int i = 0; i < COUNT; i++) {
		int fd = wire_dial(harness.directory, "emad.sock", SOCK_STREAM);
		size_t count = 1 + (size_t)seed_next(&seed, sizeof(bytes));

		ck_assert_int_ge(fd, 0);
		for (size_t b = 0; b < count; b++)
			bytes[b] = (uint8_t)seed_next(&seed, 256);
		/* A third is let through the handshake, a third through the length too. */
		if (i % 3 > 0)
			(void)wire_write(fd, wire_handshake, sizeof(wire_handshake), 1000);
		if (i % 3 == 2)
			(void)wire_write(fd, "\x01\0\0\0\0\0\0\0\x80\x80\0\0\x01\0\0\0\x40", 17, 1000);
		(void)wire_write(fd, bytes, count, 1000);
		shutdown(fd, SHUT_WR);
		ck_assert(wire_closes(fd, CLOSE_MAX_MS));
		close(fd);
	}
	still_serves();
}
END_TEST

/* A whole valid conversation: handshake and the registration of a model. */
static size_t register_bytes(const char *model, uint8_t *bytes, size_t capacity)
{
	struct request request = wire_register(model, 9);
	size_t body_bytes, count;
	uint8_t *body = body_make(2, 10, &body_bytes);

	memcpy(bytes, wire_handshake, WIRE_HANDSHAKE_BYTES);
	count = wire_frame(&request, body, body_bytes, 1, bytes + WIRE_HANDSHAKE_BYTES, capacity - WIRE_HANDSHAKE_BYTES);
	free(body);
	return WIRE_HANDSHAKE_BYTES + count;
}

START_TEST(survives_every_prefix_of_a_registration)
{
	static uint8_t bytes[WIRE_FRAME_BYTES_MAX];
	size_t count = register_bytes("prefix", bytes, sizeof(bytes));

	for (size_t i = 0; i < count; i++) {
		int fd = wire_dial(harness.directory, "emad.sock", SOCK_STREAM);

		ck_assert_int_ge(fd, 0);
		(void)wire_write(fd, bytes, i, 1000);
		close(fd);
	}
	still_serves();
	ck_assert_uint_eq(counter("models"), 0);
	for (int i = 0; i < 2; i++) {
		int fd = wire_dial(harness.directory, "emad.sock", SOCK_STREAM);
		uint8_t reply[8 + 13];

		ck_assert_int_eq(wire_write(fd, bytes, count, 1000), 0);
		ck_assert_int_eq(wire_read(fd, reply, sizeof(reply), CALL_MAX_MS), 0);
		close(fd);
	}
	ck_assert_uint_eq(counter("models"), 1);
}
END_TEST

/* Some changes are harmless, some are other valid requests: all that counts is that the daemon lives on. */
START_TEST(survives_every_changed_byte_of_a_registration)
{
	static uint8_t bytes[WIRE_FRAME_BYTES_MAX];
	uint64_t seed = seed_take("changed bytes");
	size_t count = register_bytes("changed", bytes, sizeof(bytes));

	for (size_t i = WIRE_HANDSHAKE_BYTES; i < count; i++) {
		int fd = wire_dial(harness.directory, "emad.sock", SOCK_STREAM);
		uint8_t change = (uint8_t)(1 + seed_next(&seed, 255));

		ck_assert_int_ge(fd, 0);
		bytes[i] ^= change;
		(void)wire_write(fd, bytes, count, 1000);
		shutdown(fd, SHUT_WR);
		ck_assert(wire_closes(fd, CLOSE_MAX_MS));
		close(fd);
		bytes[i] ^= change;
	}
	still_serves();
}
END_TEST

/* ---- slow and greedy peers --------------------------------------------------------------------------------------- */

/* Sends bytes one at a time, one every 50 ms, until the daemon closes; how long that took. */
static long long dribble(const void *bytes, size_t count)
{
	int fd = wire_dial(harness.directory, "emad.sock", SOCK_STREAM);
	long long begin_ms = harness_now_ms(), took_ms;
	const uint8_t *next = bytes;

	ck_assert_int_ge(fd, 0);
	while (!wire_closes(fd, 50)) {
		ck_assert_int_lt(harness_now_ms() - begin_ms, CLOSE_MAX_MS);
		if (count == 0)
			continue;
		(void)wire_write(fd, next, 1, 100);
		next++;
		count--;
	}
	took_ms = harness_now_ms() - begin_ms;
	close(fd);
	return took_ms;
}

START_TEST(closes_slow_peers_at_the_deadline)
{
	static const struct {
		const char *bytes;
		size_t count;
	} slow[] = {
		{BYTES("")},                                          /* says nothing */
		{BYTES("\0SP\0")},                                    /* half a handshake */
		{BYTES(HANDSHAKE)},                                   /* dribbles it: that is half as well */
		{BYTES(HANDSHAKE LENGTH("\0\0\0\x80") ID "\0\0\0\x40")}, /* half a message */
	};
	static uint8_t bytes[4096];
	long long took_ms;

	daemon_configure("[limits]\nhandshake-timeout=300ms\nmessage-timeout=300ms\n");
	for (size_t i = 0; i < sizeof(slow) / sizeof(slow[0]); i++) {
		took_ms = dribble(slow[i].bytes, slow[i].count);
		ck_assert_int_ge(took_ms, 250);
		ck_assert_int_le(took_ms, 300 + 1000 * process_scale());
	}
	/* A quick handshake, then a message byte by byte: each arrives in time, the whole does not. */
	for (int i = 0; i < 2; i++) {
		int fd = wire_dial(harness.directory, "emad.sock", SOCK_STREAM);
		long long begin_ms = harness_now_ms();

		register_bytes("slow", bytes, sizeof(bytes));
		ck_assert_int_eq(wire_write(fd, bytes, WIRE_HANDSHAKE_BYTES, 1000), 0);
		for (size_t at = WIRE_HANDSHAKE_BYTES; wire_write(fd, bytes + at, 1, 100) == 0; at++) {
			ck_assert_uint_lt(at, 60);
			process_sleep_ms(20);
		}
		ck_assert_int_ge(harness_now_ms() - begin_ms, 250);
		close(fd);
	}
	ck_assert_uint_ge(counter("violations"), 6);
}
END_TEST

START_TEST(lets_patient_and_busy_peers_live)
{
	enum { WITHIN_MS = 300, FRAME_COUNT = 40 };
	struct request request = {.operation = OP_HELLO};
	static uint8_t frames[FRAME_COUNT * 64 + 5], frame[WIRE_FRAME_BYTES_MAX];
	struct wire idle[2], busy;
	size_t used = 0;
	long long end_ms;

	daemon_configure("[limits]\nhandshake-timeout=300ms\nmessage-timeout=300ms\n");
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(wire_open(&idle[i], harness.directory, i), 0);
	ck_assert_int_eq(wire_open(&busy, harness.directory, false), 0);
	for (uint32_t i = 0; i < FRAME_COUNT; i++) {
		size_t count = wire_frame(&request, NULL, 0, i, frame, sizeof(frame));

		memcpy(frames + used, frame, count);
		used += count;
	}
	/* Every write ends in the middle of a message, so that one is always under way: none of them is slow. */
	memcpy(frames + used, frames, 5);
	end_ms = harness_now_ms() + 5 * WITHIN_MS;
	ck_assert_int_eq(wire_write(busy.fd, frames, 5, 1000), 0);
	while (harness_now_ms() < end_ms) {
		char waste[65536];

		ck_assert_int_eq(wire_write(busy.fd, frames + 5, used, 1000), 0);
		process_sleep_ms(10);
		while (recv(busy.fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
			;
	}
	ck_assert_int_eq(wire_write(busy.fd, frames + 5, used - 5, 1000), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(ask_hello(&idle[i]), 0);
		wire_close(&idle[i]);
	}
	wire_close(&busy);
	ck_assert_uint_eq(counter("violations"), 0);
}
END_TEST

static uint64_t daemon_memory_kib(void)
{
	return process_memory_kib(harness.pid, "VmRSS");
}

START_TEST(bounds_what_a_peer_that_never_reads_costs)
{
	enum { MOST_KIB = 48 * 1024, TENSOR_COUNT = 3000 };
	struct request request = {.operation = OP_SHOW};
	static uint8_t frame[WIRE_FRAME_BYTES_MAX];
	struct wire greedy, other;
	uint64_t before;
	size_t count;
	long long end_ms;

	ck_assert_int_eq(wire_open(&other, harness.directory, false), 0);
	model_register(&other, "big", TENSOR_COUNT, 1);
	request_set(&request, model, text_of("big"));
	ck_assert_int_eq(wire_call(&other, &request, NULL, 0, CALL_MAX_MS), 0);
	ck_assert_uint_gt(other.body_bytes, 200000);
	before = daemon_memory_kib();

	ck_assert_int_eq(wire_open(&greedy, harness.directory, false), 0);
	count = wire_frame(&request, NULL, 0, 1, frame, sizeof(frame));
	end_ms = harness_now_ms() + 1000;
	while (harness_now_ms() < end_ms) {
		if (wire_write(greedy.fd, frame, count, 10) != 0)
			break;
	}
	for (int i = 0; i < 10; i++) {
		ck_assert_int_eq(ask_hello(&other), 0);
		ck_assert_uint_lt(daemon_memory_kib() - before, MOST_KIB * (unsigned)process_scale());
	}
	wire_close(&greedy);
	wire_close(&other);
	still_serves();
}
END_TEST

/* Sends as much as the daemon takes of a body that never ends. */
static void bodies_feed(const int *fds, int fd_count, uint64_t *sent, long long end_ms)
{
	static const uint8_t bytes[1024 * 1024];

	while (harness_now_ms() < end_ms) {
		for (int i = 0; i < fd_count; i++) {
			ssize_t count = sent[i] > 60 * sizeof(bytes) ? 0
			                                            : send(fds[i], bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);

			sent[i] += count > 0 ? (uint64_t)count : 0;
		}
	}
}

START_TEST(bounds_what_many_large_bodies_cost)
{
	enum { PEER_COUNT = 200, MOST_KIB = 256 * 1024 };
	static const char announcement[] = HANDSHAKE LENGTH("\x04\0\0\x09") ID "\0\0\0\x01\x80";
	uint64_t before, sent[PEER_COUNT] = {0};
	int fds[PEER_COUNT];
	struct wire wire;

	ck_assert_int_eq(wire_open(&wire, harness.directory, false), 0);
	ck_assert_int_eq(ask_hello(&wire), 0);
	before = daemon_memory_kib();
	for (int i = 0; i < PEER_COUNT; i++) {
		fds[i] = wire_dial(harness.directory, "emad.sock", SOCK_STREAM);
		ck_assert_int_ge(fds[i], 0);
		ck_assert_int_eq(wire_write(fds[i], announcement, sizeof(announcement) - 1, CALL_MAX_MS), 0);
	}
	for (int i = 0; i < 3; i++) {
		bodies_feed(fds, PEER_COUNT, sent, harness_now_ms() + 300 * process_scale());
		ck_assert_uint_lt(daemon_memory_kib() - before, MOST_KIB * (unsigned)process_scale());
		ck_assert_int_eq(ask_hello(&wire), 0);
	}
	/* Whoever has little to say does not wait behind those. */
	model_register(&wire, "small", 100, 10);
	wire_close(&wire);
	for (int i = 0; i < PEER_COUNT; i++)
		close(fds[i]);
	still_serves();
}
END_TEST

/* Bodies of honest size that together are over what may be under way at once all come through, one after the other. */
START_TEST(takes_large_bodies_in_turn)
{
	enum { PEER_COUNT = 6, BODY_BYTES = 40 * 1024 * 1024 };
	struct request request = wire_register("turn", 5);
	uint8_t *frame = malloc(WIRE_FRAME_BYTES_MAX + BODY_BYTES), *body = calloc(1, BODY_BYTES);
	size_t count, sent[PEER_COUNT] = {0};
	struct wire wires[PEER_COUNT];
	long long deadline_ms = harness_now_ms() + CALL_MAX_MS * process_scale();
	int left = PEER_COUNT;

	ck_assert_ptr_nonnull(frame);
	ck_assert_ptr_nonnull(body);
	count = wire_frame(&request, body, BODY_BYTES, 1, frame, WIRE_FRAME_BYTES_MAX + BODY_BYTES);
	for (int i = 0; i < PEER_COUNT; i++)
		ck_assert_int_eq(wire_open(&wires[i], harness.directory, false), 0);
	while (left > 0) {
		ck_assert_int_lt(harness_now_ms(), deadline_ms);
		left = 0;
		for (int i = 0; i < PEER_COUNT; i++) {
			ssize_t got = send(wires[i].fd, frame + sent[i], count - sent[i], MSG_DONTWAIT | MSG_NOSIGNAL);

			ck_assert(got >= 0 || errno == EAGAIN);
			sent[i] += got > 0 ? (size_t)got : 0;
			left += sent[i] < count;
		}
	}
	for (int i = 0; i < PEER_COUNT; i++) {
		/* 40 MiB of the number 0 are no manifest, but they are a message, and are answered. */
		ck_assert_int_eq(wire_hear(&wires[i], CALL_MAX_MS * process_scale()), STATUS_EPROTOCOL);
		wire_close(&wires[i]);
	}
	free(frame);
	free(body);
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------ */

START_TEST(refuses_connections_over_the_limit)
{
	enum { MOST = 8 };
	struct wire wires[2][MOST];
	struct wire more;

	daemon_configure("[limits]\nconnections-max=8\n");
	for (int attach = 0; attach < 2; attach++) {
		for (int i = 0; i < MOST; i++) {
			ck_assert_int_eq(wire_open(&wires[attach][i], harness.directory, attach), 0);
			ck_assert_int_eq(ask_hello(&wires[attach][i]), 0);
		}
		/* The attach socket has no handshake in which to notice. */
		if (wire_open(&more, harness.directory, attach) == 0) {
			ck_assert_int_ne(ask_hello(&more), 0);
			wire_close(&more);
		}
		ck_assert_int_eq(ask_hello(&wires[attach][0]), 0);
	}
	for (int attach = 0; attach < 2; attach++)
		for (int i = 0; i < MOST; i++)
			wire_close(&wires[attach][i]);
	for (int i = 0; i < 100 && wire_open(&more, harness.directory, false) != 0; i++)
		process_sleep_ms(20);
	wire_close(&more);
	process_sleep_ms(50);
	ck_assert_uint_ge(counter("connections_refused"), 2);
	still_serves();
}
END_TEST

START_TEST(refuses_to_let_more_wait_than_the_limit)
{
	enum { MOST = 5 };
	struct request request;
	struct wire wires[MOST], more;
	uint64_t epoch;
	char error[512];

	daemon_configure("[limits]\nwaiting-max=5\n");
	ck_assert_int_eq(wire_open(&more, harness.directory, false), 0);
	epoch = model_register(&more, "waits", 1, 10);
	ck_assert_uint_gt(epoch, 0);
	wire_close(&more);
	request = view_request("waits", 1, 60000);
	for (int i = 0; i < MOST; i++) {
		ck_assert_int_eq(wire_open(&wires[i], harness.directory, true), 0);
		ck_assert_int_eq(wire_ask(&wires[i], &request, NULL, 0, 1000), 0);
	}
	for (int i = 0; i < 500 && counter("waiting") < MOST; i++)
		process_sleep_ms(10);
	ck_assert_int_eq(wire_open(&more, harness.directory, true), 0);
	ck_assert_int_eq(wire_call(&more, &request, NULL, 0, CALL_MAX_MS), STATUS_EBUSY);
	ck_assert_int_eq(text_copy(more.reply.error, error, sizeof(error)), 0);
	ck_assert_msg(strstr(error, "5 requests") && strstr(error, "waiting-max"), "%s", error);
	/* Who goes makes room. */
	wire_close(&wires[0]);
	for (int i = 0; i < 500 && counter("waiting") == MOST; i++)
		process_sleep_ms(10);
	ck_assert_int_eq(wire_ask(&more, &request, NULL, 0, 1000), 0);
	for (int i = 0; i < 500 && counter("waiting") < MOST; i++)
		process_sleep_ms(10);
	ck_assert_uint_eq(counter("waiting"), MOST);
	for (int i = 1; i < MOST; i++)
		wire_close(&wires[i]);
	wire_close(&more);
}
END_TEST

static void descriptors_limit(rlim_t most)
{
	const struct rlimit limit = {.rlim_cur = most, .rlim_max = 4096};

	ck_assert_int_eq(prlimit(harness.pid, RLIMIT_NOFILE, &limit, NULL), 0);
}

START_TEST(runs_out_of_descriptors_and_recovers)
{
	enum { SPARE = 10, PEER_COUNT = 40 };
	struct request view = view_request("before", 5, 60000), attach = {.operation = OP_ATTACH};
	struct wire trainer, reader, claim, late;
	int fds[2 * PEER_COUNT];
	uint64_t epoch, cpu_ms;
	size_t before;

	ck_assert_int_eq(wire_open(&trainer, harness.directory, false), 0);
	epoch = model_register(&trainer, "before", 1, 1000);
	ck_assert_int_eq(wire_open(&claim, harness.directory, true), 0);
	ck_assert_int_eq(wire_open(&reader, harness.directory, true), 0);
	ck_assert_int_eq(wire_ask(&reader, &view, NULL, 0, 1000), 0);
	for (int i = 0; i < 500 && counter("waiting") < 1; i++)
		process_sleep_ms(10);

	process_sleep_ms(50);
	before = process_fd_count(harness.pid, "");
	descriptors_limit(before + SPARE);
	for (int i = 0; i < PEER_COUNT; i++) {
		fds[2 * i] = wire_dial(harness.directory, "emad.sock", SOCK_STREAM);
		fds[2 * i + 1] = wire_dial(harness.directory, "attach.sock", SOCK_SEQPACKET);
	}
	/* It does not try without a pause, and serves whom it has. */
	process_sleep_ms(200);
	cpu_ms = process_cpu_ms(harness.pid);
	process_sleep_ms(1000);
	ck_assert_uint_lt(process_cpu_ms(harness.pid) - cpu_ms, 300);
	ck_assert_int_eq(ask_hello(&trainer), 0);
	/* Memory cannot be had now: who asked is told, others who wait for the same model are not disturbed. */
	request_set(&attach, model, text_of("before"));
	request_set(&attach, rank, 0);
	request_set(&attach, epoch, epoch);
	ck_assert_int_lt(wire_call(&claim, &attach, NULL, 0, CALL_MAX_MS), 0);
	ck_assert_int_eq(poll(&(struct pollfd){.fd = reader.fd, .events = POLLIN}, 1, 100), 0);

	for (int i = 0; i < 2 * PEER_COUNT; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	/* Those that waited to be accepted come and go first. */
	for (int n = 0; n < CLOSE_MAX_MS / 10 && process_fd_count(harness.pid, "") > before; n++)
		process_sleep_ms(10);
	process_sleep_ms(300);
	ck_assert_int_eq(wire_open(&late, harness.directory, false), 0);
	ck_assert_int_eq(ask_hello(&late), 0);
	wire_close(&late);
	ck_assert_int_eq(wire_open(&late, harness.directory, true), 0);
	model_attach(&late, "before", epoch);
	for (uint64_t step = 1; step <= 5; step++) {
		struct request push = push_request("before", epoch, step + 1, step);

		ck_assert_int_eq(wire_call(&trainer, &push, NULL, 0, CALL_MAX_MS), 0);
	}
	ck_assert_int_eq(wire_hear(&reader, CALL_MAX_MS), 0);
	ck_assert_uint_eq(reader.reply.step, 5);
	close(reader.passed);
	wire_close(&late);
	wire_close(&claim);
	wire_close(&reader);
	wire_close(&trainer);
}
END_TEST

/* ---- the attach socket ------------------------------------------------------------------------------------------- */

START_TEST(closes_attach_peers_that_talk_nonsense)
{
	enum { COUNT = 60, DATAGRAM_BYTES = 70000 };
	static const size_t sizes[] = {1, 3, 4, 5, 100, 4096, 65540, 65541, DATAGRAM_BYTES};
	static uint8_t bytes[DATAGRAM_BYTES];
	uint64_t seed = seed_take("datagrams");

	for (int i = 0; i < COUNT; i++) {
		int fd = wire_dial(harness.directory, "attach.sock", SOCK_SEQPACKET);
		size_t count = sizes[(size_t)i % (sizeof(sizes) / sizeof(sizes[0]))];

		ck_assert_int_ge(fd, 0);
		for (size_t b = 0; b < count; b++)
			bytes[b] = (uint8_t)(seed_next(&seed, 256) | (b < 4 ? 0x80 : 0));
		ck_assert_int_eq(wire_write(fd, bytes, count, 1000), 0);
		ck_assert(wire_closes(fd, CLOSE_MAX_MS - 2000));
		close(fd);
	}
	ck_assert_uint_eq(counter("violations"), COUNT);
	still_serves();
}
END_TEST

/* A header that is none, in a datagram that is one, is answered like one on the other socket. */
START_TEST(answers_a_datagram_that_is_no_request)
{
	static const struct {
		const char *bytes;
		size_t count;
		int status;
	} datagrams[] = {
		{BYTES("\0\0\0\0"), STATUS_EPROTOCOL},
		{BYTES("\0\0\0\x01\xc1"), STATUS_EPROTOCOL},
		{BYTES("\0\0\0\x01\x80"), STATUS_EPROTOCOL},
		{BYTES("\0\0\0\x01\x80 and a body"), STATUS_EPROTOCOL},
		{BYTES("\0\0\0\x0c\x82\xa2op\xa4what\xa1v\x01"), STATUS_EPROTOCOL},
		{BYTES("\0\0\0\x0d\x82\xa2op\xa5hello\xa1v\x02"), STATUS_EVERSION},
		{BYTES("\0\0\0\x05\xdd\x20\0\0\0"), STATUS_EPROTOCOL},
	};

	for (int attach = 0; attach < 2; attach++) {
		struct wire wire;

		ck_assert_int_eq(wire_open(&wire, harness.directory, attach), 0);
		for (size_t i = 0; i < sizeof(datagrams) / sizeof(datagrams[0]); i++) {
			uint8_t prefix[13] = {1, 0, 0, 0, 0, 0, 0, 0, (uint8_t)(4 + datagrams[i].count), 0x80};

			if (!attach)
				ck_assert_int_eq(wire_write(wire.fd, prefix, sizeof(prefix), 1000), 0);
			ck_assert_int_eq(wire_write(wire.fd, datagrams[i].bytes, datagrams[i].count, 1000), 0);
			ck_assert_int_eq(wire_hear(&wire, CALL_MAX_MS), datagrams[i].status);
			ck_assert_uint_gt(wire.reply.error.count, 10);
		}
		ck_assert_int_eq(ask_hello(&wire), 0);
		wire_close(&wire);
	}
}
END_TEST

/* Every operation, with what it requires and little sense, on both sockets. */
START_TEST(answers_every_operation_on_every_socket)
{
	for (int round = 0; round < 4; round++) {
		bool attach = round % 2;
		struct wire wire;

		ck_assert_int_eq(wire_open(&wire, harness.directory, attach), 0);
		if (round >= 2)
			model_register(&wire, "anything", 1, 10);
		for (int operation = 0; operation < OPERATION_COUNT; operation++) {
			struct request request = {.operation = (enum operation)operation};
			int status;

			request.model = text_of("anything");
			request.resume = text_of("auto");
			request.attributes = text_of("{}");
			request.profiles.count = 1;
			request.profiles.items[0] = text_of("ema=yolo");
			request.client = request.sequence = request.epoch = request.world = request.step = 1;
			request.present = message_operations[operation].required;
			status = wire_call(&wire, &request, NULL, 0, CALL_MAX_MS);
			ck_assert_msg(status == 0 || status <= -10001, "%s on the %s socket: %d", message_operations[operation].name,
			              attach ? "attach" : "NNG", status);
			if (message_operations[operation].needs_attach && !attach)
				ck_assert_int_eq(status, STATUS_EARGUMENT);
			if (wire.passed >= 0)
				close(wire.passed);
		}
		wire_close(&wire);
	}
	still_serves();
}
END_TEST

/* A pipe's writing end that a client sends along: the reading end says when the last copy is closed. */
START_TEST(closes_descriptors_that_clients_send)
{
	enum { COUNT = 8 };
	struct request request = {.operation = OP_HELLO};
	static uint8_t frame[WIRE_FRAME_BYTES_MAX];
	size_t count = wire_frame(&request, NULL, 0, 1, frame, sizeof(frame)), before = process_fd_count(harness.pid, "");

	for (int attach = 0; attach < 2; attach++) {
		union {
			struct cmsghdr header;
			char bytes[CMSG_SPACE(COUNT * sizeof(int))];
		} control = {.header = {
			.cmsg_len = CMSG_LEN(COUNT * sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		}};
		struct iovec part = {.iov_base = frame + (attach ? 13 : 0), .iov_len = count - (attach ? 13 : 0)};
		struct msghdr message = {
			.msg_iov = &part,
			.msg_iovlen = 1,
			.msg_control = &control,
			.msg_controllen = sizeof(control),
		};
		struct wire wire;
		int ends[2];
		char byte;

		ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
		for (int i = 0; i < COUNT; i++)
			memcpy(CMSG_DATA(&control.header) + (size_t)i * sizeof(int), &ends[1], sizeof(int));
		ck_assert_int_eq(wire_open(&wire, harness.directory, attach), 0);
		ck_assert_int_eq((int)sendmsg(wire.fd, &message, MSG_NOSIGNAL), (int)part.iov_len);
		close(ends[1]);
		ck_assert_int_eq(wire_hear(&wire, CALL_MAX_MS), 0);
		ck_assert_int_eq(poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, CLOSE_MAX_MS), 1);
		ck_assert_int_eq((int)read(ends[0], &byte, 1), 0);
		/* The connection before may still be going. */
		for (int n = 0; process_fd_count(harness.pid, "") > before + 1; n++) {
			ck_assert_int_lt(n, CLOSE_MAX_MS / 10);
			process_sleep_ms(10);
		}
		close(ends[0]);
		wire_close(&wire);
	}
}
END_TEST

/* How many answers fit into a peer's buffer that is never read: one more than that closes the connection. */
static int answers_that_fit(void)
{
	struct request request = {.operation = OP_HELLO};
	struct wire wire;
	int count = 0;

	ck_assert_int_eq(wire_open(&wire, harness.directory, true), 0);
	while (wire_ask(&wire, &request, NULL, 0, 1000) == 0) {
		struct pollfd poller = {.fd = wire.fd, .events = POLLRDHUP};

		ck_assert_int_lt(++count, 100000);
		/* One at a time: requests that pile up would be answered after the one that closes. */
		process_sleep_ms(count % 16 == 0 ? 1 : 0);
		if (poll(&poller, 1, 0) > 0 && poller.revents & (POLLRDHUP | POLLHUP))
			break;
	}
	wire_close(&wire);
	return count;
}

/*
 * A reader waits for a version, and its buffer is full when the version comes: the daemon can only close the
 * connection, in the middle of answering the request that waited.
 */
START_TEST(survives_a_waiting_reader_whose_buffer_is_full)
{
	enum { READER_COUNT = 24 };
	struct request hello = {.operation = OP_HELLO}, view = view_request("full", 2, 60000), push;
	struct wire trainer, claim, readers[READER_COUNT];
	int fit = answers_that_fit();
	uint64_t epoch;

	ck_assert_int_eq(wire_open(&trainer, harness.directory, false), 0);
	epoch = model_register(&trainer, "full", 1, 1000);
	ck_assert_int_eq(wire_open(&claim, harness.directory, true), 0);
	model_attach(&claim, "full", epoch);
	for (int i = 0; i < READER_COUNT; i++) {
		ck_assert_int_eq(wire_open(&readers[i], harness.directory, true), 0);
		ck_assert_int_eq(wire_ask(&readers[i], &view, NULL, 0, 1000), 0);
		/* Around the last that fits, since the answers differ in size. */
		for (int n = 0; n < fit - READER_COUNT / 2 + i && wire_ask(&readers[i], &hello, NULL, 0, 1000) == 0; n++)
			;
	}
	ck_assert_int_eq(ask_hello(&trainer), 0);
	for (uint64_t step = 1; step <= 3; step++) {
		push = push_request("full", epoch, step + 1, step);
		ck_assert_int_eq(wire_call(&trainer, &push, NULL, 0, CALL_MAX_MS), 0);
	}
	for (int i = 0; i < READER_COUNT; i++)
		wire_close(&readers[i]);
	wire_close(&claim);
	wire_close(&trainer);
	still_serves();
	for (int i = 0; i < 500 && counter("waiting") > 0; i++)
		process_sleep_ms(10);
	ck_assert_uint_eq(counter("waiting"), 0);
}
END_TEST

/* ---- the suite --------------------------------------------------------------------------------------------------- */

static Suite *wire_suite(void)
{
	Suite *suite = suite_create("wire");
	TCase *cases = tcase_create("wire");

	tcase_add_checked_fixture(cases, daemon_open, daemon_close);
	tcase_add_test(cases, answers_a_stock_req_socket);
	tcase_add_test(cases, answers_pipelined_contexts);
	tcase_add_test(cases, answers_pipelined_frames);
	tcase_add_test(cases, survives_a_storm_of_connections);
	tcase_add_loop_test(cases, closes_what_is_not_the_protocol, 0, sizeof(nonsense) / sizeof(nonsense[0]));
	tcase_add_test(cases, survives_random_bytes);
	tcase_add_test(cases, survives_every_prefix_of_a_registration);
	tcase_add_test(cases, survives_every_changed_byte_of_a_registration);
	tcase_add_test(cases, closes_slow_peers_at_the_deadline);
	tcase_add_test(cases, lets_patient_and_busy_peers_live);
	tcase_add_test(cases, bounds_what_a_peer_that_never_reads_costs);
	tcase_add_test(cases, bounds_what_many_large_bodies_cost);
	tcase_add_test(cases, takes_large_bodies_in_turn);
	tcase_add_test(cases, refuses_connections_over_the_limit);
	tcase_add_test(cases, refuses_to_let_more_wait_than_the_limit);
	tcase_add_test(cases, runs_out_of_descriptors_and_recovers);
	tcase_add_test(cases, closes_attach_peers_that_talk_nonsense);
	tcase_add_test(cases, answers_a_datagram_that_is_no_request);
	tcase_add_test(cases, answers_every_operation_on_every_socket);
	tcase_add_test(cases, closes_descriptors_that_clients_send);
	tcase_add_test(cases, survives_a_waiting_reader_whose_buffer_is_full);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(wire_suite());
	int failed;

	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
