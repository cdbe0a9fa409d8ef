"""A daemon behind a network that is cut, slow, far away, or loses packets: in a network namespace of its own. Needs root.

EMAD_CUT_SECONDS: how long the network is cut, as "1 30 300" (`make check-network`).
"""

import os
import threading
import time

import numpy as np
import pytest
from weather import PORT, TOKEN, LongWay, Network
from wire import Peer

import emad

HALF = {"ema": "constant:decay=0.5"}
CUTS = [int(seconds) for seconds in os.environ.get("EMAD_CUT_SECONDS", "1").split()]


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path)
    yield made
    made.close()


@pytest.fixture
def long_way(tmp_path):
    made = LongWay(tmp_path)
    yield made
    made.close()


def snapshot(count, step):
    return {"w": np.random.default_rng(step).standard_normal(count, np.float32)}


def resident_kibibytes(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def same(local, count, steps):
    """That the model "net" is what pushes of these steps on this host make, to the last bit."""
    with local.trainer("here", snapshot(count, 0), profiles=HALF) as here:
        for step in steps:
            here.push(step, snapshot(count, step), wait=True)
    with local.view("here") as expected, local.view("net") as found:
        assert (found.step, found.updates) == (expected.step, expected.updates)
        assert found["w"].tobytes() == expected["w"].tobytes()


@pytest.mark.parametrize("seconds", CUTS)
def test_a_network_that_is_cut_for_seconds_costs_nothing_and_doubles_nothing(network, monkeypatch, seconds):
    """A long cut outlasts message-timeout as well, and TCP's waits between its attempts double."""
    count, steps = 4_000_000, (1, 2, 3) if seconds < 10 else (1, 2)
    patience = 60 + 3 * seconds
    with network.daemon(monkeypatch) as daemon, emad.Client(daemon.url) as local:
        network.shape("tbf", "rate", "200mbit", "burst", "64k", "latency", "200ms")
        with emad.Client(**{**daemon.tcp, "timeout": patience}) as client:
            with client.trainer("net", snapshot(count, 0), profiles=HALF) as there:
                for step in steps:
                    if seconds >= 10 and step == 1:
                        there.push(step, snapshot(count, step), wait=True)
                        continue
                    cut = threading.Timer(0.2, network.up, (False,))
                    heal = threading.Timer(0.2 + seconds, network.up, (True,))
                    cut.start()
                    heal.start()
                    assert there.push(step, snapshot(count, step), wait=True, timeout=patience).outcome in (
                        "applied", "started", "duplicate",
                    )
                    cut.join()
                    heal.join()
        same(local, count, steps)


def test_what_was_accepted_before_a_cut_is_averaged_during_it(network, monkeypatch):
    """And a reader beyond the cut has it afterwards."""
    count = 500_000
    with network.daemon(monkeypatch) as daemon, emad.Client(daemon.url) as local:
        with emad.Client(**daemon.tcp) as client, client.trainer("net", snapshot(count, 0), profiles=HALF) as there:
            for step in (1, 2):
                assert there.push(step, snapshot(count, step), wait=True).outcome in ("applied", "started")
            reader = threading.Thread(target=lambda: client.view("net", min_step=3, timeout=60).close())
            reader.start()
            network.up(False)
            same(local, count, (1, 2))
            network.up(True)
            there.push(3, snapshot(count, 3), wait=True)
            reader.join(60)
            assert not reader.is_alive()


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
            # The way back is as slow: what a reader has not taken yet lies in the slot, not in the daemon's memory.
            begun = time.monotonic()
            with client.view("net") as view:
                assert view.step == 2
            assert time.monotonic() - begun > 4 * count * 8 / 10e6 * 0.8
            assert resident_kibibytes(daemon.process.pid) - before < 4096 + 4 * 1024
        same(local, count, (1, 2))


def test_packets_may_be_lost(network, monkeypatch):
    count = 700_000
    with network.daemon(monkeypatch) as daemon, emad.Client(daemon.url) as local:
        network.lose(percent=5)
        with emad.Client(**daemon.tcp) as client, client.trainer("net", snapshot(count, 0), profiles=HALF) as trainer:
            for step in range(1, 4):
                trainer.push(step, snapshot(count, step), wait=True)
            with client.view("net") as copied, local.view("net") as shared:
                assert copied.step == 3
                assert copied["w"].tobytes() == shared["w"].tobytes()
        assert all(count > 0 for count in network.lost())
        same(local, count, (1, 2, 3))


def test_packets_may_be_late_out_of_order_and_come_twice(long_way, monkeypatch):
    count = 400_000
    with long_way.daemon(monkeypatch) as daemon, emad.Client(daemon.url) as local:
        with emad.Client(**daemon.tcp) as client, client.trainer("net", snapshot(count, 0), profiles=HALF) as trainer:
            begun = time.monotonic()
            client.ping()
            assert time.monotonic() - begun >= 2 * long_way.delay_ms[0] / 1e3
            for step in range(1, 4):
                trainer.push(step, snapshot(count, step), wait=True)
            with client.view("net") as copied, local.view("net") as shared:
                assert copied["w"].tobytes() == shared["w"].tobytes()
        same(local, count, (1, 2, 3))
    assert long_way.doubled > 0


def within(seconds, condition):
    """How long it took to come true."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(0.05)
    return time.monotonic() - begun


def test_a_trainer_that_vanished_without_a_word_is_seen_dead(network, monkeypatch):
    """It is disconnected after keepalive, and after another one its claim ends."""
    with network.daemon(monkeypatch, "keepalive=1s\n") as daemon, emad.Client(daemon.url) as local:
        client = emad.Client(**{**daemon.tcp, "timeout": 1})
        trainer = client.trainer("net", snapshot(1000, 0), profiles=HALF)
        trainer.push(1, snapshot(1000, 1), wait=True)
        assert local.show("net")["ranks"][0]["attached"]
        network.up(False)
        assert within(10, lambda: not local.show("net")["ranks"][0]["attached"]) >= 1
        # And is let in again when it is back.
        network.up(True)
        trainer.push(2, snapshot(1000, 2), wait=True, timeout=20)
        trainer.close()
        with local.view("net") as view:
            assert view.step == 2


def test_a_reader_that_vanished_without_a_word_gives_its_lease_back(network, monkeypatch):
    with network.daemon(monkeypatch, "keepalive=1s\n") as daemon, emad.Client(daemon.url) as local:
        with local.trainer("net", snapshot(1000, 0), profiles=HALF) as trainer:
            trainer.push(1, snapshot(1000, 1), wait=True)
            reader = Peer((network.address, PORT))
            assert reader.ask("hello", token=TOKEN)["status"] == 0
            assert reader.ask("lease", model="net", lease=7)["step"] == 1

            def leases():
                return sum(row["leases"] for row in local.show("net")["slots"])

            assert (leases(), network.connected()) == (1, 1)
            network.up(False)
            assert 0.5 <= within(10, lambda: leases() == 0)
            within(10, lambda: network.connected() == 0)
            network.up(True)
            with emad.Client(**daemon.tcp) as client, client.view("net") as view:
                assert view.step == 1
            # What it asks on the connection that it holds for alive is answered by a reset, or not at all.
            reader.socket.settimeout(5)
            with pytest.raises(OSError):
                reader.ask("fetch", lease=7, offset=0, count=10)
            reader.close()
