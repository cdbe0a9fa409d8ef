/*
 * Lists of users and groups. See access.h.
 */
#include "daemon/core/access.h"

static const char *const NAMES[ACCESS_COUNT] = {
	[ACCESS_OPEN] = "open",
	[ACCESS_READ] = "read",
	[ACCESS_PUSH] = "push",
	[ACCESS_ADMIN] = "admin",
};

const char *access_name(enum access access)
{
	return NAMES[access];
}

static bool list_holds(const struct access_list *list, int64_t id)
{
	for (uint32_t i = 0; i < list->count; i++)
		if ((int64_t)list->ids[i] == id)
			return true;
	return false;
}

static bool is_listed(const struct access_rules *rules, int class, const struct access_peer *peer)
{
	if (list_holds(&rules->users[class], peer->uid) || list_holds(&rules->groups[class], peer->gid))
		return true;
	for (size_t i = 0; i < peer->group_count; i++)
		if (list_holds(&rules->groups[class], peer->groups[i]))
			return true;
	return false;
}

uint32_t access_refused(const struct access_rules *rules, uint32_t own_uid, const struct access_peer *peer)
{
	uint32_t refused = 0;
	bool listed = false;

	if (peer->uid == 0 || peer->uid == (int64_t)own_uid)
		return 0;
	for (int class = ACCESS_ADMIN; class > ACCESS_OPEN; class--) {
		bool is_left_open = class != ACCESS_ADMIN && rules->users[class].count == 0 && rules->groups[class].count == 0;

		listed = listed || is_listed(rules, class, peer);
		if (!listed && !is_left_open)
			refused |= UINT32_C(1) << class;
	}
	return refused;
}

bool access_wants_groups(const struct access_rules *rules)
{
	for (int class = ACCESS_OPEN; class < ACCESS_COUNT; class++)
		if (rules->groups[class].count > 0)
			return true;
	return false;
}
