"""Going back to an older checkpoint, and averages that were made elsewhere."""

import warnings

import numpy as np
import pytest

import emad

HALF = {"ema": "constant:decay=0.5"}


def weights(value):
    return {"w": np.full(4, value, np.float64)}


def value_of(client, name, profile=None):
    with client.view(name, profile) as view:
        return float(view["w"][0])


def trained(client, name, steps, **choices):
    """A model whose step n has the average 1 - 0.5^n; registered, trained and let go."""
    with client.trainer(name, weights(0), profiles=HALF, **choices) as trainer:
        for step in range(1, steps + 1):
            trainer.push(step, weights(1), wait=True)


def test_steps_that_are_averaged_already_are_stale_unless_something_is_said(client, name):
    trained(client, name, 4)
    with client.trainer(name, weights(0), profiles=HALF, start_step=2) as trainer:
        assert trainer.last_step == 4
        with pytest.warns(RuntimeWarning, match="step 2 .*is behind what is averaged already.*resume='never'.*rewind='back'"):
            assert trainer.push(2, weights(9), wait=True).outcome == "stale"
        with warnings.catch_warnings(record=True) as repeated:
            warnings.simplefilter("always")
            assert trainer.push(3, weights(9), wait=True).outcome == "stale"
        assert not repeated
        assert trainer.push(4, weights(9), wait=True).outcome == "duplicate"
        assert trainer.push(5, weights(1), wait=True).outcome == "applied"
    assert value_of(client, name) == 1 - 0.5**5


def test_continue_keeps_the_average_and_takes_older_steps(client, name):
    trained(client, name, 4)
    with client.trainer(name, weights(0), profiles=HALF, start_step=2, rewind="continue") as trainer:
        assert trainer.resumed
        assert trainer.last_step == 2
        result = trainer.push(3, weights(1), wait=True)
        assert (result.outcome, result.calls) == ("applied", 1)
        assert value_of(client, name) == 1 - 0.5**5
        with client.view(name) as view:
            assert (view.step, view.updates) == (3, 5)
            assert [entry["change"] for entry in view.history] == ["continued"]
            assert view.history[0]["from"] == "step 4"
        assert trainer.push(3, weights(1), wait=True).outcome == "duplicate"


def test_back_finds_the_average_of_that_step(client, name):
    trained(client, name, 4)
    with client.trainer(name, weights(0), profiles=HALF, start_step=3, rewind="back") as trainer:
        assert trainer.last_step == 3
        assert value_of(client, name) == 1 - 0.5**3
        with client.view(name) as view:
            assert (view.step, view.updates) == (3, 3)
            assert view.history[-1]["change"] == "rewound"
            assert view.history[-1]["from"] == "step 4"
        assert trainer.push(4, weights(0), wait=True).calls == 1
        assert value_of(client, name) == (1 - 0.5**3) / 2


def test_back_to_a_step_between_two_kept_versions_takes_the_older(client, name):
    with client.trainer(name, weights(0), profiles=HALF) as trainer:
        trainer.push(1, weights(1), wait=True)
        trainer.push(10, weights(1), wait=True)
    with client.trainer(name, weights(0), profiles=HALF, start_step=7, rewind="back") as trainer:
        assert trainer.last_step == 1
        assert value_of(client, name) == 0.5
        assert trainer.push(8, weights(1), wait=True).calls == 7


def test_back_beyond_what_is_kept_says_what_there_is(client, name):
    trained(client, name, 9)
    with pytest.raises(emad.NoVersionError, match="rewind=continue") as caught:
        client.trainer(name, weights(0), profiles=HALF, start_step=2, rewind="back")
    assert "step 7" in str(caught.value)  # the oldest of three slots
    assert value_of(client, name) == 1 - 0.5**9
    with client.trainer(name, weights(0), profiles=HALF) as trainer:
        assert trainer.push(10, weights(1), wait=True).outcome == "applied"


@pytest.mark.parametrize("rewind", ["continue", "back"])
def test_nothing_is_rewound_where_training_is_ahead(client, name, rewind):
    trained(client, name, 4)
    with client.trainer(name, weights(0), profiles=HALF, start_step=4, rewind=rewind) as trainer:
        assert trainer.last_step == 4
        assert trainer.push(5, weights(1), wait=True).calls == 1
    with client.view(name) as view:
        assert view.history == []
    assert value_of(client, name) == 1 - 0.5**5


def test_a_stride_is_kept_over_a_rewind(client, name):
    with client.trainer(name, weights(0), profiles=HALF, stride=128) as trainer:
        for step in range(128, 128 * 6, 128):
            trainer.push(step, weights(1), wait=True)
    with client.trainer(
        name, weights(0), profiles=HALF, stride=128, start_step=256, rewind="continue"
    ) as trainer:
        assert trainer.push(384, weights(1), wait=True).calls == 1
        assert trainer.push(640, weights(1), wait=True).calls == 2
        assert value_of(client, name) == 1 - 0.5**8


def test_a_view_of_a_version_that_was_gone_back_behind_is_told(client, name):
    trained(client, name, 4)
    with client.view(name) as newest:
        with client.trainer(name, weights(0), profiles=HALF, start_step=3, rewind="back"):
            assert (newest["w"] == 1 - 0.5**4).all()
            newest.check()
            assert client.view(name).version > newest.version


# Seeds


def test_a_seed_becomes_the_average_and_the_schedule_goes_on_from_its_count(client, name):
    profiles = {"ema": "yolo:decay=0.9,tau=5", "half": "constant:decay=0.5"}
    with client.trainer(name, weights(0), profiles=profiles) as trainer:
        trainer.push(1, weights(1), wait=True)
        half = value_of(client, name, "half")
        result = trainer.seed("ema", weights(7), updates=40, step=100, metadata={"from": "best.pt"})
        assert (result.outcome, result.step) == ("applied", 100)
        assert value_of(client, name, "ema") == 7
        assert value_of(client, name, "half") == half
        with client.view(name, "ema") as view:
            assert (view.step, view.updates, view.metadata) == (100, 40, {"from": "best.pt"})
            assert view.history[-1]["change"] == "seeded"
            assert view.history[-1]["updates"] == 40
        with client.view(name, "half") as view:
            assert view.history == []
        trainer.push(101, weights(1), wait=True)
        decay = 0.9 * (1 - np.exp(-41 / 5))
        assert value_of(client, name, "ema") == pytest.approx(decay * 7 + (1 - decay), rel=1e-15)
        assert value_of(client, name, "half") == (half + 1) / 2


def test_a_seed_of_an_older_step_counts_as_of_the_newest(client, name):
    with client.trainer(name, weights(0), profiles=HALF, start_step=5) as trainer:
        trainer.push(6, weights(1), wait=True)
        trainer.seed("ema", weights(7), updates=3, step=2)
        with client.view(name) as view:
            assert (view.step, view.updates) == (6, 3)
        assert trainer.push(7, weights(1), wait=True).calls == 1
        assert value_of(client, name) == 4


def test_a_seed_without_a_step_belongs_to_the_newest(client, name):
    with client.trainer(name, weights(0), profiles=HALF, start_step=5) as trainer:
        trainer.push(6, weights(1))
        assert trainer.seed("ema", weights(7), updates=3).outcome == "applied"
        with client.view(name) as view:
            assert (view.step, view.updates) == (6, 3)
        assert trainer.push(7, weights(1), wait=True).calls == 1
        assert value_of(client, name) == 4


def test_a_seed_that_is_not_finite_is_an_error_and_changes_nothing(client, name):
    with client.trainer(name, weights(1), profiles=HALF) as trainer:
        with pytest.raises(emad.RefusedError, match="nonfinite.*'w'") as caught:
            trainer.seed("ema", weights(np.nan), updates=3)
        assert caught.value.result.outcome == "nonfinite"
        assert value_of(client, name) == 1


def test_seeds_of_profiles_and_counts_that_are_none(client, name):
    with client.trainer(name, weights(1), profiles=HALF) as trainer:
        with pytest.raises(emad.NoProfileError, match="fast"):
            trainer.seed("fast", weights(1), updates=3)
        with pytest.raises(TypeError, match="updates"):
            trainer.seed("ema", weights(1), updates=3.5)
        with pytest.raises(ValueError, match="updates"):
            trainer.seed("ema", weights(1), updates=-1)
        assert trainer.push(1, weights(2), wait=True).outcome == "applied"
        assert value_of(client, name) == 1.5


def test_norm_jump_does_not_judge_a_seed(client, name):
    with client.trainer(name, weights(1), profiles=HALF, guards="norm_jump=0.5") as trainer:
        trainer.push(1, weights(1), wait=True)
        trainer.seed("ema", weights(100), updates=1)
        assert value_of(client, name) == 100
