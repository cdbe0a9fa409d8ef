/*
 * HTTP requests to the service: what is answered, who may ask, and what a download holds.
 */
#include "daemon/core/web.h"

#include "daemon/core/metrics.h"
#include "tests/unit/failing_heap.h"
#include "tests/unit/fake_host.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEER = 5 };

static struct fake_host host;
static struct web_answer answer;

static void setup(void)
{
	fake_host_init(&host);
	host.prompt = true;
	fake_host_start(&host);
	answer = (struct web_answer){ .fd = -1 };
}

static void teardown(void)
{
	free(answer.body);
	fake_host_finish(&host);
}

static const struct web_rules open_rules = { .token = "", .is_ready = true };

static int ask_with(const struct web_request *request, const struct web_rules *rules)
{
	free(answer.body);
	web_handle(host.service, &host.now, request, rules, &answer);
	return answer.code;
}

static int ask(const char *path)
{
	const struct web_request request = { .peer = PEER_DOWNLOAD_FIRST + PEER, .path = path };

	return ask_with(&request, &open_rules);
}

static const char *header(const char *name)
{
	for (uint32_t i = 0; i < answer.header_count; i++)
		if (strcmp(answer.headers[i].name, name) == 0)
			return answer.headers[i].value;
	return NULL;
}

static void push(struct fake_trainer *trainer, uint64_t step)
{
	fake_trainer_fill(trainer, 0, (float)step);
	(void)fake_host_expect(&host, fake_trainer_push(trainer, step, 0, true), 0);
}

static struct fake_trainer trainer_of(const char *model)
{
	struct fake_trainer trainer;

	fake_trainer_init(&trainer, &host, model, fake_manifest(0, 1));
	fake_trainer_join(&trainer);
	return trainer;
}

START_TEST(a_model_without_a_version_has_no_average_yet)
{
	struct fake_trainer trainer = trainer_of("run/net");

	ck_assert_int_eq(ask("/v1/models/run/net"), 200);
	ck_assert_int_eq(ask("/v1/models/run/net/ema.safetensors"), 404);
	ck_assert_ptr_nonnull(strstr(answer.body, "no averaged version yet"));
	ck_assert_int_eq(ask("/metrics"), 200);
	ck_assert_ptr_null(strstr(answer.body, "emad_model_step{"));
	ck_assert_ptr_nonnull(strstr(answer.body, "emad_model_version{model=\"run/net\"} 0\n"));
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(a_download_holds_its_version_until_its_peer_is_gone)
{
	struct fake_trainer trainer = trainer_of("net");
	const struct web_request head = { .peer = PEER_DOWNLOAD_FIRST + 9, .head = true,
		                          .path = "/v1/models/net/ema.safetensors" };
	const struct counters *counters = service_counters(host.service);
	const uint8_t *segment;
	uint64_t fence;

	push(&trainer, 1);
	ck_assert_int_eq(ask_with(&head, &open_rules), 200);
	ck_assert_int_eq(answer.fd, -1);
	ck_assert(answer.is_download && answer.byte_count > 4096);
	ck_assert_int_eq(ask("/v1/models/net/ema.safetensors"), 200);
	ck_assert_int_ge(answer.fd, 0);
	ck_assert_str_eq(header("X-Emad-Step"), "1");
	ck_assert(!web_is_over(host.service, &host.now, PEER_DOWNLOAD_FIRST + PEER, 0));
	segment = fake_host_map(&host, answer.fd);
	fence = answer.fence;
	ck_assert_mem_eq(segment + answer.offset + 8, "{\"w\":", 5);
	/* Of three slots two are left for updates. */
	for (uint64_t step = 2; step < 9; step++)
		push(&trainer, step);
	ck_assert_uint_eq(((const struct slot_header *)(const void *)segment)->fence, fence);
	ck_assert_uint_eq(((const struct slot_header *)(const void *)segment)->step, 1);
	fake_host_gone(&host, PEER_DOWNLOAD_FIRST + PEER);
	push(&trainer, 9);
	push(&trainer, 10);
	ck_assert_uint_ne(((const struct slot_header *)(const void *)segment)->fence, fence);
	ck_assert_uint_eq(counters->downloads_begun, 1);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(updates_wait_for_downloads_as_long_as_for_readers)
{
	struct fake_trainer trainer = trainer_of("net");
	uint64_t number, since_ms = host.now.monotonic_ms;
	struct web_request request = { .path = "/v1/models/net/ema.safetensors" };

	for (uint64_t step = 1; step <= 2; step++) {
		push(&trainer, step);
		request.peer = PEER_DOWNLOAD_FIRST + step;
		ck_assert_int_eq(ask_with(&request, &open_rules), 200);
	}
	push(&trainer, 3);
	fake_trainer_fill(&trainer, 0, 4);
	number = fake_trainer_push(&trainer, 4, 0, true);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_host_wait(&host, host.settings.lease_min_ms - 1000);
	ck_assert_ptr_null(fake_host_answer(&host, number));
	fake_host_wait(&host, 2000);
	(void)fake_host_expect(&host, number, 0);
	ck_assert_uint_eq(service_counters(host.service)->leases_revoked, 1);
	ck_assert(web_is_over(host.service, &host.now, PEER_DOWNLOAD_FIRST + 1, since_ms));
	ck_assert(!web_is_over(host.service, &host.now, PEER_DOWNLOAD_FIRST + 2, since_ms));
	/* One that has just begun goes on even if its lease went with its model. */
	ck_assert(!web_is_over(host.service, &host.now, PEER_DOWNLOAD_FIRST + 1, host.now.monotonic_ms));
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(tags_change_with_the_version_and_the_profile)
{
	struct fake_trainer trainer;
	char tag[200];
	struct web_request request = { .peer = PEER_DOWNLOAD_FIRST, .path = "/v1/models/net/ema.safetensors" };

	fake_trainer_init(&trainer, &host, "net", fake_manifest(0, 1));
	trainer.profiles[0] = "ema=yolo";
	trainer.profiles[1] = "fast=constant:decay=0.5";
	trainer.profile_count = 2;
	fake_trainer_join(&trainer);
	push(&trainer, 1);
	ck_assert_int_eq(ask("/v1/models/net/fast.safetensors"), 200);
	strcpy(tag, header("ETag"));
	ck_assert_int_eq(ask("/v1/models/net/ema.safetensors"), 200);
	ck_assert_str_ne(tag, header("ETag"));
	strcpy(tag, header("ETag"));
	request.conditions.if_none_match = tag;
	ck_assert_int_eq(ask_with(&request, &open_rules), 304);
	ck_assert_str_eq(header("ETag"), tag);
	ck_assert_int_eq(answer.fd, -1);
	push(&trainer, 2);
	ck_assert_int_eq(ask_with(&request, &open_rules), 200);
	ck_assert_str_ne(header("ETag"), tag);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(tokens_are_compared_as_a_whole)
{
	char longest[WEB_TOKEN_BYTES_MAX + 1], longer[WEB_TOKEN_BYTES_MAX + 2];

	memset(longest, 'x', sizeof longest);
	memset(longer, 'x', sizeof longer);
	longest[WEB_TOKEN_BYTES_MAX] = longer[WEB_TOKEN_BYTES_MAX + 1] = '\0';
	ck_assert(web_token_equal("secret", "secret"));
	ck_assert(!web_token_equal("secret", NULL));
	ck_assert(!web_token_equal("secret", ""));
	ck_assert(!web_token_equal("secret", "secre"));
	ck_assert(!web_token_equal("secret", "secrets"));
	ck_assert(!web_token_equal("secret", "Secret"));
	ck_assert(web_token_equal(longest, longest));
	ck_assert(!web_token_equal(longest, longer));
}
END_TEST

START_TEST(who_may_not_ask_learns_nothing)
{
	const struct web_rules token = { .token = "the right token", .is_ready = true };
	const struct web_rules unread = { .token = "", .is_unread = true };
	struct web_request request = { .path = "/v1/models", .token = "the right token" };

	ck_assert_int_eq(ask_with(&request, &token), 200);
	request.token = "the wrong token";
	ck_assert_int_eq(ask_with(&request, &token), 401);
	ck_assert_ptr_nonnull(header("WWW-Authenticate"));
	request.path = "/nowhere";
	ck_assert_int_eq(ask_with(&request, &token), 401);
	request.path = "/healthz";
	ck_assert_int_eq(ask_with(&request, &token), 200);
	request = (struct web_request){ .path = "/metrics" };
	ck_assert_int_eq(ask_with(&request, &unread), 403);
	request.path = "/readyz";
	ck_assert_int_eq(ask_with(&request, &unread), 503);
	request = (struct web_request){ .path = "/", .is_loopback = true, .host = "evil.example:80" };
	ck_assert_int_eq(ask_with(&request, &open_rules), 421);
	request.token = "the right token";
	ck_assert_int_eq(ask_with(&request, &token), 200);
}
END_TEST

START_TEST(the_page_names_its_nonce_in_its_policy)
{
	const char *policy, *nonce;
	char marked[80], before[40];

	ck_assert_int_eq(ask("/"), 200);
	policy = header("Content-Security-Policy");
	nonce = strstr(policy, "'nonce-");
	ck_assert_ptr_nonnull(nonce);
	snprintf(before, sizeof before, "%.32s", nonce + 7);
	snprintf(marked, sizeof marked, "nonce=\"%s\"", before);
	ck_assert_ptr_nonnull(strstr(answer.body, marked));
	ck_assert_ptr_null(strstr(answer.body, "@nonce@"));
	ck_assert_ptr_null(strstr(policy, "unsafe"));
	ck_assert_int_eq(ask("/"), 200);
	ck_assert_ptr_null(strstr(header("Content-Security-Policy"), before));
}
END_TEST

START_TEST(metrics_come_in_two_formats)
{
	struct web_request request = { .path = "/metrics", .accept = "application/openmetrics-text" };
	struct fake_trainer trainer = trainer_of("net");

	push(&trainer, 7);
	ck_assert_int_eq(ask_with(&request, &open_rules), 200);
	ck_assert_str_eq(header("Content-Type"), METRICS_TYPE_OPEN);
	ck_assert_str_eq(answer.body + answer.body_bytes - 6, "# EOF\n");
	ck_assert_ptr_nonnull(strstr(answer.body, "# TYPE emad_pushes_applied counter\n"));
	ck_assert_ptr_nonnull(strstr(answer.body, "\nemad_pushes_applied_total 1\n"));
	ck_assert_ptr_nonnull(strstr(answer.body, "\nemad_model_step{model=\"net\"} 7\n"));
	ck_assert_ptr_nonnull(strstr(answer.body, "\nemad_profile_updates{model=\"net\",profile=\"ema\"} "));
	ck_assert_ptr_nonnull(strstr(answer.body, "\nemad_update_duration_seconds_count 1\n"));
	ck_assert_ptr_nonnull(strstr(answer.body, "\nemad_user_models{uid=\""));
	ck_assert_ptr_nonnull(strstr(answer.body, "\nemad_user_memory_bytes{uid=\""));
	ck_assert_ptr_null(strstr(answer.body, "emad_user_memory_limit_bytes"));
	ck_assert_ptr_nonnull(strstr(answer.body, "\n# UNIT emad_apply_seconds seconds\n"));
	/* Who says nothing, or takes anything, may be of before OpenMetrics. */
	ck_assert_int_eq(ask("/metrics"), 200);
	ck_assert_str_eq(header("Content-Type"), METRICS_TYPE_TEXT);
	request.accept = "text/plain;version=0.0.4";
	ck_assert_int_eq(ask_with(&request, &open_rules), 200);
	ck_assert_str_eq(header("Content-Type"), METRICS_TYPE_TEXT);
	request.accept = "*/*";
	ck_assert_int_eq(ask_with(&request, &open_rules), 200);
	ck_assert_str_eq(header("Content-Type"), METRICS_TYPE_TEXT);
	ck_assert_ptr_null(strstr(answer.body, "# EOF"));
	ck_assert_ptr_null(strstr(answer.body, "# UNIT"));
	ck_assert_ptr_nonnull(strstr(answer.body, "# TYPE emad_pushes_applied_total counter\n"));
	request.accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
	ck_assert_int_eq(ask_with(&request, &open_rules), 200);
	ck_assert_str_eq(header("Content-Type"), METRICS_TYPE_OPEN);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(times_fall_into_buckets_by_their_upper_bounds)
{
	struct metrics_times times = { .sum_us = 0 };

	metrics_time_add(&times, 0);
	metrics_time_add(&times, 100);
	metrics_time_add(&times, 101);
	metrics_time_add(&times, 30000000);
	metrics_time_add(&times, 30000001);
	metrics_time_add(&times, UINT64_C(1) << 40);
	ck_assert_uint_eq(times.counts[0], 2);
	ck_assert_uint_eq(times.counts[1], 1);
	ck_assert_uint_eq(times.counts[METRICS_BUCKET_COUNT - 1], 1);
	ck_assert_uint_eq(times.counts[METRICS_BUCKET_COUNT], 2);
	ck_assert_uint_eq(times.sum_us, 100 + 101 + 30000000 + 30000001 + (UINT64_C(1) << 40));
}
END_TEST

START_TEST(without_memory_a_request_fails_and_nothing_else)
{
	static const char *const paths[] = {
		"/", "/metrics", "/healthz", "/v1/status", "/v1/models", "/v1/models/net", "/v1/models/net/ema.safetensors",
		"/nowhere",
	};
	struct fake_trainer trainer = trainer_of("net");

	push(&trainer, 1);
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		struct web_request request = { .peer = PEER_DOWNLOAD_FIRST + i, .path = paths[i] };
		uint64_t nth = 1;
		bool failed;

		do {
			failing_heap_arm(nth++, true);
			(void)ask_with(&request, &open_rules);
			failed = failing_heap_disarm();
			ck_assert(!failed || (answer.code == 503 && answer.fd < 0));
			fake_host_gone(&host, request.peer);
		} while (failed);
		ck_assert_int_eq(answer.code, strcmp(paths[i], "/nowhere") == 0 ? 404 : 200);
	}
	push(&trainer, 2);
	fake_trainer_finish(&trainer);
}
END_TEST

START_TEST(other_methods_are_told_which_there_are)
{
	web_refuse_method("BREW", &answer);
	ck_assert_int_eq(answer.code, 405);
	ck_assert_str_eq(header("Allow"), "GET, HEAD");
	ck_assert_ptr_nonnull(strstr(answer.body, "'BREW'"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("web");
	TCase *tcase = tcase_create("web");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_model_without_a_version_has_no_average_yet);
	tcase_add_test(tcase, a_download_holds_its_version_until_its_peer_is_gone);
	tcase_add_test(tcase, updates_wait_for_downloads_as_long_as_for_readers);
	tcase_add_test(tcase, tags_change_with_the_version_and_the_profile);
	tcase_add_test(tcase, tokens_are_compared_as_a_whole);
	tcase_add_test(tcase, who_may_not_ask_learns_nothing);
	tcase_add_test(tcase, the_page_names_its_nonce_in_its_policy);
	tcase_add_test(tcase, metrics_come_in_two_formats);
	tcase_add_test(tcase, times_fall_into_buckets_by_their_upper_bounds);
	tcase_add_test(tcase, without_memory_a_request_fails_and_nothing_else);
	tcase_add_test(tcase, other_methods_are_told_which_there_are);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
