/*
 * Registering a rank, attaching to its stages, and doing so again: see registration.h.
 */
#include "client/registration.h"

#include "client/attach.h"
#include "client/remote.h"
#include "client/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static const char *const RESUME_NAMES[] = {
	[EMAD_RESUME_AUTO] = "auto",
	[EMAD_RESUME_NEVER] = "never",
	[EMAD_RESUME_MUST] = "must",
	[EMAD_RESUME_ADAPT] = "adapt",
};

static const char *const REWIND_NAMES[] = {
	[EMAD_REWIND_REFUSE] = "refuse",
	[EMAD_REWIND_CONTINUE] = "continue",
	[EMAD_REWIND_BACK] = "back",
};

static int registration_profiles(struct registration *registration, const struct emad_trainer_options *options,
                                 struct reason *reason)
{
	static const char *const fallback[] = {"ema=yolo"};
	const char *const *profiles = options->profiles ? options->profiles : fallback;
	uint32_t count = options->profiles ? options->profile_count : 1;

	if (count > PROFILE_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "%u profiles: a model has 1 to %d", count, PROFILE_COUNT_MAX);
	registration->profiles = calloc(PROFILE_COUNT_MAX, sizeof(*registration->profiles));
	if (!registration->profiles)
		return -ENOMEM;
	registration->profile_count = count;
	for (uint32_t i = 0; i < count; i++) {
		if (!profiles[i])
			return reason_set(reason, STATUS_EARGUMENT, "profile %u is NULL", i);
		registration->profiles[i] = strdup(profiles[i]);
		if (!registration->profiles[i])
			return -ENOMEM;
	}
	return 0;
}

int registration_init(struct registration *registration, struct emad_client *client, const char *model,
                      const struct emad_trainer_options *options, struct reason *reason)
{
	int code;

	*registration = (struct registration){
		.client = client,
		.start_step = options->start_step,
		.rank = options->rank,
		.world = options->world ? options->world : 1,
		.rewind = options->rewind,
		.policy = options->policy,
		.stride = options->stride,
		.connection = -1,
	};
	code = client_model_check(model, reason);
	if (code)
		return code;
	if (registration->world > WORLD_MAX)
		return reason_set(reason, STATUS_ELIMIT, "a world of %u ranks: at most %d", registration->world, WORLD_MAX);
	if (registration->rank >= registration->world)
		return reason_set(reason, STATUS_EARGUMENT, "rank %u of a world of %u: ranks count from 0",
		                  registration->rank, registration->world);
	if ((unsigned)options->resume > EMAD_RESUME_ADAPT)
		return reason_set(reason, STATUS_EARGUMENT, "resume is %d", (int)options->resume);
	if ((unsigned)options->rewind > EMAD_REWIND_BACK)
		return reason_set(reason, STATUS_EARGUMENT, "rewind is %d", (int)options->rewind);
	if ((unsigned)options->policy > EMAD_POLICY_COALESCE)
		return reason_set(reason, STATUS_EARGUMENT, "policy is %d", (int)options->policy);
	if (options->attributes && strlen(options->attributes) > ATTRIBUTES_BYTES_MAX)
		return reason_set(reason, STATUS_ELIMIT, "the attributes have %zu bytes, %d are possible",
		                  strlen(options->attributes), ATTRIBUTES_BYTES_MAX);
	registration->model = strdup(model);
	if (options->attributes)
		registration->attributes = strdup(options->attributes);
	if (options->guards)
		registration->guards = strdup(options->guards);
	if (!registration->model || (options->attributes && !registration->attributes) ||
	    (options->guards && !registration->guards))
		return -ENOMEM;
	return registration_profiles(registration, options, reason);
}

static int tensor_add(struct manifest *manifest, const struct emad_tensor *tensor, size_t index, struct reason *reason)
{
	static const uint64_t scalar[1];
	const uint64_t *shape = tensor->shape ? tensor->shape : scalar;
	int code;

	if (!tensor->name || (!tensor->shape && tensor->dimension_count > 0))
		return reason_set(reason, STATUS_EARGUMENT, "tensor %zu has no %s", index, tensor->name ? "shape" : "name");
	if ((unsigned)tensor->dtype >= DTYPE_COUNT)
		return reason_set(reason, STATUS_EARGUMENT, "tensor %zu '%s': there is no dtype %d", index, tensor->name,
		                  (int)tensor->dtype);
	if (tensor->flags & ~(uint32_t)EMAD_TENSOR_BUFFER)
		return reason_set(reason, STATUS_EARGUMENT, "tensor %zu '%s': unknown flags %#x", index, tensor->name,
		                  tensor->flags);
	if (!tensor->offset != !tensor->extent)
		return reason_set(reason, STATUS_EARGUMENT,
		                  "tensor %zu '%s': a box needs both offset and extent, the whole tensor neither", index,
		                  tensor->name);
	code = manifest_add_tensor(manifest, tensor->name, strlen(tensor->name), (enum dtype)tensor->dtype,
	                           tensor->flags & EMAD_TENSOR_BUFFER, shape, tensor->dimension_count, reason);
	return code ? code : manifest_add_piece(manifest, tensor->offset, tensor->extent, reason);
}

int registration_tensors(struct registration *registration, const struct emad_tensor *tensors, size_t tensor_count,
                         struct reason *reason)
{
	int code = manifest_create(&registration->manifest);

	for (size_t i = 0; code == 0 && i < tensor_count; i++)
		code = tensor_add(registration->manifest, &tensors[i], i, reason);
	return code ? code : manifest_finish(registration->manifest, reason);
}

void stage_map_finish(struct stage_map *map)
{
	if (map->bytes)
		munmap(map->bytes, map->segment_bytes);
	*map = (struct stage_map){0};
}

uint8_t *stage_map_stage(const struct stage_map *map, uint32_t stage)
{
	return map->bytes + LAYOUT_PAGE_BYTES + stage * map->stage_stride;
}

static void registration_detach(struct registration *registration)
{
	attach_close(registration->connection);
	registration->connection = -1;
	registration->stands = false;
}

void registration_finish(struct registration *registration)
{
	if (!registration->client)
		return;
	if (registration->stands && !registration->fenced)
		remote_leave(registration);
	registration_detach(registration);
	stage_map_finish(&registration->map);
	for (uint32_t i = 0; i < registration->profile_count; i++)
		free(registration->profiles[i]);
	free(registration->profiles);
	free(registration->attributes);
	free(registration->guards);
	free(registration->model);
	manifest_destroy(registration->manifest);
	*registration = (struct registration){.connection = -1};
}

bool registration_alive(const struct registration *registration)
{
	if (remote_is(registration->client))
		return registration->stands;
	return registration->connection >= 0 && !attach_hung_up(registration->connection);
}

/* Whether the segment is what the registration needs: everything is checked before the first byte is written. */
static int stage_map_check(struct stage_map *map, const struct manifest *manifest, struct reason *reason)
{
	const struct stage_header *header = (const struct stage_header *)map->bytes;
	uint64_t room = map->segment_bytes - LAYOUT_PAGE_BYTES;
	int code = segment_header_check(&header->segment, SEGMENT_STAGE, map->segment_bytes, reason);

	if (code)
		return code;
	map->stage_count = header->stage_count;
	map->stage_stride = header->stage_stride;
	if (header->stage_bytes != manifest->stage_bytes)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "the stage holds %" PRIu64 " bytes, the tensors have %" PRIu64, header->stage_bytes,
		                  manifest->stage_bytes);
	if (map->stage_count < 1 || map->stage_count > STAGE_COUNT_MAX || map->stage_stride < manifest->stage_bytes ||
	    map->stage_stride % LAYOUT_PAGE_BYTES || map->stage_stride > room / map->stage_count)
		return reason_set(reason, STATUS_ECORRUPT,
		                  "%u stages of %" PRIu64 " bytes do not fit into a segment of %" PRIu64, map->stage_count,
		                  map->stage_stride, map->segment_bytes);
	return 0;
}

/*
 * A free address at which huge pages can be mapped; the daemon makes the memory of them where it can. A hint, no more:
 * where another thread takes the place first, the kernel chooses.
 */
static void *huge_page_place(size_t bytes)
{
	const size_t huge_bytes = 2 * 1024 * 1024;
	void *room = mmap(NULL, bytes + huge_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return NULL;
	munmap(room, bytes + huge_bytes);
	return (void *)(((uintptr_t)room + huge_bytes - 1) & ~(uintptr_t)(huge_bytes - 1));
}

static int stage_map_init(struct stage_map *map, int fd, const struct manifest *manifest, struct reason *reason)
{
	struct stat facts;
	void *bytes;
	int code;

	if (fstat(fd, &facts) < 0)
		return reason_set(reason, -errno, "the stage segment: %s", strerrordesc_np(errno));
	if (facts.st_size < (off_t)LAYOUT_PAGE_BYTES)
		return reason_set(reason, STATUS_ECORRUPT, "the stage segment has %lld bytes, less than a header",
		                  (long long)facts.st_size);
	bytes = mmap(huge_page_place((size_t)facts.st_size), (size_t)facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
	             0);
	if (bytes == MAP_FAILED)
		return reason_set(reason, -errno, "cannot map %lld bytes of stages: %s", (long long)facts.st_size,
		                  strerrordesc_np(errno));
	*map = (struct stage_map){.bytes = bytes, .segment_bytes = (uint64_t)facts.st_size};
	code = stage_map_check(map, manifest, reason);
	if (code) {
		stage_map_finish(map);
		return code;
	}
	/* Pages are found now and not in the first training steps; older kernels cannot, which is no failure. */
	madvise(bytes, (size_t)facts.st_size, MADV_POPULATE_WRITE);
	return 0;
}

/* Opens the connection that stands for the registration and maps the stages into *ret_map. */
static int registration_attach(struct registration *registration, int64_t deadline_ms, struct stage_map *ret_map,
                               struct reason *reason)
{
	struct request request = {.operation = OP_ATTACH};
	struct client_answer answer;
	int connection, code;

	if (remote_is(registration->client)) {
		*ret_map = (struct stage_map){0};
		code = remote_claim(registration, deadline_ms, ret_map, reason);
		registration->stands = code == 0;
		return code;
	}
	code = client_attach_open(registration->client, deadline_ms, &connection, reason);
	if (code)
		return code;
	request_set(&request, model, text_of(registration->model));
	request_set(&request, rank, registration->rank);
	request_set(&request, epoch, registration->epoch);
	request_set(&request, client, registration->client->id);
	code = client_attach_call(connection, &request, deadline_ms, &answer, reason);
	if (code) {
		attach_close(connection);
		return code;
	}
	code = client_answer_code(&answer, reason);
	if (code == 0 && answer.fd < 0)
		code = reason_set(reason, STATUS_EPROTOCOL, "the daemon's answer to attach brings no file descriptor");
	if (code == 0)
		code = stage_map_init(ret_map, answer.fd, registration->manifest, reason);
	client_answer_finish(&answer);
	if (code) {
		attach_close(connection);
		return code;
	}
	registration_detach(registration);
	registration->connection = connection;
	return 0;
}

static void registration_request(struct registration *registration, enum emad_resume resume, struct request *request)
{
	*request = (struct request){.operation = OP_REGISTER};
	request_set(request, model, text_of(registration->model));
	request_set(request, rank, registration->rank);
	request_set(request, world, registration->world);
	request_set(request, resume, text_of(RESUME_NAMES[resume]));
	request_set(request, start_step, registration->start_step);
	/* What is not said is as the daemon's configuration has it for the model. */
	if (registration->stride)
		request_set(request, stride, registration->stride);
	request_set(request, rewind, text_of(REWIND_NAMES[registration->rewind]));
	if (registration->policy != EMAD_POLICY_BLOCK)
		request_set(request, policy, text_of(registration->policy == EMAD_POLICY_COALESCE ? "coalesce" : "block"));
	if (registration->guards)
		request_set(request, guards, text_of(registration->guards));
	request_set(request, agent, text_of("libemad"));
	request->profiles.count = registration->profile_count;
	for (uint32_t i = 0; i < registration->profile_count; i++)
		request->profiles.items[i] = text_of(registration->profiles[i]);
	if (registration->profile_count > 0)
		request->present |= REQUEST_HAS(profiles);
	if (registration->attributes)
		request_set(request, attributes, text_of(registration->attributes));
	client_stamp(registration->client, request);
	/* The same number again: had the request been carried out, the daemon would repeat its answer. */
	if (registration->unanswered)
		request_set(request, sequence, registration->unanswered);
	registration->unanswered = request->sequence;
}

static int registration_register(struct registration *registration, enum emad_resume resume, int64_t deadline_ms,
                                 struct reason *reason)
{
	struct request request;
	struct client_answer answer;
	const struct reply *reply = &answer.reply;
	uint8_t *body = NULL;
	size_t body_bytes = 0;
	int code;

	code = manifest_encode(registration->manifest, &body, &body_bytes, reason);
	if (code)
		return code;
	registration_request(registration, resume, &request);
	code = client_call(registration->client, &request, body, body_bytes, deadline_ms, &answer, reason);
	free(body);
	if (code)
		return code;
	registration->unanswered = 0;
	code = client_answer_code(&answer, reason);
	if (code == 0 && !(reply->present & REPLY_HAS(epoch)))
		code = reason_set(reason, STATUS_EPROTOCOL, "the daemon's answer to register has no epoch");
	if (code == 0) {
		registration->rewind = EMAD_REWIND_REFUSE;
		registration->epoch = reply->epoch;
		registration->resumed = reply->resumed;
		registration->last_step = reply->last_step;
		registration->updates = reply->updates;
		registration->version = reply->version;
		client_text_copy(reply->report, registration->report, sizeof(registration->report));
	}
	client_answer_finish(&answer);
	return code;
}

int registration_claim(struct registration *registration, enum emad_resume resume, int64_t deadline_ms,
                       struct stage_map *ret_before, struct reason *reason)
{
	struct stage_map map;
	int code;

	/* From here on the old map must not be written: it belongs to a claim that is being replaced. */
	registration_detach(registration);
	do {
		code = registration_register(registration, resume, deadline_ms, reason);
		if (code == 0)
			code = registration_attach(registration, deadline_ms, &map, reason);
		/* A daemon that came in between does not know a rank that had not attached yet. */
	} while (code == STATUS_ENOMODEL && resume != EMAD_RESUME_MUST && wait_left_ms(deadline_ms) > 0);
	if (code) {
		registration->fenced |= code == STATUS_EFENCED;
		return code;
	}
	if (ret_before)
		*ret_before = registration->map;
	else
		stage_map_finish(&registration->map);
	registration->map = map;
	memset(registration->in_doubt, 0, sizeof(registration->in_doubt));
	return 0;
}

int registration_renew(struct registration *registration, int64_t deadline_ms, bool *ret_lost, struct reason *reason)
{
	struct stage_map map;
	int code;

	/* A new daemon may have other limits, and refuses a library of another version here and not in the middle. */
	code = client_hello(registration->client, deadline_ms, NULL, reason);
	if (code)
		return code;
	/* A claim under way has ended the one before it, perhaps with an epoch that is not known here. */
	code = registration->unanswered ? STATUS_ENOMODEL : registration_attach(registration, deadline_ms, &map, reason);
	if (code == 0) {
		stage_map_finish(&registration->map);
		registration->map = map;
		*ret_lost = false;
		return 0;
	}
	if (code == STATUS_ENOMODEL) {
		code = registration_claim(registration, EMAD_RESUME_AUTO, deadline_ms, NULL, reason);
		if (code == 0)
			*ret_lost = true;
	}
	registration->fenced |= code == STATUS_EFENCED;
	return code;
}

int registration_free_stage(const struct registration *registration)
{
	const struct stage_header *header = (const struct stage_header *)registration->map.bytes;

	/* Only the daemon knows. */
	if (remote_is(registration->client))
		return -1;
	for (uint32_t i = 0; i < registration->map.stage_count; i++) {
		/* Pairs with the daemon's release-store when it has read the stage. */
		if (!registration->in_doubt[i] &&
		    atomic_load_explicit(&header->state[i], memory_order_acquire) == STAGE_FREE)
			return (int)i;
	}
	return -1;
}
