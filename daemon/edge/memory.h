/*
 * Shared memory from the kernel: segments that outlive the daemon.
 *
 * A segment is allocated to the last byte when it is made (no room is an error, not a SIGBUS later) and is nobody else's
 * to open (0600). It is a memfd, sealed against any change of size, so that nobody who holds its descriptor can pull it
 * from under a reader; the service manager keeps such a descriptor for the next daemon. Where there is none, it is a
 * file in a directory on a tmpfs, which cannot be sealed. Either way readers are given a second, read-only description
 * of it, and it is kept by its name: "emad-" and its identity.
 *
 * Making and dropping take long (the kernel clears gigabytes): a thread of this file does both, in the order asked.
 */
#pragma once

#include "daemon/core/host.h"

struct memory_maker;

struct memory_options {
	const char *directory; /* NULL or "": memfds; borrowed until memory_stop */
	void *context;         /* for the functions below */
	/* memory_poll has something to do. Called from the maker's thread. */
	void (*wake)(void *context);
	/*
	 * Keeps a descriptor beyond this process under that name, and lets go of it; NULL: nobody does. Called from the
	 * maker's thread, and may block. -errno.
	 */
	int (*keep)(void *context, const char *name, int fd);
	void (*forget)(void *context, const char *name);
	/* What an operator should know. Called while memory_start and memory_find run, in their thread. */
	void (*say)(void *context, enum event_severity severity, const char *text);
};

/*
 * Takes the directory, if there is one, and starts the thread. -EEXIST where another daemon has the directory, with its
 * pid; or another -errno with a sentence.
 */
int memory_start(const struct memory_options *options, struct memory_maker **ret_maker, struct reason *reason);

/* Finishes what is queued, then ends the thread. */
void memory_stop(struct memory_maker *maker);

/*
 * Queues an order; it comes back by memory_poll. Where its segments were made and could not be kept, its status is 0
 * and its reason says why.
 */
void memory_make(struct memory_maker *maker, struct segment_order *order);

/*
 * Takes a segment's mapping and descriptors and clears it; the pages are given back in the background, and it is kept no
 * longer.
 */
void memory_drop(struct memory_maker *maker, struct memory *memory);

/* The process is about to end: what is dropped from now on stays where it is kept, for the next daemon. */
void memory_leave(struct memory_maker *maker);

/* Calls made for every order that is done. Loop thread. */
void memory_poll(struct memory_maker *maker, void (*made)(void *context, struct segment_order *order), void *context);

/* A descriptor that was kept. */
struct memory_kept {
	const char *name;
	int fd; /* owned by memory_find, also on failure */
};

struct memory_found {
	struct memory *segments; /* owned; free with free(); what they hold is for memory_drop */
	uint32_t count;
	uint32_t file_count; /* of them, files of the directory */
	uint64_t bytes;
};

/*
 * Takes over all that earlier daemons have left: what was kept, then the directory's files. What cannot be used is said
 * and removed; what is not ours is said and left alone (a kept descriptor: closed). -errno with a sentence where this
 * process has too little of something (open files, memory): then all stays where it is.
 */
int memory_find(struct memory_maker *maker, const struct memory_kept *kept, uint32_t kept_count,
                struct memory_found *ret_found, struct reason *reason);
