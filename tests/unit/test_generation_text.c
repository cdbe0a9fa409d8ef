/*
 * What a manifest.json says comes back as it was, and nothing else is believed.
 */
#include "daemon/core/generation_text.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char SPECIFICATION[] = "ema=yolo:decay=0.999;copy=*.running_*";

static struct manifest *tensors_make(void)
{
	static const uint64_t matrix[] = { 4, 8 }, vector[] = { 3 };
	struct manifest *manifest;

	ck_assert_int_eq(manifest_create(&manifest), 0);
	ck_assert_int_eq(manifest_add_tensor(manifest, "head.weight", 11, DTYPE_F32, false, matrix, 2, NULL), 0);
	ck_assert_int_eq(manifest_add_tensor(manifest, "n\xc3\xa9 \"x\"", 7, DTYPE_BF16, true, NULL, 0, NULL), 0);
	ck_assert_int_eq(manifest_add_tensor(manifest, "bn.running_mean", 15, DTYPE_F64, true, vector, 1, NULL), 0);
	ck_assert_int_eq(manifest_finish(manifest, NULL), 0);
	return manifest;
}

/* Of the first and the last one; the second has never been seen. */
static double squares[] = { 0x1.91p+3, 0, 0x1.fffffffffffffp+900 };

static void sample_make(struct generation *generation)
{
	struct generation_profile *at = &generation->profiles[0];

	*generation = (struct generation){
		.agent = "emad test",
		.model = "run42/net",
		.world = 3,
		.epoch = 17,
		.slot_count = 3,
		.stage_count = 2,
		.version = 1187,
		.step = 1200,
		.updates = 1186,
		.calls = 2,
		.published_us = 1790000000000001,
		.has_step = true,
		.model_step = UINT64_MAX,
		.stride = 10,
		.coalesces = true,
		.managed = true,
		.owner = 1000,
		.guards = guards_default(),
		.attributes = (char *)"{\"a\":\"\\u00e9\"}",
		.metadata = (char *)"{\"loss\":0.5}",
		.manifest = tensors_make(),
		.value_squares = squares,
		.profile_count = 1,
	};
	generation->guards.loss_max = 10;
	ck_assert_int_eq(profile_parse(SPECIFICATION, strlen(SPECIFICATION), &at->profile, NULL), 0);
	at->facts = (struct slot_profile){
		.updates = 1186,
		.calls = 1190,
		.decay_rest = 1 - 0x1.fffffffffffffp-3,
		.decay = 0.1,
		.action = ACTION_LERP,
		.nonfinite = 2,
		.drift = INFINITY,
		.value_norm = NAN,
	};
	at->history = (char *)"[{\"step\":1}]";
	at->has_snapshot = true;
	at->snapshot_step = 1000;
}

/* The whole text of it. */
static char *text_make(const struct generation *generation, size_t *ret_bytes)
{
	const struct generation_file files[] = { { "ema", 4242, 0xfedcba9876543210 } };
	char *text = generation_encode(generation, ret_bytes);

	ck_assert_ptr_nonnull(text);
	*ret_bytes = generation_text_end(text, *ret_bytes, files, 1);
	return text;
}

START_TEST(everything_comes_back_bit_by_bit)
{
	struct generation sample, back;
	struct reason reason = { "" };
	char specification[PROFILE_BYTES_MAX + 1], wanted[PROFILE_BYTES_MAX + 1];
	const struct slot_profile *facts = &back.profiles[0].facts;
	size_t bytes;
	char *text;

	sample_make(&sample);
	text = text_make(&sample, &bytes);
	ck_assert_msg(generation_decode(text, bytes, &back, &reason) == 0, "%s", reason.text);
	ck_assert_str_eq(back.model, sample.model);
	ck_assert_uint_eq(back.world, 3);
	ck_assert_uint_eq(back.epoch, 17);
	ck_assert_uint_eq(back.version, 1187);
	ck_assert_uint_eq(back.step, 1200);
	ck_assert_uint_eq(back.updates, 1186);
	ck_assert_uint_eq(back.calls, 2);
	ck_assert_uint_eq(back.published_us, sample.published_us);
	ck_assert(back.has_step && back.coalesces && back.managed);
	ck_assert_int_eq(back.owner, 1000);
	ck_assert_uint_eq(back.model_step, UINT64_MAX);
	ck_assert_uint_eq(back.stride, 10);
	ck_assert_double_eq(back.guards.loss_max, 10);
	ck_assert_str_eq(back.attributes, sample.attributes);
	ck_assert_str_eq(back.metadata, sample.metadata);
	ck_assert_int_eq(manifest_compare(back.manifest, sample.manifest, NULL), 0);
	for (int t = 0; t < 3; t++)
		ck_assert(back.value_squares[t] == squares[t]);
	ck_assert_uint_eq(back.profile_count, 1);
	ck_assert_int_eq(profile_format(&back.profiles[0].profile, specification, sizeof specification), 0);
	ck_assert_int_eq(profile_format(&sample.profiles[0].profile, wanted, sizeof wanted), 0);
	ck_assert_str_eq(specification, wanted);
	ck_assert_uint_eq(facts->updates, 1186);
	ck_assert_uint_eq(facts->calls, 1190);
	ck_assert_double_eq(facts->decay_rest, sample.profiles[0].facts.decay_rest);
	ck_assert_double_eq(facts->decay, 0.1);
	ck_assert_uint_eq(facts->action, ACTION_LERP);
	ck_assert_uint_eq(facts->nonfinite, 2);
	ck_assert(isinf(facts->drift) && isnan(facts->value_norm));
	ck_assert_str_eq(back.profiles[0].history, sample.profiles[0].history);
	ck_assert(back.profiles[0].has_snapshot);
	ck_assert_uint_eq(back.profiles[0].snapshot_step, 1000);
	ck_assert_uint_eq(back.profiles[0].file_bytes, 4242);
	ck_assert_uint_eq(back.profiles[0].file_checksum, 0xfedcba9876543210);
	generation_finish(&back);
	free(text);
	/* Nobody knows who made it. */
	sample.owner = -1;
	text = text_make(&sample, &bytes);
	ck_assert_int_eq(generation_decode(text, bytes, &back, &reason), 0);
	ck_assert_int_eq(back.owner, -1);
	generation_finish(&back);
	manifest_destroy(sample.manifest);
	free(text);
}
END_TEST

START_TEST(no_beginning_of_it_is_believed)
{
	struct generation sample, back;
	struct reason reason;
	size_t bytes;
	char *text;

	sample_make(&sample);
	text = text_make(&sample, &bytes);
	for (size_t i = 0; i < bytes; i++)
		ck_assert_int_eq(generation_decode(text, i, &back, &reason), STATUS_ECORRUPT);
	manifest_destroy(sample.manifest);
	free(text);
}
END_TEST

/* Replaces a word of the text by another one and makes its checksum right again; then it is decoded. */
static int decode_changed(const char *word, const char *other)
{
	const struct generation_file files[] = { { "ema", 4242, 1 } };
	struct generation sample, back;
	struct reason reason;
	char *text, *at, *changed;
	size_t bytes;
	int error;

	sample_make(&sample);
	text = generation_encode(&sample, &bytes);
	text[bytes] = '\0';
	at = strstr(text, word);
	ck_assert_msg(at != NULL, "%s", word);
	changed = malloc(bytes + strlen(other) + GENERATION_END_BYTES_MAX + 1);
	bytes = (size_t)sprintf(changed, "%.*s%s%s", (int)(at - text), text, other, at + strlen(word));
	bytes = generation_text_end(changed, bytes, files, 1);
	error = generation_decode(changed, bytes, &back, &reason);
	if (!error)
		generation_finish(&back);
	manifest_destroy(sample.manifest);
	free(text);
	free(changed);
	return error;
}

START_TEST(what_it_says_is_checked_though_its_checksum_is_right)
{
	static const char *const changes[][2] = {
		{ "run42/net", "../net" }, { "run42/net", "" }, { "\"world\":3", "\"world\":0" },
		{ "\"world\":3", "\"world\":4294967299" }, { "\"world\":3", "\"world\":\"3\"" },
		{ "\"version\":1187", "\"version\":0" }, { "\"stride\":10", "\"stride\":0" },
		{ "\"stride\":10", "\"stride\":10,\"stride\":11" }, { "ema=yolo", "ema=yolk" },
		{ "ema=yolo", "../ema=yolo" }, { "ema=yolo", "other=yolo" },
		{ "\"F32\"", "\"F33\"" }, { "[4,8]", "[-4,8]" },
		{ "[4,8]", "[4611686018427387904,4611686018427387904]" }, { "[4,8]", "8" },
		{ "bn.running_mean", "head.weight" }, { "bn.running_mean", "__metadata__" },
		{ "\"calls\":1190", "\"calls\":1190.5" }, { "\"updates\":1186,", "" },
		{ "\"action\":1", "\"action\":9" }, { "\"owner\":1000", "\"owner\":-1" },
		{ "\"owner\":1000", "\"owner\":4294967296" }, { "\"owner\":1000", "\"owner\":\"alice\"" },
		{ "\"profiles\":[", "\"profiles\":[{}," }, { "\"tensors\":[", "\"tensors\":{}, \"x\":[" },
		{ "\"has_step\":true", "\"has_step\":1" }, { "inf", "fin" }, { "\"[{", "\"{[{" },
		{ "\"0x1.91p+3\"", "12.5" }, { "\"0x1.91p+3\"", "\"-0x1.91p+3\"" }, { "\"0x1.91p+3\"", "\"nan\"" },
		{ "\"0x1.91p+3\"", "\"0x1.91p+3x\"" }, { "\"0x1.91p+3\"", "\"\"" }, { "\"0x1.91p+3\"", "null" },
	};

	for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
		int error = decode_changed(changes[i][0], changes[i][1]);

		ck_assert_msg(error == STATUS_ECORRUPT, "%s -> %s: %d", changes[i][0], changes[i][1], error);
	}
	ck_assert_int_eq(decode_changed("\"format\":1", "\"format\":2"), STATUS_EVERSION);
	/* As an earlier emad wrote it. */
	ck_assert_int_eq(decode_changed(",\"0x1.91p+3\"", ""), 0);
	ck_assert_int_eq(decode_changed("\"owner\":1000,", ""), 0);
	ck_assert_int_eq(decode_changed("\"owner\":1000", "\"owner\":null"), 0);
	ck_assert_int_eq(decode_changed("\"format\":1", "\"format\":1,\"of_a_later_emad\":[]"), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("generation_text");
	TCase *tcase = tcase_create("generation_text");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tcase, everything_comes_back_bit_by_bit);
	tcase_add_test(tcase, no_beginning_of_it_is_believed);
	tcase_add_test(tcase, what_it_says_is_checked_though_its_checksum_is_right);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
