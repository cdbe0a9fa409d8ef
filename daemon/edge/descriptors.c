/*
 * setrlimit. See descriptors.h.
 */
#include "daemon/edge/descriptors.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/resource.h>

enum {
	A_SEGMENT = 2,     /* to write, and to be handed to readers */
	SOCKETS = 2,       /* with connections */
	RESERVE = 64,      /* loop, threads, locks, files being written */
};

void descriptors_raise(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

int descriptors_check(uint64_t segment_count_max, uint64_t connection_count_max, struct reason *reason)
{
	uint64_t needed = A_SEGMENT * segment_count_max + SOCKETS * connection_count_max + RESERVE;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed)
		return 0;
	return reason_set(reason, -EMFILE,
	                  "%" PRIu64 " files may be open, and %" PRIu64 " are needed for segments-max=%" PRIu64
	                  " and connections-max=%" PRIu64 ": raise LimitNOFILE= of the unit (docker run --ulimit nofile=%" PRIu64
	                  "; in a shell ulimit -Hn), or lower those two",
	                  (uint64_t)limit.rlim_cur, needed, segment_count_max, connection_count_max, needed);
}
