/*
 * Who a peer is, and what he is not let into by the configuration and the tokens in force.
 */
#pragma once

#include "daemon/edge/transport.h"
#include "daemon/parts.h"

/* Bits of enum access. The kernel tells the groups of some peers; of others they are looked up where they matter. */
uint32_t admission_classify(void *daemon, int64_t uid, int64_t gid, const uint32_t *groups, size_t group_count);

/* The same for a peer of the transport, who may be on another host. */
uint32_t admission_classify_peer(void *daemon, const struct peer *peer, int64_t gid);
