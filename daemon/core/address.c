/*
 * Reading addresses. See address.h.
 */
#include "daemon/core/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { ONE_BYTES_MAX = 64 };

/* The digits of a port, to the end. */
static bool port_read(const char *text, uint16_t *ret_port)
{
	unsigned long port = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (!isdigit((unsigned char)*text))
			return false;
		port = port * 10 + (unsigned long)(*text - '0');
		if (port > UINT16_MAX)
			return false;
	}
	*ret_port = (uint16_t)port;
	return true;
}

static int address_read(char *text, struct address *ret_address, struct reason *reason)
{
	struct address address = { .is_v6 = text[0] == '[' };
	char *colon = strrchr(text, ':'), *host = address.is_v6 ? text + 1 : text;
	bool is_right = colon && port_read(colon + 1, &address.port);
	char shown[ONE_BYTES_MAX + 1];

	strcpy(shown, text);
	if (is_right && address.is_v6)
		is_right = colon > host && colon[-1] == ']';
	if (is_right) {
		*(address.is_v6 ? colon - 1 : colon) = '\0';
		is_right = inet_pton(address.is_v6 ? AF_INET6 : AF_INET, host, address.bytes) == 1;
	}
	if (!is_right)
		return reason_set(reason, STATUS_EARGUMENT, "'%s' is not an address: a number and a port such as "
		                  "127.0.0.1:9464 or [::1]:9464 are wanted", shown);
	*ret_address = address;
	return 0;
}

int address_list_parse(const char *text, struct address *ret_addresses, uint32_t *ret_count, struct reason *reason)
{
	struct address addresses[ADDRESS_COUNT_MAX];
	uint32_t count = 0;
	char one[ONE_BYTES_MAX + 1];

	for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
		size_t bytes = strcspn(text, " ");
		int error;

		if (count == ADDRESS_COUNT_MAX)
			return reason_set(reason, STATUS_EARGUMENT, "there are more than %d addresses",
			                  ADDRESS_COUNT_MAX);
		if (bytes > ONE_BYTES_MAX)
			return reason_set(reason, STATUS_EARGUMENT, "an address has %zu bytes, and at most %d are allowed",
			                  bytes, ONE_BYTES_MAX);
		memcpy(one, text, bytes);
		one[bytes] = '\0';
		error = address_read(one, &addresses[count], reason);
		if (error)
			return error;
		count++;
		text += bytes;
	}
	for (uint32_t i = 0; i < count; i++)
		ret_addresses[i] = addresses[i];
	*ret_count = count;
	return 0;
}

int address_list_check(const char *text, struct reason *reason)
{
	struct address addresses[ADDRESS_COUNT_MAX];
	uint32_t count;

	return address_list_parse(text, addresses, &count, reason);
}

bool address_is_loopback(const struct address *address)
{
	static const uint8_t v6[16] = { [15] = 1 };

	return address->is_v6 ? memcmp(address->bytes, v6, sizeof v6) == 0 : address->bytes[0] == 127;
}
