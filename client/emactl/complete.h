/*
 * What may come next on a command line that is being typed, for the completions of the shells.
 *
 * `emactl complete WORD...` gets the words behind "emactl", the last of them the one that is being typed, and prints
 * what it may become, a line each, with a tab and a description where there is one. ":files" and ":folders" ask the shell
 * to offer paths besides. Everything is taken from the table of commands, and the daemon is asked for names with little
 * patience; no error is ever printed, because the line is not ready to be judged.
 */
#pragma once

#include <stddef.h>

#include "client/emactl/emactl.h"

int complete_run(const struct command *const *commands, size_t command_count, int word_count, char **words);
