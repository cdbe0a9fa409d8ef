/*
 * Daemons that are killed at any instruction, and what the next one makes of the memory that they leave.
 *
 * The random walk of service_walk.h goes through memory that is shared with a child, which does the next step and is
 * killed in it: at a random time, or (where it can be traced) at a certain instruction of a function that writes what
 * must not be forgotten. This process is then all the clients, to whom nothing of that step was acknowledged: it adopts
 * what the child has left, compares it with the reference, asks again, and walks on. Adoptions are killed as well.
 *
 * EMAD_KILL_ROUNDS: how many times as long as usual it walks. EMAD_KILL_SEED: where it begins. EMAD_KILL_TARGET: the
 * function in which all are killed.
 */
#include "tests/unit/kill_faults.h"
#include "tests/unit/random_model.h"
#include "tests/unit/service_walk.h"

#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/relay.h"
#include "daemon/core/versions.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum {
	WALKS = 2,
	STEPS = 3500,        /* of one walk */
	KILLED_ONE_IN = 10,      /* steps that write */
	KILLED_ONE_IN_HEIR = 3,  /* while a model takes over from another one, which is rare */
	KILLED_ONE_IN_REST = 80, /* others */
	TIMED_ONE_IN = 3,        /* kills; the rest are traced */
	INSTRUCTIONS_LOG2_MOST = 13,
	KILL_US_MOST = 300,
};

struct kills {
	uint64_t timed_count, traced_count, adopting_count, finished_count;
	bool cannot_trace;
};

/* ---- at a random time -------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Kills and reaps a child. Whether it had lived until then. */
static bool reap(pid_t child)
{
	int status;

	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0,
	              "the killed one had failed itself: status %#x", (unsigned)status);
	return WIFSIGNALED(status);
}

static bool kill_timed(struct walk *walk, pid_t child)
{
	uint64_t end_ns = now_ns() + random_below(&walk->state, KILL_US_MOST * 1000);

	while (now_ns() < end_ns)
		;
	return reap(child);
}

/* ---- at an instruction ------------------------------------------------------------------------------------------- */

#ifdef __x86_64__

/* Functions that write what the next daemon reads, or lie between two such writes. */
static const struct target {
	const char *name;
	void (*function)(void);
	uint64_t one_in; /* children is killed there */
} targets[] = {
#define TARGET(name) { #name, (void (*)(void))name, 2 }
	TARGET(intake_claim),
	TARGET(intake_vacate),
	TARGET(intake_reclaim),
	TARGET(intake_push),
	TARGET(intake_begin),
	TARGET(intake_settle),
	TARGET(intake_adopt),
	TARGET(versions_begin),
	TARGET(versions_publish),
	TARGET(versions_lease),
	TARGET(versions_resume),
	TARGET(book_write),
	TARGET(model_adopt),
	TARGET(model_adopt_slots),
	TARGET(model_adopt_stage),
	TARGET(model_stage_drop),
	TARGET(model_enclosure_write),
	TARGET(relay_adopt),
	TARGET(relay_inherit),
	TARGET(service_doom),
	TARGET(update_end),
#undef TARGET
	/* These lie everywhere. */
	{ "layout_checksum", (void (*)(void))layout_checksum, 20 },
	{ "slot_header_checksum", (void (*)(void))slot_header_checksum, 10 },
};
enum { TARGETS = sizeof targets / sizeof targets[0] };

/*
 * Of all walks: how often a target was a kill point, how many instructions it took where it returned (0: not known yet),
 * and which is the next in turn.
 */
static uint64_t hits[TARGETS], lengths[TARGETS], turns[TARGETS];

struct trap {
	bool is_set;
	long original;
};

static long text_with_trap(long text)
{
	return (long)(((unsigned long)text & ~0xffUL) | 0xccUL);
}

static void *address_of(size_t t)
{
	return (void *)(uintptr_t)targets[t].function;
}

/* Waits until the child stops. False when it has ended. */
static bool stops(pid_t child, int *ret_signal)
{
	int status;

	ck_assert_int_eq(waitpid(child, &status, 0), child);
	if (!WIFSTOPPED(status)) {
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the traced one had failed itself: status %#x",
		              (unsigned)status);
		return false;
	}
	*ret_signal = WSTOPSIG(status);
	return true;
}

static uint64_t instructions_choose(struct walk *walk, size_t t)
{
	hits[t]++;
	if (lengths[t] > 0 && walk_chance(walk, 2))
		return turns[t]++ % lengths[t];
	return random_below(&walk->state, UINT64_C(1) << random_below(&walk->state, INSTRUCTIONS_LOG2_MOST + 1));
}

/* From the first instruction of a target on. False when the child has ended before. */
static bool instructions_step(pid_t child, size_t t, uint64_t count)
{
	struct user_regs_struct registers;
	unsigned long long stack;
	int signal;

	ptrace(PTRACE_GETREGS, child, NULL, &registers);
	stack = registers.rsp;
	for (uint64_t i = 1; i <= count; i++) {
		ptrace(PTRACE_SINGLESTEP, child, NULL, NULL);
		if (!stops(child, &signal))
			return false;
		if (lengths[t] > 0)
			continue;
		ptrace(PTRACE_GETREGS, child, NULL, &registers);
		if (registers.rsp > stack)
			lengths[t] = i;
	}
	return true;
}

/* Goes on until a target is reached, and some instructions further. False when the child has ended before. */
static bool trace(struct walk *walk, pid_t child, const struct trap *traps)
{
	uint64_t passages = 1 + random_below(&walk->state, 2);
	struct user_regs_struct registers;
	size_t t;
	int signal;

	for (;;) {
		ptrace(PTRACE_CONT, child, NULL, NULL);
		if (!stops(child, &signal))
			return false;
		ck_assert_int_eq(signal, SIGTRAP);
		ptrace(PTRACE_GETREGS, child, NULL, &registers);
		registers.rip--;
		t = 0;
		while (t < TARGETS && (uintptr_t)address_of(t) != registers.rip)
			t++;
		ck_assert_uint_lt(t, TARGETS);
		ptrace(PTRACE_SETREGS, child, NULL, &registers);
		ptrace(PTRACE_POKETEXT, child, address_of(t), (void *)traps[t].original);
		if (--passages == 0)
			break;
		ptrace(PTRACE_SINGLESTEP, child, NULL, NULL);
		if (!stops(child, &signal))
			return false;
		ptrace(PTRACE_POKETEXT, child, address_of(t), (void *)text_with_trap(traps[t].original));
	}
	for (size_t other = 0; other < TARGETS; other++)
		ptrace(PTRACE_POKETEXT, child, address_of(other), (void *)traps[other].original);
	return instructions_step(child, t, instructions_choose(walk, t));
}

static bool is_targeted(struct walk *walk, size_t t)
{
	const char *only = getenv("EMAD_KILL_TARGET");

	return only ? strcmp(only, targets[t].name) == 0 : walk_chance(walk, targets[t].one_in);
}

/* The child stops itself when it begins. */
static bool kill_traced(struct walk *walk, pid_t child)
{
	struct trap traps[TARGETS];
	int signal;

	if (!stops(child, &signal))
		return false;
	for (size_t t = 0; t < TARGETS; t++) {
		traps[t].original = ptrace(PTRACE_PEEKTEXT, child, address_of(t), NULL);
		traps[t].is_set = is_targeted(walk, t);
	}
	for (size_t t = 0; t < TARGETS; t++)
		if (traps[t].is_set)
			ptrace(PTRACE_POKETEXT, child, address_of(t), (void *)text_with_trap(traps[t].original));
	return trace(walk, child, traps) && reap(child);
}

/* False where this process may not trace. */
static bool traced_begin(void)
{
	return ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 && raise(SIGSTOP) == 0;
}

static bool can_trace(void)
{
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void hits_print(void)
{
	for (size_t t = 0; t < TARGETS; t++)
		printf("%s%s %lu", t ? ", " : "in ", targets[t].name, (unsigned long)hits[t]);
	printf("\n");
}

#else

static bool kill_traced(struct walk *walk, pid_t child)
{
	return kill_timed(walk, child);
}

static bool traced_begin(void)
{
	return true;
}

static bool can_trace(void)
{
	return false;
}

static void hits_print(void)
{
}

#endif

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

/* A child does the step, or (NULL) adopts what is there, and is killed. */
static void die(struct walk *walk, struct kills *kills, const struct step *step)
{
	bool is_traced = !kills->cannot_trace && (getenv("EMAD_KILL_TARGET") || !walk_chance(walk, TIMED_ONE_IN)),
	     killed;
	pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		if (is_traced && !traced_begin())
			_exit(1);
		if (step)
			walk_do(walk, step);
		else
			(void)fake_host_crash(&walk->host);
		_exit(0);
	}
	killed = is_traced ? kill_traced(walk, child) : kill_timed(walk, child);
	kills->finished_count += !killed;
	kills->traced_count += killed && is_traced;
	kills->timed_count += killed && !is_traced;
	kills->adopting_count += killed && !step;
}

/* Whether the step is more than a question. */
static bool writes(enum step_kind kind)
{
	return kind == STEP_REGISTER || kind == STEP_ATTACH || kind == STEP_PUSH || kind == STEP_APPLY || kind == STEP_MAKE ||
	       kind == STEP_PROFILE_SET || kind == STEP_PROFILE_REMOVE || kind == STEP_REMOVE;
}

static void walk_step(struct walk *walk, struct kills *kills)
{
	uint64_t one_in = KILLED_ONE_IN_REST;
	struct step step;

	walk_choose(walk, &step);
	if (step.kind == STEP_NOTHING)
		return;
	if (writes(step.kind))
		one_in = walk_has_heir(walk) ? KILLED_ONE_IN_HEIR : KILLED_ONE_IN;
	if (!walk_chance(walk, one_in)) {
		walk_do(walk, &step);
		walk_check(walk);
		return;
	}
	die(walk, kills, &step);
	/* It has lived in that time. */
	if (step.kind == STEP_WAIT)
		fake_host_pass(&walk->host, step.milliseconds);
	while (walk_chance(walk, 4))
		die(walk, kills, NULL);
	walk_crash(walk, &step);
	walk_check(walk);
	walk_repeat(walk, &step);
	walk_check(walk);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void walk_once(uint64_t seed, struct kills *kills)
{
	static struct walk walk;
	struct fake_arena *arena = fake_arena_create();

	printf("EMAD_KILL_SEED=%#lx\n", (unsigned long)seed);
	fflush(stdout);
	walk_init(&walk, seed, arena);
	for (uint64_t i = 0; i < STEPS; i++)
		walk_step(&walk, kills);
	printf("%lu versions, %lu heirs, %lu daemons\n", (unsigned long)walk.published_count,
	       (unsigned long)walk.heir_count, (unsigned long)walk.crash_count + 1);
	walk_finish(&walk);
	fake_arena_destroy(arena);
}

START_TEST(what_was_acknowledged_outlives_a_daemon_killed_at_any_instruction)
{
	uint64_t seed = number_of("EMAD_KILL_SEED", 0x9e3779b97f4a7c15), rounds = number_of("EMAD_KILL_ROUNDS", 1);
	struct kills kills = { .cannot_trace = !can_trace() };

	kill_fault_plant(getenv("EMAD_KILL_FAULT"));
	for (uint64_t i = 0; i < rounds * WALKS; i++) {
		walk_once(seed, &kills);
		(void)random_next(&seed);
	}
	printf("%lu killed at a random time, %lu at an instruction, %lu of all these in an adoption, %lu too late\n",
	       (unsigned long)kills.timed_count, (unsigned long)kills.traced_count, (unsigned long)kills.adopting_count,
	       (unsigned long)kills.finished_count);
	hits_print();
	if (!getenv("EMAD_KILL_TARGET"))
		ck_assert_uint_gt(kills.timed_count + kills.traced_count, 100);
}
END_TEST

/* Where the wrong order is only a few instructions long, only these are looked at. */
static const struct fault {
	const char *name, *target;
} faults[] = {
	{ "ready-first", "intake_push" },
	{ "applying-first", "intake_begin" },
	{ "stale-book", NULL },
};

START_TEST(a_planted_bug_is_found)
{
	char *const arguments[] = { (char *)"test_service_kill", NULL };
	const struct fault *fault = &faults[_i];
	pid_t child;
	int status;

	if (fault->target && !can_trace()) {
		printf("%s: not tried, because processes may not be traced here\n", fault->name);
		return;
	}
	setenv("EMAD_KILL_FAULT", fault->name, 1);
	if (fault->target)
		setenv("EMAD_KILL_TARGET", fault->target, 1);
	setenv("EMAD_KILL_ROUNDS", "1000", 1);
	setenv("CK_RUN_CASE", "walk", 1);
	setenv("CK_VERBOSITY", "silent", 1);
	ck_assert_int_eq(posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ), 0);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%s was not found: status %#x", fault->name,
	              (unsigned)status);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_kill");
	TCase *walk = tcase_create("walk"), *planted = tcase_create("planted");
	SRunner *runner;
	int failed;

	tcase_set_timeout(walk, 60.0 * (double)number_of("EMAD_KILL_ROUNDS", 1));
	tcase_set_timeout(planted, 60);
	tcase_add_test(walk, what_was_acknowledged_outlives_a_daemon_killed_at_any_instruction);
	tcase_add_loop_test(planted, a_planted_bug_is_found, 0, sizeof faults / sizeof faults[0]);
	suite_add_tcase(suite, walk);
	suite_add_tcase(suite, planted);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
