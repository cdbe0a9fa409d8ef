"""A network of two hosts that tests can spoil: interfaces in a network namespace, and packets in a program's hands."""

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import re
import select
import shutil
import struct
import subprocess
import threading
import time

import pytest
from conftest import BUILD, DaemonProcess

PORT = 7474
TOKEN = "t" * 32
numbers = itertools.count(os.getpid() % 60)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


class Network:
    """A pair of interfaces; the daemon has the other one."""

    def __init__(self, tmp_path):
        if os.geteuid() != 0 or not all(shutil.which(program) for program in ("ip", "tc")):
            pytest.skip("only root can make network namespaces, with ip and tc (iproute2)")
        number = next(numbers)
        self.name, self.here = f"emad-{os.getpid()}-{number}", f"emad{os.getpid() % 10000}-{number}"
        self.address = f"10.253.{number % 250}.2"
        self.tmp_path = tmp_path
        self._try(f"ip netns add {self.name}")
        self._link()
        for command in (
            f"ip addr add 10.253.{number % 250}.1/30 dev {self.here}",
            f"ip -n {self.name} addr add {self.address}/30 dev inside",
            f"ip -n {self.name} link set lo up",
            f"ip -n {self.name} link set inside up",
            f"ip link set {self.here} up",
        ):
            self._try(command)

    def _try(self, command):
        done = run(*command.split())
        if done.returncode:
            self.close()
            pytest.skip(f"network namespaces cannot be made here: {command}: {done.stderr.strip()}")

    def _link(self):
        self._try(f"ip link add {self.here} type veth peer name inside netns {self.name}")

    def close(self):
        run("ip", "link", "del", self.here)
        run("ip", "netns", "del", self.name)

    def up(self, is_up):
        assert run("ip", "link", "set", self.here, "up" if is_up else "down").returncode == 0

    def shape(self, *how):
        """Both ways."""
        for command in (["ip", "netns", "exec", self.name, "tc"], ["tc"]):
            device = "inside" if command[0] == "ip" else self.here
            done = run(*command, "qdisc", "replace", "dev", device, "root", *how)
            if done.returncode:
                pytest.skip(f"this kernel cannot shape traffic: {' '.join(how)}: {done.stderr.strip()}")

    def lose(self, percent):
        """Of the packets each way, at random."""
        if not shutil.which("nft"):
            pytest.skip("nft is not installed: it loses the packets (Debian: nftables)")
        chains = "".join(
            f"chain {way} {{ type filter hook {way} priority 0; "
            f"meta l4proto tcp numgen random mod 100 < {percent} counter drop; }}\n"
            for way in ("input", "output")
        )
        done = run("ip", "netns", "exec", self.name, "nft", f"table inet weather {{\n{chains}}}")
        if done.returncode:
            pytest.skip(f"this kernel cannot lose packets: {done.stderr.strip()}")

    def lost(self):
        """How many packets were, each way."""
        text = run("ip", "netns", "exec", self.name, "nft", "list", "table", "inet", "weather").stdout
        return [int(count) for count in re.findall(r"counter packets (\d+)", text)]

    def connected(self):
        """How many connections the daemon believes in."""
        return run("ip", "netns", "exec", self.name, "ss", "-Htn", "state", "established").stdout.count("\n")

    @contextlib.contextmanager
    def daemon(self, monkeypatch, more=""):
        wrapper, token, tokens = (self.tmp_path / name for name in ("wrapper", "token", "tokens"))
        program = os.environ.get("EMAD_DAEMON", str(BUILD / "emad"))
        wrapper.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} "{program}" "$@"\n')
        wrapper.chmod(0o755)
        token.write_text(TOKEN)
        tokens.write_text(f"trainer {TOKEN} push\n")
        tokens.chmod(0o600)
        monkeypatch.setenv("EMAD_DAEMON", str(wrapper))
        directory = self.tmp_path / "run"
        directory.mkdir()
        text = f"[network]\nlisten=tcp://{self.address}:{PORT}\ntoken-file={tokens}\n{more}"
        daemon = DaemonProcess(directory, text)
        daemon.start()
        daemon.tcp = {"url": f"tcp://{self.address}:{PORT}", "timeout": 60, "token_file": token}
        try:
            yield daemon
        finally:
            daemon.kill()


class LongWay(Network):
    """Instead of a cable a program that hands the packets on: later, not in their order, and some of them twice."""

    TUN, NO_HEADER, SET_INTERFACE = 0x0001, 0x1000, 0x400454CA  # linux/if_tun.h
    delay_ms = (40, 60)
    twice_percent = 1

    def _link(self):
        self._ends = []
        try:
            for name in (self.here, f"{self.here}i"):
                end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                self._ends.append(end)
                fcntl.ioctl(end, self.SET_INTERFACE, struct.pack("16sH22x", name.encode(), self.TUN | self.NO_HEADER))
        except OSError as error:
            self.close()
            pytest.skip(f"no packets can be handed on here: /dev/net/tun: {error}")
        self._try(f"ip link set {self.here}i netns {self.name} name inside")
        seed = int(os.environ.get("EMAD_TEST_SEED", random.randrange(1 << 32)))
        print(f"EMAD_TEST_SEED={seed}")
        self._chance = random.Random(seed)
        self._stop, self.passed, self.doubled = threading.Event(), 0, 0
        self._carrier = threading.Thread(target=self._carry)
        self._carrier.start()

    def _carry(self):
        under_way, count = [], itertools.count()
        while not self._stop.is_set():
            now = time.monotonic()
            while under_way and under_way[0][0] <= now:
                _, _, end, packet = heapq.heappop(under_way)
                with contextlib.suppress(OSError):  # the interface is down
                    os.write(end, packet)
            wait = under_way[0][0] - now if under_way else 0.05
            for end in select.select(self._ends, [], [], min(wait, 0.05))[0]:
                with contextlib.suppress(BlockingIOError):
                    while packet := os.read(end, 65536):
                        self._post(under_way, count, self._ends[1 - self._ends.index(end)], packet)

    def _post(self, under_way, count, end, packet):
        self.passed += 1
        copies = 1 + (self._chance.randrange(100) < self.twice_percent)
        self.doubled += copies - 1
        for _ in range(copies):
            due = time.monotonic() + self._chance.uniform(*self.delay_ms) / 1e3
            heapq.heappush(under_way, (due, next(count), end, packet))

    def close(self):
        if hasattr(self, "_carrier"):
            self._stop.set()
            self._carrier.join()
        for end in self._ends:
            os.close(end)
        self._ends = []
        super().close()
