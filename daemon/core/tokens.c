/*
 * The list of tokens. See tokens.h.
 */
#include "daemon/core/tokens.h"

#include <stdbool.h>
#include <string.h>

#include "daemon/core/access.h"

/* The next word of a line, or NULL. */
static char *word_take(char **rest)
{
	char *word;

	do
		word = strsep(rest, " \t\r");
	while (word && !*word);
	return word;
}

static int class_parse(const char *word, enum access *ret_class)
{
	for (int class = ACCESS_READ; class < ACCESS_COUNT; class++) {
		if (strcmp(word, access_name((enum access)class)) != 0)
			continue;
		*ret_class = (enum access)class;
		return 0;
	}
	return STATUS_EARGUMENT;
}

static int line_parse(char *line, int number, struct tokens *tokens, struct reason *reason)
{
	char *name = word_take(&line), *secret, *class;
	struct token *token = &tokens->items[tokens->count];

	if (!name || name[0] == '#')
		return 0;
	secret = word_take(&line);
	class = secret ? word_take(&line) : NULL;
	if (!class || word_take(&line))
		return reason_set(reason, STATUS_EARGUMENT, "line %d: NAME TOKEN CLASS is wanted", number);
	if (tokens->count == TOKEN_COUNT_MAX)
		return reason_set(reason, STATUS_EARGUMENT, "line %d: more than %d tokens", number, TOKEN_COUNT_MAX);
	if (strlen(name) > PEER_NAME_BYTES_MAX || tokens_find(tokens, name))
		return reason_set(reason, STATUS_EARGUMENT, "line %d: the name '%.40s' %s", number, name,
		                  strlen(name) > PEER_NAME_BYTES_MAX ? "has more than 32 bytes" : "is there twice");
	if (strlen(secret) < SECRET_BYTES_MIN || strlen(secret) > SECRET_BYTES_MAX)
		return reason_set(reason, STATUS_EARGUMENT, "line %d: the token of '%s' has %zu bytes, and must have %d to %d "
		                  "('openssl rand -hex 32' makes one)", number, name, strlen(secret), SECRET_BYTES_MIN,
		                  SECRET_BYTES_MAX);
	if (class_parse(class, &token->granted) != 0)
		return reason_set(reason, STATUS_EARGUMENT, "line %d: the class of '%s' is '%.20s': read, push or admin is wanted",
		                  number, name, class);
	strcpy(token->name, name);
	memset(token->secret, 0, sizeof token->secret);
	memcpy(token->secret, secret, strlen(secret));
	token->secret_bytes = (uint32_t)strlen(secret);
	tokens->count++;
	return 0;
}

int tokens_parse(const char *text, struct tokens *ret_tokens, struct reason *reason)
{
	char line[256];
	int error = 0;

	ret_tokens->count = 0;
	for (int number = 1; *text && !error; number++) {
		size_t bytes = strcspn(text, "\n");

		if (bytes >= sizeof line)
			return reason_set(reason, STATUS_EARGUMENT, "line %d has %zu bytes, and at most %zu are possible", number,
			                  bytes, sizeof line - 1);
		memcpy(line, text, bytes);
		line[bytes] = '\0';
		error = line_parse(line, number, ret_tokens, reason);
		text += bytes + (text[bytes] == '\n');
	}
	return error;
}

/* Looks at all bytes, whatever the first ones are. */
static bool is_secret(const struct token *token, const char shown[SECRET_BYTES_MAX], size_t shown_bytes)
{
	volatile unsigned char difference = token->secret_bytes != shown_bytes;

	for (size_t i = 0; i < SECRET_BYTES_MAX; i++)
		difference |= (unsigned char)(token->secret[i] ^ shown[i]);
	return difference == 0;
}

const struct token *tokens_match(const struct tokens *tokens, struct text secret)
{
	char shown[SECRET_BYTES_MAX] = "";
	const struct token *found = NULL;

	if (secret.count > 0 && secret.count <= SECRET_BYTES_MAX)
		memcpy(shown, secret.bytes, secret.count);
	for (uint32_t i = 0; i < tokens->count; i++)
		if (is_secret(&tokens->items[i], shown, secret.count))
			found = &tokens->items[i];
	return found;
}

const struct token *tokens_find(const struct tokens *tokens, const char *name)
{
	for (uint32_t i = 0; i < tokens->count; i++)
		if (strcmp(tokens->items[i].name, name) == 0)
			return &tokens->items[i];
	return NULL;
}
