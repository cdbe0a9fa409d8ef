/*
 * Orders, and the loop of recovery. See disk_generations.h.
 */
#include "tests/unit/disk_generations.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/edge/files_generation.h"
#include "proto/layout.h"
#include "tests/unit/disk_model.h"

enum { FILE_COUNT = 2, BYTES_MAX = 1300, TEXT_BYTES_MAX = 100 };

static const char *const profiles[FILE_COUNT] = { "ema", "slow" };
static const uint64_t byte_counts[FILE_COUNT] = { BYTES_MAX, 700 };

static atomic_bool abandons;
static struct reason sentence;
static bool may_found = true;

const struct files_place disk_place = {
	.state_dir = "/state",
	.calls = &disk_calls,
	.abandons = &abandons,
	.space_hint = "; make room",
};

void generation_founds(bool founds)
{
	may_found = founds;
}

const char *generation_sentence(void)
{
	return sentence.text;
}

static void image_fill(uint64_t serial, int file, uint8_t *image)
{
	uint64_t mixed = serial % DISK_FACTS * 2 + (uint64_t)file;

	for (uint64_t i = 0; i < byte_counts[file]; i++) {
		mixed = mixed * 6364136223846793005U + 1442695040888963407U;
		image[i] = (uint8_t)(mixed >> 56);
	}
}

static struct file_order *order_make(enum file_work work, const char *directory, const struct generation_name *name)
{
	struct file_order *order = calloc(1, sizeof *order);

	ck_assert_ptr_nonnull(order);
	order->work = work;
	order->wall_us = 1790000000000000;
	strcpy(order->directory, directory);
	order->generation = *name;
	order->keep_count = GENERATION_COUNT_MIN;
	order->count = FILE_COUNT;
	for (int i = 0; i < FILE_COUNT; i++) {
		strcpy(order->items[i].profile, profiles[i]);
		order->items[i].byte_count = byte_counts[i];
	}
	return order;
}

static int order_do(struct file_order *order)
{
	files_generation_do(&disk_place, order);
	ck_assert(order->status == 0 || order->reason.text[0]);
	sentence = order->reason;
	return order->status;
}

static int put(enum file_work work, const char *directory, const struct generation_name *name, uint64_t serial,
               bool starts)
{
	struct file_order *order = order_make(work, directory, name);
	uint8_t images[FILE_COUNT][BYTES_MAX];
	int status;

	order->starts = starts;
	order->founds = may_found;
	order->text = malloc(TEXT_BYTES_MAX + GENERATION_END_BYTES_MAX);
	ck_assert_ptr_nonnull(order->text);
	order->text_bytes = (size_t)snprintf(order->text, TEXT_BYTES_MAX, "{\"serial\":%lu", (unsigned long)serial);
	for (int i = 0; i < FILE_COUNT; i++) {
		image_fill(serial, i, images[i]);
		order->items[i].bytes = images[i];
		order->items[i].checksum = layout_checksum(images[i], byte_counts[i]);
	}
	status = order_do(order);
	free(order->text);
	free(order);
	return status;
}

int generation_put(const char *directory, const struct generation_name *name, uint64_t serial, bool starts)
{
	return put(FILE_CHECKPOINT, directory, name, serial, starts);
}

int generation_facts_put(const char *directory, const struct generation_name *name, uint64_t serial)
{
	return put(FILE_FACTS, directory, name, serial, false);
}

int generation_take(enum file_work work, const char *directory, const struct generation_name *name)
{
	struct file_order *order = order_make(work, directory, name);
	int status = order_do(order);

	free(order);
	return status;
}

/* The checksums that a manifest has for its files. */
static uint64_t manifest_read(const struct file_order *order, uint64_t ret_checksums[FILE_COUNT])
{
	char *text = strndup(order->text, order->text_bytes), *at = text;
	unsigned long serial, checksum;

	ck_assert_int_eq(sscanf(text, "{\"serial\":%lu,", &serial), 1);
	for (int i = 0; i < FILE_COUNT; i++) {
		at = strstr(at + 1, "\"xxh3\":");
		ck_assert_ptr_nonnull(at);
		ck_assert_int_eq(sscanf(at, "\"xxh3\":\"%lx\"", &checksum), 1);
		ret_checksums[i] = checksum;
	}
	free(text);
	return serial;
}

/* Whether the generation that was found is whole. */
static bool is_filled(struct file_order *order, struct found *found)
{
	uint8_t targets[FILE_COUNT][BYTES_MAX] = { 0 }, expected[BYTES_MAX];
	struct file_order *fill = order_make(FILE_FILL, order->directory, &order->generation);
	uint64_t checksums[FILE_COUNT], serial = manifest_read(order, checksums);
	int status;

	for (int i = 0; i < FILE_COUNT; i++) {
		fill->items[i].target = targets[i];
		fill->items[i].checksum = checksums[i];
	}
	status = order_do(fill);
	free(fill);
	if (status != 0) {
		found->status = found->status ? found->status : status;
		found->count_bad += status == STATUS_ECORRUPT;
		return false;
	}
	for (int i = 0; i < FILE_COUNT; i++) {
		image_fill(serial, i, expected);
		ck_assert_mem_eq(targets[i], expected, byte_counts[i]);
	}
	found->serial = serial;
	found->name = order->generation;
	return true;
}

struct found generation_look_for(const char *directory)
{
	static const struct generation_name none = { 0, 0 };
	struct file_order *order = order_make(FILE_FIND, "", &none);
	struct found found = { 0 };

	/* A failure of one generation is not the end, that of the whole search is. */
	while (found.serial == 0) {
		int status = order_do(order);

		if (status != 0) {
			found.status = found.status ? found.status : status;
			found.count_bad += status == STATUS_ECORRUPT;
			if (!order->directory[0])
				break;
		} else if (!order->text) {
			break;
		} else if (strcmp(order->directory, directory) != 0) {
			order->generation = none;
		} else {
			(void)is_filled(order, &found);
		}
		free(order->text);
		order->text = NULL;
	}
	free(order->text);
	free(order);
	return found;
}
