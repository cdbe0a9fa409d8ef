/*
 * Any text as a schedule: it is refused with a sentence, or its canonical text parses back to the same schedule, every
 * call and every gap has a decay in [0, 1], and what it becomes for another batch can be written out too.
 */
#include "proto/schedule.h"

#include "proto/limits.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_decays(const struct schedule *schedule)
{
	static const uint64_t CALLS[] = {1, 2, 3, 10, 101, 111, 100000, UINT64_C(1) << 53, UINT64_MAX};

	for (size_t i = 0; i < sizeof(CALLS) / sizeof(*CALLS); i++) {
		for (size_t j = 0; j < sizeof(CALLS) / sizeof(*CALLS); j++) {
			struct schedule_call call = {CALLS[i], CALLS[j], CALLS[j] - 1 - i % 2};
			struct schedule_result result = schedule_at(schedule, &call);

			require(result.decay >= 0 && result.decay <= 1);
			require((result.action == ACTION_COPY) == (result.decay == 0));
			require(result.action != ACTION_NOOP || result.decay == 1);
		}
	}
}

static void check_gaps(const struct schedule *schedule)
{
	static const uint64_t STEPS[] = {0, 1, 100, 107, 1 << 20, UINT64_C(1) << 53, UINT64_MAX};
	struct schedule_state state = {0};

	for (size_t i = 1; i < sizeof(STEPS) / sizeof(*STEPS); i++) {
		struct schedule_gap gap = {i == 3 ? 1 : 10 * i, STEPS[i], STEPS[i - 1]};
		struct schedule_result result = schedule_advance(schedule, &state, &gap);

		require(result.decay >= 0 && result.decay <= 1);
		require((result.action == ACTION_COPY) == (result.decay == 0));
		require(result.action != ACTION_NOOP || result.decay == 1);
		require(state.decay_rest >= 0 && state.decay_rest <= 1);
		require(state.updates == state.calls / schedule->cadence);
	}
	state = schedule_resumed(schedule, 1000, 1000);
	require(state.updates == 1000 && state.decay_rest >= 0 && state.decay_rest <= 1);
}

static void check_scaled(const struct schedule *schedule)
{
	char text[SCHEDULE_BYTES_MAX + 1];
	struct schedule scaled, again;

	if (schedule_scale_batch(schedule, 8, &scaled, NULL) < 0)
		return;
	require(schedule_format(&scaled, text, sizeof(text)) == 0);
	require(schedule_parse(text, &again, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct schedule schedule, again;
	struct reason reason = {""};
	char canonical[SCHEDULE_BYTES_MAX + 1], *text = malloc(size + 1);

	if (!text)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	if (schedule_parse(text, &schedule, &reason) < 0) {
		require(reason.text[0] != '\0' && strlen(reason.text) < sizeof(reason.text) - 1);
		free(text);
		return 0;
	}
	free(text);
	require(schedule_format(&schedule, canonical, sizeof(canonical)) == 0);
	require(schedule_parse(canonical, &again, NULL) == 0);
	require(again.kind == schedule.kind && again.form == schedule.form && again.precision == schedule.precision);
	require(again.begin == schedule.begin && again.cadence == schedule.cadence);
	require(again.snapshot == schedule.snapshot && again.keep == schedule.keep);
	for (uint32_t i = 0; i < schedule.kind->key_count; i++)
		require(again.values[i] == schedule.values[i]);
	check_decays(&schedule);
	check_gaps(&schedule);
	check_scaled(&schedule);
	return 0;
}
