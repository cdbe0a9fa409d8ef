/*
 * The link where names are looked up slowly: NNG's own getaddrinfo is the one below, which takes its time.
 */
#include "client/link.h"

#include "client/wait.h"

#include <check.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static _Atomic unsigned lookups;

/* Now and then as long as the deadlines below, so that they pass before it, within it and behind it. */
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **results)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	struct timespec pause = {.tv_nsec = atomic_fetch_add(&lookups, 1) % 16 * 100000L};

	*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	nanosleep(&pause, NULL);
	return real(host, service, hints, results);
}

/* Nobody speaks there, but connections come about. */
static int listen_somewhere(char *url, size_t capacity)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t bytes = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, bytes), 0);
	ck_assert_int_eq(listen(fd, 4096), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
	snprintf(url, capacity, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
	return fd;
}

/* What a deadline has left behind is still under way in NNG when the next attempt begins. */
START_TEST(goes_on_after_deadlines_that_pass_while_a_name_is_looked_up)
{
	enum { ATTEMPT_COUNT = 1500 };
	char url[64];
	int fd = listen_somewhere(url, sizeof(url));
	const struct link_options options = {.url = url};
	struct reason reason = {.text = ""};
	unsigned late = 0, before;
	struct link *link;

	ck_assert_int_eq(link_open(&options, &link, &reason), 0);
	for (int i = 0; i < ATTEMPT_COUNT; i++) {
		int code = link_wait(link, wait_now_ms() + 1, &reason);

		ck_assert_msg(code == STATUS_ETIMEOUT || code == STATUS_EAWAY, "%d: %s", code, reason.text);
		late += code == STATUS_ETIMEOUT;
	}
	/* Afterwards as before: a name is looked up, and there is a connection on which nobody answers. */
	before = atomic_load(&lookups);
	ck_assert_int_eq(link_wait(link, wait_now_ms() + 200, &reason), STATUS_ETIMEOUT);
	ck_assert_msg(strstr(reason.text, "takes connections but did not answer in time"), "%s", reason.text);
	ck_assert_uint_gt(atomic_load(&lookups), before);
	ck_assert_uint_gt(late, ATTEMPT_COUNT / 2);
	link_close(link);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("link");
	TCase *tests = tcase_create("names");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, goes_on_after_deadlines_that_pass_while_a_name_is_looked_up);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_VERBOSE);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
