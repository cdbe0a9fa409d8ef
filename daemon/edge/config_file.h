/*
 * Reading the configuration's files: INI in systemd's style, with inih. What keys and values mean is the core's
 * (core/config.h).
 */
#pragma once

#include "daemon/core/config.h"

enum {
	CONFIG_FAULT_COUNT_MAX = 20,
	CONFIG_FILE_BYTES_MAX = 1 << 20,
};

#define CONFIG_FILE_DEFAULT "/etc/emad/emad.conf"

/* Everything that is wrong, one sentence each, with file and line. */
struct config_faults {
	uint32_t count; /* also those for which there was no room */
	int error;      /* of the first: STATUS_EARGUMENT, or -errno where a file cannot be read */
	struct reason reasons[CONFIG_FAULT_COUNT_MAX];
};

/* One more. */
void config_fault(struct config_faults *faults, int error, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/*
 * Reads over what is there the file (NULL: CONFIG_FILE_DEFAULT; this one, and a path with '-' before it, need not be
 * there), then what ends in .conf in the folder of its name with ".d" behind it, which need not be there either, in the
 * order of the names. What is wrong is added to the faults and left out; the rest is read all the same.
 */
void config_file_read(struct config *config, const char *path, const struct config_host *host,
                      struct config_faults *faults);
