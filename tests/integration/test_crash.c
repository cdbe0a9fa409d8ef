/*
 * The daemon is killed at random moments under the load of a crew, and after each death its averages are compared with
 * the reference. Where it keeps its memory in files (--segments-dir) nothing that was acknowledged may be lost.
 *
 * EMAD_CRASH_KILLS says how often (default 16), EMAD_TEST_SEED repeats a run. With --failpoints DAEMON NAME... it is
 * not the moment that is random: that daemon, which has those failpoints, dies at each of them the first times that it
 * comes there. What fails leaves its directories behind and says where they are. With --attend see attend.h.
 */
#include "tests/integration/attend.h"
#include "tests/integration/process.h"
#include "tests/integration/stand.h"

#include <check.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	KILLS_DEFAULT = 16,
	FAILPOINT_COUNT_MAX = 200,
	FAILPOINT_FIRST_MAX_MS = 10000,
	FAILPOINT_AGAIN_MAX_MS = 1500,
};

static struct stand stand;
static const char *failpoints[FAILPOINT_COUNT_MAX + 1];

static void open_with_checkpoints(void)
{
	stand_open(&stand, "[checkpoint]\ncheckpoint-interval=100ms\n");
}

static void open_without_checkpoints(void)
{
	stand_open(&stand, "[checkpoint]\ncheckpoint-interval=0\n");
}

static void daemon_close(void)
{
	stand_close(&stand);
}

/* ---- killing ----------------------------------------------------------------------------------------------------- */

/* What was going on when the daemon died. */
struct hits {
	unsigned deaths, recovering, pushing, registering, passing, removing, changing, checkpointing;
	unsigned signals[NSIG];
};

static unsigned unfinished;

static int unfinished_count(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
	size_t bytes = strlen(path);

	(void)facts;
	(void)kind;
	(void)place;
	unfinished += bytes > 4 && strcmp(path + bytes - 4, ".tmp") == 0;
	return 0;
}

static void hits_note(struct hits *hits, bool ready, int number)
{
	unsigned calls = 0;

	for (int i = 0; i < CREW_COUNT; i++) {
		const struct ledger *ledger = stand.crew.ledgers[i];

		/* A trainer's step that is tried and not yet known: its call is under way. */
		if (ledger && atomic_load(&ledger->tried) > atomic_load(&ledger->taken))
			calls++;
	}
	hits->deaths++;
	hits->signals[number]++;
	hits->recovering += !ready;
	hits->pushing += calls > 0;
	if (stand.crew.passer) {
		uint32_t phase = atomic_load(&stand.crew.passer->phase);

		hits->registering += phase == LEDGER_REGISTERING;
		hits->passing += phase == LEDGER_PUSHING;
		hits->removing += phase == LEDGER_REMOVING;
	}
	hits->changing += stand.crew.changer && atomic_load(&stand.crew.changer->phase) == LEDGER_CHANGING;
	unfinished = 0;
	nftw(stand.harness.directory, unfinished_count, 16, FTW_PHYS);
	hits->checkpointing += unfinished > 0;
}

static void hits_print(const struct hits *hits)
{
	printf("%u deaths: %u SIGKILL, %u SIGSEGV, %u SIGABRT, %u SIGTERM\n", hits->deaths, hits->signals[SIGKILL],
	       hits->signals[SIGSEGV], hits->signals[SIGABRT], hits->signals[SIGTERM]);
	printf("  during recovery %u, a push %u, a registration %u, a passing model's push %u, a removal %u, "
	       "a change of profiles %u, a checkpoint %u\n",
	       hits->recovering, hits->pushing, hits->registering, hits->passing, hits->removing, hits->changing,
	       hits->checkpointing);
}

/* From 0 to 1, never 0. */
static double seed_fraction(uint64_t *seed)
{
	return ((double)seed_next(seed, UINT64_C(1) << 52) + 0.5) * 0x1p-52;
}

/* Moments of several orders of magnitude: soon after something, and much later. */
static long moment_us(uint64_t *seed)
{
	switch (seed_next(seed, 4)) {
	case 0:
		return (long)(-log(seed_fraction(seed)) * 1000);
	case 1:
		return (long)(-log(seed_fraction(seed)) * 20000);
	case 2:
		return (long)(seed_fraction(seed) * 250000);
	}
	return (long)(seed_fraction(seed) * 40000);
}

static void sleep_us(long us)
{
	struct timespec left = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

static int choose_signal(uint64_t *seed)
{
	uint64_t choice = seed_next(seed, 20);

	if (choice == 0)
		return SIGTERM;
	if (choice == 1)
		return SIGSEGV;
	return choice == 2 ? SIGABRT : SIGKILL;
}

/* Kills it, and again while it comes back, until it is ready. */
static void kill_and_restart(uint64_t *seed, struct hits *hits)
{
	int number = choose_signal(seed);

	(void)harness_end(&stand.harness, number);
	hits_note(hits, true, number);
	harness_begin(&stand.harness);
	while (seed_next(seed, 4) == 0) {
		sleep_us((long)(seed_fraction(seed) * 30000));
		number = choose_signal(seed);
		(void)harness_end(&stand.harness, number);
		hits_note(hits, false, number);
		harness_begin(&stand.harness);
	}
	if (!harness_ready(&stand.harness)) {
		harness_log_print(&stand.harness);
		ck_abort_msg("the daemon does not come back");
	}
}

/* Half of them for each load. */
static unsigned kill_count(void)
{
	const char *given = getenv("EMAD_CRASH_KILLS");

	return ((given ? (unsigned)strtoul(given, NULL, 10) : KILLS_DEFAULT) + 1) / 2;
}

static void kill_often(const char *name, unsigned which)
{
	uint64_t seed = seed_take(name), first = seed;
	struct hits hits = {0};
	const char *mistake;

	stand_load_begin(&stand, stand.harness.url, seed, which);
	while (hits.deaths < kill_count()) {
		inspector_hold(&stand.inspector);
		sleep_us(moment_us(&seed));
		kill_and_restart(&seed, &hits);
		mistake = stand_mistake(&stand);
		if (mistake) {
			hits_print(&hits);
			stand_totals_print(&stand);
			harness_log_print(&stand.harness);
		}
		ck_assert_msg(!mistake, "after %u deaths, seed 0x%" PRIx64 ", %s: %s", hits.deaths, first,
		              stand.harness.directory, mistake);
	}
	mistake = stand_mistake(&stand);
	ck_assert_msg(!mistake, "at the end, seed 0x%" PRIx64 ": %s", first, mistake);
	hits_print(&hits);
	stand_totals_print(&stand);
	stand_load_end(&stand);
}

START_TEST(no_death_loses_or_doubles_what_was_acknowledged)
{
	kill_often("deaths under training", CREW_TRAINERS | CREW_READERS);
}
END_TEST

START_TEST(nor_while_models_come_and_go_and_profiles_change)
{
	kill_often("deaths under everything", CREW_ALL);
}
END_TEST

/* ---- ending ------------------------------------------------------------------------------------------------------ */

/* The same over the network: trainers and readers share no memory with the daemon. */
static char remote_url[64];
static char tokens[40], client_token[40]; /* files: the daemon's, and the crew's */

static void open_remotely(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t bytes = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static const char token[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	char settings[240];
	FILE *file;

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, bytes), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
	close(fd);
	snprintf(remote_url, sizeof(remote_url), "tcp://127.0.0.1:%d", ntohs(address.sin_port));
	snprintf(tokens, sizeof(tokens), "/tmp/emad-tokens-XXXXXX");
	snprintf(client_token, sizeof(client_token), "/tmp/emad-token-XXXXXX");
	file = fdopen(mkstemp(tokens), "w");
	fprintf(file, "crew %s push\n", token);
	ck_assert_int_eq(fclose(file), 0);
	file = fdopen(mkstemp(client_token), "w");
	fprintf(file, "%s\n", token);
	ck_assert_int_eq(fclose(file), 0);
	setenv("EMAD_TOKEN_FILE", client_token, 1);
	snprintf(settings, sizeof(settings), "[checkpoint]\ncheckpoint-interval=0\n[network]\nlisten=%s\ntoken-file=%s\n",
	         remote_url, tokens);
	stand_open(&stand, settings);
}

static void close_remotely(void)
{
	daemon_close();
	unsetenv("EMAD_TOKEN_FILE");
	unlink(client_token);
	unlink(tokens);
}

/* An orderly end, after which the memory is given up as `systemctl stop` does, and a start. */
static void end_and_start(uint64_t *seed)
{
	sleep_us(moment_us(seed));
	ck_assert_int_eq(harness_end(&stand.harness, SIGTERM), 0);
	stand_forget(&stand);
	/* Mostly it is back before a trainer gives a call up. */
	if (seed_next(seed, 4) == 0)
		sleep_us((long)(seed_fraction(seed) * 200000));
	harness_start(&stand.harness);
}

static void end_often(const char *name, const char *url)
{
	uint64_t seed = seed_take(name), first = seed;
	const char *mistake;

	stand_load_begin(&stand, url, seed, CREW_TRAINERS | CREW_READERS);
	for (unsigned round = 1; round <= kill_count(); round++) {
		inspector_hold(&stand.inspector);
		end_and_start(&seed);
		mistake = stand_mistake(&stand);
		if (mistake) {
			stand_totals_print(&stand);
			harness_log_print(&stand.harness);
		}
		ck_assert_msg(!mistake, "after %u ends, seed 0x%" PRIx64 ", %s: %s", round, first, stand.harness.directory,
		              mistake);
	}
	printf("%u ends\n", kill_count());
	stand_totals_print(&stand);
	stand_load_end(&stand);
}

START_TEST(no_end_loses_or_doubles_what_was_acknowledged)
{
	end_often("ends under training", stand.harness.url);
}
END_TEST

START_TEST(nor_does_one_of_trainers_elsewhere)
{
	end_often("ends under training elsewhere", remote_url);
}
END_TEST

/* Trainers that do not repeat what a daemon had accepted and lost: is that noticed? */
START_TEST(trainers_that_repeat_nothing_are_found_out)
{
	enum { ROUNDS_MAX = 200 };
	uint64_t seed = seed_take("forgetful trainers");
	const char *mistake = NULL;

	stand_load_begin(&stand, stand.harness.url, seed, CREW_TRAINERS | CREW_FORGETS);
	for (int round = 0; round < ROUNDS_MAX && !mistake; round++) {
		end_and_start(&seed);
		mistake = stand_mistake(&stand);
	}
	ck_assert_msg(mistake, "nothing was noticed in %d ends", ROUNDS_MAX);
	printf("noticed: %s\n", mistake);
	stand.good = true;
}
END_TEST

/* ---- failpoints -------------------------------------------------------------------------------------------------- */

/* Lets the daemon come back as one that dies there, and come back again. False when it did not come there. */
static bool fail_at(const char *name, unsigned passage)
{
	char wanted[96];
	int status;

	snprintf(wanted, sizeof(wanted), "%s:%u", name, passage);
	(void)harness_end(&stand.harness, SIGKILL);
	setenv("EMAD_FAILPOINT", wanted, 1);
	harness_begin(&stand.harness);
	unsetenv("EMAD_FAILPOINT");
	status = process_wait(stand.harness.pid, passage == 1 ? FAILPOINT_FIRST_MAX_MS : FAILPOINT_AGAIN_MAX_MS);
	stand.harness.pid = 0;
	harness_start(&stand.harness);
	ck_assert_msg(status == -1 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL),
	              "%s: the daemon ended with status %#x", wanted, (unsigned)status);
	return status != -1;
}

START_TEST(a_death_at_any_failpoint_loses_nothing)
{
	enum { PASSAGE_COUNT = 4 };
	unsigned deaths = 0;

	stand_load_begin(&stand, stand.harness.url, seed_take("failpoints"), CREW_ALL);
	for (int i = 0; failpoints[i]; i++)
		for (unsigned passage = 1; passage <= PASSAGE_COUNT; passage++) {
			const char *mistake;
			bool hit;

			inspector_hold(&stand.inspector);
			hit = fail_at(failpoints[i], passage);
			deaths += hit;
			mistake = stand_mistake(&stand);
			if (mistake)
				harness_log_print(&stand.harness);
			ck_assert_msg(!mistake, "%s:%u: %s", failpoints[i], passage, mistake);
			ck_assert_msg(hit || passage > 1, "the daemon never came to %s", failpoints[i]);
			if (!hit)
				break;
		}
	printf("%u deaths\n", deaths);
	stand_totals_print(&stand);
	stand_load_end(&stand);
}
END_TEST

/* ---- the harness itself ------------------------------------------------------------------------------------------ */

/* Without its segments the daemon is one that has forgotten. */
START_TEST(a_daemon_that_forgets_is_found_out)
{
	const char *mistake;

	stand_load_begin(&stand, stand.harness.url, seed_take("forgotten"), CREW_TRAINERS);
	mistake = stand_mistake(&stand);
	ck_assert_msg(!mistake, "%s", mistake);
	harness_kill(&stand.harness);
	stand_forget(&stand);
	harness_start(&stand.harness);
	mistake = stand_mistake(&stand);
	ck_assert_msg(mistake, "nothing was noticed");
	printf("noticed: %s\n", mistake);
	stand.good = true;
}
END_TEST

/* The host dies: what is on disk is all that is left, and that is everything while nobody pushes. */
START_TEST(a_checkpoint_is_the_whole_average)
{
	enum { ROUND_COUNT = 3 };
	const char *mistake;

	stand_load_begin(&stand, stand.harness.url, seed_take("checkpoints"), CREW_TRAINERS);
	for (int round = 0; round < ROUND_COUNT; round++) {
		ck_assert(crew_pause(&stand.crew, true, STAND_CALL_MAX_MS * process_scale()));
		mistake = stand_mistake(&stand);
		ck_assert_msg(!mistake, "%s", mistake);
		ck_assert_msg(emad_checkpoint(stand.inspector.client, NULL, STAND_CALL_MAX_MS, NULL) == 0, "%s", emad_error());
		harness_kill(&stand.harness);
		stand_forget(&stand);
		harness_start(&stand.harness);
		mistake = stand_mistake(&stand);
		ck_assert_msg(!mistake, "from the checkpoint: %s", mistake);
		ck_assert(crew_pause(&stand.crew, false, STAND_CALL_MAX_MS * process_scale()));
		process_sleep_ms(50);
		mistake = stand_mistake(&stand);
		ck_assert_msg(!mistake, "going on from the checkpoint: %s", mistake);
	}
	stand_load_end(&stand);
}
END_TEST

/* Its load dies with it. What was acknowledged behind the checkpoint is gone, and training goes on from there. */
START_TEST(a_host_comes_back_with_what_was_on_disk_and_no_less)
{
	enum { LATE_MS = 300 };
	uint64_t seed = seed_take("hosts"), stored;
	const char *mistake;

	stand_load_begin(&stand, stand.harness.url, seed, CREW_TRAINERS);
	ck_assert_msg(inspector_store(&stand.inspector, STAND_CALL_MAX_MS * process_scale()), "%s", stand.inspector.text);
	stored = atomic_load(&stand.crew.trainers[0][0]->taken);
	while (ledger_taken(stand.crew.trainers[0], 1) <= stored)
		process_sleep_ms(1);
	inspector_finish(&stand.inspector);
	crew_finish(&stand.crew);
	harness_kill(&stand.harness);
	stand_forget(&stand);
	harness_start(&stand.harness);

	crew_open(&stand.crew, stand.harness.directory);
	ck_assert_int_eq(inspector_init(&stand.inspector, &stand.crew, stand.harness.url), 0);
	/* It was not an orderly end. */
	ck_assert(!inspector_recover(&stand.inspector, false, LATE_MS));
	ck_assert_msg(strstr(stand.inspector.text, "no version of step"), "%s", stand.inspector.text);
	ck_assert_msg(inspector_recover(&stand.inspector, true, LATE_MS), "%s", stand.inspector.text);
	stored = stand.inspector.references[0][0].step;
	ck_assert_uint_lt(stored, atomic_load(&stand.crew.trainers[0][0]->taken));
	ck_assert_uint_eq(ledger_taken(stand.crew.trainers[0], 1), stored);
	atomic_store(&stand.crew.trainers[0][0]->stored, stored + 1);
	ck_assert(!inspector_recover(&stand.inspector, true, LATE_MS));
	inspector_finish(&stand.inspector);
	crew_finish(&stand.crew);

	stand_load_begin(&stand, stand.harness.url, seed, CREW_TRAINERS);
	mistake = stand_mistake(&stand);
	ck_assert_msg(!mistake, "going on from the checkpoint: %s", mistake);
	stand_load_end(&stand);
}
END_TEST

/* ---- the inspector itself ---------------------------------------------------------------------------------------- */

/* What a version of the last step would hold if one step were missing, there twice, or there in some tensors alone. */
enum fault { FAULT_NONE, FAULT_ABSENT, FAULT_TWICE, FAULT_HALF, FAULT_COUNT };

static void version_make(enum fault fault, uint64_t faulty_step, uint64_t last_step, uint32_t profile,
                         struct sample_values *values, struct emad_view_info *info)
{
	struct reference whole, other;

	reference_init(&whole, &sample_kinds[0], profile);
	reference_init(&other, &sample_kinds[0], profile);
	for (uint64_t step = 1; step <= last_step; step++) {
		reference_apply(&whole, step);
		if (step != faulty_step || fault == FAULT_TWICE)
			reference_apply(&other, step);
		if (step == faulty_step && fault == FAULT_TWICE)
			reference_repeat(&other);
	}
	if (fault == FAULT_NONE)
		other = whole;
	values->tensor_count = SAMPLE_TENSOR_COUNT;
	for (uint64_t i = 0; i < SAMPLE_TENSOR_COUNT; i++) {
		const struct reference *of = fault == FAULT_HALF && i % 2 == 0 ? &whole : &other;

		values->dtypes[i] = EMAD_F64;
		values->bases[i] = of->f64[sample_class_of(i)];
	}
	*info = (struct emad_view_info){.version = last_step, .step = last_step, .updates = whole.state.updates};
}

START_TEST(a_push_that_is_missing_doubled_or_halved_is_named)
{
	enum { STEP_COUNT = 1200, PROFILE_COUNT = 2 };
	static const char *const befores[FAULT_COUNT] = {"", "it lacks step ", "it has step ", "those of bits"};
	static const char *const behinds[FAULT_COUNT] = {"", "", " twice", ""};
	uint64_t seed = seed_take("planted faults");
	struct ledger *ledger;
	char path[96];

	snprintf(path, sizeof(path), "%s/ledger", stand.harness.directory);
	ledger = stand.crew.trainers[0][0] = stand.crew.ledgers[0] = ledger_open(path);
	for (uint64_t step = 1; step <= STEP_COUNT; step++)
		atomic_store(&ledger->entries[step], LEDGER_TAKEN);
	for (int i = 0; i < FAULT_COUNT * PROFILE_COUNT; i++) {
		enum fault fault = (enum fault)(i % FAULT_COUNT);
		uint32_t profile = 1 + (uint32_t)(i / FAULT_COUNT);
		uint64_t step = 2 + seed_next(&seed, STEP_COUNT - 2);
		struct sample_values values;
		struct emad_view_info info;
		char text[64], number[24] = "";

		inspector_finish(&stand.inspector);
		ck_assert_int_eq(inspector_init(&stand.inspector, &stand.crew, stand.harness.url), 0);
		version_make(fault, step, STEP_COUNT, profile, &values, &info);
		ck_assert_int_eq(inspector_compare(&stand.inspector, 0, profile, &info, &values), fault == FAULT_NONE);
		if (fault == FAULT_NONE)
			continue;
		if (fault != FAULT_HALF)
			snprintf(number, sizeof(number), "%" PRIu64, step);
		snprintf(text, sizeof(text), "%s%s%s", befores[fault], number, behinds[fault]);
		ck_assert_msg(strstr(stand.inspector.text, text), "'%s' is not in: %s", text, stand.inspector.text);
	}
	stand.good = true;
}
END_TEST

START_TEST(without_a_death_everything_agrees)
{
	enum { ROUND_COUNT = 5 };
	const char *mistake;

	stand_load_begin(&stand, stand.harness.url, seed_take("undisturbed"), CREW_ALL);
	for (int round = 0; round < ROUND_COUNT; round++) {
		inspector_hold(&stand.inspector);
		process_sleep_ms(20);
		mistake = stand_mistake(&stand);
		ck_assert_msg(!mistake, "%s", mistake);
	}
	stand_totals_print(&stand);
	stand_load_end(&stand);
}
END_TEST

/* A case for each, so that CK_RUN_CASE can choose one. */
static void add(Suite *suite, const char *name, SFun open, const TTest *test)
{
	TCase *cases = tcase_create(name);

	tcase_add_checked_fixture(cases, open, open == open_remotely ? close_remotely : daemon_close);
	tcase_add_test(cases, test);
	suite_add_tcase(suite, cases);
}

static Suite *crash_suite(void)
{
	Suite *suite = suite_create("crash");

	if (failpoints[0]) {
		add(suite, "failpoints", open_with_checkpoints, a_death_at_any_failpoint_loses_nothing);
		return suite;
	}
	add(suite, "undisturbed", open_with_checkpoints, without_a_death_everything_agrees);
	add(suite, "planted", open_without_checkpoints, a_push_that_is_missing_doubled_or_halved_is_named);
	add(suite, "checkpoint", open_without_checkpoints, a_checkpoint_is_the_whole_average);
	add(suite, "host", open_without_checkpoints, a_host_comes_back_with_what_was_on_disk_and_no_less);
	add(suite, "forgotten", open_without_checkpoints, a_daemon_that_forgets_is_found_out);
	add(suite, "forgetful", open_without_checkpoints, trainers_that_repeat_nothing_are_found_out);
	add(suite, "ends", open_without_checkpoints, no_end_loses_or_doubles_what_was_acknowledged);
	add(suite, "elsewhere", open_remotely, nor_does_one_of_trainers_elsewhere);
	add(suite, "training", open_without_checkpoints, no_death_loses_or_doubles_what_was_acknowledged);
	add(suite, "everything", open_with_checkpoints, nor_while_models_come_and_go_and_profiles_change);
	return suite;
}

int main(int argc, char **argv)
{
	SRunner *runner;
	int failed;

	if (argc > 1 && strcmp(argv[1], "--crew") == 0)
		return crew_main(argc, argv);
	if (argc > 1 && strcmp(argv[1], "--attend") == 0)
		return attend_main(argc, argv);
	if (argc > 3 && strcmp(argv[1], "--failpoints") == 0) {
		setenv("EMAD_DAEMON", argv[2], 1);
		for (int i = 3; i < argc && i - 3 < FAILPOINT_COUNT_MAX; i++)
			failpoints[i - 3] = argv[i];
	}
	runner = srunner_create(crash_suite());
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
