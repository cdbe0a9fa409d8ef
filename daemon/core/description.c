/*
 * Writing and reading descriptions. See description.h.
 */
#include "daemon/core/description.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The bytes of the text with its NUL. -EOVERFLOW where a specification is too long, which none is that was parsed. */
static int text_write(const struct profile *profiles, uint32_t profile_count, char *text, size_t *ret_bytes)
{
	size_t used = 0;

	for (uint32_t p = 0; p < profile_count; p++) {
		int error = profile_format(&profiles[p], text + used, PROFILE_BYTES_MAX + 1);

		if (error)
			return error;
		used += strlen(text + used);
		text[used++] = p + 1 < profile_count ? '\n' : '\0';
	}
	*ret_bytes = used;
	return 0;
}

int description_encode(const struct manifest *manifest, const struct profile *profiles, uint32_t profile_count,
                       uint8_t **ret_bytes, size_t *ret_count, struct reason *reason)
{
	char *text = malloc((size_t)profile_count * (PROFILE_BYTES_MAX + 1));
	uint8_t *tensors = NULL, *bytes = NULL;
	size_t text_bytes = 0, tensor_bytes = 0;
	int error = text ? text_write(profiles, profile_count, text, &text_bytes) : -ENOMEM;

	if (!error)
		error = manifest_encode(manifest, &tensors, &tensor_bytes, reason);
	if (!error) {
		bytes = malloc(text_bytes + tensor_bytes);
		error = bytes ? 0 : -ENOMEM;
	}
	if (!error) {
		memcpy(bytes, text, text_bytes);
		memcpy(bytes + text_bytes, tensors, tensor_bytes);
		*ret_bytes = bytes;
		*ret_count = text_bytes + tensor_bytes;
	}
	free(tensors);
	free(text);
	return error;
}

static int corrupt(int error, struct reason *reason)
{
	return error == -ENOMEM ? error
	                        : reason_set(reason, STATUS_ECORRUPT, "its description of profiles and tensors is damaged");
}

static int profiles_decode(const char *text, struct profile *ret_profiles, uint32_t *ret_count, struct reason *reason)
{
	uint32_t count = 0;

	for (const char *at = text;; at++) {
		size_t bytes = strcspn(at, "\n");
		int error = count < PROFILE_COUNT_MAX ? profile_parse(at, bytes, &ret_profiles[count++], NULL)
		                                      : STATUS_ECORRUPT;

		if (error)
			return corrupt(error, reason);
		at += bytes;
		if (!*at)
			break;
	}
	*ret_count = count;
	return 0;
}

int description_decode(const uint8_t *bytes, size_t count, struct manifest **ret_manifest, struct profile *ret_profiles,
                       uint32_t *ret_profile_count, struct reason *reason)
{
	size_t text_bytes = strnlen((const char *)bytes, count) + 1;
	int error = text_bytes < count ? profiles_decode((const char *)bytes, ret_profiles, ret_profile_count, reason)
	                               : corrupt(STATUS_ECORRUPT, reason);

	if (error)
		return error;
	error = manifest_decode(bytes + text_bytes, count - text_bytes, ret_manifest, NULL);
	return error ? corrupt(error, reason) : 0;
}
