/*
 * Files in the state directory: what writes to disk is here, in files_generation.c, files_list.c and files_place.c.
 *
 * A thread of this file does all of it, one order after the other, because a disk may take minutes over an fsync and
 * the loop has none. A file is written under another name, synchronised, renamed, and its directory synchronised: under
 * its name there is a whole file or none. An fsync that has failed is not tried again, because the kernel may have
 * thrown away what it could not write: the file is given up.
 *
 * Below the state directory every directory on the way is opened by itself and must be our own, so that nobody else can
 * have a link lead out of it. What a crash has left half-written is removed when its directory is next written to.
 */
#pragma once

#include <stdbool.h>

#include "daemon/core/host.h"
#include "daemon/edge/files_place.h"

struct files;

/*
 * wake is called from the thread when files_poll has something to do. state_dir and calls are borrowed until
 * files_stop; the directory need not be there yet.
 */
int files_start(const char *state_dir, const struct files_calls *calls, void (*wake)(void *context), void *context,
                struct files **ret_files);

/* What is called before each order, see files_place.h. From the thread; to be set before the first order. */
void files_guard(struct files *files, int (*claim)(void *context, struct reason *reason), void *context);

/* Queues an order; it comes back by files_poll. */
void files_write(struct files *files, struct file_order *order);

/* Calls written for every order that is done. Loop thread. */
void files_poll(struct files *files, void (*written)(void *context, struct file_order *order), void *context);

/* How many bytes a second may be written from now on; 0: as many as can be. */
void files_limit(struct files *files, uint64_t bytes_per_s);

/*
 * The end is near: averages to be kept (FILE_KEEP) that have not begun come back with STATUS_ESHUTDOWN from now on, and
 * nothing is limited any more.
 */
void files_drain(struct files *files);

/*
 * Ends the thread; a file half-written is removed. False when the disk has not let go of it after that time: the thread
 * and what it reads must then be left alone until the process ends. NULL is allowed.
 */
bool files_stop(struct files *files, uint32_t timeout_ms);
