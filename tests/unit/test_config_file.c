/*
 * Files: the form of every line, what comes twice, what cannot be read, and the order of several. One run finds all that
 * is wrong.
 */
#include "daemon/edge/config_file.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], path[96];
static struct config config;
static struct config_faults faults;

static int nobody_find(const char *name, uint32_t *ret_id)
{
	(void)name;
	(void)ret_id;
	return -ENOENT;
}

static const struct config_host host = {
	.processor_count = 4,
	.memory_bytes = UINT64_C(8) << 30,
	.user = nobody_find,
	.group = nobody_find,
};

static void setup(void)
{
	strcpy(folder, "/tmp/emad-test-config-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/conf", folder);
	config_init(&config, &host);
	memset(&faults, 0, sizeof faults);
}

static void teardown(void)
{
	char command[128];

	snprintf(command, sizeof command, "rm -rf %s", folder);
	ck_assert_int_eq(system(command), 0);
}

static void write_file(const char *name, const char *bytes, size_t count)
{
	char whole[160];
	FILE *file;

	snprintf(whole, sizeof whole, "%s/%s", folder, name);
	file = fopen(whole, "w");
	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
	fclose(file);
}

static void write_text(const char *name, const char *text)
{
	write_file(name, text, strlen(text));
}

static void read_all(void)
{
	config_file_read(&config, path, &host, &faults);
}

static void expect_fault(uint32_t index, int line, const char *part)
{
	char begin[128];

	ck_assert_uint_lt(index, faults.count);
	snprintf(begin, sizeof begin, "%s:%d: ", path, line);
	ck_assert_msg(strncmp(faults.reasons[index].text, begin, strlen(begin)) == 0, "not '%s': %s", begin,
	              faults.reasons[index].text);
	ck_assert_msg(strstr(faults.reasons[index].text, part) != NULL, "'%s' is not in: %s", part,
	              faults.reasons[index].text);
}

START_TEST(reads_a_file_and_remembers_the_lines)
{
	write_text("conf", "\xef\xbb\xbf# a comment\n"
	                   "[daemon]\n"
	                   "runtime-dir = /tmp/x y\n"
	                   "workers=12 ; said behind\r\n"
	                   "\n"
	                   "[limits] ; so\n"
	                   "  ; indented\n"
	                   "memory-max: 6G\n"
	                   "[access]\n"
	                   "push-users=5, ; a comment\n"
	                   "# another, and an empty line\n"
	                   "\n"
	                   "   6 7 ; and one behind\n"
	                   "\t8\n"
	                   "socket-mode=0600\n"
	                   "[model run[0-9]/*]\n"
	                   "profiles=ema=yolo\n"
	                   " slow=swa\n"
	                   "[model *]\n"
	                   "stride=5");
	read_all();
	ck_assert_msg(faults.count == 0, "%s", faults.reasons[0].text);
	ck_assert_str_eq(config.runtime_dir, "/tmp/x y");
	ck_assert_uint_eq(config.worker_count, 12);
	ck_assert_uint_eq(config.memory_bytes_max, UINT64_C(6) << 30);
	ck_assert_str_eq(config.access.users[ACCESS_PUSH].text, "5 6 7 8");
	ck_assert_uint_eq(config.socket_mode, 0600);
	ck_assert_uint_eq(config.default_count, 2);
	ck_assert_str_eq(config.defaults[0].pattern, "run[0-9]/*");
	ck_assert_str_eq(config.defaults[0].profiles, "ema=yolo slow=swa");
	ck_assert_uint_eq(config.defaults[1].stride, 5);
	ck_assert_uint_eq(config.file_count, 1);
	ck_assert_str_eq(config.files[0], path);
	ck_assert_uint_eq(config.origins[config_find("limits", "memory-max")].line, 8);
	ck_assert_uint_eq(config.origins[config_find("access", "push-users")].line, 10);
	ck_assert_uint_eq(config.origins[config_find("limits", "slots")].place, CONFIG_BY_DEFAULT);
	ck_assert_uint_eq(config.default_origins[1][config_find("model", "stride")].line, 20);
	ck_assert_uint_eq(config.default_origins[0][config_find("model", "stride")].place, CONFIG_BY_DEFAULT);
}
END_TEST

START_TEST(an_empty_file_is_right)
{
	static const char *const texts[] = { "", "\n\n", "[limits]\n", "# only this", "\xef\xbb\xbf" };

	write_text("conf", texts[_i]);
	read_all();
	ck_assert_msg(faults.count == 0, "%s", faults.reasons[0].text);
}
END_TEST

static const struct {
	const char *text;
	int line;
	const char *part;
} bad_texts[] = {
	/* Keys and sections. */
	{ "[limits]\n\nslot=3\n", 3, "[limits] slot is not a key; the nearest is 'slots' in [limits]" },
	{ "[model a]\nslot=3\n", 2, "the nearest is 'slots' in [model PATTERN]" },
	{ "[daemon]\nslots=3\n", 2, "[daemon] slots is not a key; the nearest is 'slots' in [limits]" },
	{ "[limits]\nprofiles=ema=swa\n", 2, "the nearest is 'profiles' in [model PATTERN]" },
	{ "slots=3\n", 1, "slots stands before the first [section]; the nearest key is 'slots' in [limits]" },
	{ "[limit]\nslots=1\n", 1, "[limit] is not a section; the nearest is [limits]" },
	{ "[models *]\nslots=1\n", 1, "the nearest is [model PATTERN]" },
	{ "[model]\nslots=3\n", 1, "[model] lacks a pattern: write [model PATTERN]" },
	{ "[model ]\nslots=3\n", 1, "lacks a pattern" },
	{ "[]\nslots=3\n", 1, "neither [section] nor key=value" },
	{ "[limits]\nslots=3\n[daemon]\n[limits]\nstages=1\n", 4, "[limits] comes for the second time, the first is in line 1" },
	{ "[model a*]\n[model b*]\n[model a*]\n", 3, "[model a*] comes for the second time, the first is in line 1" },
	{ "[limits]\nslots=3\nstages=1\nslots=3\n", 4, "[limits] slots comes for the second time, the first is in line 2" },
	/* Values. */
	{ "[limits]\nslots=\n", 2, "[limits] slots=: a whole number is wanted" },
	{ "[limits]\nslots=17\n", 2, "[limits] slots=17 is outside 2 to 16" },
	{ "[limits]\nmemory-max=5X\n", 2, "memory-max=5X: a size such as 512M" },
	{ "[access]\nread-users=somebody\n", 2, "[access] read-users: there is no user 'somebody'" },
	{ "[access]\nread-users=1\n  2\n  somebody\n", 4, "there is no user 'somebody'" },
	{ "[model *]\nprofiles=ema=swa\n ema=swa\n", 3, "two profiles have the name 'ema'" },
	{ "[limits]\nslots=3\n  4\n", 3, "slots is not a list" },
	{ "[limits]\nslots=3\n  stages=4\n", 3, "a line that begins with a blank goes on with the key before it" },
	/* Form. */
	{ "[limits]\nslots\n", 2, "neither [section] nor key=value" },
	{ "[limits]\nslots ; = 3\n", 2, "neither [section] nor key=value" },
	{ "[limits\nslots=3\n", 1, "neither [section] nor key=value" },
	{ "[limits] slots\nslots=3\n", 1, "neither [section] nor key=value" },
	{ "  [limits]\nslots=3\n", 1, "neither [section] nor key=value" },
	{ "\r\n\r\n[limits]\r\nslots=1\r\n", 4, "slots=1 is outside" },
};

START_TEST(names_file_line_and_fault)
{
	write_text("conf", bad_texts[_i].text);
	read_all();
	expect_fault(0, bad_texts[_i].line, bad_texts[_i].part);
	ck_assert_msg(faults.count == 1, "%s", faults.reasons[1].text);
	ck_assert_int_eq(faults.error, STATUS_EARGUMENT);
}
END_TEST

START_TEST(finds_everything_that_is_wrong_at_once)
{
	write_text("conf", "what\n"
	                   "[limits]\n"
	                   "slots=99\n"
	                   "nonsense\n"
	                   "stages=2\n"
	                   "slotz=3\n"
	                   "[nothing]\n"
	                   "a=b\n"
	                   "c=d\n"
	                   "[daemon]\n"
	                   "workers=x\n"
	                   "  y\n"
	                   "log-level=debug\n");
	read_all();
	ck_assert_uint_eq(faults.count, 7);
	expect_fault(0, 1, "neither");
	expect_fault(1, 3, "slots=99");
	expect_fault(2, 4, "neither");
	expect_fault(3, 6, "slotz");
	expect_fault(4, 7, "[nothing]");
	expect_fault(5, 11, "workers=x");
	expect_fault(6, 12, "workers is not a list");
	/* What is right is read all the same. */
	ck_assert_uint_eq(config.stage_count, 2);
	ck_assert_uint_eq(config.log_level, 3);
}
END_TEST

START_TEST(very_many_faults_are_counted_and_not_all_kept)
{
	char text[40000] = "[limits]\n";

	for (int i = 0; i < 1000; i++)
		snprintf(text + strlen(text), 40, "key%d=1\n", i);
	write_text("conf", text);
	read_all();
	ck_assert_uint_eq(faults.count, 1000);
	expect_fault(CONFIG_FAULT_COUNT_MAX - 1, CONFIG_FAULT_COUNT_MAX + 1, "is not a key");
}
END_TEST

START_TEST(a_nul_byte_hides_nothing)
{
	static const char text[] = "[limits]\nslots=3\0garbage\nstages=0\n";

	write_file("conf", text, sizeof text - 1);
	read_all();
	ck_assert_uint_eq(faults.count, 2);
	expect_fault(0, 2, "the line holds a NUL byte");
	expect_fault(1, 3, "stages=0 is outside");
	/* In a comment neither: whoever reads the file must see what it says. */
	memset(&faults, 0, sizeof faults);
	write_file("conf", "# \0\n", 4);
	read_all();
	expect_fault(0, 1, "NUL");
}
END_TEST

START_TEST(a_line_that_is_too_long_is_not_read_as_two)
{
	char text[4096] = "[limits]\nslots=3";

	memset(text + strlen(text), ' ', 400);
	strcat(text, "\nstages=1\n");
	write_text("conf", text);
	read_all();
	expect_fault(0, 2, "the line has 408 bytes, and at most 1");
	ck_assert_uint_eq(faults.count, 1);
	/* A comment may be as long as it likes, and lines are counted all the same. */
	memset(&faults, 0, sizeof faults);
	strcpy(text, "[limits]\n# ");
	memset(text + strlen(text), 'x', 2000);
	strcat(text, "slots=9\nslots=1\n");
	write_text("conf", text);
	read_all();
	expect_fault(0, 3, "slots=1 is outside");
}
END_TEST

START_TEST(long_patterns_are_refused_with_both_numbers)
{
	char text[400] = "[model ";

	memset(text + 7, 'x', 130);
	strcpy(text + 137, "]\nslots=3\n");
	write_text("conf", text);
	read_all();
	expect_fault(0, 1, "has 130 bytes, and at most 128 are allowed");
	ck_assert_uint_eq(faults.count, 1);
	memset(&faults, 0, sizeof faults);
	strcpy(text + 135, "]\nslots=3\n");
	write_text("conf", text);
	read_all();
	ck_assert_msg(faults.count == 0, "%s", faults.reasons[0].text);
	ck_assert_uint_eq(strlen(config.defaults[0].pattern), 128);
}
END_TEST

START_TEST(too_many_sections_are_refused_with_the_limit)
{
	char text[4000] = "";

	for (int i = 0; i <= DEFAULTS_COUNT_MAX; i++)
		snprintf(text + strlen(text), 40, "[model m%d]\nslots=4\n", i);
	write_text("conf", text);
	read_all();
	expect_fault(0, 2 * DEFAULTS_COUNT_MAX + 1, "is one section more than the 64 that are allowed");
	ck_assert_uint_eq(faults.count, 1);
}
END_TEST

START_TEST(a_file_of_ten_megabytes_is_refused_at_once)
{
	static const char *const patterns[] = { "x", "[limits]\nslots=3\n", "# comment\n", "\n", "[model a]\nx\n" };
	size_t bytes = 10 * 1024 * 1024, period = strlen(patterns[_i]);
	char *text = malloc(bytes);

	for (size_t i = 0; i < bytes; i++)
		text[i] = patterns[_i][i % period];
	write_file("conf", text, bytes);
	free(text);
	read_all();
	ck_assert_uint_ge(faults.count, 1);
	/* The other faults come before it. */
	for (uint32_t i = 0; i < faults.count && i < CONFIG_FAULT_COUNT_MAX; i++)
		if (strstr(faults.reasons[i].text, "more than the 1048576 bytes"))
			return;
	ck_assert_uint_gt(faults.count, CONFIG_FAULT_COUNT_MAX);
}
END_TEST

START_TEST(what_cannot_be_read_is_named)
{
	read_all();
	ck_assert_uint_eq(faults.count, 1);
	ck_assert_int_eq(faults.error, -ENOENT);
	ck_assert_msg(strstr(faults.reasons[0].text, path) != NULL, "%s", faults.reasons[0].text);
	memset(&faults, 0, sizeof faults);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	read_all();
	ck_assert_uint_eq(faults.count, 1);
	ck_assert_int_eq(faults.error, -EISDIR);
	ck_assert_msg(strstr(faults.reasons[0].text, path) != NULL, "%s", faults.reasons[0].text);
}
END_TEST

START_TEST(without_permission_there_is_a_sentence)
{
	if (geteuid() == 0)
		ck_assert_int_eq(seteuid(65534), 0);
	strcpy(path, "/etc/shadow");
	read_all();
	ck_assert_uint_eq(faults.count, 1);
	ck_assert_int_eq(faults.error, -EACCES);
	ck_assert_msg(strstr(faults.reasons[0].text, "'/etc/shadow' cannot be read") != NULL, "%s", faults.reasons[0].text);
	if (getuid() == 0)
		ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

START_TEST(a_path_that_is_too_long_is_refused)
{
	static char deep[5000];

	memset(deep, 'x', sizeof deep - 1);
	config_file_read(&config, deep, &host, &faults);
	ck_assert_uint_ge(faults.count, 1);
	ck_assert_ptr_nonnull(strstr(faults.reasons[0].text, "at most 255 bytes"));
}
END_TEST

START_TEST(a_file_that_may_be_missing_is_read_if_it_is_there)
{
	char maybe[128];

	snprintf(maybe, sizeof maybe, "-%s", path);
	config_file_read(&config, maybe, &host, &faults);
	ck_assert_msg(faults.count == 0, "%s", faults.reasons[0].text);
	ck_assert_uint_eq(config.file_count, 0);
	write_text("conf", "[limits]\nslots=4\n");
	config_file_read(&config, maybe, &host, &faults);
	ck_assert_msg(faults.count == 0, "%s", faults.reasons[0].text);
	ck_assert_uint_eq(config.slot_count, 4);
	ck_assert_str_eq(config.files[0], path);
}
END_TEST

/* ---- several files ----------------------------------------------------------------------------------------------- */

START_TEST(the_last_file_counts_in_the_order_of_names)
{
	char name[160];

	snprintf(name, sizeof name, "%s.d", path);
	ck_assert_int_eq(mkdir(name, 0700), 0);
	write_text("conf", "[limits]\nslots=3\nstages=3\nmodels-max=3\n[model b*]\nstride=3\npolicy=coalesce\n");
	write_text("conf.d/20-b.conf", "[limits]\nslots=5\n[model c*]\nstride=5\n");
	write_text("conf.d/10-a.conf", "[limits]\nslots=4\nstages=4\n[model b*]\nstride=4\n");
	write_text("conf.d/30-c.conf.bak", "[limits]\nslots=99\n");
	write_text("conf.d/.hidden.conf", "[limits]\nslots=99\n");
	write_text("conf.d/README", "not a file of settings");
	read_all();
	ck_assert_msg(faults.count == 0, "%s", faults.reasons[0].text);
	ck_assert_uint_eq(config.slot_count, 5);
	ck_assert_uint_eq(config.stage_count, 4);
	ck_assert_uint_eq(config.model_count_max, 3);
	ck_assert_uint_eq(config.file_count, 3);
	ck_assert_uint_eq(config.origins[config_find("limits", "slots")].file, 2);
	ck_assert_uint_eq(config.origins[config_find("limits", "stages")].file, 1);
	/* A section of a pattern that is there already goes on where it stands. */
	ck_assert_uint_eq(config.default_count, 2);
	ck_assert_str_eq(config.defaults[0].pattern, "b*");
	ck_assert_uint_eq(config.defaults[0].stride, 4);
	ck_assert_uint_eq(config.defaults[0].coalesces, 1);
	ck_assert_str_eq(config.defaults[1].pattern, "c*");
}
END_TEST

START_TEST(the_faults_of_all_files_are_found)
{
	char name[160];

	snprintf(name, sizeof name, "%s.d", path);
	ck_assert_int_eq(mkdir(name, 0700), 0);
	write_text("conf", "[limits]\nslots=1\n");
	write_text("conf.d/a.conf", "[limits]\nslots=2\nslots=2\n");
	snprintf(name, sizeof name, "%s.d/b.conf", path);
	ck_assert_int_eq(mkdir(name, 0700), 0);
	write_text("conf.d/c.conf", "[limit]\n");
	read_all();
	ck_assert_uint_eq(faults.count, 4);
	ck_assert_ptr_nonnull(strstr(faults.reasons[0].text, "conf:2: "));
	ck_assert_ptr_nonnull(strstr(faults.reasons[1].text, "conf.d/a.conf:3: "));
	ck_assert_ptr_nonnull(strstr(faults.reasons[2].text, "conf.d/b.conf' cannot be read"));
	ck_assert_ptr_nonnull(strstr(faults.reasons[3].text, "conf.d/c.conf:1: "));
}
END_TEST

START_TEST(too_many_files_are_refused_with_the_limit)
{
	char name[160];

	snprintf(name, sizeof name, "%s.d", path);
	ck_assert_int_eq(mkdir(name, 0700), 0);
	write_text("conf", "");
	for (int i = 0; i < CONFIG_FILE_COUNT_MAX; i++) {
		snprintf(name, sizeof name, "conf.d/%03d.conf", i);
		write_text(name, "");
	}
	read_all();
	ck_assert_uint_eq(faults.count, 1);
	ck_assert_msg(strstr(faults.reasons[0].text, "063.conf' was not read: at most 64 files") != NULL, "%s",
	              faults.reasons[0].text);
}
END_TEST

START_TEST(what_is_beside_the_file_must_be_a_folder)
{
	write_text("conf", "[limits]\nslots=4\n");
	write_text("conf.d", "");
	read_all();
	ck_assert_uint_eq(faults.count, 1);
	ck_assert_int_eq(faults.error, -ENOTDIR);
	ck_assert_ptr_nonnull(strstr(faults.reasons[0].text, "conf.d' cannot be read"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("config_file");
	TCase *tcase = tcase_create("config_file");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, reads_a_file_and_remembers_the_lines);
	tcase_add_loop_test(tcase, an_empty_file_is_right, 0, 5);
	tcase_add_loop_test(tcase, names_file_line_and_fault, 0, sizeof bad_texts / sizeof bad_texts[0]);
	tcase_add_test(tcase, finds_everything_that_is_wrong_at_once);
	tcase_add_test(tcase, very_many_faults_are_counted_and_not_all_kept);
	tcase_add_test(tcase, a_nul_byte_hides_nothing);
	tcase_add_test(tcase, a_line_that_is_too_long_is_not_read_as_two);
	tcase_add_test(tcase, long_patterns_are_refused_with_both_numbers);
	tcase_add_test(tcase, too_many_sections_are_refused_with_the_limit);
	tcase_add_loop_test(tcase, a_file_of_ten_megabytes_is_refused_at_once, 0, 5);
	tcase_add_test(tcase, what_cannot_be_read_is_named);
	tcase_add_test(tcase, without_permission_there_is_a_sentence);
	tcase_add_test(tcase, a_path_that_is_too_long_is_refused);
	tcase_add_test(tcase, a_file_that_may_be_missing_is_read_if_it_is_there);
	tcase_add_test(tcase, the_last_file_counts_in_the_order_of_names);
	tcase_add_test(tcase, the_faults_of_all_files_are_found);
	tcase_add_test(tcase, too_many_files_are_refused_with_the_limit);
	tcase_add_test(tcase, what_is_beside_the_file_must_be_a_folder);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
