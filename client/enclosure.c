/*
 * Keeping what a push will carry. See enclosure.h.
 */
#include "client/enclosure.h"

#include "client/error.h"
#include "client/trainer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int enclosure_create(const struct emad_enclosure *from, struct enclosure **ret_enclosure)
{
	struct enclosure *enclosure = calloc(1, sizeof(*enclosure));

	if (!enclosure)
		return -ENOMEM;
	if (from->metadata)
		enclosure->metadata = strdup(from->metadata);
	if (from->seeds)
		enclosure->seeds = strdup(from->seeds);
	if ((from->metadata && !enclosure->metadata) || (from->seeds && !enclosure->seeds)) {
		enclosure_destroy(enclosure);
		return -ENOMEM;
	}
	enclosure->updates = from->updates;
	enclosure->has_loss = from->loss != NULL;
	if (from->loss)
		enclosure->loss = *from->loss;
	*ret_enclosure = enclosure;
	return 0;
}

void enclosure_destroy(struct enclosure *enclosure)
{
	if (!enclosure)
		return;
	free(enclosure->metadata);
	free(enclosure->seeds);
	free(enclosure);
}

void enclosure_fill(const struct enclosure *enclosure, struct request *request)
{
	if (!enclosure)
		return;
	if (enclosure->metadata)
		request_set(request, metadata, text_of(enclosure->metadata));
	if (enclosure->has_loss)
		request_set(request, loss, enclosure->loss);
	if (enclosure->seeds) {
		request_set(request, profile, text_of(enclosure->seeds));
		request_set(request, updates, enclosure->updates);
	}
}

int emad_enclose(struct emad_trainer *trainer, const struct emad_enclosure *enclosure)
{
	struct reason reason = {.text = ""};
	struct enclosure *next = NULL;
	int code = trainer_check(trainer, &reason);

	if (code == 0 && enclosure && enclosure->metadata && strlen(enclosure->metadata) > METADATA_BYTES_MAX)
		code = reason_set(&reason, STATUS_ELIMIT, "the metadata have %zu bytes, %d are possible",
		                  strlen(enclosure->metadata), METADATA_BYTES_MAX);
	if (code == 0 && enclosure)
		code = enclosure_create(enclosure, &next);
	if (code == 0) {
		enclosure_destroy(trainer->enclosure);
		trainer->enclosure = next;
	}
	return error_report(code, &reason);
}
