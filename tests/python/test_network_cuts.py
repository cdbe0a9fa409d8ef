"""Connections that break, and daemons that die, while a snapshot is on its way."""

import contextlib
import os
import random
import threading
import time

import numpy as np
import pytest
from proxy import Proxy
from test_network import CHUNK, free_port, running
from test_network_wire import bf16

import emad

LAST = {"last": "constant:decay=0", "ema": "constant:decay=0.5"}
COUNT = 3 * CHUNK // 4 + 1000  # of float32: three chunks and a bit


def snapshot(step):
    return {"w": np.random.default_rng(step).standard_normal(COUNT, np.float32)}


def settings(port, more=""):
    return f"[network]\nlisten=tcp://127.0.0.1:{port}\nanonymous=push\n{more}"


def expected(steps):
    """Of a constant decay of 0.5, from the first step on. A snapshot also stands for the steps left out before it."""
    average = latest = None
    for step in steps:
        values = snapshot(step)["w"]
        average = values if average is None else average + (values - average) * np.float32(1 - 0.5 ** (step - latest))
        latest = step
    return average


def check(url, reference):
    """The average is the reference's, which was pushed on this host."""
    with emad.Client(url) as client:
        for profile in LAST:
            with client.view("net", profile) as view, client.view(reference, profile) as other:
                assert (view.step, view.updates) == (other.step, other.updates)
                assert view["w"].tobytes() == other["w"].tobytes()


def bytes_of_a_push(port, wire=None):
    """How many bytes of a client go by until a trainer is open, and until its push is answered."""
    proxy = Proxy(port)
    with emad.Client(proxy.url) as client, client.trainer("probe", snapshot(0), profiles=LAST, wire=wire) as trainer:
        begin = proxy.passed
        trainer.push(1, snapshot(1), wait=True)
        end = proxy.passed
    proxy.close()
    return begin, end


@pytest.mark.parametrize("wire", [None, "bf16"])
def test_a_connection_may_break_at_any_byte_of_a_push(tmp_path, wire):
    seed = int(os.environ.get("EMAD_TEST_SEED", random.randrange(1 << 32)))
    print(f"EMAD_TEST_SEED={seed}")
    generator = random.Random(seed)
    port = free_port()
    with running(tmp_path / "run", settings(port)) as daemon, emad.Client(daemon.url) as local:
        begin, end = bytes_of_a_push(port, wire)
        chunk = CHUNK // 2 if wire else CHUNK
        edges = {begin + edge * chunk + more for edge in range(1, 4) for more in (-1, 0, 1)}
        places = sorted({begin + 1, end - 1, end, *edges, *(generator.randrange(begin, end) for _ in range(8))})
        arriving = (lambda values: {"w": bf16(values["w"])}) if wire else (lambda values: values)
        with local.trainer("reference", arriving(snapshot(0)), profiles=LAST) as reference:
            for step in (1, 2):
                reference.push(step, arriving(snapshot(step)), wait=True)
        for place in places:
            proxy = Proxy(port, cut_after=place)
            with emad.Client(proxy.url) as client:
                with client.trainer("net", snapshot(0), profiles=LAST, resume="never", wire=wire) as trainer:
                    trainer.push(1, snapshot(1), wait=True)
                    trainer.push(2, snapshot(2), wait=True)
            assert proxy.cuts == 1, place
            proxy.close()
            check(daemon.url, "reference")


def test_a_daemon_may_die_in_the_middle_of_a_push(tmp_path):
    """Its segments survive it; what was acknowledged is averaged once, and what was not is sent again."""
    port = free_port()
    segments = tmp_path / "segments"
    if os.path.isdir("/dev/shm"):
        segments = f"/dev/shm/emad-test-{os.getpid()}"
    text = settings(port, f"[daemon]\nsegments-dir={segments}\n")
    try:
        with running(tmp_path / "run", text) as daemon, emad.Client(daemon.url) as local:
            begin, end = bytes_of_a_push(port)
            with local.trainer("reference", snapshot(0), profiles=LAST) as reference:
                for step in (1, 2):
                    reference.push(step, snapshot(step), wait=True)
            for place in (begin + 100, begin + CHUNK // 2, begin + 2 * CHUNK, end - 200, end):
                came_back = threading.Event()

                def die(came_back=came_back):
                    daemon.kill()
                    daemon.start()
                    came_back.set()

                proxy = Proxy(port, cut_after=place, on_cut=die)
                with emad.Client(proxy.url, 30) as client:
                    with client.trainer("net", snapshot(0), profiles=LAST, resume="never") as trainer:
                        trainer.push(1, snapshot(1), wait=True)
                        trainer.push(2, snapshot(2), wait=True)
                assert came_back.wait(30)
                proxy.close()
                check(daemon.url, "reference")
    finally:
        with contextlib.suppress(OSError):
            for name in os.listdir(segments):
                os.unlink(os.path.join(segments, name))
            os.rmdir(segments)


class Training(threading.Thread):
    """Pushes step after step from elsewhere, and each until it is taken."""

    def __init__(self, port):
        super().__init__()
        self._url = f"tcp://127.0.0.1:{port}"
        self.taken = []  # (step, how often the model had been registered again by then)
        self.failure = None
        self.goes_on = True

    def run(self):
        try:
            with emad.Client(self._url, 10) as client, client.trainer("net", snapshot(0), profiles=LAST) as trainer:
                while self.goes_on:
                    self._push(trainer, len(self.taken) + 1)
                trainer.flush()
        except Exception as failure:
            self.failure = failure

    def _push(self, trainer, step):
        while True:
            try:
                result = trainer.push(step, snapshot(step))
            except (emad.AwayError, emad.TimeoutError):
                continue
            assert result.outcome in ("accepted", "started", "applied"), result
            self.taken.append((step, trainer.info().restart_count))
            return

    def reaches(self, step):
        while len(self.taken) < step:
            assert self.is_alive(), self.failure
            time.sleep(0.001)


@pytest.mark.parametrize("late", [0, 1, 3], ids=lambda late: f"{late} behind the checkpoint")
def test_a_power_cut_takes_what_came_behind_the_checkpoint_and_training_elsewhere_goes_on(tmp_path, late):
    """The daemon's memory is gone, as with its host; its trainer lives."""
    port = free_port()
    with running(tmp_path / "run", settings(port, "[checkpoint]\ncheckpoint-interval=0\n")) as daemon:
        training = Training(port)
        training.start()
        try:
            training.reaches(5)
            with emad.Client(daemon.url) as local:
                local.checkpoint("net")
                stored = local.show("net")["checkpoint"]["step"]
            assert stored >= 3  # two may be accepted and not averaged yet
            training.reaches(stored + late)
            daemon.kill()
            begun = len(training.taken)
            daemon.start()
            training.reaches(begun + 5)
        finally:
            training.goes_on = False
            training.join(60)
        assert training.failure is None and not training.is_alive(), training.failure
        before = [step for step, restarts in training.taken if restarts == 0]
        after = [step for step, restarts in training.taken if restarts == 1]
        assert before + after == list(range(1, len(training.taken) + 1))
        # What the trainer still has of the step before is sent again: it is the only one that may be there besides.
        ways = [list(range(stored + 1)) + [step for step in again if step > stored] + after for again in ([], before[-1:])]
        with emad.Client(daemon.url) as local, local.view("net", "ema") as view, local.view("net", "last") as last:
            assert last["w"].tobytes() == snapshot(after[-1])["w"].tobytes()
            assert view.step == view.updates == after[-1]
            assert any(view["w"].tobytes() == expected(way).tobytes() for way in ways)


def test_a_connection_may_break_while_a_view_is_copied(tmp_path):
    port = free_port()
    with running(tmp_path / "run", settings(port)) as daemon, emad.Client(daemon.url) as local:
        with local.trainer("net", snapshot(0), profiles=LAST) as trainer:
            trainer.push(1, snapshot(1), wait=True)
        with local.view("net") as view:
            content = view["w"].tobytes()
        for place in range(20, 500, 37):
            proxy = Proxy(port, cut_after=place)
            with emad.Client(proxy.url) as client, client.view("net") as view:
                assert view["w"].tobytes() == content
            proxy.close()


def test_views_that_are_copied_while_versions_go_by_are_whole(tmp_path):
    port = free_port()
    with running(tmp_path / "run", settings(port, "[limits]\nlease-min=0\n")) as daemon:
        stop, begun = threading.Event(), threading.Event()

        def train():
            with emad.Client(daemon.url) as client:
                with client.trainer("net", {"w": np.zeros(COUNT, np.float32)}, profiles=LAST) as trainer:
                    step = 0
                    while not stop.is_set():
                        step += 1
                        trainer.push(step, {"w": np.full(COUNT, step, np.float32)}, wait=True)
                        begun.set()

        thread = threading.Thread(target=train)
        thread.start()
        try:
            whole = 0
            assert begun.wait(30)
            with emad.Client(f"tcp://127.0.0.1:{port}") as reader:
                for _ in range(100):
                    with contextlib.suppress(emad.RevokedError):
                        with reader.view("net", "last") as view:
                            assert view["w"].min() == view["w"].max() == np.float32(view.step)
                            whole += 1
            assert whole > 0
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("where", ["header", "body"])
def test_half_a_chunk_does_no_harm_to_others(tmp_path, where):
    """A peer that stops in the middle of a chunk: its stage is taken from it when the snapshot is sent anew."""
    port = free_port()
    with running(tmp_path / "run", settings(port)) as daemon, emad.Client(daemon.url) as local:
        begin, end = bytes_of_a_push(port)
        with local.trainer("reference", snapshot(0), profiles=LAST) as reference:
            reference.push(1, snapshot(1), wait=True)
        stalled = Stalling(port, begin + (400 if where == "header" else CHUNK // 2))
        with emad.Client(stalled.url, 1) as client, client.trainer("net", snapshot(0), profiles=LAST) as trainer:
            with pytest.raises(emad.Error):
                trainer.push(1, snapshot(9), wait=True)
            stalled.lets_through = True
            trainer.push(1, snapshot(1), wait=True, timeout=20)
            stalled.release()
            trainer.flush()
        stalled.close()
        check(daemon.url, "reference")


class Stalling(Proxy):
    """Holds what comes after so many bytes back until release; later connections pass."""

    def __init__(self, port, after):
        self.lets_through = False
        self._after = after
        self._held = []
        self._go = threading.Event()
        super().__init__(port)

    def _take(self, data):
        data, cuts = super()._take(data)
        if not self.lets_through and self.passed > self._after:
            self._go.wait(30)
        return data, cuts

    def release(self):
        self._go.set()
