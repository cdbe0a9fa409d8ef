/*
 * Where connections come from: an address, with a certificate where it is tls+tcp. Loop thread.
 */
#pragma once

#include "daemon/edge/transport.h"
#include "daemon/edge/transport_pending.h"
#include "proto/sp.h"

struct listener {
	struct pending accepting; /* or a pause, after an accept that has failed */
	struct transport *transport;
	nng_stream_listener *stream; /* owned */
	enum sp_wire wire;
	bool pausing;
	bool renewing; /* it is made anew as soon as the operation has ended */
	nng_tls_config *tls; /* owned; of tls+tcp, else NULL */
	bool asks;           /* for clients' certificates */
	char url[256];
};

/* Our codes or -errno, with a sentence; then there is nothing to finish. */
int listener_init(struct listener *listener, struct transport *transport, const char *url,
                  const struct transport_tls *tls, struct reason *reason);

/* Other certificates, where it has any: see transport_secure. */
int listener_secure(struct listener *listener, const struct transport_tls *tls, struct reason *reason);

/* Nobody new comes in. */
void listener_close(struct listener *listener);

void listener_finish(struct listener *listener);
