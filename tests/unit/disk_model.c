/*
 * Inodes, names with a past, and what is left of them. See disk_model.h.
 */
#include "tests/unit/disk_model.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
	INODE_COUNT_MAX = 1024,
	NAME_MAX_BYTES = 96,
	OPEN_COUNT_MAX = 32,
	FD_FIRST = 100000,
	NOTHING = -1,
};

struct entry {
	char name[NAME_MAX_BYTES];
	int inode; /* NOTHING: the name is free */
};

struct names {
	struct entry *items; /* owned; in the order in which they were first used */
	int count;
};

/* What was done to a directory since its last fsync. */
struct change {
	enum { SET, RENAME, EXCHANGE } kind;
	char name[NAME_MAX_BYTES], other[NAME_MAX_BYTES]; /* SET has no other one */
	int before, after; /* SET: what the name named; else `before` was moved, or changes places with `after` */
};

struct bytes {
	uint8_t *bytes; /* owned */
	uint64_t count;
};

struct inode {
	bool is_directory;
	int parent;
	struct names names, platter_names; /* of a directory */
	struct change *changes;            /* owned */
	int change_count;
	struct bytes seen, platter; /* of a file */
	bool is_synchronised;
	bool has_failed; /* an fsync of it has */
};

/* A descriptor; also a list. */
struct opened {
	bool is_open, is_list, is_locked;
	int inode, flags, at;
	struct dirent entry;
};

struct disk {
	int inode_count;
	struct opened opened[OPEN_COUNT_MAX];
	struct disk_faults faults;
	const char *failed_at;
	uint64_t call_count, power_left; /* power_left 0: for ever */
	bool is_off, has_interrupted;
	struct inode inodes[INODE_COUNT_MAX]; /* at the end, so that only those that there are are copied */
};

static struct disk *disk; /* in use */

/* ---- memory ------------------------------------------------------------------------------------------------------- */

/* aligned_alloc is not among the functions that a failing heap wraps. */
static void *room_make(size_t bytes)
{
	void *room = aligned_alloc(16, (bytes / 16 + 1) * 16);

	assert(room);
	return room;
}

static void *room_copy(const void *from, size_t bytes)
{
	void *copy = bytes > 0 ? room_make(bytes) : NULL;

	if (copy)
		memcpy(copy, from, bytes);
	return copy;
}

/* Frees the old one. */
static void *room_grow(void *from, size_t bytes, size_t more_bytes)
{
	void *room = room_make(bytes + more_bytes);

	if (from)
		memcpy(room, from, bytes);
	free(from);
	return room;
}

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

static int inode_make(struct disk *on, bool is_directory, int parent)
{
	struct inode *inode = &on->inodes[on->inode_count];

	assert(on->inode_count < INODE_COUNT_MAX);
	*inode = (struct inode){ .is_directory = is_directory, .parent = parent };
	return on->inode_count++;
}

struct disk *disk_create(void)
{
	struct disk *created = room_make(sizeof *created);

	memset(created, 0, sizeof *created);
	(void)inode_make(created, true, 0);
	return created;
}


static void bytes_set(struct bytes *bytes, const struct bytes *from)
{
	uint8_t *copy = room_copy(from->bytes, from->count);

	free(bytes->bytes);
	*bytes = (struct bytes){ copy, from->count };
}

static void names_copy(struct names *names)
{
	names->items = room_copy(names->items, (size_t)names->count * sizeof *names->items);
}

struct disk *disk_copy(const struct disk *from)
{
	struct disk *copy = room_make(sizeof *copy);

	memcpy(copy, from, offsetof(struct disk, inodes) + (size_t)from->inode_count * sizeof from->inodes[0]);
	for (int i = 0; i < copy->inode_count; i++) {
		struct inode *inode = &copy->inodes[i];

		inode->seen = inode->platter = (struct bytes){ NULL, 0 };
		bytes_set(&inode->seen, &from->inodes[i].seen);
		bytes_set(&inode->platter, &from->inodes[i].platter);
		names_copy(&inode->names);
		names_copy(&inode->platter_names);
		inode->changes = room_copy(inode->changes, (size_t)inode->change_count * sizeof *inode->changes);
	}
	return copy;
}

void disk_destroy(struct disk *gone)
{
	for (int i = 0; i < gone->inode_count; i++) {
		free(gone->inodes[i].names.items);
		free(gone->inodes[i].platter_names.items);
		free(gone->inodes[i].changes);
		free(gone->inodes[i].seen.bytes);
		free(gone->inodes[i].platter.bytes);
	}
	free(gone);
}

void disk_use(struct disk *used)
{
	disk = used;
}

void disk_faults_set(struct disk *on, const struct disk_faults *faults)
{
	on->faults = *faults;
	on->failed_at = NULL;
}

const char *disk_failed_at(const struct disk *on)
{
	return on->failed_at;
}

void disk_power_set(struct disk *on, uint64_t nth)
{
	on->power_left = nth;
	on->is_off = false;
}

bool disk_is_off(const struct disk *on)
{
	return on->is_off;
}

uint64_t disk_call_count(const struct disk *on)
{
	return on->call_count;
}

uint64_t disk_open_count(const struct disk *on)
{
	uint64_t count = 0;

	for (int i = 0; i < OPEN_COUNT_MAX; i++)
		count += on->opened[i].is_open;
	return count;
}

void disk_process_ends(struct disk *on)
{
	memset(on->opened, 0, sizeof on->opened);
	on->power_left = 0;
	on->is_off = false;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static int named(const struct names *names, const char *name)
{
	for (int i = 0; i < names->count; i++)
		if (strcmp(names->items[i].name, name) == 0)
			return names->items[i].inode;
	return NOTHING;
}

static void name_set(struct names *names, const char *name, int inode)
{
	for (int i = 0; i < names->count; i++) {
		if (strcmp(names->items[i].name, name) != 0)
			continue;
		names->items[i].inode = inode;
		return;
	}
	assert(strlen(name) < NAME_MAX_BYTES);
	names->items = room_grow(names->items, (size_t)names->count * sizeof *names->items, sizeof *names->items);
	strcpy(names->items[names->count].name, name);
	names->items[names->count++].inode = inode;
}

static bool is_empty(const struct inode *directory)
{
	for (int i = 0; i < directory->names.count; i++)
		if (directory->names.items[i].inode != NOTHING)
			return false;
	return true;
}

static struct change *change_add(struct inode *directory, const char *name)
{
	size_t bytes = (size_t)directory->change_count * sizeof *directory->changes;
	struct change *change;

	directory->changes = room_grow(directory->changes, bytes, sizeof *directory->changes);
	change = &directory->changes[directory->change_count++];
	*change = (struct change){ .kind = SET };
	strcpy(change->name, name);
	return change;
}

static void entry_set(int directory, const char *name, int inode)
{
	struct inode *in = &disk->inodes[directory];
	struct change *change = change_add(in, name);

	change->before = named(&in->names, name);
	change->after = inode;
	name_set(&in->names, name, inode);
}

/* What an absolute path names; *ret_last is its last part and *ret_parent the directory that this is in. */
static int path_walk(const struct disk *on, const char *path, int *ret_parent, char ret_last[NAME_MAX_BYTES])
{
	int inode = 0;

	assert(path[0] == '/');
	*ret_parent = 0;
	ret_last[0] = '\0';
	for (path++; *path && inode != NOTHING; path += path[0] == '/') {
		size_t count = strcspn(path, "/");

		assert(count < NAME_MAX_BYTES);
		memcpy(ret_last, path, count);
		ret_last[count] = '\0';
		*ret_parent = inode;
		inode = on->inodes[inode].is_directory ? named(&on->inodes[inode].names, ret_last) : NOTHING;
		path += count;
		if (inode == NOTHING && *path)
			*ret_parent = NOTHING;
	}
	return inode;
}

static int path_find(const struct disk *on, const char *path)
{
	char last[NAME_MAX_BYTES];
	int parent;

	return path_walk(on, path, &parent, last);
}

uint8_t *disk_file(struct disk *on, const char *path, uint64_t *ret_bytes)
{
	int inode = path_find(on, path);

	if (inode == NOTHING || on->inodes[inode].is_directory)
		return NULL;
	*ret_bytes = on->inodes[inode].seen.count;
	return on->inodes[inode].seen.bytes;
}

void disk_file_cut(struct disk *on, const char *path, uint64_t bytes)
{
	struct inode *inode = &on->inodes[path_find(on, path)];

	assert(!inode->is_directory && bytes <= inode->seen.count);
	inode->seen.count = bytes;
	bytes_set(&inode->platter, &inode->seen);
}

bool disk_has(struct disk *on, const char *directory, const char *prefix)
{
	int inode = path_find(on, directory);

	for (int i = 0; inode != NOTHING && i < on->inodes[inode].names.count; i++) {
		const struct entry *entry = &on->inodes[inode].names.items[i];

		if (entry->inode != NOTHING && strncmp(entry->name, prefix, strlen(prefix)) == 0)
			return true;
	}
	return false;
}

void disk_remove(struct disk *on, const char *path)
{
	char last[NAME_MAX_BYTES];
	int parent;

	if (path_walk(on, path, &parent, last) == NOTHING)
		return;
	name_set(&on->inodes[parent].names, last, NOTHING);
	name_set(&on->inodes[parent].platter_names, last, NOTHING);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

/* Whether a call goes wrong instead; errno says how. */
static bool fails(const char *name)
{
	struct disk_faults *faults = &disk->faults;

	disk->call_count++;
	if (disk->power_left > 0 && --disk->power_left == 0)
		disk->is_off = true;
	if (disk->is_off) {
		errno = DISK_ERROR_OFF;
		return true;
	}
	if (faults->countdown == 0 || --faults->countdown > 0)
		return false;
	if (faults->for_ever)
		faults->countdown = 1;
	disk->failed_at = name;
	errno = faults->error;
	return true;
}

static int wrong(int error)
{
	errno = error;
	return -1;
}

static struct opened *opened_of(int fd)
{
	assert(fd >= FD_FIRST && fd < FD_FIRST + OPEN_COUNT_MAX && disk->opened[fd - FD_FIRST].is_open);
	return &disk->opened[fd - FD_FIRST];
}

static struct inode *inode_of(int fd)
{
	return &disk->inodes[opened_of(fd)->inode];
}

static int fd_make(int inode, int flags)
{
	for (int i = 0; i < OPEN_COUNT_MAX; i++) {
		if (disk->opened[i].is_open)
			continue;
		disk->opened[i] = (struct opened){ .is_open = true, .inode = inode, .flags = flags };
		return FD_FIRST + i;
	}
	return wrong(EMFILE);
}

static int inode_open(int inode, int flags)
{
	if (inode == NOTHING)
		return wrong(ENOENT);
	if ((flags & O_DIRECTORY) && !disk->inodes[inode].is_directory)
		return wrong(ENOTDIR);
	return fd_make(inode, flags);
}

static int model_open(const char *path, int flags)
{
	return fails("open") ? -1 : inode_open(path_find(disk, path), flags);
}

static int model_mkdir(const char *path, mode_t mode)
{
	char last[NAME_MAX_BYTES];
	int parent;

	(void)mode;
	if (fails("mkdir"))
		return -1;
	if (path_walk(disk, path, &parent, last) != NOTHING)
		return wrong(EEXIST);
	if (parent == NOTHING)
		return wrong(ENOENT);
	entry_set(parent, last, inode_make(disk, true, parent));
	return 0;
}

static int model_openat(int directory, const char *name, int flags, mode_t mode)
{
	int in, inode;

	(void)mode;
	if (fails("openat"))
		return -1;
	in = opened_of(directory)->inode;
	assert(disk->inodes[in].is_directory && !strchr(name, '/'));
	if (strcmp(name, ".") == 0)
		return inode_open(in, flags);
	if (strcmp(name, "..") == 0)
		return inode_open(disk->inodes[in].parent, flags);
	inode = named(&disk->inodes[in].names, name);
	if (!(flags & O_CREAT))
		return inode_open(inode, flags);
	assert(flags & O_EXCL);
	if (inode != NOTHING)
		return wrong(EEXIST);
	inode = inode_make(disk, false, in);
	entry_set(in, name, inode);
	return fd_make(inode, flags);
}

static int model_mkdirat(int directory, const char *name, mode_t mode)
{
	int in;

	(void)mode;
	if (fails("mkdirat"))
		return -1;
	in = opened_of(directory)->inode;
	if (named(&disk->inodes[in].names, name) != NOTHING)
		return wrong(EEXIST);
	entry_set(in, name, inode_make(disk, true, in));
	return 0;
}

static int model_fstat(int fd, struct stat *ret_facts)
{
	const struct inode *inode;

	if (fails("fstat"))
		return -1;
	inode = inode_of(fd);
	*ret_facts = (struct stat){
		.st_mode = inode->is_directory ? S_IFDIR | 0755 : S_IFREG | 0644,
		.st_uid = geteuid(),
		.st_size = (off_t)inode->seen.count,
		.st_ino = (ino_t)opened_of(fd)->inode + 1,
		.st_nlink = 1,
	};
	return 0;
}

static int model_flock(int fd, int operation)
{
	int inode;

	if (fails("flock"))
		return -1;
	inode = opened_of(fd)->inode;
	for (int i = 0; i < OPEN_COUNT_MAX && !(operation & LOCK_UN); i++)
		if (disk->opened[i].is_open && disk->opened[i].is_locked && disk->opened[i].inode == inode)
			return wrong(EWOULDBLOCK);
	opened_of(fd)->is_locked = !(operation & LOCK_UN);
	return 0;
}

static DIR *model_fdopendir(int fd)
{
	if (fails("fdopendir"))
		return NULL;
	assert(inode_of(fd)->is_directory);
	opened_of(fd)->is_list = true;
	return (DIR *)opened_of(fd);
}

static struct dirent *model_readdir(DIR *stream)
{
	struct opened *list = (struct opened *)stream;
	const struct inode *directory;

	assert(list->is_open && list->is_list);
	if (fails("readdir"))
		return NULL;
	directory = &disk->inodes[list->inode];
	if (list->at < 2)
		return strcpy(list->entry.d_name, list->at++ == 0 ? "." : ".."), &list->entry;
	while (list->at - 2 < directory->names.count) {
		const struct entry *entry = &directory->names.items[list->at++ - 2];

		if (entry->inode == NOTHING)
			continue;
		strcpy(list->entry.d_name, entry->name);
		return &list->entry;
	}
	return NULL;
}

/* As the kernel does it: what is closed is closed, whatever else went wrong. */
static int model_closedir(DIR *stream)
{
	struct opened *list = (struct opened *)stream;
	bool is_wrong = fails("closedir");

	assert(list->is_open && list->is_list);
	list->is_open = false;
	return is_wrong ? -1 : 0;
}

static int model_close(int fd)
{
	bool is_wrong = fails("close");

	assert(!opened_of(fd)->is_list);
	opened_of(fd)->is_open = false;
	return is_wrong ? -1 : 0;
}

static bool is_interrupted(void)
{
	disk->has_interrupted = disk->faults.interrupts && !disk->has_interrupted;
	if (disk->has_interrupted)
		errno = EINTR;
	return disk->has_interrupted;
}

static size_t chunk(size_t count)
{
	size_t max = disk->faults.chunk_bytes_max;

	return max > 0 && count > max ? max : count;
}

static ssize_t model_read(int fd, void *bytes, size_t count)
{
	struct opened *opened = opened_of(fd);
	const struct bytes *seen = &inode_of(fd)->seen;
	uint64_t left = seen->count - (uint64_t)opened->at;

	if (fails("read") || is_interrupted())
		return -1;
	assert(!inode_of(fd)->is_directory);
	count = chunk(count < left ? count : left);
	if (count > 0)
		memcpy(bytes, seen->bytes + opened->at, count);
	opened->at += (int)count;
	return (ssize_t)count;
}

static ssize_t model_write(int fd, const void *bytes, size_t count)
{
	struct inode *inode = inode_of(fd);

	if (fails("write") || is_interrupted())
		return -1;
	assert((opened_of(fd)->flags & O_ACCMODE) == O_WRONLY);
	count = chunk(count);
	inode->seen.bytes = room_grow(inode->seen.bytes, inode->seen.count, count);
	memcpy(inode->seen.bytes + inode->seen.count, bytes, count);
	inode->seen.count += count;
	inode->is_synchronised = false;
	return (ssize_t)count;
}

static void directory_synchronise(struct inode *directory)
{
	free(directory->platter_names.items);
	directory->platter_names = directory->names;
	names_copy(&directory->platter_names);
	directory->change_count = 0;
}

static int model_fsync(int fd)
{
	struct inode *inode = inode_of(fd);

	assert(inode->is_directory || !inode->has_failed);
	if (fails("fsync")) {
		inode->has_failed = true;
		return -1;
	}
	if (inode->is_directory && !disk->faults.directory_fsync_lies) {
		directory_synchronise(inode);
	} else if (!inode->is_directory && !disk->faults.file_fsync_lies) {
		bytes_set(&inode->platter, &inode->seen);
		inode->is_synchronised = true;
	}
	return 0;
}

static int model_renameat(int from_directory, const char *from, int to_directory, const char *to)
{
	struct change *change;
	struct inode *in;
	int inode, other;

	if (fails("renameat"))
		return -1;
	assert(opened_of(from_directory)->inode == opened_of(to_directory)->inode);
	in = inode_of(from_directory);
	inode = named(&in->names, from);
	other = named(&in->names, to);
	if (inode == NOTHING)
		return wrong(ENOENT);
	if (other != NOTHING && disk->inodes[inode].is_directory != disk->inodes[other].is_directory)
		return wrong(disk->inodes[inode].is_directory ? ENOTDIR : EISDIR);
	if (other != NOTHING && disk->inodes[other].is_directory && !is_empty(&disk->inodes[other]))
		return wrong(ENOTEMPTY);
	change = change_add(in, from);
	change->kind = RENAME;
	strcpy(change->other, to);
	change->before = inode;
	name_set(&in->names, from, NOTHING);
	name_set(&in->names, to, inode);
	return 0;
}

static int model_exchange(int directory, const char *name, const char *other)
{
	struct change *change;
	struct inode *in;

	if (fails("exchange"))
		return -1;
	if (disk->faults.lacks_exchange)
		return wrong(EINVAL);
	in = inode_of(directory);
	if (named(&in->names, name) == NOTHING || named(&in->names, other) == NOTHING)
		return wrong(ENOENT);
	change = change_add(in, name);
	change->kind = EXCHANGE;
	strcpy(change->other, other);
	change->before = named(&in->names, name);
	change->after = named(&in->names, other);
	name_set(&in->names, name, change->after);
	name_set(&in->names, other, change->before);
	return 0;
}

static int model_unlinkat(int directory, const char *name, int flags)
{
	int in, inode;

	if (fails("unlinkat"))
		return -1;
	in = opened_of(directory)->inode;
	inode = named(&disk->inodes[in].names, name);
	if (inode == NOTHING)
		return wrong(ENOENT);
	if (disk->inodes[inode].is_directory != !!(flags & AT_REMOVEDIR))
		return wrong(disk->inodes[inode].is_directory ? EISDIR : ENOTDIR);
	if (disk->inodes[inode].is_directory && !is_empty(&disk->inodes[inode]))
		return wrong(ENOTEMPTY);
	entry_set(in, name, NOTHING);
	return 0;
}

const struct files_calls disk_calls = {
	.open = model_open,
	.mkdir = model_mkdir,
	.openat = model_openat,
	.mkdirat = model_mkdirat,
	.fstat = model_fstat,
	.flock = model_flock,
	.fdopendir = model_fdopendir,
	.readdir = model_readdir,
	.closedir = model_closedir,
	.read = model_read,
	.write = model_write,
	.fsync = model_fsync,
	.close = model_close,
	.renameat = model_renameat,
	.exchange = model_exchange,
	.unlinkat = model_unlinkat,
};

/* ---- the power goes ---------------------------------------------------------------------------------------------- */

struct chooser {
	uint64_t (*choose)(void *context, uint64_t bound);
	void *context;
};

static uint64_t choose(const struct chooser *chooser, uint64_t bound)
{
	return bound > 1 ? chooser->choose(chooser->context, bound) : 0;
}

/* What is left of a file: as it was, as it is, nothing, zeros, one piece of each, or every sector by itself. */
static void file_lose(struct inode *inode, const struct chooser *chooser)
{
	enum { OLD, NEW, EMPTY, ZEROS, HALF, SECTORS, WAYS = SECTORS + 4 };
	struct bytes left = { NULL, 0 };
	uint64_t way, mixed;

	if (inode->is_synchronised || inode->seen.count == 0)
		return;
	way = choose(chooser, WAYS);
	mixed = way;
	bytes_set(&left, way == OLD ? &inode->platter : &inode->seen);
	if (way == EMPTY)
		left.count = 0;
	if (way == HALF)
		left.count = left.count / 2 + 1;
	for (uint64_t at = 0; (way == ZEROS || way >= SECTORS) && at < left.count; at += DISK_SECTOR_BYTES) {
		uint64_t count = left.count - at < DISK_SECTOR_BYTES ? left.count - at : DISK_SECTOR_BYTES;

		mixed = mixed * 6364136223846793005U + 1442695040888963407U;
		if (way == ZEROS || mixed >> 62 == 0)
			memset(left.bytes + at, 0, count);
		else if (mixed >> 62 == 1 && at + count <= inode->platter.count)
			memcpy(left.bytes + at, inode->platter.bytes + at, count);
	}
	free(inode->seen.bytes);
	inode->seen = left;
	inode->is_synchronised = true;
	bytes_set(&inode->platter, &inode->seen);
}

/* Whether a directory of that inode stands under a name other than these. */
static bool is_elsewhere(const struct disk *on, const struct names *names, const struct change *change)
{
	for (int i = 0; i < names->count; i++)
		if (names->items[i].inode == change->before && strcmp(names->items[i].name, change->name) != 0 &&
		    strcmp(names->items[i].name, change->other) != 0)
			return on->inodes[change->before].is_directory;
	return false;
}

/* A rename is left whole, or not at all, or only the old name is gone, or only the new one is there. */
static void rename_lose(const struct disk *on, struct names *names, const struct change *change, uint64_t chosen)
{
	enum { BOTH, GONE, WHOLE };

	if (is_elsewhere(on, names, change))
		return;
	if (chosen == GONE || chosen == WHOLE || on->inodes[change->before].is_directory)
		name_set(names, change->name, NOTHING);
	if (chosen == BOTH || chosen == WHOLE)
		name_set(names, change->other, change->before);
}

static void directory_lose(const struct disk *on, struct inode *directory, const struct chooser *chooser)
{
	struct names *names = &directory->platter_names;

	for (int i = 0; i < directory->change_count; i++) {
		const struct change *change = &directory->changes[i];
		uint64_t chosen = choose(chooser, change->kind == RENAME ? 4 : 2);

		/* 0: it has not happened. */
		if (chosen == 0)
			continue;
		if (change->kind == RENAME) {
			rename_lose(on, names, change, chosen - 1);
		} else if (change->kind == SET && named(names, change->name) == change->before) {
			name_set(names, change->name, change->after);
		} else if (change->kind == EXCHANGE && named(names, change->name) == change->before &&
			   named(names, change->other) == change->after) {
			name_set(names, change->name, change->after);
			name_set(names, change->other, change->before);
		}
	}
	free(directory->names.items);
	directory->names = *names;
	names_copy(&directory->names);
	directory->change_count = 0;
}

void disk_lose(struct disk *on, uint64_t (*chooses)(void *context, uint64_t bound), void *context)
{
	const struct chooser chooser = { chooses, context };

	disk_process_ends(on);
	for (int i = 0; i < on->inode_count; i++) {
		if (on->inodes[i].is_directory)
			directory_lose(on, &on->inodes[i], &chooser);
		else
			file_lose(&on->inodes[i], &chooser);
		on->inodes[i].has_failed = false;
	}
}
