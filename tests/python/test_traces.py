"""The averages that the reference implementations computed, call by call, replayed through a real daemon.

tests/vectors/README.md says how they were recorded. Everything is float64; what a schedule's library does with buffers
and integers is part of the trace, and null where it holds parameters only.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

TRACES = json.loads((Path(__file__).parents[1] / "vectors" / "reference_traces.json").read_text())

# trace: (schedule, steps per call, tensors that are compared)
REPLAYS = {
    "yolov7.ModelEMA": ("yolo", 1, "w rb nb"),
    "torch_ema": ("torch-ema", 1, "w rb nb"),
    "ema_pytorch.EMA(defaults)": ("ema-pytorch", 1, "w rb nb"),
    "ema_pytorch.EMA(after=3,every=2)": ("ema-pytorch:after=3,every=2,decay=0.99", 1, "w rb nb"),
    "ema_pytorch.EMA(after=0,every=1,min=.2)": ("ema-pytorch:after=0,every=1,min=0.2", 1, "w rb nb"),
    "ema_pytorch.KarrasEMA(sigma=.05,every=1)": ("ema-pytorch-karras:sigma=0.05,every=1", 1, "w rb nb"),
    "edm2.PowerFunctionEMA(std=0.05,batch=128)": ("power:std=0.05", 128, "w"),
    "edm2.PowerFunctionEMA(std=0.1,batch=128)": ("power:std=0.1", 128, "w"),
    "edm2.TraditionalEMA": ("edm", 128, "w"),
    "mmengine.SWA": ("swa", 1, "w rb nb"),
    "mmengine.EMA(m=.0002)": ("mmengine", 1, "w rb nb"),
    "mmengine.MomentumAnnealing": ("mmengine-annealing", 1, "w rb nb"),
    "k_diffusion.EMAWarmup({})": ("k-diffusion", 1, "w rb nb"),
    "diffusers.EMAModel({})": ("diffusers", 1, "w rb nb"),
    "diffusers.EMAModel({'use_ema_warmup': True})": ("diffusers:warmup=1", 1, "w rb nb"),
    "diffusers.EMAModel({'min_decay': 0.3, 'update_after_step': 4})": ("diffusers:min_decay=0.3,after=4", 1, "w rb nb"),
    # torch 1.13 left buffers at the start, later releases copy them, which is what the schedule does.
    "torch.AveragedModel SWA (torch 1.13.0a0)": ("swa", 1, "w"),
}


def state(call):
    """The trained model at a call, as the recording defines it."""
    return {
        "w": np.array([math.cos(0.37 * call + j) + 0.01 * call for j in range(3)]),
        "rb": np.array(math.sin(0.11 * call)),
        "nb": np.array(7 * call + 3, np.int64),
    }


@pytest.mark.parametrize("trace", sorted(REPLAYS))
def test_replayed_trace(client, name, trace):
    schedule, stride, compared = REPLAYS[trace]
    recorded = TRACES[trace]
    with client.trainer(name, state(0), profiles={"ema": schedule}, buffers=["rb", "nb"]) as trainer:
        for row in recorded["trace"]:
            result = trainer.push(row["n"] * stride, state(row["n"]), wait=True)
            assert result.outcome == "applied"
            with client.view(name) as view:
                assert view.decay == pytest.approx(row["d"], rel=1e-9, abs=1e-9)
                for key in compared.split():
                    if row[key] is None:
                        assert key not in view  # that library holds parameters only
                    else:
                        np.testing.assert_allclose(view[key], row[key], rtol=0, atol=1e-14, err_msg=f"call {row['n']}")
    client.remove(name)


def test_a_constant_decay_is_the_plain_recurrence(client, name):
    expected = state(0)["w"]
    with client.trainer(name, state(0), profiles={"ema": "constant:decay=0.9"}) as trainer:
        for call in range(1, 60):
            trainer.push(call, state(call), wait=True)
            expected = 0.9 * expected + 0.1 * state(call)["w"]
            with client.view(name) as view:
                np.testing.assert_allclose(view["w"], expected, rtol=0, atol=1e-14)


def test_timm_warms_up_as_its_formula_says(client, name):
    expected = state(0)["w"]
    with client.trainer(name, state(0), profiles={"ema": "timm:decay=0.9,warmup=1"}) as trainer:
        for call in range(1, 60):
            trainer.push(call, state(call), wait=True)
            progress = max(0, call - 1)
            decay = 0.0 if progress <= 0 else min(1 - (1 + progress) ** (-2 / 3), 0.9)
            expected = decay * expected + (1 - decay) * state(call)["w"]
            with client.view(name) as view:
                np.testing.assert_allclose(view["w"], expected, rtol=0, atol=1e-14)
