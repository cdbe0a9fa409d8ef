"""The stand that the other tests stand on: a daemon that does not become ready is told of, with its log."""

import sys
import time

import pytest

import conftest
from conftest import DaemonProcess

# It is started in place of a daemon, and says that it is busy until it has said so as often as it shall.
BUSY = """
import itertools, os, socket, sys, time
print("still reading")
sys.stdout.flush()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.connect(os.environ["NOTIFY_SOCKET"])
    for _ in range(int(sys.argv[1])) if sys.argv[1] != "for ever" else itertools.count():
        manager.send(b"STATUS=reading\\nWATCHDOG=1")
        time.sleep(0.01)
"""


@pytest.mark.parametrize("times, said", [("for ever", r"was not ready in 1 s: still reading"), ("3", "ended: still reading")])
def test_a_daemon_that_notifies_but_is_not_ready_is_not_waited_for_for_ever(tmp_path, monkeypatch, times, said):
    process = DaemonProcess(tmp_path)
    if times == "for ever":
        monkeypatch.setattr(conftest, "READY_SECONDS", 1)
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=said):
        process.start(under=[sys.executable, "-c", BUSY, times])
    assert time.monotonic() - begun < 20
    assert process.process.returncode is not None
