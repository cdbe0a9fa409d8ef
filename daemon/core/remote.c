/*
 * Claims and chunks over the network. See remote.h.
 */
#include "daemon/core/remote.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/loan.h"

/* The holder of a rank was heard. */
static void holder_note(const struct call *call, struct rank *rank)
{
	rank->attached_peer = call->exchange->peer.id;
	rank->is_remote = true;
	rank->away_due_ms = 0;
}

int claim_handle(struct call *call)
{
	struct reply reply = { 0 };
	struct model *model;
	uint32_t index;
	int result = call_stages(call, &model, &index);

	if (!result || result == CALL_PARK)
		holder_note(call, &model->ranks[index]);
	if (result)
		return result;
	reply_set(&reply, stage_count, model->stage_count);
	call_reply(call, &reply, NULL);
	return 0;
}

/* Where a chunk goes. */
struct landing {
	struct rank *rank;
	struct inflow *inflow;
	uint8_t *place;
	uint64_t bytes;  /* there */
	enum dtype wire; /* in which it travels */
	bool is_narrow;  /* it has to be widened on its way there */
};

/* Ends what other connections still receive into a stage. */
static void stage_withdraw(const struct service *service, const struct model *model, uint32_t rank, uint32_t stage)
{
	uint64_t bytes = model->ranks[rank].manifest->stage_bytes, stride, all;

	(void)layout_stage_bytes(bytes, model->stage_count, &stride, &all);
	service->host.withdraw(service->host.context, model->ranks[rank].stage.base + LAYOUT_PAGE_BYTES + stage * stride,
	                       bytes);
}

/* Begins a snapshot where the chunk is the first of it. */
static int inflow_open(struct call *call, struct model *model, uint32_t rank, uint32_t stage)
{
	struct inflow *inflow = &model->ranks[rank].inflows[stage];
	uint64_t sequence = call->request->sequence;

	if (sequence == 0 || sequence < inflow->sequence)
		return reason_set(&call->reason, STATUS_EARGUMENT, "a chunk of snapshot %" PRIu64 " comes too late: stage %" PRIu32
		                  " receives snapshot %" PRIu64, sequence, stage, inflow->sequence);
	if (sequence == inflow->sequence)
		return 0;
	stage_withdraw(call->service, model, rank, stage);
	return inflow_begin(inflow, sequence, model->ranks[rank].manifest->stage_bytes);
}

int remote_wire(struct call *call, enum dtype *ret_wire)
{
	const struct request *request = call->request;
	const bool sends = request->operation == OP_CHUNK;
	char name[16] = "";
	enum dtype wire;

	*ret_wire = RUNS_AS_KEPT;
	if (!(request->present & REQUEST_HAS(dtype)))
		return 0;
	if (text_copy(request->dtype, name, sizeof name) != 0 || !dtype_parse(name, &wire) || !dtype_is_float(wire) ||
	    wire == DTYPE_F64 || (sends && dtype_bytes(wire) < 2))
		return reason_set(&call->reason, STATUS_EARGUMENT, "%s cannot travel as '%.*s', but as F32, F16%s",
		                  sends ? "snapshots" : "averages", text_shown_bytes(request->dtype), request->dtype.bytes,
		                  sends ? " or BF16" : ", BF16, F8_E4M3 or F8_E5M2");
	*ret_wire = wire;
	return 0;
}

/* Checks a chunk's place in the snapshot, and its size. */
static int landing_measure(struct call *call, const struct manifest *manifest, uint64_t body_bytes,
                           struct landing *landing)
{
	uint64_t offset = call->request->offset, wanted;
	int error = inflow_check(manifest->stage_bytes, offset, &landing->bytes, &call->reason);

	if (!error)
		error = remote_wire(call, &landing->wire);
	if (error)
		return error;
	wanted = runs_wire_bytes(&manifest->runs, landing->wire, offset, landing->bytes);
	if (body_bytes != wanted)
		return reason_set(&call->reason, STATUS_EARGUMENT, "the chunk at byte %" PRIu64 " has %" PRIu64 " bytes, not %" PRIu64,
		                  offset, wanted, body_bytes);
	landing->is_narrow = wanted != landing->bytes;
	return 0;
}

static int landing_find(struct call *call, uint64_t body_bytes, struct landing *ret_landing)
{
	const struct request *request = call->request;
	struct landing landing = { .bytes = 0 };
	uint64_t stride, all;
	struct model *model;
	struct rank *rank;
	uint32_t index;
	int error = call_rank(call, &model, &index);

	if (!error)
		error = intake_holds(&model->records[index], request->client, request->epoch, &call->reason);
	if (error)
		return error;
	rank = &model->ranks[index];
	if (!rank->stage.base)
		return reason_set(&call->reason, -EAGAIN, "rank %" PRIu32 " of '%s' has no stages: send claim first", index,
		                  model->name);
	if (request->stage >= model->stage_count || stage_state(&model->records[index].stages[request->stage]) != STAGE_FREE)
		return reason_set(&call->reason, STATUS_EARGUMENT, "stage %" PRIu64 " of rank %" PRIu32 " of '%s' is not free: it "
		                  "has %" PRIu32, request->stage, index, model->name, model->stage_count);
	error = landing_measure(call, rank->manifest, body_bytes, &landing);
	if (!error)
		error = inflow_open(call, model, index, (uint32_t)request->stage);
	if (error)
		return error;
	(void)layout_stage_bytes(rank->manifest->stage_bytes, model->stage_count, &stride, &all);
	landing.rank = rank;
	landing.inflow = &rank->inflows[request->stage];
	landing.place = rank->stage.base + LAYOUT_PAGE_BYTES + request->stage * stride + request->offset;
	*ret_landing = landing;
	return 0;
}

uint8_t *service_body_place(struct service *service, const struct instant *now, const struct exchange *exchange,
                            const uint8_t *header, size_t header_bytes, uint64_t body_bytes)
{
	struct call call = { .service = service, .now = now, .exchange = exchange };
	struct landing landing;
	struct request request;

	/* What is wrong is said when the message is whole. */
	if (request_decode(service->unpacked, header, header_bytes, &request, NULL) != 0 || request.operation != OP_CHUNK ||
	    exchange->peer.refused & UINT32_C(1) << message_operations[OP_CHUNK].access)
		return NULL;
	call.request = &request;
	/*
	 * What has to be widened comes beside its place: of the same chunk, sent twice, one may break off in the middle when
	 * the other one is there already.
	 */
	return landing_find(&call, body_bytes, &landing) == 0 && !landing.is_narrow ? landing.place : NULL;
}

int chunk_handle(struct call *call)
{
	struct reply reply = { 0 };
	struct landing landing;
	int error = landing_find(call, call->body_bytes, &landing);

	if (error)
		return error;
	/* Mostly it is there already. */
	if (landing.is_narrow)
		runs_widen(&landing.rank->manifest->runs, landing.wire, call->request->offset, landing.bytes, call->body,
		           landing.place);
	else if (call->body != landing.place)
		memcpy(landing.place, call->body, call->body_bytes);
	inflow_take(landing.inflow, call->request->offset);
	holder_note(call, landing.rank);
	call->service->counters.chunks_received++;
	reply_set(&reply, missing, inflow_missing(landing.inflow));
	call_reply(call, &reply, NULL);
	return 0;
}

int remote_arrived(struct call *call, struct model *model, uint32_t rank)
{
	const struct request *request = call->request;
	uint64_t bytes = model->ranks[rank].manifest->stage_bytes, missing = 0;
	const struct inflow *inflow;
	struct reply reply = { 0 };

	if (request->stage >= model->stage_count)
		return 0; /* refused for that */
	inflow = &model->ranks[rank].inflows[request->stage];
	if (inflow_whole(inflow, request->sequence, bytes))
		return 0;
	if (inflow->sequence == request->sequence)
		missing = inflow_missing(inflow);
	reason_set(&call->reason, -EAGAIN, "%" PRIu64 " bytes of the snapshot have come, of %" PRIu64 ": send the chunks from "
	           "there on, then push again", missing, bytes);
	reply_set(&reply, status, -EAGAIN);
	reply_set(&reply, missing, missing);
	reply_set(&reply, error, text_of(call->reason.text));
	call->service->host.reply(call->service->host.context, call->exchange, &reply, NULL);
	return CALL_ANSWERED;
}

void remote_settle(const struct service *service, struct model *model, uint32_t rank, uint32_t stage)
{
	if (model->ranks[rank].inflows[stage].sequence != 0)
		stage_withdraw(service, model, rank, stage);
}

void remote_gone(struct service *service, const struct instant *now, struct rank *rank)
{
	rank->attached_peer = PEER_AWAY;
	rank->away_due_ms = now->monotonic_ms + service->settings.keepalive_ms;
	if (service->away_due_ms == 0 || rank->away_due_ms < service->away_due_ms)
		service->away_due_ms = rank->away_due_ms;
}

static int claim_release(struct call *call)
{
	const uint64_t needed = REQUEST_HAS(model) | REQUEST_HAS(rank) | REQUEST_HAS(epoch) | REQUEST_HAS(client);
	struct model *model;
	uint32_t index;
	int error;

	if ((call->request->present & needed) != needed)
		return reason_set(&call->reason, STATUS_EARGUMENT, "release names a lease, or model, rank, epoch and client");
	error = call_rank(call, &model, &index);
	if (!error)
		error = intake_holds(&model->records[index], call->request->client, call->request->epoch, &call->reason);
	if (error)
		return error;
	model->ranks[index].attached_peer = 0;
	model->ranks[index].away_due_ms = 0;
	service_touch(call->service, model);
	return 0;
}

int release_handle(struct call *call)
{
	struct reply reply = { 0 };
	int error = 0;

	if (call->request->present & REQUEST_HAS(lease))
		loan_release(call->service, call->request->lease);
	else
		error = claim_release(call);
	if (error)
		return error;
	call_reply(call, &reply, NULL);
	return 0;
}

/* Gives up the trainers whose time is over, and finds out when the next one's is. */
static void holders_tick(struct service *service, const struct instant *now)
{
	service->away_due_ms = 0;
	for (struct model *model = service->models; model; model = model->next) {
		for (uint32_t r = 0; r < model->world; r++) {
			struct rank *rank = &model->ranks[r];

			if (rank->away_due_ms == 0)
				continue;
			if (rank->away_due_ms > now->monotonic_ms) {
				if (service->away_due_ms == 0 || rank->away_due_ms < service->away_due_ms)
					service->away_due_ms = rank->away_due_ms;
				continue;
			}
			rank->away_due_ms = 0;
			rank->attached_peer = 0;
			service_touch(service, model);
		}
	}
}

void remote_tick(struct service *service, const struct instant *now)
{
	loan_tick(service, now);
	if (service->away_due_ms != 0 && service->away_due_ms <= now->monotonic_ms)
		holders_tick(service, now);
}

uint64_t remote_due_ms(const struct service *service)
{
	uint64_t due_ms = service->away_due_ms != 0 ? service->away_due_ms : UINT64_MAX, loan_ms = loan_due_ms(service);

	return loan_ms < due_ms ? loan_ms : due_ms;
}
