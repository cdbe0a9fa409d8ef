/*
 * How often the same may be said, on a clock of the test's own; and the ids of events.
 */
#include "daemon/core/event.h"
#include "daemon/core/throttle.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static const char origins[THROTTLE_ORIGIN_COUNT_MAX + 8];
static struct throttle throttle;

static void setup(void)
{
	memset(&throttle, 0, sizeof throttle);
}

/* Says it that often; how many were admitted. */
static int say(const void *origin, int count, uint64_t now_ms)
{
	int admitted = 0;

	for (int i = 0; i < count; i++)
		admitted += throttle_admit(&throttle, origin, "step 7 was refused", now_ms);
	return admitted;
}

START_TEST(a_burst_is_said_and_the_rest_is_counted)
{
	char text[512];

	ck_assert_int_eq(say(&origins[0], 1000, 5000), THROTTLE_BURST);
	ck_assert(!throttle_take(&throttle, 5000 + THROTTLE_REFILL_MS - 1, text, sizeof text));
	ck_assert(throttle_take(&throttle, 5000 + THROTTLE_REFILL_MS, text, sizeof text));
	ck_assert_str_eq(text, "936 similar messages were left out, the last: step 7 was refused");
	ck_assert(!throttle_take(&throttle, 5000 + THROTTLE_REFILL_MS, text, sizeof text));
}
END_TEST

START_TEST(one_is_said_every_second_in_the_long_run)
{
	enum { SECONDS = 500, EACH_SECOND = 20 };
	uint64_t left_out = 0, now_ms = 0;
	int said = 0, lines = 0;
	char text[512];

	for (int second = 0; second < SECONDS; second++)
		for (int i = 0; i < EACH_SECOND; i++) {
			now_ms = (uint64_t)second * 1000 + (uint64_t)i * 1000 / EACH_SECOND;
			while (throttle_take(&throttle, now_ms, text, sizeof text)) {
				left_out += strtoull(text, NULL, 10);
				lines++;
			}
			said += say(&origins[0], 1, now_ms);
		}
	while (throttle_take(&throttle, now_ms += 1000, text, sizeof text)) {
		left_out += strtoull(text, NULL, 10);
		lines++;
	}
	ck_assert_int_le(said + lines, THROTTLE_BURST + SECONDS + 1);
	ck_assert_int_ge(said + lines, THROTTLE_BURST + SECONDS - 5);
	/* None is lost without a trace. */
	ck_assert_uint_eq(left_out + (uint64_t)said, (uint64_t)SECONDS * EACH_SECOND);
}
END_TEST

START_TEST(one_origin_does_not_silence_another)
{
	ck_assert_int_eq(say(&origins[0], 500, 0), THROTTLE_BURST);
	ck_assert_int_eq(say(&origins[1], 1, 0), 1);
	ck_assert_int_eq(say(&origins[0], 1, 0), 0);
}
END_TEST

START_TEST(an_idle_bucket_fills_up_to_a_burst_and_no_further)
{
	char text[512];

	ck_assert_int_eq(say(&origins[0], THROTTLE_BURST, 0), THROTTLE_BURST);
	ck_assert_int_eq(say(&origins[0], 1000, UINT64_C(1) << 40), THROTTLE_BURST);
	ck_assert(throttle_take(&throttle, (UINT64_C(1) << 40) + THROTTLE_REFILL_MS, text, sizeof text));
	/* A clock that stands still, or goes back, gives nothing. */
	ck_assert_int_eq(say(&origins[0], 3, 0), 0);
}
END_TEST

START_TEST(more_origins_than_there_is_room_for_share_a_bucket)
{
	int admitted = 0;

	for (size_t i = 0; i < sizeof origins; i++)
		admitted += say(&origins[i], THROTTLE_BURST, 0);
	ck_assert_int_eq(admitted, THROTTLE_ORIGIN_COUNT_MAX * THROTTLE_BURST);
}
END_TEST

START_TEST(every_kind_has_an_id_of_its_own)
{
	ck_assert_ptr_null(event_id(EVENT_OTHER));
	for (int a = EVENT_OTHER + 1; a < EVENT_KIND_COUNT; a++) {
		const char *id = event_id((enum event_kind)a);

		ck_assert_uint_eq(strlen(id), 32);
		ck_assert_uint_eq(strspn(id, "0123456789abcdef"), 32);
		for (int b = EVENT_OTHER + 1; b < a; b++)
			ck_assert_str_ne(id, event_id((enum event_kind)b));
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("throttle");
	TCase *tcase = tcase_create("throttle");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, a_burst_is_said_and_the_rest_is_counted);
	tcase_add_test(tcase, one_is_said_every_second_in_the_long_run);
	tcase_add_test(tcase, one_origin_does_not_silence_another);
	tcase_add_test(tcase, an_idle_bucket_fills_up_to_a_burst_and_no_further);
	tcase_add_test(tcase, more_origins_than_there_is_room_for_share_a_bucket);
	tcase_add_test(tcase, every_kind_has_an_id_of_its_own);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
