/*
 * Trainers and readers that share no memory with the daemon, as the service sees them: what is refused, what is counted,
 * and when their claims and leases end.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/tokens.h"
#include "tests/unit/fake_host.h"

enum { KEEPALIVE_MS = 60000, PEER = 4000, OTHER_PEER = 4001, LEASE = 77, BYTES = FAKE_ELEMENTS * sizeof(float) };

static struct fake_host host;
static struct fake_trainer trainer;

static void setup(void)
{
	fake_host_init(&host);
	host.prompt = true;
	fake_host_start(&host);
	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	trainer.profiles[0] = "ema=constant:decay=0.5";
}

static void teardown(void)
{
	fake_trainer_finish(&trainer);
	fake_host_finish(&host);
}

static struct request request_of(enum operation operation)
{
	struct request request = { .operation = operation };

	request_set(&request, model, text_of("net"));
	request_set(&request, rank, 0);
	request_set(&request, epoch, trainer.epoch);
	request_set(&request, client, trainer.client);
	return request;
}

static uint64_t claim(uint64_t peer)
{
	struct request request = request_of(OP_CLAIM);

	return fake_host_ask(&host, peer, &request, NULL, 0);
}

/* Registers, and claims the stages. */
static void join(void)
{
	const struct fake_reply *reply;

	fake_trainer_registered(&trainer, fake_trainer_register(&trainer));
	reply = fake_host_expect(&host, claim(PEER), 0);
	ck_assert_uint_eq(reply->reply.stage_count, host.settings.stage_count);
}

static struct request chunk_of(uint64_t sequence, uint64_t stage)
{
	struct request request = request_of(OP_CHUNK);

	request_set(&request, sequence, sequence);
	request_set(&request, stage, stage);
	request_set(&request, offset, 0);
	return request;
}

static uint64_t chunk(uint64_t sequence, uint64_t stage, float value)
{
	struct request request = chunk_of(sequence, stage);
	float values[FAKE_ELEMENTS];

	for (int i = 0; i < FAKE_ELEMENTS; i++)
		values[i] = value;
	return fake_host_ask(&host, PEER, &request, values, sizeof values);
}

static uint64_t push(uint64_t sequence, uint64_t step, uint64_t stage)
{
	struct request request = request_of(OP_PUSH);

	request_set(&request, sequence, sequence);
	request_set(&request, step, step);
	request_set(&request, stage, stage);
	request_set(&request, chunked, true);
	return fake_host_ask(&host, PEER, &request, NULL, 0);
}

static void send_whole(uint64_t sequence, uint64_t step, float value)
{
	ck_assert_uint_eq(fake_host_expect(&host, chunk(sequence, 0, value), 0)->reply.missing, BYTES);
	ck_assert_str_eq(fake_host_expect(&host, push(sequence, step, 0), 0)->outcome, "accepted");
}

static uint64_t lease(uint64_t number, uint64_t min_step)
{
	struct request request = { .operation = OP_LEASE };

	request_set(&request, model, text_of("net"));
	request_set(&request, lease, number);
	if (min_step > 0) {
		request_set(&request, min_step, min_step);
		request_set(&request, timeout_ms, 100);
	}
	return fake_host_ask(&host, OTHER_PEER, &request, NULL, 0);
}

static uint64_t fetch(uint64_t number, uint64_t offset, uint64_t count)
{
	struct request request = { .operation = OP_FETCH };

	request_set(&request, lease, number);
	request_set(&request, offset, offset);
	request_set(&request, count, count);
	return fake_host_ask(&host, OTHER_PEER, &request, NULL, 0);
}

START_TEST(a_snapshot_in_chunks_is_averaged_like_any_other)
{
	join();
	send_whole(10, 1, 1);
	send_whole(11, 2, 3);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 2);
}
END_TEST

START_TEST(a_push_waits_for_no_byte_and_says_which_is_missing)
{
	const struct fake_reply *reply;

	join();
	reply = fake_host_expect(&host, push(10, 1, 0), -EAGAIN);
	ck_assert(reply->reply.present & REPLY_HAS(missing));
	ck_assert_uint_eq(reply->reply.missing, 0);
	/* The same push again, when they have come. */
	send_whole(10, 1, 1);
	ck_assert_str_eq(fake_host_expect(&host, push(10, 1, 0), 0)->outcome, "started");
}
END_TEST

START_TEST(chunks_of_another_push_do_not_count)
{
	join();
	fake_host_expect(&host, chunk(10, 0, 1), 0);
	fake_host_expect(&host, push(11, 1, 0), -EAGAIN);
	fake_host_expect(&host, push(10, 1, 1), -EAGAIN);
	fake_host_expect(&host, chunk(11, 0, 1), 0);
	/* A connection that was thought dead delivers late. */
	fake_host_expect(&host, chunk(10, 0, 9), STATUS_EARGUMENT);
	ck_assert_str_eq(fake_host_expect(&host, push(11, 1, 0), 0)->outcome, "accepted");
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 1);
}
END_TEST

START_TEST(hostile_chunks_are_refused)
{
	struct request request;
	float values[2 * FAKE_ELEMENTS] = { 9 };

	join();
	request = chunk_of(10, 0);
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES - 1), STATUS_EARGUMENT);
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES + 1), STATUS_EARGUMENT);
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, NULL, 0), STATUS_EARGUMENT);
	request.offset = 4;
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES - 4), STATUS_EARGUMENT);
	request.offset = UINT64_MAX - CHUNK_BYTES_MAX + 1;
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES), STATUS_EARGUMENT);
	request = chunk_of(10, host.settings.stage_count);
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES), STATUS_EARGUMENT);
	request = chunk_of(10, UINT64_MAX);
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES), STATUS_EARGUMENT);
	request = chunk_of(0, 0);
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES), STATUS_EARGUMENT);
	request = chunk_of(10, 0);
	request.epoch++;
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES), STATUS_EFENCED);
	request = chunk_of(10, 0);
	request.client++;
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES), STATUS_EFENCED);
	request = chunk_of(10, 0);
	request.rank = 1;
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES), STATUS_EARGUMENT);
	request = chunk_of(10, 0);
	request.model = text_of("other");
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, values, BYTES), STATUS_ENOMODEL);
	fake_host_expect(&host, push(10, 1, 0), -EAGAIN);
}
END_TEST

/* Ones as bfloat16, as many as wanted. */
static uint64_t narrow_chunk(uint64_t sequence, const char *dtype, size_t count)
{
	struct request request = chunk_of(sequence, 0);
	uint16_t values[2 * FAKE_ELEMENTS];

	for (int i = 0; i < 2 * FAKE_ELEMENTS; i++)
		values[i] = 0x3f80;
	request_set(&request, dtype, text_of(dtype));
	return fake_host_ask(&host, PEER, &request, values, count * sizeof values[0]);
}

START_TEST(a_shorter_snapshot_is_widened_into_its_stage)
{
	join();
	ck_assert_uint_eq(fake_host_expect(&host, narrow_chunk(10, "BF16", FAKE_ELEMENTS), 0)->reply.missing, BYTES);
	/* Once more, as after a broken connection. */
	fake_host_expect(&host, narrow_chunk(10, "BF16", FAKE_ELEMENTS), 0);
	ck_assert_str_eq(fake_host_expect(&host, push(10, 1, 0), 0)->outcome, "accepted");
	send_whole(11, 2, 3);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 2);
}
END_TEST

START_TEST(a_shorter_chunk_of_another_size_or_dtype_is_refused)
{
	const struct fake_reply *reply;

	join();
	fake_host_expect(&host, narrow_chunk(10, "BF16", FAKE_ELEMENTS - 1), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_chunk(10, "BF16", 2 * FAKE_ELEMENTS), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_chunk(10, "F32", FAKE_ELEMENTS), STATUS_EARGUMENT);
	reply = fake_host_expect(&host, narrow_chunk(10, "F8_E4M3", FAKE_ELEMENTS / 2), STATUS_EARGUMENT);
	ck_assert_str_eq(reply->error, "snapshots cannot travel as 'F8_E4M3', but as F32, F16 or BF16");
	fake_host_expect(&host, narrow_chunk(10, "F64", 2 * FAKE_ELEMENTS), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_chunk(10, "I16", FAKE_ELEMENTS), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_chunk(10, "", FAKE_ELEMENTS), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_chunk(10, "BF16BF16BF16BF16BF16BF16", FAKE_ELEMENTS), STATUS_EARGUMENT);
	fake_host_expect(&host, push(10, 1, 0), -EAGAIN);
}
END_TEST

START_TEST(a_shorter_chunk_has_no_place_in_the_stage)
{
	struct exchange exchange = { .peer = { .id = PEER, .uid = -1, .pid = -1 } };
	struct request request;
	uint8_t bytes[512];
	size_t count;

	join();
	request = chunk_of(10, 0);
	request_set(&request, dtype, text_of("BF16"));
	ck_assert_int_eq(request_encode(&request, bytes, sizeof bytes, &count, NULL), 0);
	ck_assert_ptr_null(service_body_place(host.service, &host.now, &exchange, bytes + MESSAGE_PREFIX_BYTES,
	                                      count - MESSAGE_PREFIX_BYTES, BYTES / 2));
	/* Nothing is any shorter. */
	request_set(&request, dtype, text_of("F32"));
	ck_assert_int_eq(request_encode(&request, bytes, sizeof bytes, &count, NULL), 0);
	ck_assert_ptr_nonnull(service_body_place(host.service, &host.now, &exchange, bytes + MESSAGE_PREFIX_BYTES,
	                                         count - MESSAGE_PREFIX_BYTES, BYTES));
}
END_TEST

START_TEST(nothing_is_received_into_a_stage_whose_snapshot_was_taken)
{
	uint64_t before;

	host.prompt = false;
	fake_trainer_registered(&trainer, (fake_trainer_register(&trainer), fake_host_settle(&host), host.request_count));
	(void)claim(PEER);
	fake_host_settle(&host);
	fake_host_expect(&host, chunk(10, 0, 1), 0);
	before = host.withdraw_count;
	ck_assert_str_eq(fake_host_expect(&host, push(10, 1, 0), 0)->outcome, "accepted");
	ck_assert_uint_eq(host.withdraw_count, before + 1);
	fake_host_expect(&host, chunk(10, 0, 9), STATUS_EARGUMENT);
	fake_host_expect(&host, chunk(11, 0, 9), STATUS_EARGUMENT);
	fake_host_settle(&host);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 1);
}
END_TEST

START_TEST(a_body_has_a_place_only_where_its_chunk_is_right)
{
	struct exchange exchange = { .peer = { .id = PEER, .uid = -1, .pid = -1 }, .tag_bytes = sizeof host.request_count };
	uint8_t bytes[512];
	size_t count;
	struct request request;
	uint8_t *place;

	join();
	request = chunk_of(10, 1);
	ck_assert_int_eq(request_encode(&request, bytes, sizeof bytes, &count, NULL), 0);
	place = service_body_place(host.service, &host.now, &exchange, bytes + MESSAGE_PREFIX_BYTES,
	                           count - MESSAGE_PREFIX_BYTES, BYTES);
	ck_assert_ptr_nonnull(place);
	memset(place, 0, BYTES);
	/* Handed over where it already is. */
	host.request_count++;
	memcpy(exchange.tag, &host.request_count, sizeof host.request_count);
	service_request(host.service, &host.now, &exchange, bytes + MESSAGE_PREFIX_BYTES, count - MESSAGE_PREFIX_BYTES, place,
	                BYTES);
	ck_assert_str_eq(fake_host_expect(&host, push(10, 1, 1), 0)->outcome, "accepted");

	ck_assert_ptr_null(service_body_place(host.service, &host.now, &exchange, bytes + MESSAGE_PREFIX_BYTES,
	                                      count - MESSAGE_PREFIX_BYTES, BYTES + 1));
	exchange.peer.refused = 1 << ACCESS_PUSH;
	ck_assert_ptr_null(service_body_place(host.service, &host.now, &exchange, bytes + MESSAGE_PREFIX_BYTES,
	                                      count - MESSAGE_PREFIX_BYTES, BYTES));
}
END_TEST

START_TEST(stages_are_kept_over_a_broken_connection_and_given_back_after_silence)
{
	uint64_t bytes;

	join();
	send_whole(10, 1, 1);
	bytes = host.segment_bytes;
	fake_host_gone(&host, PEER);
	fake_host_wait(&host, KEEPALIVE_MS - 1);
	ck_assert_uint_eq(host.segment_bytes, bytes);
	/* It was heard again. */
	fake_host_expect(&host, chunk(11, 0, 3), 0);
	fake_host_wait(&host, 2 * KEEPALIVE_MS);
	ck_assert_uint_eq(host.segment_bytes, bytes);
	fake_host_gone(&host, PEER);
	fake_host_wait(&host, KEEPALIVE_MS);
	ck_assert_uint_lt(host.segment_bytes, bytes);
	/* And comes back after all. */
	fake_host_expect(&host, chunk(12, 0, 3), -EAGAIN);
	fake_host_expect(&host, claim(PEER), 0);
	send_whole(13, 2, 3);
	ck_assert_float_eq(fake_average(&host, "net", "ema"), 2);
}
END_TEST

START_TEST(a_trainer_that_leaves_gives_its_stages_back_at_once)
{
	struct request request;
	uint64_t bytes;

	join();
	request = request_of(OP_RELEASE);
	bytes = host.segment_bytes;
	request.epoch++;
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, NULL, 0), STATUS_EFENCED);
	request.epoch--;
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, NULL, 0), 0);
	ck_assert_uint_lt(host.segment_bytes, bytes);
	request = (struct request){ .operation = OP_RELEASE };
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, NULL, 0), STATUS_EARGUMENT);
}
END_TEST

START_TEST(an_image_is_fetched_in_parts_of_the_leased_version)
{
	const struct fake_reply *view, *reply;
	uint64_t bytes, offset;

	join();
	send_whole(10, 1, 1);
	reply = fake_host_expect(&host, lease(LEASE, 0), 0);
	bytes = reply->reply.region_bytes;
	ck_assert_uint_eq(reply->reply.step, 1);
	view = fake_host_expect(&host, fake_view(&host, 50, "net", NULL, 0, 0), 0);
	offset = (uint64_t)(fake_tensor(&host, view, "w") - fake_host_map(&host, view->fd)) - view->reply.region_offset;
	/* Other versions come, this one stays. */
	send_whole(11, 2, 3);
	reply = fake_host_expect(&host, fetch(LEASE, offset, BYTES), 0);
	ck_assert_float_eq(((const float *)(const void *)reply->body)[0], 1);

	fake_host_expect(&host, fetch(LEASE, bytes, 0), 0);
	fake_host_expect(&host, fetch(LEASE, bytes, 1), STATUS_EARGUMENT);
	fake_host_expect(&host, fetch(LEASE, UINT64_MAX, 2), STATUS_EARGUMENT);
	fake_host_expect(&host, fetch(LEASE, 0, CHUNK_BYTES_MAX + 1), STATUS_ELIMIT);
	fake_host_expect(&host, fetch(LEASE + 1, 0, 1), STATUS_EREVOKED);
	/* The same lease again is the same version. */
	ck_assert_uint_eq(fake_host_expect(&host, lease(LEASE, 0), 0)->reply.step, 1);
	fake_host_expect(&host, lease(0, 0), STATUS_EARGUMENT);
}
END_TEST

static uint64_t narrow_fetch(const char *dtype, uint64_t offset, uint64_t count)
{
	struct request request = { .operation = OP_FETCH };

	request_set(&request, lease, LEASE);
	request_set(&request, offset, offset);
	request_set(&request, count, count);
	request_set(&request, dtype, text_of(dtype));
	return fake_host_ask(&host, OTHER_PEER, &request, NULL, 0);
}

START_TEST(a_part_of_an_image_is_converted_on_its_way)
{
	const struct fake_reply *view, *reply;
	uint64_t bytes, data, header;

	join();
	send_whole(10, 1, 1);
	reply = fake_host_expect(&host, lease(LEASE, 0), 0);
	bytes = reply->reply.region_bytes;
	header = reply->reply.header_bytes;
	view = fake_host_expect(&host, fake_view(&host, 50, "net", NULL, 0, 0), 0);
	data = (uint64_t)(fake_tensor(&host, view, "w") - fake_host_map(&host, view->fd)) - view->reply.region_offset;
	ck_assert_uint_eq(bytes, data + BYTES);
	/* The header ends with its last brace. */
	ck_assert_uint_lt(header, data);
	reply = fake_host_expect(&host, fetch(LEASE, header - 1, 2), 0);
	ck_assert_str_eq(reply->body, "} ");

	reply = fake_host_expect(&host, narrow_fetch("BF16", data + 4, BYTES - 8), 0);
	for (int i = 0; i < FAKE_ELEMENTS - 2; i++)
		ck_assert_uint_eq(((const uint16_t *)(const void *)reply->body)[i], 0x3f80);
	reply = fake_host_expect(&host, narrow_fetch("F8_E5M2", data, BYTES), 0);
	for (int i = 0; i < FAKE_ELEMENTS; i++)
		ck_assert_uint_eq(((const uint8_t *)reply->body)[i], 0x3c);
	reply = fake_host_expect(&host, narrow_fetch("F32", data, BYTES), 0);
	ck_assert_float_eq(((const float *)(const void *)reply->body)[FAKE_ELEMENTS - 1], 1);
	fake_host_expect(&host, narrow_fetch("BF16", bytes, 0), 0);

	fake_host_expect(&host, narrow_fetch("BF16", data + 2, 4), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_fetch("BF16", data, 5), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_fetch("BF16", data - 4, 8), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_fetch("BF16", bytes, 4), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_fetch("BF16", UINT64_MAX, 4), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_fetch("F64", data, BYTES), STATUS_EARGUMENT);
	fake_host_expect(&host, narrow_fetch("I32", data, BYTES), STATUS_EARGUMENT);
	reply = fake_host_expect(&host, narrow_fetch("bf16", data, BYTES), STATUS_EARGUMENT);
	ck_assert_str_eq(reply->error,
	                 "averages cannot travel as 'bf16', but as F32, F16, BF16, F8_E4M3 or F8_E5M2");
}
END_TEST

/* Pairs of first byte and number of bytes, for a request's body. */
static size_t ranges_write(uint8_t *body, const uint64_t *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		for (int b = 0; b < 8; b++)
			body[8 * i + (size_t)b] = (uint8_t)(numbers[i] >> (56 - 8 * b));
	return 8 * count;
}

static uint64_t ranges_fetch(const char *dtype, const uint64_t *numbers, size_t number_count, uint64_t count)
{
	static uint8_t body[(FETCH_RANGE_COUNT_MAX + 1) * FETCH_RANGE_BYTES];
	struct request request = { .operation = OP_FETCH };

	request_set(&request, lease, LEASE);
	request_set(&request, offset, 0);
	request_set(&request, count, count);
	if (dtype)
		request_set(&request, dtype, text_of(dtype));
	return fake_host_ask(&host, OTHER_PEER, &request, body, ranges_write(body, numbers, number_count));
}

START_TEST(several_parts_of_an_image_come_at_once)
{
	uint64_t many[2 * (FETCH_RANGE_COUNT_MAX + 1)] = { 0 };
	const struct fake_reply *reply;
	uint64_t bytes, data;

	join();
	send_whole(10, 1, 1);
	reply = fake_host_expect(&host, lease(LEASE, 0), 0);
	bytes = reply->reply.region_bytes;
	data = bytes - BYTES;

	reply = fake_host_expect(&host, ranges_fetch(NULL, (uint64_t[]){ reply->reply.header_bytes - 1, 1, data, 4, 8, 2 }, 6, 7), 0);
	ck_assert_mem_eq(reply->body, "}\0\0\x80\x3f{\"", 7);
	reply = fake_host_expect(&host, ranges_fetch("BF16", (uint64_t[]){ data, 4, bytes, 0, data + 8, 8 }, 6, 12), 0);
	ck_assert_mem_eq(reply->body, "\x80\x3f\x80\x3f\x80\x3f", 6);
	for (size_t i = 0; i < FETCH_RANGE_COUNT_MAX; i++) {
		many[2 * i] = data + 3;
		many[2 * i + 1] = 1;
	}
	reply = fake_host_expect(&host, ranges_fetch(NULL, many, 2 * FETCH_RANGE_COUNT_MAX, FETCH_RANGE_COUNT_MAX), 0);
	for (size_t i = 0; i < FETCH_RANGE_COUNT_MAX; i++)
		ck_assert_int_eq(reply->body[i], 0x3f);

	fake_host_expect(&host, ranges_fetch(NULL, many, 2 * FETCH_RANGE_COUNT_MAX + 2, FETCH_RANGE_COUNT_MAX), STATUS_ELIMIT);
	fake_host_expect(&host, ranges_fetch(NULL, many, 3, 1), STATUS_ELIMIT);
	fake_host_expect(&host, ranges_fetch(NULL, many, 4, 1), STATUS_EARGUMENT);
	fake_host_expect(&host, ranges_fetch(NULL, (uint64_t[]){ 0, 1, bytes, 1 }, 4, 2), STATUS_EARGUMENT);
	fake_host_expect(&host, ranges_fetch(NULL, (uint64_t[]){ 0, 1, UINT64_MAX, 2 }, 4, 3), STATUS_EARGUMENT);
	fake_host_expect(&host, ranges_fetch(NULL, (uint64_t[]){ 0, 1, 0, UINT64_MAX }, 4, 0), STATUS_ELIMIT);
	fake_host_expect(&host, ranges_fetch("F16", (uint64_t[]){ data, 4, data + 2, 4 }, 4, 8), STATUS_EARGUMENT);
	fake_host_expect(&host, ranges_fetch("F16", (uint64_t[]){ data, 4, 0, 4 }, 4, 8), STATUS_EARGUMENT);
}
END_TEST

START_TEST(a_lease_ends_by_silence_by_request_and_with_its_model)
{
	struct request release = { .operation = OP_RELEASE };

	join();
	send_whole(10, 1, 1);
	fake_host_expect(&host, lease(LEASE, 0), 0);
	fake_host_wait(&host, KEEPALIVE_MS - 1);
	fake_host_expect(&host, fetch(LEASE, 0, 8), 0);
	fake_host_wait(&host, KEEPALIVE_MS - 1);
	fake_host_expect(&host, fetch(LEASE, 0, 8), 0);
	fake_host_wait(&host, KEEPALIVE_MS);
	fake_host_expect(&host, fetch(LEASE, 0, 8), STATUS_EREVOKED);

	fake_host_expect(&host, lease(LEASE, 0), 0);
	request_set(&release, lease, LEASE);
	fake_host_expect(&host, fake_host_ask(&host, OTHER_PEER, &release, NULL, 0), 0);
	fake_host_expect(&host, fake_host_ask(&host, OTHER_PEER, &release, NULL, 0), 0);
	fake_host_expect(&host, fetch(LEASE, 0, 8), STATUS_EREVOKED);

	fake_host_expect(&host, lease(LEASE, 0), 0);
	fake_host_expect(&host, fake_query(&host, OP_REMOVE, "net"), 0);
	fake_host_expect(&host, fetch(LEASE, 0, 8), STATUS_EREVOKED);
	fake_host_expect(&host, lease(LEASE, 0), STATUS_EREVOKED);
}
END_TEST

START_TEST(a_slow_reader_s_version_is_taken_back_for_an_update_after_its_time)
{
	join();
	for (uint64_t step = 1; step <= 3; step++) {
		send_whole(10 + step, step, (float)step);
		fake_host_expect(&host, lease(LEASE + step, 0), 0);
	}
	/* All slots are leased; fetching does not make the guaranteed time longer. */
	fake_host_expect(&host, chunk(20, 0, 4), 0);
	fake_host_expect(&host, push(20, 4, 0), 0);
	fake_host_wait(&host, host.settings.lease_min_ms / 2);
	fake_host_expect(&host, fetch(LEASE + 1, 0, 8), 0);
	fake_host_wait(&host, host.settings.lease_min_ms / 2);
	fake_host_expect(&host, fetch(LEASE + 1, 0, 8), STATUS_EREVOKED);
	fake_host_expect(&host, fetch(LEASE + 3, 0, 8), 0);
}
END_TEST

START_TEST(a_lease_waits_for_its_step)
{
	uint64_t number;

	join();
	send_whole(10, 1, 1);
	number = lease(LEASE, 2);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	send_whole(11, 2, 1);
	ck_assert_uint_eq(fake_host_expect(&host, number, 0)->reply.step, 2);
	number = lease(LEASE + 1, 3);
	fake_host_wait(&host, 100);
	fake_host_expect(&host, number, STATUS_ETIMEOUT);
}
END_TEST

START_TEST(a_remote_peer_is_named_by_its_token_alone)
{
	static struct tokens tokens;
	struct request request = { .operation = OP_HELLO };

	ck_assert_int_eq(tokens_parse("someone 0123456789abcdef push", &tokens, NULL), 0);
	host.settings.tokens = &tokens;
	service_reconfigure(host.service, &host.now, &host.settings);
	request_set(&request, token, text_of("0123456789abcdeX"));
	/* On this host nobody looks at it. */
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, NULL, 0), 0);
	host.remote = true;
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, NULL, 0), -EACCES);
	ck_assert_str_eq(host.identified, "");
	request.token = text_of("0123456789abcdef");
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, NULL, 0), 0);
	ck_assert_str_eq(host.identified, "someone");
	host.settings.tokens = NULL;
	service_reconfigure(host.service, &host.now, &host.settings);
	fake_host_expect(&host, fake_host_ask(&host, PEER, &request, NULL, 0), -EACCES);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_remote");
	TCase *tests = tcase_create("service_remote");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, a_snapshot_in_chunks_is_averaged_like_any_other);
	tcase_add_test(tests, a_push_waits_for_no_byte_and_says_which_is_missing);
	tcase_add_test(tests, chunks_of_another_push_do_not_count);
	tcase_add_test(tests, hostile_chunks_are_refused);
	tcase_add_test(tests, a_shorter_snapshot_is_widened_into_its_stage);
	tcase_add_test(tests, a_shorter_chunk_of_another_size_or_dtype_is_refused);
	tcase_add_test(tests, a_shorter_chunk_has_no_place_in_the_stage);
	tcase_add_test(tests, nothing_is_received_into_a_stage_whose_snapshot_was_taken);
	tcase_add_test(tests, a_body_has_a_place_only_where_its_chunk_is_right);
	tcase_add_test(tests, stages_are_kept_over_a_broken_connection_and_given_back_after_silence);
	tcase_add_test(tests, a_trainer_that_leaves_gives_its_stages_back_at_once);
	tcase_add_test(tests, an_image_is_fetched_in_parts_of_the_leased_version);
	tcase_add_test(tests, a_part_of_an_image_is_converted_on_its_way);
	tcase_add_test(tests, several_parts_of_an_image_come_at_once);
	tcase_add_test(tests, a_lease_ends_by_silence_by_request_and_with_its_model);
	tcase_add_test(tests, a_slow_reader_s_version_is_taken_back_for_an_update_after_its_time);
	tcase_add_test(tests, a_lease_waits_for_its_step);
	tcase_add_test(tests, a_remote_peer_is_named_by_its_token_alone);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
