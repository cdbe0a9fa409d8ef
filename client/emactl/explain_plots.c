/*
 * The plots of a schedule: its decay over the calls, and what its average is made of.
 *
 * Both are computed by making calls as the daemon would, one trainer's step each. Decays are shown by their nines
 * (0.9, 0.99, 0.999), because what counts is how far they are from 1.
 */
#include "client/emactl/explain.h"

#include "client/emactl/plot.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	DECADE_COLUMNS = 10,   /* of the decay's axis */
	FIRING_CALLS_MAX = 64, /* how far behind a column its call may lie, where not every call does something */
	WINDOW_CALLS = 12000,  /* of which the average is looked at */
	NINES = 4,             /* at the top of the decay's axis */
};

/* The first call from n on that does something. */
static struct schedule_result firing_at(const struct schedule *schedule, uint64_t n)
{
	struct schedule_state state = schedule_resumed(schedule, n - 1, n - 1);
	struct schedule_result result = {.action = ACTION_NOOP};

	for (uint64_t i = n; result.action == ACTION_NOOP && i < n + FIRING_CALLS_MAX; i++)
		result = schedule_advance(schedule, &state, &(struct schedule_gap){1, i, i - 1});
	return result;
}

double explain_decay(const struct schedule *schedule, uint64_t n)
{
	return firing_at(schedule, n).decay;
}

void explain_plot_decay(const struct schedule *schedule, FILE *stream)
{
	struct plot plot = {
		.rows = {"0.9999", NULL, "0.999", NULL, "0.99", NULL, "0.9", NULL},
		.axis = "1         10        100       1,000     10,000    100,000    call",
	};

	for (int i = 0; i < PLOT_COLUMNS; i++) {
		double n = round(pow(10, (double)i / DECADE_COLUMNS));

		plot.heights[i] = -log10(1 - explain_decay(schedule, (uint64_t)n)) / NINES;
	}
	plot_write(&plot, stream);
}

/*
 * The weights of the snapshots in the average after the last call, by age; the start's is behind them. What a call
 * copied is a start too, and would dwarf all others.
 */
static double *window_make(const struct schedule *schedule)
{
	double *weights = calloc(WINDOW_CALLS + 1, sizeof(*weights));
	struct schedule_state state = {0};
	bool is_behind_copy = false;
	double product = 1;

	if (!weights)
		return NULL;
	/* First each call's decay, then, from the newest back, what is left of each. */
	for (uint64_t i = 1; i <= WINDOW_CALLS; i++)
		weights[WINDOW_CALLS - i] =
			schedule_advance(schedule, &state, &(struct schedule_gap){1, i, i - 1}).decay;
	for (int age = 0; age < WINDOW_CALLS; age++) {
		double decay = weights[age];

		weights[age] = decay > 0 && !is_behind_copy ? product * (1 - decay) : 0;
		is_behind_copy |= decay == 0;
		product *= is_behind_copy ? 1 : decay;
	}
	weights[WINDOW_CALLS] = product;
	return weights;
}

/* The smallest of the spans that holds nearly all of what is not the start's. */
static int span_choose(const double *weights)
{
	static const int SPANS[] = {60, 120, 300, 600, 1200, 3000, 6000, WINDOW_CALLS};
	const double whole = 1 - weights[WINDOW_CALLS];
	size_t chosen = 0;
	double sum = 0;

	for (int age = 0; age < WINDOW_CALLS; age++) {
		sum += weights[age];
		if (age + 1 < SPANS[chosen])
			continue;
		if (sum >= .98 * whole || chosen + 1 == sizeof(SPANS) / sizeof(*SPANS))
			break;
		chosen++;
	}
	return SPANS[chosen];
}

/* "12,000" */
static struct explain_text grouped(int number)
{
	struct explain_text text;

	if (number < 1000)
		snprintf(text.text, sizeof(text.text), "%d", number);
	else
		snprintf(text.text, sizeof(text.text), "%d,%03d", number / 1000, number % 1000);
	return text;
}

static void window_plot(const double *weights, FILE *stream)
{
	const int span = span_choose(weights), bucket = span / PLOT_COLUMNS, tick = span / 4;
	struct plot plot = {.rows = {[0] = "most", [PLOT_ROWS - 1] = "0"}};
	double largest = 0;
	char axis[512];

	for (int i = 0; i < PLOT_COLUMNS; i++) {
		for (int j = 0; j < bucket; j++)
			plot.heights[i] += weights[i * bucket + j];
		largest = fmax(largest, plot.heights[i]);
	}
	for (int i = 0; i < PLOT_COLUMNS && largest > 0; i++)
		plot.heights[i] /= largest;
	snprintf(axis, sizeof(axis), "%-15s%-15s%-15s%-15s calls ago", "0", grouped(tick).text, grouped(2 * tick).text,
		 grouped(3 * tick).text);
	plot.axis = axis;
	plot_write(&plot, stream);
}

int explain_plot_window(const struct schedule *schedule, FILE *stream)
{
	double *weights = window_make(schedule);
	double age = 0;

	if (!weights)
		return -ENOMEM;
	for (int i = 0; i <= WINDOW_CALLS; i++)
		age += i * weights[i];
	window_plot(weights, stream);
	fprintf(stream, "\nmean age %s calls", grouped((int)(age + 0.5)).text);
	if (weights[WINDOW_CALLS] >= 0.0005)
		fprintf(stream, "; %.1f %% are still the start's", 100 * weights[WINDOW_CALLS]);
	fputc('\n', stream);
	free(weights);
	return 0;
}
