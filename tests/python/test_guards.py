"""Guards: what keeps a snapshot out of the averages, and how that is told."""

import math

import numpy as np
import pytest
import torch

import emad
import emad.torch

HALF = {"ema": "constant:decay=0.5"}


def weights(value):
    return {"a": np.full(8, value, np.float32), "b": np.full(8, value, np.float32)}


def spoiled(value, *places):
    bad = weights(value)
    for place, what in places:
        bad["b"][place] = what
    return bad


def test_a_tensor_that_is_not_finite_keeps_its_average_and_the_others_go_on(client, name):
    with client.trainer(name, weights(0), profiles=HALF, guards="nonfinite=skip-tensor") as trainer:
        result = trainer.push(1, spoiled(1, (3, np.nan), (7, np.inf)), wait=True)
        assert result.outcome == "applied"
        with client.view(name) as view:
            assert (view["a"] == 0.5).all()
            assert (view["b"] == 0).all()
        assert trainer.push(2, weights(1), wait=True).outcome == "applied"
        with client.view(name) as view:
            assert (view["a"] == 0.75).all()
            assert (view["b"] == 0.5).all()
        shown = client.show(name)
        assert "'b'" in shown["ranks"][0]["refusal"]
        assert shown["guards"] == "nonfinite=skip-tensor"
        assert trainer.flush().refused_count == 0


def test_not_finite_values_are_taken_where_that_is_wanted_and_the_image_says_so(client, name):
    with client.trainer(name, weights(0), profiles=HALF, guards={"nonfinite": "apply"}) as trainer:
        assert trainer.push(1, spoiled(1, (3, np.nan)), wait=True).outcome == "applied"
        with client.view(name) as view:
            assert np.isnan(view["b"]).tolist() == [False] * 3 + [True] + [False] * 4
            assert (view["a"] == 0.5).all()
            assert view.image_metadata["emad.nonfinite"] == "1"
        assert client.show(name)["profiles"][0]["nonfinite"] == 1


def test_a_loss_above_the_limit_is_refused(client, name):
    with client.trainer(name, weights(0), profiles=HALF, guards={"loss_max": 2.5}) as trainer:
        assert trainer.push(1, weights(1), wait=True, loss=2.5).outcome == "applied"
        refused = trainer.push(2, weights(9), wait=True, loss=2.75)
        assert (refused.outcome, refused.version, refused.calls) == ("loss", 0, 0)
        assert "2.75" in refused.refusal and "2.5" in refused.refusal
        assert trainer.push(3, weights(9), wait=True, loss=math.nan).outcome == "loss"
        assert trainer.push(4, weights(9), wait=True, loss=math.inf).outcome == "loss"
        with client.view(name) as view:
            assert (view.step, float(view["a"][0])) == (1, 0.5)
        with pytest.raises(emad.RefusedError, match="loss") as caught:
            trainer.flush()
        assert caught.value.result.refused_count == 3
        # A push that does not say its loss is not kept out, and stands for the calls of those that were.
        assert trainer.push(5, weights(1), wait=True).calls == 4


def test_a_loss_is_of_one_push_alone(client, name):
    with client.trainer(name, weights(0), profiles=HALF, guards="loss_max=1") as trainer:
        assert trainer.push(1, weights(1), wait=True, loss=5).outcome == "loss"
        assert trainer.push(2, weights(1), wait=True).outcome == "applied"
        trainer.push_begin(3, weights(9), loss=5)
        trainer.fence()
        with pytest.raises(emad.RefusedError, match="step 3.*loss"):
            trainer.flush()
        trainer.push_begin(4, weights(1), loss=0.5)
        assert trainer.flush().step == 4


def test_what_a_failed_push_carried_is_not_carried_by_the_next(client, name):
    with client.trainer(name, weights(0), profiles=HALF, guards="loss_max=1") as trainer:
        with pytest.raises(TypeError):
            trainer.push("nothing", weights(1), loss=5, metadata={"lost": True})
        assert trainer.push(1, weights(1), wait=True).outcome == "applied"
        with client.view(name) as view:
            assert view.metadata == {}


def test_a_norm_that_jumps_is_refused(client, name):
    with client.trainer(name, weights(1), profiles=HALF, guards="norm_jump=0.5") as trainer:
        assert trainer.push(1, weights(1.25), wait=True).outcome == "applied"
        refused = trainer.push(2, spoiled(1.25, (0, 100.0)), wait=True)
        assert refused.outcome == "norm-jump"
        assert "'b'" in refused.refusal and "0.5" in refused.refusal
        with client.view(name) as view:
            assert view.step == 1
        assert trainer.push(3, weights(1.75), wait=True).outcome == "applied"  # of the snapshot before, not the average


def test_guards_last_until_the_next_registration(client, name):
    with client.trainer(name, weights(0), profiles=HALF, guards="loss_max=1,norm_jump=2,nonfinite=apply"):
        assert client.show(name)["guards"] == "nonfinite=apply,loss_max=1,norm_jump=2"
    with client.trainer(name, weights(0), profiles=HALF) as trainer:
        assert client.show(name)["guards"] == "nonfinite=refuse"
        assert trainer.push(1, spoiled(1, (0, np.nan)), wait=True).outcome == "nonfinite"


@pytest.mark.parametrize(
    "guards, said",
    [
        ("loss=1", "loss_max"),
        ("nonfinite=never", "skip-tensor"),
        ("loss_max", "no value"),
        ({"norm_jump": -1.0}, "not negative"),
        ({"loss_max": math.inf}, "number"),
    ],
)
def test_guards_that_are_none_are_explained(client, name, guards, said):
    with pytest.raises(emad.ArgumentError, match=said):
        client.trainer(name, weights(0), guards=guards)


def test_guards_of_a_wrong_type(client, name):
    with pytest.raises(TypeError, match="guards"):
        client.trainer(name, weights(0), guards=["loss_max=1"])


def test_metadata_stays_with_its_version(client, name):
    with client.trainer(name, weights(0), profiles=HALF) as trainer:
        trainer.push(1, weights(1), wait=True, metadata={"loss": 0.25, "epoch": 3, "tags": ["a", "ä"]})
        with client.view(name) as view:
            assert view.metadata == {"loss": 0.25, "epoch": 3, "tags": ["a", "ä"]}
            assert client.show(name)["metadata"] == view.metadata
        trainer.push(2, weights(1), wait=True)
        with client.view(name) as view:
            assert view.metadata == {}
        trainer.push_begin(3, weights(1), metadata={"epoch": 4})
        trainer.flush()
        with client.view(name) as view:
            assert view.metadata == {"epoch": 4}


def test_a_loss_that_is_not_finite_does_not_stop_training_by_the_metadata(client, name):
    with client.trainer(name, weights(0), profiles=HALF) as trainer:
        metadata = {"loss": math.nan, "parts": [1.5, math.inf], "NaN": "NaN"}
        assert trainer.push(1, weights(1), wait=True, metadata=metadata).outcome == "applied"
        with client.view(name) as view:
            assert view.metadata == {"loss": None, "parts": [1.5, None], "NaN": "NaN"}


def test_metadata_that_is_none(client, name):
    with client.trainer(name, weights(0), profiles=HALF) as trainer:
        with pytest.raises(emad.LimitError, match="4096"):
            trainer.push(1, weights(1), metadata={"text": "x" * 4096})
        with pytest.raises(TypeError, match="JSON"):
            trainer.push(1, weights(1), metadata={"object": object()})
        with pytest.raises(TypeError, match="metadata"):
            trainer.push(1, weights(1), metadata=[1])
        assert trainer.push(1, weights(1), wait=True).outcome == "applied"


@pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])
def test_model_ema_hands_loss_and_metadata_on(client, name, asynchronous):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if asynchronous else None
    with emad.torch.ModelEMA(
        model, optimizer=optimizer, name=name, client=client, guards={"loss_max": 1.0}, policy="skip"
    ) as ema:
        ema.update(model, loss=0.5, metadata={"epoch": 1})
        ema.flush()
        with client.view(name) as view:
            assert (view.step, view.metadata) == (1, {"epoch": 1})
        ema.update(model, loss=7.0)
        with pytest.warns(RuntimeWarning, match="loss"):
            ema.flush()
        with client.view(name) as view:
            assert view.step == 1
