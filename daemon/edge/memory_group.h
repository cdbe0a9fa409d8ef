/*
 * How much memory there is: of the host, or less where a control group's limit says so. Past that limit the kernel kills;
 * what is known of it is refused before.
 */
#pragma once

#include <stdint.h>

/* What control groups let a process have; UINT64_MAX: no limit. */
struct memory_bounds {
	uint64_t total_bytes;
	uint64_t available_bytes; /* that are left of it */
};

/*
 * The narrowest of the groups that `process` names, which has the form of /proc/PID/cgroup, and of all groups around
 * them, up to the one at root ("/sys/fs/cgroup"): of cgroup v2, and of the memory controller of v1, which is in a folder
 * of its own there.
 */
struct memory_bounds memory_bounds(const char *process, const char *root);

/* What a percentage is of. */
uint64_t memory_total_bytes(void);

/* Bytes that can be allocated now. */
uint64_t memory_available_bytes(void);
