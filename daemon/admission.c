/*
 * Judging peers. See admission.h.
 */
#include "daemon/admission.h"

#include <unistd.h>

#include "daemon/core/access.h"
#include "daemon/core/network.h"

uint32_t admission_classify(void *context, int64_t uid, int64_t gid, const uint32_t *groups, size_t group_count)
{
	struct daemon *daemon = context;
	const struct access_rules *rules = &daemon->config->access;
	struct access_peer peer = { .uid = uid, .gid = gid, .groups = groups, .group_count = group_count };

	if (!groups && uid >= 0 && access_wants_groups(rules))
		peer.group_count = accounts_groups(&daemon->accounts, (uint32_t)uid, &peer.groups);
	return access_refused(rules, (uint32_t)geteuid(), &peer);
}

uint32_t admission_classify_peer(void *context, const struct peer *peer, int64_t gid)
{
	struct daemon *daemon = context;

	if (peer->remote) {
		const struct token *token = peer->name[0] ? tokens_find(&daemon->network->tokens, peer->name) : NULL;
		enum access anonymous = (enum access)daemon->config->anonymous;

		return network_refused(token && token->granted > anonymous ? token->granted : anonymous);
	}
	return admission_classify(context, peer->uid, gid, NULL, 0);
}
