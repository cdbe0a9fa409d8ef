/*
 * Decimal numbers as they stand in specifications. The host program of the library may have set a locale whose decimal
 * point is a comma: nothing here depends on it.
 */
#pragma once

#include <stdbool.h>

enum {
	NUMBER_BYTES_MAX = 40,       /* of a number as it is printed: at most "-1.2345678901234567e-308" and its NUL */
	NUMBER_TEXT_BYTES_MAX = 256, /* of a text that is read as one */
};

/*
 * A JSON-like number that fills the text, also with a bare leading point: ".9999"; nothing else (no "inf", no "0x1p-1",
 * no "+1"). Too large a number is read as infinity. False otherwise, *ret_number untouched.
 */
bool number_parse(const char *text, double *ret_number);

/* The fewest digits that parse back to the same double; whole numbers up to 1e15 in full; "inf" for infinity. */
void number_format(double number, char text[static NUMBER_BYTES_MAX]);
