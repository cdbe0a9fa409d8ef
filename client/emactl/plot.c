/*
 * Plots. Each character holds eight levels (U+2581..U+2588), so eight rows show 64.
 */
#include "client/emactl/plot.h"

#include <math.h>

enum { LEVELS = 8, LABEL_COLUMNS = 8 };

/* A little up, so that a value that is a half in theory is rounded alike whatever the last bit is. */
static int level_of(double height)
{
	double level = floor(height * PLOT_ROWS * LEVELS + 0.5 + 1e-9);

	return (int)fmin(fmax(level, 0), PLOT_ROWS * LEVELS);
}

void plot_write(const struct plot *plot, FILE *stream)
{
	static const char *const BLOCKS[LEVELS + 1] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};

	for (int row = 0; row < PLOT_ROWS; row++) {
		const int below = (PLOT_ROWS - 1 - row) * LEVELS;
		int last = PLOT_COLUMNS - 1;

		while (last >= 0 && level_of(plot->heights[last]) <= below)
			last--;
		fprintf(stream, "%*s │", LABEL_COLUMNS, plot->rows[row] ? plot->rows[row] : "");
		/* No blanks at the end of a line. */
		for (int column = 0; column <= last; column++) {
			int level = level_of(plot->heights[column]) - below;

			fputs(BLOCKS[level < 0 ? 0 : level > LEVELS ? LEVELS : level], stream);
		}
		fputc('\n', stream);
	}
	fprintf(stream, "%*s └", LABEL_COLUMNS, "");
	for (int column = 0; column < PLOT_COLUMNS; column++)
		fputs("─", stream);
	fprintf(stream, "\n%*s  %s\n", LABEL_COLUMNS, "", plot->axis);
}
