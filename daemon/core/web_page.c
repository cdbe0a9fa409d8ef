/*
 * The page as bytes of the program. See web_page.h.
 */
#include "daemon/core/web_page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not `ld -r -b binary`: its objects do not say that they need no executable stack, and then the program gets one. */
__asm__(".pushsection .rodata\n"
        ".globl web_page_begin\n"
        "web_page_begin:\n"
        ".incbin \"daemon/core/web_page.html\"\n"
        ".byte 0\n"
        ".popsection\n");

extern const char web_page_begin[];

static const char PLACE[] = "@nonce@";

char *web_page_text(const char *nonce)
{
	char *text = NULL;
	size_t text_bytes;
	FILE *file = open_memstream(&text, &text_bytes);
	const char *at = web_page_begin, *place;

	if (!file)
		return NULL;
	for (; (place = strstr(at, PLACE)); at = place + sizeof PLACE - 1)
		fprintf(file, "%.*s%s", (int)(place - at), at, nonce);
	fputs(at, file);
	if (fclose(file) == 0)
		return text;
	free(text);
	return NULL;
}
