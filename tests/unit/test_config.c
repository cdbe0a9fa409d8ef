/*
 * The configuration: every kind of value, and a sentence with file, line and what to do for everything else.
 */
#include "daemon/edge/config.h"

#include "proto/limits.h"

#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/emad-test-config-XXXXXX";

static void setup(void)
{
	int fd;

	unsetenv("RUNTIME_DIRECTORY");
	unsetenv("STATE_DIRECTORY");
	strcpy(path + sizeof path - 7, "XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	close(fd);
}

static void teardown(void)
{
	unlink(path);
}

static void write_bytes(const char *bytes, size_t count)
{
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
	fclose(file);
}

/* Reads a file of this text over the defaults; 0 or the code. */
static int read_text(const char *text, struct config *config, struct reason *reason)
{
	write_bytes(text, strlen(text));
	config_init(config);
	return config_read(config, path, reason);
}

START_TEST(the_defaults_are_within_their_limits)
{
	struct config config;

	config_init(&config);
	ck_assert_str_eq(config.runtime_dir, "/run/emad");
	ck_assert_str_eq(config.state_dir, "");
	ck_assert_uint_eq(config.worker_count, 0);
	ck_assert_uint_eq(config.memory_bytes_max, 0);
	ck_assert_uint_eq(config.slot_count, 3);
	ck_assert_uint_eq(config.stage_count, 2);
	ck_assert_uint_eq(config.lease_min_ms, 30000);
	ck_assert_uint_eq(config.wait_max_ms, 3600000);
	ck_assert_uint_eq(config.socket_mode, 0660);
	ck_assert_uint_ge(config.model_count_max, 1);
	ck_assert_uint_ge(config.connection_count_max, 1);
	ck_assert_uint_ge(config.waiting_count_max, 1);
	ck_assert_uint_gt(config.handshake_timeout_ms, 0);
	ck_assert_uint_gt(config.message_timeout_ms, 0);
}
END_TEST

START_TEST(systemd_names_the_directories)
{
	struct config config;
	char longest[CONFIG_PATH_BYTES_MAX + 1];

	setenv("RUNTIME_DIRECTORY", "/run/other", 1);
	setenv("STATE_DIRECTORY", "/var/lib/other", 1);
	config_init(&config);
	ck_assert_str_eq(config.runtime_dir, "/run/other");
	ck_assert_str_eq(config.state_dir, "/var/lib/other");
	memset(longest, 'a', sizeof longest - 1);
	longest[0] = '/';
	longest[sizeof longest - 1] = '\0';
	setenv("STATE_DIRECTORY", longest, 1);
	config_init(&config);
	ck_assert_str_eq(config.state_dir, "");
}
END_TEST

START_TEST(reads_every_kind_of_value)
{
	struct config config;
	struct reason reason = { "" };

	ck_assert_msg(read_text("# a comment\n"
	                        "[daemon]\n"
	                        "runtime-dir = /tmp/x y\n"
	                        "workers=12 ; said behind\n"
	                        "\n"
	                        "[limits]\n"
	                        "memory-max=6G\n"
	                        "lease-min=500ms\n"
	                        "wait-max=2 h\n"
	                        "handshake-timeout=7\n"
	                        "message-timeout=3min\n"
	                        "slots=2\n"
	                        "[access]\n"
	                        "socket-mode=0600",
	                        &config, &reason) == 0,
	              "%s", reason.text);
	ck_assert_str_eq(config.runtime_dir, "/tmp/x y");
	ck_assert_uint_eq(config.worker_count, 12);
	ck_assert_uint_eq(config.memory_bytes_max, UINT64_C(6) << 30);
	ck_assert_uint_eq(config.lease_min_ms, 500);
	ck_assert_uint_eq(config.wait_max_ms, 7200000);
	ck_assert_uint_eq(config.handshake_timeout_ms, 7000);
	ck_assert_uint_eq(config.message_timeout_ms, 180000);
	ck_assert_uint_eq(config.slot_count, 2);
	ck_assert_uint_eq(config.stage_count, 2);
	ck_assert_uint_eq(config.socket_mode, 0600);
}
END_TEST

START_TEST(sections_may_come_in_parts_and_the_last_value_counts)
{
	struct config config;

	ck_assert_int_eq(read_text("\xef\xbb\xbf[limits]\nslots=4\n[daemon]\nworkers=1\n[limits]\nslots=5\n", &config, NULL),
	                 0);
	ck_assert_uint_eq(config.slot_count, 5);
	ck_assert_uint_eq(config.worker_count, 1);
	ck_assert_int_eq(read_text("", &config, NULL), 0);
	ck_assert_int_eq(read_text("[empty]\n", &config, NULL), 0);
}
END_TEST

struct bad_text {
	const char *text;
	int line;
	const char *part;
};

static const struct bad_text bad_texts[] = {
	{ "[limits]\n\nslot=3\n", 3, "[limits] slot is not a key; the nearest is 'slots'" },
	{ "[daemon]\nslots=3\n", 2, "the nearest is 'slots' in [limits]" },
	{ "slots=3\n", 1, "[] slots is not a key" },
	{ "[limits]\nslots=three\n", 2, "slots=three: a whole number is wanted" },
	{ "[limits]\nslots=-3\n", 2, "a whole number is wanted" },
	{ "[limits]\nslots=\n", 2, "a whole number is wanted" },
	{ "[limits]\nslots=3.5\n", 2, "a whole number is wanted" },
	{ "[limits]\nslots=1\n", 2, "slots=1 is outside 2 to 16" },
	{ "[limits]\nslots=17\n", 2, "slots=17 is outside 2 to 16" },
	{ "[limits]\nstages=0\n", 2, "stages=0 is outside 1 to 8" },
	{ "[limits]\nmemory-max=5X\n", 2, "memory-max=5X: a size such as 512M or 8G is wanted" },
	{ "[limits]\nmemory-max=18446744073709551616\n", 2, "is outside" },
	{ "[limits]\nmemory-max=16777216T\n", 2, "is outside" },
	{ "[limits]\nlease-min=5 days\n", 2, "a time such as 500ms, 10s, 5min or 1h is wanted" },
	{ "[limits]\nlease-min=18446744073709551615ms\n", 2, "is outside" },
	{ "[limits]\nwait-max=0\n", 2, "is outside" },
	{ "[limits]\nmessage-timeout=30days\n", 2, "is wanted" },
	{ "[daemon]\nruntime-dir=run\n", 2, "an absolute path of at most 255 bytes is wanted" },
	{ "[access]\nsocket-mode=0668\n", 2, "permissions in octal such as 0660 is wanted" },
	{ "[access]\nsocket-mode=rw\n", 2, "permissions in octal" },
	{ "[access]\nsocket-mode=1777\n", 2, "socket-mode=1777 is outside 0 to 0777" },
	{ "[limits]\nslots\n", 2, "neither [section] nor key=value" },
	{ "[limits\nslots=3\n", 1, "neither [section] nor key=value" },
	{ "[limits]\nnonsense\nslots=99\n", 2, "neither [section] nor key=value" },
	{ "[limits]\nslots=99\nnonsense\n", 2, "is outside" },
};

START_TEST(names_file_line_and_fault_and_changes_nothing)
{
	const struct bad_text *bad = &bad_texts[_i];
	struct config config, before;
	struct reason reason;
	char begin[64];

	config_init(&before);
	ck_assert_int_eq(read_text(bad->text, &config, &reason), STATUS_EARGUMENT);
	snprintf(begin, sizeof begin, "%s:%d: ", path, bad->line);
	ck_assert_msg(strncmp(reason.text, begin, strlen(begin)) == 0, "%s", reason.text);
	ck_assert_msg(strstr(reason.text, bad->part) != NULL, "%s", reason.text);
	ck_assert_mem_eq(&config, &before, sizeof config);
}
END_TEST

START_TEST(a_nul_byte_hides_nothing)
{
	static const char text[] = "[limits]\nslots=3\0garbage\nstages=1\n";
	struct config config;
	struct reason reason;

	write_bytes(text, sizeof text - 1);
	config_init(&config);
	ck_assert_int_eq(config_read(&config, path, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, ":2: ") && strstr(reason.text, "NUL"), "%s", reason.text);
}
END_TEST

START_TEST(a_line_that_is_too_long_is_not_read_as_two)
{
	char text[4096] = "[limits]\nslots=3";
	struct config config;
	struct reason reason;

	memset(text + strlen(text), ' ', 400);
	strcat(text, "\nstages=1\n");
	ck_assert_int_eq(read_text(text, &config, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, ":2: the line has 408 bytes") != NULL, "%s", reason.text);
	/* A comment may be as long as it likes, and lines are counted all the same. */
	strcpy(text, "[limits]\n# ");
	memset(text + strlen(text), 'x', 2000);
	strcat(text, "slots=9\nslots=1\n");
	ck_assert_int_eq(read_text(text, &config, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, ":3: slots=1 is outside") != NULL, "%s", reason.text);
}
END_TEST

START_TEST(a_file_of_ten_megabytes_is_read_or_refused_in_time)
{
	size_t bytes = 10 * 1024 * 1024;
	char *text = malloc(bytes + 1);
	struct config config;

	memset(text, 'x', bytes);
	text[bytes] = '\0';
	ck_assert_int_eq(read_text(text, &config, NULL), STATUS_EARGUMENT);
	for (size_t i = 0; i < bytes; i++)
		text[i] = "[limits]\nslots=3\n"[i % 17];
	text[bytes / 17 * 17] = '\0';
	ck_assert_int_eq(read_text(text, &config, NULL), 0);
	free(text);
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_named)
{
	struct config config;
	struct reason reason;

	config_init(&config);
	ck_assert_int_eq(config_read(&config, "/nonexistent/emad.conf", &reason), -ENOENT);
	ck_assert_msg(strstr(reason.text, "'/nonexistent/emad.conf'") != NULL, "%s", reason.text);
	ck_assert_int_eq(config_read(&config, "/tmp", &reason), -EISDIR);
}
END_TEST

START_TEST(what_is_left_open_follows_the_host)
{
	static const struct {
		uint64_t processors, workers;
	} rows[] = { { 1, 1 }, { 4, 1 }, { 7, 1 }, { 8, 2 }, { 32, 8 }, { 256, 8 } };
	struct config config;

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		config_init(&config);
		config_resolve(&config, rows[i].processors, 1000);
		ck_assert_uint_eq(config.worker_count, rows[i].workers);
		ck_assert_uint_eq(config.memory_bytes_max, 800);
	}
	config.worker_count = 3;
	config.memory_bytes_max = 5;
	config_resolve(&config, 64, 1000);
	ck_assert_uint_eq(config.worker_count, 3);
	ck_assert_uint_eq(config.memory_bytes_max, 5);
}
END_TEST

/* The list of all keys is itself a configuration, once the explanations are taken out: that of the defaults. */
START_TEST(the_description_lists_every_key_with_its_default)
{
	struct config config, defaults;
	struct reason reason = { "" };
	char *text, line[256];
	size_t bytes;
	FILE *file = open_memstream(&text, &bytes), *from, *to;
	int key_count = 0;

	config_describe(file);
	fclose(file);
	from = fmemopen(text, bytes, "r");
	to = fopen(path, "w");
	while (fgets(line, sizeof line, from)) {
		bool explains = strncmp(line, "        ", 8) == 0;

		if (!explains)
			fputs(line + strspn(line, " "), to);
		key_count += strncmp(line, "    ", 4) == 0 && !explains;
	}
	fclose(from);
	fclose(to);
	free(text);
	ck_assert_int_ge(key_count, 14);
	config_init(&defaults);
	memset(&config, 0, sizeof config);
	ck_assert_msg(config_read(&config, path, &reason) == 0, "%s", reason.text);
	ck_assert_str_eq(config.runtime_dir, defaults.runtime_dir);
	ck_assert_str_eq(config.state_dir, defaults.state_dir);
	ck_assert_mem_eq(&config.worker_count, &defaults.worker_count,
	                 sizeof config - offsetof(struct config, worker_count));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("config");
	TCase *tcase = tcase_create("config");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, the_defaults_are_within_their_limits);
	tcase_add_test(tcase, systemd_names_the_directories);
	tcase_add_test(tcase, reads_every_kind_of_value);
	tcase_add_test(tcase, sections_may_come_in_parts_and_the_last_value_counts);
	tcase_add_loop_test(tcase, names_file_line_and_fault_and_changes_nothing, 0, sizeof bad_texts / sizeof bad_texts[0]);
	tcase_add_test(tcase, a_nul_byte_hides_nothing);
	tcase_add_test(tcase, a_line_that_is_too_long_is_not_read_as_two);
	tcase_add_test(tcase, a_file_of_ten_megabytes_is_read_or_refused_in_time);
	tcase_add_test(tcase, a_file_that_cannot_be_read_is_named);
	tcase_add_test(tcase, what_is_left_open_follows_the_host);
	tcase_add_test(tcase, the_description_lists_every_key_with_its_default);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
