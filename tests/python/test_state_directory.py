"""The state directory in trouble: full, gone, read-only. Training and reading go on, and it is made up for afterwards."""

import errno
import json
import os
import subprocess
import threading
import time

import numpy as np
import pytest

import emad
from conftest import DaemonProcess

NAME = "run42/net"
WAIT_SECONDS = 60


def mount(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def weights(step):
    return {"w": np.full((256, 64), step, np.float32)}


def push(client, first, last):
    with client.trainer(NAME, weights(0), profiles={"ema": "constant:decay=0.5"}) as trainer:
        for step in range(first, last + 1):
            assert trainer.push(step, weights(step), wait=True)


def served(client):
    with client.view(NAME, "ema") as view:
        return view.step, float(view["w"][0, 0]), float(view["w"][-1, -1])


def until(client, holds):
    """What `show` says of the checkpoint, as soon as it is so."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        shown = client.show(NAME)["checkpoint"]
        if holds(shown):
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)


class Trouble:
    """A state directory in the hands of a test: `begin` makes trouble, `end` takes it away."""

    def __init__(self, path):
        self.path = path
        self.mounted = 0

    def mount(self, *arguments):
        if not mount(*arguments, str(self.path)):
            pytest.skip("needs the right to mount file systems")
        self.mounted += 1

    def unmount(self):
        subprocess.run(["umount", "-l", self.path], check=True)
        self.mounted -= 1

    def finish(self):
        while self.mounted > 0:
            self.unmount()


class Full(Trouble):
    says, hint = "No space left", "make room"

    def __init__(self, path):
        super().__init__(path)
        path.mkdir()
        self.mount("-t", "tmpfs", "-o", "size=2m", "tmpfs")

    def begin(self):
        # The daemon may be writing there too: whatever is left is taken.
        with open(self.path / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def end(self):
        (self.path / "filler").unlink()


class ReadOnly(Trouble):
    says, hint = "Read-only file system", "mount it for writing"

    def __init__(self, path):
        super().__init__(path)
        path.mkdir()

    def begin(self):
        """On top of it, because a file system in which a file is open for writing cannot be mounted anew."""
        view = self.path.with_name("view")
        view.mkdir(exist_ok=True)
        if not mount("--bind", str(self.path), str(view)):
            pytest.skip("needs the right to mount file systems")
        assert mount("-o", "remount,bind,ro", str(view))
        self.mount("--bind", str(view))
        subprocess.run(["umount", view], check=True)

    def end(self):
        self.unmount()


class Unmounted(Trouble):
    says, hint = "mount it again", "'checkpoints' is gone"

    def __init__(self, path):
        super().__init__(path)
        path.mkdir()
        self.disk = path.with_name("disk")
        self.disk.mkdir()
        self.mount("--bind", str(self.disk))

    def begin(self):
        self.unmount()

    def end(self):
        assert "checkpoints" not in os.listdir(self.path)
        self.mount("--bind", str(self.disk))


@pytest.fixture(params=[Full, ReadOnly, Unmounted], ids=lambda kind: kind.__name__)
def trouble(request, tmp_path):
    kind = request.param
    made = kind.__new__(kind)
    made.mounted, made.path = 0, tmp_path / "small"
    request.addfinalizer(made.finish)
    made.__init__(tmp_path / "small")
    return made


@pytest.fixture
def process(tmp_path, trouble):
    started = DaemonProcess(tmp_path, "[checkpoint]\ncheckpoint-updates=1\n")
    yield started
    started.kill()


def test_training_goes_on_and_it_is_made_up_for_without_being_asked(process, trouble, emactl):
    process.start(trouble.path)
    with emad.Client(process.url) as client:
        push(client, 1, 3)
        before = until(client, lambda shown: shown["step"] == 3)
        assert before["failures"] == 0 and before["error"] is None
        trouble.begin()
        begun = time.monotonic()
        push(client, 4, 9)
        shown = until(client, lambda shown: shown["failures"] > 0)
        assert shown["step"] == 3 and trouble.says in shown["error"] and trouble.hint in shown["error"]
        # Whoever asks is told, and neither readers nor pushes wait for the disk.
        with pytest.raises(OSError, match=trouble.says):
            client.checkpoint(NAME)
        push(client, 10, 12)
        assert served(client)[0] == 12
        assert client.status()["counters"]["checkpoints_failed"] >= 2
        asked = subprocess.run([emactl, "--socket", process.url, "show", NAME, "--json"], capture_output=True, text=True)
        assert trouble.says in json.loads(asked.stdout)["checkpoint"]["error"]
        assert trouble.says in process.log()
        # Not more often than the waits of 1 s, 2 s, ... allow; one was asked for.
        assert client.status()["counters"]["checkpoints_failed"] <= 3 + (time.monotonic() - begun)
        trouble.end()
        shown = until(client, lambda shown: shown["step"] == 12)
        assert shown["failures"] == 0 and shown["error"] is None
        expected = served(client)
    process.kill()
    process.start(trouble.path)
    with emad.Client(process.url) as client:
        assert served(client) == expected
        assert client.status()["counters"]["checkpoints_bad"] == 0


def test_the_one_before_outlives_a_kill_in_the_midst_of_it(process, trouble):
    process.start(trouble.path)
    with emad.Client(process.url) as client:
        push(client, 1, 3)
        until(client, lambda shown: shown["step"] == 3)
        expected = served(client)
        trouble.begin()
        push(client, 4, 5)
        until(client, lambda shown: shown["failures"] > 0)
    process.kill()
    if isinstance(trouble, Unmounted):
        trouble.end()
    # On a disk that is full or read-only it is taken up as well.
    process.start(trouble.path)
    with emad.Client(process.url) as client:
        assert served(client) == expected
        push(client, 4, 6)
        if isinstance(trouble, (Full, ReadOnly)):
            until(client, lambda shown: shown["failures"] > 0)
            trouble.end()
        until(client, lambda shown: shown["step"] == 6)


def test_readers_and_pushes_do_not_notice(process, trouble):
    process.start(trouble.path)
    stop, slowest, failures = threading.Event(), [0.0], []

    def read():
        try:
            with emad.Client(process.url) as client:
                while not stop.is_set():
                    begun = time.monotonic()
                    step, first, last = served(client)
                    slowest[0] = max(slowest[0], time.monotonic() - begun)
                    assert first == last
        except Exception as error:  # noqa: BLE001 (told below)
            failures.append(error)

    with emad.Client(process.url) as client:
        push(client, 1, 2)
        reader = threading.Thread(target=read)
        reader.start()
        for round_ in range(2):
            trouble.begin()
            push(client, 10 * round_ + 3, 10 * round_ + 8)
            until(client, lambda shown: shown["failures"] > 0)
            trouble.end()
            push(client, 10 * round_ + 9, 10 * round_ + 12)
            until(client, lambda shown, step=10 * round_ + 12: shown["step"] == step)
        stop.set()
        reader.join()
    assert not failures
    assert slowest[0] < 10


def test_a_damaged_one_on_a_read_only_disk_stays_in_its_place_and_is_not_served(tmp_path):
    path = tmp_path / "small"
    trouble = Trouble(path)
    path.mkdir()
    process = DaemonProcess(tmp_path)
    try:
        trouble.mount("-t", "tmpfs", "-o", "size=4m", "tmpfs")
        process.start(path)
        with emad.Client(process.url) as client:
            for step in (1, 2):
                push(client, step, step)
                client.checkpoint(NAME)
                if step == 1:
                    expected = served(client)
        process.kill()
        newest = max((path / "checkpoints" / "run42%net").iterdir())
        os.truncate(newest / "ema.safetensors", 1000)
        assert mount("-o", "remount,ro", str(path))
        process.start(path)
        with emad.Client(process.url) as client:
            assert served(client) == expected
            assert client.status()["counters"]["checkpoints_bad"] == 1
            assert newest.exists() and "it stays in its place" in process.log()
            # What is written when that is possible again is the newest, and the damaged one is out of its way.
            assert mount("-o", "remount,rw", str(path))
            push(client, 2, 2)
            client.checkpoint(NAME)
            expected = served(client)
        process.kill()
        process.start(path)
        with emad.Client(process.url) as client:
            assert served(client) == expected
            assert client.status()["counters"]["checkpoints_bad"] == 0
    finally:
        process.kill()
        trouble.finish()
