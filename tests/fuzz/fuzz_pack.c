/*
 * Bounded msgpack: what is accepted can be read to its last leaf, and written again it reads as the same bytes do.
 */
#include "proto/pack.h"

#include "proto/limits.h"
#include "proto/name.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int is_true)
{
	if (!is_true)
		abort();
}

/* Writes a value again, in the shortest form. */
static void value_pack(const struct value *value, struct packer *packer, int depth)
{
	struct text text;
	uint64_t u64;
	int64_t i64;
	double f64;
	bool flag;

	require(depth <= PACK_DEPTH_MAX);
	if (value_is_map(value)) {
		pack_map(packer, value_count(value));
		for (size_t i = 0; i < value_count(value); i++) {
			const struct value *item = value_pair(value, i, &text);

			require(utf8_check(text.bytes, text.count));
			pack_text(packer, text.bytes, text.count);
			value_pack(item, packer, depth + 1);
		}
	} else if (value_is_array(value)) {
		pack_array(packer, value_count(value));
		for (size_t i = 0; i < value_count(value); i++)
			value_pack(value_item(value, i), packer, depth + 1);
	} else if (value_text(value, &text)) {
		require(utf8_check(text.bytes, text.count));
		pack_text(packer, text.bytes, text.count);
	} else if (value_u64(value, &u64)) {
		pack_u64(packer, u64);
	} else if (value_i64(value, &i64)) {
		require(i64 < 0);
		pack_i64(packer, i64);
	} else if (value_f64(value, &f64)) {
		pack_f64(packer, f64);
	} else if (value_bool(value, &flag)) {
		pack_bool(packer, flag);
	} else {
		require(value_is_nil(value));
		pack_nil(packer);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Float 32 becomes float 64: 5 bytes become 9. */
	size_t capacity = 2 * size, first_bytes = 0, second_bytes = 0;
	uint8_t *first = malloc(capacity + 1), *second = malloc(capacity + 1);
	struct unpacked *unpacked = NULL;
	const struct value *value;
	struct reason reason = {""};
	struct packer packer;
	int r;

	require(first && second && unpacked_create(&unpacked) == 0);
	r = unpack(unpacked, data, size, &value, &reason);
	require(utf8_check(reason.text, strlen(reason.text)));
	if (r == 0) {
		pack_begin(&packer, first, capacity);
		value_pack(value, &packer, 0);
		require(pack_finish(&packer, &first_bytes, NULL) == 0);
		require(unpack(unpacked, first, first_bytes, &value, NULL) == 0);
		pack_begin(&packer, second, capacity);
		value_pack(value, &packer, 0);
		require(pack_finish(&packer, &second_bytes, NULL) == 0);
		require(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);
	} else {
		require((r == STATUS_EPROTOCOL || r == STATUS_ELIMIT) && reason.text[0] != '\0');
	}
	unpacked_destroy(unpacked);
	free(first);
	free(second);
	return 0;
}
