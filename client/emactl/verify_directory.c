/*
 * Walking and judging. See verify_directory.h.
 *
 * What a directory is, its contents say: a manifest.json makes a checkpoint, directories named STEP-VERSION a model's,
 * "checkpoints" or "snapshots" a state directory. Nothing else is gone into, and no links.
 */
#include "client/emactl/verify_directory.h"

#include "client/emactl/figure.h"
#include "client/emactl/table.h"
#include "client/emactl/verify_file.h"
#include "proto/generation.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES_MAX = 4096, DEPTH_MAX = 64 };

enum kind { KIND_CHECKPOINT, KIND_AVERAGE };

/* What is found out of one checkpoint or kept average. */
struct finding {
	const char *path;
	enum kind kind;
	bool aside;     /* the daemon had found it damaged */
	bool has_facts; /* model, step and version are known */
	char model[MODEL_NAME_BYTES_MAX + 1];
	struct generation_name name;
	uint64_t bytes;
	int code;
	struct reason reason;
};

struct walk {
	const struct emactl *emactl;
	struct progress progress;
	struct table *table; /* owned; NULL with --json and --quiet */
	uint64_t found_count, damaged_count, aside_count;
	int status; /* of the first failure */
	int code;   /* of walking itself: nothing more is looked at */
	struct reason reason;
};

bool verify_is_directory(const char *path)
{
	struct stat facts;

	return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

/* A directory that is no link. */
static bool is_own_directory(const char *path)
{
	struct stat facts;

	return lstat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

static bool is_there(const char *path)
{
	struct stat facts;

	return lstat(path, &facts) == 0;
}

/* "directory/name"; false where that is too long. */
static bool path_join(char *path, const char *directory, const char *name)
{
	return snprintf(path, PATH_BYTES_MAX, "%s/%s", directory, name) < PATH_BYTES_MAX;
}

/* ---- one thing ------------------------------------------------------------------------------------------------ */

static void finding_print(struct walk *walk, const struct finding *at)
{
	const char *state = at->aside ? "aside" : at->code ? "damaged" : "whole";

	table_cell(walk->table, at->aside ? TABLE_WARN : at->code ? TABLE_BAD : TABLE_GOOD, "%s", state);
	table_cell(walk->table, TABLE_PLAIN, "%s", at->path);
	if (at->has_facts) {
		table_cell(walk->table, TABLE_PLAIN, "%s", at->model);
		table_cell(walk->table, TABLE_PLAIN, "%" PRIu64, at->name.step);
		table_cell(walk->table, TABLE_PLAIN, "%" PRIu64, at->name.version);
	} else {
		for (int i = 0; i < 3; i++)
			table_cell(walk->table, TABLE_PLAIN, "-");
	}
	table_cell(walk->table, TABLE_PLAIN, "%s", figure_bytes(at->bytes).text);
	table_cell(walk->table, TABLE_PLAIN, "%s", at->code ? at->reason.text : "");
}

static void finding_json(const struct finding *at)
{
	printf("{\"path\":");
	output_json_string(at->path);
	printf(",\"kind\":\"%s\",\"is_good\":%s,\"aside\":%s,\"reason\":",
	       at->kind == KIND_CHECKPOINT ? "checkpoint" : "average", at->code ? "false" : "true",
	       at->aside ? "true" : "false");
	if (at->code)
		output_json_string(at->reason.text);
	else
		printf("null");
	printf(",\"model\":");
	if (at->has_facts) {
		output_json_string(at->model);
		printf(",\"step\":%" PRIu64 ",\"version\":%" PRIu64, at->name.step, at->name.version);
	} else {
		printf("null,\"step\":null,\"version\":null");
	}
	printf(",\"bytes\":%" PRIu64 "}\n", at->bytes);
}

static void finding_take(struct walk *walk, const struct finding *at)
{
	progress_end(&walk->progress);
	walk->found_count++;
	walk->aside_count += at->aside;
	walk->damaged_count += at->code && !at->aside;
	if (at->code && !at->aside && !walk->status)
		walk->status = output_exit_status(at->code);
	if (walk->emactl->is_json)
		finding_json(at);
	else if (walk->table)
		finding_print(walk, at);
}

/* What a file of emad's says of itself. */
static uint64_t metadata_number(const struct safetensors *contents, const char *key)
{
	for (uint32_t i = 0; i < contents->metadata_count; i++)
		if (strcmp(contents->metadata[i].key, key) == 0)
			return strtoull(contents->metadata[i].value, NULL, 10);
	return 0;
}

static const char *metadata_text(const struct safetensors *contents, const char *key)
{
	for (uint32_t i = 0; i < contents->metadata_count; i++)
		if (strcmp(contents->metadata[i].key, key) == 0)
			return contents->metadata[i].value;
	return "";
}

/* ---- checkpoints ---------------------------------------------------------------------------------------------- */

static int manifest_read(const char *directory, struct generation_summary *ret_summary, uint64_t *ret_bytes,
                         struct reason *reason)
{
	char path[PATH_BYTES_MAX];
	size_t bytes = 0;
	struct stat facts;
	char *text = NULL;
	FILE *file;
	int code = 0;

	*ret_bytes = 0;
	if (!path_join(path, directory, "manifest.json"))
		return reason_set(reason, -ENAMETOOLONG, "its path is too long");
	if (lstat(path, &facts) != 0)
		return reason_set(reason, errno == ENOENT ? STATUS_ECORRUPT : -errno, "manifest.json: %s", strerror(errno));
	/* A pipe would not even open. */
	if (!S_ISREG(facts.st_mode) || (uint64_t)facts.st_size > GENERATION_TEXT_BYTES_MAX)
		return reason_set(reason, STATUS_ECORRUPT, "manifest.json is no file, or has more than %" PRIu64 " bytes",
		                  GENERATION_TEXT_BYTES_MAX);
	file = fopen(path, "re");
	if (!file)
		code = reason_set(reason, -errno, "manifest.json cannot be read: %s", strerror(errno));
	if (!code) {
		text = malloc((size_t)facts.st_size + 1);
		code = text ? 0 : reason_set(reason, -ENOMEM, "not enough memory for manifest.json");
	}
	if (!code)
		bytes = fread(text, 1, (size_t)facts.st_size, file);
	if (!code && ferror(file))
		code = reason_set(reason, -EIO, "manifest.json cannot be read");
	if (!code)
		code = generation_summary_read(text, bytes, ret_summary, reason);
	*ret_bytes = bytes;
	free(text);
	if (file)
		fclose(file);
	return code;
}

/* A sentence that begins with a path, without it: the path stands elsewhere in what is shown. */
static void path_leave_out(struct reason *reason, const char *path)
{
	const char *name = source_name(path);
	const size_t bytes = strlen(name);

	if (strncmp(reason->text, name, bytes) == 0 && strncmp(reason->text + bytes, ": ", 2) == 0)
		memmove(reason->text, reason->text + bytes + 2, strlen(reason->text + bytes + 2) + 1);
}

/* The sentence gets the file's name in front. */
static int located(struct reason *reason, const char *name, int code)
{
	struct reason why = *reason;

	return reason_set(reason, code, "%s: %.400s", name, why.text);
}

/* One file against what the manifest says of it. */
static int file_compare(struct walk *walk, const struct finding *at, const struct generation_summary *summary,
                        uint32_t index, uint64_t *ret_bytes, struct reason *reason)
{
	struct verification file = {0};
	char path[PATH_BYTES_MAX], name[GENERATION_FILE_NAME_BYTES];
	uint64_t checksum = 0;
	int code;

	generation_file_name(summary->files[index].profile, name);
	if (!path_join(path, at->path, name))
		return reason_set(reason, -ENAMETOOLONG, "its path is too long");
	code = verification_run(&file, path, &walk->progress, reason);
	path_leave_out(reason, path);
	*ret_bytes = file.source.file_bytes;
	if (code == -ENOENT)
		code = reason_set(reason, STATUS_ECORRUPT, "it is missing");
	else if (file.source.fd >= 0 && file.source.file_bytes != summary->files[index].bytes)
		code = reason_set(reason, STATUS_ECORRUPT, "it has %" PRIu64 " bytes, the manifest says %" PRIu64,
		                  file.source.file_bytes, summary->files[index].bytes);
	if (!code || (code == STATUS_ECORRUPT && file.source.fd >= 0 &&
	              file.source.file_bytes == summary->files[index].bytes)) {
		struct reason why;
		int error = verification_checksum(&file, &checksum, &why);

		/* Damage of the disk comes before what it made of the values. */
		if (error)
			code = error, *reason = why, path_leave_out(reason, path);
		else if (checksum != summary->files[index].checksum)
			code = reason_set(reason, STATUS_ECORRUPT, "its checksum is %016" PRIx64 ", the manifest says %016" PRIx64,
			                  checksum, summary->files[index].checksum);
	}
	verification_finish(&file);
	return code ? located(reason, name, code) : 0;
}

static void checkpoint_verify(struct walk *walk, const char *path, const struct generation_name *name, bool aside)
{
	struct finding at = {.path = path, .kind = KIND_CHECKPOINT, .aside = aside, .reason = {""}};
	struct generation_summary summary;
	uint64_t bytes = 0;

	progress_begin(&walk->progress, !walk->emactl->is_json && !walk->emactl->is_quiet);
	at.code = manifest_read(path, &summary, &at.bytes, &at.reason);
	if (!at.code) {
		at.has_facts = true;
		strcpy(at.model, summary.model);
		at.name = summary.name;
		if (name && generation_compare(name, &summary.name) != 0)
			at.code = reason_set(&at.reason, STATUS_ECORRUPT, "its manifest.json is that of another checkpoint");
	}
	for (uint32_t i = 0; at.has_facts && i < summary.file_count; i++) {
		struct reason reason = {""};
		int code = file_compare(walk, &at, &summary, i, &bytes, &reason);

		at.bytes += bytes;
		if (code && !at.code) {
			at.code = code;
			at.reason = reason;
		}
	}
	/* The daemon removes old ones: one that is gone by now was whole, for all that is known. */
	if (at.code && !is_there(path)) {
		progress_end(&walk->progress);
		return;
	}
	if (aside && !at.code)
		at.code = reason_set(&at.reason, STATUS_ECORRUPT, "the daemon set it aside; it reads well now");
	finding_take(walk, &at);
}

/* ---- directories ---------------------------------------------------------------------------------------------- */

/* Calls each for all names of a directory, in their order. */
static void names_walk(struct walk *walk, const char *directory, int depth,
                       void (*each)(struct walk *walk, const char *path, const char *name, int depth))
{
	char path[PATH_BYTES_MAX];
	struct dirent **names;
	int count = depth < DEPTH_MAX ? scandir(directory, &names, NULL, alphasort) : 0;

	if (count < 0) {
		if (errno == ENOENT)
			return;
		walk->code = -errno;
		reason_set(&walk->reason, walk->code, "%.300s: it cannot be listed: %s", directory, strerror(errno));
		return;
	}
	for (int i = 0; i < count; i++) {
		if (!walk->code && names[i]->d_name[0] != '.' && path_join(path, directory, names[i]->d_name))
			each(walk, path, names[i]->d_name, depth);
		free(names[i]);
	}
	if (depth < DEPTH_MAX)
		free(names);
}

static void generation_walk(struct walk *walk, const char *path, const char *name, int depth)
{
	struct generation_name generation;
	uint64_t aside_s;

	(void)depth;
	if (!is_own_directory(path))
		return;
	if (generation_name_parse(name, &generation))
		checkpoint_verify(walk, path, &generation, false);
	else if (generation_aside_parse(name, &generation, &aside_s))
		checkpoint_verify(walk, path, &generation, true);
}

/* Models of their names alone: what was set aside with a model that is gone is nobody's any more. */
static void model_walk(struct walk *walk, const char *path, const char *name, int depth)
{
	char model[MODEL_NAME_BYTES_MAX + 1];

	if (generation_directory_parse(name, model) && is_own_directory(path))
		names_walk(walk, path, depth + 1, generation_walk);
}

static void average_walk(struct walk *walk, const char *path, const char *name, int depth)
{
	struct finding at = {.path = path, .kind = KIND_AVERAGE, .reason = {""}};
	struct verification file = {0};
	const size_t bytes = strlen(name);

	if (is_own_directory(path)) {
		names_walk(walk, path, depth + 1, average_walk);
		return;
	}
	if (bytes < 12 || strcmp(name + bytes - 12, ".safetensors") != 0)
		return;
	progress_begin(&walk->progress, !walk->emactl->is_json && !walk->emactl->is_quiet);
	at.code = verification_run(&file, path, &walk->progress, &at.reason);
	path_leave_out(&at.reason, path);
	at.bytes = file.source.file_bytes;
	if (file.contents) {
		at.has_facts = true;
		snprintf(at.model, sizeof(at.model), "%s", metadata_text(file.contents, "emad.model"));
		at.name.step = metadata_number(file.contents, "emad.step");
		at.name.version = metadata_number(file.contents, "emad.version");
	}
	verification_finish(&file);
	if (at.code == -ENOENT)
		progress_end(&walk->progress);
	else
		finding_take(walk, &at);
}

static void directory_walk(struct walk *walk, const char *path)
{
	char part[PATH_BYTES_MAX];
	const char *last = strrchr(path, '/');
	struct generation_name name;
	bool is_named;

	last = last ? last + 1 : path;
	is_named = generation_name_parse(last, &name);
	if (is_named || (path_join(part, path, "manifest.json") && is_there(part))) {
		checkpoint_verify(walk, path, is_named ? &name : NULL, false);
		return;
	}
	names_walk(walk, path, 0, generation_walk);
	if (strcmp(last, "checkpoints") == 0)
		names_walk(walk, path, 0, model_walk);
	if (strcmp(last, "snapshots") == 0)
		names_walk(walk, path, 0, average_walk);
	if (path_join(part, path, "checkpoints"))
		names_walk(walk, part, 0, model_walk);
	if (path_join(part, path, "snapshots"))
		names_walk(walk, part, 0, average_walk);
}

/* A path of which nothing could be verified has its line too. */
static void nothing_json(const char *path, const char *reason)
{
	printf("{\"path\":");
	output_json_string(path);
	printf(",\"kind\":null,\"is_good\":false,\"aside\":false,\"reason\":");
	output_json_string(reason);
	printf(",\"model\":null,\"step\":null,\"version\":null,\"bytes\":0}\n");
}

static int walk_finish(struct walk *walk, const char *path)
{
	const struct emactl *emactl = walk->emactl;
	int code = 0;

	if (!walk->code && walk->found_count == 0)
		walk->code = reason_set(&walk->reason, STATUS_EARGUMENT,
		                        "%.200s: no checkpoint is in it, and no kept average: give a checkpoint, a model's "
		                        "directory below 'checkpoints', or the daemon's state directory", path);
	if (walk->code && emactl->is_json)
		nothing_json(path, walk->reason.text);
	if (walk->table && walk->found_count > 0)
		code = table_print(walk->table, stdout, emactl->is_colour);
	table_destroy(walk->table);
	/* In order with the report when both go to one place. */
	fflush(stdout);
	if (code)
		return output_error(emactl, code, "not enough memory to print the report");
	if (walk->code)
		return output_error(emactl, walk->code, "%s", walk->reason.text);
	if (walk->damaged_count > 0) {
		(void)output_error(emactl, EMAD_ECORRUPT, "%s: %" PRIu64 " of %" PRIu64 " damaged", path, walk->damaged_count,
		                   walk->found_count);
		return walk->status;
	}
	if (!emactl->is_json && !emactl->is_quiet) {
		table_write_safe(stdout, path);
		printf(": good");
		if (walk->aside_count > 0)
			printf(", but for %" PRIu64 " that the daemon has set aside", walk->aside_count);
		putchar('\n');
	}
	return 0;
}

int verify_directory(const struct emactl *emactl, const char *path, bool is_last)
{
	static const struct table_column COLUMNS[] = {{"STATE", false}, {"PATH", false},   {"MODEL", false}, {"STEP", true},
	                                              {"VERSION", true}, {"SIZE", true}, {"REASON", false}};
	const bool prints = !emactl->is_json && !emactl->is_quiet;
	struct walk walk = {.emactl = emactl, .reason = {""}};
	char plain[PATH_BYTES_MAX];
	size_t bytes = strlen(path);
	int status;

	while (bytes > 1 && path[bytes - 1] == '/')
		bytes--;
	if (bytes >= sizeof(plain))
		return output_error(emactl, -ENAMETOOLONG, "%.100s...: the path is too long", path);
	snprintf(plain, sizeof(plain), "%.*s", (int)bytes, path);
	if (prints)
		walk.table = table_create(COLUMNS, sizeof(COLUMNS) / sizeof(COLUMNS[0]));
	directory_walk(&walk, plain);
	status = walk_finish(&walk, plain);
	if (!is_last && prints)
		putchar('\n');
	return status;
}
