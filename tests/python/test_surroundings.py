"""Faults of what is around the daemon and its clients: processes that stand still, clocks that jump, limits on tasks
and processors, paths that are wrong, control groups that kill. Each ends with the average compared with a reference in
float64.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import BUILD, PACKAGE, DaemonProcess

import emad

PROGRAM = os.environ.get("EMAD_DAEMON", str(BUILD / "emad"))
NAME = "run42/net"
DECAY = 0.9
PROFILES = {"ema": f"constant:decay={DECAY}"}
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


def weights(step):
    """Every element has a value of its own, so that mixtures show."""
    return {"w": np.arange(1, 4097, dtype=np.float64).reshape(64, 64) * step}


class Reference:
    """The average as it must be."""

    def __init__(self):
        self.step, self.scale = 0, 0.0

    def take(self, *steps):
        for step in steps:
            self.step, self.scale = step, DECAY * self.scale + (1 - DECAY) * step

    def check(self, client):
        with client.view(NAME, "ema") as view:
            assert view.step == self.step
            np.testing.assert_allclose(view["w"], weights(self.scale)["w"], rtol=1e-13)
            view.check()


def train(client, reference, count, **options):
    with client.trainer(NAME, weights(0), profiles=PROFILES, **options) as trainer:
        for step in range(reference.step + 1, reference.step + count + 1):
            assert trainer.push(step, weights(step), wait=True).outcome in ("started", "applied")
            reference.take(step)


@pytest.fixture
def process(tmp_path):
    made = DaemonProcess(tmp_path, "[limits]\nlease-min=100ms\n")
    yield made
    made.kill()


@pytest.fixture
def reference():
    return Reference()


# ---- processes that stand still -------------------------------------------------------------------------------------

STEADY = """
import os, sys, numpy as np, emad
url, name, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
profiles = {"ema": sys.argv[4]}
base = np.arange(1, 4097, dtype=np.float64).reshape(64, 64)
trainer = emad.Client(url, timeout=0.1).trainer(name, {"w": base * 0}, profiles=profiles)
for step in range(1, last + 1):
    while True:
        try:
            trainer.push(step, {"w": base * step}, wait=step % 2 == 0)
            break
        except emad.FencedError:
            sys.exit(3)
        except (emad.TimeoutError, emad.AwayError, emad.BusyError):
            pass
    os.write(1, b".")
trainer.flush(timeout=20)
"""


def steady_trainer(process, last):
    return subprocess.Popen(
        [sys.executable, "-c", STEADY, process.url, NAME, str(last), PROFILES["ema"]],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # communicate() knows nothing of what a buffer has read ahead
    )


def steps_wait(trainer, count):
    for _ in range(count):
        assert trainer.stdout.read(1) == b"."


def test_a_trainer_that_stands_still_beyond_its_deadline_doubles_and_loses_nothing(process, reference):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance, last = random.Random(seed), 4000
    process.start()
    trainer = steady_trainer(process, last)
    steps_wait(trainer, 1)
    for _ in range(6):
        time.sleep(chance.random() * 0.02)
        trainer.send_signal(signal.SIGSTOP)
        time.sleep(0.15)
        trainer.send_signal(signal.SIGCONT)
    out, errors = trainer.communicate(timeout=60)
    assert trainer.returncode == 0 and len(out) == last - 1, errors
    reference.take(*range(1, last + 1))
    with emad.Client(process.url) as client:
        reference.check(client)


def test_a_trainer_that_stood_still_while_another_took_its_place_is_fenced(process, reference):
    process.start()
    trainer = steady_trainer(process, 1000000)
    steps_wait(trainer, 5)
    trainer.send_signal(signal.SIGSTOP)
    with emad.Client(process.url) as client:
        with client.trainer(NAME, weights(0), profiles=PROFILES) as successor:
            with client.view(NAME, "ema", min_step=successor.last_step) as view:
                reference.step, reference.scale = view.step, float(view["w"][0, 0])
            trainer.send_signal(signal.SIGCONT)
            for step in range(reference.step + 1, reference.step + 21):
                assert successor.push(step, weights(step), wait=True).outcome == "applied"
                reference.take(step)
            trainer.communicate(timeout=30)
            assert trainer.returncode == 3
            reference.check(client)


def test_a_daemon_that_stood_still_goes_on_where_it_was(process, reference):
    process.start()
    trainer = steady_trainer(process, 1500)
    steps_wait(trainer, 1)
    for _ in range(4):
        process.signal(signal.SIGSTOP)
        time.sleep(0.25)
        process.signal(signal.SIGCONT)
        time.sleep(0.01)
    _, errors = trainer.communicate(timeout=60)
    assert trainer.returncode == 0, errors
    reference.take(*range(1, 1501))
    with emad.Client(process.url) as client:
        reference.check(client)


# ---- clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not FAKETIME.exists(), reason="needs libfaketime")
def test_a_clock_that_jumps_changes_nothing(tmp_path, reference):
    clock = tmp_path / "clock"
    faked = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": 1, "DONT_FAKE_MONOTONIC": 1}
    under = ["env", *(f"{key}={value}" for key, value in faked.items())]
    process = DaemonProcess(tmp_path, "[limits]\nlease-min=100ms\n[checkpoint]\ncheckpoint-updates=3\n")
    clock.write_text("+0\n")
    process.start(under=under)
    try:
        with emad.Client(process.url) as client:
            for jump in ("+30d", "-30d", "-19000d", "+3000d"):
                clock.write_text(jump + "\n")
                train(client, reference, 5)
                reference.check(client)
                client.checkpoint(NAME)
                written_s = client.show(NAME)["checkpoint"]["written_us"] / 1e6
                assert abs(written_s - time.time() - 86400 * int(jump[:-1])) < 600
                # Waiting takes its time, neither more nor less.
                begun = time.monotonic()
                with pytest.raises(emad.TimeoutError):
                    client.view(NAME, "ema", min_step=reference.step + 1, timeout=0.1)
                assert 0.09 < time.monotonic() - begun < 5
            assert client.status()["counters"]["apply_us"] < 60e6
        # Whatever the clock said when they were written, the newest is found.
        for jump in ("-30d", "+30d"):
            process.kill()
            clock.write_text(jump + "\n")
            process.start(under=under)
            with emad.Client(process.url) as client:
                reference.check(client)
                train(client, reference, 4)
                client.checkpoint(NAME)
    finally:
        process.kill()


# ---- limits on tasks and processors ---------------------------------------------------------------------------------

NOBODY = 65534
LEAST = 3  # tasks without which nothing at all can be started


def as_nobody(directory, program, *limits):
    """What starts a program as a user who has limits: root has none on tasks. The tree may be closed to that user."""
    copy = directory / Path(program).name
    if not copy.exists():
        shutil.copy2(program, copy)
    return ["prlimit", *limits, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", copy]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")


@pytest.fixture
def theirs():
    """A directory of somebody without rights, where that user can come to."""
    with tempfile.TemporaryDirectory(prefix="emad-test-", dir="/tmp") as directory:
        os.chown(directory, NOBODY, NOBODY)
        yield Path(directory)


@needs_root
def test_a_daemon_without_room_for_its_threads_says_so(theirs):
    for tasks in range(1, 200):
        started = subprocess.Popen(
            [*as_nobody(theirs, PROGRAM, f"--nproc={tasks}"), "--runtime-dir", theirs / "run", "--state-dir", theirs],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        first = started.stdout.readline()
        if "serves at" in first:
            break
        rest = started.stdout.read()
        started.wait(timeout=20)
        assert started.returncode == 71 and "be made: " in first + rest, (tasks, started.returncode, first + rest)
    # With just enough it works, to the end.
    with emad.Client(f"ipc://{theirs}/run/emad.sock") as client:
        reference = Reference()
        train(client, reference, 10)
        client.checkpoint(NAME)
        reference.check(client)
    started.terminate()
    rest, _ = started.communicate(timeout=20)
    assert started.returncode == 0, rest


@needs_root
def test_a_client_without_room_for_its_threads_says_so(theirs, emactl):
    absent = f"ipc://{theirs}/emad.sock"
    for tasks in range(LEAST, 200):
        asked = subprocess.run(
            [*as_nobody(theirs, emactl, f"--nproc={tasks}"), "--socket", absent, "ping", "--timeout", "0.1"],
            capture_output=True,
            text=True,
            timeout=20,
        )
        if "no daemon answers" in asked.stderr:
            break
        assert asked.returncode == 75 and "be made: " in asked.stderr, (tasks, asked)
    else:
        pytest.fail("it never got as far as the socket")


def test_one_processor_that_others_want_too_is_enough(process, reference):
    one = str(min(os.sched_getaffinity(0)))
    burner = ["taskset", "-c", one, sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(burner) for _ in range(3)]
    try:
        process.start(under=["taskset", "-c", one])
        with emad.Client(process.url) as client:
            assert client.status()["workers"] == 1
            train(client, reference, 30)
            reference.check(client)
            client.checkpoint(NAME)
            process.kill()
        process.start(under=["taskset", "-c", one])
        with emad.Client(process.url) as client:
            reference.check(client)
    finally:
        for burning in burners:
            burning.kill()
            burning.wait()


# ---- paths ----------------------------------------------------------------------------------------------------------


def run_to_end(*arguments):
    """The exit status of a daemon that ends by itself, and what it said."""
    done = subprocess.run([*arguments], capture_output=True, text=True, timeout=20, env={**os.environ, "NOTIFY_SOCKET": ""})
    return done.returncode, done.stderr + done.stdout


@needs_root
@pytest.mark.parametrize("option", ["config", "runtime-dir", "segments-dir", "token-file", "tls-key", "http-token-file"])
def test_a_path_without_permission_is_named(theirs, option):
    closed = theirs / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").write_text("")
    path = closed / ("file" if "dir" not in option else "inner")
    others = {
        "tls-key": ["--listen", "tls+tcp://127.0.0.1:7475", "--tls-certificate", closed / "file"],
        "http-token-file": ["--http-listen", "127.0.0.1:0"],
        "token-file": ["--listen", "tcp://127.0.0.1:7475"],
    }
    arguments = [f"--{option}", path, *others.get(option, [])]
    if option != "runtime-dir":
        arguments += ["--runtime-dir", theirs / "run"]
    status, said = run_to_end(*as_nobody(theirs, PROGRAM), *arguments)
    assert status == 77 and str(closed) in said and "ermission denied" in said, (status, said)
    assert not (theirs / "run").exists() or not list((theirs / "run").iterdir())


@needs_root
@pytest.mark.parametrize("where", ["state", "state/checkpoints", "state/checkpoints/run42%net"])
def test_a_state_directory_without_permission_holds_nothing_up(theirs, where, reference):
    closed = theirs / where
    closed.mkdir(parents=True)
    for directory in [closed, *closed.parents][: where.count("/") + 1]:
        os.chown(directory, NOBODY, NOBODY)
        directory.chmod(0o700)
    closed.chmod(0)
    process = DaemonProcess(theirs, "[checkpoint]\ncheckpoint-updates=1\n")
    command = as_nobody(theirs, PROGRAM)
    process.start(theirs / "state", under=command[:-1])
    try:
        with emad.Client(process.url) as client:
            train(client, reference, 5)
            with pytest.raises(OSError, match="ermission denied") as caught:
                client.checkpoint(NAME)
            assert f"'{closed.name}'" in str(caught.value) or str(closed) in str(caught.value)
            reference.check(client)
            closed.chmod(0o700)
            train(client, reference, 1)
            client.checkpoint(NAME)
        process.kill()
        process.start(theirs / "state", under=command[:-1])
        with emad.Client(process.url) as client:
            reference.check(client)
    finally:
        process.kill()


@pytest.mark.parametrize("name", ["emad.sock", "attach.sock", "emad.pid"])
def test_what_lies_where_a_socket_or_pid_must_be_is_named_and_left(tmp_path, name):
    runtime = tmp_path / "run"
    runtime.mkdir()
    lies = runtime / name
    lies.mkdir()
    (lies / "precious").write_text("precious")
    status, said = run_to_end(PROGRAM, "--runtime-dir", runtime, "--state-dir", tmp_path)
    assert status in (69, 71) and name in said, (status, said)
    assert (lies / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["emad.sock", "attach.sock"])
def test_a_file_in_place_of_a_socket_is_no_obstacle_or_named(tmp_path, name):
    (tmp_path / name).write_text("precious")
    process = DaemonProcess(tmp_path)
    try:
        process.start()
    except RuntimeError as error:
        assert name in str(error)
        assert (tmp_path / name).read_text() == "precious"
    else:
        with emad.Client(process.url) as client:
            train(client, Reference(), 1)
    finally:
        process.kill()


# ---- control groups -------------------------------------------------------------------------------------------------

HOG = """
import mmap, sys
memory = mmap.mmap(-1, 1 << 30)
for at in range(0, 1 << 30, 4096):
    memory[at] = 1
"""


class Group:
    """A control group with a limit on memory."""

    def __init__(self, folder, limit, bytes_max):
        self.folder = folder
        (folder / limit).write_text(str(bytes_max))
        self.under = ["sh", "-c", f'echo $$ >{folder}/cgroup.procs && exec "$@"', "sh"]


@pytest.fixture
def grouped():
    """Makes a group with so many bytes, of whichever version there is."""
    made = []

    def make(bytes_max):
        for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            folder = Path(root) / f"emad-test-{os.getpid()}"
            try:
                folder.mkdir()
            except OSError:
                continue
            made.append(folder)
            if (folder / limit).exists():
                return Group(folder, limit, bytes_max)
        pytest.skip("no control group with a limit on memory can be made here")

    yield make
    for folder in made:
        due = time.monotonic() + 10
        while folder.exists() and time.monotonic() < due:
            try:
                folder.rmdir()
            except OSError:  # its last process is not quite gone
                time.sleep(0.01)


def test_what_a_control_group_has_no_room_for_is_refused(tmp_path, grouped, reference):
    process = DaemonProcess(tmp_path)
    process.start(under=grouped(96 << 20).under)
    try:
        assert "at most 0.1 GiB of shared memory" in process.log(), process.log()
        with emad.Client(process.url) as client:
            train(client, reference, 3)
            with pytest.raises(emad.OutOfMemoryError, match=r"needs \d+ bytes .*, but \d+ of \d{8} \(memory-max\) are left"):
                client.trainer("large", {"w": np.zeros(16 << 20, np.float32)})
            train(client, reference, 3)
            reference.check(client)
        assert process.stop() == 0
    finally:
        process.kill()


def test_a_control_group_that_kills_the_daemon_takes_nothing_that_was_on_disk(tmp_path, grouped, reference):
    process = DaemonProcess(tmp_path)
    group = grouped(128 << 20)
    process.start(under=group.under)
    try:
        with emad.Client(process.url) as client:
            train(client, reference, 5)
            client.checkpoint(NAME)
        Path(f"/proc/{process.process.pid}/oom_score_adj").write_text("1000")
        subprocess.run([*group.under, sys.executable, "-c", HOG], capture_output=True, timeout=60)
        assert process.process.wait(10) == -signal.SIGKILL
        process.start(under=group.under)
        with emad.Client(process.url) as client:
            reference.check(client)
            train(client, reference, 5)
            reference.check(client)
    finally:
        process.kill()


# ---- other settings, other models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", ["slots=2", "slots=8", "models-max=1", "memory-max=1M", "stages=4"])
def test_a_restart_with_other_settings_loses_nothing(tmp_path, reference, settings):
    process = DaemonProcess(tmp_path)
    try:
        process.start()
        with emad.Client(process.url) as client:
            train(client, reference, 10)
            with client.trainer("other", {"v": np.zeros(300000)}) as trainer:
                trainer.push(1, {"v": np.ones(300000)}, wait=True)
            client.checkpoint()
        process.kill()
        process.configuration.write_text(f"[limits]\n{settings}\n")
        process.start()
        with emad.Client(process.url) as client:
            there = sorted(model["model"] for model in client.list()["models"])
            if settings in ("models-max=1", "memory-max=1M"):
                assert len(there) == 1 and "left on disk: 1" in process.log()
            else:
                assert there == ["other", NAME]
            if NAME in there:
                train(client, reference, 3)
                reference.check(client)
        assert process.stop() == 0
        # As it was before, all is there again.
        process.configuration.write_text("")
        process.start()
        with emad.Client(process.url) as client:
            assert sorted(model["model"] for model in client.list()["models"]) == ["other", NAME]
            reference.check(client)
    finally:
        process.kill()
