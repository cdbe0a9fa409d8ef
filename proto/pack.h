/*
 * Bounded msgpack: the only file that knows msgpack-c.
 *
 * Reading is done in two steps. First the bytes are walked with every bound checked: depth, item counts against the
 * bytes that are left, string lengths, no extension, timestamp or bin types, no duplicate or non-string map keys, valid
 * UTF-8, nothing behind the value. Only then are they unpacked, because msgpack-c 4.0.0 reserves memory by what a
 * header claims: five bytes can make it ask for 16 GiB.
 *
 * Writing goes into a buffer of fixed capacity; the first overflow is remembered and reported at the end, so that
 * callers write a whole message and check once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/status.h"

/* Bounds on what is read, besides PACK_DEPTH_MAX: they keep the cost of hostile bytes near that of honest ones. */
enum {
	PACK_PAIR_COUNT_MAX = 64,              /* pairs of one map; also the fields that `present` has bits for */
	PACK_VALUE_COUNT_MAX = 8 * 1024 * 1024, /* values of one message; 24 bytes of memory each */
	TEXT_SHOWN_BYTES_MAX = 64,
};

struct packer {
	uint8_t *bytes; /* borrowed from the caller until pack_finish */
	size_t capacity;
	size_t used; /* goes on counting after an overflow, so that the error can say how much was needed */
	bool overflow;
};

void pack_begin(struct packer *packer, uint8_t *bytes, size_t capacity);
void pack_map(struct packer *packer, size_t pair_count);
void pack_array(struct packer *packer, size_t item_count);
void pack_text(struct packer *packer, const char *text, size_t bytes);
void pack_u64(struct packer *packer, uint64_t value);
void pack_i64(struct packer *packer, int64_t value);
void pack_f64(struct packer *packer, double value);
void pack_bool(struct packer *packer, bool value);
void pack_nil(struct packer *packer);
/* STATUS_ELIMIT with both numbers when it did not fit, else 0 and the bytes used. */
int pack_finish(const struct packer *packer, size_t *ret_bytes, struct reason *reason);

/* One unpacked value. Lives as long as the `struct unpacked` it came from. */
struct value;

/* Text inside the unpacked bytes: not NUL-terminated, valid UTF-8. */
struct text {
	const char *bytes;
	size_t count;
};

/* Holds the memory of unpacked values; reused from message to message without new allocation while they are small. */
struct unpacked;

int unpacked_create(struct unpacked **ret_unpacked);
void unpacked_destroy(struct unpacked *unpacked);

/*
 * Walks, then unpacks, exactly count bytes. Values of an earlier call become invalid; the bytes must outlive the
 * values. STATUS_EPROTOCOL with a sentence that gives the offset and what is wrong there; STATUS_ELIMIT beyond the
 * bounds above; -ENOMEM.
 */
int unpack(struct unpacked *unpacked, const uint8_t *bytes, size_t count, const struct value **ret_value,
           struct reason *reason);

bool value_is_map(const struct value *value);
bool value_is_array(const struct value *value);
bool value_is_nil(const struct value *value);
/* Pairs of a map, items of an array, else 0. */
size_t value_count(const struct value *value);
/* The index-th item of an array. */
const struct value *value_item(const struct value *array, size_t index);
/* The index-th pair of a map. */
const struct value *value_pair(const struct value *map, size_t index, struct text *ret_key);
/* The value of a key, or NULL. */
const struct value *value_get(const struct value *map, const char *key);
/* False when the value is of another type or does not fit; output untouched. */
bool value_text(const struct value *value, struct text *ret_text);
bool value_u64(const struct value *value, uint64_t *ret_number);
bool value_i64(const struct value *value, int64_t *ret_number);
/* Accepts integers too. */
bool value_f64(const struct value *value, double *ret_number);
bool value_bool(const struct value *value, bool *ret_flag);

bool text_equal(struct text text, const char *string);
/* Copies with a terminating NUL; STATUS_ELIMIT when it does not fit. */
int text_copy(struct text text, char *target, size_t capacity);
/* How much of a peer's text goes into a sentence ("%.*s"): at most TEXT_SHOWN_BYTES_MAX, no character split. */
int text_shown_bytes(struct text text);
