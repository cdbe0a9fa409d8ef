/*
 * The dtypes that averages can be asked for, with the names of safetensors and those of PyTorch and NumPy.
 */
#include "client/served.h"

#include "client/error.h"
#include "proto/nearest.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { NAME_BYTES_MAX = 32 };

/* In lower case; the first of each dtype is that of safetensors. */
static const struct {
	const char *name;
	enum emad_served_dtype served;
} NAMES[] = {
	{"f64", EMAD_AS_F64},         {"float64", EMAD_AS_F64},           {"double", EMAD_AS_F64},
	{"f32", EMAD_AS_F32},         {"float32", EMAD_AS_F32},           {"float", EMAD_AS_F32},
	{"f16", EMAD_AS_F16},         {"float16", EMAD_AS_F16},           {"half", EMAD_AS_F16},
	{"bf16", EMAD_AS_BF16},       {"bfloat16", EMAD_AS_BF16},
	{"f8_e4m3", EMAD_AS_F8_E4M3}, {"float8_e4m3fn", EMAD_AS_F8_E4M3},
	{"f8_e5m2", EMAD_AS_F8_E5M2}, {"float8_e5m2", EMAD_AS_F8_E5M2},
};

enum { NAME_COUNT = sizeof(NAMES) / sizeof(NAMES[0]) };

#define SAME(name) _Static_assert((int)EMAD_AS_##name == (int)DTYPE_##name + 1, "1 more than the number of " #name)
SAME(F64);
SAME(F32);
SAME(F16);
SAME(BF16);
SAME(F8_E4M3);
SAME(F8_E5M2);

int served_check(enum emad_served_dtype served, struct reason *reason)
{
	if ((unsigned)served <= EMAD_AS_F8_E5M2)
		return 0;
	return reason_set(reason, STATUS_EARGUMENT,
	                  "dtype is %u: it counts from EMAD_DTYPE_KEPT (0) to EMAD_AS_F8_E5M2 (%d)",
	                  (unsigned)served, EMAD_AS_F8_E5M2);
}

enum dtype served_dtype(enum emad_served_dtype served, enum dtype kept)
{
	return served == EMAD_DTYPE_KEPT || !dtype_is_float(kept) ? kept : (enum dtype)(served - 1);
}

/* What snapshots lose on their way is lost for good: no dtype of 8 bits. F64 would be none shorter than any. */
static bool is_for_wire(enum emad_served_dtype served)
{
	return served == EMAD_AS_F32 || served == EMAD_AS_F16 || served == EMAD_AS_BF16;
}

static int name_unknown(const char *given, const char *word, bool travels, struct reason *reason)
{
	const char *names[NAME_COUNT + 1] = {NULL};
	char list[256];
	size_t used = 0;
	unsigned count = 0;

	for (unsigned i = 0; i < NAME_COUNT; i++) {
		if (travels && !is_for_wire(NAMES[i].served))
			continue;
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", count ? ", " : "", NAMES[i].name);
		names[count++] = NAMES[i].name;
	}
	return reason_set(reason, STATUS_EARGUMENT, "%s '%.*s'; the nearest is '%s', all are %s",
	                  travels ? "snapshots do not travel as" : "averages are not served as", NAME_BYTES_MAX, given,
	                  nearest_name(word, names), list);
}

static int name_parse(const char *name, bool travels, enum emad_served_dtype *ret_dtype, struct reason *reason)
{
	char word[NAME_BYTES_MAX + 1];
	size_t bytes = 0;

	for (; bytes < NAME_BYTES_MAX && name[bytes]; bytes++)
		word[bytes] = (char)tolower((unsigned char)name[bytes]);
	word[bytes] = '\0';
	for (unsigned i = 0; i < NAME_COUNT; i++) {
		if (strcmp(word, NAMES[i].name) == 0 && !name[bytes] && (!travels || is_for_wire(NAMES[i].served))) {
			*ret_dtype = NAMES[i].served;
			return 0;
		}
	}
	return name_unknown(name, word, travels, reason);
}

int served_parse(const char *name, enum emad_served_dtype *ret_dtype, struct reason *reason)
{
	return name_parse(name, false, ret_dtype, reason);
}

int served_parse_wire(const char *name, enum dtype *ret_dtype, struct reason *reason)
{
	enum emad_served_dtype served;
	int code = name_parse(name, true, &served, reason);

	if (code == 0)
		*ret_dtype = (enum dtype)(served - 1);
	return code;
}

int emad_dtype_parse(const char *name, enum emad_served_dtype *ret_dtype)
{
	struct reason reason = {.text = ""};
	int code = 0;

	if (!name || !ret_dtype)
		code = reason_set(&reason, STATUS_EARGUMENT, "%s is NULL", name ? "ret_dtype" : "name");
	if (code == 0)
		code = served_parse(name, ret_dtype, &reason);
	return error_report(code, &reason);
}
