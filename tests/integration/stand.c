/*
 * A daemon, its memory, its load. See stand.h.
 */
#include "tests/integration/stand.h"

#include "tests/integration/process.h"

#include <check.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int entry_remove(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
	(void)facts;
	(void)kind;
	(void)place;
	return remove(path);
}

static void directory_remove(const char *path)
{
	nftw(path, entry_remove, 16, FTW_DEPTH | FTW_PHYS);
}

void stand_forget(struct stand *stand)
{
	directory_remove(stand->segments);
	ck_assert_int_eq(mkdir(stand->segments, 0700), 0);
}

/* Frequent checkpoints, and many slots: what readers held when a daemon died it keeps for lease-min. */
void stand_configure(struct stand *stand, const char *checkpoints)
{
	FILE *file = fopen(stand->configuration, "we");

	ck_assert_ptr_nonnull(file);
	fprintf(file, "[limits]\nslots=16\nlease-min=200ms\n%s", checkpoints);
	ck_assert_int_eq(fclose(file), 0);
}

void stand_open(struct stand *stand, const char *checkpoints)
{
	/* Half of the deaths would leave a core of all segments. */
	const struct rlimit none = {0, 0};

	*stand = (struct stand){.good = false};
	setrlimit(RLIMIT_CORE, &none);
	snprintf(stand->memory, sizeof(stand->memory), "/dev/shm/emad-crash-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(stand->memory));
	snprintf(stand->segments, sizeof(stand->segments), "%s/segments", stand->memory);
	ck_assert_int_eq(mkdir(stand->segments, 0700), 0);
	snprintf(stand->configuration, sizeof(stand->configuration), "%s/conf", stand->memory);
	stand_configure(stand, checkpoints);
	stand->arguments[0] = "--config";
	stand->arguments[1] = stand->configuration;
	stand->arguments[2] = "--segments-dir";
	stand->arguments[3] = stand->segments;
	harness_open(&stand->harness, stand->arguments);
}

void stand_close(struct stand *stand)
{
	inspector_finish(&stand->inspector);
	crew_finish(&stand->crew);
	if (stand->good) {
		harness_close(&stand->harness);
		directory_remove(stand->memory);
	} else {
		harness_kill(&stand->harness);
		printf("kept: %s (the daemon's log is %s), %s\n", stand->harness.directory, stand->harness.log, stand->memory);
	}
}

void stand_load_begin(struct stand *stand, const char *url, uint64_t seed, unsigned which)
{
	crew_start(&stand->crew, stand->harness.directory, url, seed, which);
	if (!crew_begins(&stand->crew, STAND_CALL_MAX_MS * process_scale())) {
		harness_log_print(&stand->harness);
		ck_abort_msg("the load does not begin");
	}
	ck_assert_int_eq(inspector_init(&stand->inspector, &stand->crew, stand->harness.url), 0);
}

void stand_load_end(struct stand *stand)
{
	/* A rank may wait for another one that has ended, as long as a call may take. */
	ck_assert(crew_stop(&stand->crew, 2 * STAND_CALL_MAX_MS * process_scale()));
	ck_assert_int_eq(harness_stop(&stand->harness), 0);
	/* Whatever instruction it has died behind, what it left in its memory was as it should be. */
	ck_assert_int_eq(harness_log_count(&stand->harness, "is damaged"), 0);
	stand->good = true;
}

const char *stand_mistake(struct stand *stand)
{
	const char *mistake;

	if (!inspector_meets(&stand->inspector, stand->harness.pid, STAND_CALL_MAX_MS))
		return "the daemon does not answer";
	if (!inspector_release(&stand->inspector) || !inspector_check(&stand->inspector, STAND_CALL_MAX_MS * process_scale()))
		return stand->inspector.text;
	mistake = crew_mistake(&stand->crew);
	return mistake;
}

void stand_totals_print(const struct stand *stand)
{
	uint64_t steps = 0, duplicates = 0, left = 0, errors = 0;

	for (int i = 0; i < CREW_TRAINER_COUNT; i++) {
		steps += atomic_load(&stand->crew.ledgers[i]->rounds);
		duplicates += atomic_load(&stand->crew.ledgers[i]->duplicates);
		left += atomic_load(&stand->crew.ledgers[i]->left);
		errors += atomic_load(&stand->crew.ledgers[i]->errors);
	}
	printf("  %" PRIu64 " pushes acknowledged, %" PRIu64 " as duplicates; %" PRIu64 " calls failed, %" PRIu64
	       " steps left\n",
	       steps, duplicates, errors, left);
	printf("  %" PRIu64 " versions compared; pushes without an answer: %" PRIu64 " were in, %" PRIu64 " were not\n",
	       stand->inspector.compared_count, stand->inspector.present_count, stand->inspector.absent_count);
	printf("  of views that were open %" PRIu64 " lasted, %" PRIu64 " were taken back\n", stand->inspector.kept_count,
	       stand->inspector.revoked_count);
	for (int i = 0; i < CREW_READER_COUNT && stand->crew.readers[i]; i++)
		printf("  reader of '%s': %" PRIu64 " versions, %" PRIu64 " taken back\n", sample_kinds[i].model,
		       atomic_load(&stand->crew.readers[i]->rounds), atomic_load(&stand->crew.readers[i]->revoked));
	if (stand->crew.passer)
		printf("  %" PRIu64 " models made and removed, %" PRIu64 " profiles added and removed\n",
		       atomic_load(&stand->crew.passer->rounds), atomic_load(&stand->crew.changer->rounds));
}
