#!/usr/bin/env python3
"""
The service under a real systemd, in namespaces of its own (host.sh): how it starts, what it may, how it comes back, what
it writes into the journal, and how it ends. Exit status 77, with a reason, where such namespaces cannot be made.

The tests build on each other and run in this order.
"""
import json
import os
import re
import socket
import sys
import time

import machine

NO_PERMISSION = 77
SLOTS = 3  # the default
MESSAGE_REGISTERED = "86f8190985db44ec839addf3e5814fac"  # daemon/core/event.h


def the_user_is_made(host):
    host.run("systemd-sysusers", "emad.conf")
    host.run("systemd-tmpfiles", "--create", "emad.conf")
    assert "(emad)" in host.run("id", "emad").stdout
    assert host.run("stat", "-c", "%U:%a", "/var/lib/emad", "/etc/emad").stdout.split() == ["emad:750", "root:755"]


def the_preset_enables_the_service_alone(host):
    host.run("systemctl", "daemon-reload")
    units = ("emad.service", "emad@x.service", "emad-attach.socket", "emad-http.socket")
    host.run("systemctl", "preset", *units)
    states = host.run("systemctl", "is-enabled", *units, check=False)
    assert states.stdout.split() == ["enabled", "disabled", "disabled", "disabled"], states.stdout


def starts_and_says_what_it_is(host):
    host.run("systemctl", "start", "emad")
    assert host.property("ActiveState") == "active"
    assert host.property("StatusText") == "no models"
    assert host.property("WatchdogUSec") == "1min"
    assert host.property("FileDescriptorStoreMax") == "4096"
    assert host.ping()["pid"] == int(host.property("MainPID"))
    assert "no models" in host.status()


def runs_as_its_own_user_and_may_little(host):
    pid = host.property("MainPID")
    lines = host.run("cat", f"/proc/{pid}/status").stdout.splitlines()
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    uid = host.run("id", "-u", "emad").stdout.strip()
    assert facts["Uid"].split() == [uid] * 4, facts["Uid"]
    assert facts["NoNewPrivs"] == "1" and facts["Seccomp"] == "2"
    assert int(facts["CapEff"], 16) == 0 and int(facts["CapBnd"], 16) == 0
    sockets = host.run("stat", "-c", "%U:%G:%a", "/run/emad/emad.sock", "/run/emad/attach.sock").stdout.split()
    assert sockets == ["emad:emad:660"] * 2, sockets


def members_of_the_group_may_connect_and_others_not(host):
    host.run("useradd", "--no-create-home", "--groups", "emad", "trainer")
    host.run("useradd", "--no-create-home", "stranger")
    host.run("setpriv", "--reuid=trainer", "--regid=trainer", "--init-groups", "emactl", "ping")
    refused = host.run("setpriv", "--reuid=stranger", "--regid=stranger", "--init-groups", "emactl", "ping", check=False)
    assert refused.returncode == NO_PERMISSION, (refused.returncode, refused.stderr)


def the_doctor_sees_what_is_wrong(host):
    report = json.loads(host.run("emactl", "--json", "doctor").stdout)
    assert report["healthy"] and len(report["checks"]) == 13, report
    texts = {check["name"]: check["text"] for check in report["checks"]}
    assert texts["open files"].startswith("the daemon has ") and texts["state directory"].endswith("/var/lib/emad"), texts
    done = host.run(
        "setpriv", "--reuid=stranger", "--regid=stranger", "--init-groups", "emactl", "--quiet", "doctor", check=False,
    )
    assert done.returncode == 1 and "-> sudo usermod -aG emad stranger" in done.stdout, done.stdout + done.stderr


def train(host, model, steps):
    """A trainer of the integration tests pushes a few steps."""
    host.run(f"{host.folder}/test_stop", "--role", "trainer", "/tmp/progress", "0", "ipc:///run/emad/emad.sock", model,
             "1000", "0", "1", "1", str(steps), "1")


def the_journal_tells_of_models(host):
    if host.run("systemctl", "is-active", "systemd-journald", check=False).returncode != 0:
        return "no journal in these namespaces"
    host.run("touch", "/tmp/progress")
    train(host, "run/a", 5)
    host.run("journalctl", "--sync")
    lines = host.run("journalctl", "-o", "json", "-u", "emad", f"MESSAGE_ID={MESSAGE_REGISTERED}").stdout.splitlines()
    assert len(lines) == 1, lines
    entry = json.loads(lines[0])
    assert entry["EMAD_MODEL"] == "run/a" and int(entry["EMAD_CLIENT_PID"]) > 0 and entry["PRIORITY"] == "5", entry
    assert entry["MESSAGE"].startswith("run/a: rank 0 of 1 registered"), entry
    assert "EMAD_STEP" not in entry
    train(host, "run/a", 9)
    host.run("journalctl", "--sync")
    lines = host.run("journalctl", "-o", "json", "-u", "emad", "EMAD_MODEL=run/a").stdout.splitlines()
    registered, behind = (json.loads(line) for line in lines[-2:])
    assert registered["EMAD_STEP"] == "5", registered
    assert behind["EMAD_STEP"] == "1" and behind["PRIORITY"] == "4" and "behind step 5" in behind["MESSAGE"], behind
    host.run("journalctl", "--update-catalog")
    explained = host.run("journalctl", "-x", "-u", "emad", f"MESSAGE_ID={MESSAGE_REGISTERED}").stdout
    assert "A trainer has registered run/a" in explained, explained
    return None


def comes_back_when_it_is_killed(host):
    before, pid = host.restarts(), host.property("MainPID")
    for number in ("KILL", "SEGV", "ABRT"):
        host.run("systemctl", "kill", f"--signal={number}", "emad")
        host.wait("a restart", lambda: host.restarts() > before and host.property("ActiveState") == "active")
        before = host.restarts()
        assert host.property("MainPID") != pid
        pid = host.property("MainPID")
        assert host.ping()["pid"] == int(pid)


def stored(host):
    """Segments that the service manager keeps."""
    return int(host.property("NFileDescriptorStore"))


def of_models(host):
    """As many as the models that are there have without trainers."""
    return (1 + SLOTS) * len(host.run("emactl", "--json", "list").stdout.splitlines())


def segments_are_stored_while_their_model_is_there(host):
    before = stored(host)
    assert before == of_models(host)
    host.run("touch", "/tmp/progress")
    train(host, "run/stored", 5)
    host.wait("storing", lambda: stored(host) == before + 1 + SLOTS)
    train(host, "run/stored-too", 5)
    host.wait("storing", lambda: stored(host) == before + 2 * (1 + SLOTS))
    host.run("emactl", "remove", "run/stored-too")
    host.wait("removing", lambda: stored(host) == before + 1 + SLOTS)
    names = host.run("bash", "-c", "ls -l /proc/1/fd | grep -c 'memfd:emad:run/stored '").stdout.strip()
    assert names == str(1 + SLOTS), names


def what_was_handed_back(host):
    """What the last start found, as the journal tells it."""
    host.run("journalctl", "--sync")
    lines = host.run("journalctl", "-o", "cat", "-u", "emad", "--grep", "segments of an earlier daemon").stdout.splitlines()
    return lines[-1]


def segments_are_handed_back_after_a_restart(host):
    has_journal = host.run("systemctl", "is-active", "systemd-journald", check=False).returncode == 0
    for restart in ("kill", "restart"):
        train(host, "run/stored", 9 if restart == "kill" else 12)
        host.wait("storing", lambda: stored(host) == of_models(host))
        count, before, pid = stored(host), host.restarts(), host.property("MainPID")
        assert count >= 1 + SLOTS
        if restart == "kill":
            host.run("systemctl", "kill", "--signal=KILL", "emad")
            host.wait("a restart", lambda: host.restarts() > before and host.property("ActiveState") == "active")
        else:
            host.run("systemctl", "restart", "emad")
        assert host.property("MainPID") != pid
        if has_journal:
            told = what_was_handed_back(host)
            assert told.startswith(f"{count} segments of an earlier daemon, "), (count, told)
            assert told.endswith(f": {count} kept by the service manager, 0 files"), told
        # What no model has is not kept any longer.
        host.wait("settling", lambda: stored(host) == of_models(host))
    host.run("emactl", "remove", "run/stored", check=False)
    host.wait("removing", lambda: stored(host) == of_models(host))


def restarts_on_request(host):
    pid = host.property("MainPID")
    host.run("systemctl", "restart", "emad")
    assert host.ping()["pid"] == int(host.property("MainPID")) != int(pid)
    assert host.property("Result") == "success"


def is_killed_and_comes_back_when_it_hangs_and_not_otherwise(host):
    host.write("/etc/systemd/system/emad.service.d/watchdog.conf", "[Service]\nWatchdogSec=2s\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "emad")
    before, pid = host.restarts(), host.property("MainPID")
    time.sleep(5)  # two and a half times its limit, in which nothing may happen
    assert (host.restarts(), host.property("MainPID")) == (before, pid)
    host.run("kill", "-STOP", pid)
    host.wait("a watchdog's restart", lambda: host.restarts() > before and host.property("ActiveState") == "active")
    assert host.ping()["pid"] != int(pid)
    host.run("rm", "-r", "/etc/systemd/system/emad.service.d")
    host.run("systemctl", "daemon-reload")


def a_wrong_setting_is_said_once_and_not_tried_again(host):
    host.run("systemctl", "stop", "emad")
    host.write("/etc/emad/emad.conf", "[limits]\nslots=1\n")
    assert host.run("systemctl", "start", "emad", check=False).returncode != 0
    before = host.restarts()
    assert host.property("ExecMainStatus") == "78"
    time.sleep(2)  # seven times the time after which anything else would be tried again
    assert (host.property("ActiveState"), host.property("ExecMainStatus")) == ("failed", "78")
    assert host.restarts() == before
    host.write("/etc/emad/emad.conf", "[limits]\nslots=4\n")
    host.run("systemctl", "start", "emad")
    assert host.ping()
    host.run("rm", "/etc/emad/emad.conf")
    host.run("systemctl", "restart", "emad")


def its_status_line_tells_of_models_and_checkpoints(host):
    host.run("touch", "/tmp/progress")
    train(host, "run/status", 5)
    host.run("emactl", "checkpoint")
    # The thread that wrote it lets the others go first.
    nice = host.run("ps", "-L", "-o", "ni=", "-p", host.property("MainPID")).stdout.split()
    assert nice.count("10") == 1 and nice.count("0") == len(nice) - 1
    # The line is renewed every five seconds.
    host.wait("a line", lambda: re.search(
        r"[0-9]+ models?, step [0-9]+, lag [0-9]+, [0-9.]+ [MG]iB, checkpoint [0-9]+ s ago", host.property("StatusText")))
    assert host.property("StatusText") in host.status()
    shown = json.loads(host.run("emactl", "--json", "status").stdout)["checkpoint"]
    assert shown["failures"] == 0 and shown["written_us"] > 0
    assert "last checkpoint" in host.run("emactl", "status").stdout


def instances_live_beside_it(host):
    host.write("/etc/emad/job8.conf", "[daemon]\nworkers=3\n")
    host.run("systemctl", "start", "emad@job7", "emad@job8")
    pids = {host.ping(directory)["pid"] for directory in ("/run/emad", "/run/emad-job7", "/run/emad-job8")}
    assert len(pids) == 3
    status = host.run("emactl", "--json", "--socket", "ipc:///run/emad-job8/emad.sock", "status").stdout
    assert json.loads(status)["workers"] == 3
    assert host.run("stat", "-c", "%U", "/var/lib/emad/job7").stdout.strip() == "emad"
    host.run("systemctl", "stop", "emad@job7", "emad@job8")
    host.run("test", "!", "-e", "/run/emad-job7")
    host.ping()


def its_attach_socket_can_be_the_service_managers(host):
    host.run("systemctl", "stop", "emad")
    host.run("systemctl", "start", "emad-attach.socket")
    host.run("systemctl", "start", "emad")
    assert host.run("readlink", "/run/emad/attach.sock").stdout.strip() == "/run/emad-attach.sock"
    host.run("touch", "/tmp/progress")
    train(host, "run/b", 3)
    before = host.restarts()
    host.run("systemctl", "kill", "--signal=KILL", "emad")
    host.wait("a restart", lambda: host.restarts() > before and host.property("ActiveState") == "active")
    train(host, "run/b", 3)
    host.run("systemctl", "stop", "emad")
    host.run("test", "-S", "/run/emad-attach.sock")
    host.run("systemctl", "stop", "emad-attach.socket")
    host.run("test", "!", "-e", "/run/emad-attach.sock")
    host.run("systemctl", "start", "emad")
    assert host.run("stat", "-c", "%F", "/run/emad/attach.sock").stdout.strip() == "socket"


def its_http_port_can_be_the_service_managers(host):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = "/run/systemd/system/emad-http.socket.d/port.conf"
    host.run("mkdir", "-p", os.path.dirname(settings))
    host.run("sh", "-c", f"printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n' >{settings}")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "stop", "emad")
    host.run("systemctl", "start", "emad-http.socket")
    # The request itself starts the service.
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:%d/%s', timeout=30).read())"
    assert "alive" in host.run("python3", "-c", ask % (port, "healthz")).stdout
    host.wait("readiness", lambda: host.run("python3", "-c", ask % (port, "readyz"), check=False).returncode == 0)
    assert host.property("ActiveState") == "active"
    host.run("systemctl", "stop", "emad-http.socket", "emad")
    host.run("rm", settings)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "emad")


def stops_in_order(host):
    begun = time.monotonic()
    host.run("systemctl", "stop", "emad")
    print(f"stopped in {time.monotonic() - begun:.2f} s")
    assert host.property("ActiveState") == "inactive" and host.property("Result") == "success"
    assert host.property("ExecMainStatus") == "0"
    host.run("test", "!", "-e", "/run/emad")


def systemd_has_nothing_to_complain_of(host):
    done = host.run("systemd-analyze", "verify", "emad.service", "emad@x.service", "emad-attach.socket",
                    "emad-http.socket")
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "emad" in line]
    assert not complaints, complaints
    for unit in ("emad.service", "emad@x.service"):
        host.run("systemd-analyze", "security", "--offline=true", "--threshold=15",
                 "/usr/local/lib/systemd/system/" + unit.replace("@x", "@"))


TESTS = (
    the_user_is_made, the_preset_enables_the_service_alone, starts_and_says_what_it_is,
    runs_as_its_own_user_and_may_little, members_of_the_group_may_connect_and_others_not,
    the_doctor_sees_what_is_wrong, the_journal_tells_of_models,
    segments_are_stored_while_their_model_is_there, segments_are_handed_back_after_a_restart,
    comes_back_when_it_is_killed, restarts_on_request, is_killed_and_comes_back_when_it_hangs_and_not_otherwise,
    a_wrong_setting_is_said_once_and_not_tried_again, its_status_line_tells_of_models_and_checkpoints,
    instances_live_beside_it, its_attach_socket_can_be_the_service_managers, its_http_port_can_be_the_service_managers,
    stops_in_order, systemd_has_nothing_to_complain_of,
)


if __name__ == "__main__":
    with machine.installed("test_stop") as HOST:
        STATUS = machine.run_all(HOST, TESTS)
    sys.exit(STATUS)
