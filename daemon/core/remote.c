/*
 * Claims, chunks and leases over the network. See remote.h.
 */
#include "daemon/core/remote.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- trainers ---------------------------------------------------------------------------------------------------- */

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

/* The dtype of the wire. What a snapshot loses is lost for good, so that the small ones are for readers alone. */
static int wire_find(struct call *call, enum dtype *ret_wire)
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
		error = wire_find(call, &landing->wire);
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
	if (request->stage >= model->stage_count || model->records[index].stages[request->stage].state != STAGE_FREE)
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

/* ---- readers ----------------------------------------------------------------------------------------------------- */

static struct loan **loan_link(struct service *service, uint64_t number)
{
	struct loan **link = &service->loans;

	while (*link && (*link)->number != number)
		link = &(*link)->next;
	return link;
}

static struct model *loan_model(const struct service *service, const struct loan *loan)
{
	struct model *model = service_model(service, loan->model);

	return model && versions_holds(&model->versions, loan->peer, loan->slot) ? model : NULL;
}

static void loan_end(struct service *service, struct loan **link)
{
	struct loan *loan = *link;
	struct model *model = service_model(service, loan->model);

	if (model && versions_release(&model->versions, loan->peer) > 0)
		service_touch(service, model);
	*link = loan->next;
	service->loan_count--;
	free(loan);
}

static int loan_revoked(struct call *call, uint64_t number)
{
	return reason_set(&call->reason, STATUS_EREVOKED, "lease %016" PRIx64 " has ended: its memory was needed for an update, or "
	                  "nothing was heard of its reader for %" PRIu64 " ms (keepalive); open a newer version", number,
	                  call->service->settings.keepalive_ms);
}

/* Spaces fill the header up: nobody needs to fetch them. */
static uint64_t header_bytes(const uint8_t *image, uint64_t data_offset)
{
	while (data_offset > 0 && image[data_offset - 1] == ' ')
		data_offset--;
	return data_offset;
}

static void lease_reply(struct call *call, const struct model *model, const struct loan *loan)
{
	const struct slot_header *slot = model->versions.slots[loan->slot];
	struct reply reply = { 0 };

	reply_set(&reply, version, loan->version);
	reply_set(&reply, step, slot->step);
	reply_set(&reply, updates, slot->profiles[loan->profile].updates);
	reply_set(&reply, decay, slot->profiles[loan->profile].decay);
	reply_set(&reply, published_us, slot->published_us);
	reply_set(&reply, region_bytes, loan->region_bytes);
	reply_set(&reply, header_bytes, header_bytes((const uint8_t *)slot + loan->region_offset, loan->data_offset));
	call_reply(call, &reply, NULL);
}

static int loan_make(struct call *call, struct model *model, uint32_t profile, struct loan **ret_loan)
{
	struct service *service = call->service;
	const struct geometry *geometry = model_newest_geometry(model);
	struct loan *loan;
	int error;

	if (service->loan_count >= LOAN_COUNT_MAX)
		return reason_set(&call->reason, STATUS_EBUSY, "%" PRIu64 " leases of remote readers are the limit of %d: try again "
		                  "later", service->loan_count, LOAN_COUNT_MAX);
	loan = malloc(sizeof *loan);
	if (!loan)
		return -ENOMEM;
	*loan = (struct loan){
		.next = service->loans,
		.number = call->request->lease,
		.peer = PEER_LOAN_FIRST + service->loan_next,
		.model = model->id,
		.profile = profile,
		.version = versions_newest(&model->versions)->version,
		.region_offset = geometry->region_offsets[profile],
		.region_bytes = geometry->images[profile]->image_bytes,
		.data_offset = geometry->images[profile]->data_offset,
		.runs = geometry->images[profile]->runs,
		.due_ms = call->now->monotonic_ms + service->settings.keepalive_ms,
	};
	error = versions_lease(&model->versions, loan->peer, call->now->monotonic_ms, &loan->slot);
	if (error) {
		free(loan);
		return error;
	}
	service->loan_next++;
	service->loan_count++;
	service->loans = loan;
	*ret_loan = loan;
	return 0;
}

int lease_handle(struct call *call)
{
	uint64_t number = call->request->lease;
	struct loan *loan = *loan_link(call->service, number);
	struct model *model;
	uint32_t profile;
	int result;

	if (number == 0)
		return reason_set(&call->reason, STATUS_EARGUMENT, "lease must not be 0");
	if (loan) {
		model = loan_model(call->service, loan);
		if (!model)
			return loan_revoked(call, number);
		loan->due_ms = call->now->monotonic_ms + call->service->settings.keepalive_ms;
		lease_reply(call, model, loan);
		return 0;
	}
	result = call_version(call, &model, &profile);
	if (!result)
		result = loan_make(call, model, profile, &loan);
	if (result)
		return result;
	call->service->counters.views_opened++;
	lease_reply(call, model, loan);
	return 0;
}

/* A part whose wider elements travel in another dtype; header and odd ends do not. */
static int fetch_narrow(struct call *call, const struct loan *loan, enum dtype wire, const uint8_t *image)
{
	const uint64_t offset = call->request->offset, count = call->request->count;
	struct attachment attachment = { .fd = -1 };
	struct reply reply = { 0 };
	uint8_t *body;

	if (offset < loan->data_offset || !runs_is_boundary(&loan->runs, offset - loan->data_offset) ||
	    !runs_is_boundary(&loan->runs, offset + count - loan->data_offset))
		return reason_set(&call->reason, STATUS_EARGUMENT, "%" PRIu64 " bytes from byte %" PRIu64 " on do not begin and end "
		                  "between two elements, which begin at byte %" PRIu64 ": only these have another dtype", count,
		                  offset, loan->data_offset);
	attachment.body_bytes = runs_wire_bytes(&loan->runs, wire, offset - loan->data_offset, count);
	body = malloc(attachment.body_bytes + 1);
	if (!body)
		return -ENOMEM;
	runs_narrow(&loan->runs, wire, offset - loan->data_offset, count, image + offset, body);
	attachment.body = body;
	call_reply(call, &reply, &attachment);
	free(body);
	return 0;
}

int fetch_handle(struct call *call)
{
	const struct request *request = call->request;
	struct loan *loan = *loan_link(call->service, request->lease);
	struct attachment attachment = { .fd = -1 };
	struct reply reply = { 0 };
	struct model *model = loan ? loan_model(call->service, loan) : NULL;
	const uint8_t *image;
	enum dtype wire;
	int error;

	if (!model)
		return loan_revoked(call, request->lease);
	if (request->count > CHUNK_BYTES_MAX)
		return reason_set(&call->reason, STATUS_ELIMIT, "%" PRIu64 " bytes at once, at most %d are possible", request->count,
		                  CHUNK_BYTES_MAX);
	if (request->offset > loan->region_bytes || request->count > loan->region_bytes - request->offset)
		return reason_set(&call->reason, STATUS_EARGUMENT, "%" PRIu64 " bytes from byte %" PRIu64 " on: the image has %" PRIu64,
		                  request->count, request->offset, loan->region_bytes);
	error = wire_find(call, &wire);
	if (error)
		return error;
	loan->due_ms = call->now->monotonic_ms + call->service->settings.keepalive_ms;
	/* Copied before anything else happens, and nothing writes to a slot while it is leased. */
	image = (const uint8_t *)model->versions.slots[loan->slot] + loan->region_offset;
	if (wire != RUNS_AS_KEPT) {
		error = fetch_narrow(call, loan, wire, image);
		if (!error)
			call->service->counters.chunks_sent++;
		return error;
	}
	attachment.body = image + request->offset;
	attachment.body_bytes = request->count;
	call->service->counters.chunks_sent++;
	call_reply(call, &reply, &attachment);
	return 0;
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

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
	struct loan **link;
	int error = 0;

	if (call->request->present & REQUEST_HAS(lease)) {
		link = loan_link(call->service, call->request->lease);
		/* One that has ended before is what was wanted, too. */
		if (*link)
			loan_end(call->service, link);
	} else {
		error = claim_release(call);
	}
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
	struct loan **link = &service->loans;

	while (*link) {
		if ((*link)->due_ms <= now->monotonic_ms)
			loan_end(service, link);
		else
			link = &(*link)->next;
	}
	if (service->away_due_ms != 0 && service->away_due_ms <= now->monotonic_ms)
		holders_tick(service, now);
}

uint64_t remote_due_ms(const struct service *service)
{
	uint64_t due_ms = service->away_due_ms != 0 ? service->away_due_ms : UINT64_MAX;

	for (const struct loan *loan = service->loans; loan; loan = loan->next)
		if (loan->due_ms < due_ms)
			due_ms = loan->due_ms;
	return due_ms;
}

void remote_finish(struct service *service)
{
	while (service->loans) {
		struct loan *next = service->loans->next;

		free(service->loans);
		service->loans = next;
	}
}
