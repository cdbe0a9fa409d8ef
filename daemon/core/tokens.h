/*
 * Tokens: by what remote peers are known, because tcp tells no user and TLS, as NNG has it, no name.
 *
 * A file has a token a line: "NAME TOKEN CLASS", where the class (read, push, admin) is the highest that whoever shows the
 * token is let into. Blank lines and lines that begin with '#' are passed over. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/core/exchange.h"
#include "proto/message.h"
#include "proto/status.h"

enum {
	TOKEN_COUNT_MAX = 256,
	SECRET_BYTES_MIN = 16,
	SECRET_BYTES_MAX = 128,
};

struct token {
	char name[PEER_NAME_BYTES_MAX + 1];
	char secret[SECRET_BYTES_MAX]; /* padded with zeros */
	uint32_t secret_bytes;
	enum access granted;
};

struct tokens {
	uint32_t count;
	struct token items[TOKEN_COUNT_MAX];
};

/* Reads the text of a file. STATUS_EARGUMENT with the line and what is wrong with it; never with the token. */
int tokens_parse(const char *text, struct tokens *ret_tokens, struct reason *reason);

/* The token that a peer shows, or NULL. Takes as long for a wrong one as for a right one. */
const struct token *tokens_match(const struct tokens *tokens, struct text secret);

/* The one of that name, or NULL. */
const struct token *tokens_find(const struct tokens *tokens, const char *name);
