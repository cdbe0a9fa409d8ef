/*
 * Comparing averages with the reference. See inspector.h.
 */
#include "tests/integration/inspector.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/integration/process.h"

enum {
	PERHAPS_MAX = 14, /* pushes without an answer between two checks */
	CALL_MAX_MS = 2000,
};

int inspector_init(struct inspector *inspector, struct crew *crew, const char *url)
{
	*inspector = (struct inspector){.crew = crew};
	for (uint32_t k = 0; k < SAMPLE_KIND_COUNT; k++) {
		int code = sample_init(&inspector->wholes[k], &sample_kinds[k], 0, 1);

		if (code)
			return code;
		inspector->found[k] = crew->trainers[k][0] ? crew->trainers[k][0]->found : NULL;
		for (uint32_t p = 0; p < sample_kinds[k].profile_count; p++)
			reference_init(&inspector->references[k][p], &sample_kinds[k], p);
	}
	return emad_client_open(url, CALL_MAX_MS * process_scale(), &inspector->client);
}

void inspector_finish(struct inspector *inspector)
{
	for (int i = 0; i < INSPECTOR_HELD_MAX; i++)
		emad_view_close(inspector->held[i]);
	emad_client_close(inspector->client);
	for (uint32_t k = 0; k < SAMPLE_KIND_COUNT; k++)
		sample_finish(&inspector->wholes[k]);
	*inspector = (struct inspector){.crew = NULL};
}

bool inspector_meets(struct inspector *inspector, pid_t pid, int timeout_ms)
{
	for (; timeout_ms > 0; timeout_ms--) {
		struct emad_daemon daemon;

		if (emad_hello(inspector->client, CALL_MAX_MS, &daemon) == 0 && (!pid || daemon.pid == (uint64_t)pid))
			return true;
		process_sleep_ms(1);
	}
	return false;
}

__attribute__((format(printf, 2, 3))) static void say(struct inspector *inspector, const char *format, ...)
{
	size_t count = strlen(inspector->text);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(inspector->text + count, sizeof(inspector->text) - count, format, arguments);
	va_end(arguments);
}

/* ---- why a version is not what it must be ------------------------------------------------------------------------ */

/* From where the reference stands to a version, with every snapshot whose answer is known or was given. */
struct walk {
	struct ledger *const *ranks;
	uint32_t world;
	const uint8_t *found;
	uint64_t step; /* of the version */
};

static enum ledger_verdict judge(const struct walk *walk, uint64_t step)
{
	switch ((enum inspector_found)walk->found[step]) {
	case FOUND_NOTHING:
		break;
	case FOUND_PRESENT:
		return LEDGER_IN;
	case FOUND_ABSENT:
		return LEDGER_OUT;
	}
	return ledger_judge(walk->ranks, walk->world, step);
}

/* All snapshots up to `last_step`, but for one that is left out, or taken twice. */
static struct reference walk_with(const struct walk *walk, const struct reference *from, uint64_t last_step,
                                  uint64_t absent, uint64_t doubled)
{
	struct reference reference = *from;

	for (uint64_t step = from->step + 1; step <= last_step; step++) {
		if (step == absent || (step != last_step && judge(walk, step) == LEDGER_OUT))
			continue;
		reference_apply(&reference, step);
		if (step == doubled)
			reference_repeat(&reference);
	}
	return reference;
}

static bool agrees(const struct reference *reference, const struct sample_values *values)
{
	return reference_tensors(reference, values) == (1u << values->tensor_count) - 1;
}

static void explain(struct inspector *inspector, const struct walk *walk, const struct reference *from,
                    const struct sample_values *values)
{
	struct reference whole = walk_with(walk, from, walk->step, 0, 0);
	unsigned equal = reference_tensors(&whole, values);

	for (uint64_t step = from->step; step < walk->step; step++) {
		struct reference other;

		if (step > from->step) {
			other = walk_with(walk, from, walk->step, step, 0);
			if (agrees(&other, values))
				say(inspector, "; it lacks step %" PRIu64, step);
		}
		other = walk_with(walk, from, walk->step, 0, step + 1);
		if (agrees(&other, values))
			say(inspector, "; it has step %" PRIu64 " twice", step + 1);
		other = *from;
		other.started = false;
		if (step + 1 < walk->step) {
			other.step = step;
			other.state = (struct schedule_state){0};
			other = walk_with(walk, &other, walk->step, 0, 0);
			if (agrees(&other, values))
				say(inspector, "; it holds nothing up to step %" PRIu64, step);
		}
	}
	if (equal != 0)
		say(inspector, "; of its tensors those of bits %#x agree", equal);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

/* Steps before the version's of which nobody knows. */
static int perhaps_collect(const struct walk *walk, uint64_t from_step, uint64_t *steps)
{
	int count = 0;

	for (uint64_t step = from_step + 1; step < walk->step; step++) {
		if (judge(walk, step) != LEDGER_PERHAPS)
			continue;
		if (count == PERHAPS_MAX)
			return -1;
		steps[count++] = step;
	}
	return count;
}

/* The reference at the version's step if of the unknown steps those were applied whose bit is not set. */
static struct reference walk_without(const struct walk *walk, const struct reference *from, const uint64_t *unknown,
                                     int count, unsigned absent)
{
	struct reference reference = *from;
	int next = 0;

	for (uint64_t step = from->step + 1; step <= walk->step; step++) {
		bool applied = step == walk->step;

		if (next < count && step == unknown[next])
			applied = !(absent >> next++ & 1);
		else if (!applied)
			applied = judge(walk, step) != LEDGER_OUT;
		if (applied)
			reference_apply(&reference, step);
	}
	return reference;
}

/* One of the possibilities is the truth: from now on it is known. */
static void unknown_settle(struct inspector *inspector, uint32_t kind, const uint64_t *unknown, int count,
                           unsigned absent)
{
	for (int i = 0; i < count; i++) {
		bool is_absent = absent >> i & 1;
		uint8_t *found = &inspector->found[kind][unknown[i]];

		*found = is_absent ? FOUND_ABSENT : FOUND_PRESENT;
		inspector->absent_count += is_absent;
		inspector->present_count += !is_absent;
	}
}

/* Finds the possibility that agrees with the version, and goes on from there. What differs, or NULL. */
static const char *advance(struct inspector *inspector, uint32_t kind, uint32_t profile, const struct walk *walk,
                           const struct emad_view_info *info, const struct sample_values *values)
{
	struct reference *reference = &inspector->references[kind][profile], reached;
	uint64_t unknown[PERHAPS_MAX];
	int count = perhaps_collect(walk, reference->step, unknown);
	const char *differs = "more pushes without an answer than can be tried";

	for (unsigned absent = 0; count >= 0 && absent < 1u << count; absent++) {
		reached = walk_without(walk, reference, unknown, count, absent);
		differs = reference_differs(&reached, values, info);
		if (differs)
			continue;
		/* The newest snapshot itself is the same whatever was before. */
		if (profile > 0)
			unknown_settle(inspector, kind, unknown, count, absent);
		*reference = reached;
		break;
	}
	return differs;
}

bool inspector_compare(struct inspector *inspector, uint32_t kind, uint32_t profile, const struct emad_view_info *info,
                       const struct sample_values *values)
{
	const struct sample_kind *of = &sample_kinds[kind];
	const struct reference *reference = &inspector->references[kind][profile];
	struct walk walk = {inspector->crew->trainers[kind], of->world, inspector->found[kind], info->step};
	const char *differs;

	inspector->compared_count++;
	if (info->step < reference->step || judge(&walk, info->step) == LEDGER_OUT) {
		say(inspector, "'%s' stands at step %" PRIu64 ", behind step %" PRIu64 ": that was %s", of->model,
		    info->step, reference->step, info->step < reference->step ? "there before" : "never taken");
		return false;
	}
	differs = info->step == reference->step ? reference_differs(reference, values, info)
	                                        : advance(inspector, kind, profile, &walk, info, values);
	if (!differs) {
		inspector->found[kind][info->step] = FOUND_PRESENT;
		return true;
	}
	say(inspector,
	    "'%s', profile '%s', version %" PRIu64 ", step %" PRIu64 ", %" PRIu64
	    " updates: wrong is %s; it was right at step %" PRIu64,
	    of->model, of->profiles[profile], info->version, info->step, info->updates, differs, reference->step);
	explain(inspector, &walk, reference, values);
	return false;
}

static void profile_name(uint32_t kind, uint32_t profile, char *name)
{
	name[0] = '\0';
	sscanf(sample_kinds[kind].profiles[profile], "%15[^=]", name);
}

static bool profile_check(struct inspector *inspector, uint32_t kind, uint32_t profile, uint64_t step, int timeout_ms)
{
	const struct sample_kind *of = &sample_kinds[kind];
	struct emad_view_info info = {0};
	struct sample_values values;
	struct emad_view *view;
	const char *mistake;
	char name[16];
	int code;

	profile_name(kind, profile, name);
	do {
		code = emad_view_open(inspector->client, of->model, name, step, timeout_ms, &view);
		if (code) {
			say(inspector, "'%s', profile '%s': no version of step %" PRIu64 ", which was taken: %s: %s",
			    of->model, name, step, emad_code_name(code), emad_error());
			return false;
		}
		mistake = sample_read(&inspector->wholes[kind], view, &values);
		code = emad_view_check(view) == EMAD_EREVOKED ? EMAD_EREVOKED : emad_view_info(view, &info);
		emad_view_close(view);
	} while (code == EMAD_EREVOKED);
	if (mistake)
		say(inspector, "'%s', profile '%s', version %" PRIu64 ", step %" PRIu64 ": %s", of->model, name,
		    info.version, info.step, mistake);
	else if (info.version < inspector->versions[kind])
		say(inspector, "'%s' went back from version %" PRIu64 " to version %" PRIu64 ", step %" PRIu64,
		    of->model, inspector->versions[kind], info.version, info.step);
	else if (inspector_compare(inspector, kind, profile, &info, &values))
		inspector->versions[kind] = info.version;
	return inspector->text[0] == '\0';
}

static bool kind_check(struct inspector *inspector, uint32_t kind, uint64_t step, int timeout_ms)
{
	const uint32_t count = sample_kinds[kind].profile_count;

	/* The last of them is the newest snapshot: what is unknown is known by then. */
	for (uint32_t p = 1; p <= count && step > 0; p++)
		if (!profile_check(inspector, kind, p % count, step, timeout_ms))
			return false;
	return true;
}

bool inspector_check(struct inspector *inspector, int timeout_ms)
{
	uint64_t steps[SAMPLE_KIND_COUNT];

	inspector->text[0] = '\0';
	for (uint32_t k = 0; k < SAMPLE_KIND_COUNT; k++)
		steps[k] = ledger_taken(inspector->crew->trainers[k], sample_kinds[k].world);
	for (uint32_t k = 0; k < SAMPLE_KIND_COUNT; k++)
		if (!kind_check(inspector, k, steps[k], timeout_ms))
			return false;
	return true;
}

/* ---- a host that ends -------------------------------------------------------------------------------------------- */

/* The profiles of a model have been compared, and nobody pushes. */
static bool kind_recover(struct inspector *inspector, uint32_t kind)
{
	const struct sample_kind *of = &sample_kinds[kind];
	const uint64_t step = inspector->references[kind][0].step;

	for (uint32_t p = 1; p < of->profile_count; p++)
		if (inspector->references[kind][p].step != step) {
			say(inspector, "'%s' came back at step %" PRIu64 ", its profile '%s' at step %" PRIu64, of->model, step,
			    of->profiles[p], inspector->references[kind][p].step);
			return false;
		}
	ledger_lose(inspector->crew->trainers[kind], of->world, step);
	return true;
}

bool inspector_recover(struct inspector *inspector, bool was_cut, int timeout_ms)
{
	inspector->text[0] = '\0';
	for (uint32_t k = 0; k < SAMPLE_KIND_COUNT; k++) {
		struct ledger *const *ranks = inspector->crew->trainers[k];
		uint64_t step = was_cut ? atomic_load(&ranks[0]->stored) : ledger_taken(ranks, sample_kinds[k].world);

		if (!kind_check(inspector, k, step, timeout_ms) || !kind_recover(inspector, k))
			return false;
	}
	return true;
}

bool inspector_store(struct inspector *inspector, int timeout_ms)
{
	uint64_t steps[SAMPLE_KIND_COUNT];

	/* What was compared is in a version, and no later version is of an earlier step. */
	if (!inspector_check(inspector, timeout_ms))
		return false;
	for (uint32_t k = 0; k < SAMPLE_KIND_COUNT; k++)
		steps[k] = inspector->references[k][0].step;
	if (emad_checkpoint(inspector->client, NULL, timeout_ms, NULL) != 0) {
		say(inspector, "a checkpoint: %s", emad_error());
		return false;
	}
	for (uint32_t k = 0; k < SAMPLE_KIND_COUNT; k++)
		atomic_store(&inspector->crew->trainers[k][0]->stored, steps[k]);
	return true;
}

/* ---- views that outlive a daemon --------------------------------------------------------------------------------- */

void inspector_hold(struct inspector *inspector)
{
	for (uint32_t i = 0; i < INSPECTOR_HELD_MAX; i++) {
		uint32_t kind = i / SAMPLE_PROFILE_COUNT_MAX, profile = i % SAMPLE_PROFILE_COUNT_MAX;
		struct emad_view **view = &inspector->held[i];
		char name[16];

		emad_view_close(*view);
		*view = NULL;
		if (profile >= sample_kinds[kind].profile_count)
			continue;
		profile_name(kind, profile, name);
		if (emad_view_open(inspector->client, sample_kinds[kind].model, name, 0, CALL_MAX_MS, view) != 0)
			continue;
		if (sample_read(&inspector->wholes[kind], *view, &inspector->held_values[i]) ||
		    emad_view_check(*view) != 0) {
			emad_view_close(*view);
			*view = NULL;
		}
	}
}

bool inspector_release(struct inspector *inspector)
{
	inspector->text[0] = '\0';
	for (uint32_t i = 0; i < INSPECTOR_HELD_MAX; i++) {
		uint32_t kind = i / SAMPLE_PROFILE_COUNT_MAX;
		struct emad_view *view = inspector->held[i];
		struct sample_values values;
		const char *mistake;

		if (!view)
			continue;
		mistake = sample_read(&inspector->wholes[kind], view, &values);
		for (int t = 0; t < SAMPLE_TENSOR_COUNT && !mistake; t++)
			if (!(values.bases[t] == inspector->held_values[i].bases[t]))
				mistake = "it has changed";
		if (emad_view_check(view) == EMAD_EREVOKED)
			inspector->revoked_count++;
		else if (mistake)
			say(inspector, "a view of '%s' that was open before: %s", sample_kinds[kind].model, mistake);
		else
			inspector->kept_count++;
		emad_view_close(view);
		inspector->held[i] = NULL;
	}
	return inspector->text[0] == '\0';
}
