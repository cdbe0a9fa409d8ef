"""Fixtures: one real daemon for the session in a directory of its own, and clients of it.

EMAD_DAEMON names the program, EMAD_LIBRARY the library; without them those of build/$BUILD are used.
"""

import http.client
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "client" / "python"
BUILD = ROOT / "build" / os.environ.get("BUILD", "release")
READY_SECONDS = 30

sys.path.insert(0, str(PACKAGE))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are small, and torch's threads wait busily for each other

import emad  # noqa: E402


class DaemonProcess:
    """A daemon in a directory: it may be killed and started again there."""

    def __init__(self, directory: Path, settings: str = ""):
        self.directory = directory
        self.configuration = directory / "emad.conf"
        self.configuration.write_text(settings)
        self.url = f"ipc://{directory}/emad.sock"
        self.process = None

    def start(self, state=None, under=()) -> None:
        """state: the state directory instead of that beside the sockets; "": none. under: a program that starts it."""
        program = os.environ.get("EMAD_DAEMON", str(BUILD / "emad"))
        notify = self.directory / "notify"
        if state is None:
            state = self.directory / "state"
            state.mkdir(exist_ok=True)
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            notify.chmod(0o777)  # it may be started as somebody else
            environment = {**os.environ, "NOTIFY_SOCKET": str(notify)}
            environment.pop("EMAD_SOCKET", None)
            with open(self.directory / "log", "ab") as log:
                self.process = subprocess.Popen(
                    [*under, program, "--config", self.configuration, "--runtime-dir", self.directory, "--state-dir", state],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._wait_ready(ready)

    def _wait_ready(self, ready: socket.socket) -> None:
        ended = os.pidfd_open(self.process.pid)
        deadline = time.monotonic() + READY_SECONDS
        try:
            while True:
                # What it notifies meanwhile, of its progress or to its watchdog, gives it no more time.
                readable, _, _ = select.select([ready, ended], [], [], max(0, deadline - time.monotonic()))
                if ready in readable:
                    if b"READY=1" in ready.recv(65536).split(b"\n"):
                        return
                    if time.monotonic() < deadline:
                        continue
                what = "ended" if ended in readable else f"was not ready in {READY_SECONDS} s"
                self.kill()
                raise RuntimeError(f"the daemon {what}: {self.log()}")
        finally:
            os.close(ended)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


@pytest.fixture(scope="session")
def daemon(tmp_path_factory):
    # The tests leave their models behind.
    process = DaemonProcess(tmp_path_factory.mktemp("emad"), "[limits]\nmodels-max=10000\n")
    process.start()
    yield process
    assert process.process.poll() is None, f"the daemon died during the tests: {process.log()}"
    assert process.stop() == 0


@pytest.fixture(scope="session")
def emactl():
    """The tool's path."""
    return Path(os.environ.get("EMACTL", BUILD / "emactl"))


@pytest.fixture
def own_daemon(tmp_path):
    """A daemon that the test may kill."""
    process = DaemonProcess(tmp_path, "[limits]\nlease-min=100ms\n")
    process.start()
    yield process
    process.kill()


@pytest.fixture
def client(daemon):
    with emad.Client(daemon.url) as opened:
        yield opened


@pytest.fixture
def name(request):
    """A model name of the test's own."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", request.node.name).strip("-.")[:150]


@pytest.fixture
def run_python(daemon):
    """Runs a program with the package on its path and the daemon in EMAD_SOCKET; returns the finished process."""

    def run(program: str, *arguments: str, timeout: float = 120, **environment: str):
        paths = [str(PACKAGE), str(Path(__file__).parent)]
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "EMAD_SOCKET": daemon.url, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


# ---- HTTP -----------------------------------------------------------------------------------------------------------

def on_terminal(tool, *arguments, environment=None):
    """What the tool prints when both of its outputs are a terminal, and its exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execve(tool, [tool, *map(str, arguments)], {**os.environ, "TERM": "xterm", **(environment or {})})
        finally:
            os._exit(127)
    printed = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break
        if not chunk:
            break
        printed += chunk
    os.close(terminal)
    return printed.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


HTTP_SETTINGS = "[http]\nhttp-listen=127.0.0.1:0\n"


def port_of(process: DaemonProcess) -> int:
    return int(re.findall(r"HTTP at 127\.0\.0\.1:(\d+)", process.log())[-1])


class Web:
    """Requests to a daemon, each on a connection of its own."""

    def __init__(self, process: DaemonProcess):
        self.port = port_of(process)

    def request(self, path: str, method: str = "GET", **headers):
        """The response, its body read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        response.text = response.read()
        connection.close()
        return response

    def json(self, path: str, status: int = 200, **headers):
        response = self.request(path, **headers)
        assert response.status == status, response.text
        assert response.headers["Content-Type"] == "application/json"
        return json.loads(response.text)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A daemon with HTTP."""
    process = DaemonProcess(tmp_path_factory.mktemp("http"), HTTP_SETTINGS + "[limits]\nlease-min=200ms\n")
    process.start()
    yield process
    assert process.process.poll() is None, process.log()
    assert process.stop() == 0


@pytest.fixture(scope="module")
def web(served):
    return Web(served)
