"""What the daemon writes where there is no journal: plain lines, and not the same one for ever."""

import re

import numpy as np

import emad

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
