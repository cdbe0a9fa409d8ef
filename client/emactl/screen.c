/*
 * The terminal by ncurses. See screen.h.
 *
 * Signals that ask for the end are read from a descriptor, so that the terminal is put back in order by the same way out
 * as always; ncurses' own handlers would end the program inside of them.
 */
#include "client/emactl/screen.h"

#include <curses.h>
#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { KEY_DELETE_CHARACTER = 127, KEY_CONTROL_H = 8, ESCAPE_DELAY_MS = 25 };

struct screen {
	SCREEN *terminal; /* owned */
	int signals;      /* owned; a signalfd */
	sigset_t mask;    /* of before */
	bool is_colour;
};

static void styles_define(struct screen *screen, bool is_colour)
{
	screen->is_colour = is_colour && has_colors() && start_color() == OK && use_default_colors() == OK;
	if (!screen->is_colour)
		return;
	init_pair(SCREEN_GOOD, COLOR_GREEN, -1);
	init_pair(SCREEN_WARN, COLOR_YELLOW, -1);
	init_pair(SCREEN_BAD, COLOR_RED, -1);
}

static int style_attributes(const struct screen *screen, enum screen_style style)
{
	switch (style) {
	case SCREEN_PLAIN:
		return A_NORMAL;
	case SCREEN_TITLE:
		return A_BOLD;
	case SCREEN_BAR:
		return A_REVERSE;
	case SCREEN_GOOD:
	case SCREEN_WARN:
	case SCREEN_BAD:
		return screen->is_colour ? (int)COLOR_PAIR(style) : style == SCREEN_BAD ? A_BOLD : A_NORMAL;
	}
	return A_NORMAL;
}

int screen_open(bool is_colour, struct screen **ret_screen)
{
	struct screen *screen = calloc(1, sizeof(*screen));
	sigset_t signals;

	if (!screen)
		return -ENOMEM;
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, &screen->mask);
	screen->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	/* Of the characters alone: numbers are written as everywhere. */
	setlocale(LC_CTYPE, "");
	screen->terminal = screen->signals < 0 ? NULL : newterm(NULL, stdout, stdin);
	if (!screen->terminal) {
		if (screen->signals >= 0)
			close(screen->signals);
		sigprocmask(SIG_SETMASK, &screen->mask, NULL);
		free(screen);
		return -ENOTTY;
	}
	set_term(screen->terminal);
	set_escdelay(ESCAPE_DELAY_MS);
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	curs_set(0);
	styles_define(screen, is_colour);
	*ret_screen = screen;
	return 0;
}

void screen_close(struct screen *screen)
{
	if (!screen)
		return;
	endwin();
	delscreen(screen->terminal);
	close(screen->signals);
	sigprocmask(SIG_SETMASK, &screen->mask, NULL);
	free(screen);
}

size_t screen_height(const struct screen *screen)
{
	(void)screen;
	return LINES > 0 ? (size_t)LINES : 0;
}

static void line_draw(const struct screen *screen, int y, const struct screen_line *line)
{
	const int attributes = style_attributes(screen, line->style);

	attron(attributes);
	/* At most so many bytes as there are columns: ncurses would go on in the next line. */
	move(y, 0);
	addnstr(line->text, COLS);
	if (line->style == SCREEN_BAR) {
		for (int x = getcurx(stdscr); x > 0 && x < COLS && getcury(stdscr) == y; x = getcurx(stdscr))
			addch(' ');
	}
	attroff(attributes);
}

void screen_draw(struct screen *screen, const struct screen_line *lines, size_t line_count, const char *bottom)
{
	erase();
	for (size_t i = 0; i < line_count && (int)i < LINES - 1; i++)
		line_draw(screen, (int)i, &lines[i]);
	if (LINES > 0)
		mvaddnstr(LINES - 1, 0, bottom, COLS > 1 ? COLS - 1 : 0);
	refresh();
}

static int key_translate(int key)
{
	switch (key) {
	case KEY_UP:
		return SCREEN_UP;
	case KEY_DOWN:
		return SCREEN_DOWN;
	case KEY_PPAGE:
		return SCREEN_PAGE_UP;
	case KEY_NPAGE:
		return SCREEN_PAGE_DOWN;
	case KEY_RESIZE:
		return SCREEN_RESIZED;
	case KEY_BACKSPACE:
	case KEY_DELETE_CHARACTER:
	case KEY_CONTROL_H:
		return SCREEN_ERASE;
	default:
		return key < 256 ? key : SCREEN_NOTHING;
	}
}

int screen_key(struct screen *screen, int timeout_ms)
{
	struct pollfd sources[2] = {
		{.fd = STDIN_FILENO, .events = POLLIN},
		{.fd = screen->signals, .events = POLLIN},
	};
	int key = getch(), count;

	if (key != ERR)
		return key_translate(key);
	count = poll(sources, 2, timeout_ms);
	if (sources[1].revents) {
		struct signalfd_siginfo taken;

		/* One that stays pending would end the program when it is let through again. */
		while (read(screen->signals, &taken, sizeof(taken)) > 0)
			;
		return SCREEN_END;
	}
	/* A change of the terminal's size interrupts the wait, and getch says so. */
	key = getch();
	if (key != ERR)
		return key_translate(key);
	return count > 0 && (sources[0].revents & (POLLIN | POLLHUP | POLLERR)) ? SCREEN_END : SCREEN_NOTHING;
}
