/*
 * Output: errors with their exit codes, remarks, and what becomes of a standard output that cannot be written.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/table.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

enum { SENTENCE_BYTES_MAX = 2048 };

/* errno values come from sockets and files that the user named. */
static int errno_exit_status(int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case EISDIR:
		return EX_NOINPUT;
	case EACCES:
	case EPERM:
		return EX_NOPERM;
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return EX_OSERR;
	case EAGAIN:
	case EBUSY:
	case EINTR:
	case ECANCELED:
	case ETIMEDOUT:
		return EX_TEMPFAIL;
	default:
		return EX_IOERR;
	}
}

int output_exit_status(int code)
{
	switch (code) {
	case 0:
		return EX_OK;
	case EMAD_EARGUMENT:
	case EMAD_ENAME:
		return EX_USAGE;
	case EMAD_ELIMIT:
	case EMAD_EMANIFEST:
	case EMAD_ESCHEDULE:
	case EMAD_EPROFILE:
	case EMAD_EEXISTS:
	case EMAD_EREFUSED:
	case EMAD_ECORRUPT:
		return EX_DATAERR;
	case EMAD_ENOMODEL:
	case EMAD_ENOPROFILE:
	case EMAD_ENOVERSION:
		return EX_NOINPUT;
	case EMAD_EAWAY:
	case EMAD_ESHUTDOWN:
		return EX_UNAVAILABLE;
	case EMAD_EFORKED:
	case EMAD_EINTERNAL:
		return EX_SOFTWARE;
	case EMAD_EMEMORY:
		return EX_OSERR;
	case EMAD_ETIMEOUT:
	case EMAD_EBUSY:
	case EMAD_EREVOKED:
	case EMAD_EFENCED:
		return EX_TEMPFAIL;
	case EMAD_EPROTOCOL:
	case EMAD_EVERSION:
		return EX_PROTOCOL;
	default:
		return code < 0 && code > EMAD_EPROTOCOL ? errno_exit_status(-code) : EX_SOFTWARE;
	}
}

/* JSON by hand would have to know escapes and bad UTF-8; jansson does. What it refuses is shown with '?' instead. */
static void json_string_write(FILE *stream, const char *text)
{
	json_t *string = json_string(text);

	if (string && json_dumpf(string, stream, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) == 0) {
		json_decref(string);
		return;
	}
	json_decref(string);
	fputc('"', stream);
	for (; *text; text++)
		fputc(*text >= 0x20 && *text < 0x7f && *text != '"' && *text != '\\' ? *text : '?', stream);
	fputc('"', stream);
}

void output_json_string(const char *text)
{
	json_string_write(stdout, text);
}

int output_error(const struct emactl *emactl, int code, const char *format, ...)
{
	char sentence[SENTENCE_BYTES_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(sentence, sizeof(sentence), format, arguments);
	va_end(arguments);
	if (emactl->is_json) {
		fprintf(stderr, "{\"error\":{\"code\":%d,\"name\":\"%s\",\"message\":", code, emad_code_name(code));
		json_string_write(stderr, sentence);
		fputs("}}\n", stderr);
	} else {
		fputs("emactl: ", stderr);
		table_write_safe(stderr, sentence);
		fputc('\n', stderr);
	}
	return output_exit_status(code);
}

int output_library_error(const struct emactl *emactl, int code)
{
	const char *sentence = emad_error();

	return output_error(emactl, code, "%s", *sentence ? sentence : emad_code_name(code));
}

void output_note(const struct emactl *emactl, const char *format, ...)
{
	char sentence[SENTENCE_BYTES_MAX];
	va_list arguments;

	if (emactl->is_quiet || emactl->is_json)
		return;
	va_start(arguments, format);
	vsnprintf(sentence, sizeof(sentence), format, arguments);
	va_end(arguments);
	table_write_safe(stderr, sentence);
	fputc('\n', stderr);
}

bool output_is_broken(void)
{
	return ferror(stdout) != 0;
}

/* Whether the other end of a pipe or socket is gone. */
static bool reader_is_gone(void)
{
	struct pollfd descriptor = {.fd = STDOUT_FILENO, .events = POLLOUT};

	return poll(&descriptor, 1, 0) == 1 && (descriptor.revents & (POLLERR | POLLHUP));
}

int output_finish(const struct emactl *emactl, int exit_status)
{
	int error = 0;

	errno = 0;
	if (fflush(stdout) != 0)
		error = errno;
	if ((!error && !ferror(stdout)) || error == EPIPE || reader_is_gone())
		return exit_status;
	if (!error)
		error = EIO;
	output_error(emactl, -error, "cannot write to standard output: %s", strerrordesc_np(error));
	return exit_status ? exit_status : EX_IOERR;
}
