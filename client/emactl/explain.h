/*
 * explain: what its files share.
 */
#pragma once

#include "client/emactl/emactl.h"
#include "client/emactl/table.h"
#include "proto/profile.h"

#include <stdio.h>

/* How an entry's policy and a form are told to people. */
const char *explain_entry(enum schedule_entry entry);
const char *explain_form(enum schedule_form form);

/* Of a key: a value, "not given" outside of the range, where it stands for that; the default; the range, or the words. */
struct explain_text {
	char text[96];
};

struct explain_text explain_default(const struct schedule_key *key);
struct explain_text explain_range(const struct schedule_key *key);
struct explain_text explain_value(const struct schedule_key *key, double value);

/* Why a key's value is what it becomes for a larger batch, a phrase. */
const char *explain_scale_reason(const struct schedule_kind *kind, const struct schedule_key *key);

/* explain --list */
int explain_list(const struct emactl *emactl);

/*
 * explain --scale-batch: the profile (one without a name: a schedule alone) for a batch that is factor times as large.
 */
int explain_scale(const struct emactl *emactl, const struct profile *profile, double factor);

/* explain --reference: the page on all schedules, proto/SCHEDULES.md. */
int explain_reference(const struct emactl *emactl);

/* ---- explain_plots.c, at one trainer's step a call ------------------------------------------------------------ */

/* The decay of the first call from n on that does something. */
double explain_decay(const struct schedule *schedule, uint64_t n);

/* Decays over calls, on an axis of powers of ten. */
void explain_plot_decay(const struct schedule *schedule, FILE *stream);

/* What the average after 12,000 calls is made of: the weight of each snapshot by its age. -ENOMEM. */
int explain_plot_window(const struct schedule *schedule, FILE *stream);
