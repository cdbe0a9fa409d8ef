/*
 * Texts and names of status codes.
 *
 * Our own codes come from the table in status.h; for the errno values glibc knows both the symbol and the sentence
 * (strerrorname_np, strerrordesc_np), which are static, never translated and safe in any thread, unlike strerror.
 */
#include "proto/status.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *status_text(int code)
{
	const char *text = NULL;

	switch (code) {
	case STATUS_OK:
		return "success";
#define X(name, number, wire, text)                                                                                   \
	case STATUS_##name:                                                                                           \
		return text;
		STATUS_CODES(X)
#undef X
	}
	if (code < 0 && code != INT_MIN)
		text = strerrordesc_np(-code);
	return text ? text : "unknown error";
}

const char *status_name(int code)
{
	const char *name = NULL;

	switch (code) {
	case STATUS_OK:
		return "ok";
#define X(name, number, wire, text)                                                                                   \
	case STATUS_##name:                                                                                           \
		return wire;
		STATUS_CODES(X)
#undef X
	}
	if (code < 0 && code != INT_MIN)
		name = strerrorname_np(-code);
	return name ? name : "unknown";
}

/*
 * Cuts a UTF-8 sequence that the end of the buffer split: reasons travel in msgpack and JSON strings, and half a
 * character would make a strict reader refuse the whole message.
 */
static void trim_split_character(char *text)
{
	size_t end = strlen(text), start = end;
	unsigned lead, need;

	while (start > 0 && end - start < 3 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
		start--;
	if (start == 0)
		return;
	lead = (unsigned char)text[--start];
	need = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
	if (end - start < need)
		text[start] = '\0';
}

int reason_set(struct reason *reason, int code, const char *format, ...)
{
	va_list arguments;
	int chars;

	if (!reason)
		return code;
	va_start(arguments, format);
	chars = vsnprintf(reason->text, sizeof(reason->text), format, arguments);
	va_end(arguments);
	if (chars < 0)
		snprintf(reason->text, sizeof(reason->text), "%s", status_text(code));
	else if ((size_t)chars >= sizeof(reason->text))
		trim_split_character(reason->text);
	for (unsigned char *c = (unsigned char *)reason->text; *c; c++) {
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
		/* U+0080 to U+009F, which a terminal takes for control characters as well. */
		if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			c[0] = c[1] = '?';
	}
	return code;
}
