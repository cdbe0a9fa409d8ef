/*
 * Leases and parts over the network. See loan.h.
 */
#include "daemon/core/loan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/remote.h"

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

/* ---- fetching ---------------------------------------------------------------------------------------------------- */

/* What one request fetches. */
struct fetch {
	const struct loan *loan;
	const uint8_t *image;
	const uint8_t *ranges; /* as in the body; NULL: there is one, that of the header */
	uint64_t range_count;
	enum dtype wire;
	uint64_t wire_bytes; /* of all */
};

static uint64_t number_read(const uint8_t *bytes)
{
	uint64_t number = 0;

	for (int i = 0; i < 8; i++)
		number = number << 8 | bytes[i];
	return number;
}

static void range_get(const struct call *call, const struct fetch *fetch, uint64_t index, uint64_t *ret_offset,
                      uint64_t *ret_count)
{
	const uint8_t *pair = fetch->ranges ? fetch->ranges + index * FETCH_RANGE_BYTES : NULL;

	*ret_offset = pair ? number_read(pair) : call->request->offset;
	*ret_count = pair ? number_read(pair + FETCH_RANGE_BYTES / 2) : call->request->count;
}

/* A range that has another dtype on the wire holds elements, and whole ones. */
static int range_check(struct call *call, const struct fetch *fetch, uint64_t offset, uint64_t count)
{
	const struct loan *loan = fetch->loan;

	if (offset > loan->region_bytes || count > loan->region_bytes - offset)
		return reason_set(&call->reason, STATUS_EARGUMENT, "%" PRIu64 " bytes from byte %" PRIu64 " on: the image has %" PRIu64,
		                  count, offset, loan->region_bytes);
	if (fetch->wire == RUNS_AS_KEPT)
		return 0;
	if (offset < loan->data_offset || !runs_is_boundary(&loan->runs, offset - loan->data_offset) ||
	    !runs_is_boundary(&loan->runs, offset + count - loan->data_offset))
		return reason_set(&call->reason, STATUS_EARGUMENT, "%" PRIu64 " bytes from byte %" PRIu64 " on do not begin and end "
		                  "between two elements, which begin at byte %" PRIu64 ": only these have another dtype", count,
		                  offset, loan->data_offset);
	return 0;
}

/* Finds the ranges of a request, and how much they are. */
static int fetch_measure(struct call *call, struct fetch *fetch)
{
	const struct loan *loan = fetch->loan;
	uint64_t offset, count, sum = 0;
	int error;

	fetch->ranges = call->body_bytes > 0 ? call->body : NULL;
	fetch->range_count = fetch->ranges ? call->body_bytes / FETCH_RANGE_BYTES : 1;
	if (fetch->ranges && (call->body_bytes % FETCH_RANGE_BYTES != 0 || fetch->range_count > FETCH_RANGE_COUNT_MAX))
		return reason_set(&call->reason, STATUS_ELIMIT, "%zu bytes of ranges: each has %d, and at most %d are possible",
		                  call->body_bytes, FETCH_RANGE_BYTES, FETCH_RANGE_COUNT_MAX);
	for (uint64_t i = 0; i < fetch->range_count; i++) {
		range_get(call, fetch, i, &offset, &count);
		if (count > CHUNK_BYTES_MAX - sum)
			return reason_set(&call->reason, STATUS_ELIMIT, "%" PRIu64 " bytes behind %" PRIu64 " others, at once at most %d "
			                  "are possible", count, sum, CHUNK_BYTES_MAX);
		error = range_check(call, fetch, offset, count);
		if (error)
			return error;
		sum += count;
		fetch->wire_bytes += fetch->wire == RUNS_AS_KEPT
					     ? count
					     : runs_wire_bytes(&loan->runs, fetch->wire, offset - loan->data_offset, count);
	}
	if (sum != call->request->count)
		return reason_set(&call->reason, STATUS_EARGUMENT, "count is %" PRIu64 ", and the ranges are of %" PRIu64 " bytes",
		                  call->request->count, sum);
	return 0;
}

/* Puts the ranges one behind the other, as they travel. */
static void fetch_gather(const struct call *call, const struct fetch *fetch, uint8_t *body)
{
	const struct loan *loan = fetch->loan;
	uint64_t offset, count;

	for (uint64_t i = 0; i < fetch->range_count; i++) {
		range_get(call, fetch, i, &offset, &count);
		if (fetch->wire == RUNS_AS_KEPT) {
			memcpy(body, fetch->image + offset, count);
			body += count;
			continue;
		}
		runs_narrow(&loan->runs, fetch->wire, offset - loan->data_offset, count, fetch->image + offset, body);
		body += runs_wire_bytes(&loan->runs, fetch->wire, offset - loan->data_offset, count);
	}
}

int fetch_handle(struct call *call)
{
	struct loan *loan = *loan_link(call->service, call->request->lease);
	struct fetch fetch = { .loan = loan };
	struct attachment attachment = { .fd = -1 };
	struct reply reply = { 0 };
	struct model *model = loan ? loan_model(call->service, loan) : NULL;
	uint8_t *body = NULL;
	int error;

	if (!model)
		return loan_revoked(call, call->request->lease);
	error = remote_wire(call, &fetch.wire);
	if (!error)
		error = fetch_measure(call, &fetch);
	if (error)
		return error;
	loan->due_ms = call->now->monotonic_ms + call->service->settings.keepalive_ms;
	/* Taken before anything else happens, and nothing writes to a slot while it is leased. */
	fetch.image = (const uint8_t *)model->versions.slots[loan->slot] + loan->region_offset;
	attachment.body_bytes = fetch.wire_bytes;
	if (fetch.ranges || fetch.wire != RUNS_AS_KEPT) {
		body = malloc(fetch.wire_bytes + 1);
		if (!body)
			return -ENOMEM;
		fetch_gather(call, &fetch, body);
	}
	attachment.body = body ? body : fetch.image + call->request->offset;
	call->service->counters.chunks_sent++;
	call_reply(call, &reply, &attachment);
	free(body);
	return 0;
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

void loan_release(struct service *service, uint64_t number)
{
	struct loan **link = loan_link(service, number);

	/* One that has ended before is what was wanted, too. */
	if (*link)
		loan_end(service, link);
}

void loan_tick(struct service *service, const struct instant *now)
{
	struct loan **link = &service->loans;

	while (*link) {
		if ((*link)->due_ms <= now->monotonic_ms)
			loan_end(service, link);
		else
			link = &(*link)->next;
	}
}

uint64_t loan_due_ms(const struct service *service)
{
	uint64_t due_ms = UINT64_MAX;

	for (const struct loan *loan = service->loans; loan; loan = loan->next)
		if (loan->due_ms < due_ms)
			due_ms = loan->due_ms;
	return due_ms;
}

void loan_finish(struct service *service)
{
	while (service->loans) {
		struct loan *next = service->loans->next;

		free(service->loans);
		service->loans = next;
	}
}
