/*
 * getpwnam_r and its kin. See accounts.h.
 */
#include "daemon/edge/accounts.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/types.h>

enum { ENTRY_BYTES_MAX = 64 * 1024 }; /* of a group with many members */

int accounts_user(const char *name, uint32_t *ret_uid)
{
	char text[ENTRY_BYTES_MAX];
	struct passwd entry, *found;
	int error = getpwnam_r(name, &entry, text, sizeof text, &found);

	if (found)
		*ret_uid = entry.pw_uid;
	return found ? 0 : error ? -EIO : -ENOENT;
}

int accounts_group(const char *name, uint32_t *ret_gid)
{
	char text[ENTRY_BYTES_MAX];
	struct group entry, *found;
	int error = getgrnam_r(name, &entry, text, sizeof text, &found);

	if (found)
		*ret_gid = entry.gr_gid;
	return found ? 0 : error ? -EIO : -ENOENT;
}

static void account_fill(struct account *account, uint32_t uid)
{
	char text[ENTRY_BYTES_MAX];
	struct passwd entry, *found;
	int count = ACCOUNTS_GROUPS_MAX;

	*account = (struct account){ .uid = uid, .used = true };
	if (getpwuid_r(uid, &entry, text, sizeof text, &found) != 0 || !found)
		return;
	/* Where there are more, as many as there is room for. */
	if (getgrouplist(entry.pw_name, entry.pw_gid, account->groups, &count) < 0)
		count = ACCOUNTS_GROUPS_MAX;
	account->group_count = (uint32_t)count;
}

size_t accounts_groups(struct accounts *accounts, uint32_t uid, const uint32_t **ret_groups)
{
	const uint32_t count = sizeof accounts->accounts / sizeof accounts->accounts[0];
	struct account *account = NULL;

	for (uint32_t i = 0; !account && i < count; i++)
		if (accounts->accounts[i].used && accounts->accounts[i].uid == uid)
			account = &accounts->accounts[i];
	if (!account) {
		account = &accounts->accounts[accounts->next++ % count];
		account_fill(account, uid);
	}
	*ret_groups = account->groups;
	return account->group_count;
}
