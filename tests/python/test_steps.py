"""Steps: what a gap between two of them means to the schedules, and what becomes of pushes while the daemon lags.

Everything is float64 and compared with the formulas, written down once more here.
"""

import math

import numpy as np
import pytest
from conftest import DaemonProcess

import emad


def weights(step):
    return {"w": np.array([math.cos(0.37 * step + j) + 0.01 * step for j in range(3)])}


# The decay of call n (COPY is 0, no action 1), at a step whose predecessor lies a stride before.
DECAYS = {
    "constant:decay=0.9": lambda n: 0.9,
    "yolo:decay=0.999,tau=20": lambda n: 0.999 * (1 - math.exp(-n / 20)),
    "torch-ema:decay=0.9": lambda n: min(0.9, (1 + n) / (10 + n)),
    "diffusers:decay=0.95": lambda n: 0.0 if n <= 1 else min(n / (9 + n), 0.95),
    "swa": lambda n: (n - 1) / n,
    "ema-pytorch:every=3,after=4,decay=0.99": lambda n: ema_pytorch(n, 3, 4, 0.99),
    "linear:start=0.5,end=0.9,total=10": lambda n: 0.9 - 0.4 * (1 - min(n - 1, 10) / 10),
    "lightning:every=4,decay=0.8": lambda n: 1.0 if n % 4 else 0.0 if n == 4 else 0.8,
}


def ema_pytorch(n, every, after, decay):
    if n == 1:
        return 0.0
    if (n - 1) % every:
        return 1.0
    if n - 1 <= after:
        return 0.0
    progress = max(0, n - after - 1)
    return min(max(1 - (1 + progress) ** (-2 / 3), 0.0), decay) if progress else 0.0


STEPS = [1, 2, 3, 5, 6, 12, 13, 40, 41, 300]


@pytest.mark.parametrize("schedule", sorted(DECAYS))
def test_a_gap_is_the_product_of_its_calls(client, name, schedule):
    decay_of = DECAYS[schedule]
    expected, before = weights(0)["w"], 0
    with client.trainer(name, weights(0), profiles={"ema": schedule}) as trainer:
        for step in STEPS:
            result = trainer.push(step, weights(step), wait=True)
            assert (result.outcome, result.calls) == ("applied", step - before)
            decay = math.prod(decay_of(call) for call in range(before + 1, step + 1))
            expected = decay * expected + (1 - decay) * weights(step)["w"]
            before = step
            with client.view(name) as view:
                np.testing.assert_allclose(view["w"], expected, rtol=0, atol=1e-13, err_msg=f"step {step}")
                assert view.decay == pytest.approx(decay, rel=1e-12, abs=1e-15)
    client.remove(name)


def test_a_gap_is_what_pushing_the_same_weights_again_would_have_been(client, name):
    profiles = {"ema": "yolo:decay=0.99,tau=10", "slow": "timm:decay=0.9,warmup=1", "swa": "swa"}
    with client.trainer(f"{name}/each", weights(0), profiles=profiles) as each:
        with client.trainer(f"{name}/gap", weights(0), profiles=profiles) as gap:
            for step in (1, 2, 9, 17):
                gap.push(step, weights(step), wait=True)
            for step in range(1, 18):
                later = next(pushed for pushed in (1, 2, 9, 17) if pushed >= step)
                each.push(step, weights(later), wait=True)
    for profile in profiles:
        with client.view(f"{name}/each", profile) as one, client.view(f"{name}/gap", profile) as other:
            np.testing.assert_allclose(one["w"], other["w"], rtol=0, atol=1e-14, err_msg=profile)
            assert one.updates == other.updates


def test_a_schedule_of_distances_makes_one_call_of_a_gap(client, name):
    exponent = 16.97219860229  # of std 0.05
    expected, before = weights(0)["w"], 0
    with client.trainer(name, weights(0), profiles={"ema": "power:std=0.05"}, stride=128) as trainer:
        for step in (128, 256, 1024, 1152, 12800):
            calls = (step - before) // 128
            result = trainer.push(step, weights(step), wait=True)
            assert result.calls == calls
            decay = (1 - (step - before) / step) ** (exponent + 1)
            expected = decay * expected + (1 - decay) * weights(step)["w"]
            before = step
            with client.view(name) as view:
                np.testing.assert_allclose(view["w"], expected, rtol=0, atol=1e-11)


def test_a_stride_says_how_many_steps_a_call_is(client, name):
    expected = weights(0)["w"]
    with client.trainer(name, weights(0), profiles={"ema": "constant:decay=0.5"}, stride=10) as trainer:
        for step, calls in ((10, 1), (20, 1), (50, 3), (55, 1), (74, 1), (94, 2)):
            assert trainer.push(step, weights(step), wait=True).calls == calls
            expected = 0.5**calls * expected + (1 - 0.5**calls) * weights(step)["w"]
        with client.view(name) as view:
            np.testing.assert_allclose(view["w"], expected, rtol=0, atol=1e-15)
        assert client.show(name)["stride"] == 10


def test_a_gap_beyond_a_million_calls_asks_for_a_stride(client, name):
    with client.trainer(name, weights(0), profiles={"ema": "yolo"}) as trainer:
        trainer.push(1, weights(1), wait=True)
        with pytest.raises(emad.ArgumentError, match="stride"):
            trainer.push(10**9, weights(2))
        assert trainer.push(2, weights(2), wait=True).outcome == "applied"


def test_a_refused_push_leaves_a_gap(client, name):
    with client.trainer(name, weights(0), profiles={"ema": "constant:decay=0.5"}) as trainer:
        trainer.push(1, weights(1), wait=True)
        assert trainer.push(2, {"w": np.full(3, np.nan)}, wait=True).outcome == "nonfinite"
        assert trainer.push(3, weights(3), wait=True).calls == 2
        expected = 0.25 * (0.5 * weights(0)["w"] + 0.5 * weights(1)["w"]) + 0.75 * weights(3)["w"]
        with client.view(name) as view:
            np.testing.assert_allclose(view["w"], expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("bad, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_strides_that_are_none(client, name, bad, error):
    with pytest.raises(error, match="stride"):
        client.trainer(name, weights(0), stride=bad)


@pytest.mark.parametrize("what", ["resume", "rewind", "policy"])
def test_choices_that_are_none_name_all(client, name, what):
    with pytest.raises(ValueError, match=what + ".*must be one of"):
        client.trainer(name, weights(0), **{what: "perhaps"})


# The daemon lags: of its two slots one holds the newest version and the other is pinned by a reader, for longer than
# any test takes.


@pytest.fixture
def lagging(tmp_path):
    process = DaemonProcess(tmp_path, "[limits]\nslots=2\nstages=2\nlease-min=10min\n")
    process.start()
    with emad.Client(process.url) as client:
        yield client
    process.kill()


def pinned(client, name, trainer):
    """A view of the start, with step 1 published in the other slot: nothing can be applied until it is closed."""
    view = client.view(name)
    assert trainer.push(1, weights(1), wait=True).outcome == "applied"
    return view


def test_block_waits_for_a_stage_and_then_says_busy(lagging, name):
    with lagging.trainer(name, weights(0), profiles={"ema": "constant:decay=0.5"}) as trainer:
        with pinned(lagging, name, trainer):
            assert trainer.push(2, weights(2)).outcome == "accepted"
            assert trainer.push(3, weights(3)).outcome == "accepted"
            with pytest.raises(emad.BusyError, match="lags"):
                trainer.push(4, weights(4), timeout=0.1)
        assert trainer.push(5, weights(5), wait=True).calls == 2
        assert trainer.flush().coalesced == 0


def test_skip_returns_at_once_and_the_next_push_stands_for_it(lagging, name):
    with lagging.trainer(name, weights(0), profiles={"ema": "constant:decay=0.5"}, policy="skip") as trainer:
        with pinned(lagging, name, trainer):
            assert [trainer.push(step, weights(step)).outcome for step in (2, 3)] == ["accepted"] * 2
            for step in (4, 5, 6):
                skipped = trainer.push(step, weights(step))
                assert (skipped.outcome, skipped.step, skipped.version) == ("skipped", step, 0)
            trainer.push_begin(7, weights(7))
            trainer.fence()
            assert trainer.info().skipped == 4
        trainer.flush()
        assert trainer.push(8, weights(8), wait=True).calls == 5
        expected = weights(0)["w"]
        for step, calls in ((1, 1), (2, 1), (3, 1), (8, 5)):
            expected = 0.5**calls * expected + (1 - 0.5**calls) * weights(step)["w"]
        with lagging.view(name) as view:
            np.testing.assert_allclose(view["w"], expected, rtol=0, atol=1e-15)
            assert view.updates == 8


def test_coalesce_gives_up_older_snapshots_for_the_newest(lagging, name):
    with lagging.trainer(name, weights(0), profiles={"ema": "constant:decay=0.5"}, policy="coalesce") as trainer:
        with pinned(lagging, name, trainer):
            for step in range(2, 8):
                assert trainer.push(step, weights(step)).outcome == "accepted"
        flushed = trainer.flush()
        assert (flushed.step, flushed.coalesced) == (7, 5)
        assert trainer.info().coalesced == 5
        with lagging.view(name) as view:
            assert view.updates == 7
            expected = 0.5 * weights(0)["w"] + 0.5 * weights(1)["w"]
            expected = 0.5**6 * expected + (1 - 0.5**6) * weights(7)["w"]
            np.testing.assert_allclose(view["w"], expected, rtol=0, atol=1e-15)
        shown = lagging.show(name)
        assert shown["policy"] == "coalesce"
        assert shown["ranks"][0]["coalesced"] == 5


def test_a_push_that_gave_way_is_told_so(lagging, name):
    """All ranks' pushes of the steps between are given up together."""
    halves = [{"w": emad.Piece((6,), (3 * rank,))} for rank in range(2)]
    profiles = {"ema": "constant:decay=0.5"}
    trainers = []
    for rank in range(2):
        trainers.append(
            lagging.trainer(
                name, weights(0), profiles=profiles, rank=rank, world=2, pieces=halves[rank], policy="coalesce"
            )
        )
    for trainer in trainers:
        trainer.flush()
    with lagging.view(name):
        for step in (1, 2, 3):
            for trainer in trainers:
                assert trainer.push(step, weights(step)).outcome == "accepted"
            if step == 1:
                assert [trainer.flush().step for trainer in trainers] == [1, 1]
    for trainer in trainers:
        flushed = trainer.flush()
        assert (flushed.step, flushed.coalesced) == (3, 1)
    with lagging.view(name) as view:
        assert view.updates == 3
        expected = 0.5 * weights(0)["w"] + 0.5 * weights(1)["w"]
        expected = 0.25 * expected + 0.75 * weights(3)["w"]
        np.testing.assert_allclose(view["w"], np.tile(expected, 2), rtol=0, atol=1e-15)
    for trainer in trainers:
        trainer.close()


def test_a_seed_never_gives_way(lagging, name):
    """What is pushed behind it stands for calls of the schedule, not for it."""
    with lagging.trainer(name, weights(0), profiles={"ema": "constant:decay=0.5"}, policy="coalesce") as trainer:
        with pinned(lagging, name, trainer):
            handle = trainer._begin({"w": np.full(3, 8.0)})
            with trainer._enclosing(handle, None, None, b"ema", 1):
                assert trainer._push(handle, 1, 0, None).outcome == "accepted"
            for step in range(2, 6):
                assert trainer.push(step, {"w": np.zeros(3)}).outcome == "accepted"
        assert trainer.flush().coalesced == 3
        with lagging.view(name) as view:
            assert view["w"].tolist() == [8 / 2**4] * 3
