/*
 * Paths of HTTP requests: what is a model's name, and what a profile's.
 */
#include "daemon/core/web_path.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *path;
	enum web_resource resource;
	const char *model, *profile;
} good[] = {
	{ "/", WEB_PAGE, "", "" },
	{ "/metrics", WEB_METRICS, "", "" },
	{ "/healthz", WEB_HEALTH, "", "" },
	{ "/readyz", WEB_READY, "", "" },
	{ "/v1/status", WEB_STATUS, "", "" },
	{ "/v1/models", WEB_MODELS, "", "" },
	{ "/v1/models/net", WEB_MODEL, "net", "" },
	{ "/v1/models/run42/net", WEB_MODEL, "run42/net", "" },
	{ "/v1/models/run42%2Fnet", WEB_MODEL, "run42/net", "" },
	{ "/v1/models/run42%2fnet/ema.safetensors", WEB_IMAGE, "run42/net", "ema" },
	{ "/v1/models/run42/net/ema.safetensors", WEB_IMAGE, "run42/net", "ema" },
	{ "/v1/models/net/a.b.safetensors", WEB_IMAGE, "net", "a.b" },
	/* A name that ends as a file's is told apart by how its slashes are written. */
	{ "/v1/models/a%2Fb.safetensors", WEB_MODEL, "a/b.safetensors", "" },
	{ "/v1/models/a%2Fb.safetensors/ema.safetensors", WEB_IMAGE, "a/b.safetensors", "ema" },
	{ "/v1/models/a/b%2Esafetensors", WEB_MODEL, "a/b.safetensors", "" },
	{ "/v1/models/b.safetensors", WEB_MODEL, "b.safetensors", "" },
	{ "/v1/models/a/.safetensors", WEB_MODEL, "a/.safetensors", "" },
	{ "/v1/models/n%C3%A9t+%2B", WEB_MODEL, "n\xc3\xa9t++", "" },
	{ "/v1/models/a//b", WEB_MODEL, "a//b", "" },
};

START_TEST(paths_mean_what_they_say)
{
	struct web_path path;
	struct reason reason = { "" };

	ck_assert_msg(web_path_parse(good[_i].path, &path, &reason) == 0, "%s: %s", good[_i].path, reason.text);
	ck_assert_int_eq(path.resource, good[_i].resource);
	ck_assert_str_eq(path.model, good[_i].model);
	ck_assert_str_eq(path.profile, good[_i].profile);
	ck_assert_uint_eq(path.model_bytes, strlen(good[_i].model));
	ck_assert_uint_eq(path.profile_bytes, strlen(good[_i].profile));
}
END_TEST

static const struct {
	const char *path;
	int status;
	const char *part;
} bad[] = {
	{ "", -ENOENT, "there is nothing at ''" },
	{ "metrics", -ENOENT, "nothing" },
	{ "/metrics/", -ENOENT, "there are: /, /metrics" },
	{ "/v1", -ENOENT, "nothing" },
	{ "/v1/models/", -ENOENT, "/v1/models/MODEL" },
	{ "//", -ENOENT, "nothing" },
	{ "/v1/models/a%", STATUS_ENAME, "hexadecimal" },
	{ "/v1/models/a%2", STATUS_ENAME, "hexadecimal" },
	{ "/v1/models/a%zz", STATUS_ENAME, "hexadecimal" },
	{ "/v1/models/a/%.safetensors", STATUS_ENAME, "hexadecimal" },
};

START_TEST(other_paths_are_told_what_there_is)
{
	struct web_path path = { .model_bytes = 77 };
	struct reason reason = { "" };

	ck_assert_int_eq(web_path_parse(bad[_i].path, &path, &reason), bad[_i].status);
	ck_assert_msg(strstr(reason.text, bad[_i].part) != NULL, "'%s' is not in: %s", bad[_i].part, reason.text);
	ck_assert_uint_eq(path.model_bytes, 77);
}
END_TEST

START_TEST(names_are_bounded_and_may_hold_anything)
{
	char text[1000] = "/v1/models/";
	struct web_path path;
	struct reason reason = { "" };

	memset(text + strlen(text), 'a', MODEL_NAME_BYTES_MAX);
	ck_assert_int_eq(web_path_parse(text, &path, &reason), 0);
	strcat(text, "a");
	ck_assert_int_eq(web_path_parse(text, &path, &reason), STATUS_ENAME);
	ck_assert_msg(strstr(reason.text, "at most 200 bytes") != NULL, "%s", reason.text);
	strcpy(text, "/v1/models/a/");
	memset(text + strlen(text), 'b', PROFILE_NAME_BYTES_MAX + 1);
	strcat(text, ".safetensors");
	ck_assert_int_eq(web_path_parse(text, &path, &reason), STATUS_ENAME);
	ck_assert_msg(strstr(reason.text, "at most 64 bytes") != NULL, "%s", reason.text);
	for (int byte = 0; byte < 256; byte++) {
		snprintf(text, sizeof text, "/v1/models/%%%02x", (unsigned int)byte);
		ck_assert_int_eq(web_path_parse(text, &path, &reason), 0);
		ck_assert_uint_eq(path.model_bytes, 1);
		ck_assert_int_eq((unsigned char)path.model[0], byte);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("web_path");
	TCase *tcase = tcase_create("web_path");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, paths_mean_what_they_say, 0, sizeof good / sizeof good[0]);
	tcase_add_loop_test(tcase, other_paths_are_told_what_there_is, 0, sizeof bad / sizeof bad[0]);
	tcase_add_test(tcase, names_are_bounded_and_may_hold_anything);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
