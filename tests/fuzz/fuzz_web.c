/*
 * HTTP: any path is judged without harm, and names what it says; any condition and range stay inside the bytes; any
 * list of addresses is read or refused. The parts of the input are divided by newlines.
 */
#include "daemon/core/address.h"
#include "daemon/core/web_path.h"
#include "daemon/core/web_range.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int is_true)
{
	if (!is_true)
		abort();
}

static void path_require(const char *text)
{
	struct web_path path;
	struct reason reason = { "" };
	int error = web_path_parse(text, &path, &reason);

	require(error == 0 || error == -ENOENT || error == STATUS_ENAME);
	require(error == 0 || reason.text[0]);
	if (error)
		return;
	require(path.model_bytes <= MODEL_NAME_BYTES_MAX && path.profile_bytes <= PROFILE_NAME_BYTES_MAX);
	require(path.model[path.model_bytes] == '\0' && path.profile[path.profile_bytes] == '\0');
	require((path.resource == WEB_IMAGE) == (path.profile_bytes > 0));
	require(path.resource >= WEB_MODEL || path.model_bytes == 0);
}

static void range_require(char *const *parts, const char *tag)
{
	const struct web_conditions conditions = {
		.range = parts[0],
		.if_range = parts[1],
		.if_match = parts[2],
		.if_none_match = parts[3],
	};
	static const uint64_t sizes[] = { 0, 1, 1000, UINT64_MAX };
	uint64_t offset, count;

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		enum web_outcome outcome = web_range_choose(&conditions, tag, sizes[i], &offset, &count);

		require(offset <= sizes[i] && count <= sizes[i] - offset);
		require(outcome != WEB_PART || count > 0);
		require(outcome == WEB_PART || (offset == 0 && count == sizes[i]));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *rest = text, *parts[6] = { NULL };
	struct reason reason = { "" };

	require(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	for (int i = 0; i < 6 && rest; i++)
		parts[i] = strsep(&rest, "\n");
	path_require(parts[0]);
	if (parts[1])
		require(address_list_check(parts[1], &reason) == 0 || reason.text[0]);
	range_require(&parts[2], "\"1-2-ema\"");
	free(text);
	return 0;
}
