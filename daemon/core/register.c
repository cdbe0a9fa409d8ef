/*
 * Registering: who may push what into which model.
 *
 * A registration may have to wait twice: for the memory of a new model, and for what an earlier trainer of the same
 * rank still has in its stages. Either way it is parked, and everything here is looked at afresh when it is handled
 * again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attributes.h"
#include "daemon/core/book.h"
#include "daemon/core/call.h"
#include "daemon/core/defaults.h"
#include "daemon/core/failpoint.h"
#include "daemon/core/history.h"
#include "daemon/core/registration_report.h"
#include "daemon/core/restore.h"

enum resume { RESUME_AUTO, RESUME_ADAPT, RESUME_NEVER, RESUME_MUST };
enum rewind { REWIND_REFUSE, REWIND_CONTINUE, REWIND_BACK };

/* What a register request asks for, checked by itself. */
struct wish {
	char name[MODEL_NAME_BYTES_MAX + 1];
	enum resume resume;
	enum rewind rewind;
	bool coalesces;
	uint64_t stride;
	struct guards guards;
	uint32_t world;
	uint32_t rank;
	bool takes_profiles; /* it names none: those of the model are right, and the defaults where there is no model */
	uint32_t profile_count;
	struct profile profiles[PROFILE_COUNT_MAX];
	char *attributes;          /* owned; NULL when none are given */
	struct manifest *manifest; /* owned; its pieces are this rank's */
};

static void wish_finish(struct wish *wish)
{
	free(wish->attributes);
	manifest_destroy(wish->manifest);
}

/* The index of a word among some, or what it must be. */
static int word_parse(struct text text, const char *what, const char *const *words, int word_count, int *ret_index,
                      struct reason *reason)
{
	char known[80] = "";

	for (int i = 0; i < word_count; i++) {
		size_t used = strlen(known);

		if (text_equal(text, words[i])) {
			*ret_index = i;
			return 0;
		}
		snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : i + 1 < word_count ? ", " : " or ",
		         words[i]);
	}
	return reason_set(reason, STATUS_EARGUMENT, "%s must be %s", what, known);
}

static int words_parse(const struct request *request, const struct defaults *defaults, struct wish *wish,
                       struct reason *reason)
{
	static const char *const resumes[] = { "auto", "adapt", "never", "must" };
	static const char *const rewinds[] = { "refuse", "continue", "back" };
	static const char *const policies[] = { "block", "coalesce" };
	int resume = RESUME_AUTO, rewind = REWIND_REFUSE, error = 0;
	int policy = defaults && defaults->coalesces ? 1 : 0;

	if (request->present & REQUEST_HAS(resume))
		error = word_parse(request->resume, "resume", resumes, 4, &resume, reason);
	if (!error && request->present & REQUEST_HAS(rewind))
		error = word_parse(request->rewind, "rewind", rewinds, 3, &rewind, reason);
	if (!error && request->present & REQUEST_HAS(policy))
		error = word_parse(request->policy, "policy", policies, 2, &policy, reason);
	wish->resume = (enum resume)resume;
	wish->rewind = (enum rewind)rewind;
	wish->coalesces = policy == 1;
	return error;
}

static int wish_guards(const struct request *request, const struct defaults *defaults, struct wish *wish,
                       struct reason *reason)
{
	wish->guards = guards_default();
	if (request->present & REQUEST_HAS(guards))
		return guards_parse(request->guards, &wish->guards, reason);
	return defaults ? guards_parse(text_of(defaults->guards), &wish->guards, reason) : 0;
}

static int wish_profiles(struct call *call, const struct defaults *defaults, struct wish *wish)
{
	struct text_list list = call->request->profiles;

	wish->takes_profiles = !(call->request->present & REQUEST_HAS(profiles));
	if (wish->takes_profiles && (!defaults || !defaults->profiles[0]))
		return reason_set(&call->reason, STATUS_EPROFILE,
		                  "the registration names no profiles, and no section [model PATTERN] of the daemon's "
		                  "configuration has some for '%s': name one, for example \"ema=yolo\"", wish->name);
	if (wish->takes_profiles) {
		int error = defaults_profiles(defaults->profiles, &list, &call->reason);

		if (error)
			return error;
	}
	return profiles_parse(&list, wish->profiles, &wish->profile_count, &call->reason);
}

/* Fills in the wish; wish_finish is right on failure too. */
static int wish_make(struct call *call, struct wish *wish)
{
	const struct request *request = call->request;
	const struct settings *settings = &call->service->settings;
	const struct defaults *defaults = NULL;
	struct reason *reason = &call->reason;
	int error = model_name_check(request->model.bytes, request->model.count, reason);

	if (!error)
		error = text_copy(request->model, wish->name, sizeof wish->name);
	if (!error && (request->world < 1 || request->world > WORLD_MAX))
		error = reason_set(reason, STATUS_ELIMIT, "world is %" PRIu64 ", and must be 1 to %d", request->world,
		                   WORLD_MAX);
	if (!error && request->rank >= request->world)
		error = reason_set(reason, STATUS_EARGUMENT, "rank %" PRIu64 " is not below world %" PRIu64,
		                   request->rank, request->world);
	if (!error && request->client == 0)
		error = reason_set(reason, STATUS_EARGUMENT, "client must not be 0");
	if (!error)
		defaults = defaults_find(settings->defaults, settings->default_count, wish->name);
	wish->stride = request->present & REQUEST_HAS(stride) ? request->stride : defaults ? defaults->stride : 1;
	if (!error && wish->stride == 0)
		error = reason_set(reason, STATUS_EARGUMENT,
		                   "stride is 0: it is the number of steps from one call of the schedules to the next");
	if (!error)
		error = words_parse(request, defaults, wish, reason);
	if (!error)
		error = wish_guards(request, defaults, wish, reason);
	if (!error)
		error = wish_profiles(call, defaults, wish);
	if (!error && request->present & REQUEST_HAS(attributes))
		error = attributes_parse(request->attributes.bytes, request->attributes.count, &wish->attributes,
		                         reason);
	if (!error)
		error = manifest_decode(call->body, call->body_bytes, &wish->manifest, reason);
	wish->world = (uint32_t)request->world;
	wish->rank = (uint32_t)request->rank;
	return error;
}

/*
 * Makes a model for the wish, and waits for its memory. other: the model of that name, which it replaces, or (inherits)
 * goes on from; NULL for none.
 */
static int model_start(struct call *call, struct wish *wish, struct model *other, bool inherits)
{
	struct manifest *manifest = wish->manifest;
	char changes[600] = "";
	struct model *model;
	int error;

	if (call->service->stopping)
		return reason_set(&call->reason, STATUS_ESHUTDOWN, "the daemon is shutting down");
	wish->manifest = NULL;
	error = model_create(&call->service->settings, wish->name, wish->world, manifest, wish->profiles,
	                     wish->profile_count, &model, &call->reason);
	if (error)
		return error;
	/* Whoever asks, the average stays its owner's. */
	model->owner = inherits ? other->owner : call->exchange->peer.uid;
	if (inherits)
		registration_difference(manifest, other->manifest, changes, sizeof changes);
	if (changes[0])
		model->changes = strdup(changes);
	error = changes[0] && !model->changes ? -ENOMEM : 0;
	if (!error)
		error = keep_check(call->service, model, wish->profiles, wish->profile_count, &call->reason);
	if (!error)
		error = service_admit(call->service, model, other, inherits, &call->reason);
	if (error) {
		model_destroy(model, &call->service->host);
		return error;
	}
	call->waits = model;
	return CALL_PARK;
}

/* A model that another rank of the same start has just made, not one to be replaced. */
static bool model_is_fresh(const struct model *model, const struct wish *wish)
{
	return model->world == wish->world && !versions_newest(&model->versions) &&
	       !intake_is_held(&model->records[wish->rank]);
}

/* The very request by which the rank is held. */
static bool is_repeated(const struct call *call, const struct model *model, const struct wish *wish)
{
	const struct rank_record *record = &model->records[wish->rank];

	return model->world == wish->world && intake_is_held(record) && record->client == call->request->client &&
	       record->register_sequence == call->request->sequence;
}

/* The same tensors in the same world. */
static int tensors_fit(const struct model *model, const struct wish *wish, struct reason *reason)
{
	struct reason difference;
	char summary[400];
	int error;

	if (model->world != wish->world)
		return reason_set(
			reason, STATUS_EMANIFEST,
			"world is %" PRIu32 " here and %" PRIu32
			" in the model '%s'; resume=adapt goes on with the other world, resume=never starts anew",
			wish->world, model->world, model->name);
	error = manifest_compare(wish->manifest, model->manifest, &difference);
	if (error != STATUS_EMANIFEST)
		return error;
	registration_difference(wish->manifest, model->manifest, summary, sizeof summary);
	return reason_set(reason, error,
	                  "%.240s%s%.150s; resume=adapt goes on with what both have, resume=never starts anew",
	                  difference.text, summary[0] ? "; in all " : "", summary);
}

static int profiles_fit(const struct model *model, const struct wish *wish, struct reason *reason)
{
	struct reason difference;
	int error;

	/* Profiles were changed on request since: that is what the operator wants, whatever the script says. */
	if (model->managed || wish->takes_profiles)
		return 0;
	error = profile_compare(wish->profiles, wish->profile_count, model->geometry->profiles,
	                        model->geometry->profile_count, &difference);
	if (error)
		return reason_set(reason, error, "%.400s; resume=adapt takes yours over from the current average",
		                  difference.text);
	return 0;
}

/*
 * Ends an earlier registration of the rank: nobody holds it from now on, and of a sharded model what only this rank had
 * pushed is dropped, because the other ranks' trainers start anew as well. True when nothing is pending any more.
 */
static bool rank_vacate(struct service *service, struct model *model, uint32_t rank)
{
	struct rank_record *record = &model->records[rank];
	bool changed = intake_is_held(record);

	intake_vacate(record);
	if (model->world > 1)
		update_drop_ready(model, rank, "the rank was registered anew before all ranks had pushed it",
		                  &service->counters);
	/* Only then: a registration that waits is handled again whenever its model was touched. */
	if (changed)
		service_touch(service, model);
	return intake_pending(record, model->stage_count) == 0;
}

static void rank_claim(struct call *call, struct model *model, struct wish *wish)
{
	struct event about = {
		.severity = EVENT_NOTICE,
		.kind = EVENT_MODEL_REGISTERED,
		.pid = call->exchange->peer.pid,
	};
	struct service *service = call->service;
	struct rank *rank = &model->ranks[wish->rank];

	rank->attached_peer = 0;
	rank->stale_told = false;
	rank->is_remote = false;
	rank->away_due_ms = 0;
	rank->stage_ordered = false;
	rank->pid = call->exchange->peer.pid;
	rank->refusal.text[0] = '\0';
	rank->sequence_min = 0;
	model->guards = wish->guards;
	model->stride = wish->stride;
	model->coalesces = wish->coalesces;
	model_stage_drop(model, wish->rank, &service->host);
	if (wish->attributes) {
		free(model->attributes);
		model->attributes = wish->attributes;
		wish->attributes = NULL;
	}
	/* A repeated request is answered from the record: what it asks for must be in force by then. */
	book_change(model);
	FAILPOINT("rank-booked");
	model->head->epoch = service->epoch_next;
	intake_claim(&model->records[wish->rank], call->request->client, call->request->sequence,
	             service->epoch_next++);
	about.model = model->name;
	about.step = model->has_step ? model->step : UINT64_MAX;
	service_event_about(service, &about,
	                    "%s: rank %" PRIu32 " of %" PRIu32 " registered as epoch %" PRIu64 ", %" PRIu32
	                    " tensors, %" PRIu64 " bytes a snapshot",
	                    model->name, wish->rank, model->world, model->records[wish->rank].epoch,
	                    model->manifest->tensor_count, rank->manifest->stage_bytes);
}

static void register_reply(struct call *call, struct model *model, uint32_t rank)
{
	const struct slot_header *newest = versions_newest(&model->versions);
	struct reply reply = { 0 };
	char report[REPORT_BYTES_MAX];

	registration_report(model, report, sizeof report);
	reply_set(&reply, epoch, model->records[rank].epoch);
	reply_set(&reply, resumed, newest != NULL);
	reply_set(&reply, last_step, model->has_step ? model->step : 0);
	reply_set(&reply, updates, newest ? newest->updates : 0);
	reply_set(&reply, version, newest ? newest->version : 0);
	reply_set(&reply, stage_count, model->stage_count);
	reply_set(&reply, report, text_of(report));
	call_reply(call, &reply, NULL);
}

static void continue_record(struct model *model, uint64_t start_step)
{
	char from[64];

	snprintf(from, sizeof from, "step %" PRIu64, model->step);
	for (uint32_t p = 0; p < model->geometry->profile_count; p++) {
		const struct slot_profile *facts = model_newest_facts(model, p);
		struct history_entry entry = {
			.step = start_step,
			.updates = facts ? facts->updates : 0,
			.change = "continued",
			.from = from,
		};

		/* Without memory the average is right and its history lacks a line. */
		(void)history_append(&model->histories[p], &entry);
	}
}

/* Whether the trainer begins again at a step that is averaged already, and the model shall follow. */
static bool rewinds(const struct call *call, const struct model *model, const struct wish *wish)
{
	return wish->rewind != REWIND_REFUSE && call->request->present & REQUEST_HAS(start_step) && model->has_step &&
	       call->request->start_step <= model->step;
}

/* Which version to go back to, where that is wanted: 0 when it is at hand, CALL_PARK, STATUS_ENOVERSION. */
static int rewind_reach(struct call *call, struct model *model, const struct wish *wish, struct restore_target *ret_target)
{
	if (!rewinds(call, model, wish) || wish->rewind != REWIND_BACK)
		return 0;
	if (call->request->start_step == 0)
		return reason_set(&call->reason, STATUS_ENOVERSION,
		                  "rewind=back: no average is older than step 0; resume=never starts anew");
	return restore_reach(call, model, call->request->start_step - 1, ret_target);
}

/* No update may be under way. */
static void model_rewind(struct call *call, struct model *model, const struct wish *wish,
                         const struct restore_target *target)
{
	uint64_t start_step = call->request->start_step, from = model->step;

	if (!rewinds(call, model, wish))
		return;
	for (uint32_t r = 0; r < model->world; r++)
		update_drop_ready(model, r, "the trainer has begun again at an earlier step", &call->service->counters);
	if (wish->rewind == REWIND_BACK) {
		restore_take(call->service, call->now, model, target, "rewound");
	} else {
		continue_record(model, start_step);
		/* The new first call is a stride behind what was averaged, like any other. */
		model->has_step = start_step >= wish->stride;
		model->step = model->has_step ? start_step - wish->stride : 0;
	}
	call->service->counters.rewinds++;
	service_event(call->service, EVENT_NOTICE, model->name, 0,
	              "%s: the trainer begins again at step %" PRIu64 ", averaged was step %" PRIu64 "; the average %s",
	              model->name, start_step, from,
	              wish->rewind == REWIND_CONTINUE ? "stays"
	              : target->on_disk               ? "went back to a version on disk"
	                                              : "went back to a kept version");
}

static int model_join(struct call *call, struct model *model, struct wish *wish)
{
	struct manifest *pieces = wish->manifest;
	struct restore_target target = { .on_disk = false };
	int error;

	if (is_repeated(call, model, wish)) {
		register_reply(call, model, wish->rank);
		return 0;
	}
	error = model_pieces_check(model, wish->rank, pieces, &call->reason);
	if (error)
		return error;
	/* The plan may be in use by an update of what other ranks had pushed. */
	if (!rank_vacate(call->service, model, wish->rank) || model->applying) {
		call->waits = model;
		return CALL_PARK;
	}
	error = rewind_reach(call, model, wish, &target);
	if (error == CALL_PARK)
		return error;
	if (!error) {
		wish->manifest = NULL;
		error = model_rank_pieces(model, wish->rank, pieces, &call->reason);
	}
	if (error) {
		restore_drop(call->service, model, call->awaited);
		intake_reclaim(&model->records[wish->rank]);
		return error;
	}
	model_rewind(call, model, wish, &target);
	rank_claim(call, model, wish);
	register_reply(call, model, wish->rank);
	return 0;
}

/* Makes the model fit the wish: other profiles in its place, other tensors or another world in an heir. */
static int model_adapt(struct call *call, struct model *model, struct wish *wish)
{
	struct reason difference;
	int error = tensors_fit(model, wish, &difference);

	if (!error)
		return profiles_want(call, model, wish->profiles, wish->profile_count);
	if (error != STATUS_EMANIFEST)
		return error;
	if (model->heir) {
		call->waits = model->heir;
		return CALL_PARK;
	}
	return model_start(call, wish, model, true);
}

static int wish_grant(struct call *call, struct wish *wish)
{
	struct model *model = service_find(call->service, wish->name, strlen(wish->name));
	int error;

	if (!model && wish->resume == RESUME_MUST)
		return reason_set(&call->reason, STATUS_ENOMODEL,
		                  "there is no model '%s' to resume; resume=auto starts one", wish->name);
	if (!model)
		return model_start(call, wish, NULL, false);
	call->waits = model;
	if (!model->serving)
		return CALL_PARK;
	if (is_repeated(call, model, wish))
		return model_join(call, model, wish);
	if (wish->resume == RESUME_NEVER && !model_is_fresh(model, wish))
		return model_start(call, wish, model, false);
	if (wish->resume == RESUME_ADAPT)
		error = model_adapt(call, model, wish);
	else
		error = tensors_fit(model, wish, &call->reason);
	if (!error && wish->resume != RESUME_ADAPT)
		error = profiles_fit(model, wish, &call->reason);
	return error ? error : model_join(call, model, wish);
}

int register_handle(struct call *call)
{
	struct wish wish = { 0 };
	int result = wish_make(call, &wish);

	if (!result)
		result = wish_grant(call, &wish);
	wish_finish(&wish);
	return result;
}

/* Whether a trainer may be handed a stage to write into. */
static int attach_check(struct call *call)
{
	const struct service_facts *facts = &call->service->facts;
	const struct peer *peer = &call->exchange->peer;

	if (!facts->segments_dir || !facts->segments_dir[0] || peer->uid == facts->uid || peer->uid == 0)
		return 0;
	return reason_set(&call->reason, -EACCES,
	                  "a trainer of uid %" PRId64 " may not attach to a daemon of uid %" PRId64 " whose segments are files in "
	                  "'%.160s' (segments-dir): their size cannot be sealed, and whoever cuts a stage short kills the "
	                  "daemon. Run both as the same user, or the daemon as a systemd service without segments-dir",
	                  peer->uid, facts->uid, facts->segments_dir);
}

int call_stages(struct call *call, struct model **ret_model, uint32_t *ret_rank)
{
	struct segment_order *order;
	struct model *model;
	struct rank *rank;
	uint32_t index;
	int error = call_rank(call, &model, &index);

	if (error)
		return error;
	rank = &model->ranks[index];
	error = intake_holds(&model->records[index], call_client(call, &model->records[index]), call->request->epoch,
	                     &call->reason);
	if (error)
		return error;
	*ret_model = model;
	*ret_rank = index;
	if (rank->stage.base)
		return 0;
	call->waits = model;
	if (rank->stage_ordered)
		return CALL_PARK;
	error = model_order_stage(model, index, &order, &call->reason);
	if (error)
		return error;
	service_order_take(call->service, order);
	rank->stage_ordered = true;
	return CALL_PARK;
}

int attach_handle(struct call *call)
{
	struct model *model;
	struct reply reply = { 0 };
	struct attachment attachment = { 0 };
	struct rank *rank;
	uint32_t index;
	int result = attach_check(call);

	if (!result)
		result = call_stages(call, &model, &index);
	if (result < 0)
		return result;
	rank = &model->ranks[index];
	rank->attached_peer = call->exchange->peer.id;
	rank->is_remote = false;
	rank->away_due_ms = 0;
	if (result == CALL_PARK)
		return CALL_PARK;
	attachment.fd = rank->stage.fd;
	reply_set(&reply, segment_bytes, rank->stage.bytes);
	reply_set(&reply, stage_count, model->stage_count);
	reply_set(&reply, segment, ((struct segment_header *)rank->stage.base)->segment);
	call_reply(call, &reply, &attachment);
	return 0;
}
