"""
A systemd of its own for the tests of the service: what was built is installed into it, and commands run inside.
"""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD", "release")
HOST = os.path.join(ROOT, "tests/systemd/host.sh")
WAIT_SECONDS = 30


class Host:
    """A systemd in a folder; network: the namespace that it is in."""

    def __init__(self, folder, network=None):
        self.folder = folder
        self._within = ["nsenter", f"--net=/run/netns/{network}"] if network else []

    def start(self):
        done = subprocess.run([*self._within, HOST, "start", self.folder], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit(done.returncode)

    def stop(self):
        """As if its power had been cut."""
        subprocess.run([HOST, "stop", self.folder], check=False)

    def run(self, *command, check=True):
        done = subprocess.run(
            [HOST, "run", self.folder, *command], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def property(self, name, unit="emad.service"):
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def wait(self, what, condition):
        due = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < due, f"{what} did not happen in {WAIT_SECONDS} s: {self.status()}"
            time.sleep(0.05)

    def status(self):
        return self.run("systemctl", "status", "--no-pager", "emad.service", check=False).stdout

    def write(self, path, text):
        """A file inside."""
        self.run("mkdir", "-p", os.path.dirname(path))
        self.run("bash", "-c", 'printf %s "$1" >"$2"', "bash", text, path)

    def ping(self, directory="/run/emad"):
        return json.loads(self.run("emactl", "--json", "--socket", f"ipc://{directory}/emad.sock", "ping").stdout)

    def open(self, *command):
        """A program inside that is spoken to line by line."""
        return subprocess.Popen(
            [HOST, "run", self.folder, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "HOST_SECONDS": "280"},
        )

    def restarts(self):
        return int(self.property("NRestarts"))


@contextlib.contextmanager
def installed(*programs, network=None):
    """A host that runs, with programs of the integration tests in its folder. Ends the test where none can run."""
    with tempfile.TemporaryDirectory(prefix="emad-systemd-") as folder:
        os.chmod(folder, 0o755)
        subprocess.run(
            ["make", "-s", "--no-print-directory", "install", f"BUILD={BUILD}", "PREFIX=/usr/local",
             f"DESTDIR={folder}/root"],
            cwd=ROOT, check=True, stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"},
        )
        for program in programs:
            shutil.copy(os.path.join(ROOT, f"build/{BUILD}/tests/integration", program), folder)
        host = Host(folder, network)
        host.start()
        try:
            yield host
        finally:
            host.stop()


def run_all(host, tests):
    """The exit status."""
    passed = failed = skipped = 0
    host.run("systemctl", "start", "systemd-journald", check=False)
    for test in tests:
        try:
            reason = test(host)
        except (AssertionError, OSError, ValueError):
            print(f"{test.__name__}: {traceback.format_exc()}")
            failed += 1
            continue
        if reason:
            print(f"{test.__name__}: skipped: {reason}")
        passed, skipped = passed + (not reason), skipped + bool(reason)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0
