/*
 * Addresses and classes. See network.h.
 */
#include "daemon/core/network.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char TCP[] = "tcp://";
static const char TLS[] = "tls+tcp://";

static const char *address_of(const char *url)
{
	if (strncmp(url, TCP, strlen(TCP)) == 0)
		return url + strlen(TCP);
	return strncmp(url, TLS, strlen(TLS)) == 0 ? url + strlen(TLS) : NULL;
}

static bool is_url(const char *url)
{
	const char *address = address_of(url);
	const char *colon = address ? strrchr(address, ':') : NULL;
	char *end;
	unsigned long port;

	if (!colon || colon == address || !isdigit((unsigned char)colon[1]))
		return false;
	port = strtoul(colon + 1, &end, 10);
	/* An IPv6 address has colons of its own and stands in brackets. */
	if (memchr(address, ':', (size_t)(colon - address)) && (address[0] != '[' || colon[-1] != ']'))
		return false;
	return *end == '\0' && port > 0 && port <= 65535;
}

bool network_url(const char *urls, uint32_t index, char *url, size_t url_capacity)
{
	size_t count;

	for (; index > 0; index--) {
		urls += strcspn(urls, " ");
		urls += *urls == ' ';
	}
	count = strcspn(urls, " ");
	if (count == 0 || count >= url_capacity)
		return false;
	memcpy(url, urls, count);
	url[count] = '\0';
	return true;
}

int network_urls_check(const char *urls, struct reason *reason)
{
	char url[256];
	uint32_t count = 0;

	for (const char *at = urls; *at; at += strcspn(at, " "), at += *at == ' ') {
		if (!network_url(at, 0, url, sizeof url) || !is_url(url))
			return reason_set(reason, STATUS_EARGUMENT, "%.60s: tcp://ADDRESS:PORT or tls+tcp://ADDRESS:PORT is wanted", at);
		count++;
	}
	if (count > NETWORK_URL_COUNT_MAX)
		return reason_set(reason, STATUS_EARGUMENT, "%u addresses, at most %d are possible", count,
		                  NETWORK_URL_COUNT_MAX);
	return 0;
}

bool network_url_is_local(const char *url)
{
	const char *address = address_of(url);

	/* Names are resolved elsewhere, and not always to this host. */
	return strncmp(address, "127.0.0.1:", 10) == 0 || strncmp(address, "[::1]:", 6) == 0;
}

bool network_url_is_secret(const char *url)
{
	return strncmp(url, TLS, strlen(TLS)) == 0;
}

uint32_t network_refused(enum access granted)
{
	uint32_t refused = 0;

	for (int class = ACCESS_OPEN + 1; class < ACCESS_COUNT; class++)
		if (class > (int)granted)
			refused |= UINT32_C(1) << class;
	return refused;
}
