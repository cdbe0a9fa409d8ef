/*
 * The host's table, memory, and clients of the service that are a few calls each.
 */
#include "tests/unit/fake_host.h"

#include "proto/safetensors.h"
#include "tests/unit/random_model.h"

#include <assert.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- the table --------------------------------------------------------------------------------------------------- */

static void memory_make(void *context, struct segment_order *order)
{
	struct fake_host *host = context;

	assert(host->order_count < FAKE_WAITING_MAX);
	host->orders[host->order_count++] = order;
}

static void identify(void *context, uint64_t peer, const char *name)
{
	struct fake_host *host = context;

	assert(peer != 0);
	snprintf(host->identified, sizeof host->identified, "%s", name);
}

static void withdraw(void *context, const uint8_t *base, uint64_t bytes)
{
	struct fake_host *host = context;

	assert(base && bytes > 0);
	host->withdraw_count++;
}

static void memory_drop(void *context, struct memory *memory)
{
	struct fake_host *host = context;
	struct fake_segment *segment = &host->segments[memory->fd / 2];

	if (host->crashing)
		return;
	assert(memory->base && segment->base == memory->base && segment->bytes == memory->bytes);
	assert(segment->segment == memory->segment);
	if (host->arena)
		segment->base = NULL;
	else if (host->keeps && host->kept_count < FAKE_KEPT_COUNT_MAX)
		host->kept[host->kept_count++] = segment->base;
	else
		free(segment->base);
	host->segment_count--;
	host->segment_bytes -= segment->bytes;
	*segment = (struct fake_segment){ 0 };
	*memory = (struct memory){ .fd = -1, .fd_read_only = -1 };
}

/* aligned_alloc is not among the functions that a failing heap wraps. */
static void *room_make(size_t bytes)
{
	size_t rounded = (bytes + 63) / 64 * 64;
	void *room = aligned_alloc(64, rounded ? rounded : 64);

	assert(room);
	memset(room, 0, rounded);
	return room;
}

static void reply(void *context, const struct exchange *exchange, const struct reply *message,
                  const struct attachment *attachment)
{
	struct fake_host *host = context;
	struct fake_reply *to;
	uint64_t number;
	int error;

	assert(exchange->tag_bytes == sizeof number);
	memcpy(&number, exchange->tag, sizeof number);
	to = &host->replies[number % FAKE_REPLY_COUNT];
	assert(to->number != number); /* one answer to each */
	free(to->body);
	memset(to, 0, sizeof *to);
	to->number = number;
	to->fd = attachment ? attachment->fd : -1;
	error = reply_encode(message, to->header, sizeof to->header, &to->header_bytes, NULL);
	assert(!error);
	assert(to->fd < 0 || exchange->peer.attach);
	if (attachment && attachment->body) {
		to->body = room_make(attachment->body_bytes + 1);
		memcpy(to->body, attachment->body, attachment->body_bytes);
	}
}

static void apply_start(void *context, struct apply *apply)
{
	struct fake_host *host = context;

	assert(host->apply_count < FAKE_WAITING_MAX);
	host->applies[host->apply_count++] = apply;
}

static void file_write(void *context, struct file_order *order)
{
	struct fake_host *host = context;

	assert(host->file_count < FAKE_WAITING_MAX);
	for (uint64_t i = 0; i < host->file_count; i++)
		assert(host->files[i] != order);
	host->files[host->file_count++] = order;
}

static uint64_t random_number(void *context)
{
	struct fake_host *host = context;

	return ++host->random;
}

static void event(void *context, const struct event *what)
{
	struct fake_host *host = context;

	host->event_count++;
	host->complaint_count += what->severity <= EVENT_WARNING;
	snprintf(host->event, sizeof host->event, "%s", what->text);
	if (what->error && strcmp(what->error, status_name(STATUS_ECORRUPT)) == 0) {
		host->damage_count++;
		snprintf(host->damage, sizeof host->damage, "%s", what->text);
	}
	host->event_kind = what->kind;
	host->event_step = what->step;
	host->event_pid = what->pid;
}

void fake_host_init(struct fake_host *host)
{
	memset(host, 0, sizeof *host);
	host->now = (struct instant){ .monotonic_ms = 1000000, .monotonic_us = 1000000000, .wall_us = 1700000000000000 };
	host->prompt = true;
	host->segments = host->segments_own;
	host->random = 1000000;
	host->clients = 41;
	host->settings = (struct settings){
		.memory_bytes_max = 1 << 30,
		.model_count_max = 16,
		.segment_count_max = 4096,
		.slot_count = 3,
		.stage_count = 2,
		.lease_min_ms = 30000,
		.wait_max_ms = 3600000,
		.keepalive_ms = 60000,
		.parked_count_max = 64,
		.parked_bytes_max = 4 * (uint64_t)MESSAGE_BODY_BYTES_MAX,
		.body_bytes_max = MESSAGE_BODY_BYTES_MAX,
	};
}

static int start(struct fake_host *host)
{
	const struct host table = {
		.context = host,
		.memory_make = memory_make,
		.memory_drop = memory_drop,
		.withdraw = withdraw,
		.identify = identify,
		.reply = reply,
		.apply_start = apply_start,
		.file_write = file_write,
		.random = random_number,
		.event = event,
	};

	host->facts = (struct service_facts){
		.agent = "emad test",
		.runtime_dir = "/run/emad",
		.state_dir = host->state_dir,
		.segments_dir = host->segments_dir,
		.uid = host->daemon_uid,
		.started_ms = 999000,
	};
	return service_create(&table, &host->settings, &host->facts, &host->service);
}

void fake_host_start(struct fake_host *host)
{
	ck_assert_int_eq(unpacked_create(&host->unpacked), 0);
	ck_assert_int_eq(start(host), 0);
}

struct fake_arena *fake_arena_create(void)
{
	struct fake_arena *arena = mmap(NULL, sizeof *arena, PROT_READ | PROT_WRITE,
	                                MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert(arena != MAP_FAILED);
	return arena;
}

void fake_arena_destroy(struct fake_arena *arena)
{
	munmap(arena, sizeof *arena);
}

void fake_host_use(struct fake_host *host, struct fake_arena *arena)
{
	host->arena = arena;
	host->segments = arena->segments;
}

uint32_t fake_host_segments(const struct fake_host *host, struct memory *ret_segments)
{
	uint32_t count = 0;

	for (int i = 0; i < FAKE_SEGMENT_COUNT_MAX; i++)
		if (host->segments[i].base)
			ret_segments[count++] = (struct memory){
				.base = host->segments[i].base,
				.bytes = host->segments[i].bytes,
				.segment = host->segments[i].segment,
				.fd = 2 * i,
				.fd_read_only = 2 * i + 1,
			};
	return count;
}

int fake_host_crash(struct fake_host *host)
{
	struct memory segments[FAKE_SEGMENT_COUNT_MAX];
	uint32_t count;
	int error;

	host->crashing = true;
	service_destroy(host->service);
	host->service = NULL;
	for (uint64_t i = 0; i < host->order_count; i++)
		free(host->orders[i]);
	host->order_count = host->apply_count = host->file_count = 0;
	error = start(host);
	host->crashing = false;
	/* Another process may have died there, which had gone further. */
	host->random += 1 << 20;
	host->segment_count = count = fake_host_segments(host, segments);
	host->segment_bytes = 0;
	for (uint32_t i = 0; i < count; i++)
		host->segment_bytes += segments[i].bytes;
	if (!error)
		error = service_adopt(host->service, &host->now, segments, count);
	if (error) {
		host->crashing = true;
		service_destroy(host->service);
		host->service = NULL;
		host->crashing = false;
	} else if (host->prompt) {
		fake_host_settle(host);
	}
	return error;
}

static void service_end(struct fake_host *host)
{
	while (host->apply_count > 0)
		fake_host_apply(host);
	while (host->file_count > 0)
		fake_host_write(host);
	service_destroy(host->service);
	for (uint64_t i = 0; i < host->order_count; i++)
		free(host->orders[i]);
	host->order_count = 0;
	ck_assert_uint_eq(host->segment_count, 0);
	ck_assert_uint_eq(host->segment_bytes, 0);
	unpacked_destroy(host->unpacked);
}

void fake_host_restart(struct fake_host *host)
{
	service_end(host);
	fake_host_start(host);
}

void fake_host_finish(struct fake_host *host)
{
	service_end(host);
	for (uint64_t i = 0; i < host->kept_count; i++)
		free(host->kept[i]);
	for (int i = 0; i < FAKE_REPLY_COUNT; i++)
		free(host->replies[i].body);
}

/* ---- what comes in ----------------------------------------------------------------------------------------------- */

uint64_t fake_host_ask(struct fake_host *host, uint64_t peer, const struct request *request, const void *body,
                       size_t body_bytes)
{
	struct exchange exchange = { .peer = { .id = peer, .attach = peer < 1000, .remote = host->remote, .uid = host->uid, .pid = (int64_t)peer } };
	uint8_t message[FAKE_HEADER_BYTES_MAX + ATTRIBUTES_BYTES_MAX];
	size_t bytes;
	uint64_t number = ++host->request_count;
	int error = request_encode(request, message, sizeof message, &bytes, NULL);

	assert(!error);
	exchange.peer.refused = host->refused;
	exchange.tag_bytes = sizeof number;
	memcpy(exchange.tag, &number, sizeof number);
	service_request(host->service, &host->now, &exchange, message + MESSAGE_PREFIX_BYTES,
	                bytes - MESSAGE_PREFIX_BYTES, body, body_bytes);
	if (host->prompt)
		fake_host_settle(host);
	return number;
}

static void text_keep(struct text text, char *kept, size_t capacity)
{
	kept[0] = '\0';
	if (text.bytes)
		ck_assert_int_eq(text_copy(text, kept, capacity), 0);
}

const struct fake_reply *fake_host_answer(struct fake_host *host, uint64_t number)
{
	struct fake_reply *at = &host->replies[number % FAKE_REPLY_COUNT];
	struct reason reason = { "" };

	ck_assert_uint_le(number, host->request_count);
	ck_assert_uint_lt(host->request_count - number, FAKE_REPLY_COUNT);
	if (at->number != number)
		return NULL;
	ck_assert_msg(reply_decode(host->unpacked, at->header + MESSAGE_PREFIX_BYTES,
	                           at->header_bytes - MESSAGE_PREFIX_BYTES, &at->reply, &reason) == 0,
	              "%s", reason.text);
	text_keep(at->reply.error, at->error, sizeof at->error);
	text_keep(at->reply.refusal, at->refusal, sizeof at->refusal);
	text_keep(at->reply.outcome, at->outcome, sizeof at->outcome);
	text_keep(at->reply.report, at->report, sizeof at->report);
	/* Whoever is refused is told why. */
	ck_assert(at->reply.status == 0 || at->error[0] != '\0');
	return at;
}

const struct fake_reply *fake_host_expect(struct fake_host *host, uint64_t number, int status)
{
	const struct fake_reply *at = fake_host_answer(host, number);

	ck_assert_msg(at != NULL, "request %lu still waits", (unsigned long)number);
	ck_assert_msg(at->reply.status == status, "%s, not %s: %s", status_name((int)at->reply.status),
	              status_name(status), at->error);
	return at;
}

static void segments_make(struct fake_host *host, struct segment_order *order)
{
	int next = 0;

	for (uint32_t i = 0; i < order->count; i++) {
		struct memory *memory = &order->memory[i];

		while (next < FAKE_SEGMENT_COUNT_MAX && host->segments[next].base)
			next++;
		assert(next < FAKE_SEGMENT_COUNT_MAX && memory->bytes % LAYOUT_PAGE_BYTES == 0);
		assert(!host->arena || memory->bytes <= FAKE_BLOCK_BYTES);
		memory->base = host->arena ? host->arena->blocks[next] : aligned_alloc(LAYOUT_PAGE_BYTES, memory->bytes);
		assert(memory->base);
		memset(memory->base, 0, memory->bytes);
		memory->fd = 2 * next;
		memory->fd_read_only = 2 * next + 1;
		host->segments[next] = (struct fake_segment){ NULL, memory->bytes, memory->segment };
		layout_barrier();
		host->segments[next].base = memory->base;
		host->segment_count++;
		host->segment_bytes += memory->bytes;
	}
}

void fake_host_make(struct fake_host *host)
{
	struct segment_order *order = host->orders[0];

	assert(host->order_count > 0);
	host->order_count--;
	memmove(host->orders, host->orders + 1, host->order_count * sizeof host->orders[0]);
	order->status = host->memory_status;
	if (order->status)
		reason_set(&order->reason, order->status, "9 bytes are needed and 3 are available");
	else
		segments_make(host, order);
	service_memory_made(host->service, &host->now, order);
}

void fake_host_apply(struct fake_host *host)
{
	struct apply *apply = host->applies[0];

	assert(host->apply_count > 0);
	host->apply_count--;
	memmove(host->applies, host->applies + 1, host->apply_count * sizeof host->applies[0]);
	for (uint32_t b = apply->plan->block_count; b-- > 0;)
		apply_block(apply, b);
	service_applied(host->service, &host->now, apply);
}

void fake_host_write(struct fake_host *host)
{
	struct file_order *order = host->files[0];

	assert(host->file_count > 0);
	host->file_count--;
	memmove(host->files, host->files + 1, host->file_count * sizeof host->files[0]);
	if (host->file_do) {
		host->file_do(order);
		service_file_written(host->service, &host->now, order);
		return;
	}
	for (uint32_t i = 0; i < order->count; i++) {
		order->items[i].status = host->file_status;
		if (host->file_status)
			reason_set(&order->items[i].reason, host->file_status, "writing 'it': it cannot be written");
	}
	if (order->work != FILE_KEEP) {
		order->status = host->file_status;
		/* What a test has said is left standing; a checkpoint's order is used again. */
		if (host->file_status && !order->reason.text[0])
			reason_set(&order->reason, 0, "writing 'it': it cannot be written");
		else if (!host->file_status && order->work == FILE_CHECKPOINT)
			order->reason.text[0] = '\0';
	}
	service_file_written(host->service, &host->now, order);
}

void fake_host_settle(struct fake_host *host)
{
	while (host->order_count > 0 || host->apply_count > 0 || (host->file_count > 0 && !host->holds_files)) {
		if (host->order_count > 0)
			fake_host_make(host);
		else if (host->apply_count > 0)
			fake_host_apply(host);
		else
			fake_host_write(host);
	}
}

void fake_host_pass(struct fake_host *host, uint64_t milliseconds)
{
	host->now.monotonic_ms += milliseconds;
	host->now.monotonic_us += milliseconds * 1000;
	host->now.wall_us += milliseconds * 1000;
}

void fake_host_wait(struct fake_host *host, uint64_t milliseconds)
{
	uint64_t end_ms = host->now.monotonic_ms + milliseconds, due_ms;
	int ticks = 0;

	while ((due_ms = service_due_ms(host->service)) <= end_ms) {
		ck_assert_int_lt(++ticks, 10000);
		if (due_ms > host->now.monotonic_ms)
			fake_host_pass(host, due_ms - host->now.monotonic_ms);
		service_tick(host->service, &host->now);
		if (host->prompt)
			fake_host_settle(host);
	}
	fake_host_pass(host, end_ms - host->now.monotonic_ms);
}

void fake_host_gone(struct fake_host *host, uint64_t peer)
{
	service_peer_gone(host->service, &host->now, peer);
	if (host->prompt)
		fake_host_settle(host);
}

uint8_t *fake_host_map(struct fake_host *host, int fd)
{
	ck_assert_int_ge(fd, 0);
	ck_assert_ptr_nonnull(host->segments[fd / 2].base);
	return host->segments[fd / 2].base;
}

/* ---- a trainer --------------------------------------------------------------------------------------------------- */

void fake_trainer_init(struct fake_trainer *trainer, struct fake_host *host, const char *model,
                       struct manifest *manifest)
{
	uint64_t random = ++host->clients;

	*trainer = (struct fake_trainer){
		.host = host,
		.model = model,
		.profiles = { "ema=yolo" },
		.profile_count = 1,
		.world = 1,
		.client = random,
		.peer = random,
	};
	ck_assert_int_eq(manifest_encode(manifest, &trainer->manifest, &trainer->manifest_bytes, NULL), 0);
	manifest_destroy(manifest);
}

void fake_trainer_finish(struct fake_trainer *trainer)
{
	free(trainer->manifest);
}

/* The members that most requests of a trainer have. */
static struct request request_of(const struct fake_trainer *trainer, enum operation operation)
{
	struct request request = { .operation = operation };

	request_set(&request, model, text_of(trainer->model));
	request_set(&request, rank, trainer->rank);
	if (operation != OP_REGISTER)
		request_set(&request, epoch, trainer->epoch);
	request_set(&request, client, trainer->client);
	return request;
}

uint64_t fake_trainer_register(struct fake_trainer *trainer)
{
	struct request request = request_of(trainer, OP_REGISTER);
	struct text_list list = { .count = trainer->profile_count };

	for (uint32_t p = 0; p < trainer->profile_count; p++)
		list.items[p] = text_of(trainer->profiles[p]);
	request_set(&request, profiles, list);
	request_set(&request, world, trainer->world);
	request_set(&request, sequence, ++trainer->sequence);
	if (trainer->resume)
		request_set(&request, resume, text_of(trainer->resume));
	if (trainer->attributes)
		request_set(&request, attributes, text_of(trainer->attributes));
	if (trainer->rewind)
		request_set(&request, rewind, text_of(trainer->rewind));
	if (trainer->policy)
		request_set(&request, policy, text_of(trainer->policy));
	if (trainer->guards)
		request_set(&request, guards, text_of(trainer->guards));
	if (trainer->start_step)
		request_set(&request, start_step, *trainer->start_step);
	if (trainer->stride > 0)
		request_set(&request, stride, trainer->stride);
	return fake_host_ask(trainer->host, trainer->peer + 1000, &request, trainer->manifest, trainer->manifest_bytes);
}

uint64_t fake_trainer_attach(struct fake_trainer *trainer)
{
	struct request request = request_of(trainer, OP_ATTACH);

	return fake_host_ask(trainer->host, trainer->peer, &request, NULL, 0);
}

void fake_trainer_registered(struct fake_trainer *trainer, uint64_t number)
{
	const struct fake_reply *answer = fake_host_expect(trainer->host, number, 0);

	ck_assert_uint_gt(answer->reply.epoch, trainer->epoch);
	trainer->epoch = answer->reply.epoch;
}

void fake_trainer_attached(struct fake_trainer *trainer, uint64_t number)
{
	const struct fake_reply *answer = fake_host_expect(trainer->host, number, 0);
	const struct stage_header *header;
	struct reason reason = { "" };

	trainer->stages = fake_host_map(trainer->host, answer->fd);
	header = (const void *)trainer->stages;
	ck_assert_msg(segment_header_check(&header->segment, SEGMENT_STAGE, answer->reply.segment_bytes, &reason) == 0,
	              "%s", reason.text);
	trainer->stage_stride = header->stage_stride;
}

void fake_trainer_join(struct fake_trainer *trainer)
{
	fake_trainer_registered(trainer, fake_trainer_register(trainer));
	fake_trainer_attached(trainer, fake_trainer_attach(trainer));
}

void *fake_trainer_stage(const struct fake_trainer *trainer, uint32_t stage)
{
	return trainer->stages + LAYOUT_PAGE_BYTES + stage * trainer->stage_stride;
}

uint64_t fake_trainer_push(struct fake_trainer *trainer, uint64_t step, uint32_t stage, bool wait)
{
	const struct fake_push push = { .step = step, .stage = stage, .waits = wait };

	return fake_trainer_push_with(trainer, &push);
}

uint64_t fake_trainer_push_with(struct fake_trainer *trainer, const struct fake_push *push)
{
	struct request request = request_of(trainer, OP_PUSH);

	request_set(&request, sequence, ++trainer->sequence);
	request_set(&request, step, push->step);
	request_set(&request, stage, push->stage);
	if (push->waits)
		request_set(&request, wait, true);
	if (push->metadata)
		request_set(&request, metadata, text_of(push->metadata));
	if (push->loss)
		request_set(&request, loss, *push->loss);
	if (push->profile) {
		request_set(&request, profile, text_of(push->profile));
		request_set(&request, updates, push->updates);
	}
	return fake_host_ask(trainer->host, trainer->peer + 1000, &request, NULL, 0);
}

static uint64_t wait_for(struct fake_trainer *trainer, enum operation operation, uint64_t timeout_ms)
{
	struct request request = request_of(trainer, operation);

	if (operation == OP_RESERVE)
		request_set(&request, sequence, trainer->sequence + 1);
	request_set(&request, timeout_ms, timeout_ms);
	return fake_host_ask(trainer->host, trainer->peer + 1000, &request, NULL, 0);
}

uint64_t fake_trainer_reserve(struct fake_trainer *trainer, uint64_t timeout_ms)
{
	return wait_for(trainer, OP_RESERVE, timeout_ms);
}

uint64_t fake_trainer_flush(struct fake_trainer *trainer, uint64_t timeout_ms)
{
	return wait_for(trainer, OP_FLUSH, timeout_ms);
}

/* ---- others ------------------------------------------------------------------------------------------------------ */

uint64_t fake_view(struct fake_host *host, uint64_t peer, const char *model, const char *profile, uint64_t min_step,
                   uint64_t timeout_ms)
{
	struct request request = { .operation = OP_VIEW };

	request_set(&request, model, text_of(model));
	if (profile)
		request_set(&request, profile, text_of(profile));
	if (min_step > 0) {
		request_set(&request, min_step, min_step);
		request_set(&request, timeout_ms, timeout_ms);
	}
	return fake_host_ask(host, peer, &request, NULL, 0);
}

uint64_t fake_profiles_set(struct fake_host *host, const char *model, const char *const *profiles, uint64_t timeout_ms)
{
	struct request request = { .operation = OP_PROFILE_SET };
	struct text_list list = { .count = 0 };

	while (profiles[list.count]) {
		list.items[list.count] = text_of(profiles[list.count]);
		list.count++;
	}
	request_set(&request, model, text_of(model));
	request_set(&request, profiles, list);
	request_set(&request, timeout_ms, timeout_ms);
	return fake_host_ask(host, 9999, &request, NULL, 0);
}

uint64_t fake_profile_remove(struct fake_host *host, const char *model, const char *profile, uint64_t timeout_ms)
{
	struct request request = { .operation = OP_PROFILE_REMOVE };

	request_set(&request, model, text_of(model));
	request_set(&request, profile, text_of(profile));
	request_set(&request, timeout_ms, timeout_ms);
	return fake_host_ask(host, 9999, &request, NULL, 0);
}

char *fake_metadata(struct fake_host *host, const struct fake_reply *view, const char *key)
{
	const uint8_t *image = fake_host_map(host, view->fd) + view->reply.region_offset;
	struct safetensors *tensors;
	const char *value;
	char *copy = NULL;

	ck_assert_int_eq(safetensors_parse(image, view->reply.region_bytes, view->reply.region_bytes, &tensors, NULL),
	                 0);
	value = safetensors_metadata_get(tensors, key);
	if (value)
		copy = strdup(value);
	safetensors_destroy(tensors);
	return copy;
}

uint64_t fake_query(struct fake_host *host, enum operation operation, const char *model)
{
	struct request request = { .operation = operation };

	if (model)
		request_set(&request, model, text_of(model));
	return fake_host_ask(host, 9999, &request, NULL, 0);
}

const uint8_t *fake_tensor(struct fake_host *host, const struct fake_reply *view, const char *name)
{
	const uint8_t *image = fake_host_map(host, view->fd) + view->reply.region_offset;
	struct safetensors *tensors;
	const struct safetensors_entry *entry;
	const uint8_t *bytes = NULL;
	struct reason reason = { "" };

	ck_assert_msg(safetensors_parse(image, view->reply.region_bytes, view->reply.region_bytes, &tensors, &reason) ==
	                      0,
	              "%s", reason.text);
	entry = safetensors_find(tensors, name);
	if (entry)
		bytes = image + entry->offset;
	safetensors_destroy(tensors);
	return bytes;
}

struct manifest *fake_manifest(uint32_t rank, uint32_t world)
{
	static const struct tensor_row row = { "w", DTYPE_F32, false, SHAPE(FAKE_ELEMENTS / 2, 2) };

	return manifest_shard(&row, 1, rank, world);
}

void fake_trainer_fill(const struct fake_trainer *trainer, uint32_t stage, float value)
{
	float *elements = fake_trainer_stage(trainer, stage);

	for (uint32_t i = 0; i < FAKE_ELEMENTS / trainer->world; i++)
		elements[i] = value;
}

float fake_average(struct fake_host *host, const char *model, const char *profile)
{
	const uint64_t peer = 900;
	const struct fake_reply *view = fake_host_expect(host, fake_view(host, peer, model, profile, 0, 0), 0);
	const float *elements = (const void *)fake_tensor(host, view, "w");
	float average;

	ck_assert_ptr_nonnull(elements);
	average = elements[0];
	for (uint32_t i = 0; i < FAKE_ELEMENTS; i++)
		ck_assert_msg(elements[i] == average, "element %u is %g, the first is %g", i, (double)elements[i],
		              (double)average);
	fake_host_gone(host, peer);
	return average;
}
