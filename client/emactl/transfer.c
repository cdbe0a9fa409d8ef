/*
 * See transfer.h.
 */
#include "client/emactl/transfer.h"

static int on_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	struct transfer *transfer = context;

	progress_update(&transfer->progress, done_bytes, total_bytes);
	return 0;
}

void transfer_begin(struct transfer *transfer, const struct emactl *emactl, struct emad_client *client)
{
	transfer->client = client;
	progress_begin(&transfer->progress, !emactl->is_json && !emactl->is_quiet);
	(void)emad_client_progress(client, on_progress, transfer);
}

void transfer_end(struct transfer *transfer)
{
	(void)emad_client_progress(transfer->client, NULL, NULL);
	progress_end(&transfer->progress);
}
