/*
 * Slots and leases: which slot an update may fill, and until when a reader keeps his.
 */
#include "daemon/core/versions.h"

#include "tests/unit/failing_heap.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LEASE_MS = 1000 };

struct set {
	struct slot_header headers[SLOT_COUNT_MAX];
	struct versions versions;
	uint64_t version_next;
	uint64_t leased;
};

static void set_init(struct set *set, uint32_t slot_count)
{
	struct slot_header *slots[SLOT_COUNT_MAX];

	memset(set, 0, sizeof *set);
	set->version_next = 1;
	for (int i = 0; i < SLOT_COUNT_MAX; i++)
		slots[i] = &set->headers[i];
	versions_init(&set->versions, slots, slot_count, &set->leased);
}

static uint32_t begin(struct set *set)
{
	uint64_t due_ms;
	uint32_t slot;

	ck_assert_int_eq(versions_begin(&set->versions, LEASE_MS, &slot, &due_ms), 0);
	ck_assert_int_eq(set->versions.writing, (int32_t)slot);
	return slot;
}

static uint32_t publish(struct set *set)
{
	uint32_t slot = begin(set);

	set->headers[slot].step = set->version_next * 10;
	versions_publish(&set->versions, set->version_next++);
	return slot;
}

static uint32_t lease(struct set *set, uint64_t peer, uint64_t now_ms)
{
	uint32_t slot;

	ck_assert_int_eq(versions_lease(&set->versions, peer, now_ms, &slot), 0);
	return slot;
}

START_TEST(there_is_nothing_at_first)
{
	struct set set;
	uint32_t slot = 99;

	set_init(&set, 3);
	ck_assert_ptr_null(versions_newest(&set.versions));
	ck_assert_int_eq(versions_lease(&set.versions, 1, 5, &slot), STATUS_ENOVERSION);
	ck_assert_uint_eq(slot, 99);
	ck_assert_uint_eq(versions_release(&set.versions, 1), 0);
	versions_finish(&set.versions);
	ck_assert_ptr_null(versions_newest(&set.versions));
}
END_TEST

START_TEST(a_published_version_checks_and_is_the_newest)
{
	struct set set;
	uint32_t slot;
	const struct slot_header *newest;

	set_init(&set, 2);
	slot = begin(&set);
	ck_assert_ptr_null(versions_newest(&set.versions));
	set.headers[slot].step = 77;
	set.headers[slot].profiles[0].decay = 0.5;
	versions_publish(&set.versions, 5);
	newest = versions_newest(&set.versions);
	ck_assert_ptr_eq(newest, &set.headers[slot]);
	ck_assert_uint_eq(newest->version, 5);
	ck_assert_uint_eq(newest->checksum, slot_header_checksum(newest));
	ck_assert_int_eq(set.versions.writing, -1);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(an_update_never_fills_the_current_slot)
{
	for (uint32_t slot_count = 2; slot_count <= SLOT_COUNT_MAX; slot_count++) {
		struct set set;
		int32_t before = -1;

		set_init(&set, slot_count);
		for (int i = 0; i < 40; i++) {
			uint32_t slot = begin(&set);

			ck_assert_uint_lt(slot, slot_count);
			ck_assert_int_ne((int32_t)slot, before);
			if (i % 5 == 4) {
				versions_abandon(&set.versions);
				ck_assert_int_eq(set.versions.current, before);
				continue;
			}
			versions_publish(&set.versions, set.version_next++);
			before = (int32_t)slot;
		}
		versions_finish(&set.versions);
	}
}
END_TEST

START_TEST(the_fence_changes_and_the_version_goes_before_a_slot_is_filled)
{
	struct set set;
	uint64_t fences[2];
	uint32_t slot;

	set_init(&set, 2);
	publish(&set);
	publish(&set);
	for (int i = 0; i < 2; i++)
		fences[i] = set.headers[i].fence;
	slot = begin(&set);
	ck_assert_uint_eq(set.headers[slot].fence, fences[slot] + 1);
	ck_assert_uint_eq(set.headers[1 - slot].fence, fences[1 - slot]);
	ck_assert_uint_eq(set.headers[slot].version, 0);
	/* Thrown away: what is in the slot is no version, and does not become one. */
	versions_abandon(&set.versions);
	ck_assert_uint_eq(set.headers[slot].version, 0);
	ck_assert_uint_eq(versions_newest(&set.versions)->version, 2);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(the_oldest_version_is_overwritten_first)
{
	struct set set;
	uint32_t first, second;

	set_init(&set, 4);
	first = publish(&set);
	second = publish(&set);
	publish(&set);
	publish(&set);
	ck_assert_uint_eq(publish(&set), first);
	ck_assert_uint_eq(publish(&set), second);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(a_leased_slot_is_left_alone)
{
	struct set set;
	uint32_t kept;

	set_init(&set, 3);
	publish(&set);
	kept = lease(&set, 1, 100);
	for (int i = 0; i < 20; i++)
		ck_assert_uint_ne(publish(&set), kept);
	ck_assert_uint_eq(set.headers[kept].version, 1);
	ck_assert_uint_eq(versions_lease_count(&set.versions, kept), 1);
	ck_assert_uint_eq(versions_release(&set.versions, 1), 1);
	ck_assert_uint_eq(publish(&set), kept);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(a_full_house_says_when_there_will_be_room)
{
	struct set set;
	uint32_t slot = 99;
	uint64_t due_ms = 0;

	set_init(&set, 2);
	publish(&set);
	lease(&set, 1, 100);
	lease(&set, 2, 400); /* the last reader of a slot counts */
	publish(&set);
	ck_assert_int_eq(versions_begin(&set.versions, LEASE_MS, &slot, &due_ms), STATUS_EBUSY);
	ck_assert_uint_eq(slot, 99);
	ck_assert_uint_eq(due_ms, 400 + LEASE_MS);
	ck_assert_int_eq(set.versions.writing, -1);
	ck_assert_uint_eq(versions_reclaim(&set.versions, LEASE_MS, 399 + LEASE_MS), 0);
	ck_assert_uint_eq(set.versions.lease_count, 2);
	ck_assert_uint_eq(versions_reclaim(&set.versions, LEASE_MS, 400 + LEASE_MS), 2);
	begin(&set);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(the_slot_whose_time_is_over_first_is_taken_back)
{
	struct set set;
	uint32_t slots[3], slot;
	uint64_t due_ms;

	set_init(&set, 4);
	for (int i = 0; i < 3; i++) {
		publish(&set);
		slots[i] = lease(&set, (uint64_t)i + 1, (uint64_t[]){ 500, 300, 900 }[i]);
	}
	publish(&set);
	lease(&set, 9, 1000);
	ck_assert_int_eq(versions_begin(&set.versions, LEASE_MS, &slot, &due_ms), STATUS_EBUSY);
	ck_assert_uint_eq(due_ms, 300 + LEASE_MS);
	ck_assert_uint_eq(versions_reclaim(&set.versions, LEASE_MS, 5000), 1);
	ck_assert_uint_eq(begin(&set), slots[1]);
	/* The others keep theirs, the current one included. */
	ck_assert_uint_eq(versions_lease_count(&set.versions, slots[0]), 1);
	ck_assert_uint_eq(versions_lease_count(&set.versions, slots[2]), 1);
	ck_assert_uint_eq(set.versions.lease_count, 3);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(leases_end_with_their_peer)
{
	struct set set;

	set_init(&set, 3);
	publish(&set);
	lease(&set, 1, 0);
	lease(&set, 2, 0);
	publish(&set);
	lease(&set, 1, 0);
	ck_assert_uint_eq(versions_release(&set.versions, 1), 2);
	ck_assert_uint_eq(versions_release(&set.versions, 1), 0);
	ck_assert_uint_eq(set.versions.lease_count, 1);
	ck_assert_uint_eq(set.versions.leases[0].peer, 2);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(a_peer_that_asks_again_holds_one_lease_and_its_time_begins_anew)
{
	struct set set;
	uint32_t slot;
	uint64_t due_ms;

	set_init(&set, 2);
	publish(&set);
	for (uint64_t i = 0; i < 1000; i++)
		lease(&set, 1, i);
	ck_assert_uint_eq(set.versions.lease_count, 1);
	publish(&set);
	ck_assert_int_eq(versions_begin(&set.versions, LEASE_MS, &slot, &due_ms), STATUS_EBUSY);
	ck_assert_uint_eq(due_ms, 999 + LEASE_MS);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(a_lease_that_lasts_for_ever_is_not_taken_back)
{
	struct set set;
	uint32_t slot;
	uint64_t due_ms;

	set_init(&set, 2);
	publish(&set);
	lease(&set, 1, 12345);
	publish(&set);
	ck_assert_int_eq(versions_begin(&set.versions, UINT64_MAX, &slot, &due_ms), STATUS_EBUSY);
	ck_assert_uint_eq(due_ms, UINT64_MAX);
	ck_assert_uint_eq(versions_reclaim(&set.versions, UINT64_MAX, UINT64_MAX - 1), 0);
	versions_finish(&set.versions);
}
END_TEST

static int lease_anew(void *context)
{
	struct set *set = context;
	uint32_t slot;
	int error = versions_lease(&set->versions, 3, 0, &slot);

	if (!error)
		versions_finish(&set->versions);
	return error;
}

/* ---- going back -------------------------------------------------------------------------------------------------- */

START_TEST(the_newest_version_of_that_step_or_before_is_kept)
{
	struct set set;
	uint32_t slots[4];

	set_init(&set, 4);
	ck_assert_int_eq(versions_kept(&set.versions, UINT64_MAX), -1);
	for (int i = 0; i < 4; i++)
		slots[i] = publish(&set); /* steps 10, 20, 30, 40 */
	ck_assert_int_eq(versions_kept(&set.versions, 9), -1);
	ck_assert_int_eq(versions_kept(&set.versions, 10), (int32_t)slots[0]);
	ck_assert_int_eq(versions_kept(&set.versions, 29), (int32_t)slots[1]);
	ck_assert_int_eq(versions_kept(&set.versions, UINT64_MAX), (int32_t)slots[3]);
	/* Of two of a step the later one, whatever lies between. */
	set.headers[slots[3]].step = 10;
	set.headers[slots[3]].checksum = slot_header_checksum(&set.headers[slots[3]]);
	ck_assert_int_eq(versions_kept(&set.versions, 25), (int32_t)slots[3]);
	/* What is damaged or being overwritten is not kept. */
	set.headers[slots[3]].step = 15;
	ck_assert_int_eq(versions_kept(&set.versions, 25), (int32_t)slots[1]);
	ck_assert_uint_eq(begin(&set), slots[0]);
	versions_abandon(&set.versions);
	ck_assert_int_eq(versions_kept(&set.versions, 12), -1);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(going_back_ends_the_leases_on_that_version_alone)
{
	struct set set;
	uint32_t first, second;
	uint64_t fence, other_fence;

	set_init(&set, 3);
	first = publish(&set);
	lease(&set, 1, 5);
	lease(&set, 2, 5);
	second = publish(&set);
	lease(&set, 3, 5);
	fence = set.headers[first].fence;
	other_fence = set.headers[second].fence;
	ck_assert_uint_eq(versions_reopen(&set.versions, first), 2);
	ck_assert_uint_eq(set.headers[first].fence, fence + 1);
	ck_assert_uint_eq(set.headers[second].fence, other_fence);
	ck_assert_uint_eq(set.headers[first].step, 10);
	ck_assert_uint_eq(versions_lease_count(&set.versions, second), 1);
	ck_assert_int_eq(set.versions.writing, (int32_t)first);
	versions_publish(&set.versions, set.version_next++);
	ck_assert_ptr_eq(versions_newest(&set.versions), &set.headers[first]);
	ck_assert_uint_eq(set.headers[first].version, 3);
	ck_assert_uint_eq(set.headers[first].checksum, slot_header_checksum(&set.headers[first]));
	versions_finish(&set.versions);
}
END_TEST

/* ---- a version of earlier slots ---------------------------------------------------------------------------------- */

START_TEST(an_heirloom_is_read_until_the_first_version_and_never_written)
{
	struct slot_header heirloom = { .version = 7, .step = 70, .fence = 3 };
	struct set set;

	set_init(&set, 2);
	versions_inherit(&set.versions, &heirloom);
	ck_assert_ptr_eq(versions_newest(&set.versions), &heirloom);
	ck_assert_uint_eq(lease(&set, 1, 5), 2);
	ck_assert_uint_eq(versions_lease_count(&set.versions, 2), 1);
	/* All slots are free for updates, also when some are thrown away; and nothing of it is kept to go back to. */
	for (int i = 0; i < 5; i++) {
		ck_assert_uint_lt(begin(&set), 2);
		versions_abandon(&set.versions);
		ck_assert_ptr_eq(versions_newest(&set.versions), &heirloom);
	}
	ck_assert_int_eq(versions_kept(&set.versions, UINT64_MAX), -1);
	ck_assert_uint_lt(publish(&set), 2);
	versions_disinherit(&set.versions);
	ck_assert_uint_eq(set.versions.lease_count, 0);
	ck_assert_uint_eq(heirloom.fence, 3);
	ck_assert_uint_eq(heirloom.version, 7);
	ck_assert_uint_eq(versions_newest(&set.versions)->step, 10);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(an_heirloom_fits_behind_as_many_slots_as_there_may_be)
{
	struct slot_header heirloom = { .version = 7 };
	struct set set;

	set_init(&set, SLOT_COUNT_MAX);
	versions_inherit(&set.versions, &heirloom);
	ck_assert_uint_eq(lease(&set, 1, 5), SLOT_COUNT_MAX);
	ck_assert_uint_eq(versions_release(&set.versions, 1), 1);
	publish(&set);
	versions_disinherit(&set.versions);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(a_lease_needs_memory)
{
	struct set set;

	set_init(&set, 2);
	publish(&set);
	failing_heap_arm(1, false);
	ck_assert_int_eq(lease_anew(&set), -ENOMEM);
	ck_assert(failing_heap_disarm());
	ck_assert_uint_eq(set.versions.lease_count, 0);
	ck_assert_int_eq(lease_anew(&set), 0);
}
END_TEST

START_TEST(a_pinned_slot_stays_until_it_is_unpinned)
{
	struct set set;
	uint64_t due_ms;
	uint32_t first, slot;

	set_init(&set, 3);
	first = publish(&set);
	ck_assert(!versions_pinned(&set.versions, first));
	ck_assert_int_eq(versions_pin(&set.versions, first), 0);
	ck_assert_int_eq(versions_pin(&set.versions, first), 0);
	ck_assert(versions_pinned(&set.versions, first) && !versions_pinned(&set.versions, (first + 1) % 3));
	for (int i = 0; i < 20; i++)
		ck_assert_uint_ne(publish(&set), first);
	versions_unpin(&set.versions, first);
	for (int i = 0; i < 4; i++)
		ck_assert_uint_ne(publish(&set), first);
	/* A reader has the only other one: it is taken back, the pinned one is not. */
	(void)lease(&set, 7, 5000);
	(void)publish(&set);
	ck_assert_int_eq(versions_begin(&set.versions, LEASE_MS, &slot, &due_ms), STATUS_EBUSY);
	ck_assert_uint_eq(due_ms, 5000 + LEASE_MS);
	ck_assert_uint_eq(versions_reclaim(&set.versions, LEASE_MS, due_ms), 1);
	ck_assert_uint_ne(publish(&set), first);
	versions_unpin(&set.versions, first);
	ck_assert_uint_eq(publish(&set), first);
	ck_assert_uint_eq(set.versions.lease_count, 0);
	versions_finish(&set.versions);
}
END_TEST

START_TEST(pins_alone_leave_no_time_at_which_there_is_room)
{
	struct set set;
	uint64_t due_ms;
	uint32_t slot;

	set_init(&set, 2);
	slot = publish(&set);
	ck_assert_int_eq(versions_pin(&set.versions, slot), 0);
	(void)publish(&set);
	for (uint64_t lease_min_ms = 0; lease_min_ms <= LEASE_MS; lease_min_ms += LEASE_MS) {
		ck_assert_int_eq(versions_begin(&set.versions, lease_min_ms, &slot, &due_ms), STATUS_EBUSY);
		ck_assert_uint_eq(due_ms, UINT64_MAX);
		ck_assert_uint_eq(versions_reclaim(&set.versions, lease_min_ms, UINT64_MAX - 1), 0);
	}
	versions_finish(&set.versions);
}
END_TEST

START_TEST(a_slot_without_a_version_is_not_pinned)
{
	struct set set;
	uint32_t slot;

	set_init(&set, 3);
	ck_assert_int_eq(versions_pin(&set.versions, 0), STATUS_ENOVERSION);
	(void)publish(&set);
	slot = begin(&set);
	ck_assert_int_eq(versions_pin(&set.versions, slot), STATUS_ENOVERSION);
	/* What was never pinned can be unpinned. */
	versions_unpin(&set.versions, slot);
	ck_assert_uint_eq(set.versions.lease_count, 0);
	versions_finish(&set.versions);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("versions");
	TCase *tcase = tcase_create("versions");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, there_is_nothing_at_first);
	tcase_add_test(tcase, a_published_version_checks_and_is_the_newest);
	tcase_add_test(tcase, an_update_never_fills_the_current_slot);
	tcase_add_test(tcase, the_fence_changes_and_the_version_goes_before_a_slot_is_filled);
	tcase_add_test(tcase, the_oldest_version_is_overwritten_first);
	tcase_add_test(tcase, a_leased_slot_is_left_alone);
	tcase_add_test(tcase, a_full_house_says_when_there_will_be_room);
	tcase_add_test(tcase, the_slot_whose_time_is_over_first_is_taken_back);
	tcase_add_test(tcase, leases_end_with_their_peer);
	tcase_add_test(tcase, a_peer_that_asks_again_holds_one_lease_and_its_time_begins_anew);
	tcase_add_test(tcase, a_lease_that_lasts_for_ever_is_not_taken_back);
	tcase_add_test(tcase, the_newest_version_of_that_step_or_before_is_kept);
	tcase_add_test(tcase, going_back_ends_the_leases_on_that_version_alone);
	tcase_add_test(tcase, an_heirloom_is_read_until_the_first_version_and_never_written);
	tcase_add_test(tcase, an_heirloom_fits_behind_as_many_slots_as_there_may_be);
	tcase_add_test(tcase, a_lease_needs_memory);
	tcase_add_test(tcase, a_pinned_slot_stays_until_it_is_unpinned);
	tcase_add_test(tcase, pins_alone_leave_no_time_at_which_there_is_room);
	tcase_add_test(tcase, a_slot_without_a_version_is_not_pinned);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
