/*
 * The progress bar of what comes or goes over a network, around the calls of the library that may do that. Nothing is
 * shown of a daemon on this host.
 */
#pragma once

#include "client/emactl/emactl.h"
#include "client/emactl/progress.h"

struct transfer {
	struct emad_client *client; /* borrowed until transfer_end */
	struct progress progress;
};

void transfer_begin(struct transfer *transfer, const struct emactl *emactl, struct emad_client *client);

/* Wipes the bar. */
void transfer_end(struct transfer *transfer);
