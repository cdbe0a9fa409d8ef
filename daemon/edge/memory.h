/*
 * Shared memory from the kernel: the only file that calls memfd_create.
 *
 * A segment is allocated to the last byte when it is made (no room is an error, not a SIGBUS later), mode 0600 and
 * sealed against any change of size, so that nobody who holds its descriptor can reopen it for writing under another
 * uid or pull it from under a reader. Readers are given a second, read-only description of it.
 *
 * Making and dropping take long (the kernel clears gigabytes): a thread of this file does both, in the order asked.
 */
#pragma once

#include "daemon/core/host.h"

struct memory_maker;

/* wake is called from the maker's thread when memory_poll has something to do. */
int memory_start(void (*wake)(void *context), void *context, struct memory_maker **ret_maker);

/* Finishes what is queued, then ends the thread. */
void memory_stop(struct memory_maker *maker);

/* Queues an order; it comes back by memory_poll. */
void memory_make(struct memory_maker *maker, struct segment_order *order);

/* Takes a segment's mapping and descriptors and clears it; the pages are given back in the background. */
void memory_drop(struct memory_maker *maker, struct memory *memory);

/* Calls made for every order that is done. Loop thread. */
void memory_poll(struct memory_maker *maker, void (*made)(void *context, struct segment_order *order), void *context);

/* Bytes that can be allocated now: the host's free memory, or less where the control group's limit says so. */
uint64_t memory_available_bytes(void);
