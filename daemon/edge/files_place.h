/*
 * The way into the state directory, for files.c and files_generation.c: the system calls, and directories opened one by
 * one.
 */
#pragma once

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "proto/status.h"

/* The system calls, so that a test can have any of them fail. */
struct files_calls {
	int (*open)(const char *path, int flags);
	int (*mkdir)(const char *path, mode_t mode);
	int (*openat)(int directory, const char *name, int flags, mode_t mode);
	int (*mkdirat)(int directory, const char *name, mode_t mode);
	int (*fstat)(int fd, struct stat *ret_facts);
	int (*flock)(int fd, int operation);
	DIR *(*fdopendir)(int fd);
	struct dirent *(*readdir)(DIR *stream);
	int (*closedir)(DIR *stream);
	ssize_t (*read)(int fd, void *bytes, size_t count);
	ssize_t (*write)(int fd, const void *bytes, size_t count);
	int (*fsync)(int fd);
	int (*close)(int fd);
	int (*renameat)(int from_directory, const char *from, int to_directory, const char *to);
	int (*exchange)(int directory, const char *name, const char *other); /* two names change places at once */
	int (*unlinkat)(int directory, const char *name, int flags);
	/* Only for speed: NULL where there is no such thing. */
	int (*flags_set)(int fd, int flags); /* fcntl's F_SETFL */
	int (*sync_range)(int fd, off_t offset, off_t bytes, unsigned int flags);
	/* Only where a limit is set (files_pace.h). */
	uint64_t (*clock_ns)(void);
	void (*wait)(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns);
};

extern const struct files_calls files_system;

struct files_pace;

struct files_place {
	const char *state_dir;
	const struct files_calls *calls;
	const atomic_bool *abandons; /* what is under way is given up */
	const char *space_hint;      /* what to do when the disk is full: "; make room" */
	struct files_pace *pace;     /* NULL: nothing is limited */
	/*
	 * Makes sure that the state directory, which may be another one than before, is the daemon's alone. NULL: it
	 * is anyhow. -EEXIST with a sentence: it is not.
	 */
	int (*claim)(void *context, struct reason *reason);
	void *claim_context;
};

/* What a call failed at with errno, as a sentence. Returns -errno. */
int files_failed(const struct files_place *place, struct reason *reason, const char *what, const char *name);

/*
 * Opens a directory in another one, which must be the daemon's user's own and no link. makes: it is made where there is
 * none. Returns its descriptor or -1 with errno.
 */
int files_directory_open(const struct files_place *place, int parent, const char *name, bool makes, bool *ret_made);

/*
 * The state directory itself may be a link: where it lies is the operator's choice. It is opened anew for every order,
 * so that it can be mounted anew meanwhile, and locked until it is closed. makes: it is made where there is none, and
 * its name synchronised, unless the directory above is none of ours to open.
 */
int files_root_open(const struct files_place *place, bool makes, struct reason *reason, int *ret_root);
