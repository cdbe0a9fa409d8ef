/*
 * Addresses to listen at: "127.0.0.1:9464", "[::1]:9464". Numbers alone: a name would have to be looked up, and may
 * mean something else tomorrow.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/status.h"

enum { ADDRESS_COUNT_MAX = 8, ADDRESS_TEXT_BYTES_MAX = 256 };

struct address {
	bool is_v6;
	uint8_t bytes[16]; /* in the network's order; the first 4 of IPv4 */
	uint16_t port;     /* 0: any that is free */
};

/* Reads addresses divided by one blank each. STATUS_EARGUMENT with a sentence. */
int address_list_parse(const char *text, struct address *ret_addresses, uint32_t *ret_count, struct reason *reason);

/* The same, for whoever wants to know only whether it would work. */
int address_list_check(const char *text, struct reason *reason);

/* Whether only processes of this host can come from there. */
bool address_is_loopback(const struct address *address);
