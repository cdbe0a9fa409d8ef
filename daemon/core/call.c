/*
 * One request: who may make it, which handler answers it, and what handlers share. See call.h.
 */
#include "daemon/core/call.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/access.h"
#include "daemon/core/loan.h"
#include "daemon/core/remote.h"

static int (*const handlers[OPERATION_COUNT])(struct call *) = {
	[OP_HELLO] = hello_handle,   [OP_REGISTER] = register_handle,     [OP_ATTACH] = attach_handle,
	[OP_PUSH] = push_handle,     [OP_RESERVE] = reserve_handle,       [OP_FLUSH] = flush_handle,
	[OP_ATTRIBUTES] = attributes_handle, [OP_VIEW] = view_handle,     [OP_STATUS] = status_handle,
	[OP_LIST] = list_handle,     [OP_SHOW] = show_handle,             [OP_REMOVE] = remove_handle,
	[OP_PROFILE_SET] = profile_set_handle, [OP_PROFILE_REMOVE] = profile_remove_handle,
	[OP_CHECKPOINT] = checkpoint_handle,   [OP_HISTORY] = history_handle, [OP_ROLLBACK] = rollback_handle,
	[OP_CHECKPOINT_KEEP] = checkpoint_keep_handle,
	[OP_CLAIM] = claim_handle, [OP_CHUNK] = chunk_handle,
	[OP_LEASE] = lease_handle,   [OP_FETCH] = fetch_handle,           [OP_RELEASE] = release_handle,
};

int call_model(struct call *call, struct model **ret_model)
{
	const struct text name = call->request->model;
	struct model *model;
	char shown[MODEL_NAME_BYTES_MAX + 1], known[160] = "";
	int error = model_name_check(name.bytes, name.count, &call->reason);

	if (error)
		return error;
	model = service_find(call->service, name.bytes, name.count);
	if (model && model->serving) {
		*ret_model = model;
		return 0;
	}
	for (const struct model *other = call->service->models; other; other = other->next) {
		size_t used = strlen(known);

		if (other->doomed || other->ancestor || !other->serving)
			continue;
		snprintf(known + used, sizeof known - used, "%s%.60s", used ? ", " : "", other->name);
	}
	(void)text_copy(name, shown, sizeof shown);
	return reason_set(&call->reason, STATUS_ENOMODEL, "there is no model '%s'; %s%s", shown,
	                  known[0] ? "there are: " : "no model is registered", known);
}

int call_rank(struct call *call, struct model **ret_model, uint32_t *ret_rank)
{
	int error = call_model(call, ret_model);

	if (error)
		return error;
	if (call->request->rank >= (*ret_model)->world)
		return reason_set(&call->reason, STATUS_EARGUMENT,
		                  "rank %" PRIu64 " is not there: the model has %" PRIu32 " ranks, counted from 0",
		                  call->request->rank, (*ret_model)->world);
	*ret_rank = (uint32_t)call->request->rank;
	return 0;
}

uint64_t call_client(const struct call *call, const struct rank_record *record)
{
	return call->request->present & REQUEST_HAS(client) ? call->request->client : record->client;
}

void call_reply(struct call *call, struct reply *reply, const struct attachment *attachment)
{
	reply_set(reply, status, 0);
	call->service->host.reply(call->service->host.context, call->exchange, reply, attachment);
}

void call_fail(struct service *service, const struct exchange *exchange, int error, const struct reason *reason)
{
	struct reply reply = { 0 };

	service->counters.requests_failed++;
	reply_set(&reply, status, error);
	reply_set(&reply, error, text_of(reason->text[0] ? reason->text : status_text(error)));
	service->host.reply(service->host.context, exchange, &reply, NULL);
}

static int access_check(struct call *call, const struct message_operation *operation)
{
	const struct peer *peer = &call->exchange->peer;
	const char *class = access_name(operation->access);
	char who[48] = "a peer whose user is not known";

	if (!(peer->refused & UINT32_C(1) << operation->access))
		return 0;
	call->service->counters.requests_denied++;
	if (peer->remote && !peer->name[0])
		return reason_set(&call->reason, -EACCES, "a remote peer without a token may not %s ('%s' is a request of that class): "
		                  "give it one (EMAD_TOKEN_FILE there, token-file= in [network] here)", class, operation->name);
	if (peer->remote)
		return reason_set(&call->reason, -EACCES, "'%s' may not %s ('%s' is a request of that class): its line in token-file= "
		                  "grants less", peer->name, class, operation->name);
	if (peer->uid >= 0)
		snprintf(who, sizeof who, "uid %" PRId64, peer->uid);
	return reason_set(&call->reason, -EACCES, "%s may not %s ('%s' is a request of that class): add it to %s-users=, or a "
	                  "group of it to %s-groups=, in [access] of the daemon's configuration",
	                  who, class, operation->name, class, class);
}

/*
 * A service that ends writes what it has, and whoever changes that once more would have it written again. What has begun
 * is finished.
 */
static int ending_check(struct call *call)
{
	if (!call->service->stopping || call->retried || message_operations[call->request->operation].access != ACCESS_ADMIN)
		return 0;
	return reason_set(&call->reason, STATUS_ESHUTDOWN, "the daemon is shutting down");
}

int call_handle(struct call *call, const uint8_t *header, size_t header_bytes)
{
	struct service *service = call->service;
	struct request request;
	int result = request_decode(service->unpacked, header, header_bytes, &request, &call->reason);

	call->request = &request;
	if (!result)
		result = access_check(call, &message_operations[request.operation]);
	if (!result && message_operations[request.operation].needs_attach && !call->exchange->peer.attach)
		result = reason_set(&call->reason, STATUS_EARGUMENT,
		                    "'%s' is answered on the attach socket only, because its reply carries a file "
		                    "descriptor: connect to attach.sock beside this socket",
		                    message_operations[request.operation].name);
	if (!result)
		result = ending_check(call);
	if (!result)
		result = handlers[request.operation](call);
	if (result < 0)
		call_fail(service, call->exchange, result, &call->reason);
	call->request = NULL;
	return result == CALL_PARK ? CALL_PARK : 0;
}
