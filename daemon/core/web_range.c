/*
 * Conditions in the order of RFC 9110, section 13.2.2, then the range. See web_range.h.
 */
#include "daemon/core/web_range.h"

#include <ctype.h>
#include <string.h>

bool web_range_tag_listed(const char *list, const char *tag, bool weak)
{
	size_t tag_bytes = strlen(tag);

	for (;;) {
		bool is_weak;
		const char *end;

		list += strspn(list, " \t,");
		if (!*list)
			return false;
		if (*list == '*')
			return true;
		is_weak = strncmp(list, "W/", 2) == 0;
		list += is_weak ? 2 : 0;
		end = *list == '"' ? strchr(list + 1, '"') : NULL;
		if (!end)
			return false;
		end++;
		if ((weak || !is_weak) && (size_t)(end - list) == tag_bytes && memcmp(list, tag, tag_bytes) == 0)
			return true;
		list = end;
	}
}

/* A number of at least one digit; one that is too large is the largest. */
static bool number_read(const char **at, uint64_t *ret_number)
{
	uint64_t number = 0;

	if (!isdigit((unsigned char)**at))
		return false;
	for (; isdigit((unsigned char)**at); (*at)++)
		if (__builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, (uint64_t)(**at - '0'), &number))
			number = UINT64_MAX;
	*ret_number = number;
	return true;
}

/* "bytes=0-99", "bytes=100-", "bytes=-100". */
static enum web_outcome range_choose(const char *text, uint64_t byte_count, uint64_t *ret_offset, uint64_t *ret_count)
{
	uint64_t first = 0, last = UINT64_MAX;
	bool has_first, has_last;

	for (const char *unit = "bytes="; *unit; unit++, text++)
		if (tolower((unsigned char)*text) != *unit)
			return WEB_WHOLE;
	text += strspn(text, " \t");
	has_first = number_read(&text, &first);
	if (*text++ != '-')
		return WEB_WHOLE;
	has_last = number_read(&text, &last);
	text += strspn(text, " \t");
	if (*text || (!has_first && !has_last) || (has_first && has_last && last < first))
		return WEB_WHOLE;
	if (!has_first) {
		first = last < byte_count ? byte_count - last : 0;
		last = last > 0 ? UINT64_MAX : 0;
		if (last == 0)
			return WEB_UNSATISFIABLE;
	}
	if (first >= byte_count)
		return WEB_UNSATISFIABLE;
	*ret_offset = first;
	*ret_count = (last < byte_count ? last + 1 : byte_count) - first;
	return WEB_PART;
}

enum web_outcome web_range_choose(const struct web_conditions *conditions, const char *tag, uint64_t byte_count,
                                  uint64_t *ret_offset, uint64_t *ret_count)
{
	*ret_offset = 0;
	*ret_count = byte_count;
	if (conditions->if_match && !web_range_tag_listed(conditions->if_match, tag, false))
		return WEB_MISMATCH;
	if (conditions->if_none_match && web_range_tag_listed(conditions->if_none_match, tag, true))
		return WEB_UNCHANGED;
	/* A date never matches: nothing says that two versions are not of one second. */
	if (!conditions->range || (conditions->if_range && strcmp(conditions->if_range, tag) != 0))
		return WEB_WHOLE;
	return range_choose(conditions->range, byte_count, ret_offset, ret_count);
}
