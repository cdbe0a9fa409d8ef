/*
 * Slots, versions and leases. See versions.h.
 */
#include "daemon/core/versions.h"

#include "daemon/core/failpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void leased_note(const struct versions *versions)
{
	uint64_t leased = 0;

	for (uint32_t i = 0; i < versions->lease_count; i++)
		if (versions->leases[i].peer != VERSIONS_KEEPER)
			leased |= UINT64_C(1) << versions->leases[i].slot;
	if (versions->leased)
		*versions->leased = leased;
}

void versions_init(struct versions *versions, struct slot_header *const *slots, uint32_t slot_count, uint64_t *leased)
{
	memset(versions, 0, sizeof *versions);
	versions->slot_count = slot_count;
	versions->leased = leased;
	for (uint32_t i = 0; i < slot_count; i++)
		versions->slots[i] = slots[i];
	versions->current = -1;
	versions->writing = -1;
}

void versions_inherit(struct versions *versions, struct slot_header *heirloom)
{
	versions->slots[versions->slot_count] = heirloom;
	versions->current = (int32_t)versions->slot_count;
}

/* Returns how many there were. */
static uint32_t leases_end(struct versions *versions, uint32_t slot)
{
	uint32_t kept = 0, ended;

	for (uint32_t i = 0; i < versions->lease_count; i++)
		if (versions->leases[i].slot != slot)
			versions->leases[kept++] = versions->leases[i];
	ended = versions->lease_count - kept;
	versions->lease_count = kept;
	leased_note(versions);
	return ended;
}

void versions_disinherit(struct versions *versions)
{
	versions->slots[versions->slot_count] = NULL;
	(void)leases_end(versions, versions->slot_count);
}

void versions_finish(struct versions *versions)
{
	free(versions->leases);
	memset(versions, 0, sizeof *versions);
}

const struct slot_header *versions_newest(const struct versions *versions)
{
	return versions->slot_count == 0 || versions->current < 0 ? NULL : versions->slots[versions->current];
}

uint32_t versions_lease_count(const struct versions *versions, uint32_t slot)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < versions->lease_count; i++)
		count += versions->leases[i].slot == slot;
	return count;
}

/* When the last lease on the slot has had its guaranteed time; 0 when nobody leases it. */
static uint64_t slot_due_ms(const struct versions *versions, uint32_t slot, uint64_t lease_min_ms)
{
	uint64_t due_ms = 0;

	for (uint32_t i = 0; i < versions->lease_count; i++) {
		const struct lease *lease = &versions->leases[i];
		uint64_t end_ms;

		if (__builtin_add_overflow(lease->since_ms, lease_min_ms, &end_ms))
			end_ms = UINT64_MAX;
		if (lease->slot == slot && end_ms > due_ms)
			due_ms = end_ms;
	}
	return due_ms;
}

/* The slot that is free first: unleased before leased, older before newer. */
static uint32_t slot_first_due(const struct versions *versions, uint64_t lease_min_ms, uint64_t *ret_due_ms)
{
	uint32_t best = UINT32_MAX;
	uint64_t best_due_ms = UINT64_MAX;

	for (uint32_t i = 0; i < versions->slot_count; i++) {
		uint64_t due_ms = slot_due_ms(versions, i, lease_min_ms);

		if ((int32_t)i == versions->current)
			continue;
		if (best == UINT32_MAX || due_ms < best_due_ms ||
		    (due_ms == best_due_ms && versions->slots[i]->version < versions->slots[best]->version)) {
			best = i;
			best_due_ms = due_ms;
		}
	}
	*ret_due_ms = best_due_ms;
	return best;
}

static void slot_open(struct versions *versions, uint32_t slot)
{
	struct slot_header *header = versions->slots[slot];

	/* Pairs with the reader's acquire fence: a reader that sees a new byte of the slot sees the new fence too. */
	atomic_store_explicit(&header->fence, header->fence + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	versions->writing = (int32_t)slot;
}

int versions_begin(struct versions *versions, uint64_t lease_min_ms, uint32_t *ret_slot, uint64_t *ret_due_ms)
{
	uint64_t due_ms;
	uint32_t slot = slot_first_due(versions, lease_min_ms, &due_ms);

	if (due_ms > 0) {
		*ret_due_ms = due_ms;
		return STATUS_EBUSY;
	}
	atomic_store_explicit(&versions->slots[slot]->version, 0, memory_order_relaxed);
	slot_open(versions, slot);
	*ret_slot = slot;
	return 0;
}

int32_t versions_kept(const struct versions *versions, uint64_t step)
{
	int32_t best = -1;

	for (uint32_t i = 0; i < versions->slot_count; i++) {
		const struct slot_header *header = versions->slots[i];

		if (header->version == 0 || header->step > step || header->checksum != slot_header_checksum(header))
			continue;
		if (best < 0 || header->version > versions->slots[best]->version)
			best = (int32_t)i;
	}
	return best;
}

uint32_t versions_reopen(struct versions *versions, uint32_t slot)
{
	uint32_t ended = leases_end(versions, slot);

	/* Whoever dies before it has its new number leaves it as the version that it was. */
	slot_open(versions, slot);
	return ended;
}

uint32_t versions_reclaim(struct versions *versions, uint64_t lease_min_ms, uint64_t now_ms)
{
	uint64_t due_ms;
	uint32_t slot = slot_first_due(versions, lease_min_ms, &due_ms);

	return due_ms > now_ms ? 0 : leases_end(versions, slot);
}

void versions_publish(struct versions *versions, uint64_t version)
{
	struct slot_header *header = versions->slots[versions->writing];

	/* The checksum covers the version, so a death between the two stores leaves facts that do not check. */
	atomic_store_explicit(&header->version, version, memory_order_release);
	FAILPOINT("version-numbered");
	header->checksum = slot_header_checksum(header);
	FAILPOINT("version-whole");
	atomic_thread_fence(memory_order_release);
	versions->current = versions->writing;
	versions->writing = -1;
}

void versions_abandon(struct versions *versions)
{
	versions->writing = -1;
}

/* The peer's lease on the current version, or NULL. */
static struct lease *lease_find(const struct versions *versions, uint64_t peer)
{
	for (uint32_t i = 0; i < versions->lease_count; i++)
		if (versions->leases[i].peer == peer && versions->leases[i].slot == (uint32_t)versions->current)
			return &versions->leases[i];
	return NULL;
}

static int lease_add(struct versions *versions, uint32_t slot, uint64_t peer, uint64_t since_ms)
{
	if (versions->lease_count == versions->lease_capacity) {
		uint32_t capacity = versions->lease_capacity ? versions->lease_capacity * 2 : 16;
		struct lease *leases = reallocarray(versions->leases, capacity, sizeof *leases);

		if (!leases)
			return -ENOMEM;
		versions->leases = leases;
		versions->lease_capacity = capacity;
	}
	versions->leases[versions->lease_count++] = (struct lease){
		.peer = peer,
		.since_ms = since_ms,
		.slot = slot,
	};
	leased_note(versions);
	return 0;
}

int versions_lease(struct versions *versions, uint64_t peer, uint64_t now_ms, uint32_t *ret_slot)
{
	struct lease *held;
	int error;

	if (!versions_newest(versions))
		return STATUS_ENOVERSION;
	held = lease_find(versions, peer);
	if (held) {
		held->since_ms = now_ms;
		*ret_slot = held->slot;
		return 0;
	}
	error = lease_add(versions, (uint32_t)versions->current, peer, now_ms);
	if (error)
		return error;
	*ret_slot = (uint32_t)versions->current;
	return 0;
}

uint32_t versions_release(struct versions *versions, uint64_t peer)
{
	uint32_t kept = 0, ended;

	for (uint32_t i = 0; i < versions->lease_count; i++)
		if (versions->leases[i].peer != peer)
			versions->leases[kept++] = versions->leases[i];
	ended = versions->lease_count - kept;
	versions->lease_count = kept;
	leased_note(versions);
	return ended;
}

int versions_resume(struct versions *versions, uint64_t leased, uint64_t peer, uint64_t now_ms)
{
	/* The heirloom's slot, where there is one, is the current one so far. */
	const struct slot_header *newest = versions_newest(versions);
	uint64_t *noted = versions->leased;
	int error = 0;

	for (uint32_t i = 0; i < versions->slot_count; i++) {
		struct slot_header *slot = versions->slots[i];

		if (slot->checksum != slot_header_checksum(slot))
			atomic_store_explicit(&slot->version, 0, memory_order_relaxed);
		if (slot->version == 0 || (newest && slot->version <= newest->version))
			continue;
		newest = slot;
		versions->current = (int32_t)i;
	}
	/* Whoever dies in between, or has no memory, leaves the note as it is. */
	versions->leased = NULL;
	for (uint32_t i = 0; i <= versions->slot_count && !error; i++) {
		bool holds = versions->slots[i] && versions->slots[i]->version != 0;

		if (holds && leased & UINT64_C(1) << i)
			error = lease_add(versions, i, peer, now_ms);
	}
	versions->leased = noted;
	if (!error)
		leased_note(versions);
	return error;
}

int versions_pin(struct versions *versions, uint32_t slot)
{
	if (versions->slots[slot]->version == 0)
		return STATUS_ENOVERSION;
	/* Leased at the end of time: its guaranteed time is never over. */
	return lease_add(versions, slot, VERSIONS_KEEPER, UINT64_MAX);
}

void versions_unpin(struct versions *versions, uint32_t slot)
{
	for (uint32_t i = 0; i < versions->lease_count; i++) {
		if (versions->leases[i].peer != VERSIONS_KEEPER || versions->leases[i].slot != slot)
			continue;
		versions->leases[i] = versions->leases[--versions->lease_count];
		return;
	}
}

bool versions_pinned(const struct versions *versions, uint32_t slot)
{
	for (uint32_t i = 0; i < versions->lease_count; i++)
		if (versions->leases[i].peer == VERSIONS_KEEPER && versions->leases[i].slot == slot)
			return true;
	return false;
}
