/*
 * Users and groups, against those that the host itself names.
 */
#include "daemon/edge/accounts.h"

#include <check.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

START_TEST(finds_users_and_groups_by_name)
{
	uint32_t id = 77;

	ck_assert_int_eq(accounts_user("root", &id), 0);
	ck_assert_uint_eq(id, 0);
	ck_assert_int_eq(accounts_user("nobody", &id), 0);
	ck_assert_uint_eq(id, getpwnam("nobody")->pw_uid);
	ck_assert_int_eq(accounts_group("root", &id), 0);
	ck_assert_uint_eq(id, 0);
	id = 77;
	ck_assert_int_eq(accounts_user("no-such-user", &id), -ENOENT);
	ck_assert_int_eq(accounts_group("no-such-group", &id), -ENOENT);
	ck_assert_uint_eq(id, 77);
}
END_TEST

START_TEST(knows_the_groups_of_every_user_of_the_host)
{
	static struct accounts accounts;
	const uint32_t *groups;
	struct passwd *entry;

	setpwent();
	while ((entry = getpwent())) {
		bool has_own = false;
		uint32_t uid = entry->pw_uid, gid = entry->pw_gid;

		for (int round = 0; round < 2; round++) {
			size_t count = accounts_groups(&accounts, uid, &groups);

			for (size_t i = 0; i < count; i++)
				has_own = has_own || groups[i] == gid;
			ck_assert_msg(has_own, "uid %u has not its own group %u", uid, gid);
		}
	}
	endpwent();
	/* More than are remembered at once, all without a name. */
	for (uint32_t uid = 3999999900; uid < 3999999940; uid++)
		ck_assert_uint_eq(accounts_groups(&accounts, uid, &groups), 0);
	ck_assert_uint_ge(accounts_groups(&accounts, 0, &groups), 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("accounts");
	TCase *tcase = tcase_create("accounts");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, finds_users_and_groups_by_name);
	tcase_add_test(tcase, knows_the_groups_of_every_user_of_the_host);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
