/*
 * Who is let into what.
 */
#include "daemon/core/access.h"

#include <check.h>
#include <stdlib.h>

enum { OWN = 500, READ = 1 << ACCESS_READ, PUSH = 1 << ACCESS_PUSH, ADMIN = 1 << ACCESS_ADMIN };

/* One rule set: users and groups of read, push and admin; 0 for none. */
struct rules_row {
	uint32_t users[3], groups[3];
};

static struct access_rules rules_of(const struct rules_row *row)
{
	struct access_rules rules = { 0 };

	for (int i = 0; i < 3; i++) {
		rules.users[ACCESS_READ + i].count = row->users[i] != 0;
		rules.users[ACCESS_READ + i].ids[0] = row->users[i];
		rules.groups[ACCESS_READ + i].count = row->groups[i] != 0;
		rules.groups[ACCESS_READ + i].ids[0] = row->groups[i];
	}
	return rules;
}

static const struct {
	struct rules_row rules;
	int64_t uid, gid;
	uint32_t group; /* a further one */
	uint32_t refused;
} rows[] = {
	/* Nothing is said: everybody reads and pushes. */
	{ { { 0 }, { 0 } }, 1001, 1001, 9, ADMIN },
	{ { { 0 }, { 0 } }, -1, -1, 9, ADMIN },
	{ { { 0 }, { 0 } }, OWN, 1, 9, 0 },
	{ { { 0 }, { 0 } }, 0, 0, 9, 0 },
	/* The daemon's own user and root are let in whatever the lists say. */
	{ { { 7, 7, 7 }, { 0 } }, OWN, 1, 9, 0 },
	{ { { 7, 7, 7 }, { 0 } }, 0, 0, 9, 0 },
	/* A list closes its class, and nothing else. */
	{ { { 1001, 0, 0 }, { 0 } }, 1001, 1, 9, ADMIN },
	{ { { 1001, 0, 0 }, { 0 } }, 1002, 1, 9, READ | ADMIN },
	{ { { 0, 1001, 0 }, { 0 } }, 1001, 1, 9, ADMIN },
	{ { { 0, 1001, 0 }, { 0 } }, 1002, 1, 9, PUSH | ADMIN },
	/* Who is listed for a class gets those below it. */
	{ { { 7, 1001, 0 }, { 0 } }, 1001, 1, 9, ADMIN },
	{ { { 7, 7, 1001 }, { 0 } }, 1001, 1, 9, 0 },
	{ { { 7, 7, 1001 }, { 0 } }, 7, 1, 9, ADMIN },
	{ { { 7, 7, 1001 }, { 0 } }, 1002, 1, 9, READ | PUSH | ADMIN },
	/* Groups: the peer's own, and its further ones. */
	{ { { 0 }, { 0, 2001, 0 } }, 1001, 2001, 9, ADMIN },
	{ { { 0 }, { 0, 2001, 0 } }, 1001, 1, 2001, ADMIN },
	{ { { 0 }, { 0, 2001, 0 } }, 1001, 1, 9, PUSH | ADMIN },
	{ { { 0 }, { 2001, 0, 0 } }, 1001, 1, 9, READ | ADMIN },
	{ { { 0 }, { 0, 0, 2001 } }, 1001, 1, 2001, 0 },
	/* A number of a user is none of a group. */
	{ { { 2001, 0, 0 }, { 0 } }, 1001, 2001, 2001, READ | ADMIN },
	/* A peer that is not known is on no list. */
	{ { { 7, 7, 7 }, { 7, 7, 7 } }, -1, -1, 9, READ | PUSH | ADMIN },
};

START_TEST(a_peer_is_let_into_what_the_lists_say)
{
	struct access_rules rules = rules_of(&rows[_i].rules);
	struct access_peer peer = { .uid = rows[_i].uid, .gid = rows[_i].gid, .groups = &rows[_i].group, .group_count = 1 };

	ck_assert_uint_eq(access_refused(&rules, OWN, &peer), rows[_i].refused);
}
END_TEST

START_TEST(groups_are_wanted_where_a_list_has_some)
{
	struct access_rules rules = { 0 };

	ck_assert(!access_wants_groups(&rules));
	rules.users[ACCESS_PUSH].count = 1;
	ck_assert(!access_wants_groups(&rules));
	rules.groups[ACCESS_ADMIN].count = 1;
	ck_assert(access_wants_groups(&rules));
}
END_TEST

START_TEST(every_operation_has_a_class)
{
	static const enum access classes[OPERATION_COUNT] = {
		[OP_HELLO] = ACCESS_OPEN,       [OP_REGISTER] = ACCESS_PUSH, [OP_ATTACH] = ACCESS_PUSH,
		[OP_PUSH] = ACCESS_PUSH,        [OP_RESERVE] = ACCESS_PUSH,  [OP_FLUSH] = ACCESS_PUSH,
		[OP_ATTRIBUTES] = ACCESS_PUSH,  [OP_VIEW] = ACCESS_READ,     [OP_STATUS] = ACCESS_READ,
		[OP_LIST] = ACCESS_READ,        [OP_SHOW] = ACCESS_READ,     [OP_REMOVE] = ACCESS_ADMIN,
		[OP_PROFILE_SET] = ACCESS_ADMIN, [OP_PROFILE_REMOVE] = ACCESS_ADMIN,
		[OP_HISTORY] = ACCESS_READ,     [OP_ROLLBACK] = ACCESS_ADMIN, [OP_CHECKPOINT_KEEP] = ACCESS_ADMIN,
	};

	for (int i = 0; i < OPERATION_COUNT; i++)
		ck_assert_msg(message_operations[i].access == classes[i], "%s", message_operations[i].name);
	ck_assert_str_eq(access_name(ACCESS_ADMIN), "admin");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("access");
	TCase *tcase = tcase_create("access");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, a_peer_is_let_into_what_the_lists_say, 0, sizeof rows / sizeof rows[0]);
	tcase_add_test(tcase, groups_are_wanted_where_a_list_has_some);
	tcase_add_test(tcase, every_operation_has_a_class);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
