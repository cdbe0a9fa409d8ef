/*
 * From facts to findings about [http] and [network]: pure. See doctor.h.
 */
#include "client/emactl/doctor.h"

#include "client/emactl/figure.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char SETTINGS[] = "/etc/emad/emad.conf";

enum { OTHERS_MAY_READ = 04 };

static const int64_t END_SOON_S = 30 * 86400;

/* What the daemon itself refuses at its next start, but here before that. */
static void judge_secret(const struct doctor_file *file, const char *name, const char *key, const char *remedy,
                         const char *user, struct doctor_findings *findings)
{
	struct doctor_finding *finding;

	if (!file->path[0])
		return;
	if (file->path[0] != '/') {
		doctor_find(findings, name, DOCTOR_OK, "%s=%s is a credential of the service manager", key, file->path);
	} else if (file->error == EACCES) {
		finding = doctor_find(findings, name, DOCTOR_WARN, "%s=%s cannot be seen by %s", key, file->path, user);
		doctor_fix(finding, "sudo emactl doctor");
	} else if (file->error) {
		finding = doctor_find(findings, name, DOCTOR_FAIL, "%s=%s: %s", key, file->path, strerrordesc_np(file->error));
		doctor_fix(finding, remedy, file->path);
	} else if (file->mode & OTHERS_MAY_READ) {
		finding = doctor_find(findings, name, DOCTOR_FAIL,
		                      "everybody on this host may read %s (mode %04" PRIo32 "; %s=)", file->path, file->mode, key);
		doctor_fix(finding, "sudo chmod o= %s", file->path);
	} else {
		doctor_find(findings, name, DOCTOR_OK, "%s (mode %04" PRIo32 ")", file->path, file->mode);
	}
}

/* Whether it is there; says so where it is not. */
static bool is_there(const struct doctor_facts *facts, const struct doctor_place *place, const char *name,
                     struct doctor_findings *findings)
{
	struct doctor_finding *finding;

	if (place->error <= 0)
		return true;
	if (facts->connect_code == 0) {
		finding = doctor_find(findings, name, DOCTOR_FAIL, "the daemon does not answer at %s: %s", place->name,
		                      strerrordesc_np(place->error));
		doctor_fix(finding, "sudo systemctl restart emad   # addresses change at a start only");
	} else if (place->error == EADDRINUSE) {
		finding = doctor_find(findings, name, DOCTOR_FAIL,
		                      "port %s of %s is taken by another program, so the daemon cannot start", place->port,
		                      place->name);
		doctor_fix(finding, "sudo ss -ltnp 'sport = :%s'   # end that program, or change %s= in %s", place->port,
		           place->is_http ? "http-listen" : "listen", SETTINGS);
	} else {
		finding = doctor_find(findings, name, DOCTOR_FAIL, "nobody can listen at %s: %s", place->name,
		                      strerrordesc_np(place->error));
		doctor_fix(finding, "ip address   # then change %s= in %s to one of these", place->is_http ? "http-listen"
		           : "listen", SETTINGS);
	}
	return false;
}

static void judge_place(const struct doctor_facts *facts, const struct doctor_place *place,
                        struct doctor_findings *findings)
{
	const char *name = place->is_http ? "HTTP" : "network";
	struct doctor_finding *finding;

	if (!is_there(facts, place, name, findings))
		return;
	if (place->is_loopback) {
		doctor_find(findings, name, DOCTOR_OK, "%s, for processes of this host%s", place->name,
		            place->is_http && facts->http_token.path[0] ? " that bear the token" : "");
	} else if (place->is_http && !facts->http_token.path[0]) {
		finding = doctor_find(findings, name, DOCTOR_WARN,
		                      "%s is not a loopback address, and there is no token: whoever reaches it may read every "
		                      "average", place->name);
		doctor_fix(finding, "openssl rand -hex 32 | sudo install -m 640 -g emad /dev/stdin /etc/emad/http.token   "
		           "# then http-token-file=/etc/emad/http.token under [http] in %s, and restart", SETTINGS);
	} else if (place->is_http) {
		finding = doctor_find(findings, name, DOCTOR_WARN,
		                      "%s is not a loopback address: the token and the averages can be read on the way to it",
		                      place->name);
		doctor_fix(finding, "set http-listen=127.0.0.1:%s under [http] in %s, with a proxy for https before it, "
		           "then: sudo systemctl restart emad", place->port, SETTINGS);
	} else if (!place->is_tls) {
		finding = doctor_find(findings, name, DOCTOR_WARN, "%s is not encrypted: tokens and weights can be read on the way",
		                      place->name);
		doctor_fix(finding, "set listen=tls+tcp:... with tls-certificate= and tls-key= under [network] in %s, then: "
		           "sudo systemctl restart emad", SETTINGS);
	} else {
		doctor_find(findings, name, DOCTOR_OK, "%s, encrypted, for other hosts", place->name);
	}
}

static void renew(struct doctor_finding *finding, const char *path)
{
	doctor_fix(finding, "openssl x509 -req -in daemon.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out %s "
	           "&& sudo systemctl reload emad", path);
}

static void judge_certificate(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	const char *path = facts->certificate.path;
	const int64_t left_s = facts->certificate_end_s - facts->wall_s;
	struct doctor_finding *finding;

	if (path[0] != '/')
		return;
	if (facts->certificate.error && facts->certificate.error != EACCES) {
		finding = doctor_find(findings, "certificate", DOCTOR_FAIL, "tls-certificate=%s: %s", path,
		                      strerrordesc_np(facts->certificate.error));
		renew(finding, path);
	} else if (facts->certificate_end_s == 0) {
		finding = doctor_find(findings, "certificate", DOCTOR_WARN, "when %s ends cannot be seen by %s", path, facts->user);
		doctor_fix(finding, "sudo openssl x509 -noout -enddate -in %s", path);
	} else if (left_s <= 0) {
		finding = doctor_find(findings, "certificate", DOCTOR_FAIL,
		                      "%s ended %s ago: clients cannot connect with TLS", path,
		                      figure_duration_us((uint64_t)-left_s * 1000000).text);
		renew(finding, path);
	} else if (left_s < END_SOON_S) {
		finding = doctor_find(findings, "certificate", DOCTOR_WARN, "%s ends in %s", path,
		                      figure_duration_us((uint64_t)left_s * 1000000).text);
		renew(finding, path);
	} else {
		doctor_find(findings, "certificate", DOCTOR_OK, "%s is good for another %" PRId64 " days", path, left_s / 86400);
	}
}

void doctor_judge_network(const struct doctor_facts *facts, struct doctor_findings *findings)
{
	struct doctor_finding *finding;

	if (facts->are_settings_wrong) {
		finding = doctor_find(findings, "settings", DOCTOR_FAIL, "the daemon would not start, or not reload, with the "
		                      "settings that are there now");
		doctor_fix(finding, "emad --check-config   # says what is wrong, with files and lines");
	}
	if (!facts->has_settings)
		return;
	for (size_t i = 0; i < facts->place_count; i++)
		judge_place(facts, &facts->places[i], findings);
	judge_secret(&facts->http_token, "HTTP token", "http-token-file",
	             "openssl rand -hex 32 | sudo install -m 640 -g emad /dev/stdin %s", facts->user, findings);
	judge_secret(&facts->tokens, "tokens", "token-file",
	             "echo trainer $(openssl rand -hex 32) push | sudo install -m 640 -g emad /dev/stdin %s", facts->user,
	             findings);
	judge_secret(&facts->key, "TLS key", "tls-key",
	             "sudo install -m 640 -g emad daemon.key %s   # the key of tls-certificate=", facts->user, findings);
	judge_certificate(facts, findings);
}
