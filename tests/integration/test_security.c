/*
 * What a client may not do, though it has every descriptor that the daemon gives away: write into a version, change the
 * size of a segment, use names that lead elsewhere. The peer is another user where the test may become one.
 */
#include "tests/integration/harness.h"
#include "tests/integration/process.h"
#include "tests/integration/role.h"
#include "tests/integration/wire.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/layout.h"

enum { OTHER_UID = 65534, ROWS = 3000, CALL_MAX_MS = 20000 };

static struct harness harness;
static struct progress_page page;

/* A daemon that everybody may connect to, with a model in it. */
static void daemon_open(void)
{
	static char path[96];
	static const char *arguments[] = {"--config", path, NULL};
	FILE *file;
	int fd;

	snprintf(path, sizeof(path), "/tmp/emad-test-conf-XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	file = fdopen(fd, "w");
	ck_assert_ptr_nonnull(file);
	fputs("[access]\nsocket-mode=0666\n", file);
	ck_assert_int_eq(fclose(file), 0);
	harness_open(&harness, arguments);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(chmod(harness.directory, 0711), 0);
	progress_open(&page, harness.directory);
	ck_assert_int_eq(process_wait(role_trainer_start(&page, 0, harness.url, "secret", ROWS, 0, 1, 1, 3, ROLE_WAITS),
	                              CALL_MAX_MS * process_scale()), 0);
}

static void daemon_close(void)
{
	progress_close(&page);
	ck_assert_int_eq(harness_stop(&harness), 0);
	harness_close(&harness);
}

/* ---- the attacker, in a process of its own ----------------------------------------------------------------------- */

static int failures;

/* The attempt must be refused with one of the errors. */
static void refused(const char *what, int result, int error, int other)
{
	if (result == -1 && (errno == error || errno == other))
		return;
	fprintf(stderr, "%s: %s\n", what, result == -1 ? strerror(errno) : "succeeded");
	failures++;
}

static int map_try(int fd, int protection)
{
	void *map = mmap(NULL, LAYOUT_PAGE_BYTES, protection, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -1;
	munmap(map, LAYOUT_PAGE_BYTES);
	return 0;
}

/* Write access to memory that is mapped for reading. */
static int protect_try(int fd)
{
	void *map = mmap(NULL, LAYOUT_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	int result, error;

	if (map == MAP_FAILED)
		return -1;
	result = mprotect(map, LAYOUT_PAGE_BYTES, PROT_READ | PROT_WRITE);
	error = errno;
	munmap(map, LAYOUT_PAGE_BYTES);
	errno = error;
	return result;
}

static int reopen_try(int fd, int flags)
{
	char path[64];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	if (again < 0)
		return -1;
	close(again);
	return 0;
}

/* What nobody may do, of whatever user: the descriptor is read-only and the seals hold. */
static void slot_attack(int fd)
{
	const char byte = 1;

	refused("writing into a slot", (int)pwrite(fd, &byte, 1, 5000), EBADF, EPERM);
	refused("mapping a slot writable", map_try(fd, PROT_READ | PROT_WRITE), EACCES, EPERM);
	refused("making a mapped slot writable", protect_try(fd), EACCES, EPERM);
	refused("cutting a slot", ftruncate(fd, 0), EINVAL, EPERM);
	refused("growing a slot", ftruncate(fd, 1 << 30), EINVAL, EPERM);
	refused("punching a hole into a slot",
	        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LAYOUT_PAGE_BYTES), EBADF, EPERM);
	refused("sealing a slot", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM, EPERM);
}

/* What another user may not do: the daemon's own user is trusted, as it could trace the daemon. */
static void slot_attack_as_other(int fd)
{
	refused("reopening a slot for writing", reopen_try(fd, O_RDWR), EACCES, EACCES);
	refused("reopening and cutting a slot", reopen_try(fd, O_WRONLY | O_TRUNC), EACCES, EACCES);
	refused("changing a slot's mode", fchmod(fd, 0666), EPERM, EPERM);
}

static void seals_check(const char *what, int fd)
{
	int seals = fcntl(fd, F_GET_SEALS), wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	struct stat facts;

	if (seals < 0 || (seals & wanted) != wanted || fstat(fd, &facts) != 0 || (facts.st_mode & 0777) != 0600) {
		fprintf(stderr, "%s: seals %#x\n", what, (unsigned)seals);
		failures++;
	}
}

static void stage_attack(int fd)
{
	struct stat facts;

	seals_check("a stage", fd);
	fstat(fd, &facts);
	refused("cutting a stage", ftruncate(fd, 0), EPERM, EPERM);
	refused("growing a stage", ftruncate(fd, facts.st_size + LAYOUT_PAGE_BYTES), EPERM, EPERM);
	refused("allocating beyond a stage", fallocate(fd, 0, facts.st_size, LAYOUT_PAGE_BYTES), EPERM, EPERM);
	refused("sealing a stage against the daemon", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM, EBUSY);
}

/* Believes nothing that a trainer writes into the header of its stages: all of it is nonsense from now on. */
static void stage_scribble(int fd)
{
	uint8_t *map = mmap(NULL, LAYOUT_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED) {
		failures++;
		return;
	}
	memset(map, 0xff, LAYOUT_PAGE_BYTES);
	munmap(map, LAYOUT_PAGE_BYTES);
}

static uint64_t attacker_register(struct wire *wire, const char *name)
{
	struct request request = wire_register(name, 666);
	uint64_t count = 1000;
	struct manifest *manifest;
	size_t body_bytes = 0;
	uint8_t *body = NULL;
	bool made = manifest_create(&manifest) == 0 &&
	            manifest_add_tensor(manifest, "w", 1, DTYPE_F32, false, &count, 1, NULL) == 0 &&
	            manifest_add_piece(manifest, NULL, NULL, NULL) == 0 && manifest_finish(manifest, NULL) == 0 &&
	            manifest_encode(manifest, &body, &body_bytes, NULL) == 0;

	if (!made || wire_call(wire, &request, body, body_bytes, CALL_MAX_MS) != 0) {
		fprintf(stderr, "the attacker cannot register\n");
		exit(EXIT_FAILURE);
	}
	manifest_destroy(manifest);
	free(body);
	return wire->reply.epoch;
}

/* A trainer of its own model: its stage, and pushes after it has destroyed the stage's header. */
static void attack_stage(const char *directory, const char *name)
{
	struct request attach = {.operation = OP_ATTACH}, push = {.operation = OP_PUSH};
	struct wire wire, claim;
	uint64_t epoch;

	if (wire_open(&wire, directory, false) != 0 || wire_open(&claim, directory, true) != 0)
		exit(EXIT_FAILURE);
	epoch = attacker_register(&wire, name);
	request_set(&attach, model, text_of(name));
	request_set(&attach, rank, 0);
	request_set(&attach, epoch, epoch);
	if (wire_call(&claim, &attach, NULL, 0, CALL_MAX_MS) != 0 || claim.passed < 0)
		exit(EXIT_FAILURE);
	stage_attack(claim.passed);
	request_set(&push, model, text_of(name));
	request_set(&push, client, 666);
	request_set(&push, rank, 0);
	request_set(&push, epoch, epoch);
	request_set(&push, wait, true);
	for (uint64_t step = 1; step <= 6; step++) {
		int status;

		stage_scribble(claim.passed);
		request_set(&push, sequence, step + 1);
		request_set(&push, step, step);
		request_set(&push, stage, step % 2);
		status = wire_call(&wire, &push, NULL, 0, CALL_MAX_MS);
		if (status != 0) {
			fprintf(stderr, "step %d of a scribbling trainer: %d\n", (int)step, status);
			failures++;
		}
	}
	/* There is no eighth stage, whatever the header says. */
	request_set(&push, sequence, 99);
	request_set(&push, step, 99);
	request_set(&push, stage, 7);
	if (wire_call(&wire, &push, NULL, 0, CALL_MAX_MS) != STATUS_EARGUMENT)
		failures++;
	close(claim.passed);
	wire_close(&claim);
	wire_close(&wire);
}

/* A forged registration: the epoch of somebody else's, guessed, with a client number that is not his. */
static void attack_registration(const char *directory, const char *name)
{
	struct request push = {.operation = OP_PUSH};
	struct wire wire;

	if (wire_open(&wire, directory, false) != 0)
		exit(EXIT_FAILURE);
	request_set(&push, model, text_of(name));
	request_set(&push, client, 666);
	request_set(&push, sequence, 1);
	request_set(&push, rank, 0);
	request_set(&push, step, 1000);
	request_set(&push, stage, 0);
	for (uint64_t epoch = 0; epoch < 20; epoch++) {
		request_set(&push, epoch, epoch);
		if (wire_call(&wire, &push, NULL, 0, CALL_MAX_MS) != STATUS_EFENCED) {
			fprintf(stderr, "a push with a guessed epoch was not fenced\n");
			failures++;
		}
	}
	wire_close(&wire);
}

static int attacker_main(char **argv)
{
	const char *directory = argv[0];
	bool as_other = argv[1][0] == 'o';
	struct request view = {.operation = OP_VIEW};
	struct wire wire;

	if (as_other && (setgroups(0, NULL) != 0 || setgid(OTHER_UID) != 0 || setuid(OTHER_UID) != 0))
		return EXIT_FAILURE;
	if (wire_open(&wire, directory, true) != 0)
		return EXIT_FAILURE;
	request_set(&view, model, text_of("secret"));
	if (wire_call(&wire, &view, NULL, 0, CALL_MAX_MS) != 0 || wire.passed < 0)
		return EXIT_FAILURE;
	if ((fcntl(wire.passed, F_GETFL) & O_ACCMODE) != O_RDONLY || !(fcntl(wire.passed, F_GETFD) & FD_CLOEXEC))
		failures++;
	seals_check("a slot", wire.passed);
	slot_attack(wire.passed);
	if (as_other)
		slot_attack_as_other(wire.passed);
	attack_stage(directory, as_other ? "attack/other" : "attack/same");
	attack_registration(directory, "secret");
	/* Nothing has come of it. */
	if (wire_call(&wire, &view, NULL, 0, CALL_MAX_MS) != 0 || wire.reply.step != 3)
		failures++;
	wire_close(&wire);
	return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

START_TEST(a_client_can_change_nothing_that_it_is_given)
{
	const char *arguments[] = {"--attacker", harness.directory, _i ? "other user" : "same user", NULL};
	size_t before = process_fd_count(harness.pid, "memfd:");

	if (_i && geteuid() != 0) {
		printf("skipped: only root can become another user\n");
		return;
	}
	ck_assert_int_eq(process_wait(process_spawn(PROCESS_SELF, arguments, NULL), CALL_MAX_MS * process_scale()), 0);
	ck_assert_uint_ge(process_fd_count(harness.pid, "memfd:"), before);
}
END_TEST

static const struct {
	const char *name;
	size_t bytes;
} wrong_names[] = {
#define NAME(literal) {literal, sizeof(literal) - 1}
	NAME(""),
	NAME("."),
	NAME(".."),
	NAME("../x"),
	NAME("a/../b"),
	NAME("a/.."),
	NAME("/etc/passwd"),
	NAME("a/"),
	NAME("a//b"),
	NAME("a b"),
	NAME("a\nb"),
	NAME("a\0b"),
	NAME("a\x01"),
	NAME("a\x7f"),
	NAME("\xc3\xa4"),
	NAME("a\\b"),
	NAME("a:b"),
	NAME("a*"),
	NAME("$(id)"),
	NAME("%s%n"),
	NAME("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
#undef NAME
};

/* A model of that name in every operation that takes one, and no word of it in the log as it was sent. */
START_TEST(refuses_names_that_lead_elsewhere)
{
	const struct text name = {wrong_names[_i].name, wrong_names[_i].bytes};
	static const uint8_t manifest[] = {0x91, 0x95, 0xa1, 'w', 0x01, 0x00, 0x91, 0x04, 0xc0};
	static const enum operation operations[] = {OP_SHOW, OP_REMOVE, OP_REGISTER, OP_VIEW};
	struct wire wire;

	ck_assert_int_eq(wire_open(&wire, harness.directory, true), 0);
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
		struct request request = wire_register("x", 5);

		if (operations[i] != OP_REGISTER)
			request = (struct request){.operation = operations[i]};
		request_set(&request, model, name);
		ck_assert_int_eq(wire_call(&wire, &request, operations[i] == OP_REGISTER ? manifest : NULL,
		                           operations[i] == OP_REGISTER ? sizeof(manifest) : 0, CALL_MAX_MS), STATUS_ENAME);
		for (size_t b = 0; b < wire.reply.error.count; b++)
			ck_assert_int_ge((unsigned char)wire.reply.error.bytes[b], ' ');
	}
	wire_close(&wire);
}
END_TEST

START_TEST(refuses_names_of_tensors_and_profiles)
{
	static const struct {
		const char *tensor;
		size_t bytes;
		const char *profile;
		int status;
	} cases[] = {
		{"w", 1, "ema=constant", 0},
		{"", 0, "ema=constant", STATUS_ENAME},
		{"a\nb", 3, "ema=constant", STATUS_ENAME},
		{"a\0b", 3, "ema=constant", STATUS_ENAME},
		{"\x7f", 1, "ema=constant", STATUS_ENAME},
		{"__metadata__", 12, "ema=constant", STATUS_ENAME},
		{"w", 1, "../ema=constant", STATUS_ENAME},
		{"w", 1, "a/b=constant", STATUS_ENAME},
		{"w", 1, "a\nb=constant", STATUS_ENAME},
		{"w", 1, "=constant", STATUS_ENAME},
		{"w", 1, "ema=nonsense", STATUS_ESCHEDULE},
		{"w", 1, "ema=constant:decay=nan", STATUS_ESCHEDULE},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct request request = wire_register("named", 50 + i);
		uint8_t manifest[64] = {0x91, 0x95, (uint8_t)(0xa0 | cases[i].bytes)};
		size_t used = 3 + cases[i].bytes;
		struct wire wire;
		int status;

		memcpy(manifest + 3, cases[i].tensor, cases[i].bytes);
		memcpy(manifest + used, "\x01\x00\x91\x04\xc0", 5);
		request.profiles.items[0] = text_of(cases[i].profile);
		ck_assert_int_eq(wire_open(&wire, harness.directory, false), 0);
		status = wire_call(&wire, &request, manifest, used + 5, CALL_MAX_MS);
		ck_assert_msg(status == cases[i].status, "case %zu: %d and not %d", i, status, cases[i].status);
		wire_close(&wire);
	}
}
END_TEST

static Suite *security_suite(void)
{
	Suite *suite = suite_create("security");
	TCase *cases = tcase_create("security");

	tcase_add_unchecked_fixture(cases, daemon_open, daemon_close);
	tcase_add_loop_test(cases, a_client_can_change_nothing_that_it_is_given, 0, 2);
	tcase_add_loop_test(cases, refuses_names_that_lead_elsewhere, 0, sizeof(wrong_names) / sizeof(wrong_names[0]));
	tcase_add_test(cases, refuses_names_of_tensors_and_profiles);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(int argc, char **argv)
{
	SRunner *runner;
	int failed;

	if (argc > 1 && strcmp(argv[1], "--role") == 0)
		return role_main(argc, argv);
	if (argc > 3 && strcmp(argv[1], "--attacker") == 0)
		return attacker_main(argv + 2);
	runner = srunner_create(security_suite());
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
