/*
 * Plots in text, for terminals and for pages that show text as it is: a row of numbers as columns of block characters.
 */
#pragma once

#include <stdio.h>

enum { PLOT_COLUMNS = 60, PLOT_ROWS = 8 };

struct plot {
	double heights[PLOT_COLUMNS];  /* 0..1 of the plot's height; what is outside is cut */
	const char *rows[PLOT_ROWS];   /* beside each row, from the top; NULL: nothing */
	const char *axis;              /* below, one column a character, from the first column on */
};

/* Writes the plot, PLOT_ROWS + 2 lines. */
void plot_write(const struct plot *plot, FILE *stream);
