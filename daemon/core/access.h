/*
 * Access: which classes of requests a peer is let into.
 *
 * Requests are classed as open, read, push and admin (proto/message.h). For each of the last three there is a list of
 * users and one of groups. Whoever is on a list of a class is let into it and into those below it: who may push may also
 * read. Lists that are both empty leave the class to whoever can connect, but for admin, which nobody gets unasked. The
 * daemon's own user and root are let in everywhere: they could do without asking.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/message.h"

enum {
	ACCESS_IDS_MAX = 64,         /* of one list */
	ACCESS_TEXT_BYTES_MAX = 1024, /* as it was written */
};

struct access_list {
	uint32_t count;
	uint32_t ids[ACCESS_IDS_MAX];
	char text[ACCESS_TEXT_BYTES_MAX + 1]; /* names or numbers, divided by one blank each */
};

/* By class; those of ACCESS_OPEN are not used. */
struct access_rules {
	struct access_list users[ACCESS_COUNT];
	struct access_list groups[ACCESS_COUNT];
};

/* Who asks to be let in. */
struct access_peer {
	int64_t uid; /* -1: not known */
	int64_t gid; /* -1: not known */
	const uint32_t *groups; /* further groups */
	size_t group_count;
};

/* The classes that a peer is not let into, as bits: 1 << ACCESS_PUSH. */
uint32_t access_refused(const struct access_rules *rules, uint32_t own_uid, const struct access_peer *peer);

/* Whether any list of groups is in use, so that a peer's groups must be known. */
bool access_wants_groups(const struct access_rules *rules);

/* "read", "push", "admin". */
const char *access_name(enum access access);
