/*
 * Limits of control groups, of both versions, in a folder that looks like the kernel's.
 */
#include "daemon/edge/memory_group.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LEVEL_COUNT = 3 };

static const char *const levels[LEVEL_COUNT] = { "", "/a.slice", "/a.slice/b.service" };

/* Of the root, the slice and the service. NULL: there is no such hierarchy. */
static const struct limits {
	const char *process;
	const char *v2[LEVEL_COUNT], *v1[LEVEL_COUNT];
	uint64_t total, available;
} cases[] = {
	/* Of 1000 bytes that are used 200 are files' pages. */
	{ "0::/a.slice/b.service\n", { "max", "max", "5000" }, { NULL }, 5000, 4200 },
	{ "0::/a.slice/b.service\n", { "max", "4000", "5000" }, { NULL }, 4000, 3200 },
	{ "0::/a.slice/b.service\n", { "3000", "4000", "max" }, { NULL }, 3000, 2200 },
	{ "0::/a.slice/b.service\n", { "max", "max", "500" }, { NULL }, 500, 0 },
	{ "0::/a.slice/b.service\n", { "max", "max", "max" }, { NULL }, UINT64_MAX, UINT64_MAX },
	{ "0::/a.slice\n", { "max", "4000", "300" }, { NULL }, 4000, 3200 },
	{ "0::/\n", { "6000", "4000", "300" }, { NULL }, 6000, 5200 },
	{ "12:memory:/a.slice\n0::/a.slice\n", { "max", "4000", "300" }, { NULL }, 4000, 3200 },
	{ "0::/not/there\n", { "max", "4000", "300" }, { NULL }, UINT64_MAX, UINT64_MAX },
	{ "12:memory:/a.slice\n", { "max", "4000", "300" }, { NULL }, UINT64_MAX, UINT64_MAX },
	{ "", { "max", "4000", "300" }, { "max", "4000", "300" }, UINT64_MAX, UINT64_MAX },
	/* v1, where a number says that there is none. */
	{ "9:name=systemd:/x\n4:memory:/a.slice/b.service\n1:cpu:/\n0::/\n", { NULL },
	  { "9223372036854771712", "9223372036854771712", "5000" }, 5000, 4200 },
	{ "4:cpu,memory,hugetlb:/a.slice/b.service\n", { NULL }, { "9223372036854771712", "4000", "5000" }, 4000, 3200 },
	{ "4:memory:/a.slice/b.service", { NULL }, { "3000", "4000", "5000" }, 3000, 2200 },
	{ "4:memory:/\n", { NULL }, { "9223372036854771712", "4000", "5000" }, UINT64_MAX, UINT64_MAX },
	/* As in a container: the host's path is not there, its own root is. */
	{ "4:memory:/docker/0123456789abcdef\n", { NULL }, { "2000", "4000", "5000" }, 2000, 1200 },
	{ "4:memorycache,xmemory:/a.slice\n4:memory\n", { NULL }, { "2000", "4000", "5000" }, UINT64_MAX, UINT64_MAX },
	/* Both. */
	{ "4:memory:/a.slice\n0::/a.slice\n", { "max", "7000", "5000" }, { "9223372036854771712", "6000", "5000" }, 6000, 5200 },
	{ "0::/a.slice\n4:memory:/a.slice\n", { "max", "700", "5000" }, { "9223372036854771712", "6000", "5000" }, 700, 0 },
};

static char root[] = "/tmp/emad-groups-XXXXXX";

static void text_write(const char *folder, const char *name, const char *text)
{
	char path[200];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	file = fopen(path, "we");
	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	ck_assert_int_eq(fclose(file), 0);
}

static void hierarchy_write(const char *below, const char *const limits[LEVEL_COUNT], const char *const names[2],
                            const char *stat)
{
	char folder[120], text[40];

	for (int i = 0; i < LEVEL_COUNT && limits[0]; i++) {
		snprintf(folder, sizeof folder, "%s%s%s", root, below, levels[i]);
		(void)mkdir(folder, 0700);
		snprintf(text, sizeof text, "%s\n", limits[i]);
		text_write(folder, names[0], text);
		text_write(folder, names[1], "1000\n");
		text_write(folder, "memory.stat", stat);
	}
}

START_TEST(the_narrowest_of_the_groups_around_a_process_bounds_its_memory)
{
	static const char *const v2[] = { "memory.max", "memory.current" };
	static const char *const v1[] = { "memory.limit_in_bytes", "memory.usage_in_bytes" };
	const struct limits *limits = &cases[_i];
	struct memory_bounds bounds;
	char process[64], command[64];

	ck_assert_ptr_nonnull(mkdtemp(root));
	hierarchy_write("", limits->v2, v2, "anon 800\ninactive_file 200\n");
	hierarchy_write("/memory", limits->v1, v1, "inactive_file 7\ntotal_rss 800\ntotal_inactive_file 200\n");
	text_write(root, "cgroup", limits->process);
	snprintf(process, sizeof process, "%s/cgroup", root);
	bounds = memory_bounds(process, root);
	ck_assert_uint_eq(bounds.total_bytes, limits->total);
	ck_assert_uint_eq(bounds.available_bytes, limits->available);
	ck_assert_uint_eq(memory_bounds("/not/there", root).total_bytes, UINT64_MAX);
	snprintf(command, sizeof command, "rm -r %s", root);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(of_all_memory_some_is_available)
{
	ck_assert_uint_gt(memory_available_bytes(), 0);
	ck_assert_uint_ge(memory_total_bytes(), memory_available_bytes());
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("memory group");
	TCase *tcase = tcase_create("memory group");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, the_narrowest_of_the_groups_around_a_process_bounds_its_memory, 0,
	                    sizeof cases / sizeof cases[0]);
	tcase_add_test(tcase, of_all_memory_some_is_available);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
