/*
 * What is said to the service manager about descriptors, and what is taken from it. The service manager is the test.
 */
#include "daemon/edge/systemd.h"

#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HEARD_MAX = 16 };

static char scratch[64];
static int notify;
static pthread_t listener;
static struct {
	char text[256];
	ino_t inode; /* of the file that came with it */
} heard[HEARD_MAX];
static int heard_count;

/* Reads until it is told to end. What comes with a message is closed, which is how a barrier ends. */
static void *listen_to_all(void *context)
{
	(void)context;
	for (;;) {
		char control[CMSG_SPACE(sizeof(int))] = "";
		struct iovec part = { heard[heard_count].text, sizeof heard[0].text - 1 };
		struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
		                          .msg_controllen = sizeof control };
		ssize_t count = recvmsg(notify, &message, MSG_CMSG_CLOEXEC);
		struct cmsghdr *header = count < 0 ? NULL : CMSG_FIRSTHDR(&message);

		if (count < 0 || strncmp(heard[heard_count].text, "end", 3) == 0)
			return NULL;
		while (header && header->cmsg_type != SCM_RIGHTS)
			header = CMSG_NXTHDR(&message, header);
		if (header) {
			struct stat facts;
			int fd;

			memcpy(&fd, CMSG_DATA(header), sizeof fd);
			heard[heard_count].inode = fstat(fd, &facts) == 0 ? facts.st_ino : 0;
			close(fd);
		}
		heard_count++;
	}
}

static void setup(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char pid[32];

	snprintf(scratch, sizeof scratch, "/tmp/emad-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	snprintf(address.sun_path, sizeof address.sun_path, "%s/notify", scratch);
	notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(notify, (const struct sockaddr *)&address, sizeof address), 0);
	snprintf(pid, sizeof pid, "%d", (int)getpid());
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	setenv("SYSTEMD_EXEC_PID", pid, 1);
	memset(heard, 0, sizeof heard);
	heard_count = 0;
	ck_assert_int_eq(pthread_create(&listener, NULL, listen_to_all, NULL), 0);
}

/* Everything that was said until now has been heard. */
static void listened(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof address.sun_path, "%s/notify", scratch);
	ck_assert_int_eq(sendto(fd, "end", 3, 0, (const struct sockaddr *)&address, sizeof address), 3);
	close(fd);
	ck_assert_int_eq(pthread_join(listener, NULL), 0);
}

static void teardown(void)
{
	char path[128];

	close(notify);
	snprintf(path, sizeof path, "%s/notify", scratch);
	unlink(path);
	rmdir(scratch);
}

START_TEST(a_descriptor_is_stored_and_removed_by_its_name)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	struct stat facts;

	ck_assert_int_eq(fstat(fd, &facts), 0);
	ck_assert_int_eq(systemd_store("emad-0123456789abcdef", fd), 0);
	systemd_unstore("emad-0123456789abcdef");
	listened();
	ck_assert_int_eq(heard_count, 3);
	ck_assert_str_eq(heard[0].text, "FDSTORE=1\nFDNAME=emad-0123456789abcdef");
	ck_assert_uint_eq(heard[0].inode, facts.st_ino);
	ck_assert_str_eq(heard[1].text, "FDSTOREREMOVE=1\nFDNAME=emad-0123456789abcdef");
	/* Whoever has answered it has let go of the descriptor before. */
	ck_assert_str_eq(heard[2].text, "BARRIER=1");
	close(fd);
}
END_TEST

/* In a container or under another supervisor: nobody would read, or store anything. */
START_TEST(nothing_is_stored_with_others_than_the_service_manager)
{
	static const char *const pids[] = { NULL, "1", "" };
	int fd = memfd_create("test", MFD_CLOEXEC);

	for (int i = 0; i < 3; i++) {
		if (pids[i])
			setenv("SYSTEMD_EXEC_PID", pids[i], 1);
		else
			unsetenv("SYSTEMD_EXEC_PID");
		ck_assert_int_eq(systemd_store("emad-0123456789abcdef", fd), 0);
		systemd_unstore("emad-0123456789abcdef");
	}
	listened();
	ck_assert_int_eq(heard_count, 0);
	unsetenv("NOTIFY_SOCKET");
	ck_assert_int_eq(systemd_store("emad-0123456789abcdef", fd), 0);
	close(fd);
}
END_TEST

START_TEST(a_service_manager_that_has_gone_is_an_error)
{
	listened();
	close(notify);
	ck_assert_int_lt(systemd_store("emad-0123456789abcdef", 0), 0);
	systemd_unstore("emad-0123456789abcdef");
	notify = -1;
}
END_TEST

/* In a child with descriptors from 3 up, as the service manager leaves them. 0, or the line that was wrong. */
static int take_all(void)
{
	struct systemd_handed handed, again;
	char pid[32];
	struct stat facts;
	int plain, listening, file;

	plain = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	listening = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	file = memfd_create("test", 0);
	if (bind(listening, (const struct sockaddr *)&(struct sockaddr_un){ AF_UNIX, "" }, sizeof(sa_family_t)) != 0 ||
	    listen(listening, 1) != 0)
		return __LINE__;
	/* Away from where they go. */
	plain = fcntl(plain, F_DUPFD, 100);
	listening = fcntl(listening, F_DUPFD, 100);
	file = fcntl(file, F_DUPFD, 100);
	if (dup2(file, 3) != 3 || dup2(plain, 4) != 4 || dup2(listening, 5) != 5 || dup2(file, 6) != 6)
		return __LINE__;
	snprintf(pid, sizeof pid, "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "4", 1);
	setenv("LISTEN_FDNAMES", "emad-0000000000000002:attach:attach:emad-0000000000000001", 1);
	if (systemd_handed_take(&handed) != 0 || handed.count != 4)
		return __LINE__;
	if (getenv("LISTEN_FDS") || systemd_handed_take(&again) != 0 || again.count != 0)
		return __LINE__;
	if (strcmp(handed.descriptors[0].name, "emad-0000000000000002") != 0 || handed.descriptors[0].fd != 3)
		return __LINE__;
	if (fcntl(3, F_GETFD) != FD_CLOEXEC)
		return __LINE__;
	if (systemd_listener(&handed, "other", SOCK_SEQPACKET) != -1 || systemd_listener(&handed, "attach", SOCK_SEQPACKET) != 5)
		return __LINE__;
	if (systemd_listener(&handed, "attach", SOCK_SEQPACKET) != -1)
		return __LINE__;
	handed.descriptors[3].fd = -1;
	systemd_handed_finish(&handed);
	if (fstat(3, &facts) == 0 || fstat(4, &facts) == 0 || fstat(5, &facts) != 0 || fstat(6, &facts) != 0)
		return __LINE__;
	systemd_handed_finish(&again);
	return 0;
}

START_TEST(what_is_handed_over_is_taken_once_and_by_name)
{
	int status;
	pid_t child = fork();

	if (child == 0)
		_exit(take_all() & 0xff);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(status == 0, "line %d", WEXITSTATUS(status));
	listened();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("systemd");
	TCase *tcase = tcase_create("systemd");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_descriptor_is_stored_and_removed_by_its_name);
	tcase_add_test(tcase, nothing_is_stored_with_others_than_the_service_manager);
	tcase_add_test(tcase, a_service_manager_that_has_gone_is_an_error);
	tcase_add_test(tcase, what_is_handed_over_is_taken_once_and_by_name);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
