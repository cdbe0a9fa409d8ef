/*
 * Generations on disk, for the thread of files.c: writing, finding, reading, setting aside. See generation.h.
 *
 * A generation is written under another name, ".NAME.tmp", with every file and the directory synchronised, then renamed
 * and the directory above synchronised: under its name it is whole, or not there. One that is removed is renamed back
 * first. What a crash has left under such a name is removed when the model is next written. The first generation of
 * another average is written in "MODEL%%new", which then changes places with the model's directory.
 *
 * Only what was read and is wrong is set aside. What cannot be read (EIO, EACCES, EMFILE, no memory) may be as good as
 * ever: it stays, and whoever looks for it goes on to the one before.
 */
#pragma once

#include "daemon/edge/files_place.h"

struct file_order;

/* Does an order that is not FILE_KEEP; its status and sentence are set. */
void files_generation_do(const struct files_place *place, struct file_order *order);
