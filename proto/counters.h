/*
 * Counters: every number that the daemon counts, defined once. `emactl status` and the JSON show them by these names.
 */
#pragma once

#include <stdint.h>

/* X(name, what it counts) */
#define COUNTERS(X)                                                                                                   \
	X(requests, "requests handled")                                                                               \
	X(requests_failed, "requests answered with an error")                                                         \
	X(requests_denied, "requests refused because the peer may not make them")                                     \
	X(connections_accepted, "connections accepted on any socket")                                                 \
	X(connections_refused, "connections refused at the limit")                                                    \
	X(violations, "connections closed because of bytes that are not the protocol, or a deadline")                 \
	X(pushes_accepted, "snapshots accepted")                                                                      \
	X(pushes_applied, "snapshots applied")                                                                        \
	X(pushes_duplicate, "pushes of a step that was pushed before")                                                \
	X(pushes_stale, "pushes of a step older than the newest")                                                     \
	X(pushes_nonfinite, "snapshots refused because they hold NaN or infinity")                                    \
	X(pushes_incomplete, "snapshots dropped because another rank left their step out")                            \
	X(pushes_loss, "pushes refused because of their loss")                                                        \
	X(pushes_jump, "snapshots refused because a tensor's norm jumped")                                            \
	X(pushes_coalesced, "snapshots that gave way to a newer one because the daemon lagged")                       \
	X(calls_skipped, "calls of the schedules for which no snapshot came: the next one stood for them too")        \
	X(tensors_skipped, "tensors that kept their old average because their values were not finite")                \
	X(rewinds, "times that a trainer went back to an older step")                                                 \
	X(versions_published, "versions published")                                                                   \
	X(snapshots_written, "averages written to disk")                                                              \
	X(snapshots_failed, "averages that could not be written to disk")                                             \
	X(snapshots_skipped, "averages not written to disk because an earlier one was still being written")           \
	X(checkpoints_written, "checkpoints written to disk")                                                         \
	X(checkpoints_failed, "checkpoints that could not be written to disk")                                        \
	X(checkpoints_bad, "checkpoints on disk that were damaged and set aside")                                     \
	X(models_recovered, "models that were recovered from a checkpoint at the start")                              \
	X(models_adopted, "models that went on in the memory of an earlier daemon at the start")                      \
	X(models_abandoned, "models whose memory of an earlier daemon could not be taken over")                       \
	X(snapshots_adopted, "snapshots that an earlier daemon had acknowledged and not averaged yet")                \
	X(views_opened, "views opened")                                                                               \
	X(leases_revoked, "leases revoked because updates needed their memory")                                       \
	X(http_requests, "requests by HTTP")                                                                          \
	X(http_failed, "requests by HTTP answered with an error")                                                     \
	X(http_timeouts, "HTTP connections closed because their request did not come")                                \
	X(downloads_begun, "downloads of averages begun, ranges of them too")                                         \
	X(downloads_ended, "downloads that ended, in whatever way")                                                   \
	X(downloads_cut, "downloads cut off because updates needed their memory")                                     \
	X(download_bytes, "bytes of averages sent by HTTP")                                                           \
	X(apply_us, "microseconds spent in updates")                                                                  \
	X(apply_bytes, "bytes of weights averaged, as pushed")

struct counters {
#define X(name, text) uint64_t name;
	COUNTERS(X)
#undef X
};
