/*
 * What `emactl doctor` looks at, and what it makes of it.
 *
 *     doctor_host_look (doctor_host.c),          doctor_judge (doctor_judge.c,
 *     doctor_network_look (doctor_network.c)  -> doctor_judge_network.c; pure)  -> findings -> command_doctor.c
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DOCTOR_PLACE_COUNT_MAX = 16, DOCTOR_FINDING_COUNT_MAX = 24 + DOCTOR_PLACE_COUNT_MAX, DOCTOR_PATH_BYTES_MAX = 256 };

/* What is not known. */
#define DOCTOR_UNKNOWN UINT64_MAX

/* An address that the daemon is to listen at. */
struct doctor_place {
	char name[128]; /* "127.0.0.1:9464", "tls+tcp://[::]:7475" */
	char port[8];
	bool is_http, is_tls, is_loopback;
	int error; /* errno of connecting to it, or of listening at it while the daemon is away; -1: not tried */
};

/* A file that a setting names. */
struct doctor_file {
	char path[DOCTOR_PATH_BYTES_MAX]; /* empty: the setting is */
	int error;                        /* errno of looking at it */
	uint32_t mode;
};

struct doctor_facts {
	/* The sockets; the paths are empty when the daemon is asked over a network. */
	char socket_path[DOCTOR_PATH_BYTES_MAX], attach_path[DOCTOR_PATH_BYTES_MAX];
	int socket_error, attach_error; /* errno of using them, 0 for none */
	uint32_t socket_mode;
	char socket_group[64], user[64];

	/* What the daemon says. */
	int connect_code;           /* of the library's int space; nothing below is known unless it is 0 */
	char connect_sentence[512]; /* why not */
	char agent[64];
	uint64_t pid, round_trip_us, memory_bytes, memory_bytes_max;
	char state_dir[DOCTOR_PATH_BYTES_MAX]; /* empty: it does not say */

	/* Its process and its state directory, as far as they can be seen from here. */
	bool is_local;                            /* a process of that pid is the daemon */
	uint64_t file_count, file_count_max;      /* open files; DOCTOR_UNKNOWN */
	uint64_t group_bytes, group_bytes_max;    /* of the narrowest control group around it; DOCTOR_UNKNOWN: none */
	uint64_t state_bytes_free;                /* DOCTOR_UNKNOWN */
	uint64_t state_uid, process_uid;          /* owners; DOCTOR_UNKNOWN */

	/* [http] and [network] of its settings, or of those that it would start with. */
	bool has_settings, are_settings_wrong;
	size_t place_count;
	struct doctor_place places[DOCTOR_PLACE_COUNT_MAX];
	struct doctor_file http_token, tokens, key, certificate;
	int64_t certificate_end_s; /* since 1970; 0: not known */

	/* The host. */
	uint64_t memory_total_bytes, memory_available_bytes; /* DOCTOR_UNKNOWN */
	uint64_t lock_bytes_max;                             /* of this user; DOCTOR_UNKNOWN: no limit */
	char huge_pages[32];                                 /* what shmem_enabled says; empty: nothing */
	int collapse_error, seal_error;                      /* errno of trying them, 0: they work */
	int64_t wall_s;                                      /* since 1970 */
	bool is_clock_synchronised;
	char kernel[65], nng[32], library[32]; /* versions */
};

enum doctor_verdict { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor_finding {
	const char *name;
	enum doctor_verdict verdict;
	char text[640]; /* what is so */
	char fix[320];  /* the command that mends it, or what to write where; empty when it is good */
};

struct doctor_findings {
	size_t count;
	struct doctor_finding all[DOCTOR_FINDING_COUNT_MAX];
};

/* Fills in what can be seen of the host, and of the daemon whose pid and state_dir are there. */
void doctor_host_look(struct doctor_facts *facts);

/* Tries the two sockets. */
void doctor_sockets_look(struct doctor_facts *facts);

/*
 * Asks the program `emad` for the settings of the daemon, which must have been looked at, and tries the addresses in
 * them.
 */
void doctor_network_look(struct doctor_facts *facts);

/* Adds a finding, and to it what mends it. */
struct doctor_finding *doctor_find(struct doctor_findings *findings, const char *name, enum doctor_verdict verdict,
                                   const char *format, ...) __attribute__((format(printf, 4, 5)));
void doctor_fix(struct doctor_finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The part about [http] and [network]. */
void doctor_judge_network(const struct doctor_facts *facts, struct doctor_findings *findings);

/* All of it. */
void doctor_judge(const struct doctor_facts *facts, struct doctor_findings *ret_findings);
