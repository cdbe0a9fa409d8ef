/*
 * Figures. Three significant digits are what a person compares; the exact numbers are what --json is for.
 */
#include "client/emactl/figure.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REAL_DIGITS_MAX = 17 }; /* enough for any double */

/* Divides by base until the figure is short; three significant digits, but never "1024 KiB" by rounding. */
static struct figure figure_scaled(uint64_t number, double base, const char *const *units, size_t unit_count)
{
	struct figure figure;
	double value = (double)number;
	size_t unit = 0;

	while (value >= base - 0.5 && unit + 1 < unit_count) {
		value /= base;
		unit++;
	}
	if (unit == 0)
		snprintf(figure.text, sizeof(figure.text), "%" PRIu64 "%s", number, units[0]);
	else
		snprintf(figure.text, sizeof(figure.text), "%.*f%s", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value,
		         units[unit]);
	return figure;
}

struct figure figure_bytes(uint64_t bytes)
{
	static const char *const UNITS[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};

	return figure_scaled(bytes, 1024, UNITS, sizeof(UNITS) / sizeof(UNITS[0]));
}

struct figure figure_count(uint64_t count)
{
	static const char *const UNITS[] = {"", " k", " M", " G", " T", " P", " E"};
	struct figure figure;

	if (count > 99999)
		return figure_scaled(count, 1000, UNITS, sizeof(UNITS) / sizeof(UNITS[0]));
	snprintf(figure.text, sizeof(figure.text), "%" PRIu64, count);
	return figure;
}

/* "4 min 12 s": two neighbouring units, the second only when it is not zero. */
static struct figure figure_two_units(uint64_t large, const char *large_unit, uint64_t small, const char *small_unit)
{
	struct figure figure;

	if (small)
		snprintf(figure.text, sizeof(figure.text), "%" PRIu64 " %s %" PRIu64 " %s", large, large_unit, small,
		         small_unit);
	else
		snprintf(figure.text, sizeof(figure.text), "%" PRIu64 " %s", large, large_unit);
	return figure;
}

struct figure figure_duration_us(uint64_t duration_us)
{
	const uint64_t seconds = duration_us / 1000000;
	const double value_us = (double)duration_us;
	struct figure figure;

	if (seconds >= 86400)
		return figure_two_units(seconds / 86400, "d", seconds % 86400 / 3600, "h");
	if (seconds >= 3600)
		return figure_two_units(seconds / 3600, "h", seconds % 3600 / 60, "min");
	if (seconds >= 60)
		return figure_two_units(seconds / 60, "min", seconds % 60, "s");
	if (duration_us < 1000)
		snprintf(figure.text, sizeof(figure.text), "%" PRIu64 " us", duration_us);
	else if (duration_us < 999500)
		snprintf(figure.text, sizeof(figure.text), "%.*f ms", duration_us < 10000 ? 1 : 0, value_us / 1e3);
	else
		snprintf(figure.text, sizeof(figure.text), "%.1f s", value_us / 1e6);
	return figure;
}

struct figure figure_age_us(uint64_t now_us, uint64_t then_us)
{
	struct figure figure;

	if (then_us == 0) {
		snprintf(figure.text, sizeof(figure.text), "never");
	} else if (then_us >= now_us) {
		snprintf(figure.text, sizeof(figure.text), "now");
	} else {
		figure = figure_duration_us(now_us - then_us);
		strcat(figure.text, " ago");
	}
	return figure;
}

struct figure figure_real(double value, int digits)
{
	struct figure figure;

	snprintf(figure.text, sizeof(figure.text), "%.*g", digits < REAL_DIGITS_MAX ? digits : REAL_DIGITS_MAX, value);
	return figure;
}

struct figure figure_json_real(double value)
{
	/* A normal double that some 15 digits name is named by %.15g; below the normal range fewer digits may do. */
	int digits = fpclassify(value) == FP_SUBNORMAL ? 1 : 15;
	struct figure figure;

	if (!isfinite(value)) {
		snprintf(figure.text, sizeof(figure.text), "null");
		return figure;
	}
	do
		snprintf(figure.text, sizeof(figure.text), "%.*g", digits, value);
	while (digits++ < REAL_DIGITS_MAX && strtod(figure.text, NULL) != value);
	if (!strpbrk(figure.text, ".e"))
		strcat(figure.text, ".0");
	return figure;
}
