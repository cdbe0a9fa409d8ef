/*
 * Writing and reading the JSON with jansson. See generation_text.h.
 */
#include "daemon/core/generation_text.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attributes.h"
#include "daemon/core/json_text.h"
#include "proto/name.h"

enum { FORMAT = 1 };

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *real(double value)
{
	char text[40];

	snprintf(text, sizeof text, "%a", value);
	return json_string(text);
}

static void put(bool *whole, json_t *object, const char *name, json_t *value)
{
	if (json_object_set_new(object, name, value) != 0)
		*whole = false;
}

static json_t *profile_row(bool *whole, const struct generation_profile *at)
{
	const struct slot_profile *facts = &at->facts;
	char specification[PROFILE_BYTES_MAX + 1] = "";
	json_t *row = json_object();

	(void)profile_format(&at->profile, specification, sizeof specification);
	put(whole, row, "specification", json_string(specification));
	put(whole, row, "updates", number(facts->updates));
	put(whole, row, "calls", number(facts->calls));
	put(whole, row, "decay_rest", real(facts->decay_rest));
	put(whole, row, "decay", real(facts->decay));
	put(whole, row, "action", number(facts->action));
	put(whole, row, "nonfinite", number(facts->nonfinite));
	put(whole, row, "drift", real(facts->drift));
	put(whole, row, "value_norm", real(facts->value_norm));
	put(whole, row, "history", at->history ? json_string(at->history) : json_null());
	put(whole, row, "snapshot_step", at->has_snapshot ? number(at->snapshot_step) : json_null());
	return row;
}

char *generation_facts_encode(const struct generation *generation)
{
	bool is_whole = true, *whole = &is_whole;
	json_t *root = json_object(), *profiles = json_array();
	char guards[GUARDS_BYTES_MAX];
	char *text;

	guards_format(&generation->guards, guards, sizeof guards);
	put(whole, root, "format", number(FORMAT));
	put(whole, root, "agent", json_string(generation->agent));
	put(whole, root, "model", json_string(generation->model));
	put(whole, root, "world", number(generation->world));
	put(whole, root, "epoch", number(generation->epoch));
	put(whole, root, "slots", number(generation->slot_count));
	put(whole, root, "stages", number(generation->stage_count));
	put(whole, root, "version", number(generation->version));
	put(whole, root, "step", number(generation->step));
	put(whole, root, "updates", number(generation->updates));
	put(whole, root, "calls", number(generation->calls));
	put(whole, root, "published_us", number(generation->published_us));
	put(whole, root, "has_step", json_boolean(generation->has_step));
	put(whole, root, "model_step", number(generation->model_step));
	put(whole, root, "stride", number(generation->stride));
	put(whole, root, "policy", json_string(generation->coalesces ? "coalesce" : "block"));
	put(whole, root, "managed", json_boolean(generation->managed));
	put(whole, root, "owner", generation->owner >= 0 ? json_integer(generation->owner) : json_null());
	put(whole, root, "guards", json_string(guards));
	put(whole, root, "attributes", json_string(generation->attributes));
	put(whole, root, "metadata", generation->metadata ? json_string(generation->metadata) : json_null());
	for (uint32_t p = 0; p < generation->profile_count; p++)
		if (json_array_append_new(profiles, profile_row(whole, &generation->profiles[p])) != 0)
			is_whole = false;
	put(whole, root, "profiles", profiles);
	text = is_whole ? json_text(root) : NULL;
	json_decref(root);
	return text;
}

static char *tensor_text(const struct tensor *tensor)
{
	json_t *extents = json_array(), *row;
	char *text;

	for (uint32_t d = 0; d < tensor->dimension_count; d++)
		if (json_array_append_new(extents, number(tensor->extents[d])) != 0) {
			json_decref(extents);
			return NULL;
		}
	row = json_pack("[s, s, o, b]", tensor->name, dtype_name(tensor->dtype), extents, tensor->is_buffer);
	text = json_text(row);
	json_decref(row);
	return text;
}

/* Each tensor becomes text by itself: a tree of all would take as much memory as the model. */
static bool tensors_write(const struct generation *generation, FILE *file)
{
	const struct manifest *manifest = generation->manifest;

	fputs(",\"tensors\":[", file);
	for (uint32_t t = 0; t < manifest->tensor_count; t++) {
		double squares = generation->value_squares ? generation->value_squares[t] : 0;
		char *text = tensor_text(&manifest->tensors[t]);

		if (!text)
			return false;
		fprintf(file, "%s%.*s", t > 0 ? "," : "", (int)strlen(text) - 1, text);
		if (squares > 0)
			fprintf(file, ",\"%a\"", squares);
		fputs("]", file);
		free(text);
	}
	fputs("]", file);
	return true;
}

char *generation_encode(const struct generation *generation, size_t *ret_bytes)
{
	char *facts = generation_facts_encode(generation), *text = NULL, *roomy = NULL;
	size_t bytes;
	FILE *file = facts ? open_memstream(&text, &bytes) : NULL;
	bool whole = file != NULL;

	if (file) {
		/* The object goes on where its closing brace stood. */
		fprintf(file, "%.*s", (int)strlen(facts) - 1, facts);
		whole = tensors_write(generation, file);
		whole = fclose(file) == 0 && whole;
	}
	if (whole)
		roomy = realloc(text, bytes + GENERATION_END_BYTES_MAX);
	if (roomy)
		*ret_bytes = bytes;
	else
		free(text);
	free(facts);
	return roomy;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* The object that is read, and what was wrong with it first. */
struct source {
	const json_t *object;
	const char *wrong; /* NULL: nothing so far */
};

static const json_t *member(struct source *source, const char *name)
{
	const json_t *value = json_object_get(source->object, name);

	if (!value && !source->wrong)
		source->wrong = name;
	return value;
}

static uint64_t number_get(struct source *source, const char *name)
{
	const json_t *value = member(source, name);

	if (!json_is_integer(value) && !source->wrong)
		source->wrong = name;
	return (uint64_t)json_integer_value(value);
}

static bool boolean_get(struct source *source, const char *name)
{
	const json_t *value = member(source, name);

	if (!json_is_boolean(value) && !source->wrong)
		source->wrong = name;
	return json_is_true(value);
}

/* "" where it is none. */
static const char *string_get(struct source *source, const char *name)
{
	const json_t *value = member(source, name);

	if (!json_is_string(value) && !source->wrong)
		source->wrong = name;
	return json_is_string(value) ? json_string_value(value) : "";
}

static double real_get(struct source *source, const char *name)
{
	const char *text = string_get(source, name);
	char *end;
	double value = strtod(text, &end);

	if ((end == text || *end) && !source->wrong)
		source->wrong = name;
	return value;
}

static uint64_t checksum_get(struct source *source, const char *name)
{
	const char *text = string_get(source, name);
	char *end;
	uint64_t value = strtoull(text, &end, 16);

	if ((strlen(text) != 16 || *end) && !source->wrong)
		source->wrong = name;
	return value;
}

static int corrupt(struct reason *reason, const char *what)
{
	return reason_set(reason, STATUS_ECORRUPT, "its manifest.json is damaged: '%s' is missing or not valid", what);
}

static int copy_get(struct source *source, const char *name, char **ret_text)
{
	*ret_text = NULL;
	if (json_is_null(member(source, name)))
		return 0;
	*ret_text = strdup(string_get(source, name));
	return *ret_text ? 0 : -ENOMEM;
}

/* -ENOMEM, or STATUS_ECORRUPT without a sentence: averages are given up for wrong text. */
static int json_parse(const char *text, size_t bytes, json_t **ret_root)
{
	int error = json_text_parse(text, bytes, ret_root, NULL);

	return error == STATUS_EARGUMENT ? STATUS_ECORRUPT : error;
}

/* Text that is JSON inside: an object, or an array. STATUS_ECORRUPT with a sentence, -ENOMEM. */
static int inner_check(const char *text, size_t bytes_max, bool wants_array, const char *what, struct reason *reason)
{
	json_t *root = NULL;
	int error = strlen(text) <= bytes_max ? json_parse(text, strlen(text), &root) : STATUS_ECORRUPT;

	if (!error && !(wants_array ? json_is_array(root) : json_is_object(root)))
		error = STATUS_ECORRUPT;
	json_decref(root);
	return error == STATUS_ECORRUPT ? corrupt(reason, what) : error;
}

static int profile_decode(const json_t *row, struct generation_profile *at, struct reason *reason)
{
	struct source source = { row, NULL };
	const char *specification = string_get(&source, "specification");
	const json_t *snapshot = member(&source, "snapshot_step");
	uint64_t action = number_get(&source, "action");
	int error;

	at->facts = (struct slot_profile){
		.updates = number_get(&source, "updates"),
		.calls = number_get(&source, "calls"),
		.decay_rest = real_get(&source, "decay_rest"),
		.decay = real_get(&source, "decay"),
		.action = (uint32_t)action,
		.nonfinite = number_get(&source, "nonfinite"),
		.drift = real_get(&source, "drift"),
		.value_norm = real_get(&source, "value_norm"),
	};
	at->has_snapshot = json_is_integer(snapshot);
	at->snapshot_step = (uint64_t)json_integer_value(snapshot);
	error = copy_get(&source, "history", &at->history);
	if (error)
		return error;
	error = at->history ? inner_check(at->history, HISTORY_BYTES_MAX, true, "history", reason) : 0;
	if (error)
		return error;
	if (action > ACTION_ZERO || !(at->facts.decay_rest >= 0) || !(at->facts.decay_rest <= 1))
		return corrupt(reason, action > ACTION_ZERO ? "action" : "decay_rest");
	if (source.wrong)
		return corrupt(reason, source.wrong);
	error = profile_parse(specification, strlen(specification), &at->profile, reason);
	return !error || error == -ENOMEM ? error : STATUS_ECORRUPT;
}

static int files_decode(struct source *source, struct generation *generation, struct reason *reason)
{
	const json_t *rows = member(source, "files");

	if (json_array_size(rows) != generation->profile_count)
		return corrupt(reason, "files");
	for (uint32_t p = 0; p < generation->profile_count; p++) {
		struct generation_profile *at = &generation->profiles[p];
		struct source row = { json_array_get(rows, p), NULL };

		at->file_bytes = number_get(&row, "bytes");
		at->file_checksum = checksum_get(&row, "xxh3");
		if (row.wrong || strcmp(string_get(&row, "profile"), at->profile.name) != 0)
			return corrupt(reason, row.wrong ? row.wrong : "files");
	}
	return 0;
}

static int profiles_decode(struct source *source, struct generation *generation, struct reason *reason)
{
	const json_t *rows = member(source, "profiles");
	size_t count = json_array_size(rows);
	int error = 0;

	if (count < 1 || count > PROFILE_COUNT_MAX)
		return corrupt(reason, "profiles");
	for (size_t p = 0; p < count && !error; p++) {
		generation->profile_count = (uint32_t)p + 1;
		error = profile_decode(json_array_get(rows, p), &generation->profiles[p], reason);
		for (size_t q = 0; q < p && !error; q++)
			if (strcmp(generation->profiles[p].profile.name, generation->profiles[q].profile.name) == 0)
				error = corrupt(reason, "profiles");
	}
	return error;
}

static int tensor_decode(const json_t *row, struct manifest *manifest, struct reason *reason)
{
	const json_t *name = json_array_get(row, 0), *extents = json_array_get(row, 2), *flag = json_array_get(row, 3);
	const char *dtype_text = json_string_value(json_array_get(row, 1));
	size_t dimension_count = json_array_size(extents);
	uint64_t shape[DIMENSION_COUNT_MAX];
	enum dtype dtype;

	if (!json_is_string(name) || !json_is_array(extents) || !json_is_boolean(flag) || !dtype_text ||
	    !dtype_parse(dtype_text, &dtype) || dimension_count > DIMENSION_COUNT_MAX)
		return corrupt(reason, "tensors");
	for (size_t d = 0; d < dimension_count; d++) {
		const json_t *extent = json_array_get(extents, d);

		if (!json_is_integer(extent) || json_integer_value(extent) < 0)
			return corrupt(reason, "tensors");
		shape[d] = (uint64_t)json_integer_value(extent);
	}
	return manifest_add_tensor(manifest, json_string_value(name), json_string_length(name), dtype,
	                           json_is_true(flag), shape, (uint32_t)dimension_count, reason);
}

/* The fifth of a row, which may be absent. */
static int squares_decode(const json_t *row, double *ret_squares, struct reason *reason)
{
	const json_t *value = json_array_get(row, 4);
	const char *text = json_string_value(value);
	char *end = NULL;
	double squares = text ? strtod(text, &end) : 0;

	if (value && (!text || end == text || *end || !(squares >= 0)))
		return corrupt(reason, "tensors");
	*ret_squares = squares;
	return 0;
}

static int tensors_decode(struct source *source, struct generation *generation, struct reason *reason)
{
	const json_t *rows = member(source, "tensors");
	int error = manifest_create(&generation->manifest);

	generation->value_squares = calloc(json_array_size(rows) + 1, sizeof *generation->value_squares);
	if (!error && !generation->value_squares)
		error = -ENOMEM;
	for (size_t t = 0; !error && t < json_array_size(rows); t++) {
		error = tensor_decode(json_array_get(rows, t), generation->manifest, reason);
		if (!error)
			error = squares_decode(json_array_get(rows, t), &generation->value_squares[t], reason);
	}
	if (!error)
		error = manifest_finish(generation->manifest, reason);
	return !error || error == -ENOMEM ? error : STATUS_ECORRUPT;
}

/* -1 where nobody is written down, as was always so once. */
static int64_t owner_get(struct source *source, const char *name)
{
	const json_t *value = json_object_get(source->object, name);
	json_int_t owner = json_integer_value(value);

	if (!value || json_is_null(value))
		return -1;
	if ((!json_is_integer(value) || owner < 0 || owner > UINT32_MAX) && !source->wrong)
		source->wrong = name;
	return owner;
}

static int facts_decode(struct source *source, struct generation *generation, struct reason *reason)
{
	const char *model = string_get(source, "model"), *guards = string_get(source, "guards");
	uint64_t world = number_get(source, "world");
	int error;

	generation->world = (uint32_t)world;
	generation->epoch = number_get(source, "epoch");
	generation->version = number_get(source, "version");
	generation->step = number_get(source, "step");
	generation->updates = number_get(source, "updates");
	generation->calls = number_get(source, "calls");
	generation->published_us = number_get(source, "published_us");
	generation->has_step = boolean_get(source, "has_step");
	generation->model_step = number_get(source, "model_step");
	generation->stride = number_get(source, "stride");
	generation->managed = boolean_get(source, "managed");
	generation->owner = owner_get(source, "owner");
	generation->coalesces = strcmp(string_get(source, "policy"), "coalesce") == 0;
	error = copy_get(source, "attributes", &generation->attributes);
	if (!error)
		error = copy_get(source, "metadata", &generation->metadata);
	if (error)
		return error;
	if (model_name_check(model, strlen(model), NULL) != 0)
		return corrupt(reason, "model");
	strcpy(generation->model, model);
	if (world < 1 || world > WORLD_MAX)
		return corrupt(reason, "world");
	if (generation->stride == 0)
		return corrupt(reason, "stride");
	error = guards_parse((struct text){ guards, strlen(guards) }, &generation->guards, NULL);
	if (error)
		return error == -ENOMEM ? error : corrupt(reason, "guards");
	if (!generation->attributes)
		return corrupt(reason, "attributes");
	error = inner_check(generation->attributes, ATTRIBUTES_BYTES_MAX, false, "attributes", reason);
	if (!error && generation->metadata)
		error = inner_check(generation->metadata, METADATA_BYTES_MAX, false, "metadata", reason);
	return error;
}

/* The facts; with its tensors and files (has_files) that of a whole generation. */
static int text_decode(const char *text, size_t text_bytes, bool has_files, struct generation *ret_generation,
                       struct reason *reason)
{
	struct generation generation = { .manifest = NULL };
	struct source source = { NULL, NULL };
	json_t *root = NULL;
	int error = json_parse(text, text_bytes, &root);

	source.object = root;
	if (error == STATUS_ECORRUPT || (!error && !json_is_object(root)))
		error = corrupt(reason, "{");
	if (!error && number_get(&source, "format") != FORMAT)
		error = reason_set(reason, STATUS_EVERSION,
		                   "its format is %" PRIu64 ", this daemon reads format %d: start the emad that wrote it",
		                   number_get(&source, "format"), FORMAT);
	if (!error)
		error = facts_decode(&source, &generation, reason);
	if (!error)
		error = profiles_decode(&source, &generation, reason);
	if (!error && has_files && generation.version == 0)
		error = corrupt(reason, "version");
	if (!error && has_files)
		error = files_decode(&source, &generation, reason);
	if (!error && has_files)
		error = tensors_decode(&source, &generation, reason);
	if (!error && source.wrong)
		error = corrupt(reason, source.wrong);
	json_decref(root);
	if (error) {
		generation_finish(&generation);
		return error;
	}
	*ret_generation = generation;
	return 0;
}

int generation_decode(const char *text, size_t text_bytes, struct generation *ret_generation, struct reason *reason)
{
	if (!generation_text_check(text, text_bytes))
		return reason_set(reason, STATUS_ECORRUPT,
		                  "its manifest.json is cut off or damaged: the checksum at its end is not that of the %zu "
		                  "bytes before", text_bytes);
	return text_decode(text, text_bytes, true, ret_generation, reason);
}

int generation_facts_decode(const char *text, size_t text_bytes, struct generation *ret_generation,
                            struct reason *reason)
{
	return text_decode(text, text_bytes, false, ret_generation, reason);
}

bool generation_is_in_place(const struct generation *generation, const char *directory,
                            const struct generation_name *name)
{
	char own[GENERATION_DIRECTORY_BYTES];

	generation_directory_write(generation->model, own);
	return strcmp(own, directory) == 0 && generation->version == name->version && generation->step == name->step;
}

void generation_slot_write(const struct generation *generation, struct slot_header *slot)
{
	slot->step = generation->step;
	slot->updates = generation->updates;
	slot->calls = generation->calls;
	slot->published_us = generation->published_us;
	for (uint32_t p = 0; p < generation->profile_count; p++) {
		uint64_t offset = slot->profiles[p].region_offset, bytes = slot->profiles[p].region_bytes;

		slot->profiles[p] = generation->profiles[p].facts;
		slot->profiles[p].region_offset = offset;
		slot->profiles[p].region_bytes = bytes;
	}
}

void generation_finish(struct generation *generation)
{
	free(generation->attributes);
	free(generation->metadata);
	manifest_destroy(generation->manifest);
	free(generation->value_squares);
	for (uint32_t p = 0; p < generation->profile_count; p++)
		free(generation->profiles[p].history);
	*generation = (struct generation){ .manifest = NULL };
}
