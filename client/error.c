/*
 * What went wrong, for people: codes, their names, and the thread's latest sentence.
 *
 * The public header repeats the protocol's numbers so that it stands alone; here the compiler proves that the two
 * lists are one.
 */
#include "client/error.h"

#include "client/emad.h"
#include "proto/dtype.h"
#include "proto/message.h"

#include <stdio.h>
#include <stdlib.h>

#define X(name, number, wire, text) _Static_assert((int)EMAD_##name == (int)STATUS_##name, "emad.h and status.h: " #name);
STATUS_CODES(X)
#undef X

#define X(name, bytes, is_float) _Static_assert((int)EMAD_##name == (int)DTYPE_##name, "emad.h and dtype.h: " #name);
DTYPES(X)
#undef X

#define X(name, wire) _Static_assert((int)EMAD_##name == (int)OUTCOME_##name, "emad.h and message.h: " #name);
OUTCOMES(X)
#undef X

static _Thread_local struct reason error_latest;

int error_report(int code, const struct reason *reason)
{
	if (code >= 0)
		return code;
	if (reason->text[0])
		error_latest = *reason;
	else
		snprintf(error_latest.text, sizeof(error_latest.text), "%s", status_text(code));
	return code;
}

const char *emad_error(void)
{
	return error_latest.text;
}

const char *emad_code_name(int code)
{
	return status_name(code);
}

void emad_free(void *memory)
{
	free(memory);
}
