/*
 * Ranges and conditions of HTTP requests (RFC 9110, sections 13 and 14), for bytes that have a strong entity tag and no
 * other date than now.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* What a request says of it; NULL: nothing. */
struct web_conditions {
	const char *if_match, *if_none_match, *if_range, *range;
};

enum web_outcome {
	WEB_WHOLE,         /* 200 */
	WEB_PART,          /* 206 */
	WEB_UNCHANGED,     /* 304 */
	WEB_MISMATCH,      /* 412 */
	WEB_UNSATISFIABLE, /* 416 */
};

/*
 * What to answer about so many bytes with that tag (with its quotes), and which of them; a range that is not
 * understood, or several at once, are as if there were none.
 */
enum web_outcome web_range_choose(const struct web_conditions *conditions, const char *tag, uint64_t byte_count,
                                  uint64_t *ret_offset, uint64_t *ret_count);

/* Whether a list of tags, as of If-Match, names that one. weak: W/"..." is as good as "...". "*" names all. */
bool web_range_tag_listed(const char *list, const char *tag, bool weak);
