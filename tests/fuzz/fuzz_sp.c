/*
 * The SP framing: any stream, in any pieces, gives the requests and the end that it gives in one piece.
 *
 * The input's first byte chooses the transport (bit 0) and seeds the sizes of the pieces; the rest is the stream. Its
 * handshake is put in front unless bit 1 is set.
 */
#include "proto/sp.h"

#include "proto/name.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BODY_BYTES_MAX = 4096 };

static void require(bool is_true)
{
	if (!is_true)
		abort();
}

/* What came out, condensed (FNV-1a). */
struct digest {
	uint64_t hash;
	size_t request_count;
	enum sp_event last;
	struct reason reason;
};

static void digest_add(struct digest *digest, const uint8_t *bytes, size_t count)
{
	digest->hash = (digest->hash ^ count) * UINT64_C(0x100000001b3);
	for (size_t i = 0; i < count; i++)
		digest->hash = (digest->hash ^ bytes[i]) * UINT64_C(0x100000001b3);
}

/* Runs the parser until it wants bytes or has failed. */
static void parser_drain(struct sp_parser *parser, struct digest *digest)
{
	uint8_t *place = NULL;

	for (;;) {
		digest->last = sp_next(parser, &digest->reason);
		switch (digest->last) {
		case SP_NEED_BYTES:
		case SP_VIOLATION:
			return;
		case SP_NEED_BODY:
			/* Its exact size: a sanitizer sees a byte too many. Freed when the request is done. */
			require(parser->body_bytes > 0 && parser->body_bytes <= BODY_BYTES_MAX);
			place = malloc((size_t)parser->body_bytes);
			require(place != NULL);
			sp_body_place(parser, place);
			break;
		case SP_REQUEST:
			require(parser->header_bytes <= MESSAGE_HEADER_BYTES_MAX);
			require(parser->backtrace_bytes >= 4 && parser->backtrace_bytes <= SP_BACKTRACE_BYTES_MAX);
			digest_add(digest, parser->backtrace, parser->backtrace_bytes);
			digest_add(digest, parser->header, parser->header_bytes);
			digest_add(digest, parser->body, (size_t)parser->body_bytes);
			digest->request_count++;
			place = parser->body;
			sp_request_done(parser);
			free(place);
			break;
		}
	}
}

static struct digest stream_digest(enum sp_wire wire, const uint8_t *bytes, size_t count, uint32_t seed)
{
	struct sp_parser *parser = malloc(sizeof(*parser));
	struct digest digest = {.hash = UINT64_C(0xcbf29ce484222325)};
	size_t fed = 0;

	require(parser != NULL);
	sp_parser_init(parser, wire, BODY_BYTES_MAX);
	parser_drain(parser, &digest);
	while (fed < count && digest.last == SP_NEED_BYTES) {
		uint8_t *window, *more;
		size_t capacity, more_capacity, here, piece = count - fed;

		if (seed != 0) {
			seed = seed * 1664525 + 1013904223;
			if (piece > (seed >> 16) % 23 + 1)
				piece = (seed >> 16) % 23 + 1;
		}
		sp_window(parser, &window, &capacity);
		require(capacity > 0);
		sp_window_more(parser, &more, &more_capacity);
		if (piece > capacity + more_capacity)
			piece = capacity + more_capacity;
		here = piece < capacity ? piece : capacity;
		memcpy(window, bytes + fed, here);
		memcpy(more, bytes + fed + here, piece - here);
		sp_received(parser, piece);
		fed += piece;
		parser_drain(parser, &digest);
	}
	free(parser->body); /* of a request cut short */
	free(parser);
	return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t handshake[SP_HANDSHAKE_BYTES] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
	enum sp_wire wire;
	struct digest whole, pieces;
	size_t handshake_bytes;
	uint8_t *stream;

	if (size == 0)
		return 0;
	wire = data[0] & 1 ? SP_WIRE_IPC : SP_WIRE_TCP;
	handshake_bytes = data[0] & 2 ? 0 : sizeof(handshake);
	stream = malloc(handshake_bytes + size);
	require(stream != NULL);
	memcpy(stream, handshake, handshake_bytes);
	memcpy(stream + handshake_bytes, data + 1, size - 1);
	whole = stream_digest(wire, stream, handshake_bytes + size - 1, 0);
	pieces = stream_digest(wire, stream, handshake_bytes + size - 1, (uint32_t)data[0] + 1);
	require(whole.last == pieces.last && whole.request_count == pieces.request_count && whole.hash == pieces.hash);
	require(whole.last == SP_NEED_BYTES || whole.last == SP_VIOLATION);
	if (whole.last == SP_VIOLATION)
		require(whole.reason.text[0] != '\0' && strcmp(whole.reason.text, pieces.reason.text) == 0);
	free(stream);
	return 0;
}
