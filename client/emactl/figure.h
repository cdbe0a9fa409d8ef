/*
 * Figures: numbers as people and as machines read them. Pure: numbers in, short texts out, independent of the locale.
 *
 * A figure is returned by value, so that it can stand in an argument list: printf("%s", figure_bytes(n).text).
 */
#pragma once

#include <stdint.h>

struct figure {
	char text[48];
};

/* "0 B", "17 B", "1.5 KiB", "12.0 MiB", "1.25 TiB". */
struct figure figure_bytes(uint64_t bytes);

/* "314", "25.6 M", "1.3 G": plain up to 99,999. */
struct figure figure_count(uint64_t count);

/* "42 us", "3.1 ms", "3.2 s", "4 min 12 s", "3 h 5 min", "12 d 4 h". */
struct figure figure_duration_us(uint64_t duration_us);

/* "3.2 s ago", or "never" for then_us = 0. A time in the future (clocks that differ) is "now". */
struct figure figure_age_us(uint64_t now_us, uint64_t then_us);

/* The value with the given number of significant digits; "inf" and "nan" in words. */
struct figure figure_real(double value, int digits);

/*
 * A finite double as a JSON number with the fewest digits that read back as the same double, always with a point or an
 * exponent ("0.0"), so that it stays a real number for every reader. "null" for what JSON cannot hold.
 */
struct figure figure_json_real(double value);
