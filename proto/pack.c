/*
 * Bounded msgpack: the only file that knows msgpack-c.
 *
 * The walk below decides everything; msgpack-c then sees only bytes that it can do no harm with. One number carries
 * most of the walk: `pending`, the values that containers have promised and that have not come yet. Each takes at
 * least one byte, so pending > bytes left is a lie, found before anything is allocated for it.
 */
#include "proto/pack.h"

#include "proto/limits.h"
#include "proto/name.h"

#include <errno.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

/* A msgpack_object under a name of ours: arrays of one are arrays of the other. */
struct value {
	msgpack_object object;
};

_Static_assert(sizeof(struct value) == sizeof(msgpack_object), "items of arrays are cast");

struct unpacked {
	msgpack_zone *zone; /* owned */
	struct value root;
};

/* The first chunk of a zone stays allocated: large enough for any header that our own peers send. */
enum { ZONE_BYTES = 16384 };

/* Writing. */

void pack_begin(struct packer *packer, uint8_t *bytes, size_t capacity)
{
	*packer = (struct packer){.bytes = bytes, .capacity = capacity};
}

static int packer_write(void *data, const char *bytes, size_t count)
{
	struct packer *packer = data;

	if (packer->overflow || count > packer->capacity - packer->used)
		packer->overflow = true;
	else if (count > 0)
		memcpy(packer->bytes + packer->used, bytes, count);
	if (__builtin_add_overflow(packer->used, count, &packer->used))
		packer->used = SIZE_MAX;
	return 0;
}

static msgpack_packer packer_of(struct packer *packer)
{
	return (msgpack_packer){.data = packer, .callback = packer_write};
}

/* msgpack counts with 32 bits; what does not fit into them does not fit into any buffer of ours either. */
static bool count_fits(struct packer *packer, size_t count)
{
	if (count <= UINT32_MAX)
		return true;
	packer->overflow = true;
	packer->used = SIZE_MAX;
	return false;
}

void pack_map(struct packer *packer, size_t pair_count)
{
	msgpack_packer out = packer_of(packer);

	if (count_fits(packer, pair_count))
		msgpack_pack_map(&out, pair_count);
}

void pack_array(struct packer *packer, size_t item_count)
{
	msgpack_packer out = packer_of(packer);

	if (count_fits(packer, item_count))
		msgpack_pack_array(&out, item_count);
}

void pack_text(struct packer *packer, const char *text, size_t bytes)
{
	msgpack_packer out = packer_of(packer);

	if (!count_fits(packer, bytes))
		return;
	msgpack_pack_str(&out, bytes);
	msgpack_pack_str_body(&out, text, bytes);
}

void pack_u64(struct packer *packer, uint64_t value)
{
	msgpack_packer out = packer_of(packer);

	msgpack_pack_uint64(&out, value);
}

void pack_i64(struct packer *packer, int64_t value)
{
	msgpack_packer out = packer_of(packer);

	msgpack_pack_int64(&out, value);
}

void pack_f64(struct packer *packer, double value)
{
	msgpack_packer out = packer_of(packer);

	msgpack_pack_double(&out, value);
}

void pack_bool(struct packer *packer, bool value)
{
	msgpack_packer out = packer_of(packer);

	if (value)
		msgpack_pack_true(&out);
	else
		msgpack_pack_false(&out);
}

void pack_nil(struct packer *packer)
{
	msgpack_packer out = packer_of(packer);

	msgpack_pack_nil(&out);
}

int pack_finish(const struct packer *packer, size_t *ret_bytes, struct reason *reason)
{
	if (packer->overflow)
		return reason_set(reason, STATUS_ELIMIT, "the message needs %zu bytes, there is room for %zu",
		                  packer->used, packer->capacity);
	*ret_bytes = packer->used;
	return 0;
}

/* Walking. */

/* A container whose items are being walked. */
struct walk_frame {
	uint64_t left; /* values still to come, keys included */
	bool is_map;
	bool is_key_next;
	uint32_t key_count;
	struct text keys[PACK_PAIR_COUNT_MAX];
};

struct walk {
	const uint8_t *bytes;
	size_t count;
	size_t offset;
	uint64_t pending; /* values promised by open containers */
	uint64_t value_count;
	uint32_t depth;
	struct walk_frame frames[PACK_DEPTH_MAX];
};

/* The kinds of value that the walk tells apart. */
enum walk_kind {
	WALK_SCALAR,
	WALK_TEXT,
	WALK_ARRAY,
	WALK_MAP,
	WALK_REFUSED,
};

/* What a first byte announces. */
struct walk_item {
	enum walk_kind kind;
	uint8_t extra_bytes; /* a scalar's bytes, or those of the count */
	uint8_t count;       /* the count, where it is in the first byte (extra_bytes 0) */
	const char *refused; /* what it is, when it is refused */
};

static struct walk_item walk_item_of(uint8_t first)
{
	if (first <= 0x7f || first >= 0xe0)
		return (struct walk_item){.kind = WALK_SCALAR};
	if (first <= 0x8f)
		return (struct walk_item){.kind = WALK_MAP, .count = first & 0x0f};
	if (first <= 0x9f)
		return (struct walk_item){.kind = WALK_ARRAY, .count = first & 0x0f};
	if (first <= 0xbf)
		return (struct walk_item){.kind = WALK_TEXT, .count = first & 0x1f};
	switch (first) {
	case 0xc0: /* nil, false, true */
	case 0xc2:
	case 0xc3:
		return (struct walk_item){.kind = WALK_SCALAR};
	case 0xca: /* float 32, 64 */
		return (struct walk_item){.kind = WALK_SCALAR, .extra_bytes = 4};
	case 0xcb:
		return (struct walk_item){.kind = WALK_SCALAR, .extra_bytes = 8};
	case 0xcc: /* uint 8..64, int 8..64 */
	case 0xcd:
	case 0xce:
	case 0xcf:
	case 0xd0:
	case 0xd1:
	case 0xd2:
	case 0xd3:
		return (struct walk_item){.kind = WALK_SCALAR, .extra_bytes = (uint8_t)(1u << (first & 3))};
	case 0xd9: /* str 8, 16, 32 */
	case 0xda:
	case 0xdb:
		return (struct walk_item){.kind = WALK_TEXT, .extra_bytes = (uint8_t)(1u << (first - 0xd9))};
	case 0xdc: /* array 16, 32 */
	case 0xdd:
		return (struct walk_item){.kind = WALK_ARRAY, .extra_bytes = (uint8_t)(2u << (first - 0xdc))};
	case 0xde: /* map 16, 32 */
	case 0xdf:
		return (struct walk_item){.kind = WALK_MAP, .extra_bytes = (uint8_t)(2u << (first - 0xde))};
	case 0xc4: /* bin 8, 16, 32 */
	case 0xc5:
	case 0xc6:
		return (struct walk_item){.kind = WALK_REFUSED, .refused = "binary data"};
	case 0xc1:
		return (struct walk_item){.kind = WALK_REFUSED, .refused = "the reserved byte 0xc1"};
	default: /* c7..c9, d4..d8: ext and fixext, of which the timestamp is one */
		return (struct walk_item){.kind = WALK_REFUSED, .refused = "an extension type"};
	}
}

static int walk_cut(const struct walk *walk, uint64_t need, struct reason *reason)
{
	return reason_set(reason, STATUS_EPROTOCOL,
	                  "msgpack at offset %zu: needs %llu more bytes, only %zu are left", walk->offset,
	                  (unsigned long long)need, walk->count - walk->offset);
}

/* The count behind the first byte, or in it. */
static int walk_count(struct walk *walk, struct walk_item item, uint64_t *ret_count, struct reason *reason)
{
	uint64_t number = item.count;

	if (item.extra_bytes > walk->count - walk->offset)
		return walk_cut(walk, item.extra_bytes, reason);
	for (uint8_t i = 0; i < item.extra_bytes; i++)
		number = number << 8 | walk->bytes[walk->offset++];
	*ret_count = number;
	return 0;
}

/* Linear, but in at most PACK_PAIR_COUNT_MAX keys. */
static int walk_key(struct walk *walk, struct walk_frame *frame, struct text key, struct reason *reason)
{
	for (uint32_t i = 0; i < frame->key_count; i++) {
		if (frame->keys[i].count == key.count && memcmp(frame->keys[i].bytes, key.bytes, key.count) == 0)
			return reason_set(reason, STATUS_EPROTOCOL, "msgpack at offset %zu: the key '%.*s' comes twice",
			                  (size_t)((const uint8_t *)key.bytes - walk->bytes),
			                  text_shown_bytes(key), key.bytes);
	}
	frame->keys[frame->key_count++] = key;
	return 0;
}

static int walk_text(struct walk *walk, uint64_t count, struct walk_frame *key_of, struct reason *reason)
{
	struct text text = {(const char *)walk->bytes + walk->offset, count};

	if (count > walk->count - walk->offset)
		return walk_cut(walk, count, reason);
	if (!utf8_check(text.bytes, text.count))
		return reason_set(reason, STATUS_EPROTOCOL, "msgpack at offset %zu: the text is not UTF-8",
		                  walk->offset);
	walk->offset += count;
	return key_of ? walk_key(walk, key_of, text, reason) : 0;
}

static int walk_container(struct walk *walk, bool is_map, uint64_t count, struct reason *reason)
{
	uint64_t values = is_map ? count * 2 : count;
	struct walk_frame *frame;

	if (walk->depth == PACK_DEPTH_MAX)
		return reason_set(reason, STATUS_EPROTOCOL, "msgpack at offset %zu: nested deeper than %d levels",
		                  walk->offset, PACK_DEPTH_MAX);
	if (is_map && count > PACK_PAIR_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT,
		                  "msgpack at offset %zu: a map of %llu pairs, at most %d are allowed",
		                  walk->offset, (unsigned long long)count, PACK_PAIR_COUNT_MAX);
	if (walk->pending + values > walk->count - walk->offset)
		return walk_cut(walk, walk->pending + values, reason);
	walk->pending += values;
	walk->value_count += values;
	if (walk->value_count > PACK_VALUE_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "msgpack at offset %zu: %llu values, at most %d are allowed",
		                  walk->offset, (unsigned long long)walk->value_count, PACK_VALUE_COUNT_MAX);
	if (values == 0)
		return 0;
	frame = &walk->frames[walk->depth++];
	frame->left = values;
	frame->is_map = is_map;
	frame->is_key_next = is_map;
	frame->key_count = 0;
	return 0;
}

/* One value, without the items of a container. */
static int walk_value(struct walk *walk, struct walk_frame *key_of, struct reason *reason)
{
	size_t start = walk->offset;
	struct walk_item item;
	uint64_t count = 0;
	int r;

	if (start == walk->count)
		return walk_cut(walk, 1, reason);
	item = walk_item_of(walk->bytes[walk->offset++]);
	if (item.kind == WALK_REFUSED)
		return reason_set(reason, STATUS_EPROTOCOL, "msgpack at offset %zu: %s is not allowed", start,
		                  item.refused);
	if (key_of && item.kind != WALK_TEXT)
		return reason_set(reason, STATUS_EPROTOCOL, "msgpack at offset %zu: a map's key is not text", start);
	if (item.kind == WALK_SCALAR) {
		if (item.extra_bytes > walk->count - walk->offset)
			return walk_cut(walk, item.extra_bytes, reason);
		walk->offset += item.extra_bytes;
		return 0;
	}
	r = walk_count(walk, item, &count, reason);
	if (r != 0)
		return r;
	if (item.kind == WALK_TEXT)
		return walk_text(walk, count, key_of, reason);
	return walk_container(walk, item.kind == WALK_MAP, count, reason);
}

static int walk_all(struct walk *walk, struct reason *reason)
{
	int r = walk_value(walk, NULL, reason);

	while (r == 0 && walk->depth > 0) {
		struct walk_frame *frame = &walk->frames[walk->depth - 1];
		struct walk_frame *key_of = frame->is_key_next ? frame : NULL;

		if (frame->left == 0) {
			walk->depth--;
			continue;
		}
		frame->left--;
		frame->is_key_next = frame->is_map && !frame->is_key_next;
		walk->pending--;
		r = walk_value(walk, key_of, reason);
	}
	if (r == 0 && walk->offset != walk->count)
		return reason_set(reason, STATUS_EPROTOCOL, "msgpack at offset %zu: %zu bytes behind the message",
		                  walk->offset, walk->count - walk->offset);
	return r;
}

/* Reading. */

int unpacked_create(struct unpacked **ret_unpacked)
{
	struct unpacked *unpacked = calloc(1, sizeof(*unpacked));

	if (!unpacked)
		return -ENOMEM;
	unpacked->zone = msgpack_zone_new(ZONE_BYTES);
	if (!unpacked->zone) {
		unpacked_destroy(unpacked);
		return -ENOMEM;
	}
	*ret_unpacked = unpacked;
	return 0;
}

void unpacked_destroy(struct unpacked *unpacked)
{
	if (!unpacked)
		return;
	if (unpacked->zone)
		msgpack_zone_free(unpacked->zone);
	free(unpacked);
}

int unpack(struct unpacked *unpacked, const uint8_t *bytes, size_t count, const struct value **ret_value,
           struct reason *reason)
{
	struct walk walk;
	msgpack_unpack_return result;
	size_t offset = 0;
	int r;

	if (count == 0)
		return reason_set(reason, STATUS_EPROTOCOL, "msgpack: no bytes at all");
	/* Member by member: the frames are large, and each is set when it is opened. */
	walk.bytes = bytes;
	walk.count = count;
	walk.offset = 0;
	walk.pending = 0;
	walk.value_count = 1;
	walk.depth = 0;
	r = walk_all(&walk, reason);
	if (r != 0)
		return r;
	msgpack_zone_clear(unpacked->zone);
	result = msgpack_unpack((const char *)bytes, count, &offset, unpacked->zone, &unpacked->root.object);
	if (result == MSGPACK_UNPACK_NOMEM_ERROR)
		return reason_set(reason, -ENOMEM, "not enough memory to unpack %zu bytes of msgpack", count);
	if (result != MSGPACK_UNPACK_SUCCESS || offset != count)
		return reason_set(reason, STATUS_EPROTOCOL, "msgpack at offset %zu: not valid", offset);
	*ret_value = &unpacked->root;
	return 0;
}

bool value_is_map(const struct value *value)
{
	return value->object.type == MSGPACK_OBJECT_MAP;
}

bool value_is_array(const struct value *value)
{
	return value->object.type == MSGPACK_OBJECT_ARRAY;
}

bool value_is_nil(const struct value *value)
{
	return value->object.type == MSGPACK_OBJECT_NIL;
}

size_t value_count(const struct value *value)
{
	if (value_is_map(value))
		return value->object.via.map.size;
	return value_is_array(value) ? value->object.via.array.size : 0;
}

const struct value *value_item(const struct value *array, size_t index)
{
	return (const struct value *)&array->object.via.array.ptr[index];
}

static struct text text_of_object(const msgpack_object *object)
{
	return (struct text){object->via.str.ptr, object->via.str.size};
}

const struct value *value_pair(const struct value *map, size_t index, struct text *ret_key)
{
	const msgpack_object_kv *pair = &map->object.via.map.ptr[index];

	*ret_key = text_of_object(&pair->key);
	return (const struct value *)&pair->val;
}

const struct value *value_get(const struct value *map, const char *key)
{
	size_t pair_count = value_is_map(map) ? value_count(map) : 0;

	for (size_t i = 0; i < pair_count; i++) {
		struct text here;
		const struct value *value = value_pair(map, i, &here);

		if (text_equal(here, key))
			return value;
	}
	return NULL;
}

bool value_text(const struct value *value, struct text *ret_text)
{
	if (value->object.type != MSGPACK_OBJECT_STR)
		return false;
	*ret_text = text_of_object(&value->object);
	return true;
}

bool value_u64(const struct value *value, uint64_t *ret_number)
{
	if (value->object.type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return false;
	*ret_number = value->object.via.u64;
	return true;
}

bool value_i64(const struct value *value, int64_t *ret_number)
{
	if (value->object.type == MSGPACK_OBJECT_NEGATIVE_INTEGER) {
		*ret_number = value->object.via.i64;
		return true;
	}
	if (value->object.type != MSGPACK_OBJECT_POSITIVE_INTEGER || value->object.via.u64 > INT64_MAX)
		return false;
	*ret_number = (int64_t)value->object.via.u64;
	return true;
}

bool value_f64(const struct value *value, double *ret_number)
{
	/* An enum of the library that has an alias in it: compared, not switched. */
	if (value->object.type == MSGPACK_OBJECT_FLOAT32 || value->object.type == MSGPACK_OBJECT_FLOAT64)
		*ret_number = value->object.via.f64;
	else if (value->object.type == MSGPACK_OBJECT_POSITIVE_INTEGER)
		*ret_number = (double)value->object.via.u64;
	else if (value->object.type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
		*ret_number = (double)value->object.via.i64;
	else
		return false;
	return true;
}

bool value_bool(const struct value *value, bool *ret_flag)
{
	if (value->object.type != MSGPACK_OBJECT_BOOLEAN)
		return false;
	*ret_flag = value->object.via.boolean;
	return true;
}

bool text_equal(struct text text, const char *string)
{
	size_t count = strlen(string);

	return text.count == count && (count == 0 || memcmp(text.bytes, string, count) == 0);
}

int text_copy(struct text text, char *target, size_t capacity)
{
	if (text.count >= capacity)
		return STATUS_ELIMIT;
	if (text.count > 0)
		memcpy(target, text.bytes, text.count);
	target[text.count] = '\0';
	return 0;
}

int text_shown_bytes(struct text text)
{
	size_t count = text.count;

	if (count > TEXT_SHOWN_BYTES_MAX) {
		count = TEXT_SHOWN_BYTES_MAX;
		while (count > 0 && ((unsigned char)text.bytes[count] & 0xc0) == 0x80)
			count--;
	}
	return (int)count;
}
