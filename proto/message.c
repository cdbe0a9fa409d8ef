/*
 * Messages: one flat set of fields for requests and one for replies.
 *
 * The X-macros of message.h become two tables of descriptors (name, type, place in the struct), and one decoder and
 * one encoder walk either of them. Nothing below knows any field by name but op, v and status, on which the reading of
 * the rest depends.
 */
#include "proto/message.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum field_type {
	FIELD_TEXT,
	FIELD_U64,
	FIELD_I64,
	FIELD_F64,
	FIELD_BOOL,
	FIELD_LIST,
};

/* One field; its index in the table is its bit in `present`. */
struct field {
	const char *name;
	enum field_type type;
	size_t offset; /* in struct request or struct reply */
};

static const struct field request_fields[REQUEST_FIELD_COUNT] = {
#define X(type, name, text) {#name, FIELD_##type, offsetof(struct request, name)},
	REQUEST_FIELDS(X)
#undef X
};

static const struct field reply_fields[REPLY_FIELD_COUNT] = {
#define X(type, name, text) {#name, FIELD_##type, offsetof(struct reply, name)},
	REPLY_FIELDS(X)
#undef X
};

_Static_assert(PACK_PAIR_COUNT_MAX <= 64, "fields are bits of present");
_Static_assert((int)REQUEST_FIELD_COUNT <= (int)PACK_PAIR_COUNT_MAX, "a request with every field can be read");
_Static_assert((int)REPLY_FIELD_COUNT <= (int)PACK_PAIR_COUNT_MAX, "a reply with every field can be read");

#define HAS(name) REQUEST_HAS(name)

const struct message_operation message_operations[OPERATION_COUNT] = {
	[OP_HELLO] = {
		.name = "hello",
		.access = ACCESS_OPEN,
		.optional = HAS(agent) | HAS(client) | HAS(token),
		.text = "exchange versions and limits, and say who asks",
	},
	[OP_REGISTER] = {
		.name = "register",
		.access = ACCESS_PUSH,
		.required = HAS(model) | HAS(client) | HAS(sequence) | HAS(rank) | HAS(world),
		.optional = HAS(profiles) | HAS(resume) | HAS(start_step) | HAS(stride) | HAS(rewind) | HAS(policy) | HAS(guards) |
			    HAS(attributes) | HAS(agent),
		.may_wait = true,
		.text = "claim a rank of a model; body: the manifest",
	},
	[OP_ATTACH] = {
		.name = "attach",
		.access = ACCESS_PUSH,
		.required = HAS(model) | HAS(rank) | HAS(epoch),
		.optional = HAS(agent) | HAS(client),
		.needs_attach = true,
		.may_wait = true,
		.text = "the stage segment of a registration, as a file descriptor",
	},
	[OP_PUSH] = {
		.name = "push",
		.access = ACCESS_PUSH,
		.required = HAS(model) | HAS(rank) | HAS(epoch) | HAS(client) | HAS(sequence) | HAS(step) | HAS(stage),
		.optional = HAS(wait) | HAS(timeout_ms) | HAS(loss) | HAS(metadata) | HAS(profile) | HAS(updates) |
			    HAS(chunked) | HAS(agent),
		.may_wait = true,
		.text = "a stage holds a whole snapshot",
	},
	[OP_RESERVE] = {
		.name = "reserve",
		.access = ACCESS_PUSH,
		.required = HAS(model) | HAS(rank) | HAS(epoch),
		.optional = HAS(timeout_ms) | HAS(agent) | HAS(client) | HAS(sequence),
		.may_wait = true,
		.text = "wait for a free stage",
	},
	[OP_FLUSH] = {
		.name = "flush",
		.access = ACCESS_PUSH,
		.required = HAS(model) | HAS(rank) | HAS(epoch),
		.optional = HAS(timeout_ms) | HAS(agent) | HAS(client),
		.may_wait = true,
		.text = "wait until everything accepted so far is decided",
	},
	[OP_ATTRIBUTES] = {
		.name = "attributes",
		.access = ACCESS_PUSH,
		.required = HAS(model) | HAS(rank) | HAS(epoch) | HAS(client) | HAS(sequence) | HAS(attributes),
		.optional = HAS(agent),
		.text = "replace the model's attributes",
	},
	[OP_VIEW] = {
		.name = "view",
		.access = ACCESS_READ,
		.required = HAS(model),
		.optional = HAS(profile) | HAS(min_step) | HAS(timeout_ms) | HAS(agent) | HAS(client),
		.needs_attach = true,
		.may_wait = true,
		.text = "lease a version, as a file descriptor",
	},
	[OP_STATUS] = {
		.name = "status",
		.access = ACCESS_READ,
		.optional = HAS(agent) | HAS(client),
		.text = "body of the reply: JSON about the daemon",
	},
	[OP_LIST] = {
		.name = "list",
		.access = ACCESS_READ,
		.optional = HAS(agent) | HAS(client),
		.text = "body of the reply: JSON about all models",
	},
	[OP_SHOW] = {
		.name = "show",
		.access = ACCESS_READ,
		.required = HAS(model),
		.optional = HAS(agent) | HAS(client),
		.text = "body of the reply: JSON about one model",
	},
	[OP_REMOVE] = {
		.name = "remove",
		.access = ACCESS_ADMIN,
		.required = HAS(model),
		.optional = HAS(agent) | HAS(client),
		.text = "forget a model",
	},
	[OP_PROFILE_SET] = {
		.name = "profile_set",
		.access = ACCESS_ADMIN,
		.required = HAS(model) | HAS(profiles),
		.optional = HAS(timeout_ms) | HAS(agent) | HAS(client),
		.may_wait = true,
		.text = "add profiles, or change those of the same names, from the next update on",
	},
	[OP_PROFILE_REMOVE] = {
		.name = "profile_remove",
		.access = ACCESS_ADMIN,
		.required = HAS(model) | HAS(profile),
		.optional = HAS(timeout_ms) | HAS(agent) | HAS(client),
		.may_wait = true,
		.text = "stop one profile, from the next update on",
	},
	[OP_CHECKPOINT] = {
		.name = "checkpoint",
		.access = ACCESS_PUSH,
		.optional = HAS(model) | HAS(timeout_ms) | HAS(agent) | HAS(client),
		.may_wait = true,
		.text = "write the newest version of a model, or of all, to disk",
	},
	[OP_HISTORY] = {
		.name = "history",
		.access = ACCESS_READ,
		.required = HAS(model),
		.optional = HAS(timeout_ms) | HAS(agent) | HAS(client),
		.may_wait = true,
		.text = "body of the reply: JSON about what there is of a model, in memory and on disk",
	},
	[OP_ROLLBACK] = {
		.name = "rollback",
		.access = ACCESS_ADMIN,
		.required = HAS(model) | HAS(step),
		.optional = HAS(dry_run) | HAS(timeout_ms) | HAS(agent) | HAS(client),
		.may_wait = true,
		.text = "the newest version of a step or an earlier one becomes the newest of all",
	},
	[OP_CHECKPOINT_KEEP] = {
		.name = "checkpoint_keep",
		.access = ACCESS_ADMIN,
		.required = HAS(model) | HAS(step) | HAS(keep),
		.optional = HAS(timeout_ms) | HAS(agent) | HAS(client),
		.may_wait = true,
		.text = "mark the checkpoint of a step as one that stays, or take the mark away",
	},
	[OP_CLAIM] = {
		.name = "claim",
		.access = ACCESS_PUSH,
		.required = HAS(model) | HAS(rank) | HAS(epoch) | HAS(client),
		.optional = HAS(agent),
		.may_wait = true,
		.text = "stages of a registration, to be filled by `chunk`",
	},
	[OP_CHUNK] = {
		.name = "chunk",
		.access = ACCESS_PUSH,
		.required = HAS(model) | HAS(rank) | HAS(epoch) | HAS(client) | HAS(sequence) | HAS(stage) | HAS(offset),
		.optional = HAS(dtype) | HAS(agent),
		.text = "a part of a snapshot, for a stage; body: its bytes",
	},
	[OP_LEASE] = {
		.name = "lease",
		.access = ACCESS_READ,
		.required = HAS(model) | HAS(lease),
		.optional = HAS(profile) | HAS(min_step) | HAS(timeout_ms) | HAS(agent) | HAS(client),
		.may_wait = true,
		.text = "lease a version, to be read by `fetch`",
	},
	[OP_FETCH] = {
		.name = "fetch",
		.access = ACCESS_READ,
		.required = HAS(lease) | HAS(offset) | HAS(count),
		.optional = HAS(dtype) | HAS(agent) | HAS(client),
		.text = "body of the reply: a part of the image of a leased version, or several that the body names",
	},
	[OP_RELEASE] = {
		.name = "release",
		.access = ACCESS_READ,
		.optional = HAS(lease) | HAS(model) | HAS(rank) | HAS(epoch) | HAS(agent) | HAS(client),
		.text = "end a lease, or a claim on stages",
	},
};

#undef HAS

static const char *const outcome_names[OUTCOME_COUNT] = {
#define X(name, wire) [OUTCOME_##name] = (wire),
	OUTCOMES(X)
#undef X
};

/* Reading. */

static int list_read(const struct value *value, const struct field *field, struct text_list *ret_list,
                     struct reason *reason)
{
	size_t count = value_count(value);

	if (!value_is_array(value))
		return reason_set(reason, STATUS_EPROTOCOL, "field '%s' is not a list", field->name);
	if (count > PROFILE_COUNT_MAX)
		return reason_set(reason, STATUS_ELIMIT, "field '%s' has %zu items, at most %d are allowed",
		                  field->name, count, PROFILE_COUNT_MAX);
	for (size_t i = 0; i < count; i++) {
		if (!value_text(value_item(value, i), &ret_list->items[i]))
			return reason_set(reason, STATUS_EPROTOCOL, "field '%s': item %zu is not text", field->name, i);
	}
	ret_list->count = (uint32_t)count;
	return 0;
}

/* Puts a value into its place in the message; member points there. */
static int field_read(const struct value *value, const struct field *field, void *member, struct reason *reason)
{
	const char *expected = NULL;

	switch (field->type) {
	case FIELD_TEXT:
		expected = value_text(value, member) ? NULL : "text";
		break;
	case FIELD_U64:
		expected = value_u64(value, member) ? NULL : "an unsigned integer of 64 bits";
		break;
	case FIELD_I64:
		expected = value_i64(value, member) ? NULL : "an integer of 64 bits";
		break;
	case FIELD_F64:
		expected = value_f64(value, member) ? NULL : "a number";
		break;
	case FIELD_BOOL:
		expected = value_bool(value, member) ? NULL : "true or false";
		break;
	case FIELD_LIST:
		return list_read(value, field, member, reason);
	}
	if (expected)
		return reason_set(reason, STATUS_EPROTOCOL, "field '%s' is not %s", field->name, expected);
	return 0;
}

/* The index of a key in a table, or -1. */
static int field_find(const struct field *fields, int field_count, struct text key)
{
	for (int i = 0; i < field_count; i++) {
		if (text_equal(key, fields[i].name))
			return i;
	}
	return -1;
}

/* Reads all known fields; allowed: the bits that may be there. owner: whose fields they are, for the sentence. */
static int fields_read(const struct value *map, const struct field *fields, int field_count, uint64_t allowed,
                       const char *owner, void *message, uint64_t *ret_present, struct reason *reason)
{
	uint64_t present = 0;

	for (size_t i = 0; i < value_count(map); i++) {
		struct text key;
		const struct value *value = value_pair(map, i, &key);
		int index = field_find(fields, field_count, key), r;

		if (index < 0)
			continue;
		if (!(allowed & UINT64_C(1) << index))
			return reason_set(reason, STATUS_EPROTOCOL, "operation '%s' has no field '%s'", owner,
			                  fields[index].name);
		r = field_read(value, &fields[index], (char *)message + fields[index].offset, reason);
		if (r != 0)
			return r;
		present |= UINT64_C(1) << index;
	}
	*ret_present = present;
	return 0;
}

/* Before all else: what another version means by its other fields is not ours to judge. */
static int version_check(const struct value *map, bool is_required, struct reason *reason)
{
	const struct value *value = value_get(map, "v");
	uint64_t version;

	if (!value && !is_required)
		return 0;
	if (!value)
		return reason_set(reason, STATUS_EPROTOCOL, "the message lacks the field 'v' (protocol version)");
	if (!value_u64(value, &version))
		return reason_set(reason, STATUS_EPROTOCOL, "field 'v' is not an unsigned integer of 64 bits");
	if (version != PROTOCOL_VERSION)
		return reason_set(reason, STATUS_EVERSION,
		                  "the other side speaks protocol version %llu, this side speaks version %d; "
		                  "use emad and its clients of one release",
		                  (unsigned long long)version, PROTOCOL_VERSION);
	return 0;
}

static int header_unpack(struct unpacked *unpacked, const uint8_t *header, size_t header_bytes,
                         const struct value **ret_map, struct reason *reason)
{
	const struct value *map;
	int r = unpack(unpacked, header, header_bytes, &map, reason);

	if (r != 0)
		return r;
	if (!value_is_map(map))
		return reason_set(reason, STATUS_EPROTOCOL, "the message header is not a map");
	*ret_map = map;
	return 0;
}

static int operation_read(const struct value *map, enum operation *ret_operation, struct reason *reason)
{
	const struct value *value = value_get(map, "op");
	struct text name;

	if (!value)
		return reason_set(reason, STATUS_EPROTOCOL, "the request lacks the field 'op' (operation)");
	if (!value_text(value, &name))
		return reason_set(reason, STATUS_EPROTOCOL, "field 'op' is not text");
	for (int i = 0; i < OPERATION_COUNT; i++) {
		if (text_equal(name, message_operations[i].name)) {
			*ret_operation = (enum operation)i;
			return 0;
		}
	}
	return reason_set(reason, STATUS_EPROTOCOL, "there is no operation '%.*s'", text_shown_bytes(name), name.bytes);
}

int request_decode(struct unpacked *unpacked, const uint8_t *header, size_t header_bytes, struct request *ret_request,
                   struct reason *reason)
{
	const struct message_operation *operation;
	const struct value *map;
	struct request request = {0};
	uint64_t missing;
	int r = header_unpack(unpacked, header, header_bytes, &map, reason);

	if (r == 0)
		r = version_check(map, true, reason);
	if (r == 0)
		r = operation_read(map, &request.operation, reason);
	if (r != 0)
		return r;
	operation = &message_operations[request.operation];
	r = fields_read(map, request_fields, REQUEST_FIELD_COUNT,
	                operation->required | operation->optional | REQUEST_HAS(op) | REQUEST_HAS(v), operation->name,
	                &request, &request.present, reason);
	if (r != 0)
		return r;
	missing = operation->required & ~request.present;
	if (missing != 0)
		return reason_set(reason, STATUS_EPROTOCOL, "operation '%s' lacks the field '%s'", operation->name,
		                  request_fields[__builtin_ctzll(missing)].name);
	*ret_request = request;
	return 0;
}

int reply_decode(struct unpacked *unpacked, const uint8_t *header, size_t header_bytes, struct reply *ret_reply,
                 struct reason *reason)
{
	const struct value *map;
	struct reply reply = {0};
	int r = header_unpack(unpacked, header, header_bytes, &map, reason);

	if (r == 0)
		r = version_check(map, false, reason);
	if (r == 0)
		r = fields_read(map, reply_fields, REPLY_FIELD_COUNT, UINT64_MAX, "", &reply, &reply.present, reason);
	if (r != 0)
		return r;
	if (!(reply.present & REPLY_HAS(status)))
		return reason_set(reason, STATUS_EPROTOCOL, "the reply lacks the field 'status'");
	if (reply.status > 0 || reply.status < -INT_MAX)
		return reason_set(reason, STATUS_EPROTOCOL, "field 'status' is %lld, which is no status code",
		                  (long long)reply.status);
	*ret_reply = reply;
	return 0;
}

/* Writing. */

static void list_write(struct packer *packer, const struct text_list *list)
{
	assert(list->count <= PROFILE_COUNT_MAX);
	pack_array(packer, list->count);
	for (uint32_t i = 0; i < list->count; i++)
		pack_text(packer, list->items[i].bytes, list->items[i].count);
}

static void field_write(struct packer *packer, const struct field *field, const void *member)
{
	const struct text *text = member;

	pack_text(packer, field->name, strlen(field->name));
	switch (field->type) {
	case FIELD_TEXT:
		pack_text(packer, text->bytes, text->count);
		break;
	case FIELD_U64:
		pack_u64(packer, *(const uint64_t *)member);
		break;
	case FIELD_I64:
		pack_i64(packer, *(const int64_t *)member);
		break;
	case FIELD_F64:
		pack_f64(packer, *(const double *)member);
		break;
	case FIELD_BOOL:
		pack_bool(packer, *(const bool *)member);
		break;
	case FIELD_LIST:
		list_write(packer, member);
		break;
	}
}

static int message_write(const struct field *fields, uint64_t present, const void *message, uint8_t *bytes,
                         size_t capacity, size_t *ret_bytes, struct reason *reason)
{
	struct packer packer;
	size_t room = capacity, header_bytes;
	int r;

	if (capacity < MESSAGE_PREFIX_BYTES)
		return reason_set(reason, STATUS_ELIMIT, "the message needs at least %d bytes, there is room for %zu",
		                  MESSAGE_PREFIX_BYTES, capacity);
	room = capacity - MESSAGE_PREFIX_BYTES;
	if (room > MESSAGE_HEADER_BYTES_MAX)
		room = MESSAGE_HEADER_BYTES_MAX;
	pack_begin(&packer, bytes + MESSAGE_PREFIX_BYTES, room);
	pack_map(&packer, (size_t)__builtin_popcountll(present));
	for (uint64_t left = present; left != 0; left &= left - 1) {
		const struct field *field = &fields[__builtin_ctzll(left)];

		field_write(&packer, field, (const char *)message + field->offset);
	}
	r = pack_finish(&packer, &header_bytes, reason);
	if (r != 0)
		return r;
	for (int i = 0; i < MESSAGE_PREFIX_BYTES; i++)
		bytes[i] = (uint8_t)(header_bytes >> (8 * (MESSAGE_PREFIX_BYTES - 1 - i)));
	*ret_bytes = MESSAGE_PREFIX_BYTES + header_bytes;
	return 0;
}

int request_encode(const struct request *request, uint8_t *bytes, size_t capacity, size_t *ret_bytes,
                   struct reason *reason)
{
	struct request whole = *request;

	assert(request->operation < OPERATION_COUNT && request->present >> REQUEST_FIELD_COUNT == 0);
	request_set(&whole, op, text_of(message_operations[request->operation].name));
	request_set(&whole, v, PROTOCOL_VERSION);
	return message_write(request_fields, whole.present, &whole, bytes, capacity, ret_bytes, reason);
}

int reply_encode(const struct reply *reply, uint8_t *bytes, size_t capacity, size_t *ret_bytes, struct reason *reason)
{
	struct reply whole = *reply;

	assert(reply->present >> REPLY_FIELD_COUNT == 0);
	if (!(whole.present & REPLY_HAS(status)))
		reply_set(&whole, status, STATUS_OK);
	reply_set(&whole, v, PROTOCOL_VERSION);
	return message_write(reply_fields, whole.present, &whole, bytes, capacity, ret_bytes, reason);
}

struct text text_of(const char *string)
{
	return (struct text){string, strlen(string)};
}

int message_split(const uint8_t *bytes, size_t count, const uint8_t **ret_header, size_t *ret_header_bytes,
                  const uint8_t **ret_body, size_t *ret_body_bytes, struct reason *reason)
{
	size_t header_bytes;

	if (count < MESSAGE_PREFIX_BYTES)
		return reason_set(reason, STATUS_EPROTOCOL, "a message of %zu bytes, the header size alone takes %d",
		                  count, MESSAGE_PREFIX_BYTES);
	header_bytes = message_header_bytes(bytes);
	if (header_bytes > MESSAGE_HEADER_BYTES_MAX)
		return reason_set(reason, STATUS_ELIMIT, "a message header of %zu bytes, at most %d are allowed",
		                  header_bytes, MESSAGE_HEADER_BYTES_MAX);
	if (header_bytes > count - MESSAGE_PREFIX_BYTES)
		return reason_set(reason, STATUS_EPROTOCOL, "a message header of %zu bytes in a message of %zu",
		                  header_bytes, count);
	*ret_header = bytes + MESSAGE_PREFIX_BYTES;
	*ret_header_bytes = header_bytes;
	*ret_body = bytes + MESSAGE_PREFIX_BYTES + header_bytes;
	*ret_body_bytes = count - MESSAGE_PREFIX_BYTES - header_bytes;
	return 0;
}

const char *outcome_name(enum outcome outcome)
{
	assert(outcome < OUTCOME_COUNT);
	return outcome_names[outcome];
}

bool outcome_refuses(enum outcome outcome)
{
	switch (outcome) {
	case OUTCOME_NONFINITE:
	case OUTCOME_INCOMPLETE:
	case OUTCOME_LOSS:
	case OUTCOME_JUMP:
		return true;
	case OUTCOME_ACCEPTED:
	case OUTCOME_STARTED:
	case OUTCOME_APPLIED:
	case OUTCOME_DUPLICATE:
	case OUTCOME_STALE:
	case OUTCOME_COALESCED:
	case OUTCOME_SKIPPED:
	case OUTCOME_COUNT:
		break;
	}
	return false;
}

bool outcome_parse(struct text text, enum outcome *ret_outcome)
{
	for (int i = 0; i < OUTCOME_COUNT; i++) {
		if (text_equal(text, outcome_names[i])) {
			*ret_outcome = (enum outcome)i;
			return true;
		}
	}
	return false;
}
