#!/usr/bin/env python3
"""
What the averages survive under a real systemd (host.sh), with two trainers and two readers at work all the time: after
each fault every average is what the acknowledged pushes make of it, to the last bit, and views that were open before
can still be read. Exit status 77, with a reason, where there can be no such systemd.

The tests build on each other and run in this order.
"""
import re
import secrets
import sys
import time

import machine

SEED = secrets.randbits(48)
# What readers held when a daemon died is kept for lease-min, and each death here comes soon after the one before.
SETTINGS = "[limits]\nslots=16\nlease-min=2s\n[checkpoint]\ncheckpoint-interval=1s\n"
ANSWER = re.compile(r"ok: (\d+) versions compared, (\d+) views kept, (\d+) revoked")


class Load:
    """Trainers and readers, and their inspector: tests/integration/attend.h says what it understands."""

    def __init__(self):
        self.process = None
        self.kept = 0

    def begin(self, host, *end):
        """end: how the host ended on which the last one was."""
        host.run("mkdir", "-p", f"{host.folder}/ledgers")
        self.process = host.open(
            f"{host.folder}/test_crash", "--attend", "ipc:///run/emad/emad.sock", f"{host.folder}/ledgers", str(SEED),
            *end,
        )
        self.hear()

    def hear(self):
        answer = self.process.stdout.readline()
        found = ANSWER.match(answer)
        assert found, answer or "the load has ended"
        return map(int, found.groups())

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.hear()

    def died(self):
        """With its host."""
        self.process.stdin.close()
        self.process.wait(machine.WAIT_SECONDS)

    def end(self):
        self.say("end")
        assert self.process.wait(machine.WAIT_SECONDS) == 0


load = Load()


def survives(host, fault, views=True):
    """The daemon is another one behind the fault, and nothing else has changed."""
    pid = host.property("MainPID")
    _, kept, revoked = load.say("hold")
    fault()
    host.wait("a restart", lambda: host.property("MainPID") not in ("0", pid))
    host.wait("a start", lambda: host.property("ActiveState") == "active")
    _, kept_then, revoked_then = load.say(f"check {host.property('MainPID')}")
    assert not views or (kept_then > kept and revoked_then == revoked), (kept, kept_then, revoked, revoked_then)


def the_load_begins(host, *end):
    host.run("systemd-sysusers", "emad.conf")
    host.run("systemd-tmpfiles", "--create", "emad.conf")
    host.write("/etc/emad/emad.conf", SETTINGS)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "emad")
    load.begin(host, *end)
    load.say(f"check {host.property('MainPID')}")


def a_restart_loses_nothing(host):
    survives(host, lambda: host.run("systemctl", "restart", "emad"))


def signals_that_kill_lose_nothing(host):
    for number in ("KILL", "SEGV", "ABRT", "KILL"):
        survives(host, lambda: host.run("systemctl", "kill", f"--signal={number}", "emad"))


def nor_does_the_watchdog(host):
    host.write("/etc/systemd/system/emad.service.d/watchdog.conf", "[Service]\nWatchdogSec=1s\n")
    host.run("systemctl", "daemon-reload")
    survives(host, lambda: host.run("systemctl", "restart", "emad"))
    survives(host, lambda: host.run("kill", "-STOP", host.property("MainPID")))
    host.run("rm", "-r", "/etc/systemd/system/emad.service.d")
    host.run("systemctl", "daemon-reload")
    survives(host, lambda: host.run("systemctl", "restart", "emad"))


def a_reload_with_a_fault_changes_nothing(host):
    pid = host.property("MainPID")
    host.write("/etc/emad/emad.conf", SETTINGS + "[limits]\nslots=none\n")
    assert host.run("systemctl", "reload", "emad", check=False).returncode != 0
    host.run("kill", "-HUP", pid)
    load.say(f"check {pid}")
    host.write("/etc/emad/emad.conf", SETTINGS)
    host.run("systemctl", "reload", "emad")
    load.say(f"check {pid}")
    assert host.property("MainPID") == pid


def nor_does_a_stop_that_gives_the_memory_back(host):
    """The averages come from disk; what only one of two ranks had pushed of a step, its trainer pushes again."""
    def fault():
        host.run("systemctl", "stop", "emad")
        assert stored(host) == 0
        time.sleep(seconds)
        host.run("systemctl", "start", "emad")

    for seconds in (0, 0, 0.5, 0, 3):  # calls fail where it takes longer than the library's patience
        survives(host, fault)


def stored(host):
    return int(host.property("NFileDescriptorStore"))


def reboots(host, end):
    """With all that runs there."""
    host.stop()
    load.died()
    host.start()
    the_load_begins(host, end)
    load.say(f"check {host.property('MainPID')}")


def a_reboot_under_load_loses_nothing_that_was_acknowledged(host):
    for seconds in (0, 0.3, 0.7):
        time.sleep(seconds)
        host.run("systemctl", "stop", "emad")
        reboots(host, "stopped")


def nor_does_a_power_cut_what_was_on_disk(host):
    """Behind a checkpoint under load, and whatever was written later by itself."""
    for seconds in (0, 0.2, 0.9, 1.6):
        load.say("store")
        time.sleep(seconds)
        reboots(host, "cut")


def the_end_is_an_orderly_one(host):
    load.end()
    host.run("systemctl", "stop", "emad")
    assert host.property("Result") == "success" and host.property("ExecMainStatus") == "0"


TESTS = (
    the_load_begins, a_restart_loses_nothing, signals_that_kill_lose_nothing, nor_does_the_watchdog,
    a_reload_with_a_fault_changes_nothing, nor_does_a_stop_that_gives_the_memory_back,
    a_reboot_under_load_loses_nothing_that_was_acknowledged, nor_does_a_power_cut_what_was_on_disk, the_end_is_an_orderly_one,
)


if __name__ == "__main__":
    print(f"seed {SEED:#x}")
    with machine.installed("test_crash") as HOST:
        STATUS = machine.run_all(HOST, TESTS)
    sys.exit(STATUS)
