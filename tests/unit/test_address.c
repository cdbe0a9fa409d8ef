/*
 * Addresses to listen at.
 */
#include "daemon/core/address.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

START_TEST(reads_addresses_of_both_kinds)
{
	struct address addresses[ADDRESS_COUNT_MAX];
	uint32_t count;

	ck_assert_int_eq(address_list_parse("127.0.0.1:9464 [::1]:0  [2001:db8::7]:65535", addresses, &count, NULL), 0);
	ck_assert_uint_eq(count, 3);
	ck_assert(!addresses[0].is_v6 && address_is_loopback(&addresses[0]));
	ck_assert_mem_eq(addresses[0].bytes, "\x7f\0\0\x01", 4);
	ck_assert_uint_eq(addresses[0].port, 9464);
	ck_assert(addresses[1].is_v6 && address_is_loopback(&addresses[1]));
	ck_assert_uint_eq(addresses[1].port, 0);
	ck_assert(addresses[2].is_v6 && !address_is_loopback(&addresses[2]));
	ck_assert_uint_eq(addresses[2].port, 65535);
	ck_assert_int_eq(address_list_parse("127.9.9.9:1 0.0.0.0:80", addresses, &count, NULL), 0);
	ck_assert(address_is_loopback(&addresses[0]) && !address_is_loopback(&addresses[1]));
	ck_assert_int_eq(address_list_parse("", addresses, &count, NULL), 0);
	ck_assert_uint_eq(count, 0);
}
END_TEST

static const char *const bad[] = {
	"localhost:80", "127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:65536", "127.0.0.1:99999999999999999999", "127.0.0.1:x",
	"127.0.0.1:-1", "127.1:80", "1.2.3.256:80", "::1:80", "[::1]", "[::1]80", "[::1:80", "[]:80", "[127.0.0.1]:80", "80",
	"127.0.0.1:80 nonsense", "[::1]x:80",
};

START_TEST(says_what_an_address_is)
{
	struct address addresses[ADDRESS_COUNT_MAX];
	struct reason reason;
	uint32_t count = 77;

	ck_assert_int_eq(address_list_parse(bad[_i], addresses, &count, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "is not an address") && strstr(reason.text, "[::1]:9464"), "%s", reason.text);
	ck_assert_uint_eq(count, 77);
	ck_assert_int_eq(address_list_check(bad[_i], NULL), STATUS_EARGUMENT);
}
END_TEST

START_TEST(lists_are_bounded)
{
	char text[400] = "";
	struct reason reason;

	for (int i = 0; i < ADDRESS_COUNT_MAX; i++)
		strcat(text, "127.0.0.1:1 ");
	ck_assert_int_eq(address_list_check(text, &reason), 0);
	strcat(text, "127.0.0.1:1");
	ck_assert_int_eq(address_list_check(text, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "more than 8 addresses") != NULL, "%s", reason.text);
	memset(text, '1', 100);
	text[100] = '\0';
	ck_assert_int_eq(address_list_check(text, &reason), STATUS_EARGUMENT);
	ck_assert_msg(strstr(reason.text, "100 bytes, and at most 64") != NULL, "%s", reason.text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("address");
	TCase *tcase = tcase_create("address");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, reads_addresses_of_both_kinds);
	tcase_add_loop_test(tcase, says_what_an_address_is, 0, sizeof bad / sizeof bad[0]);
	tcase_add_test(tcase, lists_are_bounded);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
