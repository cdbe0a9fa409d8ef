/*
 * PROTOCOL.md says what the code does: every table in it is compared, row by row and in order, with the table in the
 * code, and its worked example with what the encoders write.
 *
 * Run from the root of the source tree. With the argument --tables it prints the sections as they should stand.
 */
#include "proto/dtype.h"
#include "proto/layout.h"
#include "proto/limits.h"
#include "proto/message.h"
#include "proto/schedule.h"
#include "proto/sp.h"
#include "proto/status.h"

#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_COUNT_MAX = 64, ROW_BYTES_MAX = 400, DOCUMENT_BYTES_MAX = 256 * 1024 };

/* A section's table as the code has it: the beginnings of its rows. */
struct table {
	const char *heading; /* the whole line in the document */
	int row_count;
	char rows[ROW_COUNT_MAX][ROW_BYTES_MAX];
};

static void row_add(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void row_add(struct table *table, const char *format, ...)
{
	va_list arguments;

	if (table->row_count == ROW_COUNT_MAX)
		abort();
	va_start(arguments, format);
	if (vsnprintf(table->rows[table->row_count++], ROW_BYTES_MAX, format, arguments) >= ROW_BYTES_MAX)
		abort();
	va_end(arguments);
}

/* "`model`, `rank`", or "-". */
static const char *fields_text(uint64_t bits, char text[ROW_BYTES_MAX])
{
	static const char *const names[] = {
#define X(type, name, text) #name,
		REQUEST_FIELDS(X)
#undef X
	};
	size_t used = 0;

	strcpy(text, "-");
	for (int i = 0; i < REQUEST_FIELD_COUNT; i++) {
		if (bits & UINT64_C(1) << i)
			used += (size_t)snprintf(text + used, ROW_BYTES_MAX - used, "%s`%s`", used ? ", " : "",
			                         names[i]);
	}
	return text;
}

static void operations_table(struct table *table)
{
	table->heading = "## Operations";
	for (int i = 0; i < OPERATION_COUNT; i++) {
		const struct message_operation *operation = &message_operations[i];
		char required[ROW_BYTES_MAX], optional[ROW_BYTES_MAX];

		row_add(table, "| `%s` | %s | %s | %s | %s | %s |", operation->name,
		        fields_text(operation->required, required), fields_text(operation->optional, optional),
		        operation->needs_attach ? "yes" : "no", operation->may_wait ? "yes" : "no", operation->text);
	}
}

#define TYPE_TEXT "text"
#define TYPE_U64 "unsigned"
#define TYPE_I64 "signed"
#define TYPE_F64 "number"
#define TYPE_BOOL "boolean"
#define TYPE_LIST "array of text"

static void request_fields_table(struct table *table)
{
	table->heading = "## Request fields";
#define X(type, name, text) row_add(table, "| `%s` | %s | %s |", #name, TYPE_##type, text);
	REQUEST_FIELDS(X)
#undef X
}

static void reply_fields_table(struct table *table)
{
	table->heading = "## Reply fields";
#define X(type, name, text) row_add(table, "| `%s` | %s | %s |", #name, TYPE_##type, text);
	REPLY_FIELDS(X)
#undef X
}

static void outcomes_table(struct table *table)
{
	table->heading = "## Outcomes";
#define X(name, wire) row_add(table, "| `%s` | ", wire);
	OUTCOMES(X)
#undef X
}

static void status_table(struct table *table)
{
	table->heading = "## Status codes";
#define X(name, number, wire, text) row_add(table, "| %d | `%s` | %s |", number, wire, text);
	STATUS_CODES(X)
#undef X
}

static void dtypes_table(struct table *table)
{
	table->heading = "### Dtype numbers";
#define X(name, bytes, is_float) row_add(table, "| %d | `%s` | %d |", DTYPE_##name, #name, bytes);
	DTYPES(X)
#undef X
}

static void limits_table(struct table *table)
{
	table->heading = "## Limits";
#define LIMIT(name) row_add(table, "| `%s` | %d | ", #name, name)
	LIMIT(MODEL_NAME_BYTES_MAX);
	LIMIT(PROFILE_NAME_BYTES_MAX);
	LIMIT(TENSOR_NAME_BYTES_MAX);
	LIMIT(SCHEDULE_BYTES_MAX);
	LIMIT(ATTRIBUTES_BYTES_MAX);
	LIMIT(METADATA_BYTES_MAX);
	LIMIT(HISTORY_BYTES_MAX);
	LIMIT(PROFILE_COUNT_MAX);
	LIMIT(RULE_COUNT_MAX);
	LIMIT(PATTERN_BYTES_MAX);
	LIMIT(PROFILE_BYTES_MAX);
	LIMIT(TENSOR_COUNT_MAX);
	LIMIT(DIMENSION_COUNT_MAX);
	LIMIT(WORLD_MAX);
	LIMIT(STAGE_COUNT_MAX);
	LIMIT(SLOT_COUNT_MAX);
	LIMIT(MESSAGE_HEADER_BYTES_MAX);
	LIMIT(MESSAGE_BODY_BYTES_MAX);
	LIMIT(CHUNK_BYTES_MAX);
	LIMIT(FETCH_RANGE_COUNT_MAX);
	LIMIT(PACK_DEPTH_MAX);
	LIMIT(PACK_PAIR_COUNT_MAX);
	LIMIT(PACK_VALUE_COUNT_MAX);
	LIMIT(SP_BACKTRACE_BYTES_MAX);
	LIMIT(ANSWER_COUNT);
	LIMIT(GAP_CALL_COUNT_MAX);
#undef LIMIT
}

/*
 * The members of a struct, by hand, and that none is missing: each must begin where the one before ends, and the last
 * must end where the struct does.
 */
struct cursor {
	struct table *table;
	size_t end;
	bool is_whole;
};

static void member_add(struct cursor *cursor, const char *name, size_t offset, size_t bytes)
{
	cursor->is_whole = cursor->is_whole && offset == cursor->end;
	cursor->end = offset + bytes;
	row_add(cursor->table, "| %zu | %zu | `%s` | ", offset, bytes, name);
}

#define MEMBER(name) member_add(&cursor, #name, offsetof(struct STRUCT, name), sizeof(((struct STRUCT *)0)->name))

static bool cursor_finish(const struct cursor *cursor, size_t struct_bytes)
{
	if (!cursor->is_whole || cursor->end != struct_bytes)
		fprintf(stderr, "%s: the test does not list all members\n", cursor->table->heading);
	return cursor->is_whole && cursor->end == struct_bytes;
}

static bool segment_header_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct segment_header";
#define STRUCT segment_header
	MEMBER(magic);
	MEMBER(layout_version);
	MEMBER(kind);
	MEMBER(segment_bytes);
	MEMBER(segment);
	MEMBER(model);
	MEMBER(geometry);
	MEMBER(index);
	MEMBER(checksum);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static bool slot_profile_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct slot_profile";
#define STRUCT slot_profile
	MEMBER(region_offset);
	MEMBER(region_bytes);
	MEMBER(updates);
	MEMBER(calls);
	MEMBER(decay_rest);
	MEMBER(decay);
	MEMBER(action);
	MEMBER(reserved);
	MEMBER(nonfinite);
	MEMBER(drift);
	MEMBER(value_norm);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static bool slot_header_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct slot_header";
#define STRUCT slot_header
	MEMBER(segment);
	MEMBER(fence);
	MEMBER(version);
	MEMBER(step);
	MEMBER(updates);
	MEMBER(calls);
	MEMBER(published_us);
	MEMBER(profile_count);
	MEMBER(reserved);
	MEMBER(notes_offset);
	MEMBER(description_offset);
	MEMBER(description_bytes);
	MEMBER(description_checksum);
	MEMBER(profiles);
	MEMBER(checksum);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static bool slot_notes_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct slot_notes";
#define STRUCT slot_notes
	MEMBER(checksum);
	MEMBER(metadata_bytes);
	MEMBER(metadata);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static bool stage_header_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct stage_header";
#define STRUCT stage_header
	MEMBER(segment);
	MEMBER(stage_count);
	MEMBER(reserved);
	MEMBER(stage_stride);
	MEMBER(stage_bytes);
	MEMBER(state);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static bool answer_record_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct answer_record";
#define STRUCT answer_record
	MEMBER(seal);
	MEMBER(sequence);
	MEMBER(step);
	MEMBER(version);
	MEMBER(calls);
	MEMBER(stage);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static bool stage_record_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct stage_record";
#define STRUCT stage_record
	MEMBER(seal);
	MEMBER(step);
	MEMBER(sequence);
	MEMBER(version);
	MEMBER(updates);
	MEMBER(seeds);
	MEMBER(metadata_bytes);
	MEMBER(metadata_checksum);
	MEMBER(profile);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static bool rank_record_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct rank_record";
#define STRUCT rank_record
	MEMBER(seal);
	MEMBER(client);
	MEMBER(epoch);
	MEMBER(register_sequence);
	MEMBER(refused);
	MEMBER(coalesced);
	MEMBER(stage_segment);
	MEMBER(pieces_bytes);
	MEMBER(pieces_checksum);
	MEMBER(stages);
	MEMBER(answers);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static bool head_header_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct head_header";
#define STRUCT head_header
	MEMBER(segment);
	MEMBER(name);
	MEMBER(world);
	MEMBER(slot_count);
	MEMBER(stage_count);
	MEMBER(gone);
	MEMBER(epoch);
	MEMBER(leased);
	MEMBER(version);
	MEMBER(checksum);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static bool book_table(struct table *table)
{
	struct cursor cursor = {table, 0, true};

	table->heading = "### struct book";
#define STRUCT book
	MEMBER(number);
	MEMBER(checksum);
	MEMBER(text_bytes);
	MEMBER(ancestor);
	MEMBER(heirloom);
	MEMBER(checkpoint_version);
	MEMBER(checkpoint_step);
	MEMBER(checkpoint_lags);
	MEMBER(slots);
	return cursor_finish(&cursor, sizeof(struct STRUCT));
#undef STRUCT
}

static void (*const plain_tables[])(struct table *) = {
	operations_table, request_fields_table, reply_fields_table, outcomes_table,
	status_table,     dtypes_table,         limits_table,
};
static bool (*const layout_tables[])(struct table *) = {
	segment_header_table, slot_header_table,  slot_profile_table, stage_header_table,
	head_header_table,    rank_record_table,  stage_record_table, answer_record_table,
	slot_notes_table,     book_table,
};

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* The worked example: hello over ipc. */
struct example {
	const char *heading;
	size_t count;
	uint8_t bytes[256];
};

static const uint8_t example_id[4] = {0x80, 0, 0, 1};

static void example_message(struct example *example, const uint8_t *message, size_t message_bytes)
{
	example->count = sp_prefix(SP_WIRE_IPC, example_id, sizeof(example_id), message_bytes, example->bytes);
	memcpy(example->bytes + example->count, message, message_bytes);
	example->count += message_bytes;
}

static void example_request(struct example *example)
{
	struct request request = {.operation = OP_HELLO};
	uint8_t message[200];
	size_t count = 0;

	example->heading = "### Example: request";
	request_set(&request, agent, text_of("emactl 0.1.0"));
	if (request_encode(&request, message, sizeof(message), &count, NULL) != 0)
		abort();
	example_message(example, message, count);
}

static void example_reply(struct example *example)
{
	struct reply reply = {0};
	uint8_t message[200];
	size_t count = 0;

	example->heading = "### Example: reply";
	reply_set(&reply, agent, text_of("emad 0.1.0"));
	reply_set(&reply, instance, UINT64_C(0x0123456789abcdef));
	reply_set(&reply, pid, 4242);
	reply_set(&reply, uptime_ms, 61000);
	reply_set(&reply, header_bytes_max, MESSAGE_HEADER_BYTES_MAX);
	reply_set(&reply, body_bytes_max, MESSAGE_BODY_BYTES_MAX);
	if (reply_encode(&reply, message, sizeof(message), &count, NULL) != 0)
		abort();
	example_message(example, message, count);
}

/* 16 bytes a line. */
static void example_text(const struct example *example, char *text)
{
	for (size_t i = 0; i < example->count; i++)
		text += sprintf(text, "%02x%c", example->bytes[i],
		                i % 16 == 15 || i + 1 == example->count ? '\n' : ' ');
}

static char *document_read(void)
{
	char *text = calloc(1, DOCUMENT_BYTES_MAX);
	FILE *file = fopen("proto/PROTOCOL.md", "r");

	if (!text || !file || fread(text, 1, DOCUMENT_BYTES_MAX - 1, file) == 0)
		ck_abort_msg("proto/PROTOCOL.md: %s (run from the root of the source tree)", strerror(errno));
	fclose(file);
	return text;
}

/* What stands behind a heading; the heading must stand there once. */
static const char *section_find(const char *document, const char *heading)
{
	char line[200];
	const char *found;

	snprintf(line, sizeof(line), "\n%s\n", heading);
	found = strstr(document, line);
	ck_assert_msg(found != NULL, "PROTOCOL.md has no section '%s'", heading);
	ck_assert_msg(strstr(found + 1, line) == NULL, "PROTOCOL.md has the section '%s' twice", heading);
	return found + strlen(line);
}

static void table_compare(const struct table *table, const char *document)
{
	const char *line = section_find(document, table->heading);
	int row = -2; /* the table's head and the line under it */

	while (*line && *line != '#') {
		const char *end = strchr(line, '\n');

		if (*line == '|' && row++ >= 0) {
			ck_assert_msg(row <= table->row_count, "%s: a row too many: %.*s", table->heading,
			              (int)(end - line), line);
			ck_assert_msg(strncmp(line, table->rows[row - 1], strlen(table->rows[row - 1])) == 0,
			              "%s: the row\n%.*s\nshould begin\n%s", table->heading, (int)(end - line), line,
			              table->rows[row - 1]);
		}
		line = end ? end + 1 : "";
	}
	ck_assert_msg(row == table->row_count, "%s: %d rows, the code has %d; the next is\n%s", table->heading, row,
	              table->row_count, row < table->row_count && row >= 0 ? table->rows[row] : "");
}

START_TEST(every_message_table_is_the_code_s_own)
{
	static struct table table;
	char *document = document_read();

	plain_tables[_i](&table);
	table_compare(&table, document);
	free(document);
}
END_TEST

START_TEST(every_member_of_the_shared_memory_has_its_offset)
{
	static struct table table;
	char *document = document_read();

	ck_assert(layout_tables[_i](&table));
	table_compare(&table, document);
	free(document);
}
END_TEST

START_TEST(the_worked_example_is_what_the_encoders_write)
{
	struct example example;
	char *document = document_read(), expected[1024];
	const char *section;

	if (_i == 0)
		example_request(&example);
	else
		example_reply(&example);
	example_text(&example, expected);
	section = section_find(document, example.heading);
	section = strstr(section, "```\n");
	ck_assert_ptr_nonnull(section);
	ck_assert_msg(strncmp(section + 4, expected, strlen(expected)) == 0, "%s should be\n%s", example.heading,
	              expected);
	free(document);
}
END_TEST

START_TEST(versions_and_magic_are_named)
{
	char *document = document_read(), line[100];

	snprintf(line, sizeof(line), "protocol version %d", PROTOCOL_VERSION);
	ck_assert_msg(strstr(document, line) != NULL, "PROTOCOL.md does not say '%s'", line);
	snprintf(line, sizeof(line), "layout version %d", LAYOUT_VERSION);
	ck_assert_msg(strstr(document, line) != NULL, "PROTOCOL.md does not say '%s'", line);
	snprintf(line, sizeof(line), "0x%016llx", (unsigned long long)SEGMENT_MAGIC);
	ck_assert_msg(strstr(document, line) != NULL, "PROTOCOL.md does not say '%s'", line);
	free(document);
}
END_TEST

static int tables_print(void)
{
	static struct table table;
	struct example example;
	char text[1024];

	for (int i = 0; i < COUNT(plain_tables) + COUNT(layout_tables); i++) {
		memset(&table, 0, sizeof(table));
		if (i < COUNT(plain_tables))
			plain_tables[i](&table);
		else if (!layout_tables[i - COUNT(plain_tables)](&table))
			return EXIT_FAILURE;
		printf("%s\n", table.heading);
		for (int row = 0; row < table.row_count; row++)
			printf("%s\n", table.rows[row]);
		printf("\n");
	}
	for (int i = 0; i < 2; i++) {
		if (i == 0)
			example_request(&example);
		else
			example_reply(&example);
		example_text(&example, text);
		printf("%s\n```\n%s```\n\n", example.heading, text);
	}
	return EXIT_SUCCESS;
}

int main(int argument_count, char **arguments)
{
	Suite *suite = suite_create("protocol_doc");
	TCase *tcase = tcase_create("protocol_doc");
	SRunner *runner;
	int failed;

	if (argument_count > 1 && strcmp(arguments[1], "--tables") == 0)
		return tables_print();
	tcase_add_loop_test(tcase, every_message_table_is_the_code_s_own, 0, COUNT(plain_tables));
	tcase_add_loop_test(tcase, every_member_of_the_shared_memory_has_its_offset, 0, COUNT(layout_tables));
	tcase_add_loop_test(tcase, the_worked_example_is_what_the_encoders_write, 0, 2);
	tcase_add_test(tcase, versions_and_magic_are_named);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
