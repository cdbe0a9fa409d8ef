/*
 * The way to generations on disk, and what lies there, for files_generation.c and files_list.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/edge/files_place.h"
#include "proto/generation.h"

enum { FILES_TEMPORARY_NAME_BYTES = GENERATION_NAME_BYTES + 5 };

extern const char FILES_MANIFEST[];

/* The state directory, "checkpoints", and the model's directory in it. */
struct files_way {
	int root, all, directory; /* -1: closed */
};

void files_way_close(const struct files_place *place, struct files_way *way);

/* As far as "checkpoints", which is made only if founds; on failure files_way_close is right. */
int files_way_begin(const struct files_place *place, bool makes, bool founds, struct files_way *way,
                    struct reason *reason);

/* The whole way, to a model's directory that is there. */
int files_way_open(const struct files_place *place, const char *directory, struct files_way *way, struct reason *reason);

/* One directory further. makes: its name is synchronised, also where it was there. */
int files_step_open(const struct files_place *place, int parent, const char *name, bool makes, int *ret_fd,
                    struct reason *reason);

/* A stream of a directory's names, to be ended with the table's closedir; NULL with errno. */
DIR *files_list_open(const struct files_place *place, int directory);

struct files_names {
	struct generation_name *items; /* owned; oldest first */
	size_t count, capacity;
};

/* The generations of a model. cleans: what was left half-written is removed. */
int files_names_list(const struct files_place *place, int directory, bool cleans, struct files_names *names,
                     struct reason *reason);

/* Their steps as a phrase: "steps 1200, 1100, 1000 and 3 older ones", or "nothing". */
void files_names_tell(const struct files_names *names, struct reason *reason);

/* ".NAME.tmp" */
void files_temporary_name(const struct generation_name *generation, char ret_name[FILES_TEMPORARY_NAME_BYTES]);

/* Removes a directory with the files in it; it holds no directories, unless somebody else has put one there. */
int files_directory_remove(const struct files_place *place, int parent, const char *name);

/* What is not there, or no file, is as damaged as what is cut off: STATUS_ECORRUPT. */
int files_file_open(const struct files_place *place, int directory, const char *name, uint64_t *ret_bytes, int *ret_fd,
                    struct reason *reason);

int files_bytes_read(const struct files_place *place, int fd, const char *name, uint8_t *target, uint64_t byte_count,
                     struct reason *reason);

/* The manifest of the generation in a directory, its checksum looked at; *ret_text is freed with free(). */
int files_manifest_read(const struct files_place *place, int directory, char **ret_text, size_t *ret_bytes,
                        struct reason *reason);
