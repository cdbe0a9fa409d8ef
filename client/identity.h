/*
 * Identity: by what a client is known to a daemon on another host, and by what it knows the daemon: files named in
 * options or in the environment, read when the client is opened.
 */
#pragma once

#include "client/emad.h"
#include "proto/status.h"

struct identity {
	char *token;       /* owned, as all; NULL: none */
	char *authority;   /* PEM */
	char *certificate; /* PEM; NULL: none */
	char *key;         /* PEM */
	char *name;        /* that the daemon's certificate must have; NULL: that in the url */
};

/*
 * options may be NULL, and each of its members: then the environment is asked. A url without TLS needs no certificates.
 * identity_finish in any case. -errno or STATUS_EARGUMENT, with a sentence that names the variable.
 */
int identity_init(struct identity *identity, const char *url, const struct emad_client_options *options,
                  struct reason *reason);
void identity_finish(struct identity *identity);
