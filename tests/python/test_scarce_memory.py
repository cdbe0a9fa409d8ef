"""A start that runs out of memory at every single allocation: it ends with a sentence, or serves all that was there.

The daemon of tests/integration/scarce.h fails the allocation that it is told to, alone or with all that follow. It has
everything to start with that can be had: files of settings, tokens, TLS, HTTP, a socket handed over, a model to adopt
from the memory of a daemon that was killed, one of which only half a step was pushed, and one to recover from disk.
EMAD_SCARCE_ALL=1 (`make check-faults`) also fails what the libraries allocate.
"""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from certificates import Authority
from conftest import BUILD, ROOT, DaemonProcess

import emad

HAND_OVER = 'exec 3<&"$1"-; shift; LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$@"'
PROFILES = {"ema": "constant:decay=0.5", "slow": "constant:decay=0.9"}
ALL = os.environ.get("EMAD_SCARCE_ALL", "") == "1"
# Where libraries die of it instead of saying so, by what stands in the calls that led there: libuv aborts where it makes
# its signals' pipe, NNG 1.5.2 goes on with what it has not got, and jansson 2.14 asserts that a string could be had. What
# there is must be left as it was all the same.
EXCUSED = ("uv_signal_init", "libnng.so", "libjansson.so")
# Sentences that do not say what could not be done.
MUTE = ("emad: Cannot allocate memory", "emad: not enough memory")
ADDRESS = "127.0.0.2"  # where nobody is given a port by chance meanwhile
ADOPTED, HALVED, RECOVERED = "run42/net", "run42/halved", "run7/old"


def free_port():
    with socket.create_server((ADDRESS, 0)) as server:
        return server.getsockname()[1]


def weights(step):
    generator = np.random.default_rng(step)
    return {"head.weight": generator.standard_normal((16, 8), dtype=np.float32), "head.bias": generator.standard_normal(8)}


def train(client, name, last):
    with client.trainer(name, weights(0), profiles=PROFILES) as trainer:
        for step in range(max(trainer.last_step or 0, 0) + 1, last + 1):
            trainer.push(step, weights(step), wait=True)


def contents(*folders):
    """Every file's bytes, by its path. That which says whose the folder is comes and goes."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in paths if path.name not in ("emad.pid", "emad.lock")}


def served(process):
    """All bytes of all averages, and the snapshots that wait."""
    seen = {}
    with emad.Client(process.url) as client:
        for row in client.list()["models"]:
            for profile in PROFILES if row["step"] is not None else ():
                with client.view(row["model"], profile) as view:
                    tensors = {key: np.array(view[key]).tobytes() for key in view}
                    seen[row["model"], profile] = tensors, view.step, view.updates
        counters = client.status()["counters"]
        return seen, counters["snapshots_adopted"]


def is_served(process, expected):
    try:
        return served(process) == expected
    except emad.Error as error:
        return print(f"emad.Error: {error}")


class Start(DaemonProcess):
    """Starts of a daemon, each from what an earlier one has left."""

    def __init__(self, directory, segments, program):
        self.before = directory / "before"
        self.state, self.segments, self.program = directory / "state", segments, program
        for folder in ("before", "run", "state"):
            (directory / folder).mkdir()
        authority = Authority(directory / "authority")
        certificate, key = authority.sign("daemon")
        tokens, http_token = directory / "tokens", directory / "http.token"
        tokens.write_text("reader reader-0123456789abcdef0123456789 read\n")
        http_token.write_text("a-token-of-some-length\n")
        for path in (tokens, http_token):
            path.chmod(0o600)
        super().__init__(
            directory / "run",
            f"[daemon]\nsegments-dir={segments}\nworkers=2\n[http]\nhttp-listen=127.0.0.1:0\n"
            f"http-token-file={http_token}\n[network]\nlisten=tcp://{ADDRESS}:{free_port()} tls+tcp://{ADDRESS}:{free_port()}\n"
            f"tls-certificate={certificate}\ntls-key={key}\ntls-ca={authority.certificate}\ntoken-file={tokens}\n",
        )
        drop_ins = directory / "run" / "emad.conf.d"
        drop_ins.mkdir()
        (drop_ins / "10-access.conf").write_text(f"[access]\nadmin-users={os.getuid()}\n")
        (drop_ins / "20-limits.conf").write_text("[limits]\nlease-min=100ms\n[checkpoint]\ncheckpoint-interval=0\n")

    def ordinary(self):
        self.program, scarce = BUILD / "emad", self.program
        self.begin(None)
        self.program = scarce

    def begin(self, fails):
        """Raises RuntimeError when it does not get ready."""
        environment = {
            **os.environ, "NOTIFY_SOCKET": str(self.directory / "notify"), "WATCHDOG_USEC": "60000000",
            "LISTEN_FDS": "1", "LISTEN_FDNAMES": "attach", "EMAD_SCARCE": fails or "0",
        }
        for name in ("handed", "notify", "log"):
            (self.directory / name).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, open(self.directory / "log", "ab") as log, \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            listener.bind(str(self.directory / "handed"))
            listener.listen()
            ready.bind(str(self.directory / "notify"))
            self.process = subprocess.Popen(
                ["bash", "-c", HAND_OVER, "bash", str(listener.fileno()), self.program, "--config", self.configuration,
                 "--runtime-dir", self.directory, "--state-dir", self.state],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[listener.fileno()],
            )
            self._wait_ready(ready)

    def fill(self):
        """What a daemon that was killed leaves."""
        self.ordinary()
        with emad.Client(self.url) as client:
            train(client, RECOVERED, 3)
            client.checkpoint(RECOVERED)
        self.kill()
        for path in self.segments.iterdir():
            path.unlink()
        shutil.move(self.state / "checkpoints", self.before / "recovered")
        self.ordinary()
        pieces = {"w": emad.Piece((8,), (0,))}
        with emad.Client(self.url) as client:
            train(client, ADOPTED, 2)
            client.checkpoint(ADOPTED)
            train(client, ADOPTED, 4)
            with client.trainer(HALVED, {"w": np.ones(4, np.float32)}, rank=0, world=2, pieces=pieces) as half:
                half.push(1, {"w": np.ones(4, np.float32)})
                self.kill()
        shutil.copytree(self.before / "recovered", self.state / "checkpoints", dirs_exist_ok=True)
        for folder in (self.state, self.segments):
            shutil.copytree(folder, self.before / folder.name)

    def restore(self):
        for folder in (self.state, self.segments):
            shutil.rmtree(folder)
            shutil.copytree(self.before / folder.name, folder)
        self.segments.chmod(0o700)



class Attempt:
    """What became of a start whose nth allocation failed."""

    def __init__(self, start, fails, expected):
        self.wrong = []
        start.restore()
        before = contents(start.state, start.segments)
        try:
            start.begin(fails)
            self.is_ready = True
        except RuntimeError:
            self.is_ready = False
        self.fails, self.log = fails, start.log()
        self.has_failed = "scarce: " in self.log
        self.sentences = [line for line in self.log.splitlines() if line.startswith("emad: ")]
        if self.is_ready and not self.has_failed:
            start.kill()
            return
        serves = not self.is_ready or fails.endswith("+") or is_served(start, expected)
        self.status = start.stop() if self.is_ready else start.process.returncode
        self.expect(serves or self.is_excused(), "serves something else")
        after = contents(start.state, start.segments)
        if not self.is_ready:
            self.expect(before.keys() <= after.keys(), f"without {before.keys() - after.keys()}")
            checkpoints = {path for path in after if "/checkpoints/" in path}
            self.expect(all(after[path] == before.get(path) for path in checkpoints), "checkpoints were changed")
        if self.is_ready or after != before:
            start.ordinary()
            self.expect(is_served(start, expected), "leaves something else")
            start.kill()
        self.check()

    def expect(self, holds, what):
        if not holds:
            self.wrong.append(f"allocation {self.fails}: {what}\n{self.log}")

    def is_excused(self):
        return self.status in (-signal.SIGABRT, -signal.SIGSEGV) and any(part in self.log for part in EXCUSED)

    def check(self):
        """Either it serves, and ends in order; or a status and a sentence say that it cannot."""
        if self.status < 0:
            self.expect(self.is_excused(), "hangs" if self.status == -signal.SIGKILL else f"died of signal {-self.status}")
        elif self.is_ready:
            self.expect(self.status == 0 or self.fails.endswith("+"), f"exit status {self.status} after an orderly end")
        else:
            # Certificates that mbedTLS has no memory for are wrong certificates to it.
            statuses = (os.EX_OSERR, os.EX_CONFIG) if "libmbed" in self.log else (os.EX_OSERR,)
            self.expect(self.status in statuses, f"exit status {self.status}")
            self.expect(self.sentences and self.sentences[-1] not in MUTE, "does not say what could not be done")


PROGRAMS = ["release/emad_scarce"] + (["release/emad_scarce_all", "asan/emad_scarce"] if ALL else [])


@pytest.fixture
def start(request, tmp_path):
    build, program = request.param.split("/")
    segments = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="emad-scarce-"))
    try:
        begun = Start(tmp_path, segments, ROOT / "build" / build / "tests" / "integration" / program)
        begun.fill()
        yield begun
        begun.kill()
    finally:
        shutil.rmtree(segments)


@pytest.mark.parametrize("how", ["once", "for ever"])
@pytest.mark.parametrize("start", PROGRAMS, indirect=True)
def test_a_start_without_memory_says_so_or_serves_all_that_was_there(start, how):
    start.restore()
    start.ordinary()
    expected = served(start)
    start.kill()
    assert len(expected[0]) == 4 and expected[1] == 2
    wrong = []
    for nth in itertools.count(1):
        attempt = Attempt(start, f"{nth}+" if how == "for ever" else str(nth), expected)
        if not attempt.has_failed:
            break
        wrong += attempt.wrong
    assert not wrong, "\n".join(wrong)
    assert attempt.is_ready and nth > 100
