/*
 * Messages: any bytes are split and decoded, as a request and as a reply, without harm; what is accepted is encoded and
 * decoded to the same message.
 */
#include "proto/message.h"

#include "proto/name.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROOM = MESSAGE_PREFIX_BYTES + MESSAGE_HEADER_BYTES_MAX };

static void require(int is_true)
{
	if (!is_true)
		abort();
}

static void reason_require(int code, const struct reason *reason)
{
	require(code == 0 || code == STATUS_EPROTOCOL || code == STATUS_EVERSION || code == STATUS_ELIMIT);
	require(code == 0 || reason->text[0] != '\0');
	require(utf8_check(reason->text, strlen(reason->text)));
}

static void request_fuzz(struct unpacked *unpacked, const uint8_t *header, size_t header_bytes)
{
	static uint8_t first[ROOM], second[ROOM];
	size_t first_bytes = 0, second_bytes = 0;
	struct reason reason = {""};
	struct request request;
	int r = request_decode(unpacked, header, header_bytes, &request, &reason);

	reason_require(r, &reason);
	if (r != 0)
		return;
	require(request.operation < OPERATION_COUNT && request.v == PROTOCOL_VERSION);
	require((message_operations[request.operation].required & ~request.present) == 0);
	require(request_encode(&request, first, ROOM, &first_bytes, NULL) == 0);
	require(request_decode(unpacked, first + MESSAGE_PREFIX_BYTES, first_bytes - MESSAGE_PREFIX_BYTES, &request,
	                       NULL) == 0);
	require(request_encode(&request, second, ROOM, &second_bytes, NULL) == 0);
	require(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);
}

static void reply_fuzz(struct unpacked *unpacked, const uint8_t *header, size_t header_bytes)
{
	/* A reply that had no v gets one: room for it. */
	static uint8_t first[ROOM], second[ROOM];
	size_t first_bytes = 0, second_bytes = 0;
	struct reason reason = {""};
	struct reply reply;
	int r = reply_decode(unpacked, header, header_bytes, &reply, &reason);

	reason_require(r, &reason);
	if (r != 0 || reply_encode(&reply, first, ROOM, &first_bytes, NULL) != 0)
		return;
	require(reply_decode(unpacked, first + MESSAGE_PREFIX_BYTES, first_bytes - MESSAGE_PREFIX_BYTES, &reply,
	                     NULL) == 0);
	require(reply_encode(&reply, second, ROOM, &second_bytes, NULL) == 0);
	require(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *header, *body;
	size_t header_bytes, body_bytes;
	struct unpacked *unpacked = NULL;
	struct reason reason = {""};
	int r = message_split(data, size, &header, &header_bytes, &body, &body_bytes, &reason);

	reason_require(r, &reason);
	if (r != 0)
		return 0;
	require(header_bytes + body_bytes + MESSAGE_PREFIX_BYTES == size);
	require(unpacked_create(&unpacked) == 0);
	request_fuzz(unpacked, header, header_bytes);
	reply_fuzz(unpacked, header, header_bytes);
	unpacked_destroy(unpacked);
	return 0;
}
