/*
 * libemad: averaged model weights from the emad daemon.
 *
 * A trainer registers the tensors of a model and pushes snapshots of their values; the daemon keeps their exponential
 * moving averages ("profiles") in shared memory; anybody on the host opens a consistent version of an average as a
 * view and reads it in place. Over tcp:// and tls+tcp:// the same calls send snapshots and copy versions.
 *
 * Conventions
 *   Return values   0, or a negative code: -errno, or EMAD_E... below. Output arguments are untouched on failure.
 *   emad_error()    the sentence that goes with the calling thread's latest failure: what, which limit, both numbers,
 *                   and what to do.
 *   timeout_ms      how long a call may block; 0 does not wait, negative takes the client's own timeout
 *                   (emad_client_open). No call blocks for ever: a daemon that does not answer is given up a second
 *                   after that time.
 *   Threads         a client may be used from several threads at once; a trainer or a view by one at a time.
 *   fork            handles belong to the process that opened them; in a child every call returns EMAD_EFORKED and
 *                   the close functions do nothing.
 *   Daemon away     calls return EMAD_EAWAY at once when the connection is down; it comes back by itself. What a daemon
 *                   had accepted and lost with its memory, a trainer's next push or flush pushes again before.
 *   Memory          what a call hands out says who owns it; strings from emad_*_json are freed with emad_free.
 */
#ifndef EMAD_H
#define EMAD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- codes ---------------------------------------------------------------------------------------------------- */

enum emad_code {
	EMAD_EPROTOCOL = -10001,  /* the bytes received are not a valid message */
	EMAD_EVERSION = -10002,   /* the daemon speaks another protocol version */
	EMAD_ELIMIT = -10003,     /* a limit was exceeded */
	EMAD_ENAME = -10004,      /* the name is not allowed */
	EMAD_EMANIFEST = -10005,  /* the tensors do not match those of the model */
	EMAD_ESCHEDULE = -10006,  /* the schedule is not valid */
	EMAD_ENOMODEL = -10007,   /* no such model */
	EMAD_ENOPROFILE = -10008, /* no such profile */
	EMAD_EEXISTS = -10009,    /* the model exists already */
	EMAD_EFENCED = -10010,    /* a newer registration has taken over */
	EMAD_EAWAY = -10011,      /* the daemon cannot be reached */
	EMAD_ETIMEOUT = -10012,   /* the deadline passed */
	EMAD_EBUSY = -10013,      /* no room until earlier work is done */
	EMAD_EREVOKED = -10014,   /* the view was revoked by the daemon */
	EMAD_EFORKED = -10015,    /* this handle belongs to the parent process */
	EMAD_EMEMORY = -10016,    /* not enough memory */
	EMAD_ECORRUPT = -10017,   /* the data are damaged */
	EMAD_EARGUMENT = -10018,  /* an argument is not valid */
	EMAD_ESHUTDOWN = -10019,  /* the daemon is shutting down */
	EMAD_ENOVERSION = -10020, /* the model has no averaged version yet */
	EMAD_EPROFILE = -10021,   /* the profiles do not match those of the model */
	EMAD_EREFUSED = -10022,   /* a snapshot was refused */
	EMAD_EINTERNAL = -10023,  /* a fault inside emad */
};

/* The sentence of this thread's latest failure; "" when there was none. Valid until the thread's next call. */
const char *emad_error(void);

/* The name of a code ("no-model", "ENOENT", "ok"). Static. */
const char *emad_code_name(int code);

/* The library's version, "0.1.0". Static. */
const char *emad_version(void);

void emad_free(void *memory);

/* ---- the connection ------------------------------------------------------------------------------------------- */

struct emad_client;

/*
 * Connects to the daemon at url ("ipc:///run/emad/emad.sock"). NULL: the environment's EMAD_SOCKET, else the system
 * daemon. A path without "://" is taken as ipc. timeout_ms: the deadline for this call and the default of others;
 * negative: 10 s.
 * Codes: EMAD_EAWAY (says what to start), EMAD_EVERSION, EMAD_EARGUMENT, -EACCES, -ENOMEM.
 */
int emad_client_open(const char *url, int timeout_ms, struct emad_client **ret_client);

/* For a daemon on another host: "tcp://HOST:PORT" and "tls+tcp://HOST:PORT". Files; NULL: as the environment says. */
struct emad_client_options {
	const char *token_file;      /* EMAD_TOKEN_FILE: one token, by which the daemon knows the client */
	const char *tls_ca;          /* EMAD_TLS_CA: authorities that the daemon's certificate may be from, PEM */
	const char *tls_certificate; /* EMAD_TLS_CERTIFICATE: of the client, where the daemon wants one */
	const char *tls_key;         /* EMAD_TLS_KEY: its private key */
	const char *tls_name;        /* EMAD_TLS_NAME: not a file: the name in the daemon's certificate, where it is not the
	                                url's */
};

/*
 * The same with options, which may be NULL. The files are read once.
 * Codes as above; -EACCES: the daemon does not know the token, or its certificate is not right; EMAD_EAWAY also where it
 * hangs up because of ours; -errno of a file.
 */
int emad_client_open_with(const char *url, int timeout_ms, const struct emad_client_options *options,
                          struct emad_client **ret_client);

/* The client's trainers must be closed first; views may outlive it. NULL is allowed. */
void emad_client_close(struct emad_client *client);

/*
 * Called now and then during a long copy, the first time with 0 bytes; returning non-zero stops it with -ECANCELED.
 */
typedef int emad_progress(void *context, uint64_t done_bytes, uint64_t total_bytes);

/*
 * Who is told about the bytes of every snapshot that goes to a daemon on another host, and of every version that comes
 * from there, by the thread that makes the call (of emad_push_begin: the library's). progress NULL: nobody. To be set
 * while no call is under way.
 */
int emad_client_progress(struct emad_client *client, emad_progress *progress, void *context);

/* Who answers. */
struct emad_daemon {
	char agent[64];     /* "emad 0.1.0" */
	uint64_t instance;  /* differs after every start of the daemon */
	uint64_t pid;
	uint64_t uptime_ms;
	uint64_t round_trip_us; /* of this call */
};

int emad_hello(struct emad_client *client, int timeout_ms, struct emad_daemon *ret_daemon);

/*
 * Facts as JSON: the daemon; all models; one model with its profiles, ranks, versions and tensors.
 * The caller frees *ret_json with emad_free.
 */
int emad_status_json(struct emad_client *client, int timeout_ms, char **ret_json);
int emad_list_json(struct emad_client *client, int timeout_ms, char **ret_json);
int emad_show_json(struct emad_client *client, const char *model, int timeout_ms, char **ret_json);

/*
 * Forgets a model and frees its memory; its checkpoints are set aside before. Views that are open stay readable.
 * ret_freed_bytes may be NULL.
 */
int emad_remove(struct emad_client *client, const char *model, int timeout_ms, uint64_t *ret_freed_bytes);

/*
 * Writes the newest version of a model, or of all (model NULL), below the daemon's state directory, and returns when it
 * is on disk. Nothing is written again that is there; asking again is harmless. ret_step may be NULL: the step that is
 * on disk, 0 for all models. EMAD_EARGUMENT: the daemon has no state directory; EMAD_ENOVERSION; EMAD_ETIMEOUT: it is
 * still being written; -errno with a sentence: it cannot be written.
 */
int emad_checkpoint(struct emad_client *client, const char *model, int timeout_ms, uint64_t *ret_step);

/*
 * Marks the checkpoint of exactly that step as one that stays when older ones are removed (keep 1), or takes the mark
 * away (keep 0). Asking again is harmless. EMAD_ENOVERSION with the steps that are on disk; EMAD_EARGUMENT: the daemon
 * has no state directory; -errno: it cannot be written.
 */
int emad_checkpoint_keep(struct emad_client *client, const char *model, uint64_t step, int keep, int timeout_ms);

/*
 * What there is of a model, as JSON, all lists newest first: versions in memory, generations on disk, snapshots (averages
 * kept under their steps), and changes (of each profile). The caller frees *ret_json with emad_free.
 */
int emad_history_json(struct emad_client *client, const char *model, int timeout_ms, char **ret_json);

enum { EMAD_ROLLBACK_DRY_RUN = 1 }; /* only say which version it would be */

struct emad_rolled_back {
	uint64_t version;     /* the newest of all now, under its new number */
	uint64_t step;
	uint64_t updates;
	uint64_t step_before; /* of what was the newest */
	uint64_t taken;       /* the number that it had; version: nothing was to be done */
	int from_disk;        /* it was read from a checkpoint; 0: it was in memory */
};

/*
 * The average goes back to the newest version of that step or an earlier one that is in memory or on disk. Asking again
 * changes nothing. Snapshots that waited are dropped (EMAD_INCOMPLETE); a trainer that simply goes on is averaged into it,
 * its next push standing for every step since. Views stay what they are, but those of the very version that is gone back
 * to, which are revoked. flags: EMAD_ROLLBACK_... ret_rolled_back may be NULL. Needs the daemon's admin permission.
 * Codes: EMAD_ENOVERSION with the steps that there are; EMAD_EMANIFEST, EMAD_EPROFILE: the checkpoint is of other tensors
 * or profiles; -EACCES, EMAD_ENOMODEL, EMAD_ETIMEOUT: nothing has changed; -errno: the disk cannot be read.
 */
int emad_rollback(struct emad_client *client, const char *model, uint64_t step, unsigned flags, int timeout_ms,
                  struct emad_rolled_back *ret_rolled_back);

/* ---- pushing -------------------------------------------------------------------------------------------------- */

/* The numbers are those of the wire. Names as in safetensors. */
enum emad_dtype {
	EMAD_F64,
	EMAD_F32,
	EMAD_F16,
	EMAD_BF16,
	EMAD_F8_E4M3,
	EMAD_F8_E5M2,
	EMAD_I64,
	EMAD_I32,
	EMAD_I16,
	EMAD_I8,
	EMAD_U8,
	EMAD_BOOL,
};

enum { EMAD_TENSOR_BUFFER = 1 }; /* state that is not trained: running means, counters */

/* One tensor of the model, and the box of it that this rank holds. */
struct emad_tensor {
	const char *name; /* "module." and other wrappers' parts are left out */
	enum emad_dtype dtype;
	uint32_t flags; /* EMAD_TENSOR_... */
	uint32_t dimension_count;
	const uint64_t *shape;  /* global shape, dimension_count extents */
	const uint64_t *offset; /* where the box begins, per dimension; NULL with extent NULL: the whole tensor */
	const uint64_t *extent;
};

enum emad_resume {
	EMAD_RESUME_AUTO,  /* continue a model of that name and manifest, else start it */
	EMAD_RESUME_NEVER, /* replace a model of that name */
	EMAD_RESUME_MUST,  /* EMAD_ENOMODEL when there is none */
	/*
	 * Continue a model of that name whatever its tensors and profiles are: tensors of the same name and shape go on from
	 * their average (their dtype and the number of ranks may differ), new ones start, profiles are changed to those
	 * given. The report says what was new and what is gone.
	 */
	EMAD_RESUME_ADAPT,
};

/* What it means that start_step is averaged already: training went back to an older checkpoint. */
enum emad_rewind {
	EMAD_REWIND_REFUSE,   /* pushes of averaged steps are answered `stale` until training is ahead again */
	EMAD_REWIND_CONTINUE, /* the average stays as it is and goes on with the older steps */
	EMAD_REWIND_BACK,     /* it goes back to the newest version before start_step, in memory or on disk; EMAD_ENOVERSION */
};

/* What happens when every stage still waits to be applied: the daemon lags. */
enum emad_policy {
	EMAD_POLICY_BLOCK,    /* the push waits for a stage, at most its timeout, unless the daemon's settings say coalesce */
	EMAD_POLICY_SKIP,     /* the push returns EMAD_SKIPPED at once; the next one stands for its call too */
	EMAD_POLICY_COALESCE, /* an older snapshot gives way; the newer one stands for its call too */
};

struct emad_trainer_options {
	const char *const *profiles; /* "name=schedule", for example "ema=yolo:decay=0.999"; NULL: "ema=yolo" alone */
	uint32_t profile_count;      /* 0 with profiles that are not NULL: those that the daemon's settings have for the model */
	const char *attributes; /* JSON object that travels with the averages; NULL: none */
	uint64_t start_step;    /* the trainer's step of the first snapshot, if the model is started */
	uint32_t rank;          /* 0-based; which part of the model this process holds */
	uint32_t world;         /* number of such processes; 0 is taken as 1 */
	enum emad_resume resume;
	enum emad_rewind rewind;
	enum emad_policy policy;
	uint64_t stride;    /* steps from one call of the schedules to the next; 0: as the daemon's settings say, else 1 */
	const char *guards; /* "nonfinite=skip-tensor,loss_max=10,norm_jump=5"; NULL: as the daemon's settings say, else
	                       non-finite snapshots are refused */
	const char *wire;   /* over tcp:// and tls+tcp://: floating-point values that are wider travel as "bf16", "f16" or
	                       "f32" (names as for emad_dtype_parse), each rounded once, but for those of a seed. NULL: as they
	                       are. Not looked at where memory is shared: nothing travels there. EMAD_EARGUMENT: all names */
	int timeout_ms; /* negative: the client's own, but at least a minute: much memory takes its time */
};

struct emad_trainer;

/*
 * Registers a model (or this rank of it) and maps memory for its snapshots. The first snapshot that is pushed to a
 * model without a version becomes the start of its averages. options NULL: all defaults (unsharded, resume auto).
 * Codes: EMAD_EMANIFEST (the first difference), EMAD_EPROFILE, EMAD_ESCHEDULE, EMAD_ENAME, EMAD_ELIMIT,
 * EMAD_EMEMORY (need and have), EMAD_ENOMODEL (resume must), EMAD_EAWAY, EMAD_ETIMEOUT.
 */
int emad_trainer_open(struct emad_client *client, const char *model, const struct emad_tensor *tensors,
                      size_t tensor_count, const struct emad_trainer_options *options,
                      struct emad_trainer **ret_trainer);

/*
 * Waits for an unfinished asynchronous copy, then lets go of the memory. What was accepted will be applied. Only what a
 * daemon that was stopped meanwhile had accepted of a sharded model, and could not average yet, goes with the trainer,
 * unless the next daemon is there: emad_flush before it makes sure.
 */
void emad_trainer_close(struct emad_trainer *trainer);

struct emad_trainer_info {
	int resumed;            /* the model existed and is continued */
	uint64_t last_step;     /* of its newest version at registration */
	uint64_t updates;       /* in that version */
	uint64_t version;       /* 0: no version yet, the next push is the start */
	uint64_t epoch;         /* fencing number of the registration */
	uint64_t restart_count; /* times the model had to be registered again because the daemon had lost it */
	uint64_t lost_count;    /* pushes that never reached the daemon */
	uint64_t payload_bytes; /* bytes of one snapshot of this rank */
	char report[2048];      /* what is averaged, copied, frozen and dropped by which rules; what is new, what is gone */
	uint64_t skipped_count; /* pushes that were skipped because the daemon lagged */
	uint64_t coalesced_count; /* snapshots of this registration that gave way to newer ones, as of the latest answer */
};

int emad_trainer_info(struct emad_trainer *trainer, struct emad_trainer_info *ret_info);

enum emad_outcome {
	EMAD_ACCEPTED,  /* recorded; it will be applied */
	EMAD_STARTED,   /* it became the start of the average */
	EMAD_APPLIED,   /* it is in a published version */
	EMAD_DUPLICATE, /* this step was pushed before */
	EMAD_STALE,     /* an older step than the newest */
	EMAD_NONFINITE, /* refused: it holds NaN or infinity */
	EMAD_INCOMPLETE, /* dropped: another rank left this step out, or the average went back before */
	EMAD_LOSS,       /* refused: its loss is above loss_max, or NaN */
	EMAD_JUMP,       /* refused: a tensor's norm has changed by more than norm_jump */
	EMAD_COALESCED,  /* gave way to a newer snapshot, which stands for its call as well */
	EMAD_SKIPPED,    /* never sent: no stage was free and the policy is skip */
};

struct emad_push_result {
	enum emad_outcome outcome;
	uint64_t step;
	uint64_t version; /* the version that holds it; 0 while it is only accepted, or refused */
	uint64_t calls;   /* of the schedules that it stood for: 1, or more after a gap; 0 while it is not applied */
	char refusal[512]; /* which tensor, how many values, which limit, when it was refused */
};

enum { EMAD_PUSH_WAIT = 1 }; /* return when the snapshot has been applied or refused, not when it is accepted */

/* What a snapshot carries beside its values. */
struct emad_enclosure {
	const char *metadata; /* JSON object that stays with the version ("emad.metadata"), at most 4096 bytes; NULL: none */
	const double *loss;   /* the loss at its step, for the guard loss_max; NULL: not said */
	/*
	 * Not NULL: the values are the average of this profile itself, after so many updates; it goes on from there, and
	 * all other profiles stay as they are. The step may be any.
	 */
	const char *seeds;
	uint64_t updates;
};

/* The next push, of either kind, carries this. Copied. NULL: nothing after all. -ENOMEM. */
int emad_enclose(struct emad_trainer *trainer, const struct emad_enclosure *enclosure);

/*
 * Copies the tensors' values into shared memory and hands them to the daemon. From 8 MiB on up to three threads of the
 * library help with the copy. Where no memory is shared with the daemon they are copied to memory of the library's own
 * and sent from there, all of it within the timeout; a push of emad_push_begin may take longer, as long as each mebibyte
 * gets through within the client's.
 * data[i]: the values of this rank's box of tensor i, in the order of emad_trainer_open, row-major and dense.
 * The memory may be changed as soon as the call returns.
 * Codes: EMAD_EBUSY (the daemon lags and no stage became free in time: nothing was pushed), EMAD_EFENCED, EMAD_EAWAY,
 * EMAD_ETIMEOUT (with EMAD_PUSH_WAIT: it was accepted but is not yet applied). ret_result may be NULL.
 */
int emad_push(struct emad_trainer *trainer, uint64_t step, const void *const *data, unsigned flags, int timeout_ms,
              struct emad_push_result *ret_result);

/*
 * The same, by a thread of the library: returns as soon as the job is handed over (it waits first for an unfinished
 * earlier one, at most for the client's timeout, which also bounds the job). The tensors must not change until
 * emad_fence has returned 0. The pointers themselves are copied.
 * A failure of the earlier push that no emad_fence has returned is returned here, and nothing is begun; calling again
 * begins. Codes: EMAD_EBUSY (the earlier push is still under way), -ENOMEM, and those of emad_push.
 */
int emad_push_begin(struct emad_trainer *trainer, uint64_t step, const void *const *data);

/*
 * Waits until the values of the push begun last have been copied, or it has failed; then its memory may be changed.
 * Returns the failure of that push, or one that the push before met after its fence, once. EMAD_ETIMEOUT always means
 * that the copy is still under way and the memory must not be changed yet; a daemon that did not answer the push in
 * time is EMAD_EAWAY here.
 */
int emad_fence(struct emad_trainer *trainer, int timeout_ms);

struct emad_flush_result {
	uint64_t version; /* newest version */
	uint64_t step;    /* of that version */
	uint64_t refused_count; /* snapshots refused since registration */
	uint64_t coalesced_count; /* snapshots that gave way to newer ones since registration */
	char refusal[512];      /* the latest refusal, or "" */
};

/*
 * Waits until every snapshot that was pushed is in a published version or refused.
 * Codes: EMAD_EREFUSED (some were refused since the last flush: the sentence says which), EMAD_ETIMEOUT (the sentence
 * says what is missing), the failure of an asynchronous push. ret_result may be NULL; it is filled in for
 * EMAD_EREFUSED too.
 */
int emad_flush(struct emad_trainer *trainer, int timeout_ms, struct emad_flush_result *ret_result);

/* Replaces the model's attributes (a JSON object); they travel with the next version. */
int emad_attributes_set(struct emad_trainer *trainer, const char *json, int timeout_ms);

/*
 * Changes the profiles of a model from its next update on, also while it is trained: adds those of new names (they start
 * from the next snapshot), changes those of known names (they go on from their average). ret_report may be NULL: what is
 * averaged, copied, frozen and dropped by which rules; free it with emad_free.
 * Codes: EMAD_ESCHEDULE, EMAD_ENAME, EMAD_EPROFILE, EMAD_EMEMORY (need and have), EMAD_ENOMODEL, EMAD_ELIMIT.
 */
int emad_profile_set(struct emad_client *client, const char *model, const char *const *profiles,
                     uint32_t profile_count, int timeout_ms, char **ret_report);

/* Stops one profile. EMAD_ENOPROFILE; EMAD_EPROFILE: it is the only one. */
int emad_profile_remove(struct emad_client *client, const char *model, const char *profile, int timeout_ms,
                        char **ret_report);

/* ---- reading -------------------------------------------------------------------------------------------------- */

struct emad_view;

/*
 * Opens a version of a profile (NULL: the model's first) and pins it: the memory stays as it is until the view is
 * closed, or the daemon needs it back after its guaranteed time. min_step: the newest version if it is of that step
 * or later, else the first that comes within the timeout; 0: the newest.
 * Nothing is copied; opening does not depend on the size of the model. But where no memory is shared with the daemon
 * (tcp://, tls+tcp://) the image is copied here, however long that takes as long as each mebibyte comes within the
 * client's timeout; such a view is never revoked, and EMAD_EREVOKED means that its version was taken back meanwhile,
 * three times.
 * Codes: EMAD_ENOMODEL, EMAD_ENOPROFILE, EMAD_ENOVERSION, EMAD_ETIMEOUT (says which step there is), EMAD_EAWAY.
 */
int emad_view_open(struct emad_client *client, const char *model, const char *profile, uint64_t min_step,
                   int timeout_ms, struct emad_view **ret_view);

/*
 * In which dtype averages are served on request: 0, or 1 more than the number of enum emad_dtype. It is meant for the
 * floating-point tensors; integers and bools are always served as they are.
 */
enum emad_served_dtype {
	EMAD_DTYPE_KEPT, /* as the average is kept: mostly F32 */
	EMAD_AS_F64,
	EMAD_AS_F32,
	EMAD_AS_F16,
	EMAD_AS_BF16,
	EMAD_AS_F8_E4M3, /* float8_e4m3fn: it has no infinity, what is too large becomes 448 */
	EMAD_AS_F8_E5M2,
};

struct emad_view_options {
	uint64_t min_step; /* as for emad_view_open, and so is timeout_ms */
	int timeout_ms;
	/*
	 * In which emad_view_read gives the tensors; it is then asked for this one or EMAD_DTYPE_KEPT, which means the same.
	 * What is copied from another host lies here in this dtype, and where that is shorter only so many bytes travel.
	 * Where memory is shared the tensors lie there as they are kept.
	 */
	enum emad_served_dtype dtype;
	/*
	 * The only tensors that the view has: names, or (what is no tensor's name) patterns with `*` any characters, `?`
	 * one, `[a-z]` one of a set. Of what is copied from another host nothing else travels but the image's header.
	 * NULL: all. -ENOENT: one of them means none, and the sentence says the nearest.
	 */
	const char *const *tensors;
	size_t tensor_count;
};

/*
 * The same with options, the same for daemons here and elsewhere. NULL: the newest version with the client's own timeout.
 * Codes as above, -ENOENT, EMAD_EARGUMENT.
 */
int emad_view_open_with(struct emad_client *client, const char *model, const char *profile,
                        const struct emad_view_options *options, struct emad_view **ret_view);

/* Ends the lease and unmaps. NULL is allowed. */
void emad_view_close(struct emad_view *view);

/*
 * 0 when everything read so far belongs to one whole version; EMAD_EREVOKED when the memory has been taken back and
 * what was read must be thrown away. Call it after the last read.
 */
int emad_view_check(struct emad_view *view);

struct emad_view_info {
	uint64_t version;
	uint64_t step;
	uint64_t updates;
	double decay; /* of the last update */
	uint64_t published_us; /* wall clock, microseconds since 1970 */
	const uint8_t *image;  /* the profile as a whole safetensors file (of a copy: what options named of it); borrowed
	                          until emad_view_close */
	uint64_t image_bytes;
	int fd;                /* the read-only shared memory, or that of the copy; borrowed until emad_view_close; dup it to keep it */
	uint64_t fd_offset;    /* where the image begins in it, page-aligned */
	uint64_t tensor_count; /* of those that options named */
};

int emad_view_info(struct emad_view *view, struct emad_view_info *ret_info);

/* Bytes of an image, and which version of it. */
struct emad_range {
	uint64_t offset, bytes; /* of the profile as a whole safetensors file, as it is kept */
	void *buffer;           /* for these; NULL with bytes 0: only the facts are wanted */
	uint64_t min_step;      /* as for emad_view_open, and so is timeout_ms */
	int timeout_ms;
};

/*
 * Copies these bytes without a view; from another host nothing else travels. Two calls may be of two versions: see
 * ret_info (may be NULL), in which image, fd and tensor_count are empty. On failure buffer holds nothing of use.
 * Codes: those of emad_view_open; EMAD_EARGUMENT (it does not lie in the image: all numbers).
 */
int emad_image_read(struct emad_client *client, const char *model, const char *profile, const struct emad_range *range,
                    struct emad_view_info *ret_info);

struct emad_view_tensor {
	const char *name; /* borrowed until emad_view_close, like everything here */
	enum emad_dtype dtype;
	uint32_t dimension_count;
	const uint64_t *shape;
	const void *data; /* dense, row-major, in the shared memory */
	uint64_t bytes;
};

/* By index (0-based, in the order of the file) or by name. -ENOENT when there is none. */
int emad_view_tensor(struct emad_view *view, uint64_t index, struct emad_view_tensor *ret_tensor);
int emad_view_find(struct emad_view *view, const char *name, struct emad_view_tensor *ret_tensor);

/*
 * The dtype of a name: that of safetensors ("BF16") or of PyTorch ("bfloat16", "half"), in any case.
 * EMAD_EARGUMENT: the sentence says the nearest and all.
 */
int emad_dtype_parse(const char *name, enum emad_served_dtype *ret_dtype);

/*
 * Copies tensor index (0-based, in the order of the file) to buffer in another dtype: dense, row-major, in the byte
 * order of the host. Each value is rounded once, to nearest even, and what is too large becomes infinite. buffer may
 * lie at any byte; buffer_bytes are at least the elements times their size in the new dtype. After 0 all of it belongs
 * to the view's version; on failure buffer holds nothing of use.
 * Codes: EMAD_EREVOKED, -ENOENT (no such tensor), EMAD_EARGUMENT (buffer too small: both numbers).
 */
int emad_view_read(struct emad_view *view, uint64_t index, enum emad_served_dtype dtype, void *buffer,
                   uint64_t buffer_bytes);

/* A value of the image's metadata ("emad.attributes" is the JSON object of attributes), or NULL. Borrowed. */
const char *emad_view_metadata(struct emad_view *view, const char *key);

struct emad_export_options {
	uint64_t min_step; /* as for emad_view_open */
	int timeout_ms;    /* bounds the wait for the version; progress can end the copying */
	enum emad_served_dtype dtype; /* of all floating-point tensors */
	emad_progress *progress;      /* NULL: nobody is told */
	void *context;                /* for progress */
};

struct emad_export_info {
	uint64_t version;
	uint64_t step;
	uint64_t updates;
	double decay;          /* of the last update */
	uint64_t published_us; /* wall clock, microseconds since 1970 */
	uint64_t tensor_count;
	uint64_t file_bytes;
	uint64_t overflow_count;   /* values that were finite and, too large for dtype, are infinite now, or clipped */
	char overflow_tensor[520]; /* the first tensor with such a value; "" */
};

/*
 * Writes a profile (NULL: the first) to a safetensors file: into a temporary file beside it, fsync, rename. On any
 * failure path is as it was. A view that is revoked meanwhile is tried again, three times in all.
 * options NULL: the newest version, as it is kept, with the client's own timeout; zeroed: the same without waiting.
 * With a dtype every floating-point tensor is of that dtype, rounded as emad_view_read does, the order is that of the
 * new sizes, and "emad.dtype" is in the metadata. Look at overflow_count then. ret_info may be NULL.
 * Codes: those of emad_view_open; -errno for the file; -ECANCELED; EMAD_EREVOKED; EMAD_EARGUMENT.
 */
int emad_export(struct emad_client *client, const char *model, const char *profile, const char *path,
                const struct emad_export_options *options, struct emad_export_info *ret_info);

/* ---- averages made from files --------------------------------------------------------------------------------- */

/* One file of a sum. */
struct emad_sum_part {
	const char *path;
	const char *profile; /* as the file says, or "" */
	double std;          /* relative width of its average; 0 where that was not asked for */
	uint64_t step;       /* as the file says, or 0 */
	double weight;       /* all weights add up to 1; 0: the file was not needed */
};

/* What was added up. */
struct emad_sum {
	size_t part_count;
	const struct emad_sum_part *parts; /* oldest first */
	uint64_t step;       /* of the result: that of the newest part */
	size_t later_count;  /* emad_posthoc: snapshots behind the step, left out */
	int is_by_step;      /* emad_merge: the files were put in the order of their steps */
	double error;        /* emad_posthoc: how far the sum is from the wanted average, see there */
	uint64_t file_bytes; /* of the new file; 0 when none was written */
};

/* NULL is allowed. */
void emad_sum_free(struct emad_sum *sum);

struct emad_posthoc_options {
	double std;              /* relative width of the wanted average, from 0.001 to 12^-1/2 = 0.2886 */
	uint64_t step;           /* the step of the result, one that a snapshot has; 0: the newest */
	const char *model;       /* files of other models are left out; NULL: they are refused */
	const char *profile;     /* the name in the new file; NULL: "posthoc" */
	const char *dtype;       /* of its floating-point tensors: "F32", "bfloat16", ... (emad_dtype_parse); NULL: as in the files */
	uint32_t open_files_max; /* files open at a time; 0: 64 */
	emad_progress *progress; /* told about the bytes that were read; may be NULL */
	void *context;
};

/*
 * Makes the average of another width from stored averages of schedule `power`, at best of two widths and many steps:
 * snapshots that the daemon kept, or exported files. paths: files, or directories, of which every *.safetensors in
 * them and in their own directories is taken that holds such an average. output: the safetensors file to write, whole
 * or not at all; NULL: the weights are found and nothing is written. Needs no daemon, and about 12 MiB whatever the
 * models' size.
 * Integer and bool tensors are those of the newest snapshot, and so is every tensor that two profiles hold alike there:
 * it was copied, not averaged.
 * error: the L2 norm of the difference between the profile of the sum (which training step weighs how much) and the
 * wanted one, as a part of the wanted one's norm. That of the weights is mostly a much smaller part of how far they
 * moved, because weights change slowly where the profile is hard to match.
 * ret_sum may be NULL; free it with emad_sum_free.
 * Codes: EMAD_EARGUMENT (the width; one snapshot given twice), -ENOENT (no such file; no snapshot in the directory),
 * EMAD_ENOVERSION (no snapshot of that step: the nearest are named), EMAD_ESCHEDULE (a file of another schedule),
 * EMAD_EPROFILE (it is not emad's, or of another model), EMAD_EMANIFEST (other tensors), EMAD_ECORRUPT (damaged; NaN or
 * infinity), EMAD_ELIMIT, -ECANCELED, -ENOMEM, and -errno of reading and writing.
 * source: Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", section 3, appendix C
 */
int emad_posthoc(const char *const *paths, size_t path_count, const char *output,
                 const struct emad_posthoc_options *options, struct emad_sum **ret_sum);

struct emad_merge_options {
	const char *shape;   /* "linear" (which comes out as the mean), "minus-sqrt", "uniform"; NULL: "linear" */
	const char *profile; /* the name in the new file; NULL: "merged" */
	const char *dtype;   /* as for emad_posthoc, likewise the rest */
	uint32_t open_files_max;
	emad_progress *progress;
	void *context;
};

/*
 * Merges the checkpoints of a training with a constant learning rate into what a learning rate that had decayed over
 * them would have left. paths: safetensors files with the same tensors, oldest first; where all of them have an
 * emad.step they are put in that order. output as for emad_posthoc. Integer and bool tensors are those of the newest.
 * options NULL: all defaults. Codes as for emad_posthoc; EMAD_EARGUMENT for the shape.
 * source: "WSM: Decay-Free Learning Rate Schedule via Checkpoint Merging for LLM Pre-training"
 */
int emad_merge(const char *const *paths, size_t path_count, const char *output,
               const struct emad_merge_options *options, struct emad_sum **ret_sum);

#ifdef __cplusplus
}
#endif

#endif
