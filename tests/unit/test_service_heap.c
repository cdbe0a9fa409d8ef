/*
 * The service without memory: each allocation of each request fails in turn, once and for ever. The request is then
 * answered with a code that says so, nothing that was there has changed, and the same request succeeds afterwards.
 */
#include "tests/unit/failing_heap.h"
#include "tests/unit/fake_host.h"
#include "tests/unit/random_model.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A service with a trainer that has had two snapshots averaged, and a newcomer. */
struct scene {
	struct fake_host host;
	struct fake_trainer trainer, newcomer;
};

static void push(struct scene *scene, uint64_t step, float value, const char *outcome)
{
	fake_trainer_fill(&scene->trainer, 0, value);
	ck_assert_str_eq(fake_host_expect(&scene->host, fake_trainer_push(&scene->trainer, step, 0, true), 0)->outcome,
	                 outcome);
}

static void empty_scene(struct scene *scene)
{
	fake_host_init(&scene->host);
	fake_host_start(&scene->host);
	fake_trainer_init(&scene->trainer, &scene->host, "net", fake_manifest(0, 1));
	fake_trainer_init(&scene->newcomer, &scene->host, "net", fake_manifest(0, 1));
	scene->newcomer.attributes = "{\"nc\":80}";
}

static void full_scene(struct scene *scene)
{
	empty_scene(scene);
	fake_trainer_join(&scene->trainer);
	push(scene, 10, 4, "started");
	push(scene, 11, 4, "applied");
}

static uint64_t ask_profile(struct scene *scene)
{
	return fake_profiles_set(&scene->host, "net", (const char *const[]){ "slow=constant", NULL }, 1000);
}

/* Two profiles, and a history. */
static void changed_scene(struct scene *scene)
{
	full_scene(scene);
	fake_host_expect(&scene->host, ask_profile(scene), 0);
	push(scene, 12, 4, "applied");
}

static void adapting_scene(struct scene *scene)
{
	static const struct tensor_row rows[] = {
		{ "w", DTYPE_F64, false, SHAPE(FAKE_ELEMENTS / 2, 2) }, { "v", DTYPE_F32, false, SHAPE(3) },
	};

	full_scene(scene);
	fake_trainer_finish(&scene->newcomer);
	fake_trainer_init(&scene->newcomer, &scene->host, "net", manifest_of_rows(rows, 2));
	scene->newcomer.resume = "adapt";
}

static void attached_scene(struct scene *scene)
{
	full_scene(scene);
	fake_host_gone(&scene->host, scene->trainer.peer);
}

static void scene_finish(struct scene *scene)
{
	fake_host_finish(&scene->host);
	fake_trainer_finish(&scene->trainer);
	fake_trainer_finish(&scene->newcomer);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static uint64_t ask_register(struct scene *scene)
{
	return fake_trainer_register(&scene->newcomer);
}

static uint64_t ask_replace(struct scene *scene)
{
	scene->newcomer.resume = "never";
	return fake_trainer_register(&scene->newcomer);
}

static uint64_t ask_attach(struct scene *scene)
{
	return fake_trainer_attach(&scene->trainer);
}

static uint64_t ask_push(struct scene *scene)
{
	return fake_trainer_push(&scene->trainer, 12, 0, false);
}

/* The update is done later, so that the push must wait. */
static uint64_t ask_push_and_wait(struct scene *scene)
{
	uint64_t number;

	scene->host.prompt = false;
	number = fake_trainer_push(&scene->trainer, 12, 0, true);
	fake_host_settle(&scene->host);
	scene->host.prompt = true;
	return number;
}

static uint64_t ask_view(struct scene *scene)
{
	return fake_view(&scene->host, 50, "net", NULL, 0, 0);
}

static uint64_t ask_later_view(struct scene *scene)
{
	uint64_t number = fake_view(&scene->host, 50, "net", NULL, 12, 50);

	fake_host_pass(&scene->host, 50);
	service_tick(scene->host.service, &scene->host.now);
	return number;
}

static uint64_t ask_attributes(struct scene *scene)
{
	struct request request = { .operation = OP_ATTRIBUTES };

	request_set(&request, model, text_of("net"));
	request_set(&request, rank, 0);
	request_set(&request, epoch, scene->trainer.epoch);
	request_set(&request, client, scene->trainer.client);
	request_set(&request, sequence, ++scene->trainer.sequence);
	request_set(&request, attributes, text_of("{\"nc\": 80}"));
	return fake_host_ask(&scene->host, 2000, &request, NULL, 0);
}

static uint64_t ask_status(struct scene *scene)
{
	return fake_query(&scene->host, OP_STATUS, NULL);
}

static uint64_t ask_list(struct scene *scene)
{
	return fake_query(&scene->host, OP_LIST, NULL);
}

static uint64_t ask_show(struct scene *scene)
{
	return fake_query(&scene->host, OP_SHOW, "net");
}

static uint64_t ask_remove(struct scene *scene)
{
	return fake_query(&scene->host, OP_REMOVE, "net");
}

static uint64_t ask_schedule(struct scene *scene)
{
	return fake_profiles_set(&scene->host, "net", (const char *const[]){ "ema=constant", NULL }, 1000);
}

/* While an update runs, so that even what needs no memory must wait. */
static uint64_t ask_schedule_later(struct scene *scene)
{
	uint64_t number;

	scene->host.prompt = false;
	fake_trainer_push(&scene->trainer, 12, 0, false);
	number = ask_schedule(scene);
	fake_host_settle(&scene->host);
	scene->host.prompt = true;
	return number;
}

static uint64_t ask_profile_removal(struct scene *scene)
{
	return fake_profile_remove(&scene->host, "net", "slow", 1000);
}

static uint64_t ask_rewind(struct scene *scene)
{
	static const uint64_t start_step = 11;

	scene->newcomer.rewind = "back";
	scene->newcomer.start_step = &start_step;
	return fake_trainer_register(&scene->newcomer);
}

static uint64_t ask_rollback(struct scene *scene)
{
	struct request request = { .operation = OP_ROLLBACK };

	request_set(&request, model, text_of("net"));
	request_set(&request, step, 10);
	return fake_host_ask(&scene->host, 9999, &request, NULL, 0);
}

static uint64_t ask_history(struct scene *scene)
{
	return fake_query(&scene->host, OP_HISTORY, "net");
}

static uint64_t ask_continue(struct scene *scene)
{
	static const uint64_t start_step = 11;

	scene->newcomer.rewind = "continue";
	scene->newcomer.start_step = &start_step;
	return fake_trainer_register(&scene->newcomer);
}

static uint64_t ask_push_with_metadata(struct scene *scene)
{
	const struct fake_push push = { .step = 12, .waits = true, .metadata = "{\"epoch\": [1, 2, \"three\"]}" };

	return fake_trainer_push_with(&scene->trainer, &push);
}

static uint64_t ask_seed(struct scene *scene)
{
	const struct fake_push push = { .step = 12, .waits = true, .profile = "ema", .updates = 7 };

	return fake_trainer_push_with(&scene->trainer, &push);
}

struct request_case {
	const char *name;
	void (*prepare)(struct scene *scene);
	uint64_t (*ask)(struct scene *scene);
	int status;         /* when nothing fails */
	unsigned sites_min; /* allocations that there are at least */
};

static const struct request_case cases[] = {
	{ "register", empty_scene, ask_register, 0, 30 },
	{ "take over", full_scene, ask_register, 0, 12 },
	{ "replace", full_scene, ask_replace, 0, 30 },
	{ "attach", attached_scene, ask_attach, 0, 1 },
	{ "push", full_scene, ask_push, 0, 0 },
	{ "push and wait", full_scene, ask_push_and_wait, 0, 0 },
	{ "push with metadata", full_scene, ask_push_with_metadata, 0, 5 },
	{ "push an average", full_scene, ask_seed, 0, 5 },
	{ "add a profile", full_scene, ask_profile, 0, 15 },
	{ "change a schedule", full_scene, ask_schedule, 0, 15 },
	{ "change a schedule later", full_scene, ask_schedule_later, 0, 15 },
	{ "remove a profile", changed_scene, ask_profile_removal, 0, 15 },
	{ "adapt", adapting_scene, ask_register, 0, 40 },
	{ "go back", full_scene, ask_rewind, 0, 20 },
	{ "roll back", full_scene, ask_rollback, 0, 5 },
	{ "begin again", full_scene, ask_continue, 0, 20 },
	{ "view", full_scene, ask_view, 0, 1 },
	{ "view later", full_scene, ask_later_view, STATUS_ETIMEOUT, 0 },
	{ "attributes", full_scene, ask_attributes, 0, 2 },
	{ "status", full_scene, ask_status, 0, 20 },
	{ "list", full_scene, ask_list, 0, 20 },
	{ "show", full_scene, ask_show, 0, 50 },
	{ "history", changed_scene, ask_history, 0, 30 },
	{ "remove", full_scene, ask_remove, 0, 0 },
};

/* ---- the sweep --------------------------------------------------------------------------------------------------- */

/* jansson lives in a shared library, where nothing is wrapped. */
static void *json_room(size_t bytes)
{
	return malloc(bytes);
}

static void body_check(const struct fake_reply *answer)
{
	json_t *root;

	if (!answer->body)
		return;
	root = json_loads(answer->body, 0, NULL);
	ck_assert_msg(root != NULL, "%s", answer->body);
	json_decref(root);
}

/* One request with its nth allocation failing; false when it needed fewer. expected: the whole body, if it has one. */
static bool attempt(const struct request_case *request, uint64_t nth, bool for_ever, const char *expected)
{
	static struct scene scene;
	const struct fake_reply *answer;
	uint64_t segment_count, number;
	bool failed;

	request->prepare(&scene);
	segment_count = scene.host.segment_count;
	failing_heap_arm(nth, for_ever);
	number = request->ask(&scene);
	failed = failing_heap_disarm();
	answer = fake_host_answer(&scene.host, number);
	ck_assert_msg(answer != NULL, "%s: no answer when allocation %lu fails", request->name, (unsigned long)nth);
	if (!failed)
		ck_assert_int_eq(answer->reply.status, request->status);
	if (answer->reply.status == request->status) {
		body_check(answer);
		if (expected)
			ck_assert_str_eq(answer->body, expected);
	} else {
		/* jansson does not always know why it could not parse. */
		ck_assert_msg(answer->reply.status == -ENOMEM || answer->reply.status == STATUS_EMEMORY ||
		                      strstr(answer->error, "not valid JSON"),
		              "%s: %s when allocation %lu fails", request->name, answer->error, (unsigned long)nth);
		/* What was to be replaced may be gone; who cannot wait for new slots does not keep them from coming. */
		ck_assert_msg(scene.host.segment_count == segment_count ||
		                      (request->ask == ask_replace && scene.host.segment_count == 0) ||
		                      ((request->ask == ask_profile || request->ask == ask_profile_removal) &&
		                       scene.host.segment_count == segment_count + 1) ||
		                      request->prepare == adapting_scene,
		              "%s: %lu segments, not %lu", request->name,
		              (unsigned long)scene.host.segment_count, (unsigned long)segment_count);
		if (request->prepare == adapting_scene &&
		    fake_host_answer(&scene.host, fake_trainer_attach(&scene.trainer))->reply.status != 0) {
			/* It had been adapted when the memory ran out. */
			ck_assert_float_eq(fake_average(&scene.host, "net", NULL), 4);
			fake_host_expect(&scene.host, request->ask(&scene), 0);
		} else if (request->prepare != empty_scene && request->prepare != attached_scene &&
		           scene.host.segment_count > 0) {
			ck_assert_float_eq(fake_average(&scene.host, "net", NULL), 4);
			/* Who held the rank goes on. */
			push(&scene, 13, 4, "applied");
			ck_assert_float_eq_tol(fake_average(&scene.host, "net", NULL), 4, 1e-5F);
		} else {
			number = request->ask(&scene);
			fake_host_expect(&scene.host, number, request->status);
		}
	}
	scene_finish(&scene);
	return failed;
}

/* What the request's answer has as its body when nothing fails; freed by the caller; NULL for none. */
static char *body_of(const struct request_case *request)
{
	static struct scene scene;
	const struct fake_reply *answer;
	char *body;

	request->prepare(&scene);
	answer = fake_host_expect(&scene.host, request->ask(&scene), request->status);
	body = answer->body ? strdup(answer->body) : NULL;
	scene_finish(&scene);
	return body;
}

START_TEST(a_request_without_memory_is_refused_and_changes_nothing)
{
	const struct request_case *request = &cases[_i];
	char *expected;

	json_set_alloc_funcs(json_room, free);
	expected = body_of(request);
	for (int for_ever = 0; for_ever < 2; for_ever++) {
		uint64_t nth = 1;

		while (attempt(request, nth, for_ever, expected))
			nth++;
		ck_assert_msg(nth - 1 >= request->sites_min, "%s: %lu allocations", request->name,
		              (unsigned long)nth - 1);
	}
	free(expected);
}
END_TEST

static int create(void *context)
{
	const struct host *table = context;
	const struct settings settings = { .slot_count = 2, .stage_count = 1 };
	const struct service_facts facts = { .agent = "emad test" };
	struct service *service = NULL;
	int error = service_create(table, &settings, &facts, &service);

	service_destroy(service);
	return error;
}

static uint64_t number(void *context)
{
	(void)context;
	return 7;
}

START_TEST(a_service_without_memory_is_not_made)
{
	struct host table = { .random = number };

	ck_assert_uint_ge(failing_heap_sweep(create, &table), 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("service_heap");
	TCase *tcase = tcase_create("heap");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, a_request_without_memory_is_refused_and_changes_nothing, 0,
	                    sizeof cases / sizeof cases[0]);
	tcase_add_test(tcase, a_service_without_memory_is_not_made);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
