/*
 * Registering a rank, attaching to its stages, and doing so again: see registration.h.
 */
#include "client/registration.h"

#include "client/attach.h"
#include "client/remote.h"
#include "client/served.h"
#include "client/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

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
		.wire = RUNS_AS_KEPT,
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
	code = options->wire ? served_parse_wire(options->wire, &registration->wire, reason) : 0;
	if (code)
		return code;
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
	stages_finish(&registration->stages);
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

/*
 * Opens the connection that stands for the registration and maps the stages into *ret_map. again: they are those of
 * before.
 */
static int registration_attach(struct registration *registration, bool again, int64_t deadline_ms,
                               struct stage_map *ret_map, struct reason *reason)
{
	struct request request = {.operation = OP_ATTACH};
	struct client_answer answer;
	int connection, code;

	if (remote_is(registration->client)) {
		/* What is the trainer's own stays, with what is in it. */
		*ret_map = again ? registration->stages.map : (struct stage_map){0};
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
		registration->is_new = true;
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

/* Takes over what the latest attach has mapped. */
static void registration_map(struct registration *registration, const struct stage_map *map)
{
	const struct stages *stages = &registration->stages;
	uint64_t instance = registration->client->instance;

	/* One that knew the model and does not any more was told to forget it, and all that was pushed to it. */
	if (registration->is_new) {
		stages_replace(&registration->stages, map, registration->manifest->stage_bytes,
		               instance != registration->instance);
		registration->lost_step = stages->settled_step;
		registration->has_lost = stages->has_settled &&
		                         !(registration->resumed && registration->last_step >= stages->settled_step);
	} else {
		stages_remap(&registration->stages, map);
	}
	registration->is_new = false;
	registration->instance = instance;
}

int registration_claim(struct registration *registration, enum emad_resume resume, int64_t deadline_ms,
                       struct reason *reason)
{
	struct stage_map map;
	int code;

	/* From here on the old map must not be written: it belongs to a claim that is being replaced. */
	registration_detach(registration);
	do {
		code = registration_register(registration, resume, deadline_ms, reason);
		if (code == 0)
			code = registration_attach(registration, false, deadline_ms, &map, reason);
		/* A daemon that came in between does not know a rank that had not attached yet. */
	} while (code == STATUS_ENOMODEL && resume != EMAD_RESUME_MUST && wait_left_ms(deadline_ms) > 0);
	if (code) {
		registration->fenced |= code == STATUS_EFENCED;
		return code;
	}
	registration_map(registration, &map);
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
	code = registration->unanswered ? STATUS_ENOMODEL
	                                : registration_attach(registration, !registration->is_new, deadline_ms, &map, reason);
	if (code == 0) {
		*ret_lost = registration->is_new;
		registration_map(registration, &map);
		return 0;
	}
	if (code == STATUS_ENOMODEL) {
		code = registration_claim(registration, EMAD_RESUME_AUTO, deadline_ms, reason);
		if (code == 0)
			*ret_lost = true;
	}
	registration->fenced |= code == STATUS_EFENCED;
	return code;
}
