/*
 * emactl: what its files share. One invocation is one `struct emactl`; a command is a row of a table, and its options,
 * its help and its parser all come from that row.
 *
 * Results go to standard output, everything else to standard error. Functions that may end the program return its exit
 * status, a value of <sysexits.h>.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/emad.h"

struct emactl;

enum { COMMAND_OPTION_COUNT_MAX = 8 };

struct command_option {
	const char *name;     /* without "--"; NULL ends the list */
	char letter;          /* of the short option, or 0 */
	const char *argument; /* what it is called in the help; NULL: the option takes none */
	const char *text;     /* what it does, a phrase */
};

struct command {
	const char *name;
	const char *arguments; /* "MODEL [PROFILE]" */
	unsigned argument_count_min, argument_count_max;
	const char *summary;                  /* a phrase for the list of commands */
	const char *text;                     /* what it does and what it prints, lines */
	const struct command_option *options; /* own ones, beside the common ones; may be NULL */
	const char *examples;                 /* lines */
	const char *exits;                    /* exit codes and what they mean here, lines */
	int (*run)(struct emactl *emactl);
};

struct emactl {
	const char *url; /* borrowed from argv; NULL: the library's default */
	int connect_ms;  /* how long to wait for the daemon to be there */
	int timeout_ms;  /* and for an answer */
	bool is_json;
	bool is_quiet;
	bool is_colour; /* of standard output */
	bool is_help_asked;
	bool is_version_asked;
	const struct command *command;                /* NULL until it is known */
	const char *values[COMMAND_OPTION_COUNT_MAX]; /* of the command's options: NULL, or the argument, or "" */
	unsigned argument_count;
	char **arguments; /* borrowed from argv */
};

/* ---- commands, by file ---------------------------------------------------------------------------------------- */

extern const struct command COMMAND_PING, COMMAND_STATUS, COMMAND_REMOVE; /* command_daemon.c */
extern const struct command COMMAND_DOCTOR;                               /* command_doctor.c */
extern const struct command COMMAND_LIST, COMMAND_SHOW;                   /* command_model.c */
extern const struct command COMMAND_CHECKPOINT;                           /* command_checkpoint.c */
extern const struct command COMMAND_GET;                                  /* command_get.c */
extern const struct command COMMAND_DIFF;                                 /* command_diff.c */
extern const struct command COMMAND_TOP;                                  /* command_top.c */
extern const struct command COMMAND_WATCH;                                /* command_watch.c */
extern const struct command COMMAND_HISTORY, COMMAND_ROLLBACK;            /* command_rollback.c */
extern const struct command COMMAND_EXPORT;                               /* command_export.c */
extern const struct command COMMAND_POSTHOC;                              /* command_posthoc.c */
extern const struct command COMMAND_MERGE;                                /* command_merge.c */
extern const struct command COMMAND_IMPORT;                               /* command_import.c */
extern const struct command COMMAND_PROFILE;                              /* command_profile.c */
extern const struct command COMMAND_VERIFY;                               /* command_verify.c */
extern const struct command COMMAND_EXPLAIN;                              /* command_explain.c */

/* ---- arguments.c ---------------------------------------------------------------------------------------------- */

/* The options that every command takes, before or after its name; ended by a NULL name. */
extern const struct command_option COMMON_OPTIONS[];

/*
 * Parses options up to the first other argument (command NULL) or the whole of a command's line. argv[0] is skipped.
 * 0 and the index of the first argument that is no option, or EX_USAGE with the error printed.
 */
int arguments_parse(struct emactl *emactl, int argc, char **argv, int *ret_index);

/*
 * An option's or argument's text as a whole number within a range; "1e9" is taken too. EX_USAGE with the error
 * printed; what: "--calls".
 */
int arguments_number(const struct emactl *emactl, const char *what, const char *text, const uint64_t range[2],
                     uint64_t *ret_number);

/* The nearest of some names to a mistyped one, or NULL when none is near. names: ended by NULL. */
const char *arguments_nearest(const char *name, const char *const *names);

/* ---- output.c ------------------------------------------------------------------------------------------------- */

/*
 * Prints an error: "emactl: sentence", or with --json {"error":{"code","name","message"}}, to standard error.
 * code: of the library's int space. Returns the exit status that goes with the code, see output_exit_status.
 */
int output_error(const struct emactl *emactl, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for a call of the library that just failed, with the library's own sentence. */
int output_library_error(const struct emactl *emactl, int code);

/* The value of <sysexits.h> for a code of the library's int space. */
int output_exit_status(int code);

/* A remark for people on standard error; nothing with --quiet or --json. */
void output_note(const struct emactl *emactl, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether what is printed on standard output still arrives: long listings stop when it does not. */
bool output_is_broken(void);

/*
 * Flushes standard output. Returns exit_status, or EX_IOERR with the error printed when something could not be
 * written. A reader that went away (`emactl list | head -1`) is not an error.
 */
int output_finish(const struct emactl *emactl, int exit_status);

/* A JSON string with its quotes, to standard output. */
void output_json_string(const char *text);
