"""The averages that the reference implementations computed, call by call, replayed through a real daemon.

tests/vectors/README.md says how they were recorded. In float64 the daemon must be within 1e-14 of every value; what a
schedule's library does with buffers and integers is part of the trace, and null where it holds parameters only. In
float32 the same schedules are compared with loops in PyTorch: bit for bit where the form is mul-add, within 2 units in
the last place a call for the others, whose kernels PyTorch fuses differently from version to version.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

RECORDED = json.loads((Path(__file__).parents[1] / "vectors" / "reference_traces.json").read_text())
TRACES = {trace: recorded for trace, recorded in RECORDED.items() if "trace" in recorded}

# trace: (profile, steps per call)
REPLAYS = {
    "yolov7.ModelEMA": ("yolo", 1),
    "torch_ema": ("torch-ema", 1),
    "ema_pytorch.EMA(defaults)": ("ema-pytorch", 1),
    "ema_pytorch.EMA(after=3,every=2)": ("ema-pytorch:after=3,every=2,decay=0.99", 1),
    "ema_pytorch.EMA(after=0,every=1,min=.2)": ("ema-pytorch:after=0,every=1,min=0.2", 1),
    "ema_pytorch.KarrasEMA(sigma=.05,every=1)": ("ema-pytorch-karras:sigma=0.05,every=1", 1),
    "edm2.PowerFunctionEMA(std=0.05,batch=128)": ("power:std=0.05", 128),
    "edm2.PowerFunctionEMA(std=0.1,batch=128)": ("power:std=0.1", 128),
    "edm2.TraditionalEMA": ("edm", 128),
    "mmengine.SWA": ("swa", 1),
    "mmengine.EMA(m=.0002)": ("mmengine", 1),
    "mmengine.EMA(m=.1,buffers)": ("mmengine:momentum=0.1,update_buffers=1", 1),
    "mmengine.MomentumAnnealing": ("mmengine-annealing", 1),
    "k_diffusion.EMAWarmup({})": ("k-diffusion", 1),
    "diffusers.EMAModel({})": ("diffusers", 1),
    "diffusers.EMAModel({'use_ema_warmup': True})": ("diffusers:warmup=1", 1),
    "diffusers.EMAModel({'min_decay': 0.3, 'update_after_step': 4})": ("diffusers:min_decay=0.3,after=4", 1),
    # torch 1.13 left buffers at the start; later releases copy them, which is what the schedule does by itself.
    "torch.AveragedModel SWA (torch 1.13.0a0)": ("swa;freeze=[rn]b", 1),
}

NOT_RECORDED = ("edm2.",)  # these traces say nothing about buffers, which EDM2 copies


def state(call):
    """The trained model at a call, as the recording defines it."""
    return {
        "w": np.array([math.cos(0.37 * call + j) + 0.01 * call for j in range(3)]),
        "rb": np.array(math.sin(0.11 * call)),
        "nb": np.array(7 * call + 3, np.int64),
    }


def test_every_trace_is_replayed():
    assert set(REPLAYS) == set(TRACES)


@pytest.mark.parametrize("trace", sorted(TRACES))
def test_replayed_trace(client, name, trace):
    profile, stride = REPLAYS[trace]
    with client.trainer(name, state(0), profiles={"ema": profile}, buffers=["rb", "nb"], stride=stride) as trainer:
        for row in TRACES[trace]["trace"]:
            result = trainer.push(row["n"] * stride, state(row["n"]), wait=True)
            assert (result.outcome, result.calls) == ("applied", 1)
            with client.view(name) as view:
                assert view.decay == pytest.approx(row["d"], rel=0, abs=1e-13)
                for key in ("w", "rb", "nb"):
                    if row[key] is not None:
                        np.testing.assert_allclose(view[key], row[key], rtol=0, atol=1e-14, err_msg=f"call {row['n']}")
                    elif trace.startswith(NOT_RECORDED):
                        assert view[key] == state(row["n"])[key]
                    else:
                        assert key not in view  # that library holds parameters only
    client.remove(name)


# The forms of an update, as these libraries write them in PyTorch.


def lerp(shadow, value, decay):
    return torch.lerp(shadow, value, 1 - decay)


def mul_add(shadow, value, decay):
    shadow = shadow * decay
    shadow += (1 - decay) * value
    return shadow


def sub(shadow, value, decay):
    return shadow - (1 - decay) * (shadow - value)


FORMS = {"yolo": mul_add, "torch-ema": sub, "diffusers": sub}


def single(call):
    generator = torch.Generator().manual_seed(1000 + call)
    values = torch.randn(4096, generator=generator) * torch.logspace(-6, 3, 4096)
    return {"w": torch.cat([torch.from_numpy(state(call)["w"]).float(), values])}


def units_between(found, expected, scale):
    """In units in the last place of the largest number that went into the update."""
    unit = np.spacing(scale.abs().numpy())
    return ((found.double() - expected.double()).abs().numpy() / unit).max()


@pytest.mark.parametrize("trace", sorted(TRACES))
def test_single_precision_is_that_of_pytorch(client, name, trace):
    profile, stride = REPLAYS[trace]
    form = FORMS.get(profile.split(":")[0], lerp)
    expected = single(0)["w"]
    with client.trainer(name, single(0), profiles={"ema": profile}, stride=stride) as trainer:
        for row in TRACES[trace]["trace"]:
            value = single(row["n"])["w"]
            trainer.push(row["n"] * stride, {"w": value}, wait=True)
            with client.view(name) as view:
                found, decay = view.tensor("w").clone(), view.decay
            assert decay == pytest.approx(row["d"], rel=0, abs=1e-13)
            before = expected
            expected = value if decay == 0 else form(before, value, decay)
            if form is mul_add:
                assert torch.equal(found, expected), f"call {row['n']}"
            elif decay in (0, 1):
                assert torch.equal(found, before if decay == 1 else value), f"call {row['n']}"
            else:
                assert units_between(found, expected, torch.maximum(before.abs(), value.abs())) <= 2
            expected = found
    client.remove(name)


MUL_ADD = {
    "yolo:decay=0.99,tau=10": lambda n: 0.99 * (1 - math.exp(-n / 10)),
    "keras:momentum=0.9": lambda n: 0.0 if n == 1 else 0.9,
    "half-life:half_life=20": lambda n: 2 ** (-1 / 20),
    "fairseq:decay=0.95,start=3": lambda n: 0.0 if n <= 3 else 0.95,
    "constant:decay=0.999,form=mul-add": lambda n: 0.999,
}


@pytest.mark.parametrize("schedule", sorted(MUL_ADD))
def test_a_whole_run_of_mul_add_is_pytorch_s_bit_for_bit(client, name, schedule):
    expected = single(0)["w"]
    with client.trainer(name, single(0), profiles={"ema": schedule}) as trainer:
        for call in range(1, 60):
            value = single(call)["w"]
            trainer.push(call, {"w": value}, wait=True)
            decay = MUL_ADD[schedule](call)
            expected = value if decay == 0 else mul_add(expected, value, decay)
    with client.view(name) as view:
        assert torch.equal(view.tensor("w"), expected)


# Averages that start at zero: no reference was recorded, so the formula is written out.

ZERO_STARTS = {
    "optax:decay=0.9": lambda n: 0.9,
    "optax:decay=0.999": lambda n: 0.999,
    "paddle:mode=threshold": lambda n: min(0.9998, n / (9 + n)),
    "paddle:decay=0.9,mode=exponential": lambda n: 0.9 * (1 - math.exp(-n / 2000)),
}


@pytest.mark.parametrize("steps", [range(1, 41), (1, 2, 5, 6, 20, 21, 40)], ids=["each-call", "gaps"])
@pytest.mark.parametrize("debias", [True, False], ids=["debiased", "as-it-is"])
@pytest.mark.parametrize("schedule", sorted(ZERO_STARTS))
def test_a_start_at_zero_is_divided_out_by_the_true_product(client, name, schedule, debias, steps):
    shadow, product, before = np.zeros(3), 1.0, 0
    with client.trainer(
        name, {"w": state(0)["w"]}, profiles={"ema": schedule + ("" if debias else ",debias=0")}
    ) as trainer:
        with client.view(name) as view:
            np.testing.assert_array_equal(view["w"], state(0)["w"] if debias else np.zeros(3))
        for step in steps:
            value = state(step)["w"]
            assert trainer.push(step, {"w": value}, wait=True).calls == step - before
            for call in range(before + 1, step + 1):
                decay = ZERO_STARTS[schedule](call)
                shadow = decay * shadow + (1 - decay) * value
                product *= decay
            before = step
            expected = shadow / (1 - product) if debias else shadow
            with client.view(name) as view:
                np.testing.assert_allclose(view["w"], expected, rtol=0, atol=2e-13, err_msg=f"step {step}")
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
