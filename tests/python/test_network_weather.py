"""A daemon behind a network that is cut, slow, or loses packets: in a network namespace of its own. Needs root."""

import contextlib
import itertools
import os
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest
from conftest import BUILD, DaemonProcess

import emad

HALF = {"ema": "constant:decay=0.5"}
PORT = 7474
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
        for command in (
            f"ip netns add {self.name}",
            f"ip link add {self.here} type veth peer name inside netns {self.name}",
            f"ip addr add 10.253.{number % 250}.1/30 dev {self.here}",
            f"ip -n {self.name} addr add {self.address}/30 dev inside",
            f"ip -n {self.name} link set lo up",
            f"ip -n {self.name} link set inside up",
            f"ip link set {self.here} up",
        ):
            done = run(*command.split())
            if done.returncode:
                self.close()
                pytest.skip(f"network namespaces cannot be made here: {command}: {done.stderr.strip()}")

    def close(self):
        run("ip", "link", "del", self.here)
        run("ip", "netns", "del", self.name)

    def up(self, is_up):
        assert run("ip", "link", "set", self.here, "up" if is_up else "down").returncode == 0

    def shape(self, *how):
        done = run("tc", "qdisc", "replace", "dev", self.here, "root", *how)
        if done.returncode:
            pytest.skip(f"this kernel cannot shape traffic: {' '.join(how)}: {done.stderr.strip()}")

    @contextlib.contextmanager
    def daemon(self, monkeypatch, more=""):
        wrapper, token, tokens = (self.tmp_path / name for name in ("wrapper", "token", "tokens"))
        program = os.environ.get("EMAD_DAEMON", str(BUILD / "emad"))
        wrapper.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} "{program}" "$@"\n')
        wrapper.chmod(0o755)
        token.write_text("t" * 32)
        tokens.write_text(f"trainer {'t' * 32} push\n")
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


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path)
    yield made
    made.close()


def snapshot(count, step):
    return {"w": np.random.default_rng(step).standard_normal(count, np.float32)}


def resident_kibibytes(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def test_a_network_that_is_cut_for_a_second_costs_nothing_and_doubles_nothing(network, monkeypatch):
    count = 4_000_000
    with network.daemon(monkeypatch) as daemon, emad.Client(daemon.url) as local:
        network.shape("tbf", "rate", "200mbit", "burst", "64k", "latency", "200ms")
        with emad.Client(**daemon.tcp) as client, local.trainer("here", snapshot(count, 0), profiles=HALF) as here:
            with client.trainer("there", snapshot(count, 0), profiles=HALF) as there:
                for step in (1, 2, 3):
                    cut = threading.Timer(0.2, network.up, (False,))
                    heal = threading.Timer(1.2, network.up, (True,))
                    cut.start()
                    heal.start()
                    there.push(step, snapshot(count, step), wait=True)
                    cut.join()
                    heal.join()
                    here.push(step, snapshot(count, step), wait=True)
        with local.view("here") as expected, local.view("there") as found:
            assert (found.step, found.updates) == (expected.step, expected.updates)
            assert found["w"].tobytes() == expected["w"].tobytes()


def test_a_slow_network_slows_its_trainer_and_fills_no_memory(network, monkeypatch):
    count = 500_000
    with network.daemon(monkeypatch) as daemon, emad.Client(daemon.url) as local:
        network.shape("tbf", "rate", "10mbit", "burst", "16k", "latency", "400ms")
        with emad.Client(**daemon.tcp) as client, client.trainer("net", snapshot(count, 0), profiles=HALF) as trainer:
            before = resident_kibibytes(daemon.process.pid)
            begun = time.monotonic()
            for step in (1, 2):
                trainer.push(step, snapshot(count, step))
            trainer.flush()
            assert time.monotonic() - begun > 2 * 4 * count * 8 / 10e6 * 0.8
            assert resident_kibibytes(daemon.process.pid) - before < 4096
        with local.view("net") as view:
            assert view.step == 2


def test_packets_may_be_lost(network, monkeypatch):
    count = 700_000
    with network.daemon(monkeypatch) as daemon, emad.Client(daemon.url) as local:
        network.shape("netem", "loss", "2%", "delay", "5ms")
        with emad.Client(**daemon.tcp) as client, client.trainer("net", snapshot(count, 0), profiles=HALF) as trainer:
            for step in range(1, 4):
                trainer.push(step, snapshot(count, step), wait=True)
            with client.view("net") as copied, local.view("net") as shared:
                assert copied.step == 3
                assert copied["w"].tobytes() == shared["w"].tobytes()


def test_a_peer_that_vanished_without_a_word_is_seen_dead(network, monkeypatch):
    with network.daemon(monkeypatch, "keepalive=1s\n") as daemon, emad.Client(daemon.url) as local:
        client = emad.Client(**{**daemon.tcp, "timeout": 1})
        trainer = client.trainer("net", snapshot(1000, 0), profiles=HALF)
        trainer.push(1, snapshot(1000, 1), wait=True)
        assert local.show("net")["ranks"][0]["attached"]
        network.up(False)
        due = time.monotonic() + 20
        while local.show("net")["ranks"][0]["attached"]:
            assert time.monotonic() < due
            time.sleep(0.05)
        # And is let in again when it is back.
        network.up(True)
        trainer.push(2, snapshot(1000, 2), wait=True, timeout=20)
        trainer.close()
        with local.view("net") as view:
            assert view.step == 2
