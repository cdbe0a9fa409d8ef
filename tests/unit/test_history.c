/*
 * The history of a profile: entries in order, the oldest give way, and without memory nothing changes.
 */
#include "daemon/core/history.h"

#include "proto/limits.h"
#include "tests/unit/failing_heap.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(entries_come_in_order_with_what_they_have)
{
	const struct history_entry first = {
		.step = 1200, .updates = 1100, .change = "schedule", .from = "a", .to = "b"
	};
	const struct history_entry second = { .step = 1300, .updates = 0, .change = "seeded" };
	char *history = NULL;

	ck_assert_int_eq(history_append(&history, &first), 0);
	ck_assert_int_eq(history_append(&history, &second), 0);
	ck_assert_str_eq(history,
	                 "[{\"step\":1200,\"updates\":1100,\"change\":\"schedule\",\"from\":\"a\",\"to\":\"b\"},"
	                 "{\"step\":1300,\"updates\":0,\"change\":\"seeded\"}]");
	free(history);
}
END_TEST

START_TEST(the_oldest_give_way_to_the_newest)
{
	char *history = NULL;
	json_t *array;
	size_t count;

	for (uint64_t i = 0; i < 500; i++) {
		const struct history_entry entry = {
			.step = i, .updates = i, .change = "continued", .from = "\"step\" 5"
		};

		ck_assert_int_eq(history_append(&history, &entry), 0);
		ck_assert_uint_le(strlen(history), HISTORY_BYTES_MAX);
	}
	array = json_loads(history, 0, NULL);
	ck_assert(json_is_array(array));
	count = json_array_size(array);
	ck_assert_uint_gt(count, 80);
	for (size_t i = 0; i < count; i++)
		ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(array, i), "step")),
		                 (json_int_t)(500 - count + i));
	json_decref(array);
	free(history);
}
END_TEST

/* The largest specifications that there are. */
START_TEST(the_largest_entry_is_kept_alone)
{
	char from[PROFILE_BYTES_MAX + 1], to[PROFILE_BYTES_MAX + 1];
	const struct history_entry small = { .step = 1, .change = "seeded" };
	const struct history_entry large = { .step = 2, .change = "schedule", .from = from, .to = to };
	char *history = NULL;

	memset(from, 'a', sizeof from);
	memset(to, 'b', sizeof to);
	from[PROFILE_BYTES_MAX] = to[PROFILE_BYTES_MAX] = '\0';
	ck_assert_int_eq(history_append(&history, &small), 0);
	ck_assert_int_eq(history_append(&history, &large), 0);
	ck_assert_uint_le(strlen(history), HISTORY_BYTES_MAX);
	ck_assert_ptr_nonnull(strstr(history, "seeded"));
	ck_assert_int_eq(history_append(&history, &large), 0);
	ck_assert_uint_le(strlen(history), HISTORY_BYTES_MAX);
	ck_assert_ptr_null(strstr(history, "seeded"));
	free(history);
}
END_TEST

/* jansson lives in a shared library, where nothing is wrapped. */
static void *json_room(size_t bytes)
{
	return malloc(bytes);
}

struct attempt {
	const char *before; /* NULL: none */
	bool changed;       /* although it failed */
};

static int append(void *context)
{
	const struct history_entry entry = { .step = 3, .updates = 2, .change = "schedule", .from = "x", .to = "y" };
	struct attempt *attempt = context;
	char *history = NULL;
	int error;

	if (attempt->before) {
		history = malloc(strlen(attempt->before) + 1);
		if (!history)
			return -ENOMEM;
		strcpy(history, attempt->before);
	}
	error = history_append(&history, &entry);
	if (error)
		attempt->changed = attempt->changed || (!attempt->before != !history) ||
		                   (history && strcmp(history, attempt->before) != 0);
	free(history);
	return error;
}

START_TEST(without_memory_it_stays_as_it_was)
{
	struct attempt attempts[] = { { .before = NULL },
		                      { .before = "[{\"step\":1,\"updates\":1,\"change\":\"seeded\"}]" } };

	json_set_alloc_funcs(json_room, free);
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_gt(failing_heap_sweep(append, &attempts[i]), 10);
		ck_assert(!attempts[i].changed);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("history");
	TCase *tcase = tcase_create("history");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, entries_come_in_order_with_what_they_have);
	tcase_add_test(tcase, the_oldest_give_way_to_the_newest);
	tcase_add_test(tcase, the_largest_entry_is_kept_alone);
	tcase_add_test(tcase, without_memory_it_stays_as_it_was);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
