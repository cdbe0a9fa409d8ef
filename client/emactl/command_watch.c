/*
 * watch: the versions of a model as they come, and an evaluation of each that is due.
 */
#include "client/emactl/emactl.h"

#include "client/emactl/ask.h"
#include "client/emactl/child.h"
#include "client/emactl/copying.h"
#include "client/emactl/figure.h"
#include "client/emactl/following.h"
#include "client/emactl/kept_files.h"
#include "client/emactl/operand.h"
#include "client/emactl/placeholders.h"
#include "client/emactl/table.h"
#include "client/view.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

enum { WATCH_EVERY, WATCH_EXEC, WATCH_DIR, WATCH_KEEP, WATCH_UNTIL, WATCH_STOP, WATCH_DTYPE };

enum { PATH_BYTES = 4096, RUN_FAILED = 1 };

static const struct command_option WATCH_OPTIONS[] = {
	[WATCH_EVERY] = {"every", 'e', "STEPS", "take the first version at or behind each multiple of STEPS (default: 1)"},
	[WATCH_EXEC] = {"exec", 'x', "COMMAND", "run this for each, with the average in a file; see above"},
	[WATCH_DIR] = {"dir", 'C', "DIR", "where the files go (default: .)"},
	[WATCH_KEEP] = {"keep", 'k', "N", "leave the newest N files; 0: all (default: 1)"},
	[WATCH_UNTIL] = {"until-step", 'u', "STEP", "end when a version of this step or later was taken"},
	[WATCH_STOP] = {"stop-on-error", 0, NULL, "end at the first run that fails"},
	[WATCH_DTYPE] = {"dtype", 'd', "DTYPE", "of the files: f64, f32, f16, bf16, f8_e4m3 or f8_e5m2"},
	{0},
};

struct watch {
	const struct emactl *emactl;
	struct following following;
	char model[MODEL_NAME_BYTES_MAX + 1];
	const char *profile; /* NULL: the first */
	char profile_name[PROFILE_NAME_BYTES_MAX + 1]; /* as the versions say */
	const char *directory;
	uint64_t keep;
	enum emad_served_dtype dtype;
	uint64_t version; /* that was printed last */
	uint64_t run_count, failure_count;
	int interrupted_by; /* the signal that asked for the end during a run */
};

/* ---- versions ------------------------------------------------------------------------------------------------- */

static void version_json(const struct watch *watch, const struct emad_view_info *info, double drift, int64_t lag,
                         uint64_t missed)
{
	printf("{\"event\":\"version\",\"model\":");
	output_json_string(watch->model);
	printf(",\"profile\":");
	output_json_string(watch->profile_name);
	printf(",\"step\":%" PRIu64 ",\"version\":%" PRIu64 ",\"updates\":%" PRIu64 ",\"decay\":%s", info->step,
	       info->version, info->updates, figure_json_real(info->decay).text);
	printf(",\"drift\":%s,\"lag\":", figure_json_real(drift).text);
	if (lag < 0)
		printf("null");
	else
		printf("%" PRId64, lag);
	printf(",\"published_us\":%" PRIu64 ",\"missed\":%" PRIu64 "}\n", info->published_us, missed);
}

static void version_line(const struct watch *watch, const struct emad_view_info *info, double drift, int64_t lag,
                         uint64_t missed)
{
	const bool is_colour = watch->emactl->is_colour;

	if (watch->version == 0 && !watch->emactl->is_quiet)
		printf("%s%12s  %10s  %10s  %-13s  %-10s  %4s  %s%s\n", is_colour ? table_style_begin(TABLE_HEAD) : "", "STEP",
		       "VERSION", "UPDATES", "DECAY", "DRIFT", "LAG", "MISSED", is_colour ? table_style_end() : "");
	printf("%12" PRIu64 "  %10" PRIu64 "  %10" PRIu64 "  %-13s  %-10s  ", info->step, info->version, info->updates,
	       figure_real(info->decay, 10).text, figure_real(drift, 4).text);
	if (lag < 0)
		printf("%4s  ", "-");
	else
		printf("%4" PRId64 "  ", lag);
	printf("%" PRIu64 "\n", missed);
}

/* Takes what is needed out of the view and closes it. */
static int version_tell(struct watch *watch, struct emad_view *view)
{
	struct emad_view_info info;
	int code = emad_view_info(view, &info);
	const double drift = view_drift(view);
	const char *profile = code ? NULL : emad_view_metadata(view, "emad.profile");
	uint64_t missed = 0;

	if (profile)
		snprintf(watch->profile_name, sizeof(watch->profile_name), "%s", profile);
	emad_view_close(view);
	/* One that was taken back already was no more the newest: the next is there. */
	if (code)
		return following_passes(code) ? 0 : output_library_error(watch->emactl, code);
	if (watch->version > 0 && info.version > watch->version + 1)
		missed = info.version - watch->version - 1;
	if (watch->emactl->is_json)
		version_json(watch, &info, drift, following_lag(&watch->following), missed);
	else
		version_line(watch, &info, drift, following_lag(&watch->following), missed);
	fflush(stdout);
	watch->version = info.version;
	return cadence_take(&watch->following.cadence, info.step) ? 0 : -1;
}

/* ---- evaluations ---------------------------------------------------------------------------------------------- */

static void run_json(const struct watch *watch, const struct emad_export_info *info, const char *file,
                     const struct child_result *result)
{
	printf("{\"event\":\"run\",\"model\":");
	output_json_string(watch->model);
	printf(",\"profile\":");
	output_json_string(watch->profile_name);
	printf(",\"step\":%" PRIu64 ",\"version\":%" PRIu64 ",\"file\":", info->step, info->version);
	output_json_string(file);
	if (result->signal)
		printf(",\"exit\":null,\"signal\":%d", result->signal);
	else
		printf(",\"exit\":%d,\"signal\":null", result->exit_status);
	printf(",\"elapsed_us\":%" PRIu64 "}\n", result->elapsed_us);
}

static void run_line(const struct watch *watch, const struct emad_export_info *info, const struct child_result *result)
{
	const bool is_good = result->exit_status == 0, is_colour = watch->emactl->is_colour;

	printf("step %" PRIu64 ", version %" PRIu64 ": %s", info->step, info->version,
	       is_colour ? table_style_begin(is_good ? TABLE_GOOD : TABLE_BAD) : "");
	if (result->signal)
		printf("signal %d (%s)", result->signal, strsignal(result->signal));
	else
		printf("exit %d", result->exit_status);
	printf("%s after %s\n", is_colour ? table_style_end() : "", figure_duration_us(result->elapsed_us).text);
}

/* The command, filled in, and the same values in its environment. The caller frees it. */
static char *command_make(const struct watch *watch, const char *file, const struct emad_export_info *info)
{
	char step[24], version[24];
	const struct placeholder placeholders[] = {
		{"file", file},   {"model", watch->model},   {"profile", watch->profile_name},
		{"step", step}, {"version", version}, {0},
	};

	snprintf(step, sizeof(step), "%" PRIu64, info->step);
	snprintf(version, sizeof(version), "%" PRIu64, info->version);
	setenv("EMAD_FILE", file, 1);
	setenv("EMAD_MODEL", watch->model, 1);
	setenv("EMAD_PROFILE", watch->profile_name, 1);
	setenv("EMAD_STEP", step, 1);
	setenv("EMAD_VERSION", version, 1);
	return placeholders_fill(watch->emactl->values[WATCH_EXEC], placeholders);
}

/* 0, or an exit status when watching is over. */
static int evaluation_run(struct watch *watch, const char *file, const struct emad_export_info *info)
{
	const struct emactl *emactl = watch->emactl;
	char *command = command_make(watch, file, info);
	struct child_result result = {0};
	int code;

	if (!command)
		return output_error(emactl, EMAD_EMEMORY, "not enough memory for the command");
	fflush(stdout);
	code = child_run(command, emactl->is_json, &result);
	free(command);
	if (code)
		return output_error(emactl, code, "the command cannot be started: %s", status_text(code));
	watch->run_count++;
	watch->failure_count += result.exit_status != 0;
	watch->interrupted_by = result.interrupted_by;
	if (emactl->is_json)
		run_json(watch, info, file, &result);
	else if (!emactl->is_quiet || result.exit_status != 0)
		run_line(watch, info, &result);
	fflush(stdout);
	return result.exit_status != 0 && emactl->values[WATCH_STOP] ? RUN_FAILED : 0;
}

/*
 * Writes the newest version under the name of its step, which is known only then. *ret_code: of the library, which may
 * be such as passes.
 */
static int file_write(struct watch *watch, char path[PATH_BYTES], struct emad_export_info *ret_info, int *ret_code)
{
	char name[KEPT_NAME_BYTES], next[PATH_BYTES];
	struct copying copying;
	const struct emad_export_options options = {
		.min_step = watch->following.cadence.due, .timeout_ms = watch->emactl->timeout_ms, .dtype = watch->dtype,
		.progress = copying_progress, .context = &copying,
	};

	kept_files_name(watch->model, watch->profile_name, NULL, name);
	snprintf(next, sizeof(next), "%s/%s", watch->directory, name);
	copying_begin(&copying, watch->emactl);
	*ret_code = emad_export(watch->following.client, watch->model, watch->profile, next, &options, ret_info);
	copying_end(&copying, *ret_code);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	if (*ret_code)
		return following_passes(*ret_code) ? 0 : copying_error(watch->emactl, *ret_code);
	kept_files_name(watch->model, watch->profile_name, &ret_info->step, name);
	snprintf(path, PATH_BYTES, "%s/%s", watch->directory, name);
	if (rename(next, path) < 0)
		return output_error(watch->emactl, -errno, "cannot rename %s: %s", next, status_text(-errno));
	return 0;
}

/* A version is due: its file, the command, and what of the older files goes. -1: it was the last. */
static int version_evaluate(struct watch *watch, struct emad_view *view)
{
	const char *profile = emad_view_metadata(view, "emad.profile");
	struct emad_export_info info = {0};
	struct reason reason = {""};
	char path[PATH_BYTES];
	int code, status;
	bool is_more;

	if (profile)
		snprintf(watch->profile_name, sizeof(watch->profile_name), "%s", profile);
	emad_view_close(view);
	if (!profile)
		return 0;
	status = file_write(watch, path, &info, &code);
	if (status || code)
		return status;
	is_more = cadence_take(&watch->following.cadence, info.step);
	status = evaluation_run(watch, path, &info);
	if (watch->keep > 0 &&
	    kept_files_trim(watch->directory, watch->model, watch->profile_name, watch->keep, strrchr(path, '/') + 1, &reason))
		output_note(watch->emactl, "warning: %s", reason.text);
	return status ? status : is_more ? 0 : -1;
}

/* ---- the command ---------------------------------------------------------------------------------------------- */

static int watch_loop(struct watch *watch)
{
	struct emad_view *view;
	int status = 0;

	while (!status && !watch->interrupted_by && !output_is_broken()) {
		status = following_next(&watch->following, &view);
		if (!status)
			status = watch->emactl->values[WATCH_EXEC] ? version_evaluate(watch, view)
			                                           : version_tell(watch, view);
	}
	if (watch->run_count > 0)
		output_note(watch->emactl, "%" PRIu64 " runs, %" PRIu64 " of them failed", watch->run_count,
		            watch->failure_count);
	/* As if it had ended at once. */
	if (watch->interrupted_by) {
		signal(watch->interrupted_by, SIG_DFL);
		raise(watch->interrupted_by);
	}
	if (status > 0)
		return status;
	return watch->failure_count > 0 ? RUN_FAILED : EX_OK;
}

static int options_read(struct watch *watch, uint64_t *ret_every, uint64_t *ret_until)
{
	static const int OF_EXEC[] = {WATCH_DIR, WATCH_KEEP, WATCH_STOP, WATCH_DTYPE};
	const struct emactl *emactl = watch->emactl;
	const char *const *values = emactl->values;
	struct stat facts;
	int status = 0;

	for (size_t i = 0; i < sizeof(OF_EXEC) / sizeof(OF_EXEC[0]); i++) {
		if (values[OF_EXEC[i]] && !values[WATCH_EXEC])
			return output_error(emactl, EMAD_EARGUMENT, "--%s goes with --exec", WATCH_OPTIONS[OF_EXEC[i]].name);
	}
	if (values[WATCH_EVERY])
		status = arguments_number(emactl, "--every", values[WATCH_EVERY], (const uint64_t[2]){1, INT64_MAX},
		                          ret_every);
	if (!status && values[WATCH_UNTIL])
		status = arguments_number(emactl, "--until-step", values[WATCH_UNTIL], (const uint64_t[2]){0, INT64_MAX},
		                          ret_until);
	if (!status && values[WATCH_KEEP])
		status = arguments_number(emactl, "--keep", values[WATCH_KEEP], (const uint64_t[2]){0, INT64_MAX},
		                          &watch->keep);
	if (!status && values[WATCH_DTYPE] && emad_dtype_parse(values[WATCH_DTYPE], &watch->dtype))
		status = output_library_error(emactl, EMAD_EARGUMENT);
	if (!status && values[WATCH_EXEC] && (stat(watch->directory, &facts) < 0 || !S_ISDIR(facts.st_mode)))
		status = output_error(emactl, -ENOTDIR, "--dir: %s is no directory", watch->directory);
	return status;
}

static int watch_run(struct emactl *emactl)
{
	struct watch watch = {
		.emactl = emactl, .keep = 1, .directory = emactl->values[WATCH_DIR] ? emactl->values[WATCH_DIR] : ".",
	};
	uint64_t every = 1, until = UINT64_MAX;
	struct emad_client *client;
	int status;

	status = operand_split(emactl, emactl->arguments[0], watch.model, &watch.profile);
	if (!status)
		status = options_read(&watch, &every, &until);
	if (!status)
		status = ask_connect(emactl, &client);
	if (status)
		return status;
	watch.following = (struct following){
		.emactl = emactl, .client = client, .model = watch.model, .profile = watch.profile};
	status = following_begin(&watch.following, every, until);
	if (!status)
		status = watch_loop(&watch);
	emad_client_close(client);
	return status;
}

const struct command COMMAND_WATCH = {
	.name = "watch",
	.arguments = "MODEL[:PROFILE]",
	.argument_count_min = 1,
	.argument_count_max = 1,
	.summary = "follow a model's versions, and evaluate each that is due",
	.text = "Prints a line for each new version of an average, until it is interrupted: its step, version and\n"
		"updates, the decay of its last update, the drift (how far the weights were from the average), the\n"
		"lag (snapshots that wait to be applied), and how many versions came in between and were MISSED.\n"
		"The daemon says when there is one; nothing is polled. It outlives restarts of the daemon.\n"
		"\nWith --exec COMMAND it runs a shell command for each version that is due instead. {file} in it is a\n"
		"safetensors file of the average, which nobody changes while it runs; {step}, {version}, {model} and\n"
		"{profile} are what they say. Each is put in as one quoted word: write no quotes around them. They are\n"
		"in its environment as well, as EMAD_FILE, EMAD_STEP and so on. Never do two run at once; when one has\n"
		"ended the newest version that is due by then is next. A run that fails is told and counted, and\n"
		"watching goes on. The files are called MODEL.PROFILE.STEP.safetensors, with % for /; of all of that\n"
		"model and profile in --dir the newest --keep stay.\n"
		"\nA version is due when its step has reached a multiple of --every that was not taken yet; so is the\n"
		"newest one at the start if it is of such a step. Where training went back to an earlier step, the\n"
		"steps behind it are due again. At Ctrl-C the command is told (SIGINT) and waited for; at a second\n"
		"one it is killed.\n"
		"\nJSON: one object a line, with event: \"version\" has model, profile, step, version, updates, decay,\n"
		"drift, lag, published_us, missed; \"run\" has model, profile, step, version, file, exit (null when a\n"
		"signal ended it), signal, elapsed_us. What the command prints goes to standard error then.\n",
	.options = WATCH_OPTIONS,
	.examples = "  emactl watch run42/net\n"
		    "  emactl watch run42/net --json | jq --unbuffered .drift\n"
		    "  emactl watch run42/net:slow --every 1000 --exec 'python3 evaluate.py {file} --step {step}'\n"
		    "  emactl watch run42/net -e 5000 -x 'cp {file} /mnt/best/' --keep 3 --dir /scratch -u 100000\n",
	.exits = "  0   --until-step was reached, or nobody reads the output any more\n"
		 "  1   a run failed (with --stop-on-error: it was the last)\n"
		 "  64  the command line is wrong\n"
		 "  66  no such model or profile, or it was removed\n"
		 "  69  the daemon could not be reached at the start\n"
		 "  73  the file cannot be created\n"
		 "  74  writing failed\n"
		 "  77  the daemon's socket may not be used by this user\n",
	.run = watch_run,
};
