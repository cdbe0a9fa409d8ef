/*
 * Plots in text: levels, labels, and no blanks at the ends of lines.
 */
#include "client/emactl/plot.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The plot as lines; owned by the caller. */
static char *plotted(const struct plot *plot)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *stream = open_memstream(&text, &bytes);

	ck_assert_ptr_nonnull(stream);
	plot_write(plot, stream);
	fclose(stream);
	return text;
}

START_TEST(heights_are_eighths_of_a_row)
{
	struct plot plot = {.rows = {[0] = "top", [7] = "0"}, .axis = "1  10"};
	char *text;

	for (int i = 0; i <= 8; i++)
		plot.heights[i] = i / 64.;
	plot.heights[9] = 1;
	plot.heights[10] = .5;
	text = plotted(&plot);
	ck_assert_str_eq(text,
	                 "     top │         █\n"
	                 "         │         █\n"
	                 "         │         █\n"
	                 "         │         █\n"
	                 "         │         ██\n"
	                 "         │         ██\n"
	                 "         │         ██\n"
	                 "       0 │ ▁▂▃▄▅▆▇███\n"
	                 "         └────────────────────────────────────────────────────────────\n"
	                 "          1  10\n");
	free(text);
}
END_TEST

START_TEST(what_is_outside_is_cut)
{
	struct plot plot = {.axis = ""};
	char *text, *line;
	int line_count = 0;

	plot.heights[0] = 7;
	plot.heights[1] = -7;
	plot.heights[2] = INFINITY;
	plot.heights[3] = NAN;
	text = plotted(&plot);
	for (line = text; *line; line = strchr(line, '\n') + 1, line_count++) {
		if (line_count < PLOT_ROWS)
			ck_assert_ptr_nonnull(strstr(line, "│█ █\n"));
	}
	ck_assert_int_eq(line_count, PLOT_ROWS + 2);
	free(text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("plot");
	TCase *tcase = tcase_create("plot");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, heights_are_eighths_of_a_row);
	tcase_add_test(tcase, what_is_outside_is_cut);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
