/*
 * What the addresses for other hosts need from files: tokens, and for TLS a certificate, its key and perhaps the
 * authority that clients must be known to. Read at the start and at every reload.
 */
#pragma once

#include "daemon/core/config.h"
#include "daemon/core/tokens.h"
#include "proto/status.h"

struct network_files {
	struct tokens tokens;
	char *certificate, *key, *authority; /* owned, PEM; NULL where none is named */
};

/* Reads what the configuration names, and checks that all is there that listen= needs. The sentence names the key. */
int network_files_read(const struct config *config, struct network_files **ret_files, struct reason *reason);

/* Whether what TLS needs is the same in both. */
bool network_files_same(const struct network_files *a, const struct network_files *b);

/* NULL is allowed. */
void network_files_free(struct network_files *files);
