/*
 * The SP framing: whatever the pieces in which a stream arrives, the same requests come out; whatever is not the
 * protocol is refused at the first byte that shows it, and stays refused.
 */
#include "proto/sp.h"

#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define B(literal) (const uint8_t *)(literal), sizeof(literal) - 1
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

enum { STREAM_ROOM = 512 * 1024, BODY_ROOM = 256 * 1024, BODY_BYTES_MAX = 200000 };

/* A stream in the making. */
struct stream {
	enum sp_wire wire;
	size_t count;
	uint8_t bytes[STREAM_ROOM];
};

/* What came out of a parser: every request's parts one behind the other, and how it ended. */
struct outcome_log {
	size_t request_count;
	size_t count;
	enum sp_event last;
	struct reason reason;
	size_t fed; /* bytes that were taken before it ended */
	uint8_t bytes[STREAM_ROOM];
};

static void stream_put(struct stream *stream, const void *bytes, size_t count)
{
	/* Not ck_assert: Check writes to a pipe at each, and this runs for single bytes. */
	if (stream->count + count > STREAM_ROOM)
		ck_abort_msg("the stream has no room for %zu bytes", count);
	memcpy(stream->bytes + stream->count, bytes, count);
	stream->count += count;
}

static void stream_put_number(struct stream *stream, uint64_t number, int bytes)
{
	for (int i = bytes - 1; i >= 0; i--) {
		uint8_t byte = (uint8_t)(number >> (8 * i));

		stream_put(stream, &byte, 1);
	}
}

static void stream_begin(struct stream *stream, enum sp_wire wire)
{
	stream->wire = wire;
	stream->count = 0;
	stream_put(stream, "\0SP\0\0\x30\0", 8);
}

/* The frame alone, of any claimed length. */
static void stream_put_length(struct stream *stream, uint64_t message_bytes)
{
	if (stream->wire == SP_WIRE_IPC)
		stream_put(stream, "\1", 1);
	stream_put_number(stream, message_bytes, 8);
}

static void stream_put_request(struct stream *stream, size_t hop_count, size_t header_bytes, size_t body_bytes)
{
	stream_put_length(stream, (hop_count + 1) * 4 + 4 + header_bytes + body_bytes);
	for (size_t i = 0; i < hop_count; i++)
		stream_put_number(stream, 0x100 + i, 4);
	stream_put_number(stream, 0x80000000u + stream->count, 4);
	stream_put_number(stream, header_bytes, 4);
	for (size_t i = 0; i < header_bytes + body_bytes; i++) {
		uint8_t byte = (uint8_t)(i * 7 + stream->count);

		stream_put(stream, &byte, 1);
	}
}

static void log_put(struct outcome_log *log, const void *bytes, size_t count)
{
	if (log->count + count > sizeof(log->bytes))
		ck_abort_msg("the log has no room for %zu bytes", count);
	if (count > 0)
		memcpy(log->bytes + log->count, bytes, count);
	log->count += count;
}

/* Runs the parser until it wants bytes or has failed. */
static void log_drain(struct outcome_log *log, struct sp_parser *parser, uint8_t *place)
{
	for (;;) {
		log->last = sp_next(parser, &log->reason);
		switch (log->last) {
		case SP_NEED_BYTES:
		case SP_VIOLATION:
			return;
		case SP_NEED_BODY:
			sp_body_place(parser, place);
			break;
		case SP_REQUEST:
			log->request_count++;
			log_put(log, &parser->backtrace_bytes, sizeof(size_t));
			log_put(log, parser->backtrace, parser->backtrace_bytes);
			log_put(log, &parser->header_bytes, sizeof(size_t));
			log_put(log, parser->header, parser->header_bytes);
			log_put(log, &parser->body_bytes, sizeof(uint64_t));
			log_put(log, parser->body, (size_t)parser->body_bytes);
			sp_request_done(parser);
			break;
		}
	}
}

/* Feeds a stream: first piece of first_bytes, then pieces of piece_bytes. */
static void stream_feed(const struct stream *stream, size_t first_bytes, size_t piece_bytes, struct outcome_log *log)
{
	static struct sp_parser parser;
	static uint8_t place[BODY_ROOM];
	size_t fed = 0, piece_end = first_bytes;

	memset(&parser, 0xaa, sizeof(parser));
	sp_parser_init(&parser, stream->wire, BODY_BYTES_MAX);
	log->request_count = log->count = 0;
	log->reason.text[0] = '\0';
	log_drain(log, &parser, place);
	while (fed < stream->count && log->last == SP_NEED_BYTES) {
		uint8_t *window, *more;
		size_t capacity, more_capacity;

		if (piece_end <= fed)
			piece_end = fed + piece_bytes;
		if (piece_end > stream->count)
			piece_end = stream->count;
		sp_window(&parser, &window, &capacity);
		if (capacity == 0)
			ck_abort_msg("an empty window after %zu bytes", fed);
		if (capacity > piece_end - fed)
			capacity = piece_end - fed;
		memcpy(window, stream->bytes + fed, capacity);
		sp_window_more(&parser, &more, &more_capacity);
		if (more_capacity > piece_end - fed - capacity)
			more_capacity = piece_end - fed - capacity;
		memcpy(more, stream->bytes + fed + capacity, more_capacity);
		sp_received(&parser, capacity + more_capacity);
		fed += capacity + more_capacity;
		log_drain(log, &parser, place);
	}
	log->fed = fed;
}

static bool log_same(const struct outcome_log *a, const struct outcome_log *b)
{
	return a->request_count == b->request_count && a->count == b->count && a->last == b->last &&
	       memcmp(a->bytes, b->bytes, a->count) == 0;
}

/* Small requests of every shape: pipelined, with hops, without body, without header. */
static void stream_of_small_requests(struct stream *stream, enum sp_wire wire)
{
	stream_begin(stream, wire);
	stream_put_request(stream, 0, 10, 20);
	stream_put_request(stream, 0, 5, 0);
	stream_put_request(stream, 7, 3, 4);
	stream_put_request(stream, 0, 0, 0);
	stream_put_request(stream, 2, 0, 1);
	stream_put_request(stream, 0, 40, 60);
}

static struct stream stream;
static struct outcome_log whole, pieces;

START_TEST(the_same_requests_come_out_of_every_split_in_two)
{
	stream_of_small_requests(&stream, (enum sp_wire)_i);
	stream_feed(&stream, stream.count, 1, &whole);
	ck_assert_uint_eq(whole.request_count, 6);
	ck_assert_int_eq(whole.last, SP_NEED_BYTES);
	for (size_t split = 0; split <= stream.count; split++) {
		stream_feed(&stream, split, stream.count, &pieces);
		ck_assert_msg(log_same(&whole, &pieces), "split at %zu", split);
	}
}
END_TEST

START_TEST(the_same_requests_come_out_of_pieces_of_every_size)
{
	stream_of_small_requests(&stream, (enum sp_wire)_i);
	stream_feed(&stream, stream.count, 1, &whole);
	for (size_t piece_bytes = 1; piece_bytes <= stream.count; piece_bytes++) {
		stream_feed(&stream, 0, piece_bytes, &pieces);
		ck_assert_msg(log_same(&whole, &pieces), "pieces of %zu", piece_bytes);
	}
}
END_TEST

START_TEST(every_prefix_of_a_stream_waits_for_more_and_hands_over_only_whole_requests)
{
	size_t stream_bytes, request_count = 0;

	stream_of_small_requests(&stream, (enum sp_wire)_i);
	stream_bytes = stream.count;
	for (stream.count = 0; stream.count <= stream_bytes; stream.count++) {
		stream_feed(&stream, stream.count, 1, &whole);
		ck_assert_int_eq(whole.last, SP_NEED_BYTES);
		ck_assert_uint_ge(whole.request_count, request_count);
		request_count = whole.request_count;
	}
	ck_assert_uint_eq(request_count, 6);
}
END_TEST

/* The head of a message fills the buffer to its last byte, at every place where it can begin. */
START_TEST(the_largest_head_fits_wherever_it_begins)
{
	for (size_t before = 0; before < 40; before++) {
		stream_begin(&stream, (enum sp_wire)_i);
		stream_put_request(&stream, 0, before, 0);
		stream_put_request(&stream, 7, MESSAGE_HEADER_BYTES_MAX, 70000);
		stream_put_request(&stream, 7, MESSAGE_HEADER_BYTES_MAX, 0);
		stream_put_request(&stream, 0, 9, BODY_BYTES_MAX);
		stream_put_request(&stream, 0, 1, 1);
		stream_feed(&stream, stream.count, 1, &whole);
		ck_assert_uint_eq(whole.request_count, 5);
		stream_feed(&stream, 3 + before, 65536, &pieces);
		ck_assert(log_same(&whole, &pieces));
		stream_feed(&stream, 0, 999 + before, &pieces);
		ck_assert(log_same(&whole, &pieces));
	}
}
END_TEST

START_TEST(the_parts_of_a_request_are_what_was_sent)
{
	static struct sp_parser parser;
	uint8_t place[8], *window;
	size_t capacity;

	sp_parser_init(&parser, SP_WIRE_TCP, 8);
	sp_window(&parser, &window, &capacity);
	ck_assert_uint_eq(capacity, SP_BUFFER_BYTES);
	memcpy(window, "\0SP\0\0\x30\0\0" "\0\0\0\0\0\0\0\x14" "\0\0\0\7" "\x80\0\0\5" "\0\0\0\3" "abc" "de", 33);
	sp_received(&parser, 33);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_NEED_BODY);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_NEED_BODY);
	ck_assert_uint_eq(parser.backtrace_bytes, 8);
	ck_assert_mem_eq(parser.backtrace, "\0\0\0\7\x80\0\0\5", 8);
	ck_assert_uint_eq(parser.header_bytes, 3);
	ck_assert_mem_eq(parser.header, "abc", 3);
	ck_assert_uint_eq(parser.body_bytes, 5);
	sp_body_place(&parser, place);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_NEED_BYTES);
	/* What the buffer had is in its place; the rest is asked for there, and no byte more. */
	ck_assert_mem_eq(place, "de", 2);
	sp_window(&parser, &window, &capacity);
	ck_assert_ptr_eq(window, place + 2);
	ck_assert_uint_eq(capacity, 3);
	memcpy(window, "fgh", 3);
	sp_received(&parser, 3);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_REQUEST);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_REQUEST);
	ck_assert_ptr_eq(parser.body, place);
	ck_assert_mem_eq(place, "defgh", 5);
	ck_assert_mem_eq(parser.header, "abc", 3);
	sp_request_done(&parser);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_NEED_BYTES);
}
END_TEST

START_TEST(what_follows_a_body_is_received_with_it)
{
	static struct sp_parser parser;
	static uint8_t place[BODY_ROOM];
	size_t capacity, rest_bytes, more_capacity, head_bytes = 8 + 4 + 4 + 10, fed;
	uint8_t *window, *more;

	stream_begin(&stream, SP_WIRE_TCP);
	for (int i = 0; i < 2; i++)
		stream_put_request(&stream, 0, 10, 100000);
	sp_parser_init(&parser, SP_WIRE_TCP, BODY_BYTES_MAX);
	sp_window_more(&parser, &more, &more_capacity);
	ck_assert_uint_eq(more_capacity, 0);
	/* A first window that is full to its end leaves room for more all the same. */
	sp_window(&parser, &window, &capacity);
	memcpy(window, stream.bytes, capacity);
	sp_received(&parser, capacity);
	fed = capacity;
	ck_assert_int_eq(sp_next(&parser, NULL), SP_NEED_BODY);
	sp_body_place(&parser, place);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_NEED_BYTES);
	sp_window(&parser, &window, &rest_bytes);
	ck_assert_uint_eq(rest_bytes, 8 + head_bytes + 100000 - fed);
	memcpy(window, stream.bytes + fed, rest_bytes);
	fed += rest_bytes;
	sp_window_more(&parser, &more, &more_capacity);
	ck_assert_uint_eq(more_capacity, SP_MORE_BYTES);
	memcpy(more, stream.bytes + fed, more_capacity);
	sp_received(&parser, rest_bytes + more_capacity);
	/* The header in hand has not been written over. */
	ck_assert_int_eq(sp_next(&parser, NULL), SP_REQUEST);
	ck_assert_mem_eq(parser.header, stream.bytes + 8 + head_bytes - 10, 10);
	ck_assert_mem_eq(place, stream.bytes + 8 + head_bytes, 100000);
	sp_request_done(&parser);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_NEED_BODY);
	sp_body_place(&parser, place);
	sp_window(&parser, &window, &rest_bytes);
	ck_assert_ptr_eq(window, place + more_capacity - head_bytes);
}
END_TEST

START_TEST(a_request_without_body_is_handed_over_at_once)
{
	static struct sp_parser parser;
	uint8_t *window;
	size_t capacity;

	sp_parser_init(&parser, SP_WIRE_IPC, 0);
	sp_window(&parser, &window, &capacity);
	memcpy(window, "\0SP\0\0\x30\0\0" "\1\0\0\0\0\0\0\0\x09" "\xff\xff\xff\xff" "\0\0\0\1" "a", 26);
	sp_received(&parser, 26);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_REQUEST);
	ck_assert_ptr_null(parser.body);
	ck_assert_uint_eq(parser.body_bytes, 0);
}
END_TEST

#define SP "\0SP\0\0\x30\0\0"

static const struct {
	const char *what;
	enum sp_wire wire;
	const uint8_t *bytes;
	size_t count;
	size_t seen_at; /* after so many bytes it is refused */
	const char *sentence;
} violations[] = {
	{"HTTP", SP_WIRE_TCP, B("GET / HTTP/1.1\r\n"), 1, "byte 0 of the handshake is 0x47, not 0x00"},
	{"TLS", SP_WIRE_TCP, B("\x16\x03\x01\x02\x00"), 1, "byte 0 of the handshake is 0x16, not 0x00"},
	{"SSH", SP_WIRE_TCP, B("SSH-2.0-"), 1, "does not speak the scalability protocols"},
	{"zeros", SP_WIRE_IPC, B("\0\0\0\0\0\0\0\0"), 2, "byte 1 of the handshake is 0x00, not 0x53"},
	{"a newer SP", SP_WIRE_TCP, B("\0SP\1\0\x30\0\0"), 4, "byte 3 of the handshake is 0x01, not 0x00"},
	{"a rep peer", SP_WIRE_TCP, B("\0SP\0\0\x31\0\0"), 6, "the peer is not a 'req' socket"},
	{"a push peer", SP_WIRE_IPC, B("\0SP\0\0\x50\0\0"), 6, "the peer is not a 'req' socket"},
	{"a reserved byte", SP_WIRE_TCP, B("\0SP\0\0\x30\0\1"), 8, "byte 7 of the handshake is 0x01"},
	{"another ipc type", SP_WIRE_IPC, B(SP "\0\0\0\0\0\0\0\0\x08"), 9,
	 "an ipc message does not begin with the byte 1"},
	{"ipc type 2", SP_WIRE_IPC, B(SP "\2"), 9, "an ipc message does not begin with the byte 1"},
	{"length 0", SP_WIRE_TCP, B(SP "\0\0\0\0\0\0\0\0"), 16, "a message of less than 8 bytes"},
	{"length 7", SP_WIRE_TCP, B(SP "\0\0\0\0\0\0\0\7"), 16, "a message of less than 8 bytes"},
	{"length 2^64-1", SP_WIRE_TCP, B(SP "\xff\xff\xff\xff\xff\xff\xff\xff"), 16,
	 "a message of 18446744073709551615 bytes, at most 265572 are allowed"},
	{"one byte too long", SP_WIRE_TCP, B(SP "\0\0\0\0\0\4\x0d\x65"), 16,
	 "a message of 265573 bytes, at most 265572 are allowed"},
	{"eight hops", SP_WIRE_TCP,
	 B(SP "\0\0\0\0\0\0\0\x40" "\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1"),
	 48, "no request id in the first 8 words"},
	{"no request id before the end", SP_WIRE_TCP, B(SP "\0\0\0\0\0\0\0\x0a" "\0\0\0\1\0\0\0\1"), 24,
	 "a message ends before its header size"},
	{"no room for the header size", SP_WIRE_TCP, B(SP "\0\0\0\0\0\0\0\x0b" "\0\0\0\1\x80\0\0\1"), 24,
	 "a message ends before its header size"},
	{"a header larger than the message", SP_WIRE_TCP, B(SP "\0\0\0\0\0\0\0\x0b" "\x80\0\0\1\0\0\0\4"), 24,
	 "a message header is larger than its message"},
	{"a header over the limit", SP_WIRE_TCP, B(SP "\0\0\0\0\0\2\0\0" "\x80\0\0\1\0\1\0\1"), 24,
	 "a message header of 65537 bytes, at most 65536 are allowed"},
	{"a header of 4 GiB", SP_WIRE_TCP, B(SP "\0\0\0\0\0\2\0\0" "\x80\0\0\1\xff\xff\xff\xff"), 24,
	 "a message header of 4294967295 bytes, at most 65536 are allowed"},
	{"a body over the limit", SP_WIRE_TCP, B(SP "\0\0\0\0\0\3\x0d\x49" "\x80\0\0\1\0\0\0\0"), 24,
	 "a message body of 200001 bytes, at most 200000 are allowed"},
};

START_TEST(what_is_not_the_protocol_is_refused_at_the_first_byte_that_shows_it)
{
	static struct sp_parser parser;
	struct reason reason = {""};
	size_t fed = 0;

	sp_parser_init(&parser, violations[_i].wire, BODY_BYTES_MAX);
	while (fed < violations[_i].count && sp_next(&parser, &reason) == SP_NEED_BYTES) {
		uint8_t *window;
		size_t capacity;

		sp_window(&parser, &window, &capacity);
		*window = violations[_i].bytes[fed++];
		sp_received(&parser, 1);
	}
	ck_assert_int_eq(sp_next(&parser, &reason), SP_VIOLATION);
	ck_assert_msg(fed == violations[_i].seen_at, "%s: after %zu", violations[_i].what, fed);
	ck_assert_msg(strstr(reason.text, violations[_i].sentence) != NULL, "%s: '%s'", violations[_i].what,
	              reason.text);
}
END_TEST

START_TEST(a_violation_is_final_whatever_comes_behind_it)
{
	static struct sp_parser parser;
	struct reason first, later;

	stream_of_small_requests(&stream, SP_WIRE_TCP);
	sp_parser_init(&parser, SP_WIRE_TCP, BODY_BYTES_MAX);
	for (int round = 0; round < 3; round++) {
		uint8_t *window;
		size_t capacity;

		sp_window(&parser, &window, &capacity);
		ck_assert_uint_ge(capacity, stream.count);
		memcpy(window, round == 0 ? (const uint8_t *)"GET " : stream.bytes, round == 0 ? 4 : stream.count);
		sp_received(&parser, round == 0 ? 4 : stream.count);
		ck_assert_int_eq(sp_next(&parser, round == 0 ? &first : &later), SP_VIOLATION);
		ck_assert_int_eq(sp_next(&parser, NULL), SP_VIOLATION);
		ck_assert(round == 0 || strcmp(first.text, later.text) == 0);
	}
}
END_TEST

START_TEST(requests_before_a_violation_are_handed_over)
{
	stream_begin(&stream, (enum sp_wire)_i);
	stream_put_request(&stream, 0, 4, 4);
	stream_put_request(&stream, 1, 4, 0);
	stream_put_length(&stream, 3);
	stream_feed(&stream, stream.count, 1, &whole);
	ck_assert_uint_eq(whole.request_count, 2);
	ck_assert_int_eq(whole.last, SP_VIOLATION);
	stream_feed(&stream, 0, 1, &pieces);
	ck_assert(log_same(&whole, &pieces));
}
END_TEST

START_TEST(a_limit_of_all_bytes_does_not_wrap)
{
	static struct sp_parser parser;
	uint8_t *window;
	size_t capacity;

	sp_parser_init(&parser, SP_WIRE_TCP, UINT64_MAX);
	sp_window(&parser, &window, &capacity);
	memcpy(window, SP "\xff\xff\xff\xff\xff\xff\xff\xff" "\x80\0\0\1" "\0\0\0\1" "h", 25);
	sp_received(&parser, 25);
	ck_assert_int_eq(sp_next(&parser, NULL), SP_NEED_BODY);
	ck_assert_uint_eq(parser.body_bytes, UINT64_MAX - 9);
}
END_TEST

START_TEST(a_client_reads_the_prefix_that_a_daemon_writes)
{
	uint8_t prefix[SP_PREFIX_BYTES_MAX];
	uint64_t message_bytes = 0;

	for (enum sp_wire wire = SP_WIRE_TCP; wire <= SP_WIRE_IPC; wire++) {
		sp_prefix(wire, B("\x80\0\0\1"), 12345, prefix);
		ck_assert_int_eq(sp_prefix_read(wire, prefix, &message_bytes, NULL), 0);
		ck_assert_uint_eq(message_bytes, 12345);
	}
	prefix[0] = 2; /* not the type that ipc's messages have */
	ck_assert_int_eq(sp_prefix_read(SP_WIRE_IPC, prefix, &message_bytes, NULL), STATUS_EPROTOCOL);
	memset(prefix, 0, sizeof(prefix));
	prefix[7] = 3; /* shorter than a request id */
	ck_assert_int_eq(sp_prefix_read(SP_WIRE_TCP, prefix, &message_bytes, NULL), STATUS_EPROTOCOL);
	ck_assert_uint_eq(message_bytes, 12345);
}
END_TEST

START_TEST(handshake_and_reply_prefix_are_what_a_req_socket_reads)
{
	uint8_t handshake[SP_HANDSHAKE_BYTES], prefix[SP_PREFIX_BYTES_MAX];
	uint8_t longest[SP_BACKTRACE_BYTES_MAX] = {0};

	sp_handshake(SP_ROLE_REP, handshake);
	ck_assert_mem_eq(handshake, "\0SP\0\0\x31\0\0", 8);
	sp_handshake(SP_ROLE_REQ, handshake);
	ck_assert_mem_eq(handshake, "\0SP\0\0\x30\0\0", 8);
	ck_assert_uint_eq(sp_prefix(SP_WIRE_TCP, B("\x80\0\0\1"), 3, prefix), 12);
	ck_assert_mem_eq(prefix, "\0\0\0\0\0\0\0\7\x80\0\0\1", 12);
	ck_assert_uint_eq(sp_prefix(SP_WIRE_IPC, B("\0\0\0\2\x80\0\0\1"), UINT64_C(0x123456789a), prefix), 17);
	ck_assert_mem_eq(prefix, "\1\0\0\0\x12\x34\x56\x78\xa2\0\0\0\2\x80\0\0\1", 17);
	ck_assert_uint_eq(sp_prefix(SP_WIRE_IPC, longest, sizeof(longest), 0, prefix), SP_PREFIX_BYTES_MAX);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sp");
	TCase *tcase = tcase_create("sp");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, the_same_requests_come_out_of_every_split_in_two, SP_WIRE_TCP, SP_WIRE_IPC + 1);
	tcase_add_loop_test(tcase, the_same_requests_come_out_of_pieces_of_every_size, SP_WIRE_TCP, SP_WIRE_IPC + 1);
	tcase_add_loop_test(tcase, every_prefix_of_a_stream_waits_for_more_and_hands_over_only_whole_requests,
	                    SP_WIRE_TCP, SP_WIRE_IPC + 1);
	tcase_add_loop_test(tcase, the_largest_head_fits_wherever_it_begins, SP_WIRE_TCP, SP_WIRE_IPC + 1);
	tcase_add_test(tcase, the_parts_of_a_request_are_what_was_sent);
	tcase_add_test(tcase, what_follows_a_body_is_received_with_it);
	tcase_add_test(tcase, a_request_without_body_is_handed_over_at_once);
	tcase_add_loop_test(tcase, what_is_not_the_protocol_is_refused_at_the_first_byte_that_shows_it, 0,
	                    COUNT(violations));
	tcase_add_test(tcase, a_violation_is_final_whatever_comes_behind_it);
	tcase_add_loop_test(tcase, requests_before_a_violation_are_handed_over, SP_WIRE_TCP, SP_WIRE_IPC + 1);
	tcase_add_test(tcase, a_limit_of_all_bytes_does_not_wrap);
	tcase_add_test(tcase, a_client_reads_the_prefix_that_a_daemon_writes);
	tcase_add_test(tcase, handshake_and_reply_prefix_are_what_a_req_socket_reads);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
