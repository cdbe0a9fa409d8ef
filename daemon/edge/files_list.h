/*
 * What lies on disk of a model, and the marks of generations that stay, for the thread of files.c. Reads, but for the
 * marks, and looks at sizes and at manifests, not at the averages themselves.
 */
#pragma once

#include "daemon/edge/files_place.h"

struct file_order;

/* Does a FILE_LIST: order->listing. Directories that are not there are empty. -errno, -ENOMEM. */
int files_list(const struct files_place *place, struct file_order *order);

/* Does a FILE_MARK: STATUS_ENOVERSION with the steps that there are. A mark that is there, or not, already is none. */
int files_mark(const struct files_place *place, struct file_order *order);

/* A file "keep" in a generation's directory, or anything else of that name. */
bool files_is_marked(const struct files_place *place, int directory);
