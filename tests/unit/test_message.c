/*
 * Messages: every operation goes there and back, every rule of the tables holds, and no bytes do harm.
 *
 * Nothing here lists fields by hand where the tables can: a new field is tested by having been added.
 */
#include "proto/message.h"

#include "tests/unit/heap_count.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

enum { ROOM = MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX };

static const struct {
	const char *name, *type;
	size_t offset;
} request_rows[] = {
#define X(type, name, text) {#name, #type, offsetof(struct request, name)},
	REQUEST_FIELDS(X)
#undef X
}, reply_rows[] = {
#define X(type, name, text) {#name, #type, offsetof(struct reply, name)},
	REPLY_FIELDS(X)
#undef X
};

static const uint64_t envelope = REQUEST_HAS(op) | REQUEST_HAS(v);

static struct unpacked *unpacked_new(void)
{
	struct unpacked *unpacked = NULL;

	ck_assert_int_eq(unpacked_create(&unpacked), 0);
	return unpacked;
}

/* Some value for a member: type is the word of the X-macro. */
static void field_fill(const char *type, void *member, uint64_t salt)
{
	static const struct text texts[] = {{"a", 1}, {"run42/net", 9}, {"", 0}, {"t\xc3\xa9xt", 5}};

	if (strcmp(type, "TEXT") == 0) {
		*(struct text *)member = texts[salt % COUNT(texts)];
	} else if (strcmp(type, "U64") == 0) {
		*(uint64_t *)member = salt * UINT64_C(0x9e3779b97f4a7c15) >> (salt % 64);
	} else if (strcmp(type, "I64") == 0) {
		*(int64_t *)member = -(int64_t)(salt % 20000);
	} else if (strcmp(type, "F64") == 0) {
		*(double *)member = (double)salt / 3 - 7;
	} else if (strcmp(type, "BOOL") == 0) {
		*(bool *)member = salt % 2;
	} else if (strcmp(type, "LIST") == 0) {
		struct text_list *list = member;

		list->count = (uint32_t)(salt % (PROFILE_COUNT_MAX + 1));
		for (uint32_t i = 0; i < list->count; i++)
			list->items[i] = texts[(salt + i) % COUNT(texts)];
	} else {
		ck_abort_msg("a field type the test does not know: %s", type);
	}
}

static bool text_same(struct text a, struct text b)
{
	return a.count == b.count && (a.count == 0 || memcmp(a.bytes, b.bytes, a.count) == 0);
}

static bool field_same(const char *type, const void *a, const void *b)
{
	const struct text_list *list_a = a, *list_b = b;

	if (strcmp(type, "TEXT") == 0)
		return text_same(*(const struct text *)a, *(const struct text *)b);
	if (strcmp(type, "BOOL") == 0)
		return *(const bool *)a == *(const bool *)b;
	if (strcmp(type, "LIST") != 0)
		return memcmp(a, b, 8) == 0;
	if (list_a->count != list_b->count)
		return false;
	for (uint32_t i = 0; i < list_a->count; i++) {
		if (!text_same(list_a->items[i], list_b->items[i]))
			return false;
	}
	return true;
}

static struct request request_of(enum operation operation, uint64_t present, uint64_t salt)
{
	struct request request = {.operation = operation, .present = present};

	for (int i = 0; i < REQUEST_FIELD_COUNT; i++) {
		if (present & UINT64_C(1) << i)
			field_fill(request_rows[i].type, (char *)&request + request_rows[i].offset, salt + (uint64_t)i);
	}
	return request;
}

static struct reply reply_of(uint64_t present, uint64_t salt)
{
	struct reply reply = {.present = present};

	for (int i = 0; i < REPLY_FIELD_COUNT; i++) {
		if (present & UINT64_C(1) << i)
			field_fill(reply_rows[i].type, (char *)&reply + reply_rows[i].offset, salt + (uint64_t)i);
	}
	return reply;
}

static size_t request_bytes(const struct request *request, uint8_t *bytes)
{
	size_t count = 0;

	ck_assert_int_eq(request_encode(request, bytes, ROOM, &count, NULL), 0);
	return count;
}

/* Encodes, splits and decodes; the result's texts point into bytes. */
static int request_pass(struct unpacked *unpacked, const struct request *request, uint8_t *bytes,
                        struct request *ret_request, struct reason *reason)
{
	const uint8_t *header, *body;
	size_t header_bytes, body_bytes, count = request_bytes(request, bytes);

	ck_assert_int_eq(message_split(bytes, count, &header, &header_bytes, &body, &body_bytes, NULL), 0);
	ck_assert_uint_eq(header_bytes, count - MESSAGE_PREFIX_BYTES);
	ck_assert_uint_eq(body_bytes, 0);
	return request_decode(unpacked, header, header_bytes, ret_request, reason);
}

START_TEST(every_operation_goes_there_and_back_with_and_without_its_options)
{
	static uint8_t bytes[ROOM];
	const struct message_operation *operation = &message_operations[_i];
	struct unpacked *unpacked = unpacked_new();

	ck_assert_uint_eq(operation->required & operation->optional, 0);
	ck_assert_uint_eq((operation->required | operation->optional) & envelope, 0);
	for (uint64_t salt = 0; salt < 200; salt++) {
		uint64_t chosen = salt < 2 ? 0 - salt : salt * 0x12345679; /* none, all, some */
		uint64_t optional = operation->optional & chosen;
		struct request request = request_of((enum operation)_i, operation->required | optional, salt);
		struct request back;

		ck_assert_int_eq(request_pass(unpacked, &request, bytes, &back, NULL), 0);
		ck_assert_int_eq((int)back.operation, _i);
		ck_assert_uint_eq(back.present, request.present | envelope);
		ck_assert_uint_eq(back.v, PROTOCOL_VERSION);
		ck_assert(text_equal(back.op, operation->name));
		for (int i = 0; i < REQUEST_FIELD_COUNT; i++) {
			const struct request *expected = UINT64_C(1) << i & envelope ? &back : &request;

			ck_assert_msg(field_same(request_rows[i].type, (char *)&back + request_rows[i].offset,
			                         (const char *)expected + request_rows[i].offset),
			              "%s: %s", operation->name, request_rows[i].name);
		}
	}
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(an_operation_refuses_what_it_has_not_and_misses_what_it_needs)
{
	static uint8_t bytes[ROOM];
	const struct message_operation *operation = &message_operations[_i];
	struct unpacked *unpacked = unpacked_new();
	char expected[128];

	for (int i = 0; i < REQUEST_FIELD_COUNT; i++) {
		uint64_t bit = UINT64_C(1) << i;
		struct request request, back = {.rank = 77};
		struct reason reason = {""};
		int r;

		if (bit & envelope)
			continue;
		request = request_of((enum operation)_i, operation->required ^ bit, 3);
		r = request_pass(unpacked, &request, bytes, &back, &reason);
		if (operation->optional & bit) {
			ck_assert_int_eq(r, 0);
			continue;
		}
		snprintf(expected, sizeof(expected), "operation '%s' %s field '%s'", operation->name,
		         operation->required & bit ? "lacks the" : "has no", request_rows[i].name);
		ck_assert_int_eq(r, STATUS_EPROTOCOL);
		ck_assert_str_eq(reason.text, expected);
		ck_assert_uint_eq(back.rank, 77);
	}
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(only_the_attach_socket_answers_what_carries_descriptors_or_leases)
{
	for (int i = 0; i < OPERATION_COUNT; i++) {
		ck_assert_int_eq(message_operations[i].needs_attach, i == OP_ATTACH || i == OP_VIEW);
		ck_assert_int_eq(message_operations[i].may_wait,
		                 i == OP_REGISTER || i == OP_ATTACH || i == OP_PUSH || i == OP_RESERVE || i == OP_FLUSH ||
		                         i == OP_VIEW || i == OP_PROFILE_SET || i == OP_PROFILE_REMOVE ||
		                         i == OP_CHECKPOINT || i == OP_HISTORY || i == OP_ROLLBACK || i == OP_CHECKPOINT_KEEP);
		ck_assert_uint_gt(strlen(message_operations[i].text), 5);
	}
}
END_TEST

START_TEST(every_reply_field_goes_there_and_back)
{
	static uint8_t bytes[ROOM];
	struct unpacked *unpacked = unpacked_new();
	const uint64_t always = REPLY_HAS(status) | REPLY_HAS(v), all = (UINT64_C(1) << REPLY_FIELD_COUNT) - 1;

	for (uint64_t salt = 0; salt < 2000; salt++) {
		uint64_t present = salt == 0 ? 0 : salt == 1 ? all : salt * UINT64_C(0x9e3779b97f4a7c15) >> 13 & all;
		struct reply reply = reply_of(present, salt), back;
		const uint8_t *header, *body;
		size_t header_bytes, body_bytes, count = 0;

		reply.v = PROTOCOL_VERSION;
		ck_assert_int_eq(reply_encode(&reply, bytes, ROOM, &count, NULL), 0);
		ck_assert_int_eq(message_split(bytes, count, &header, &header_bytes, &body, &body_bytes, NULL), 0);
		ck_assert_int_eq(reply_decode(unpacked, header, header_bytes, &back, NULL), 0);
		ck_assert_uint_eq(back.present, present | always);
		for (int i = 0; i < REPLY_FIELD_COUNT; i++)
			ck_assert_msg(field_same(reply_rows[i].type, (char *)&back + reply_rows[i].offset,
			                         (char *)&reply + reply_rows[i].offset),
			              "%s", reply_rows[i].name);
	}
	unpacked_destroy(unpacked);
}
END_TEST

/* Headers written by hand: what our own encoder would never write. */
#define H(literal) (const uint8_t *)(literal), sizeof(literal) - 1
#define MODEL_A "\xa5model\xa1" "a"
#define OP_SHOW_V1 "\xa2op\xa4show\xa1v\x01"

static const struct {
	const uint8_t *bytes;
	size_t count;
	int code;
	const char *sentence;
} requests_by_hand[] = {
	{H("\x83" OP_SHOW_V1 MODEL_A), 0, ""},
	{H("\x83" MODEL_A "\xa1v\xcd\x00\x01\xa2op\xd9\x04show"), 0, ""},
	{H("\x84" OP_SHOW_V1 MODEL_A "\xa6" "future\x93\x01\xc0\x81\xa1k\xc3"), 0, ""},
	{H("\x90"), STATUS_EPROTOCOL, "the message header is not a map"},
	{H("\xc0"), STATUS_EPROTOCOL, "the message header is not a map"},
	{H(""), STATUS_EPROTOCOL, "msgpack: no bytes at all"},
	{H("\x80"), STATUS_EPROTOCOL, "the message lacks the field 'v' (protocol version)"},
	{H("\x81\xa2op\xa4show"), STATUS_EPROTOCOL, "the message lacks the field 'v' (protocol version)"},
	{H("\x81\xa1v\x01"), STATUS_EPROTOCOL, "the request lacks the field 'op' (operation)"},
	{H("\x81\xa1v\xa1" "1"), STATUS_EPROTOCOL, "field 'v' is not an unsigned integer of 64 bits"},
	{H("\x82\xa1v\x01\xa2op\x05"), STATUS_EPROTOCOL, "field 'op' is not text"},
	{H("\x82\xa1v\x01\xa2op\xa0"), STATUS_EPROTOCOL, "there is no operation ''"},
	{H("\x82\xa1v\x01\xa2op\xa5shows"), STATUS_EPROTOCOL, "there is no operation 'shows'"},
	{H("\x82\xa1v\x01\xa2op\xa5show\0"), STATUS_EPROTOCOL, "there is no operation 'show'"},
	{H("\x82\xa1v\x02\xa2op\x05"), STATUS_EVERSION,
	 "the other side speaks protocol version 2, this side speaks version 1; "
	 "use emad and its clients of one release"},
	{H("\x81\xa1v\x00"), STATUS_EVERSION,
	 "the other side speaks protocol version 0, this side speaks version 1; "
	 "use emad and its clients of one release"},
	{H("\x83" OP_SHOW_V1 "\xa5model\x07"), STATUS_EPROTOCOL, "field 'model' is not text"},
	{H("\x82" OP_SHOW_V1), STATUS_EPROTOCOL, "operation 'show' lacks the field 'model'"},
	{H("\x83\xa2op\xa4push\xa1v\x01\xa5stage\xff"), STATUS_EPROTOCOL,
	 "field 'stage' is not an unsigned integer of 64 bits"},
	{H("\x84" OP_SHOW_V1 MODEL_A "\xa4step\x01"), STATUS_EPROTOCOL, "operation 'show' has no field 'step'"},
	{H("\x83\xa2op\xa8register\xa1v\x01\xa8profiles\xa1" "a"), STATUS_EPROTOCOL, "field 'profiles' is not a list"},
	{H("\x83\xa2op\xa8register\xa1v\x01\xa8profiles\x92\xa1" "a\x01"), STATUS_EPROTOCOL,
	 "field 'profiles': item 1 is not text"},
	{H("\x83\xa2op\xa8register\xa1v\x01\xa8profiles\xdc\x00\x11"
	   "\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0\xa0"
	   "\xa0\xa0\xa0"), STATUS_ELIMIT, "field 'profiles' has 17 items, at most 16 are allowed"},
	{H("\x83\xa2op\xa4push\xa1v\x01\xa4wait\x01"), STATUS_EPROTOCOL, "field 'wait' is not true or false"},
}, replies_by_hand[] = {
	{H("\x81\xa6status\x00"), 0, ""},
	{H("\x81\xa6status\xd2\x80\x00\x00\x01"), 0, ""},
	{H("\x82\xa6status\x00\xa6" "future\xc0"), 0, ""},
	{H("\x80"), STATUS_EPROTOCOL, "the reply lacks the field 'status'"},
	{H("\x81\xa6status\x01"), STATUS_EPROTOCOL, "field 'status' is 1, which is no status code"},
	{H("\x81\xa6status\xd2\x80\x00\x00\x00"), STATUS_EPROTOCOL,
	 "field 'status' is -2147483648, which is no status code"},
	{H("\x81\xa6status\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), STATUS_EPROTOCOL,
	 "field 'status' is not an integer of 64 bits"},
	{H("\x82\xa1v\x02\xa6status\xa1x"), STATUS_EVERSION,
	 "the other side speaks protocol version 2, this side speaks version 1; "
	 "use emad and its clients of one release"},
	{H("\x82\xa6status\x00\xa7resumed\xc0"), STATUS_EPROTOCOL, "field 'resumed' is not true or false"},
};

START_TEST(requests_written_by_hand_are_judged_with_a_sentence)
{
	struct unpacked *unpacked = unpacked_new();
	struct request request;
	struct reason reason = {""};
	int r = request_decode(unpacked, requests_by_hand[_i].bytes, requests_by_hand[_i].count, &request, &reason);

	ck_assert_msg(r == requests_by_hand[_i].code, "row %d: %d (%s)", _i, r, reason.text);
	ck_assert_str_eq(reason.text, requests_by_hand[_i].sentence);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(replies_written_by_hand_are_judged_with_a_sentence)
{
	struct unpacked *unpacked = unpacked_new();
	struct reply reply;
	struct reason reason = {""};
	int r = reply_decode(unpacked, replies_by_hand[_i].bytes, replies_by_hand[_i].count, &reply, &reason);

	ck_assert_msg(r == replies_by_hand[_i].code, "row %d: %d (%s)", _i, r, reason.text);
	ck_assert_str_eq(reason.text, replies_by_hand[_i].sentence);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(a_message_is_split_only_when_its_sizes_add_up)
{
	static uint8_t bytes[ROOM + 8];
	const uint8_t *header = NULL, *body = NULL;
	size_t header_bytes = 0, body_bytes = 0;
	struct reason reason;

	for (size_t count = 0; count < 4; count++)
		ck_assert_int_eq(message_split(bytes, count, &header, &header_bytes, &body, &body_bytes, NULL),
		                 STATUS_EPROTOCOL);
	memcpy(bytes, "\0\0\0\3", 4);
	for (size_t count = 4; count < 12; count++) {
		int r = message_split(bytes, count, &header, &header_bytes, &body, &body_bytes, &reason);

		ck_assert_int_eq(r, count < 7 ? STATUS_EPROTOCOL : 0);
		if (r == 0)
			ck_assert(header == bytes + 4 && header_bytes == 3 && body == bytes + 7 &&
			          body_bytes == count - 7);
	}
	memcpy(bytes, "\0\1\0\0", 4);
	ck_assert_int_eq(message_split(bytes, sizeof(bytes), &header, &header_bytes, &body, &body_bytes, NULL), 0);
	ck_assert(header_bytes == 65536 && body_bytes == 8);
	memcpy(bytes, "\0\1\0\1", 4);
	ck_assert_int_eq(message_split(bytes, sizeof(bytes), &header, &header_bytes, &body, &body_bytes, &reason),
	                 STATUS_ELIMIT);
	ck_assert_str_eq(reason.text, "a message header of 65537 bytes, at most 65536 are allowed");
	memcpy(bytes, "\xff\xff\xff\xff", 4);
	ck_assert_int_eq(message_split(bytes, 4, &header, &header_bytes, &body, &body_bytes, NULL), STATUS_ELIMIT);
}
END_TEST

START_TEST(a_message_that_does_not_fit_is_not_written_beyond_its_room)
{
	static uint8_t bytes[ROOM], whole[ROOM];
	struct request request = request_of(OP_PUSH, message_operations[OP_PUSH].required, 5);
	size_t count = request_bytes(&request, whole), fitted = 99;

	for (size_t capacity = 0; capacity <= count; capacity++) {
		int r;

		memset(bytes, 0xaa, sizeof(bytes));
		r = request_encode(&request, bytes, capacity, &fitted, NULL);
		ck_assert_int_eq(r, capacity < count ? STATUS_ELIMIT : 0);
		ck_assert_uint_eq(bytes[capacity], 0xaa);
		ck_assert_uint_eq(fitted, capacity < count ? 99 : count);
	}
	ck_assert_mem_eq(bytes, whole, count);
}
END_TEST

START_TEST(a_header_over_the_limit_is_refused_with_both_numbers)
{
	static uint8_t bytes[2 * ROOM];
	static char text[MESSAGE_HEADER_BYTES_MAX];
	struct reply reply = {0};
	struct reason reason;
	size_t count = 0;

	/* {"status": 0, "v": 1, "report": ...}: 22 bytes around the text. */
	memset(text, 'r', sizeof(text));
	reply_set(&reply, report, (struct text){text, MESSAGE_HEADER_BYTES_MAX - 22});
	ck_assert_int_eq(reply_encode(&reply, bytes, sizeof(bytes), &count, &reason), 0);
	ck_assert_uint_eq(count, MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX);
	reply.report.count++;
	ck_assert_int_eq(reply_encode(&reply, bytes, sizeof(bytes), &count, &reason), STATUS_ELIMIT);
	ck_assert_str_eq(reason.text, "the message needs 65537 bytes, there is room for 65536");
}
END_TEST

START_TEST(every_prefix_of_every_valid_message_is_refused)
{
	static uint8_t bytes[ROOM];
	const struct message_operation *operation = &message_operations[_i];
	struct unpacked *unpacked = unpacked_new();
	struct request request = request_of((enum operation)_i, operation->required | operation->optional, 3);
	size_t count = request_bytes(&request, bytes);

	for (size_t cut = 0; cut < count; cut++) {
		uint8_t *prefix = malloc(cut ? cut : 1);
		const uint8_t *header, *body;
		size_t header_bytes, body_bytes;
		struct request back;

		memcpy(prefix, bytes, cut);
		ck_assert_int_eq(message_split(prefix, cut, &header, &header_bytes, &body, &body_bytes, NULL),
		                 STATUS_EPROTOCOL);
		if (cut >= MESSAGE_PREFIX_BYTES)
			ck_assert_int_eq(request_decode(unpacked, prefix + MESSAGE_PREFIX_BYTES,
			                                cut - MESSAGE_PREFIX_BYTES, &back, NULL), STATUS_EPROTOCOL);
		free(prefix);
	}
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(every_prefix_of_a_full_reply_is_refused)
{
	static uint8_t bytes[ROOM];
	struct unpacked *unpacked = unpacked_new();
	struct reply reply = reply_of((UINT64_C(1) << REPLY_FIELD_COUNT) - 1, 9), back;
	size_t count = 0;

	ck_assert_int_eq(reply_encode(&reply, bytes, ROOM, &count, NULL), 0);
	for (size_t cut = MESSAGE_PREFIX_BYTES; cut < count; cut++) {
		uint8_t *prefix = malloc(cut);

		memcpy(prefix, bytes, cut);
		ck_assert_int_eq(reply_decode(unpacked, prefix + MESSAGE_PREFIX_BYTES, cut - MESSAGE_PREFIX_BYTES,
		                              &back, NULL), STATUS_EPROTOCOL);
		free(prefix);
	}
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(every_changed_byte_of_a_request_is_survived)
{
	static uint8_t bytes[ROOM], changed[ROOM];
	const struct message_operation *operation = &message_operations[_i];
	struct unpacked *unpacked = unpacked_new();
	struct request request = request_of((enum operation)_i, operation->required | operation->optional, 3), back;
	size_t count = request_bytes(&request, bytes) - MESSAGE_PREFIX_BYTES;
	size_t survived = 0;

	for (size_t at = 0; at < count; at++) {
		for (int change = 1; change < 256; change++) {
			struct reason reason = {""};
			int r;

			memcpy(changed, bytes + MESSAGE_PREFIX_BYTES, count);
			changed[at] ^= (uint8_t)change;
			r = request_decode(unpacked, changed, count, &back, &reason);
			survived += r == 0 || (r <= STATUS_EPROTOCOL && reason.text[0] != '\0');
		}
	}
	ck_assert_uint_eq(survived, count * 255);
	unpacked_destroy(unpacked);
}
END_TEST

START_TEST(outcomes_have_names_that_are_parsed_back)
{
	enum outcome outcome = OUTCOME_STALE;

	for (int i = 0; i < OUTCOME_COUNT; i++) {
		ck_assert(outcome_parse(text_of(outcome_name((enum outcome)i)), &outcome));
		ck_assert_int_eq((int)outcome, i);
	}
	outcome = OUTCOME_STALE;
	ck_assert(!outcome_parse(text_of("appliedx"), &outcome));
	ck_assert(!outcome_parse(text_of(""), &outcome));
	ck_assert_int_eq((int)outcome, OUTCOME_STALE);
}
END_TEST

#if HEAP_IS_COUNTED

START_TEST(steady_messages_do_not_allocate)
{
	static uint8_t request_room[ROOM], reply_room[ROOM];
	struct unpacked *unpacked = unpacked_new();
	struct request request = request_of(OP_REGISTER,
	                                    message_operations[OP_REGISTER].required |
	                                            message_operations[OP_REGISTER].optional, 4);
	struct reply reply = reply_of((UINT64_C(1) << REPLY_FIELD_COUNT) - 1, 9);
	size_t heap_count = heap.count, count;
	int failures = 0;

	for (int i = 0; i < 1000; i++) {
		struct request request_back;
		struct reply reply_back;

		failures += request_encode(&request, request_room, ROOM, &count, NULL) != 0;
		failures += request_decode(unpacked, request_room + 4, count - 4, &request_back, NULL) != 0;
		failures += reply_encode(&reply, reply_room, ROOM, &count, NULL) != 0;
		failures += reply_decode(unpacked, reply_room + 4, count - 4, &reply_back, NULL) != 0;
	}
	heap_count = heap.count - heap_count;
	ck_assert_int_eq(failures, 0);
	ck_assert_uint_eq(heap_count, 0);
	unpacked_destroy(unpacked);
}
END_TEST

#endif

int main(void)
{
	Suite *suite = suite_create("message");
	TCase *tcase = tcase_create("message");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, every_operation_goes_there_and_back_with_and_without_its_options, 0,
	                    OPERATION_COUNT);
	tcase_add_loop_test(tcase, an_operation_refuses_what_it_has_not_and_misses_what_it_needs, 0, OPERATION_COUNT);
	tcase_add_test(tcase, only_the_attach_socket_answers_what_carries_descriptors_or_leases);
	tcase_add_test(tcase, every_reply_field_goes_there_and_back);
	tcase_add_loop_test(tcase, requests_written_by_hand_are_judged_with_a_sentence, 0, COUNT(requests_by_hand));
	tcase_add_loop_test(tcase, replies_written_by_hand_are_judged_with_a_sentence, 0, COUNT(replies_by_hand));
	tcase_add_test(tcase, a_message_is_split_only_when_its_sizes_add_up);
	tcase_add_test(tcase, a_message_that_does_not_fit_is_not_written_beyond_its_room);
	tcase_add_test(tcase, a_header_over_the_limit_is_refused_with_both_numbers);
	tcase_add_loop_test(tcase, every_prefix_of_every_valid_message_is_refused, 0, OPERATION_COUNT);
	tcase_add_test(tcase, every_prefix_of_a_full_reply_is_refused);
	tcase_add_loop_test(tcase, every_changed_byte_of_a_request_is_survived, 0, OPERATION_COUNT);
	tcase_add_test(tcase, outcomes_have_names_that_are_parsed_back);
#if HEAP_IS_COUNTED
	tcase_add_test(tcase, steady_messages_do_not_allocate);
#endif
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
