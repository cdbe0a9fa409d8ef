/*
 * The link where names are looked up slowly (NNG's own getaddrinfo is the one below, which takes its time), and where
 * answers come in pieces, or are none.
 */
#include "client/link.h"

#include "client/wait.h"
#include "proto/sp.h"

#include <check.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static _Atomic unsigned lookups;

/* Now and then as long as the deadlines below, so that they pass before it, within it and behind it. */
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **results)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	struct timespec pause = {.tv_nsec = atomic_fetch_add(&lookups, 1) % 16 * 100000L};

	*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	nanosleep(&pause, NULL);
	return real(host, service, hints, results);
}

/* Nobody speaks there, but connections come about. */
static int listen_somewhere(char *url, size_t capacity)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t bytes = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, bytes), 0);
	ck_assert_int_eq(listen(fd, 4096), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
	snprintf(url, capacity, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
	return fd;
}

/* What a deadline has left behind is still under way in NNG when the next attempt begins. */
START_TEST(goes_on_after_deadlines_that_pass_while_a_name_is_looked_up)
{
	enum { ATTEMPT_COUNT = 1500 };
	char url[64];
	int fd = listen_somewhere(url, sizeof(url));
	const struct link_options options = {.url = url};
	struct reason reason = {.text = ""};
	unsigned late = 0, before;
	struct link *link;

	ck_assert_int_eq(link_open(&options, &link, &reason), 0);
	for (int i = 0; i < ATTEMPT_COUNT; i++) {
		int code = link_wait(link, wait_now_ms() + 1, &reason);

		ck_assert_msg(code == STATUS_ETIMEOUT || code == STATUS_EAWAY, "%d: %s", code, reason.text);
		late += code == STATUS_ETIMEOUT;
	}
	/* Afterwards as before: a name is looked up, and there is a connection on which nobody answers. */
	before = atomic_load(&lookups);
	ck_assert_int_eq(link_wait(link, wait_now_ms() + 200, &reason), STATUS_ETIMEOUT);
	ck_assert_msg(strstr(reason.text, "takes connections but did not answer in time"), "%s", reason.text);
	ck_assert_uint_gt(atomic_load(&lookups), before);
	ck_assert_uint_gt(late, ATTEMPT_COUNT / 2);
	link_close(link);
	close(fd);
}
END_TEST

/* ---- answers ---------------------------------------------------------------------------------------------------- */

enum { HEAD_BYTES = 4 + 5, BODY_BYTES = 20000, WHOLE_BYTES = HEAD_BYTES + BODY_BYTES };

/* A peer that answers each connection's first request, and hangs up. */
struct peer {
	int fd;
	size_t piece_bytes;   /* sent at a time */
	size_t message_bytes; /* that are sent, from the whole message */
	size_t claimed_bytes; /* that the length in front says */
	bool is_other;        /* the answer is to another request */
	unsigned broken;      /* connections that end in the middle, before one that does not */
	uint8_t whole[WHOLE_BYTES + 1];
};

static void peer_send(int fd, const uint8_t *bytes, size_t count, size_t piece_bytes)
{
	for (size_t at = 0; at < count; at += piece_bytes) {
		size_t piece = count - at < piece_bytes ? count - at : piece_bytes;

		if (send(fd, bytes + at, piece, MSG_NOSIGNAL) != (ssize_t)piece)
			return; /* the link has seen enough */
	}
}

static void peer_answer(const struct peer *peer, int fd, bool breaks)
{
	static const uint8_t request_bytes = SP_HANDSHAKE_BYTES + 8 + SP_ID_BYTES + 3;
	uint8_t handshake[SP_HANDSHAKE_BYTES], request[64], answer[SP_PREFIX_BYTES_MAX + WHOLE_BYTES + 1];
	size_t prefix_bytes, count;

	sp_handshake(SP_ROLE_REP, handshake);
	peer_send(fd, handshake, sizeof(handshake), sizeof(handshake));
	ck_assert_int_eq(recv(fd, request, request_bytes, MSG_WAITALL), request_bytes);
	request[SP_HANDSHAKE_BYTES + 8 + SP_ID_BYTES - 1] ^= peer->is_other;
	prefix_bytes = sp_prefix(SP_WIRE_TCP, request + SP_HANDSHAKE_BYTES + 8, SP_ID_BYTES, peer->claimed_bytes, answer);
	memcpy(answer + prefix_bytes, peer->whole, peer->message_bytes);
	count = prefix_bytes + peer->message_bytes;
	peer_send(fd, answer, breaks ? count - 1 : count, peer->piece_bytes);
}

static void *peer_run(void *argument)
{
	struct peer *peer = argument;
	bool breaks;

	do {
		int one = 1, fd = accept(peer->fd, NULL, NULL);

		ck_assert_int_ge(fd, 0);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		breaks = peer->broken > 0;
		peer->broken -= breaks;
		peer_answer(peer, fd, breaks);
		shutdown(fd, SHUT_WR);
		/* Until the link hangs up too, or it would lose what it has not read. */
		while (!breaks && recv(fd, &one, sizeof(one), 0) > 0)
			continue;
		close(fd);
	} while (breaks);
	return NULL;
}

/* One call, whose body of place_bytes has a place. Its code; the answer is judged. */
static int call_peer(struct peer *peer, size_t place_bytes)
{
	static const uint8_t head[] = {0, 0, 0};
	uint8_t place[WHOLE_BYTES] = {0};
	const struct link_request request = {.head = head, .head_bytes = sizeof(head), .place = place,
	                                     .place_bytes = place_bytes};
	struct link_answer answer = {.bytes = NULL};
	struct reason reason = {.text = ""};
	pthread_t thread;
	struct link *link;
	char url[64];
	int code;

	peer->fd = listen_somewhere(url, sizeof(url));
	for (size_t i = 0; i < sizeof(peer->whole); i++)
		peer->whole[i] = (uint8_t)(i < 4 ? (i == 3 ? HEAD_BYTES - 4 : 0) : i * 31 % 251);
	ck_assert_int_eq(pthread_create(&thread, NULL, peer_run, peer), 0);
	ck_assert_int_eq(link_open(&(struct link_options){.url = url}, &link, &reason), 0);
	code = link_call(link, &request, wait_now_ms() + 10000, &answer, &reason);
	link_close(link);
	pthread_join(thread, NULL);
	close(peer->fd);
	if (code)
		return code;
	ck_assert_int_eq(answer.is_placed, place_bytes == BODY_BYTES);
	ck_assert_uint_eq(answer.count, answer.is_placed ? HEAD_BYTES : WHOLE_BYTES);
	ck_assert_mem_eq(answer.bytes, peer->whole, answer.count);
	if (answer.is_placed)
		ck_assert_mem_eq(place, peer->whole + HEAD_BYTES, BODY_BYTES);
	free(answer.bytes);
	return 0;
}

START_TEST(puts_a_body_in_its_place_however_it_comes)
{
	const size_t pieces[] = {WHOLE_BYTES * 2, 1, 7, 11, 12, 13, 16, 17, 20, 21, 22, 4095, 4096, 4097};

	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		struct peer peer = {.piece_bytes = pieces[i], .message_bytes = WHOLE_BYTES, .claimed_bytes = WHOLE_BYTES};

		ck_assert_int_eq(call_peer(&peer, BODY_BYTES), 0);
		ck_assert_int_eq(call_peer(&peer, BODY_BYTES - 1), 0);
		ck_assert_int_eq(call_peer(&peer, BODY_BYTES + 1), 0);
	}
}
END_TEST

START_TEST(asks_again_where_an_answer_ends_in_the_middle)
{
	struct peer peer = {.piece_bytes = WHOLE_BYTES, .message_bytes = WHOLE_BYTES, .claimed_bytes = WHOLE_BYTES, .broken = 2};

	ck_assert_int_eq(call_peer(&peer, BODY_BYTES), 0);
	ck_assert_uint_eq(peer.broken, 0);
}
END_TEST

START_TEST(takes_nothing_that_is_not_an_answer_to_its_request)
{
	struct peer other = {.piece_bytes = 64, .message_bytes = WHOLE_BYTES, .claimed_bytes = WHOLE_BYTES, .is_other = true};
	struct peer surplus = {.piece_bytes = 64, .message_bytes = HEAD_BYTES + 1, .claimed_bytes = HEAD_BYTES};
	struct peer tiny = {.piece_bytes = 64, .message_bytes = 3, .claimed_bytes = 3};
	struct peer huge = {.piece_bytes = 64, .message_bytes = 64, .claimed_bytes = UINT64_MAX / 2};

	ck_assert_int_eq(call_peer(&other, BODY_BYTES), STATUS_EPROTOCOL);
	ck_assert_int_eq(call_peer(&surplus, BODY_BYTES), STATUS_EPROTOCOL);
	ck_assert_int_eq(call_peer(&tiny, BODY_BYTES), STATUS_EPROTOCOL);
	ck_assert_int_eq(call_peer(&huge, BODY_BYTES), STATUS_EPROTOCOL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("link");
	TCase *tests = tcase_create("names"), *answers = tcase_create("answers");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, goes_on_after_deadlines_that_pass_while_a_name_is_looked_up);
	suite_add_tcase(suite, tests);
	tcase_set_timeout(answers, 60);
	tcase_add_test(answers, puts_a_body_in_its_place_however_it_comes);
	tcase_add_test(answers, asks_again_where_an_answer_ends_in_the_middle);
	tcase_add_test(answers, takes_nothing_that_is_not_an_answer_to_its_request);
	suite_add_tcase(suite, answers);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_VERBOSE);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
