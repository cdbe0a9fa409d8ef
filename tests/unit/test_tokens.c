/*
 * Tokens and addresses: what is written in the file, who is known by it, and what the network leaves to whom.
 */
#include "daemon/core/tokens.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/network.h"

#define LONG "0123456789abcdef"

static struct tokens tokens;

START_TEST(a_line_is_a_name_a_token_and_a_class)
{
	const struct token *token;
	struct reason reason;

	ck_assert_int_eq(tokens_parse("# these\n\n a\t" LONG "1  read\r\nb " LONG "2 push\n  # more\nc " LONG "3 admin", &tokens,
	                              &reason), 0);
	ck_assert_uint_eq(tokens.count, 3);
	token = tokens_match(&tokens, text_of(LONG "2"));
	ck_assert_str_eq(token->name, "b");
	ck_assert_int_eq(token->granted, ACCESS_PUSH);
	ck_assert_ptr_eq(tokens_find(&tokens, "b"), token);
	ck_assert_ptr_null(tokens_find(&tokens, "d"));
}
END_TEST

START_TEST(only_the_whole_token_matches)
{
	char longest[SECRET_BYTES_MAX + 2];
	struct reason reason;

	ck_assert_int_eq(tokens_parse("a " LONG " read", &tokens, &reason), 0);
	ck_assert_ptr_nonnull(tokens_match(&tokens, text_of(LONG)));
	ck_assert_ptr_null(tokens_match(&tokens, text_of("")));
	ck_assert_ptr_null(tokens_match(&tokens, text_of("0123456789abcde")));
	ck_assert_ptr_null(tokens_match(&tokens, text_of(LONG "0")));
	ck_assert_ptr_null(tokens_match(&tokens, (struct text){ LONG "\0", 17 }));
	memset(longest, 'x', sizeof longest);
	ck_assert_ptr_null(tokens_match(&tokens, (struct text){ longest, sizeof longest }));
}
END_TEST

START_TEST(what_is_wrong_is_named_with_its_line_and_without_the_token)
{
	static const struct {
		const char *text, *complaint;
	} cases[] = {
		{ "a", "line 1: NAME TOKEN CLASS" },
		{ "\na " LONG, "line 2: NAME TOKEN CLASS" },
		{ "a " LONG " read push", "line 1: NAME TOKEN CLASS" },
		{ "a " LONG " open", "class of 'a' is 'open'" },
		{ "a 0123456789abcde read", "has 15 bytes" },
		{ "a " LONG " read\na " LONG "x read", "line 2: the name 'a' is there twice" },
		{ "abcdefghijklmnopqrstuvwxyzabcdefg " LONG " read", "more than 32 bytes" },
	};
	struct reason reason;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		ck_assert_int_eq(tokens_parse(cases[i].text, &tokens, &reason), STATUS_EARGUMENT);
		ck_assert_msg(strstr(reason.text, cases[i].complaint), "%s", reason.text);
		ck_assert_ptr_null(strstr(reason.text, "0123"));
	}
}
END_TEST

START_TEST(urls_are_tcp_or_tls_with_a_port)
{
	static const char *const wrong[] = {
		"10.0.0.5:7474", "udp://10.0.0.5:7474", "tcp://10.0.0.5", "tcp://:7474", "tcp://host:", "tcp://host:0",
		"tcp://host:65536", "tcp://host:7x", "tcp://::1:7474", "tcp://a:1 nonsense", "ipc:///run/x",
	};
	char url[64];

	ck_assert_int_eq(network_urls_check("", NULL), 0);
	ck_assert_int_eq(network_urls_check("tcp://0.0.0.0:7474 tls+tcp://[::]:7475", NULL), 0);
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		ck_assert_int_eq(network_urls_check(wrong[i], NULL), STATUS_EARGUMENT);
	ck_assert_int_eq(network_urls_check("tcp://a:1 tcp://a:2 tcp://a:3 tcp://a:4 tcp://a:5 tcp://a:6 tcp://a:7 tcp://a:8",
	                                    NULL), STATUS_EARGUMENT);
	ck_assert(network_url("tcp://a:1 tls+tcp://b:2", 1, url, sizeof url));
	ck_assert_str_eq(url, "tls+tcp://b:2");
	ck_assert(!network_url("tcp://a:1 tls+tcp://b:2", 2, url, sizeof url));
}
END_TEST

START_TEST(what_only_this_host_reaches_is_known_by_its_number_alone)
{
	ck_assert(network_url_is_local("tcp://127.0.0.1:1"));
	ck_assert(network_url_is_local("tls+tcp://[::1]:1"));
	ck_assert(!network_url_is_local("tcp://localhost:1"));
	ck_assert(!network_url_is_local("tcp://127.0.0.10:1"));
	ck_assert(!network_url_is_local("tcp://0.0.0.0:1"));
	ck_assert(!network_url_is_local("tcp://[::]:1"));
	ck_assert(network_url_is_secret("tls+tcp://[::1]:1"));
	ck_assert(!network_url_is_secret("tcp://[::1]:1"));
}
END_TEST

START_TEST(a_class_lets_into_those_below_it)
{
	ck_assert_uint_eq(network_refused(ACCESS_OPEN), 1 << ACCESS_READ | 1 << ACCESS_PUSH | 1 << ACCESS_ADMIN);
	ck_assert_uint_eq(network_refused(ACCESS_READ), 1 << ACCESS_PUSH | 1 << ACCESS_ADMIN);
	ck_assert_uint_eq(network_refused(ACCESS_PUSH), 1 << ACCESS_ADMIN);
	ck_assert_uint_eq(network_refused(ACCESS_ADMIN), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("tokens");
	TCase *tests = tcase_create("tokens");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tests, a_line_is_a_name_a_token_and_a_class);
	tcase_add_test(tests, only_the_whole_token_matches);
	tcase_add_test(tests, what_is_wrong_is_named_with_its_line_and_without_the_token);
	tcase_add_test(tests, urls_are_tcp_or_tls_with_a_port);
	tcase_add_test(tests, what_only_this_host_reaches_is_known_by_its_number_alone);
	tcase_add_test(tests, a_class_lets_into_those_below_it);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
