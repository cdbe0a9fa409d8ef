/*
 * Versions and leases: which slot holds what, and who reads it.
 *
 * A slot is `current` (the newest published version), `writing` (an update is filling it), kept (a lease pins it) or
 * free. The last two are not stored but follow from the leases. A lease belongs to a connection and ends with it. When
 * an update needs a slot and every slot but the current one is leased, the slot whose guaranteed time (lease_min_ms)
 * ends first is taken back: its fence word is bumped before the first byte is overwritten, and the reader, which looks
 * at the fence after its last read, knows that it must throw away what it has.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/layout.h"
#include "proto/limits.h"
#include "proto/status.h"

/* The peer whose leases are the daemon's own: pins, which no update takes back. No connection has this number. */
#define VERSIONS_KEEPER UINT64_MAX

struct lease {
	uint64_t peer;
	uint64_t since_ms;
	uint32_t slot;
};

struct versions {
	uint32_t slot_count;
	/* Borrowed from the model's memory. Behind the slots the heirloom: a version that is read and never written. */
	struct slot_header *slots[SLOT_COUNT_MAX + 1];
	int32_t current; /* slot of the newest version, -1 for none */
	int32_t writing; /* slot that an update fills, -1 for none */
	uint32_t lease_count;
	uint32_t lease_capacity;
	struct lease *leases; /* owned */
	uint64_t *leased;     /* borrowed from the head: the slots that readers hold, kept up to date; NULL: nobody looks */
};

/* What stands in *leased stays there until the first lease. */
void versions_init(struct versions *versions, struct slot_header *const *slots, uint32_t slot_count,
                   uint64_t *leased);
void versions_finish(struct versions *versions);

/*
 * The current version for now: the newest of a model's earlier slots, until the first version is published in these.
 * Its slot number is slot_count. Only directly after versions_init.
 */
void versions_inherit(struct versions *versions, struct slot_header *heirloom);

/* The heirloom is no longer current: its leases end (whoever has it mapped may read on, nobody will write there). */
void versions_disinherit(struct versions *versions);

/* The newest version's facts, or NULL. */
const struct slot_header *versions_newest(const struct versions *versions);

/* Leases on a slot. */
uint32_t versions_lease_count(const struct versions *versions, uint32_t slot);

/*
 * Chooses a slot for an update, bumps its fence and marks it as being written. STATUS_EBUSY when every slot but the
 * current one is leased: *ret_due_ms is then when the first of them may be taken back with versions_reclaim.
 */
int versions_begin(struct versions *versions, uint64_t lease_min_ms, uint32_t *ret_slot, uint64_t *ret_due_ms);

/* Ends the leases on the slot whose guaranteed time was over first, if it is over. Returns how many leases ended. */
uint32_t versions_reclaim(struct versions *versions, uint64_t lease_min_ms, uint64_t now_ms);

/*
 * The slot being written is whole: seals its facts (version last, with release) and makes it the current one.
 * Its step, updates, published_us and profiles must be set.
 */
void versions_publish(struct versions *versions, uint64_t version);

/* The slot of the newest kept version of that step or an earlier one, or -1. */
int32_t versions_kept(const struct versions *versions, uint64_t step);

/*
 * Goes back to a kept version: its leases end, its fence is bumped, and it is the slot being written, whole but for its
 * new number. Returns how many leases ended.
 */
uint32_t versions_reopen(struct versions *versions, uint32_t slot);

/* The slot being written is thrown away. */
void versions_abandon(struct versions *versions);

/*
 * Pins the current version for a peer; where it has done so already, its guaranteed time begins anew.
 * STATUS_ENOVERSION,
 * -ENOMEM.
 */
int versions_lease(struct versions *versions, uint64_t peer, uint64_t now_ms, uint32_t *ret_slot);

/*
 * Finds the current version in slots that an earlier daemon has left, and forgets what it had not finished there.
 * leased: the slots that its readers held, which that peer holds now in their place. -ENOMEM.
 */
int versions_resume(struct versions *versions, uint64_t leased, uint64_t peer, uint64_t now_ms);

/* Pins a slot: it stays as it is until versions_unpin. STATUS_ENOVERSION where it holds no version, -ENOMEM. */
int versions_pin(struct versions *versions, uint32_t slot);
void versions_unpin(struct versions *versions, uint32_t slot); /* as often as it was pinned */

/* Whether the slot is pinned. */
bool versions_pinned(const struct versions *versions, uint32_t slot);

/* Ends all leases of a peer; returns how many there were. */
uint32_t versions_release(struct versions *versions, uint64_t peer);
