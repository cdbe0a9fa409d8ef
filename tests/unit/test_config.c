/*
 * The table of keys: every kind of value, every way in which one can be wrong, and everything that is printed from it.
 */
#include "daemon/core/config.h"
#include "daemon/core/config_text.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int user_find(const char *name, uint32_t *ret_uid)
{
	if (strcmp(name, "alice") != 0 && strcmp(name, "bob") != 0)
		return -ENOENT;
	*ret_uid = name[0] == 'a' ? 1001 : 1002;
	return 0;
}

static int group_find(const char *name, uint32_t *ret_gid)
{
	if (strcmp(name, "trainers") != 0)
		return -ENOENT;
	*ret_gid = 2001;
	return 0;
}

static const struct config_host host = {
	.processor_count = 32,
	.memory_bytes = UINT64_C(10) << 30,
	.user = user_find,
	.group = group_find,
};

static struct config config, other;

static int set(const char *section, const char *name, const char *text, struct reason *reason)
{
	int key = config_find(section, name);

	ck_assert_int_ge(key, 0);
	return config_set(strcmp(section, "model") == 0 ? (void *)config.defaults : (void *)&config, key, text, false, &host,
	                  reason);
}

static void setup(void)
{
	config_init(&config, &host);
	config_init(&other, &host);
	ck_assert_ptr_nonnull(config_section(&config, "*"));
}

START_TEST(every_default_is_a_value_of_its_key)
{
	for (int i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];
		void *values = config_is_default(key) ? (void *)config.defaults : (void *)&config;
		struct reason reason = { "" };
		char text[CONFIG_VALUE_BYTES_MAX + 1];

		if (!key->fallback)
			continue;
		ck_assert_msg(config_set(values, i, key->fallback, false, &host, &reason) == 0, "%s", reason.text);
		ck_assert(config_format(key, values, text, sizeof text));
		/* A part of the host is printed as what it is. */
		if (key->kind != CONFIG_MEMORY)
			ck_assert_str_eq(text, key->fallback);
		ck_assert_int_eq(config_find(key->section, key->name), i);
		ck_assert_uint_ge(strlen(key->text), 10);
		ck_assert_int_eq(key->text[strlen(key->text) - 1], '.');
	}
	ck_assert_uint_eq(config.memory_bytes_max, UINT64_C(8192) << 20);
	ck_assert_uint_eq(config.socket_mode, 0660);
	ck_assert_uint_eq(config.lease_min_ms, 30000);
}
END_TEST

static const struct {
	const char *section, *name, *text, *formatted;
} good_values[] = {
	{ "daemon", "runtime-dir", "/tmp/x y", "/tmp/x y" },
	{ "daemon", "state-dir", "", "" },
	{ "daemon", "workers", "12", "12" },
	{ "daemon", "log-level", "debug", "debug" },
	{ "daemon", "stop-timeout", "0", "0ms" },
	{ "limits", "memory-max", "6G", "6G" },
	{ "limits", "memory-max", "6144 M", "6G" },
	{ "limits", "memory-max", "50%", "5G" },
	{ "limits", "memory-max", "1048577", "1048577" },
	{ "limits", "memory-max-per-user", "2G", "2G" },
	{ "limits", "memory-max-per-user", "25%", "25%" },
	{ "limits", "memory-max-per-user", "0", "0" },
	{ "limits", "models-max-per-user", "8", "8" },
	{ "limits", "memory-max", "1048576B", "1M" },
	{ "limits", "waiting-memory-max", "3T", NULL },
	{ "limits", "reply-max", "64K", "64K" },
	{ "limits", "lease-min", "500ms", "500ms" },
	{ "limits", "lease-min", "90", "90s" },
	{ "limits", "lease-min", "1500ms", "1500ms" },
	{ "limits", "wait-max", "2 h", "2h" },
	{ "limits", "wait-max", "48h", "2d" },
	{ "limits", "message-timeout", "3min", "3min" },
	{ "http", "http-listen", "127.0.0.1:9464,\t[::1]:0", "127.0.0.1:9464 [::1]:0" },
	{ "http", "http-listen", "", "" },
	{ "http", "http-timeout", "1500ms", "1500ms" },
	{ "access", "socket-mode", "0600", "0600" },
	{ "access", "socket-mode", "0", "0000" },
	{ "access", "push-users", "alice, bob\t7", "alice bob 7" },
	{ "access", "push-users", "", "" },
	{ "access", "push-groups", "trainers,4294967294", "trainers 4294967294" },
	{ "model", "profiles", "ema=yolo  slow=constant:decay=0.99999;copy=*.running_*",
	  "ema=yolo slow=constant:decay=0.99999;copy=*.running_*" },
	{ "model", "profiles", "", "" },
	{ "model", "guards", "nonfinite=skip-tensor,loss_max=10", "nonfinite=skip-tensor,loss_max=10" },
	{ "model", "policy", "coalesce", "coalesce" },
	{ "model", "stride", "10", "10" },
	{ "model", "slots", "4", "4" },
	{ "model", "stages", "8", "8" },
};

START_TEST(reads_and_writes_every_kind_of_value)
{
	const struct config_key *key = &config_keys[config_find(good_values[_i].section, good_values[_i].name)];
	struct reason reason = { "" };
	char text[CONFIG_VALUE_BYTES_MAX + 1];
	int error = set(good_values[_i].section, good_values[_i].name, good_values[_i].text, &reason);

	if (!good_values[_i].formatted) {
		ck_assert_int_eq(error, STATUS_EARGUMENT);
		return;
	}
	ck_assert_msg(error == 0, "%s", reason.text);
	ck_assert(config_format(key, config_is_default(key) ? (void *)config.defaults : (void *)&config, text, sizeof text));
	ck_assert_str_eq(text, good_values[_i].formatted);
	ck_assert_msg(set(good_values[_i].section, good_values[_i].name, text, &reason) == 0, "%s", reason.text);
}
END_TEST

static const struct {
	const char *section, *name, *text, *part;
} bad_values[] = {
	{ "daemon", "workers", "three", "workers=three: a whole number is wanted" },
	{ "daemon", "workers", "-3", "a whole number is wanted" },
	{ "daemon", "workers", "", "workers=: a whole number is wanted" },
	{ "daemon", "workers", "3.5", "a whole number is wanted" },
	{ "daemon", "workers", "257", "workers=257 is outside 0 to 256" },
	{ "daemon", "log-level", "loud", "log-level=loud: error, warning, notice or debug is wanted" },
	{ "daemon", "runtime-dir", "run", "runtime-dir=run: an absolute path of at most 255 bytes" },
	{ "daemon", "runtime-dir", "", "an absolute path" },
	{ "daemon", "state-dir", "state", "an absolute path" },
	{ "daemon", "state-dir", "/a\nb", "without control characters" },
	{ "daemon", "state-dir", "/a ;b", "and ' ;', is wanted" },
	{ "limits", "slots", "1", "slots=1 is outside 2 to 16" },
	{ "limits", "slots", "17", "slots=17 is outside 2 to 16" },
	{ "limits", "stages", "0", "stages=0 is outside 1 to 8" },
	{ "limits", "memory-max", "5X", "memory-max=5X: a size such as 512M or 8G, or a part of the memory such as 50%" },
	{ "limits", "memory-max", "0", "memory-max=0 is outside 1M to 1024T" },
	{ "limits", "memory-max", "101%", "memory-max=101% is outside" },
	{ "limits", "memory-max-per-user", "101%", "memory-max-per-user=101% is outside 0 to 1024T" },
	{ "limits", "memory-max-per-user", "0%", "is outside" },
	{ "limits", "memory-max-per-user", "many", "a size such as 512M or 8G, or a part of memory-max such as 25%, is wanted" },
	{ "limits", "memory-max", "18446744073709551616", "is outside" },
	{ "limits", "memory-max", "16777216T", "is outside" },
	{ "limits", "body-max", "65M", "body-max=65M is outside 1M to 64M" },
	{ "limits", "body-max", "50%", "a size such as 512M or 8G is wanted" },
	{ "limits", "lease-min", "5 days", "lease-min=5 days: a time such as 500ms, 10s, 5min or 1h is wanted" },
	{ "limits", "lease-min", "18446744073709551615ms", "is outside 0ms to 365d" },
	{ "limits", "wait-max", "0", "wait-max=0 is outside 1ms to 365d" },
	{ "http", "http-listen", "127.0.0.1:1 here", "http-listen: 'here' is not an address" },
	{ "http", "http-connections-max", "0", "http-connections-max=0 is outside 1 to 4096" },
	{ "access", "socket-mode", "0668", "socket-mode=0668: permissions in octal such as 0660 is wanted" },
	{ "access", "socket-mode", "rw", "permissions in octal" },
	{ "access", "socket-mode", "1777", "socket-mode=1777 is outside 0000 to 0777" },
	{ "access", "push-users", "alice carol", "push-users: there is no user 'carol' on this host" },
	{ "access", "push-users", "trainers", "there is no user 'trainers'" },
	{ "access", "push-users", "-1", "there is no user '-1'" },
	{ "access", "push-users", "4294967295", "push-users: 4294967295 is outside 0 to 4294967294" },
	{ "access", "admin-groups", "alice", "admin-groups: there is no group 'alice' on this host" },
	{ "model", "profiles", "ema=yoloo", "profiles: " },
	{ "model", "profiles", "yolo", "profiles: " },
	{ "model", "profiles", "ema=yolo ema=swa", "profiles: two profiles have the name 'ema'" },
	{ "model", "guards", "loss=3", "guards: guard 'loss' is unknown; did you mean 'loss_max'" },
	{ "model", "policy", "skip", "policy=skip: block or coalesce is wanted" },
	{ "model", "stride", "0", "stride=0 is outside 1 to " },
	{ "model", "slots", "1", "slots=1 is outside 2 to 16" },
};

START_TEST(says_what_is_wanted_and_changes_nothing)
{
	struct reason reason = { "" };

	other = config;
	ck_assert_int_eq(set(bad_values[_i].section, bad_values[_i].name, bad_values[_i].text, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, bad_values[_i].part) != NULL, "'%s' is not in: %s", bad_values[_i].part,
	              reason.text);
	ck_assert_mem_eq(&config, &other, sizeof config);
}
END_TEST

START_TEST(long_values_are_refused_with_both_numbers)
{
	char path[CONFIG_PATH_BYTES_MAX + 10], list[6000], profiles[60 * 17] = "";
	struct reason reason;

	memset(path, 'x', sizeof path);
	path[0] = '/';
	path[300 - 40] = '\0';
	ck_assert_int_eq(set("daemon", "state-dir", path, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "260 bytes") && strstr(reason.text, "255"), "%s", reason.text);
	for (size_t i = 0; i < sizeof list - 1; i++)
		list[i] = "1 "[i % 2];
	list[sizeof list - 1] = '\0';
	ck_assert_int_eq(set("access", "read-users", list, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "more than 1024 bytes") != NULL, "%s", reason.text);
	list[200] = '\0';
	ck_assert_int_eq(set("access", "read-users", list, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "more than 64 names") != NULL, "%s", reason.text);
	for (int i = 0; i < 17; i++)
		snprintf(profiles + strlen(profiles), 60, "e%d=swa ", i);
	ck_assert_int_eq(set("model", "profiles", profiles, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "at most 16") != NULL, "%s", reason.text);
	memset(list, 'x', 200);
	ck_assert_int_eq(set("model", "guards", list, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "guards has 200 bytes, and at most 128") != NULL, "%s", reason.text);
}
END_TEST

START_TEST(lists_go_on_in_further_lines)
{
	int users = config_find("access", "push-users"), profiles = config_find("model", "profiles");
	struct reason reason;

	ck_assert_int_eq(config_set(&config, users, "alice", false, &host, NULL), 0);
	ck_assert_int_eq(config_set(&config, users, "bob 5", true, &host, NULL), 0);
	ck_assert_str_eq(config.access.users[ACCESS_PUSH].text, "alice bob 5");
	ck_assert_uint_eq(config.access.users[ACCESS_PUSH].count, 3);
	ck_assert_uint_eq(config.access.users[ACCESS_PUSH].ids[1], 1002);
	ck_assert_int_eq(config_set(&config, users, "carol", true, &host, NULL), STATUS_EARGUMENT);
	ck_assert_uint_eq(config.access.users[ACCESS_PUSH].count, 3);
	ck_assert_int_eq(config_set(config.defaults, profiles, "ema=yolo", false, &host, NULL), 0);
	ck_assert_int_eq(config_set(config.defaults, profiles, "slow=swa", true, &host, NULL), 0);
	ck_assert_str_eq(config.defaults[0].profiles, "ema=yolo slow=swa");
	ck_assert_int_eq(config_set(&config, config_find("limits", "slots"), "5", true, &host, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "slots is not a list") != NULL, "%s", reason.text);
}
END_TEST

START_TEST(sections_of_models_are_found_again_and_bounded)
{
	char pattern[DEFAULTS_PATTERN_BYTES_MAX + 2];

	ck_assert_ptr_eq(config_section(&config, "*"), &config.defaults[0]);
	for (uint32_t i = 1; i < DEFAULTS_COUNT_MAX; i++) {
		snprintf(pattern, sizeof pattern, "m%u", (unsigned)i);
		ck_assert_ptr_eq(config_section(&config, pattern), &config.defaults[i]);
	}
	ck_assert_uint_eq(config.defaults[5].stride, 1);
	ck_assert_ptr_null(config_section(&config, "one more"));
	memset(pattern, 'x', sizeof pattern - 1);
	pattern[sizeof pattern - 1] = '\0';
	ck_assert_ptr_null(config_section(&other, pattern));
	ck_assert_ptr_eq(defaults_find(config.defaults, config.default_count, "m5"), &config.defaults[0]);
	ck_assert_ptr_eq(defaults_find(config.defaults + 1, config.default_count - 1, "m5"), &config.defaults[5]);
	ck_assert_ptr_null(defaults_find(config.defaults + 1, config.default_count - 1, "x5"));
	ck_assert_ptr_null(defaults_find(NULL, 0, "x5"));
}
END_TEST

START_TEST(a_part_is_of_the_limit_that_stands_in_the_end)
{
	struct reason reason;

	config_init(&config, &host);
	ck_assert_uint_eq(config_settings(&config).owner_memory_bytes_max, 0);
	ck_assert_int_eq(set("limits", "memory-max-per-user", "25%", &reason), 0);
	ck_assert_uint_eq(config_settings(&config).owner_memory_bytes_max, UINT64_C(2048) << 20);
	ck_assert_int_eq(set("limits", "memory-max", "4G", &reason), 0);
	ck_assert_uint_eq(config_settings(&config).owner_memory_bytes_max, UINT64_C(1024) << 20);
	ck_assert_int_eq(set("limits", "memory-max-per-user", "100M", &reason), 0);
	ck_assert_uint_eq(config_settings(&config).owner_memory_bytes_max, UINT64_C(100) << 20);
}
END_TEST

START_TEST(what_is_left_open_follows_the_host)
{
	static const struct {
		uint64_t processors, workers;
	} rows[] = { { 1, 1 }, { 4, 1 }, { 7, 1 }, { 8, 2 }, { 32, 8 }, { 256, 8 } };

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct config_host smaller = host;

		smaller.processor_count = rows[i].processors;
		config_init(&config, &smaller);
		config_resolve(&config, &smaller);
		ck_assert_uint_eq(config.worker_count, rows[i].workers);
	}
	config.worker_count = 3;
	config_resolve(&config, &host);
	ck_assert_uint_eq(config.worker_count, 3);
}
END_TEST

START_TEST(a_reload_keeps_what_only_a_start_can_change)
{
	struct reason reason;

	ck_assert_int_eq(set("daemon", "workers", "7", &reason), 0);
	ck_assert_int_eq(set("daemon", "state-dir", "/elsewhere", &reason), 0);
	ck_assert_int_eq(set("access", "socket-mode", "0666", &reason), 0);
	ck_assert_int_eq(set("access", "read-users", "bob", &reason), 0);
	ck_assert_int_eq(set("limits", "slots", "9", &reason), 0);
	for (int i = 0; i < config_key_count; i++) {
		static const char *const changed[] = { "workers", "state-dir", "socket-mode", "read-users", "slots" };
		bool is_changed = false;

		for (int j = 0; j < 5; j++)
			is_changed = is_changed || (strcmp(changed[j], config_keys[i].name) == 0 && !config_is_default(&config_keys[i]));
		if (!config_is_default(&config_keys[i]))
			ck_assert_msg(config_differs(&config_keys[i], &config, &other) == is_changed, "%s", config_keys[i].name);
	}
	config_keep(&config, &other);
	ck_assert_uint_eq(config.worker_count, other.worker_count);
	ck_assert_str_eq(config.state_dir, "");
	ck_assert_uint_eq(config.socket_mode, 0660);
	ck_assert_uint_eq(config.slot_count, 9);
	ck_assert_uint_eq(config_settings(&config).slot_count, 9);
	ck_assert_uint_eq(config_settings(&config).default_count, 1);
}
END_TEST

/* ---- what is printed --------------------------------------------------------------------------------------------- */

static char *printed(void (*print)(FILE *file))
{
	char *text;
	size_t bytes;
	FILE *file = open_memstream(&text, &bytes);

	print(file);
	fclose(file);
	return text;
}

START_TEST(the_default_file_and_the_help_have_every_key)
{
	char *file = printed(config_text_default), *help = printed(config_text_help);

	for (int i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];
		char line[160];

		snprintf(line, sizeof line, "\n#%s=%s\n", key->name, key->fallback ? key->fallback : "");
		ck_assert_msg(strstr(file, line) != NULL, "%s", line);
		snprintf(line, sizeof line, "    %s=%s\n", key->name, key->fallback ? key->fallback : "");
		ck_assert_msg(strstr(help, line) != NULL, "%s", line);
	}
	/* The meaning stands in front of its key, with its range. */
	ck_assert_ptr_nonnull(strstr(file, "# Models at once. (1 to 65536)\n#models-max=256\n"));
	ck_assert_ptr_nonnull(strstr(file, "\n[limits]\n"));
	ck_assert_ptr_nonnull(strstr(file, "\n#[model PATTERN]\n"));
	free(file);
	free(help);
}
END_TEST

START_TEST(every_value_is_printed_with_where_it_was_set)
{
	int slots = config_find("limits", "slots"), stages = config_find("limits", "stages");
	int profiles = config_find("model", "profiles"), runtime = config_find("daemon", "runtime-dir");
	char *text;
	size_t bytes;
	FILE *file = open_memstream(&text, &bytes);

	strcpy(config.files[0], "/etc/emad/emad.conf");
	config.file_count = 1;
	config.origins[slots] = (struct config_origin){ CONFIG_BY_FILE, 0, 12 };
	config.origins[stages].place = CONFIG_BY_COMMAND_LINE;
	config.origins[runtime].place = CONFIG_BY_ENVIRONMENT;
	config.default_origins[0][profiles] = (struct config_origin){ CONFIG_BY_FILE, 0, 99 };
	ck_assert_int_eq(set("model", "profiles", "ema=yolo slow=swa", NULL), 0);
	config_text_effective(&config, file);
	fclose(file);
	ck_assert_ptr_nonnull(strstr(text, "# slots: /etc/emad/emad.conf:12\nslots=3\n"));
	ck_assert_ptr_nonnull(strstr(text, "# stages: command line\nstages=2\n"));
	ck_assert_ptr_nonnull(strstr(text, "# runtime-dir: environment\nruntime-dir=/run/emad\n"));
	ck_assert_ptr_nonnull(strstr(text, "# models-max: default\nmodels-max=256\n"));
	ck_assert_ptr_nonnull(strstr(text, "\n[model *]\n# profiles: /etc/emad/emad.conf:99\nprofiles=ema=yolo\n slow=swa\n"));
	free(text);
}
END_TEST

START_TEST(the_json_says_the_same)
{
	char *text = config_text_json(&config);
	json_t *root = text ? json_loads(text, 0, NULL) : NULL, *row;
	size_t index, count = 0;

	ck_assert_ptr_nonnull(root);
	json_array_foreach(json_object_get(root, "settings"), index, row) {
		int key = config_find(json_string_value(json_object_get(row, "section")),
		                      json_string_value(json_object_get(row, "key")));

		ck_assert_int_ge(key, 0);
		ck_assert_str_eq(json_string_value(json_object_get(row, "origin")), "default");
		ck_assert_int_eq(json_is_true(json_object_get(row, "reloads")), config_keys[key].reloads);
		ck_assert_int_eq(config_set(&other, key, json_string_value(json_object_get(row, "value")), false, &host, NULL), 0);
		count++;
	}
	ck_assert_uint_ge(count, 25);
	ck_assert_uint_eq(json_array_size(json_object_get(root, "models")), 1);
	ck_assert_uint_eq(json_array_size(json_object_get(root, "files")), 0);
	json_decref(root);
	free(text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("config");
	TCase *tcase = tcase_create("config");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, every_default_is_a_value_of_its_key);
	tcase_add_loop_test(tcase, reads_and_writes_every_kind_of_value, 0, sizeof good_values / sizeof good_values[0]);
	tcase_add_loop_test(tcase, says_what_is_wanted_and_changes_nothing, 0, sizeof bad_values / sizeof bad_values[0]);
	tcase_add_test(tcase, long_values_are_refused_with_both_numbers);
	tcase_add_test(tcase, lists_go_on_in_further_lines);
	tcase_add_test(tcase, sections_of_models_are_found_again_and_bounded);
	tcase_add_test(tcase, a_part_is_of_the_limit_that_stands_in_the_end);
	tcase_add_test(tcase, what_is_left_open_follows_the_host);
	tcase_add_test(tcase, a_reload_keeps_what_only_a_start_can_change);
	tcase_add_test(tcase, the_default_file_and_the_help_have_every_key);
	tcase_add_test(tcase, every_value_is_printed_with_where_it_was_set);
	tcase_add_test(tcase, the_json_says_the_same);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
