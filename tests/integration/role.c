/*
 * Trainers, readers and victims. See role.h.
 */
#include "tests/integration/role.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/layout.h"
#include "tests/integration/harness.h"
#include "tests/integration/process.h"
#include "tests/integration/wire.h"

enum { CALL_MAX_MS = 20000, COLUMN_COUNT = 24 };

const char *const role_profiles[ROLE_PROFILE_COUNT] = {"now=constant:decay=0", "mean=swa"};

/* Roles run outside of Check. */
static void require(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "role %d: %s: %s\n", (int)getpid(), what, emad_error());
	exit(EXIT_FAILURE);
}

/* ---- progress ---------------------------------------------------------------------------------------------------- */

static struct progress *progress_map(const char *path, int flags)
{
	size_t bytes = ROLE_COUNT_MAX * sizeof(struct progress);
	int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
	void *map;

	require(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0, path);
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	require(map != MAP_FAILED, path);
	close(fd);
	return map;
}

void progress_open(struct progress_page *page, const char *directory)
{
	snprintf(page->path, sizeof(page->path), "%s/progress", directory);
	page->all = progress_map(page->path, O_CREAT);
	memset(page->all, 0, ROLE_COUNT_MAX * sizeof(struct progress));
}

void progress_close(struct progress_page *page)
{
	munmap(page->all, ROLE_COUNT_MAX * sizeof(struct progress));
}

bool progress_reaches(const _Atomic uint64_t *counter, uint64_t value, int timeout_ms)
{
	long long deadline_ms = harness_now_ms() + timeout_ms;

	while (atomic_load(counter) < value) {
		if (harness_now_ms() > deadline_ms)
			return false;
		process_sleep_ms(1);
	}
	return true;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

void role_model_init(struct role_model *model, uint64_t rows, uint32_t rank, uint32_t world)
{
	/* One is cut along its rows, one along its columns, one belongs to the last rank. */
	static const char *const names[ROLE_TENSOR_COUNT] = {"rows.weight", "columns.weight", "half.weight"};
	static const enum emad_dtype dtypes[ROLE_TENSOR_COUNT] = {EMAD_F32, EMAD_F32, EMAD_BF16};

	*model = (struct role_model){0};
	for (int i = 0; i < ROLE_TENSOR_COUNT; i++) {
		uint64_t *shape = model->shapes[i], *offset = model->offsets[i], *extent = model->extents[i];
		int cut = i == 1;

		shape[0] = extent[0] = i == 1 ? rows / 3 : rows;
		shape[1] = extent[1] = COLUMN_COUNT;
		if (i < 2) {
			offset[cut] = shape[cut] * rank / world;
			extent[cut] = shape[cut] * (rank + 1) / world - offset[cut];
		} else if (rank + 1 < world) {
			extent[0] = 0;
		}
		model->tensors[i] = (struct emad_tensor){
			.name = names[i],
			.dtype = dtypes[i],
			.dimension_count = 2,
			.shape = shape,
			.offset = offset,
			.extent = extent,
		};
		model->owned[i] = malloc(extent[0] * extent[1] * sizeof(float) + 1);
		require(model->owned[i], "no memory");
		model->data[i] = model->owned[i];
	}
}

void role_model_fill(struct role_model *model, uint64_t step)
{
	float value = role_value(step);
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	for (int i = 0; i < ROLE_TENSOR_COUNT; i++) {
		uint64_t count = model->extents[i][0] * model->extents[i][1];

		if (model->tensors[i].dtype == EMAD_BF16)
			for (uint64_t e = 0; e < count; e++)
				((uint16_t *)model->owned[i])[e] = (uint16_t)(bits >> 16);
		else
			for (uint64_t e = 0; e < count; e++)
				((float *)model->owned[i])[e] = value;
	}
}

void role_model_finish(struct role_model *model)
{
	for (int i = 0; i < ROLE_TENSOR_COUNT; i++)
		free(model->owned[i]);
}

/* ---- judging a version ------------------------------------------------------------------------------------------- */

/* The bits of every float32 of the tensor are those of the first; those in *ret_value. */
static bool is_uniform(const struct emad_view_tensor *tensor, float *ret_value)
{
	const uint32_t *bits = tensor->data;
	uint64_t count = tensor->bytes / sizeof(float);
	uint32_t differ = 0;

	for (uint64_t i = 0; i < count; i++)
		differ |= bits[i] ^ bits[0];
	memcpy(ret_value, bits, sizeof(float));
	return differ == 0;
}

/* The mean of role_value over the steps 2 to step: the first update replaces the start. */
static double mean_of(uint64_t step)
{
	uint64_t whole = step / 128, rest = step % 128;

	if (step < 2)
		return (double)role_value(step);
	return (double)(whole * (127 * 128 / 2) + rest * (rest + 1) / 2 - 1) / (double)(step - 1);
}

static bool is_skipped(uint64_t step)
{
	return step % 7 == 3;
}

/* The same where a trainer that skips has left steps out: the next one stands for each. */
static double mean_over_gaps(uint64_t step)
{
	double sum = 0;

	if (step < 2)
		return (double)role_value(step);
	for (uint64_t call = 2; call <= step; call++)
		sum += (double)role_value(call < step && is_skipped(call) ? call + 1 : call);
	return sum / (double)(step - 1);
}

/* Fills in what the version holds; what went wrong as text, or NULL. */
static const char *view_mistake(struct emad_view *view, const struct emad_view_info *info, float *values)
{
	const char *profile = emad_view_metadata(view, "emad.profile"), *step = emad_view_metadata(view, "emad.step");
	struct emad_view_tensor tensor;

	if (!profile || !step)
		return "metadata are missing";
	if (strtoull(step, NULL, 10) != info->step)
		return "the image's step is not the slot's";
	if (info->tensor_count != ROLE_TENSOR_COUNT)
		return "tensors are missing";
	for (uint64_t i = 0; i < ROLE_TENSOR_COUNT; i++) {
		if (emad_view_tensor(view, i, &tensor) != 0)
			return "a tensor is missing";
		if (tensor.dtype != EMAD_F32)
			return "a shadow is not float32";
		if (!is_uniform(&tensor, &values[i]))
			return "a tensor is mixed";
		if (values[i] != values[0])
			return "tensors of several steps";
	}
	if (strcmp(profile, "now") == 0)
		return values[0] == role_value(info->step) ? NULL : "not the snapshot of the step";
	/* A trainer that has averaged from step 1 on gives the plain mean, also over steps that it has left out. */
	if (info->updates + 1 == info->step && fabs(values[0] - mean_of(info->step)) > 0.01 &&
	    fabs(values[0] - mean_over_gaps(info->step)) > 0.01)
		return "not the mean of all steps";
	return NULL;
}

int role_view_judge(struct emad_view *view)
{
	float values[ROLE_TENSOR_COUNT] = {0};
	struct emad_view_info info;
	const char *mistake;
	int code = emad_view_info(view, &info);

	if (code)
		return code == EMAD_EREVOKED ? code : 1;
	mistake = view_mistake(view, &info, values);
	/* What is seen behind a revocation counts for nothing. */
	if (emad_view_check(view) == EMAD_EREVOKED)
		return EMAD_EREVOKED;
	if (!mistake)
		return 0;
	fprintf(stderr, "version %" PRIu64 ", step %" PRIu64 ", %" PRIu64 " updates: %s: %g %g %g\n", info.version, info.step,
	        info.updates, mistake, (double)values[0], (double)values[1], (double)values[2]);
	return 1;
}

/* ---- trainers ---------------------------------------------------------------------------------------------------- */

struct trainer_role {
	struct progress *progress;
	const char *url, *model;
	uint64_t rows, first_step, last_step;
	uint32_t rank, world;
	unsigned behaviour;
	struct emad_client *client;
	struct emad_trainer *trainer;
	struct role_model tensors;
};

/* An error of a call: true when the role goes on. */
static bool goes_on(const struct trainer_role *role, int code)
{
	if (code == 0 || code == EMAD_EBUSY)
		return true;
	atomic_fetch_add(&role->progress->errors, 1);
	require(code == EMAD_EAWAY || code == EMAD_ESHUTDOWN || code == EMAD_ETIMEOUT, "a call failed otherwise");
	if (role->behaviour & ROLE_PERSISTS)
		process_sleep_ms(5);
	return role->behaviour & ROLE_PERSISTS;
}

static bool trainer_open(struct trainer_role *role)
{
	const struct emad_trainer_options options = {
		.profiles = role_profiles,
		.profile_count = ROLE_PROFILE_COUNT,
		.rank = role->rank,
		.world = role->world,
		.timeout_ms = CALL_MAX_MS,
	};
	struct emad_trainer_info info;
	int code;

	require(emad_client_open(role->url, CALL_MAX_MS, &role->client) == 0, "no connection");
	do {
		code = emad_trainer_open(role->client, role->model, role->tensors.tensors, ROLE_TENSOR_COUNT, &options,
		                         &role->trainer);
		if (!goes_on(role, code))
			return false;
	} while (code);
	require(emad_trainer_info(role->trainer, &info) == 0, "no facts");
	if (role->first_step == 0)
		role->first_step = info.version ? info.last_step + 1 : 1;
	atomic_store(&role->progress->resumed, role->first_step);
	atomic_store(&role->progress->ready, 1);
	return true;
}

static bool push_step(struct trainer_role *role, uint64_t step)
{
	unsigned flags = role->behaviour & ROLE_WAITS ? EMAD_PUSH_WAIT : 0;
	struct emad_push_result result;
	int code;

	role_model_fill(&role->tensors, step);
	do {
		if (atomic_load(&role->progress->stop))
			return false;
		code = emad_push(role->trainer, step, role->tensors.data, flags, CALL_MAX_MS, &result);
		if (!goes_on(role, code))
			return false;
	} while (code);
	atomic_store(&role->progress->accepted, step);
	if (result.outcome == EMAD_APPLIED || result.outcome == EMAD_STARTED)
		atomic_store(&role->progress->applied, step);
	return true;
}

static int trainer_run(struct trainer_role *role)
{
	uint64_t step;
	int code;

	role_model_init(&role->tensors, role->rows, role->rank, role->world);
	if (trainer_open(role)) {
		for (step = role->first_step; role->last_step == 0 || step <= role->last_step; step++) {
			if (role->behaviour & ROLE_SKIPS && is_skipped(step) && step != role->last_step)
				continue;
			if (role->behaviour & ROLE_SKIPS)
				process_sleep_ms(2);
			if (!push_step(role, step))
				break;
		}
		if (role->last_step && step > role->last_step) {
			do
				code = emad_flush(role->trainer, CALL_MAX_MS, NULL);
			while (code && code != EMAD_EREFUSED && goes_on(role, code));
		}
	}
	emad_trainer_close(role->trainer);
	emad_client_close(role->client);
	role_model_finish(&role->tensors);
	return EXIT_SUCCESS;
}

static int trainer_main(struct progress *all, char **argv)
{
	struct trainer_role role = {
		.progress = &all[strtoul(argv[0], NULL, 10)],
		.url = argv[1],
		.model = argv[2],
		.rows = strtoull(argv[3], NULL, 10),
		.rank = (uint32_t)strtoul(argv[4], NULL, 10),
		.world = (uint32_t)strtoul(argv[5], NULL, 10),
		.first_step = strtoull(argv[6], NULL, 10),
		.last_step = strtoull(argv[7], NULL, 10),
		.behaviour = (unsigned)strtoul(argv[8], NULL, 10),
	};

	return trainer_run(&role);
}

pid_t role_trainer_start(const struct progress_page *page, uint32_t index, const char *url, const char *model,
                         uint64_t rows, uint32_t rank, uint32_t world, uint64_t first_step, uint64_t last_step,
                         unsigned behaviour)
{
	char numbers[7][24];
	const char *arguments[] = {"--role", "trainer", page->path, numbers[0], url, model, numbers[1], numbers[2],
	                           numbers[3], numbers[4], numbers[5], numbers[6], NULL};

	snprintf(numbers[0], sizeof(numbers[0]), "%u", index);
	snprintf(numbers[1], sizeof(numbers[1]), "%" PRIu64, rows);
	snprintf(numbers[2], sizeof(numbers[2]), "%u", rank);
	snprintf(numbers[3], sizeof(numbers[3]), "%u", world);
	snprintf(numbers[4], sizeof(numbers[4]), "%" PRIu64, first_step);
	snprintf(numbers[5], sizeof(numbers[5]), "%" PRIu64, last_step);
	snprintf(numbers[6], sizeof(numbers[6]), "%u", behaviour);
	return process_spawn(PROCESS_SELF, arguments, NULL);
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

static int reader_main(struct progress *all, char **argv)
{
	struct progress *progress = &all[strtoul(argv[0], NULL, 10)];
	struct emad_client *client;
	uint64_t step = 0;

	require(emad_client_open(argv[1], CALL_MAX_MS, &client) == 0, "no connection");
	for (unsigned round = 0; !atomic_load(&progress->stop); round++) {
		struct emad_view_info info;
		struct emad_view *view;
		int code = emad_view_open(client, argv[2], round % 2 ? "mean" : "now", step + 1, 200, &view);

		if (code) {
			atomic_fetch_add(&progress->errors, code != EMAD_ETIMEOUT);
			/* A daemon that has lost the model begins anew. */
			if (code == EMAD_ENOMODEL || code == EMAD_ETIMEOUT)
				step = 0;
			process_sleep_ms(5);
			continue;
		}
		code = role_view_judge(view);
		require(code == 0 || code == EMAD_EREVOKED, "a version is not whole");
		atomic_fetch_add(code ? &progress->revoked : &progress->versions, 1);
		if (code == 0 && emad_view_info(view, &info) == 0)
			step = info.step;
		emad_view_close(view);
		atomic_store(&progress->ready, 1);
	}
	emad_client_close(client);
	return EXIT_SUCCESS;
}

pid_t role_reader_start(const struct progress_page *page, uint32_t index, const char *url, const char *model)
{
	char number[24];
	const char *arguments[] = {"--role", "reader", page->path, number, url, model, NULL};

	snprintf(number, sizeof(number), "%u", index);
	return process_spawn(PROCESS_SELF, arguments, NULL);
}

/* ---- victims ----------------------------------------------------------------------------------------------------- */

static struct manifest *victim_manifest(const struct role_model *model)
{
	struct manifest *manifest;

	require(manifest_create(&manifest) == 0, "no memory");
	for (int i = 0; i < ROLE_TENSOR_COUNT; i++) {
		const struct emad_tensor *tensor = &model->tensors[i];

		require(manifest_add_tensor(manifest, tensor->name, strlen(tensor->name), (enum dtype)tensor->dtype, false,
		                            tensor->shape, tensor->dimension_count, NULL) == 0 &&
		                manifest_add_piece(manifest, NULL, NULL, NULL) == 0,
		        "a tensor is refused");
	}
	require(manifest_finish(manifest, NULL) == 0, "a manifest is refused");
	return manifest;
}

static uint64_t victim_register(struct wire *wire, const char *name, const struct manifest *manifest)
{
	struct request request = wire_register(name, (uint64_t)getpid() << 32 | 1);
	size_t body_bytes;
	uint8_t *body;

	request.profiles.count = ROLE_PROFILE_COUNT;
	for (int i = 0; i < ROLE_PROFILE_COUNT; i++)
		request.profiles.items[i] = text_of(role_profiles[i]);
	require(manifest_encode(manifest, &body, &body_bytes, NULL) == 0, "a manifest is refused");
	require(wire_call(wire, &request, body, body_bytes, CALL_MAX_MS) == 0, "a registration is refused");
	free(body);
	return wire->reply.epoch;
}

/* Values that no snapshot has: they must never be seen. */
static void victim_fill(uint8_t *stage, uint64_t bytes, float value)
{
	for (uint64_t i = 0; i + sizeof(value) <= bytes; i += sizeof(value))
		memcpy(stage + i, &value, sizeof(value));
}

static int victim_main(char **argv)
{
	const char *directory = argv[0], *name = argv[1];
	uint64_t rows = strtoull(argv[2], NULL, 10), step = strtoull(argv[3], NULL, 10), epoch;
	enum role_moment moment = (enum role_moment)strtoul(argv[4], NULL, 10);
	struct request attach = {.operation = OP_ATTACH}, push = {.operation = OP_PUSH};
	struct role_model model;
	struct manifest *manifest;
	struct wire wire, claim;
	struct stat facts;
	uint8_t *map;

	role_model_init(&model, rows, 0, 1);
	manifest = victim_manifest(&model);
	require(wire_open(&wire, directory, false) == 0 && wire_open(&claim, directory, true) == 0, "no connection");
	epoch = victim_register(&wire, name, manifest);
	request_set(&attach, model, text_of(name));
	request_set(&attach, rank, 0);
	request_set(&attach, epoch, epoch);
	require(wire_ask(&claim, &attach, NULL, 0, CALL_MAX_MS) == 0, "no connection");
	if (moment == ROLE_WHILE_ATTACHING)
		raise(SIGKILL);
	require(wire_hear(&claim, CALL_MAX_MS) == 0 && claim.passed >= 0 && fstat(claim.passed, &facts) == 0, "no stage");
	map = mmap(NULL, (size_t)facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, claim.passed, 0);
	require(map != MAP_FAILED, "the stage cannot be mapped");
	victim_fill(map + LAYOUT_PAGE_BYTES, manifest->stage_bytes / 2, 1e9f);
	if (moment == ROLE_WHILE_FILLING)
		raise(SIGKILL);
	for (int i = 0; i < ROLE_TENSOR_COUNT; i++) {
		role_model_fill(&model, step);
		memcpy(map + LAYOUT_PAGE_BYTES + manifest->pieces[i].stage_offset, model.data[i],
		       manifest->pieces[i].element_count * dtype_bytes(manifest->tensors[i].dtype));
	}
	if (moment == ROLE_BEFORE_PUSH)
		raise(SIGKILL);
	request_set(&push, model, text_of(name));
	request_set(&push, client, (uint64_t)getpid() << 32 | 1);
	request_set(&push, sequence, 2);
	request_set(&push, rank, 0);
	request_set(&push, epoch, epoch);
	request_set(&push, step, step);
	request_set(&push, stage, 0);
	require(wire_ask(&wire, &push, NULL, 0, CALL_MAX_MS) == 0, "no connection");
	raise(SIGKILL);
	return EXIT_FAILURE;
}

pid_t role_victim_start(const char *directory, const char *model, uint64_t rows, uint64_t step, enum role_moment moment)
{
	char numbers[3][24];
	const char *arguments[] = {"--role", "victim", "-", directory, model, numbers[0], numbers[1], numbers[2], NULL};

	snprintf(numbers[0], sizeof(numbers[0]), "%" PRIu64, rows);
	snprintf(numbers[1], sizeof(numbers[1]), "%" PRIu64, step);
	snprintf(numbers[2], sizeof(numbers[2]), "%u", (unsigned)moment);
	return process_spawn(PROCESS_SELF, arguments, NULL);
}

int role_main(int argc, char **argv)
{
	/* A role must not outlive a test that has failed. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc >= 13 && strcmp(argv[2], "trainer") == 0)
		return trainer_main(progress_map(argv[3], 0), argv + 4);
	if (argc >= 7 && strcmp(argv[2], "reader") == 0)
		return reader_main(progress_map(argv[3], 0), argv + 4);
	if (argc >= 9 && strcmp(argv[2], "victim") == 0)
		return victim_main(argv + 4);
	fprintf(stderr, "no such role\n");
	return EXIT_FAILURE;
}
