/*
 * doctor: is everything as emad needs it? Asks the daemon and looks at the host; see doctor.h.
 */
#include "client/emactl/doctor.h"

#include "client/emactl/ask.h"
#include "client/link.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const VERDICTS[] = {[DOCTOR_OK] = "ok", [DOCTOR_WARN] = "warn", [DOCTOR_FAIL] = "fail"};
static const char SOCKET_DEFAULT[] = "ipc:///run/emad/emad.sock";

/* The files behind an ipc url, found as the library finds them. */
static void paths_find(const struct emactl *emactl, struct doctor_facts *facts)
{
	const char *url = emactl->url && *emactl->url ? emactl->url : secure_getenv("EMAD_SOCKET"), *slash;

	if (!url || !*url)
		url = SOCKET_DEFAULT;
	if (strncmp(url, "ipc://", 6) == 0)
		url += 6;
	else if (strstr(url, "://"))
		return;
	slash = strrchr(url, '/');
	snprintf(facts->socket_path, sizeof(facts->socket_path), "%s", url);
	snprintf(facts->attach_path, sizeof(facts->attach_path), "%.*sattach.sock", slash ? (int)(slash + 1 - url) : 0,
	         url);
}

static uint64_t number_of(const json_t *answer, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(answer, key));
}

static int daemon_ask(const struct emactl *emactl, struct doctor_facts *facts)
{
	struct emad_client *client;
	struct emad_daemon daemon;
	json_error_t complaint;
	const char *state_dir;
	json_t *answer = NULL;
	char *json = NULL;
	int code = emad_client_open(emactl->url, emactl->connect_ms, &client);

	if (code)
		return code;
	code = emad_hello(client, emactl->timeout_ms, &daemon);
	if (!code)
		code = emad_status_json(client, emactl->timeout_ms, &json);
	emad_client_close(client);
	if (code)
		return code;
	memcpy(facts->agent, daemon.agent, sizeof(facts->agent));
	facts->pid = daemon.pid;
	facts->round_trip_us = daemon.round_trip_us;
	answer = facts_parse(json, &complaint);
	emad_free(json);
	facts->memory_bytes = number_of(answer, "memory_bytes");
	facts->memory_bytes_max = number_of(answer, "memory_bytes_max");
	state_dir = json_string_value(json_object_get(answer, "state_dir"));
	snprintf(facts->state_dir, sizeof(facts->state_dir), "%s", state_dir ? state_dir : "");
	json_decref(answer);
	return 0;
}

static void print_json(const struct doctor_findings *findings, const size_t counts[3])
{
	printf("{\"healthy\":%s,\"ok\":%zu,\"warn\":%zu,\"fail\":%zu,\"checks\":[",
	       counts[DOCTOR_FAIL] ? "false" : "true", counts[DOCTOR_OK], counts[DOCTOR_WARN], counts[DOCTOR_FAIL]);
	for (size_t i = 0; i < findings->count; i++) {
		const struct doctor_finding *finding = &findings->all[i];

		printf("%s{\"name\":\"%s\",\"verdict\":\"%s\",\"text\":", i ? "," : "", finding->name,
		       VERDICTS[finding->verdict]);
		output_json_string(finding->text);
		printf(",\"fix\":");
		if (finding->fix[0])
			output_json_string(finding->fix);
		else
			printf("null");
		putchar('}');
	}
	printf("]}\n");
}

static void print_text(const struct emactl *emactl, const struct doctor_findings *findings)
{
	static const enum table_style styles[] = {
		[DOCTOR_OK] = TABLE_GOOD, [DOCTOR_WARN] = TABLE_WARN, [DOCTOR_FAIL] = TABLE_BAD};

	for (size_t i = 0; i < findings->count; i++) {
		const struct doctor_finding *finding = &findings->all[i];

		if (emactl->is_quiet && finding->verdict == DOCTOR_OK)
			continue;
		printf("%s%-4s%s  %-15s  ", emactl->is_colour ? table_style_begin(styles[finding->verdict]) : "",
		       VERDICTS[finding->verdict], emactl->is_colour ? table_style_end() : "", finding->name);
		table_write_safe(stdout, finding->text);
		putchar('\n');
		if (!finding->fix[0])
			continue;
		printf("%23s-> ", "");
		table_write_safe(stdout, finding->fix);
		putchar('\n');
	}
}

static int doctor_run(struct emactl *emactl)
{
	struct doctor_findings findings;
	struct doctor_facts facts = {.pid = 0};
	size_t counts[3] = {0};

	snprintf(facts.library, sizeof(facts.library), "%s", emad_version());
	snprintf(facts.nng, sizeof(facts.nng), "%s", link_nng_version());
	paths_find(emactl, &facts);
	facts.connect_code = daemon_ask(emactl, &facts);
	if (facts.connect_code)
		snprintf(facts.connect_sentence, sizeof(facts.connect_sentence), "%s", emad_error());
	doctor_host_look(&facts);
	doctor_network_look(&facts);
	if (facts.socket_path[0])
		doctor_sockets_look(&facts);
	doctor_judge(&facts, &findings);
	for (size_t i = 0; i < findings.count; i++)
		counts[findings.all[i].verdict]++;
	if (emactl->is_json)
		print_json(&findings, counts);
	else
		print_text(emactl, &findings);
	return counts[DOCTOR_FAIL] ? 1 : 0;
}

const struct command COMMAND_DOCTOR = {
	.name = "doctor",
	.arguments = "",
	.summary = "check that the host and the daemon are as they should be",
	.text = "Looks at everything that emad depends on, and says of each whether it is good (ok), may become a\n"
		"trouble (warn) or is one (fail), with the command that mends it:\n"
		"  daemon           it answers\n"
		"  version          it is that of this tool and its library\n"
		"  socket           this user may connect to it,\n"
		"  attach socket    and to the one beside it, which hands out the shared memory\n"
		"  memory           what it may use (memory-max) is there\n"
		"  control group    no limit kills it before it refuses\n"
		"  open files       each connection and each model takes some\n"
		"  state directory  there is room in it, and it is the daemon's\n"
		"  settings         they are right\n"
		"  HTTP, network    each address of [http] and [network] is there, loopback or not, encrypted or not;\n"
		"                   while the daemon is away: no other program has taken the port\n"
		"  HTTP token,      the files that these settings name are there, and are not for everybody to read\n"
		"  tokens, TLS key\n"
		"  certificate      it is good for another 30 days\n"
		"  locked memory    how much this user may lock, which page-locked GPU copies may need\n"
		"  huge pages       shared memory can have them; updates are slower without\n"
		"  kernel           memory can be sealed against readers and trainers\n"
		"  clock            it is right and synchronised\n"
		"  NNG              its version is one that was tried\n"
		"What cannot be seen from here (a daemon on another host or in a container) is left out. As root it\n"
		"sees most. With --quiet only what is not good is shown.\n"
		"\nJSON: one object: healthy, the numbers ok, warn and fail, and checks, an array of objects with\n"
		"name, verdict (ok, warn, fail), text and fix (null when there is nothing to mend).\n",
	.examples = "  emactl doctor\n"
		    "  sudo emactl doctor --quiet\n"
		    "  emactl doctor --json | jq -r '.checks[] | select(.verdict != \"ok\") | .fix'\n",
	.exits = "  0   nothing fails; there may be warnings\n"
		 "  1   something fails\n"
		 "  64  the command line is wrong\n",
	.run = doctor_run,
};
