/*
 * A shell command with places for values: 'evaluate {file} --step {step}'. Pure.
 */
#pragma once

struct placeholder {
	const char *name;  /* "file", for {file}; NULL ends the list */
	const char *value; /* any text */
};

/*
 * The command with each {name} replaced by its value as one word of the shell, whatever is in it. What is not in the
 * list stays as it is, and so does ${name}, which is the shell's own. NULL without memory; the caller frees it.
 */
char *placeholders_fill(const char *command, const struct placeholder *placeholders);
