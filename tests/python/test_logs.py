"""What the daemon writes where there is no journal: plain lines, and not the same one for ever."""

import fcntl
import os
import re
import time

import numpy as np

import emad
from conftest import DaemonProcess

BURST = 64  # THROTTLE_BURST in daemon/core/throttle.h


def test_a_trainer_whose_every_step_is_refused_does_not_fill_the_log(own_daemon, name):
    count = 4 * BURST
    with emad.Client(own_daemon.url) as client:
        with client.trainer(name, {"w": np.ones(4, np.float32)}) as trainer:
            for step in range(1, count + 1):
                assert trainer.push(step, {"w": np.full(4, np.nan, np.float32)}, wait=True).outcome == "nonfinite"
    assert own_daemon.stop() == 0
    lines = own_daemon.log().splitlines()
    refused = [line for line in lines if re.match(rf"[0-9:.]+ warning: {re.escape(name)}: ", line)]
    left_out = [re.search(r"(\d+) similar messages? w\w+ left out, the last: (.*)", line) for line in lines]
    left_out = [match for match in left_out if match]
    assert BURST <= len(refused) < count // 2
    assert left_out and all(name in match.group(2) for match in left_out)
    assert len(refused) + sum(int(match.group(1)) for match in left_out) == count
    assert lines[-1].endswith(" stopped")


def test_a_log_that_nobody_reads_holds_nothing_up(tmp_path):
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    daemon = DaemonProcess(tmp_path, "[limits]\nmodels-max=10000\n")
    daemon.log = lambda: "(in a pipe)"
    daemon.start()
    try:
        with emad.Client(daemon.url, timeout=10) as client:
            # Each says that it was registered and removed, in more bytes than the pipe takes.
            for number in range(100):
                with client.trainer(f"{'x' * 100}/{number}", {"w": np.ones(4, np.float32)}) as trainer:
                    assert trainer.push(1, {"w": np.ones(4, np.float32)}, wait=True).outcome == "applied"
                client.remove(f"{'x' * 100}/{number}")
            client.ping()
        begun = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - begun < 10
        assert len(os.read(reader, 65536)) > 3000
    finally:
        daemon.kill()
        os.close(reader)
