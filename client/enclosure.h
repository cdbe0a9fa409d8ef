/*
 * Enclosures: what a push carries beside its values, kept from emad_enclose until the push that takes it has sent it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/emad.h"
#include "proto/message.h"

struct enclosure {
	char *metadata; /* owned; NULL for none */
	char *seeds;    /* owned; a profile; NULL for none */
	uint64_t updates;
	bool has_loss;
	double loss;
};

/* -ENOMEM. */
int enclosure_create(const struct emad_enclosure *from, struct enclosure **ret_enclosure);

/* NULL is allowed. */
void enclosure_destroy(struct enclosure *enclosure);

/* Adds its fields to a push, which borrows its texts. NULL adds none. */
void enclosure_fill(const struct enclosure *enclosure, struct request *request);
