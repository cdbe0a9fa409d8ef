/*
 * The trainer inside the library: what pushing (push.c) and everything else about a trainer (trainer.c) share.
 *
 * A push runs in the caller's thread or in the pusher's, never in both: every entry point that touches the registration
 * first waits for the pusher to settle. Only the info may be read meanwhile, hence its lock.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/client.h"
#include "client/enclosure.h"
#include "client/pusher.h"
#include "client/registration.h"
#include "client/snapshot.h"

struct emad_trainer {
	struct emad_client *client; /* borrowed until emad_trainer_close */

	/* Of whoever pushes. */
	struct registration registration;
	struct snapshot snapshot;
	uint64_t refused_count; /* as of the latest flush */
	bool is_patient; /* what is sent may take as long as it gets on: nobody waits for the job */

	struct enclosure *enclosure; /* owned; of the next push; NULL: nothing */

	struct pusher *pusher; /* owned; NULL until the first emad_push_begin */

	pthread_mutex_t lock;
	struct emad_trainer_info info; /* guarded by lock */
};

/* 0, STATUS_EARGUMENT, STATUS_EFORKED. */
int trainer_check(const struct emad_trainer *trainer, struct reason *reason);

/*
 * Makes sure that the registration stands: not fenced, and continued or claimed anew after a hang-up, with everything
 * pushed again that the daemon had accepted and has lost. *ret_lost, which may be NULL, is set to true when it had lost
 * the registration.
 */
int trainer_ready(struct emad_trainer *trainer, int64_t deadline_ms, bool *ret_lost, struct reason *reason);

/* The same after the daemon has said that it does not know the model: claims the rank anew. */
int trainer_reclaim(struct emad_trainer *trainer, int64_t deadline_ms, struct reason *reason);

/*
 * Pushes again what another daemon had accepted and has lost. 0 when all of it is there again, STATUS_ENOMODEL when this
 * one does not know the model either, STATUS_EBUSY when there is no stage for it, and codes of calls.
 */
int push_repeat(struct emad_trainer *trainer, int64_t until_ms, struct reason *reason);

/* A request about the registration. */
struct request trainer_request(const struct emad_trainer *trainer, enum operation operation);

/* Sends it. 0 when there is an answer, whatever it says: see trainer_answer_code. */
int trainer_call(struct emad_trainer *trainer, const struct request *request, int64_t deadline_ms,
                 struct client_answer *ret_answer, struct reason *reason);

/* The answer's status; takes note of being fenced. */
int trainer_answer_code(struct emad_trainer *trainer, const struct client_answer *answer, struct reason *reason);

/* A push that the daemon never heard of, as far as is known. */
void trainer_note_lost(struct emad_trainer *trainer);

/* What the daemon's latest answer said of snapshots that gave way, and a push that was never sent. */
void trainer_note_coalesced(struct emad_trainer *trainer, uint64_t count);
void trainer_note_skipped(struct emad_trainer *trainer);

/* Waits until the pusher is idle, if there is one; a kept failure stays kept. STATUS_ETIMEOUT. */
int trainer_settle(struct emad_trainer *trainer, int64_t deadline_ms, struct reason *reason);
