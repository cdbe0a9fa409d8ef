/*
 * Users and groups of the host, by libc's name service.
 *
 * It may ask other hosts and then takes its time: names are looked up when the configuration is read, and the groups of a
 * user only where some list of groups is in use, and then kept.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The number of a name, -ENOENT where there is none, -EIO where it cannot be asked. */
int accounts_user(const char *name, uint32_t *ret_uid);
int accounts_group(const char *name, uint32_t *ret_gid);

enum { ACCOUNTS_GROUPS_MAX = 256 };

/* Groups of the latest users asked for. Plain memory: forgotten by zeroing it. */
struct accounts {
	uint32_t next;
	struct account {
		bool used;
		uint32_t uid;
		uint32_t group_count;
		uint32_t groups[ACCOUNTS_GROUPS_MAX];
	} accounts[16];
};

/*
 * The groups of a user as the host's files have them, its own among them; none for a user without a name. Further ones
 * than ACCOUNTS_GROUPS_MAX are left out. They are borrowed until the next call.
 */
size_t accounts_groups(struct accounts *accounts, uint32_t uid, const uint32_t **ret_groups);
