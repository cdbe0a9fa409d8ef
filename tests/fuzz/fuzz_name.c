/*
 * Names: any bytes are judged without harm, with a printable sentence; an accepted model name is a safe relative path;
 * a canonical name is canonical.
 */
#include "proto/name.h"

#include "proto/limits.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int is_true)
{
	if (!is_true)
		abort();
}

static void reason_require(int code, const struct reason *reason)
{
	require(code == 0 || code == STATUS_ENAME);
	require(code == 0 || reason->text[0] != '\0');
	require(utf8_check(reason->text, strlen(reason->text)));
	for (const char *c = reason->text; *c; c++)
		require((unsigned char)*c >= ' ' && *c != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *name = (const char *)data;
	struct reason reason = {""};
	char *once = malloc(size + 1), *twice = malloc(size + 1);
	size_t once_bytes, twice_bytes;
	int r = model_name_check(name, size, &reason);

	require(once && twice);
	reason_require(r, &reason);
	if (r == 0) {
		require(size <= MODEL_NAME_BYTES_MAX && data[0] != '/' && !memchr(data, 0, size));
		require(!memmem(data, size, "//", 2) && !(size == 2 && memcmp(data, "..", 2) == 0));
		require(!memmem(data, size, "/../", 4) && !(size > 2 && memcmp(data, "../", 3) == 0));
	}
	reason_require(profile_name_check(name, size, &reason), &reason);
	r = tensor_name_check(name, size, &reason);
	reason_require(r, &reason);
	require(r != 0 || utf8_check(name, size));
	once_bytes = tensor_name_canonical(name, size, once, size + 1);
	require(once_bytes <= size && once[once_bytes] == '\0' && (size == 0) == (once_bytes == 0));
	twice_bytes = tensor_name_canonical(once, once_bytes, twice, size + 1);
	require(twice_bytes == once_bytes && memcmp(once, twice, once_bytes) == 0);
	if (r == 0)
		require(tensor_name_check(once, once_bytes, NULL) == 0 || strcmp(once, "__metadata__") == 0);
	free(once);
	free(twice);
	return 0;
}
