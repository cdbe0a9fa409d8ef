/*
 * A registration: one rank's claim on a model, and the shared memory that comes with it.
 *
 * It outlives the daemon: when the daemon hangs up, registration_renew first asks for the same registration again (a
 * daemon that came back with its memory still has it), and claims the rank anew only when the daemon has lost it.
 * Being fenced is final: whoever has registered later is right, so no claim is made over his.
 *
 * Used by one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/client.h"
#include "client/stages.h"
#include "proto/manifest.h"

struct registration {
	struct emad_client *client; /* borrowed until registration_finish */

	/* What is claimed; set once, but for attributes. */
	char *model;                /* owned */
	struct manifest *manifest;  /* owned; piece i is the box of tensor i */
	char **profiles;            /* owned, and each of them */
	uint32_t profile_count;
	char *attributes; /* owned; NULL for none */
	uint64_t start_step;
	uint32_t rank;
	uint32_t world;
	enum emad_rewind rewind; /* of the first claim alone */
	enum emad_policy policy;
	uint64_t stride; /* 0: not said */
	char *guards; /* owned; NULL for none */
	enum dtype wire; /* in which snapshots travel where no memory is shared; RUNS_AS_KEPT */

	/* The claim. */
	int connection; /* to the attach socket; -1 when there is none; its end ends the claim's liveness */
	bool stands;    /* the same where no memory is shared: there is no such connection */
	uint64_t epoch;
	uint64_t unanswered; /* sequence of a register request whose answer did not come; 0 for none */
	bool fenced;
	bool is_new; /* and not mapped yet: its stages are others than those of before */
	uint64_t instance; /* of the daemon whose stages are mapped */
	struct stages stages;

	/* What the daemon said at the latest claim. */
	bool resumed;
	uint64_t last_step;
	uint64_t updates;
	uint64_t version;
	bool has_lost; /* something that was accepted is neither in the model nor can it be pushed again */
	uint64_t lost_step; /* the newest such */
	char report[2048];
};

/* Copies everything it is given. Nothing is sent. */
int registration_init(struct registration *registration, struct emad_client *client, const char *model,
                      const struct emad_trainer_options *options, struct reason *reason);

/* Adds the tensors; once, before the first claim. */
int registration_tensors(struct registration *registration, const struct emad_tensor *tensors, size_t tensor_count,
                         struct reason *reason);

/* Accepts a registration of zeros. */
void registration_finish(struct registration *registration);

/* The connection stands, or nothing is known to the contrary. Does not wait. */
bool registration_alive(const struct registration *registration);

/*
 * Registers and maps the stages. What another daemon had accepted in the stages of before and had not averaged is kept,
 * and so is the push's own: see stages.h.
 */
int registration_claim(struct registration *registration, enum emad_resume resume, int64_t deadline_ms,
                       struct reason *reason);

/*
 * After a hang-up: continues the registration, or claims it anew when the daemon has lost it; *ret_lost says which.
 * STATUS_EFENCED: somebody else holds the rank now.
 */
int registration_renew(struct registration *registration, int64_t deadline_ms, bool *ret_lost, struct reason *reason);
