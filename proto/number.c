/*
 * Decimal numbers. See number.h.
 *
 * They are read by a grammar of our own and handed to strtod without a decimal point ("0.9999" as "9999e-4"), because
 * strtod takes the locale's; printing puts the point back for the same reason.
 */
#include "proto/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

bool number_parse(const char *text, double *ret_number)
{
	char plain[NUMBER_TEXT_BYTES_MAX + 16];
	size_t digits = 0, used = 0;
	long exponent = 0, fraction_digits = 0;
	const char *c = text;

	if (strlen(text) > NUMBER_TEXT_BYTES_MAX)
		return false;
	if (*c == '-')
		plain[used++] = *c++;
	for (; is_digit(*c); digits++)
		plain[used++] = *c++;
	if (*c == '.') {
		for (c++; is_digit(*c); fraction_digits++, digits++)
			plain[used++] = *c++;
		if (fraction_digits == 0)
			return false;
	}
	if (digits == 0)
		return false;
	if (*c == 'e' || *c == 'E') {
		bool is_negative = c[1] == '-';

		c += c[1] == '-' || c[1] == '+' ? 2 : 1;
		if (!is_digit(*c))
			return false;
		for (; is_digit(*c); c++)
			exponent = exponent < 100000 ? exponent * 10 + (*c - '0') : exponent;
		if (is_negative)
			exponent = -exponent;
	}
	if (*c != '\0')
		return false;
	snprintf(plain + used, sizeof(plain) - used, "e%ld", exponent - fraction_digits);
	/* Too large a number becomes infinity here, and is out of every range. + 0.0 turns -0 into 0. */
	*ret_number = strtod(plain, NULL) + 0.0;
	return true;
}

void number_format(double number, char text[static NUMBER_BYTES_MAX])
{
	char *target = text;
	double again;

	if (number == floor(number) && fabs(number) <= 1e15) {
		snprintf(text, NUMBER_BYTES_MAX, "%.0f", number);
		return;
	}
	for (int precision = 1; precision <= 17; precision++) {
		bool is_after_point = false;

		snprintf(text, NUMBER_BYTES_MAX, "%.*g", precision, number);
		/* Whatever is no digit, sign or exponent is the locale's decimal point, perhaps of several bytes. */
		target = text;
		for (const char *c = text; *c; c++) {
			if (is_digit(*c) || strchr("+-einf", *c)) {
				*target++ = *c;
			} else if (!is_after_point) {
				is_after_point = true;
				*target++ = '.';
			}
		}
		*target = '\0';
		if (number_parse(text, &again) && again == number)
			return;
	}
}
