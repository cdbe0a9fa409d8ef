/*
 * The file with the token that HTTP requests must bear.
 */
#pragma once

#include "daemon/core/web.h"
#include "proto/status.h"

enum { TOKEN_BYTES_MIN = 16 };

/*
 * Its first line: TOKEN_BYTES_MIN to WEB_TOKEN_BYTES_MAX printable characters without blanks. "" where path is "". A
 * file that everybody may read is refused. STATUS_EARGUMENT or -errno with a sentence; ret_token stays as it was.
 */
int token_read(const char *path, char ret_token[WEB_TOKEN_BYTES_MAX + 1], struct reason *reason);
