/*
 * emactl doctor: what it makes of facts, and that looking at this host finds plausible ones.
 */
#include "client/emactl/doctor.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct doctor_facts facts;
static struct doctor_findings findings;

/* A host on which all is well. */
static void setup(void)
{
	facts = (struct doctor_facts){
		.socket_path = "/run/emad/emad.sock",
		.attach_path = "/run/emad/attach.sock",
		.socket_mode = 0660,
		.socket_group = "emad",
		.user = "alice",
		.agent = "emad 0.1.0",
		.pid = 42,
		.round_trip_us = 30,
		.memory_bytes = UINT64_C(2) << 30,
		.memory_bytes_max = UINT64_C(8) << 30,
		.state_dir = "/var/lib/emad",
		.is_local = true,
		.file_count = 40,
		.file_count_max = 65536,
		.group_bytes = DOCTOR_UNKNOWN,
		.group_bytes_max = DOCTOR_UNKNOWN,
		.state_bytes_free = UINT64_C(100) << 30,
		.state_uid = 995,
		.process_uid = 995,
		.memory_total_bytes = UINT64_C(16) << 30,
		.memory_available_bytes = UINT64_C(10) << 30,
		.lock_bytes_max = DOCTOR_UNKNOWN,
		.huge_pages = "advise",
		.wall_s = 1800000000,
		.is_clock_synchronised = true,
		.kernel = "6.1.0",
		.nng = "1.5.2",
		.library = "0.1.0",
	};
}

static const struct doctor_finding *finding(const char *name)
{
	doctor_judge(&facts, &findings);
	ck_assert_uint_le(findings.count, DOCTOR_FINDING_COUNT_MAX);
	for (size_t i = 0; i < findings.count; i++)
		if (strcmp(findings.all[i].name, name) == 0)
			return &findings.all[i];
	return NULL;
}

/* The only one that is not good, with these words in its sentence and in what mends it. */
static void complains(const char *name, enum doctor_verdict verdict, const char *text, const char *fix)
{
	const struct doctor_finding *found = finding(name);

	ck_assert_ptr_nonnull(found);
	ck_assert_msg(found->verdict == verdict && strstr(found->text, text) && strstr(found->fix, fix),
	              "%s: %d: '%s' -> '%s'", name, (int)found->verdict, found->text, found->fix);
	for (size_t i = 0; i < findings.count; i++)
		ck_assert_msg(&findings.all[i] == found || findings.all[i].verdict == DOCTOR_OK, "%s: %s",
		              findings.all[i].name, findings.all[i].text);
}

START_TEST(a_good_host_is_good_throughout)
{
	doctor_judge(&facts, &findings);
	ck_assert_uint_eq(findings.count, 13);
	for (size_t i = 0; i < findings.count; i++) {
		ck_assert_msg(findings.all[i].verdict == DOCTOR_OK, "%s", findings.all[i].text);
		ck_assert_str_eq(findings.all[i].fix, "");
		ck_assert_str_ne(findings.all[i].text, "");
	}
}
END_TEST

START_TEST(another_version_is_a_warning)
{
	strcpy(facts.agent, "emad 0.2.0");
	complains("version", DOCTOR_WARN, "the daemon is 0.2.0, this library is 0.1.0", "systemctl restart emad");
}
END_TEST

START_TEST(a_daemon_that_is_away_is_a_failure_and_its_facts_are_left_out)
{
	facts.connect_code = -10001;
	strcpy(facts.connect_sentence, "no daemon answers");
	complains("daemon", DOCTOR_FAIL, "no daemon answers", "systemctl start emad");
	ck_assert_ptr_null(finding("version"));
	ck_assert_ptr_null(finding("memory"));
	ck_assert_ptr_null(finding("open files"));
	ck_assert_ptr_null(finding("state directory"));
}
END_TEST

START_TEST(who_may_not_connect_is_told_which_group_to_join)
{
	facts.socket_error = EACCES;
	complains("socket", DOCTOR_FAIL, "alice cannot use /run/emad/emad.sock: Permission denied",
	          "sudo usermod -aG emad alice");
	facts.socket_error = 0;
	facts.attach_error = ENOENT;
	complains("attach socket", DOCTOR_FAIL, "/run/emad/attach.sock: No such file", "restart emad");
	/* Root's group would open more than the socket. */
	facts.attach_error = EACCES;
	strcpy(facts.socket_group, "root");
	complains("attach socket", DOCTOR_FAIL, "Permission denied", "socket-mode=0666");
}
END_TEST

START_TEST(memory_that_is_promised_must_be_there)
{
	facts.memory_available_bytes = UINT64_C(5) << 30;
	complains("memory", DOCTOR_WARN, "uses 2.00 GiB and may use 6.00 GiB more", "memory-max=");
	facts.memory_available_bytes = UINT64_C(6) << 30;
	ck_assert_int_eq(finding("memory")->verdict, DOCTOR_OK);
	facts.memory_total_bytes = UINT64_C(4) << 30;
	complains("memory", DOCTOR_FAIL, "the host has 4.00 GiB", "memory-max=3276M");
}
END_TEST

START_TEST(a_control_group_must_not_kill_before_the_daemon_refuses)
{
	facts.group_bytes_max = UINT64_C(5) << 30;
	facts.group_bytes = UINT64_C(1) << 30;
	complains("control group", DOCTOR_FAIL, "may use 8.00 GiB (memory-max), but is killed at 5.00 GiB",
	          "memory-max=4096M");
	facts.group_bytes_max = UINT64_C(10) << 30;
	ck_assert_int_eq(finding("control group")->verdict, DOCTOR_OK);
	facts.group_bytes = UINT64_C(39) << 28;
	complains("control group", DOCTOR_WARN, "9.75 GiB of 10.0 GiB", "MemoryMax=12800M");
}
END_TEST

START_TEST(open_files_may_run_out)
{
	facts.file_count_max = 1024;
	complains("open files", DOCTOR_WARN, "has 40 of 1024", "LimitNOFILE=65536");
	facts.file_count = 1000;
	complains("open files", DOCTOR_FAIL, "has 1000 of 1024", "LimitNOFILE=65536");
	facts.file_count = DOCTOR_UNKNOWN;
	facts.file_count_max = 65536;
	ck_assert_int_eq(finding("open files")->verdict, DOCTOR_OK);
}
END_TEST

START_TEST(the_state_directory_needs_room_and_the_right_owner)
{
	facts.state_bytes_free = UINT64_C(1) << 30;
	complains("state directory", DOCTOR_WARN, "1.00 GiB are free in /var/lib/emad, and 2.00 GiB should be",
	          "state-dir=");
	facts.state_uid = 0;
	complains("state directory", DOCTOR_FAIL, "belongs to uid 0, and the daemon runs as uid 995",
	          "sudo chown -R 995: /var/lib/emad");
	facts.state_bytes_free = DOCTOR_UNKNOWN;
	complains("state directory", DOCTOR_WARN, "cannot be seen by alice", "sudo emactl doctor");
}
END_TEST

START_TEST(the_kernel_the_clock_and_the_library_are_looked_at)
{
	strcpy(facts.huge_pages, "never");
	ck_assert_int_eq(finding("huge pages")->verdict, DOCTOR_OK);
	facts.collapse_error = EINVAL;
	complains("huge pages", DOCTOR_WARN, "shmem_enabled is never, and MADV_COLLAPSE fails (Invalid argument)",
	          "echo advise");
	facts.collapse_error = 0;
	facts.seal_error = EPERM;
	complains("kernel", DOCTOR_FAIL, "no memory that can be sealed: Operation not permitted", "seccomp");
	facts.seal_error = 0;
	facts.is_clock_synchronised = false;
	complains("clock", DOCTOR_WARN, "not synchronised", "timedatectl set-ntp true");
	facts.wall_s = 3600;
	complains("clock", DOCTOR_FAIL, "3600 seconds since 1970", "timedatectl set-ntp true");
	facts.wall_s = 1800000000;
	facts.is_clock_synchronised = true;
	strcpy(facts.nng, "1.4.0");
	complains("NNG", DOCTOR_WARN, "1.4.0", "apt-get install");
}
END_TEST

/* An address that is there, and is all that the settings say. */
static struct doctor_place *only_place(const char *name, const char *port)
{
	struct doctor_place *place = &facts.places[0];

	facts.has_settings = true;
	facts.place_count = 1;
	*place = (struct doctor_place){.error = 0};
	strcpy(place->name, name);
	strcpy(place->port, port);
	return place;
}

START_TEST(an_address_must_be_there_and_its_port_free)
{
	struct doctor_place *place = only_place("127.0.0.1:9464", "9464");

	place->is_http = place->is_loopback = true;
	ck_assert_int_eq(finding("HTTP")->verdict, DOCTOR_OK);
	place->error = ECONNREFUSED;
	complains("HTTP", DOCTOR_FAIL, "does not answer at 127.0.0.1:9464: Connection refused", "systemctl restart emad");
	facts.connect_code = -10001;
	place->error = EADDRINUSE;
	ck_assert_int_eq(finding("HTTP")->verdict, DOCTOR_FAIL);
	ck_assert_ptr_nonnull(strstr(finding("HTTP")->text, "port 9464 of 127.0.0.1:9464 is taken by another program"));
	ck_assert_ptr_nonnull(strstr(finding("HTTP")->fix, "sudo ss -ltnp 'sport = :9464'"));
	place->error = EADDRNOTAVAIL;
	ck_assert_ptr_nonnull(strstr(finding("HTTP")->fix, "ip address"));
}
END_TEST

START_TEST(what_other_hosts_reach_wants_a_token_and_encryption)
{
	struct doctor_place *place = only_place("0.0.0.0:9464", "9464");

	place->is_http = true;
	complains("HTTP", DOCTOR_WARN, "not a loopback address, and there is no token", "http-token-file=");
	strcpy(facts.http_token.path, "/etc/emad/http.token");
	complains("HTTP", DOCTOR_WARN, "the token and the averages can be read on the way", "http-listen=127.0.0.1:9464");
	place = only_place("tcp://10.0.0.5:7474", "7474");
	complains("network", DOCTOR_WARN, "tcp://10.0.0.5:7474 is not encrypted", "listen=tls+tcp:");
	place->is_tls = true;
	ck_assert_int_eq(finding("network")->verdict, DOCTOR_OK);
}
END_TEST

START_TEST(a_token_is_not_for_everybody)
{
	facts.has_settings = true;
	strcpy(facts.tokens.path, "/etc/emad/tokens");
	facts.tokens.mode = 0640;
	ck_assert_int_eq(finding("tokens")->verdict, DOCTOR_OK);
	facts.tokens.mode = 0644;
	complains("tokens", DOCTOR_FAIL, "everybody on this host may read /etc/emad/tokens (mode 0644; token-file=)",
	          "sudo chmod o= /etc/emad/tokens");
	facts.tokens.error = ENOENT;
	complains("tokens", DOCTOR_FAIL, "token-file=/etc/emad/tokens: No such file", "/dev/stdin /etc/emad/tokens");
	facts.tokens.error = EACCES;
	complains("tokens", DOCTOR_WARN, "cannot be seen by alice", "sudo emactl doctor");
	strcpy(facts.tokens.path, "tokens");
	ck_assert_int_eq(finding("tokens")->verdict, DOCTOR_OK);
}
END_TEST

START_TEST(a_certificate_ends_one_day)
{
	facts.has_settings = true;
	strcpy(facts.certificate.path, "/etc/emad/daemon.crt");
	facts.certificate_end_s = facts.wall_s + 100 * 86400;
	ck_assert_ptr_nonnull(strstr(finding("certificate")->text, "good for another 100 days"));
	facts.certificate_end_s = facts.wall_s + 29 * 86400;
	complains("certificate", DOCTOR_WARN, "/etc/emad/daemon.crt ends in 29", "-out /etc/emad/daemon.crt");
	facts.certificate_end_s = facts.wall_s;
	complains("certificate", DOCTOR_FAIL, "clients cannot connect with TLS", "systemctl reload emad");
	facts.certificate_end_s = 0;
	complains("certificate", DOCTOR_WARN, "cannot be seen by alice", "openssl x509 -noout -enddate");
}
END_TEST

START_TEST(wrong_settings_are_said_before_a_start_fails)
{
	facts.are_settings_wrong = true;
	complains("settings", DOCTOR_FAIL, "would not start", "emad --check-config");
}
END_TEST

START_TEST(nothing_of_a_remote_host_is_judged)
{
	facts.is_local = false;
	facts.socket_path[0] = facts.attach_path[0] = '\0';
	facts.memory_total_bytes = 1;
	facts.state_bytes_free = 0;
	doctor_judge(&facts, &findings);
	ck_assert_uint_eq(findings.count, 7);
	for (size_t i = 0; i < findings.count; i++)
		ck_assert_int_eq(findings.all[i].verdict, DOCTOR_OK);
}
END_TEST

START_TEST(looking_at_this_host_finds_it)
{
	struct doctor_facts here = {.pid = (uint64_t)getpid(), .state_dir = "/tmp"};

	doctor_host_look(&here);
	/* A process of that pid is there, but it is no daemon. */
	ck_assert(!here.is_local);
	ck_assert_uint_eq(here.file_count, DOCTOR_UNKNOWN);
	ck_assert_uint_gt(here.memory_total_bytes, here.memory_available_bytes);
	ck_assert_uint_gt(here.memory_available_bytes, 1 << 20);
	ck_assert_uint_ne(here.state_bytes_free, DOCTOR_UNKNOWN);
	ck_assert_uint_ne(here.state_uid, DOCTOR_UNKNOWN);
	ck_assert_int_eq(here.seal_error, 0);
	ck_assert_int_gt(here.wall_s, 1704067200);
	ck_assert_str_ne(here.user, "");
	ck_assert_str_ne(here.kernel, "");
}
END_TEST

START_TEST(sockets_are_tried)
{
	struct doctor_facts here = {.pid = 0};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char directory[] = "/tmp/emad-doctor-XXXXXX";
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(here.socket_path, sizeof(here.socket_path), "%s/emad.sock", directory);
	snprintf(here.attach_path, sizeof(here.attach_path), "%s/attach.sock", directory);
	strcpy(address.sun_path, here.socket_path);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	doctor_sockets_look(&here);
	ck_assert_int_eq(here.socket_error, ECONNREFUSED);
	ck_assert_int_eq(here.attach_error, ENOENT);
	ck_assert_int_eq(listen(fd, 1), 0);
	ck_assert_int_eq(chmod(address.sun_path, 0640), 0);
	doctor_sockets_look(&here);
	ck_assert_int_eq(here.socket_error, 0);
	ck_assert_uint_eq(here.socket_mode, 0640);
	ck_assert_str_ne(here.socket_group, "");
	close(fd);
	unlink(here.socket_path);
	rmdir(directory);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("doctor");
	TCase *tcase = tcase_create("doctor");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, a_good_host_is_good_throughout);
	tcase_add_test(tcase, another_version_is_a_warning);
	tcase_add_test(tcase, a_daemon_that_is_away_is_a_failure_and_its_facts_are_left_out);
	tcase_add_test(tcase, who_may_not_connect_is_told_which_group_to_join);
	tcase_add_test(tcase, memory_that_is_promised_must_be_there);
	tcase_add_test(tcase, a_control_group_must_not_kill_before_the_daemon_refuses);
	tcase_add_test(tcase, open_files_may_run_out);
	tcase_add_test(tcase, the_state_directory_needs_room_and_the_right_owner);
	tcase_add_test(tcase, the_kernel_the_clock_and_the_library_are_looked_at);
	tcase_add_test(tcase, an_address_must_be_there_and_its_port_free);
	tcase_add_test(tcase, what_other_hosts_reach_wants_a_token_and_encryption);
	tcase_add_test(tcase, a_token_is_not_for_everybody);
	tcase_add_test(tcase, a_certificate_ends_one_day);
	tcase_add_test(tcase, wrong_settings_are_said_before_a_start_fails);
	tcase_add_test(tcase, nothing_of_a_remote_host_is_judged);
	tcase_add_test(tcase, looking_at_this_host_finds_it);
	tcase_add_test(tcase, sockets_are_tried);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
