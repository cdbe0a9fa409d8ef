/*
 * A page of text that fills the terminal, and the keys that are typed meanwhile. The only file that knows ncurses.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum screen_style { SCREEN_PLAIN, SCREEN_TITLE, SCREEN_GOOD, SCREEN_WARN, SCREEN_BAD, SCREEN_BAR };

struct screen_line {
	const char *text; /* UTF-8, safe for a terminal; cut where the screen ends */
	enum screen_style style;
};

/* What screen_key answers beside characters. */
enum {
	SCREEN_NOTHING = -1, /* the time was up */
	SCREEN_UP = -2,
	SCREEN_DOWN = -3,
	SCREEN_PAGE_UP = -4,
	SCREEN_PAGE_DOWN = -5,
	SCREEN_RESIZED = -6,
	SCREEN_ERASE = -7, /* backspace */
	SCREEN_END = -8,   /* a signal asks for the end, or the terminal is gone */
};

struct screen;

/* Takes over the terminal of standard input and output. -ENOTTY when it cannot be used, -errno. */
int screen_open(bool is_colour, struct screen **ret_screen);

/* Leaves the terminal as it was. NULL is allowed. */
void screen_close(struct screen *screen);

/* Lines of text that fit on the screen. */
size_t screen_height(const struct screen *screen);

/* Draws the lines from the top, and a last one at the bottom. */
void screen_draw(struct screen *screen, const struct screen_line *lines, size_t line_count, const char *bottom);

/* Waits for a key, at most so long: a character, or one of the above. */
int screen_key(struct screen *screen, int timeout_ms);
