"""SIGKILL at every system call of a checkpoint, and of a recovery: whatever was acknowledged is there afterwards.

strace kills the daemon as the thread that writes files enters its n-th openat, write, fsync, ... After each kill a fresh
daemon must come back with the checkpoint that was acknowledged or the newer one, whole, and write the next one.
EMAD_KILL_ALL=1 tries all of them (`make check-kill`), otherwise some by chance; EMAD_TEST_SEED repeats a choice.
"""

import os
import random
import re
import select
import shutil
import signal
import subprocess

import numpy as np
import pytest

import emad
from conftest import DaemonProcess

NAME = "run42/net"
DECAY = 0.9
PROFILES = {"ema": f"constant:decay={DECAY}"}
ALL = os.environ.get("EMAD_KILL_ALL", "") == "1"
SAMPLED = 12
SEED = int(os.environ.get("EMAD_TEST_SEED", str(random.randrange(1 << 32))))


def strace_works():
    try:
        return subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not strace_works(), reason="needs strace, and the right to trace processes")


def weights(step):
    generator = np.random.default_rng(step)
    return {"head.weight": generator.standard_normal((16, 8), dtype=np.float32), "head.bias": generator.standard_normal(8)}


class Average:
    """What the daemon must hold, in float64."""

    def __init__(self, step, values):
        self.step, self.values = step, values

    @staticmethod
    def begun(step):
        """From the weights that the trainer has at first, at step 0, by one push that stands for all steps since."""
        kept = DECAY**step
        first = weights(0)
        return Average(step, {key: kept * first[key] + (1 - kept) * value for key, value in weights(step).items()})

    def next(self):
        new = weights(self.step + 1)
        return Average(self.step + 1, {key: DECAY * old + (1 - DECAY) * new[key] for key, old in self.values.items()})


class Training:
    """A daemon, and the average whose checkpoint is known to be on its disk."""

    def __init__(self, process):
        self.process = process
        self.acknowledged = None

    def push(self, step, **choices):
        with emad.Client(self.process.url) as client:
            with client.trainer(NAME, weights(0), profiles=PROFILES, **choices) as trainer:
                trainer.push(step, weights(step), wait=True)

    def advance(self):
        """The next update, and its checkpoint."""
        self.push(self.acknowledged.step + 1)
        with emad.Client(self.process.url) as client:
            assert client.checkpoint(NAME) == self.acknowledged.step + 1
        self.acknowledged = self.acknowledged.next()

    def begin(self, count):
        self.process.start()
        self.push(1)
        with emad.Client(self.process.url) as client:
            client.checkpoint(NAME)
        self.acknowledged = Average.begun(1)
        for _ in range(count - 1):
            self.advance()

    def check(self, candidates, what, bad=0):
        """One of them is served, all of it; it is acknowledged from now on."""
        with emad.Client(self.process.url) as client:
            with client.view(NAME, "ema") as view:
                found = [candidate for candidate in candidates if candidate.step == view.step]
                assert found, f"{what}: step {view.step} is served, not {[c.step for c in candidates]}"
                for key, value in found[0].values.items():
                    np.testing.assert_allclose(np.array(view[key], np.float64), value, rtol=1e-5, atol=1e-6, err_msg=what)
            assert client.status()["counters"]["checkpoints_bad"] == bad, what
        self.acknowledged = found[0]


@pytest.fixture
def training(tmp_path):
    process = DaemonProcess(tmp_path)
    yield Training(process)
    process.kill()


def chosen(calls):
    """All calls of a trace as (name, n), or some of them: strace counts those of every thread and name by themselves."""
    counts, numbered = {}, []
    for call in calls:
        counts[call] = counts.get(call, 0) + 1
        if (call[1], counts[call]) not in numbered:
            numbered.append((call[1], counts[call]))
    if ALL or len(numbered) <= SAMPLED:
        return numbered
    print(f"EMAD_TEST_SEED={SEED}")
    return random.Random(SEED).sample(numbered, SAMPLED)


# They change nothing, or their number is not the same each time.
UNSWEPT = {"futex", "fcntl", "geteuid", "exit", "madvise", "mmap", "munmap", "mprotect", "brk", "sched_yield", "rt_sigprocmask"}


def calls_of(trace):
    """(thread, name) of every call; the thread is "" where only one was traced."""
    calls = re.findall(r"^(?:(\d+) +)?(\w+)\(", trace.read_text(), re.M)
    return [call for call in calls if call[1] not in UNSWEPT]


def files_thread(process):
    tasks = f"/proc/{process.process.pid}/task"
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/comm") as name:
            if name.read() == "emad-files\n":
                return task
    raise AssertionError("the daemon has no thread of that name")


class Tracer:
    """strace on the thread that writes files."""

    def __init__(self, process, *arguments):
        self.strace = subprocess.Popen(
            ["strace", "-p", files_thread(process), *arguments], stderr=subprocess.PIPE, text=True
        )
        assert "attached" in self.strace.stderr.readline()

    def end(self):
        if self.strace.poll() is None:
            self.strace.terminate()
        self.strace.communicate()


def checkpoint_is_answered(process, emactl):
    """False: the daemon died instead. The tool asks, because it can be ended then: it would ask the next daemon."""
    asking = subprocess.Popen([emactl, "--socket", process.url, "checkpoint", NAME], stdout=subprocess.DEVNULL)
    pidfds = [os.pidfd_open(pid) for pid in (process.process.pid, asking.pid)]
    ready = select.select(pidfds, [], [], 60)[0]
    for pidfd in pidfds:
        os.close(pidfd)
    if pidfds[0] in ready:
        asking.kill()
    status = asking.wait()
    assert ready and status in (0, -signal.SIGKILL)
    return status == 0


@pytest.mark.parametrize("starts", [False, True], ids=["the next", "another average"])
def test_killed_at_a_call_of_a_checkpoint_the_acknowledged_one_is_there(training, tmp_path, emactl, starts):
    process = training.process
    training.begin(3)

    def update():
        """One that is not on disk; the average that it makes."""
        step = training.acknowledged.step + 1
        training.push(step, resume="never" if starts else "auto")
        return Average.begun(step) if starts else training.acknowledged.next()

    after = update()
    tracer = Tracer(process, "-o", str(tmp_path / "trace"))
    assert checkpoint_is_answered(process, emactl)
    tracer.end()
    training.acknowledged = after
    calls = calls_of(tmp_path / "trace")
    assert {"openat", "write", "fsync", "close", "mkdirat", "renameat", "unlinkat" if not starts else "renameat2"} <= {name for _, name in calls}
    assert len(calls) > 40
    for name, n in [*chosen(calls), ("write", 1000)]:
        what = f"{name} {n}"
        before, after = training.acknowledged, update()
        tracer = Tracer(process, "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={n}")
        answered = checkpoint_is_answered(process, emactl)
        # The very last call wakes the loop, which may answer before; a directory that a kill has left is not made again.
        assert not answered or n == 1000 or (name, n) == (calls[-1][1], calls.count(calls[-1])) or (starts and name == "mkdirat"), what
        tracer.end()
        process.kill()
        process.start()
        training.check([after] if answered else [before, after], what)
        training.advance()
        left = [entry for entry in os.listdir(tmp_path / "state" / "checkpoints" / "run42%net")]
        assert len(left) == 2 or starts, (what, left)
        assert not [entry for entry in left if entry.startswith(".") or "bad" in entry], (what, left)


def test_killed_at_a_call_of_a_recovery_the_next_one_finds_the_same(training, tmp_path):
    process = training.process
    training.begin(3)
    older = training.acknowledged
    training.advance()
    process.kill()
    # The newest one is damaged, so that the recovery also sets it aside.
    model = tmp_path / "state" / "checkpoints" / "run42%net"
    newest = max(entry for entry in os.listdir(model))
    with open(model / newest / "ema.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    shutil.move(tmp_path / "state", tmp_path / "pristine")
    state = tmp_path / "state"

    def begin(*arguments):
        """A recovery of the disk as it was, under strace; true when it came to its end."""
        process.kill()
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(tmp_path / "pristine", state)
        paths = [state, *sorted(path for path in state.rglob("*"))]
        watched = [argument for path in paths for argument in ("-P", str(path))]
        try:
            process.start(state, under=["strace", "-D", "-f", "-qq", *watched, *arguments])
            return True
        except RuntimeError:
            return False

    assert begin("-o", str(tmp_path / "trace"))
    training.check([older], "untouched", bad=1)
    calls = calls_of(tmp_path / "trace")
    assert {"openat", "read", "close", "renameat", "fsync", "getdents64"} <= {name for _, name in calls}
    for name, n in [*chosen(calls), ("read", 1000)]:
        ended = begin("-o", "/dev/null", "-e", f"inject={name}:signal=SIGKILL:when={n}")
        assert ended == (n == 1000), (name, n)
        process.kill()
        process.start(state)
        # What was set aside before the kill is not found bad again.
        with emad.Client(process.url) as client:
            bad = client.status()["counters"]["checkpoints_bad"]
        assert bad in (0, 1)
        training.check([older], f"{name} {n}", bad=bad)
        assert [entry for entry in os.listdir(model) if entry.startswith(f"{newest}.bad-")], (name, n)
        training.advance()
