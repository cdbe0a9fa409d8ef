/*
 * The page on schedules, proto/SCHEDULES.md: what holds for all of them in prose, then each schedule from its row of
 * the table. `make schedules` writes the file, and a test compares it with what is printed here.
 */
#include "client/emactl/explain.h"

#include "client/emactl/figure.h"
#include "proto/schedule_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char INTRODUCTION[] =
	"# Schedules\n\n"
	"An average follows the weights of a training by one rule: at each call,\n\n"
	"    average = d * average + (1 - d) * weights\n\n"
	"(Elsewhere the average is also called the shadow.) A *schedule* says what `d`, the *decay*, is at\n"
	"which call. The larger it is, the further back the average reaches: a constant decay averages over\n"
	"about `1/(1-d)` calls, so 0.99 over 100 and 0.9999 over 10,000. All but `constant` do what a library\n"
	"that people train with does, down to the first calls; each section names its library.\n\n"
	"`emactl explain SCHEDULE` prints all of this for any setting, without a daemon. This page is its\n"
	"output (`emactl explain --reference`), at default settings; `make schedules` writes it anew.\n\n"
	"## Writing one\n\n"
	"```text\n"
	"yolo                                                a schedule\n"
	"yolo:decay=0.999,tau=500                            with keys\n"
	"ema=yolo:decay=0.999;copy=*.running_*;drop=head.*   a profile: a name, a schedule, rules\n"
	"```\n\n"
	"A key may also be called by the name that its library uses (the aliases below). Whatever is not\n"
	"given has its default. What is written wrongly is refused with a sentence that names the nearest\n"
	"right word, or the range.\n\n"
	"A call does one of three things:\n\n"
	"| action | the average | d |\n"
	"|---|---|---|\n"
	"| COPY | becomes the pushed weights | 0 |\n"
	"| LERP d | moves towards the pushed weights | d |\n"
	"| NOOP | stays as it is | 1 |\n\n"
	"In the formulas `n` is the number of the call, counted from 1. `step` is the trainer's step, or its\n"
	"count of images, whichever it pushes with.\n\n"
	"**Which one?** The one your library has, when you move a training here: then nothing changes.\n"
	"Otherwise: `constant` when you know over how many calls you want to average; `yolo` or\n"
	"`timm:warmup=1` when the first weights are bad and should be forgotten soon; `power` when you do not\n"
	"know how long the average should be, because two of them can be recombined into any length\n"
	"afterwards; `swa` for the plain mean.\n\n";

static const char RULES[] =
	"## Rules\n\n"
	"A schedule treats parameters, buffers and integers as its library does. Rules behind the schedule\n"
	"say otherwise for the tensors that a pattern matches. The first rule that matches a name decides.\n\n"
	"| rule | what becomes of the tensor |\n"
	"|---|---|\n"
	"| `average=PATTERN` | averaged; integers and bools never are, so they pass on to the next rule |\n"
	"| `average@0.99=PATTERN` | averaged with a decay of its own, where the schedule has a key `decay` |\n"
	"| `copy=PATTERN` | the latest value |\n"
	"| `freeze=PATTERN` | the value at the start |\n"
	"| `drop=PATTERN` | not held at all |\n\n"
	"A pattern is compared with the whole canonical name (`model.0.conv.weight`, without what wrappers\n"
	"add):\n\n"
	"| in a pattern | matches |\n"
	"|---|---|\n"
	"| `*` | any characters, dots too, or none |\n"
	"| `?` | one byte: of a character beyond ASCII there are several |\n"
	"| `[a-z0]` | one of these |\n"
	"| `[!a-z]` | one that is none of these |\n"
	"| anything else, and a `[` that is never closed | itself |\n\n"
	"In a shell a profile wants quotes: `'ema=yolo;copy=*.running_*'`.\n\n";

static const char STARTS[] =
	"## Starts\n\n"
	"An average starts as a copy of the weights that were pushed first, which is call 0: call 1 is the\n"
	"first update. With `begin` it keeps following the weights up to that step, and the first call behind\n"
	"it is number 1.\n\n"
	"`optax` and `paddle` start at zero, as their libraries do. A mean that began at zero is too small by\n"
	"the share that the zero still has, `D`, the product of all decays; with `debias=1` it is divided by\n"
	"`1-D`, which makes it a weighted mean of what was pushed and of nothing else. It is kept divided, so\n"
	"that what is read is always right, and `d` is the decay of the divided average: `d(n) * (1-D(n-1)) /\n"
	"(1-D(n))`, whose first is 0.\n\n";

static const char GAPS[] =
	"## Gaps\n\n"
	"When `k` calls come as one, because pushes were skipped or put together, the average moves by all of\n"
	"them at once: by the product of their `k` decays, each taken at its own call number, with the steps\n"
	"spread evenly. That is exact when the weights stood still in between. `power` and `edm` have\n"
	"formulas that span any distance between two steps; for them it is one call.\n\n";

static const char PLOTS[] =
	"## The schedules\n\n"
	"Each has two plots, at default settings and one step a call. The first is the decay over the calls,\n"
	"on an axis of its nines; where not every call does something it shows those that do. The second is\n"
	"what the average is made of after 12,000 calls: the weight of each snapshot, the newest at the left.\n"
	"Snapshots further back than its right end have nearly none.\n\n";

/* ---- what holds for all --------------------------------------------------------------------------------------- */

static struct schedule schedule_of(const struct schedule_kind *kind)
{
	struct schedule schedule = {.kind = kind, .form = kind->form, .cadence = 1};

	for (uint32_t i = 0; i < kind->key_count; i++)
		schedule.values[i] = kind->keys[i].fallback;
	return schedule;
}

static void overview_write(const struct schedule_kind *kinds, size_t count)
{
	static const uint64_t CALLS[] = {1, 10, 100, 1000, 10000};

	printf("## At a glance\n\nDecays at default settings, at the first call from each number on that does something:\n\n"
	       "| schedule | n = 1 | 10 | 100 | 1,000 | 10,000 | form |\n|---|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < count; i++) {
		struct schedule schedule = schedule_of(&kinds[i]);

		printf("| [`%s`](#%s) |", kinds[i].name, kinds[i].name);
		for (size_t j = 0; j < sizeof(CALLS) / sizeof(*CALLS); j++)
			printf(" %s |", figure_real(explain_decay(&schedule, CALLS[j]), 6).text);
		printf(" `%s` |\n", schedule_form_name(kinds[i].form));
	}
	putchar('\n');
}

static void common_write(void)
{
	size_t count;
	const struct schedule_key *keys = schedule_common_keys(&count);

	printf("## Keys of all schedules\n\n| key | values | default | meaning |\n|---|---|---|---|\n");
	for (size_t i = 0; i < count; i++) {
		/* The defaults of words are not among them: the schedule's own, and by the tensors' types. */
		printf("| `%s` | %s | %s | %s |\n", keys[i].name, explain_range(&keys[i]).text,
		       keys[i].words ? "" : explain_default(&keys[i]).text, keys[i].text);
	}
	printf("\nAt a decay of 0.9999 an average in float32 stops within a relative 3e-4 of weights that stand\n"
	       "still, because each further move would be less than half of its last bit. `precision=f64` is for\n"
	       "decays as near to 1 as that.\n\n"
	       "The forms, with `s` the average and `x` the weights:\n\n"
	       "| form | computes | |\n|---|---|---|\n");
	for (enum schedule_form form = FORM_LERP; form <= FORM_SUB; form++)
		printf("| `%s` | `%s` | %s |\n", schedule_form_name(form), explain_form(form),
		       form == FORM_MUL_ADD ? "in float32 equal to the bit with the loop in PyTorch"
					    : "weights that stand still are kept to the bit");
	putchar('\n');
}

static void scaling_write(const struct schedule_kind *kinds, size_t count)
{
	const char *separator = "";

	printf("## Another batch size\n\n"
	       "When the batch grows `K`-fold each call stands for `K` times the samples, and the same settings\n"
	       "reach `K` times as far back. `emactl explain SCHEDULE --scale-batch K` writes those that reach as\n"
	       "far back in samples as before (`K` may be below 1):\n\n"
	       "| a key that is | becomes | for example, K = 8 |\n|---|---|---|\n"
	       "| the weight of the old average | `value^K` | `decay` 0.9999: %s |\n"
	       "| the weight of the new value | `1-(1-value)^K` | `momentum` 0.0002: %s |\n"
	       "| a length in calls or steps | `value/K` | `tau` 2000: %s |\n"
	       "| the length of a warm-up by a power | `value*K^(1/power-1)` | `gamma` 1 at `power` 2/3: %s |\n"
	       "| a ratio, a power, a choice, how often it fires | the same | |\n\n",
	       figure_real(pow(.9999, 8), 6).text, figure_real(1 - pow(1 - .0002, 8), 6).text,
	       figure_real(2000. / 8, 6).text, figure_real(pow(8, 1 / (2. / 3) - 1), 6).text);
	printf("Not all can be scaled, and some need not be: ");
	for (size_t i = 0; i < count; i++) {
		if (kinds[i].is_scalable && kinds[i].scale_key < 0)
			continue;
		printf("%s`%s`", separator, kinds[i].name);
		separator = ", ";
	}
	printf(".\nTheir sections say why. `power` and `edm` stay as they are where the trainer's step counts samples.\n\n");
}

/* ---- one schedule --------------------------------------------------------------------------------------------- */

static const char *scale_text(const struct schedule_kind *kind, const struct schedule_key *key)
{
	if (!kind->is_scalable)
		return "";
	switch (key->scale) {
	case SCALE_NONE:
		break;
	case SCALE_DECAY:
		return "`value^K`";
	case SCALE_WEIGHT:
		return "`1-(1-value)^K`";
	case SCALE_LENGTH:
		return "`value/K`";
	case SCALE_RAMP:
		return "`value*K^(1/power-1)`";
	}
	return "stays";
}

static void keys_write(const struct schedule_kind *kind)
{
	printf("| key | aliases | default | range | meaning | K-fold batch |\n|---|---|---|---|---|---|\n");
	for (uint32_t i = 0; i < kind->key_count; i++) {
		const struct schedule_key *key = &kind->keys[i];
		const char *alias = key->aliases ? key->aliases : "", *separator = "";

		printf("| `%s` | ", key->name);
		for (size_t bytes; *alias; alias += bytes + strspn(alias + bytes, " "), separator = ", ") {
			bytes = strcspn(alias, " ");
			printf("%s`%.*s`", separator, (int)bytes, alias);
		}
		printf(" | %s | %s | %s | %s |\n", explain_default(key).text, explain_range(key).text, key->text,
		       scale_text(kind, key));
	}
	putchar('\n');
}

static void facts_write(const struct schedule_kind *kind)
{
	printf("- **Form** `%s`: `%s`\n", schedule_form_name(kind->form), explain_form(kind->form));
	printf("- **Start** %s\n",
	       kind->starts_at_zero ? "zero, divided out unless `debias=0`" : "a copy of the weights");
	printf("- **Buffers** floating point: %s; integers and bools: %s", explain_entry(kind->float_buffer),
	       explain_entry(kind->integer));
	if (kind->buffers_key >= 0)
		printf("; with `%s=1`: %s and %s", kind->keys[kind->buffers_key].name, explain_entry(ENTRY_AVERAGE),
		       explain_entry(kind->integer_with_buffers));
	putchar('\n');
	if (kind->uses_step)
		printf("- **Steps** it looks at the trainer's step%s\n",
		       kind->spans_steps ? ", and spans any distance between two of them" : "");
	if (kind->unscaled)
		printf("- **Another batch size** %s: %s\n", kind->is_scalable ? "not always" : "no", kind->unscaled);
	printf("- **Source** %s\n\n", kind->source);
}

/* One clause a line. */
static void formula_write(const char *formula)
{
	for (const char *end; (end = strstr(formula, "; ")); formula = end + 2)
		printf("%.*s\n    ", (int)(end - formula), formula);
	printf("%s\n\n", formula);
}

static int kind_write(const struct schedule_kind *kind)
{
	struct schedule schedule = schedule_of(kind);
	int code;

	printf("### %s\n\n%s\n\n    ", kind->name, kind->text);
	formula_write(kind->formula);
	keys_write(kind);
	facts_write(kind);
	printf("Decay:\n\n```text\n");
	explain_plot_decay(&schedule, stdout);
	printf("```\n\nWhat the average is made of:\n\n```text\n");
	code = explain_plot_window(&schedule, stdout);
	printf("```\n");
	return code;
}

int explain_reference(const struct emactl *emactl)
{
	size_t count;
	const struct schedule_kind *kinds = schedule_kinds(&count);
	int code = 0;

	fputs(INTRODUCTION, stdout);
	overview_write(kinds, count);
	common_write();
	fputs(RULES, stdout);
	fputs(STARTS, stdout);
	fputs(GAPS, stdout);
	scaling_write(kinds, count);
	fputs(PLOTS, stdout);
	for (size_t i = 0; i < count && !code; i++) {
		if (i > 0)
			putchar('\n');
		code = kind_write(&kinds[i]);
	}
	return code ? output_error(emactl, code, "not enough memory for a plot") : 0;
}
