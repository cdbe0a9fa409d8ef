/*
 * Post-hoc averages: the normal equations of the best approximation, in a basis in which they are nearly diagonal.
 *
 * The profiles p of many snapshots of one exponent lie almost on each other, and the matrix of their inner products is
 * as ill-conditioned as there are snapshots. But the snapshots of one exponent span the same functions as the *pieces*
 * of s^g between one snapshot and the next, and pieces of different intervals do not overlap. So the equations are set
 * up for the pieces, in the order of their ends, where the matrix is a narrow band (its envelope is stored and
 * factored), and the solution is taken back to the snapshots: the weight of a snapshot is the difference between its
 * piece's coefficient and the next one's. A thousand snapshots cost no more digits than eight.
 *
 * Everything is in long double and in ratios of steps, so that no power overflows and no difference of neighbouring
 * steps loses digits.
 */
#include "proto/posthoc.h"

#include "proto/limits.h"
#include "proto/schedule.h"

#include <assert.h>
#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t NONE = UINT32_MAX;

/* s^exponent on (begin, end], divided by end^(exponent + 1/2). */
struct piece {
	long double exponent;
	uint64_t begin, end; /* steps */
	uint32_t snapshot;   /* index in the caller's list */
	uint32_t next;       /* the piece of this exponent that begins where this one ends, or NONE */
	uint32_t first;      /* of the pieces before, the first that may overlap this one */
	size_t row;          /* where the matrix' elements first..this one are */
	bool is_dependent;   /* as far as the digits go, the pieces before say the same */
	long double value;   /* right-hand side, then the coefficient */
};

struct system {
	uint32_t count;
	struct piece *pieces; /* owned; by end, then by exponent */
	long double *matrix;  /* owned; the lower half, row by row, within the envelope */
};

/* (a/b)^exponent, for a <= b. */
static long double ratio_power(uint64_t a, uint64_t b, long double exponent)
{
	return a == b ? 1 : expl(exponent * log1pl(-(long double)(b - a) / (long double)b));
}

/* The inner product of two pieces. */
static long double piece_product(const struct piece *p, const struct piece *q)
{
	const uint64_t begin = p->begin > q->begin ? p->begin : q->begin, end = p->end < q->end ? p->end : q->end;
	const long double power = p->exponent + q->exponent + 1;

	if (begin >= end)
		return 0;
	return ratio_power(end, p->end, p->exponent + .5L) * ratio_power(end, q->end, q->exponent + .5L) *
	       -expm1l(power * log1pl(-(long double)(end - begin) / (long double)end)) / power;
}

static int piece_compare(const void *left, const void *right)
{
	const struct piece *a = left, *b = right;

	if (a->end != b->end)
		return a->end < b->end ? -1 : 1;
	return (a->exponent > b->exponent) - (a->exponent < b->exponent);
}

static int point_check(const struct posthoc_point *point, const char *what, struct reason *reason)
{
	if (!(point->exponent >= 0 && point->exponent <= POSTHOC_EXPONENT_MAX))
		return reason_set(reason, STATUS_EARGUMENT, "%s has the exponent %g; it must be from 0 to %d", what,
		                  point->exponent, POSTHOC_EXPONENT_MAX);
	if (point->step == 0)
		return reason_set(reason, STATUS_EARGUMENT,
		                  "%s is of step 0, where nothing has been averaged; steps begin at 1", what);
	return 0;
}

static int points_check(const struct posthoc_point *snapshots, uint32_t count, const struct posthoc_point *target,
                        struct reason *reason)
{
	uint64_t oldest = UINT64_MAX;
	char what[32];
	int r;

	if (count == 0)
		return reason_set(reason, STATUS_EARGUMENT, "there are no snapshots; at least 1 is needed");
	if (count > POSTHOC_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT,
		                  "there are %u snapshots, at most %d can be added up: leave some out", count,
		                  POSTHOC_COUNT_MAX);
	r = point_check(target, "the wanted average", reason);
	for (uint32_t i = 0; i < count && r == 0; i++) {
		snprintf(what, sizeof(what), "snapshot %u", i + 1);
		r = point_check(&snapshots[i], what, reason);
		if (snapshots[i].step < oldest)
			oldest = snapshots[i].step;
	}
	if (r == 0 && oldest > target->step)
		return reason_set(reason, STATUS_EARGUMENT,
		                  "step %" PRIu64 " is wanted, but the oldest snapshot is of step %" PRIu64
		                  ": name that step or a later one",
		                  target->step, oldest);
	return r;
}

/* The pieces of the snapshots that are not behind the target, in their order. */
static int pieces_make(struct system *system, const struct posthoc_point *snapshots, uint32_t count, uint64_t step,
                       struct reason *reason)
{
	struct piece *pieces = calloc(count, sizeof(*pieces));
	uint32_t used = 0;

	if (!pieces)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		if (snapshots[i].step <= step)
			pieces[used++] = (struct piece){.exponent = (long double)snapshots[i].exponent,
			                                .end = snapshots[i].step, .snapshot = i, .next = NONE};
	}
	qsort(pieces, used, sizeof(*pieces), piece_compare);
	system->pieces = pieces;
	system->count = used;
	for (uint32_t i = 0; i < used; i++) {
		uint32_t before = i;

		while (before > 0 && pieces[before - 1].exponent != pieces[i].exponent)
			before--;
		if (before == 0)
			continue;
		if (pieces[before - 1].end == pieces[i].end)
			return reason_set(reason, STATUS_EARGUMENT,
			                  "snapshots %u and %u are both of exponent %g and step %" PRIu64
			                  ": leave one out",
			                  pieces[before - 1].snapshot + 1, pieces[i].snapshot + 1,
			                  (double)pieces[i].exponent, pieces[i].end);
		pieces[i].begin = pieces[before - 1].end;
		pieces[before - 1].next = i;
	}
	return 0;
}

static int matrix_make(struct system *system)
{
	struct piece *pieces = system->pieces;
	size_t used = 0;

	for (uint32_t i = 0; i < system->count; i++) {
		uint32_t first = i;

		while (first > 0 && pieces[first - 1].end > pieces[i].begin)
			first--;
		pieces[i].first = first;
		pieces[i].row = used;
		used += i - first + 1;
	}
	system->matrix = calloc(used, sizeof(*system->matrix));
	if (!system->matrix)
		return -ENOMEM;
	for (uint32_t i = 0; i < system->count; i++) {
		for (uint32_t j = pieces[i].first; j <= i; j++)
			system->matrix[pieces[i].row + j - pieces[i].first] = piece_product(&pieces[i], &pieces[j]);
	}
	return 0;
}

/* Row i of the matrix, to be indexed with columns from pieces[i].first on. */
static long double *row_of(const struct system *system, uint32_t i)
{
	return system->matrix + system->pieces[i].row - system->pieces[i].first;
}

/* Cholesky's factor in place of the matrix. A piece that adds nothing to those before is taken out of the system. */
static void matrix_factor(struct system *system)
{
	struct piece *pieces = system->pieces;

	for (uint32_t i = 0; i < system->count; i++) {
		long double *row = row_of(system, i), diagonal = row[i];

		for (uint32_t j = pieces[i].first; j < i; j++) {
			const long double *other = row_of(system, j);
			uint32_t k = pieces[i].first > pieces[j].first ? pieces[i].first : pieces[j].first;

			for (; k < j; k++)
				row[j] -= row[k] * other[k];
			row[j] = pieces[j].is_dependent ? 0 : row[j] / other[j];
			diagonal -= row[j] * row[j];
		}
		pieces[i].is_dependent = !(diagonal > 256 * LDBL_EPSILON * row[i]);
		row[i] = sqrtl(fmaxl(diagonal, 0));
	}
}

/* The right-hand sides in the pieces become their coefficients. */
static void matrix_solve(const struct system *system)
{
	struct piece *pieces = system->pieces;

	for (uint32_t i = 0; i < system->count; i++) {
		const long double *row = row_of(system, i);

		for (uint32_t k = pieces[i].first; k < i; k++)
			pieces[i].value -= row[k] * pieces[k].value;
		pieces[i].value = pieces[i].is_dependent ? 0 : pieces[i].value / row[i];
	}
	for (uint32_t i = system->count; i-- > 0;) {
		const long double *row = row_of(system, i);

		if (pieces[i].is_dependent)
			continue;
		pieces[i].value /= row[i];
		for (uint32_t k = pieces[i].first; k < i; k++)
			pieces[k].value -= row[k] * pieces[i].value;
	}
}

/* The weight of a piece's snapshot, but for a factor that is the same for all. */
static long double snapshot_weight(const struct system *system, const struct piece *piece, uint64_t step)
{
	long double value = piece->value;

	if (piece->next != NONE) {
		const struct piece *next = &system->pieces[piece->next];

		value -= next->value * ratio_power(piece->end, next->end, piece->exponent + .5L);
	}
	return value * sqrtl((long double)piece->end / (long double)step) / (piece->exponent + 1);
}

static int system_solve(struct system *system, const struct posthoc_point *target, double *ret_coefficients,
                        uint32_t count, struct reason *reason)
{
	const struct piece wanted = {.exponent = (long double)target->exponent, .end = target->step};
	long double sum = 0;
	int r = matrix_make(system);

	if (r != 0)
		return r;
	for (uint32_t i = 0; i < system->count; i++)
		system->pieces[i].value = piece_product(&system->pieces[i], &wanted);
	matrix_factor(system);
	matrix_solve(system);
	for (uint32_t i = 0; i < system->count; i++)
		sum += snapshot_weight(system, &system->pieces[i], target->step);
	if (!(sum > 0 && isfinite(sum)))
		return reason_set(reason, STATUS_EARGUMENT,
		                  "no sum of the %u snapshots comes near exponent %g at step %" PRIu64
		                  ": give snapshots of nearer steps",
		                  system->count, target->exponent, target->step);
	memset(ret_coefficients, 0, count * sizeof(*ret_coefficients));
	for (uint32_t i = 0; i < system->count; i++)
		ret_coefficients[system->pieces[i].snapshot] =
			(double)(snapshot_weight(system, &system->pieces[i], target->step) / sum);
	return 0;
}

int posthoc_solve(const struct posthoc_point *snapshots, uint32_t count, const struct posthoc_point *target,
                  double *ret_coefficients, struct reason *reason)
{
	struct system system = {0};
	int r = points_check(snapshots, count, target, reason);

	if (r == 0)
		r = pieces_make(&system, snapshots, count, target->step, reason);
	if (r != 0)
		goto done;
	for (uint32_t i = 0; i < count; i++) {
		if (snapshots[i].step != target->step || snapshots[i].exponent != target->exponent)
			continue;
		memset(ret_coefficients, 0, count * sizeof(*ret_coefficients));
		ret_coefficients[i] = 1;
		goto done;
	}
	r = system_solve(&system, target, ret_coefficients, count, reason);
done:
	free(system.pieces);
	free(system.matrix);
	return r;
}

/* The inner product of two profiles, times step. */
static long double profile_product(const struct posthoc_point *p, const struct posthoc_point *q, uint64_t step)
{
	const struct posthoc_point *older = p->step < q->step ? p : q, *newer = older == p ? q : p;
	const long double a = (long double)p->exponent, b = (long double)q->exponent;

	return (a + 1) * (b + 1) / (a + b + 1) * ((long double)step / (long double)newer->step) *
	       ratio_power(older->step, newer->step, (long double)newer->exponent);
}

double posthoc_error(const struct posthoc_point *snapshots, uint32_t count, const struct posthoc_point *target,
                     const double *coefficients)
{
	const long double norm = profile_product(target, target, target->step);
	long double square = norm;

	for (uint32_t i = 0; i < count; i++) {
		const long double weight = (long double)coefficients[i];
		long double sum = -profile_product(&snapshots[i], target, target->step);

		if (weight == 0)
			continue;
		for (uint32_t j = 0; j < i; j++) {
			if (coefficients[j] != 0)
				sum += (long double)coefficients[j] *
				       profile_product(&snapshots[i], &snapshots[j], target->step);
		}
		square += 2 * weight * sum;
		square += weight * weight * profile_product(&snapshots[i], &snapshots[i], target->step);
	}
	return (double)sqrtl(fmaxl(square, 0) / norm);
}

double posthoc_std(double exponent)
{
	return sqrt((exponent + 1) / (exponent + 3)) / (exponent + 2);
}

/* Writes "power:" and those items of a specification that say which average it is. */
static bool schedule_reduce(const char *schedule, char text[static SCHEDULE_BYTES_MAX + 8])
{
	const char *item = schedule + strlen("power");
	size_t used = strlen("power"), bytes;

	if (strlen(schedule) > SCHEDULE_BYTES_MAX || strncmp(schedule, "power", used) != 0 || (*item && *item != ':'))
		return false;
	memcpy(text, "power", used);
	for (; *item; item += bytes) {
		item++;
		bytes = strcspn(item, ",");
		if (strncmp(item, "std=", 4) != 0 && strncmp(item, "gamma=", 6) != 0)
			continue;
		text[used] = used == strlen("power") ? ':' : ',';
		memcpy(text + used + 1, item, bytes);
		used += 1 + bytes;
	}
	text[used] = '\0';
	return true;
}

/* The place of a key's value in a schedule of kind power, which has it. */
static double *key_value(struct schedule *schedule, const char *name)
{
	uint32_t i = 0;

	while (i + 1 < schedule->kind->key_count && strcmp(schedule->kind->keys[i].name, name) != 0)
		i++;
	assert(strcmp(schedule->kind->keys[i].name, name) == 0);
	return &schedule->values[i];
}

void posthoc_schedule(double std, char *ret_text)
{
	struct schedule schedule;
	int r = schedule_parse("power", &schedule, NULL);

	assert(r == 0);
	*key_value(&schedule, "std") = std;
	r = schedule_format(&schedule, ret_text, SCHEDULE_BYTES_MAX + 1);
	assert(r == 0);
	(void)r;
}

int posthoc_exponent(const char *schedule, double *ret_exponent, struct reason *reason)
{
	char text[SCHEDULE_BYTES_MAX + 8];
	struct schedule parsed;
	double exponent;
	int r;

	if (!schedule_reduce(schedule, text))
		return reason_set(reason, STATUS_ESCHEDULE,
		                  "its schedule is '%.100s', and only averages of schedule power can be added up to "
		                  "another",
		                  schedule);
	r = schedule_parse(text, &parsed, reason);
	if (r != 0)
		return r;
	exponent = *key_value(&parsed, "gamma");
	*ret_exponent = exponent >= 0 ? exponent : schedule_power_exponent(*key_value(&parsed, "std"));
	return 0;
}
