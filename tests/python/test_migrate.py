"""emad.migrate: averages of other libraries, from their own classes where they are installed, and back again."""

import argparse
import copy
import json
import math
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from models import InProcess, WithBuffers, assert_same
from peers import diffusers_class, ema_pytorch_class, timm_class, torch_ema_class
from torch.optim import swa_utils

import emad.migrate
import emad.torch
from emad.migrate import Loaded

UPDATES = 7



@pytest.fixture
def model():
    torch.manual_seed(0)
    return WithBuffers()


def change(model):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.rand(tensor.shape) if tensor.is_floating_point() else 1)


def parameters_of(model):
    return OrderedDict((name, parameter.detach()) for name, parameter in model.named_parameters())


def averaged(model, average, update):
    for _ in range(UPDATES):
        change(model)
        update()
    return average


def through_a_file(state, tmp_path):
    torch.save(state, tmp_path / "state.pt")
    return tmp_path / "state.pt"


# The real classes


def test_averaged_model_there_and_back(model, tmp_path):
    average = swa_utils.AveragedModel(model)
    averaged(model, average, lambda: average.update_parameters(model))
    loaded = emad.migrate.load(through_a_file(average.state_dict(), tmp_path))
    assert (loaded.kind, loaded.updates, loaded.schedule) == ("averaged-model", UPDATES, None)
    assert_same(loaded.tensors, average.module.state_dict())
    other = swa_utils.AveragedModel(WithBuffers())
    other.load_state_dict(emad.migrate.export(loaded, "averaged-model"))
    assert_same(other.state_dict(), average.state_dict())


def test_timm_there_and_back(model, tmp_path):
    ModelEmaV3 = timm_class()
    average = ModelEmaV3(model, decay=0.9, use_warmup=True)
    for step in range(1, UPDATES):
        change(model)
        average.update(model, step=step)
    loaded = emad.migrate.load(through_a_file(average.state_dict(), tmp_path))
    assert (loaded.kind, loaded.updates, loaded.schedule) == ("timm", None, None)
    assert_same(loaded.tensors, average.module.state_dict())
    other = ModelEmaV3(WithBuffers())
    other.load_state_dict(emad.migrate.export(loaded, "timm"))
    assert_same(other.state_dict(), average.state_dict())


def test_ema_pytorch_there_and_back(model, tmp_path):
    EMA = ema_pytorch_class()
    average = EMA(model, beta=0.9, update_after_step=1, update_every=1)
    averaged(model, average, average.update)
    loaded = emad.migrate.load(through_a_file(average.state_dict(), tmp_path))
    assert (loaded.kind, loaded.updates, loaded.schedule) == ("ema-pytorch", UPDATES, None)
    assert_same(loaded.tensors, average.ema_model.state_dict())
    other = EMA(WithBuffers(), beta=0.9)
    other.load_state_dict(emad.migrate.export(loaded, "ema-pytorch", module=model))
    assert_same(other.state_dict(), average.state_dict())
    alone = EMA(WithBuffers(), beta=0.9, include_online_model=False)
    alone.load_state_dict(emad.migrate.export(loaded, "ema-pytorch"))
    assert_same(alone.ema_model.state_dict(), average.ema_model.state_dict())


@pytest.mark.parametrize("use_num_updates", [True, False])
def test_torch_ema_there_and_back(model, tmp_path, use_num_updates):
    ExponentialMovingAverage = torch_ema_class()
    average = ExponentialMovingAverage(model.parameters(), 0.9, use_num_updates)
    averaged(model, average, average.update)
    average.store()
    path = through_a_file(average.state_dict(), tmp_path)
    for module in (model, None):
        loaded = emad.migrate.load(path, module=module)
        assert loaded.kind == "torch-ema"
        assert loaded.updates == (UPDATES if use_num_updates else 0)
        assert loaded.schedule == "torch-ema:decay=0.9" + ("" if use_num_updates else ",use_num_updates=0")
        names = list(parameters_of(model)) if module else [f"param.{index}" for index in range(6)]
        assert_same(loaded.tensors, dict(zip(names, average.shadow_params)))
        other = ExponentialMovingAverage(WithBuffers().parameters(), 0.1)
        other.load_state_dict(emad.migrate.export(loaded, "torch-ema", module=module))
        assert (other.decay, other.num_updates) == (0.9, average.num_updates)
        assert all(map(torch.equal, other.shadow_params, average.shadow_params))


@pytest.mark.parametrize(
    ("settings", "schedule"),
    [
        ({}, "diffusers"),
        ({"decay": 0.99, "min_decay": 0.1, "update_after_step": 2}, "diffusers:decay=0.99,min_decay=0.1,after=2"),
        ({"use_ema_warmup": True, "inv_gamma": 2.0, "power": 0.75}, "diffusers:warmup=1,gamma=2,power=0.75"),
    ],
    ids=["defaults", "decays", "warm-up"],
)
def test_diffusers_there_and_back(model, tmp_path, settings, schedule):
    EMAModel = diffusers_class()
    average = EMAModel(model.parameters(), **settings)
    averaged(model, average, lambda: average.step(model.parameters()))
    loaded = emad.migrate.load(through_a_file(average.state_dict(), tmp_path), module=model)
    assert (loaded.kind, loaded.updates, loaded.schedule) == ("diffusers", UPDATES, schedule)
    assert_same(loaded.tensors, dict(zip(parameters_of(model), average.shadow_params)))
    other = EMAModel(WithBuffers().parameters())
    other.load_state_dict(emad.migrate.export(loaded, "diffusers", module=model))
    found, expected = other.state_dict(), average.state_dict()
    assert all(map(torch.equal, found.pop("shadow_params"), expected.pop("shadow_params")))
    assert found == expected


# Layouts written down, so that they are tested where the classes are not at hand

DIFFUSERS_STATE = {
    "decay": 0.999,
    "min_decay": 0.0,
    "optimization_step": 1234,
    "update_after_step": 10,
    "use_ema_warmup": True,
    "inv_gamma": 1.0,
    "power": 0.75,
}  # of diffusers 0.42, EMAModel.state_dict(), but for shadow_params


def test_the_layout_of_diffusers(model):
    weights = parameters_of(model)
    state = {**DIFFUSERS_STATE, "shadow_params": list(weights.values())}
    loaded = emad.migrate.load(state, module=model)
    assert (loaded.kind, loaded.updates) == ("diffusers", 1234)
    assert loaded.schedule == "diffusers:decay=0.999,after=10,warmup=1,power=0.75"
    assert_same(loaded.tensors, weights)
    back = emad.migrate.export(loaded, "diffusers", module=model)
    assert all(map(torch.equal, back.pop("shadow_params"), state.pop("shadow_params")))
    assert back == state
    assert {key: type(value) for key, value in back.items()} == {key: type(value) for key, value in state.items()}


@pytest.mark.parametrize("form", ["safetensors", "parts", "bin"])
def test_a_folder_that_diffusers_saved(model, tmp_path, form):
    configuration = {"_class_name": "UNet2DModel", "sample_size": 32, **DIFFUSERS_STATE}
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    with pytest.raises(emad.ArgumentError, match="diffusion_pytorch_model"):
        emad.migrate.load(tmp_path)
    if form == "bin":
        torch.save(model.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    elif form == "safetensors":
        safetensors = pytest.importorskip("safetensors.torch")
        safetensors.save_file(model.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    else:
        safetensors = pytest.importorskip("safetensors.torch")
        parts = {name: f"part-{index % 2}" for index, name in enumerate(model.state_dict())}
        for part in set(parts.values()):
            chosen = {name: tensor for name, tensor in model.state_dict().items() if parts[name] == part}
            safetensors.save_file(chosen, tmp_path / part)
        index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    loaded = emad.migrate.load(tmp_path)
    assert (loaded.kind, loaded.updates) == ("diffusers", 1234)
    assert loaded.schedule == "diffusers:decay=0.999,after=10,warmup=1,power=0.75"
    assert_same(loaded.tensors, model.state_dict())
    with pytest.raises(emad.ArgumentError, match="folder"):
        emad.migrate.load(tmp_path, "timm")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(emad.ArgumentError, match="optimization_step"):
        emad.migrate.load(tmp_path)


def test_the_layouts_of_yolo(model, tmp_path):
    average = InProcess(model, 0.9, tau=10)
    averaged(model, average, lambda: average.update(model))
    checkpoint = {
        "epoch": 3,
        "best_fitness": 0.5,
        "model": copy.deepcopy(model).half(),
        "ema": copy.deepcopy(average.ema).half(),
        "updates": average.updates,
        "optimizer": None,
    }  # of YOLOv5 and YOLOv7, train.py
    path = through_a_file(checkpoint, tmp_path)
    with pytest.raises(emad.ArgumentError, match=r"holds .*runs code.*trust=True"):
        emad.migrate.load(path)
    loaded = emad.migrate.load(path, trust=True)
    assert (loaded.kind, loaded.updates, loaded.step) == ("yolo", UPDATES, None)
    assert loaded.schedule == "yolo:decay=0.9999,tau=2000"
    assert_same(loaded.tensors, checkpoint["ema"].state_dict())

    # What the training script does with it to resume.
    resumed = InProcess(WithBuffers(), 0.9, tau=10)
    back = emad.migrate.export(loaded, "yolo", module=model)
    resumed.ema.load_state_dict(back["ema"].float().state_dict())
    resumed.updates = back["updates"]
    assert_same(resumed.ema.state_dict(), checkpoint["ema"].float().state_dict())
    assert resumed.updates == UPDATES

    states = {"ema": average.ema.state_dict(), "updates": UPDATES}
    loaded = emad.migrate.load(through_a_file(states, tmp_path))
    assert_same(loaded.tensors, average.ema.state_dict())
    back = emad.migrate.export(loaded, "yolo")
    assert back["updates"] == UPDATES
    assert_same(back["ema"], average.ema.state_dict())


def test_a_stripped_yolo_checkpoint(model, tmp_path):
    """At its end a training puts the average into 'model' and forgets the count."""
    stripped = {"epoch": -1, "model": copy.deepcopy(model), "ema": None, "updates": None, "optimizer": None}
    loaded = emad.migrate.load(through_a_file(stripped, tmp_path), trust=True)
    assert (loaded.kind, loaded.updates) == ("yolo", None)
    assert_same(loaded.tensors, model.state_dict())


def test_a_checkpoint_of_timm(model, tmp_path):
    options = argparse.Namespace(model="resnet50", model_ema=True, model_ema_decay=0.9998, model_ema_warmup=True)
    checkpoint = {
        "epoch": 3,
        "arch": "resnet50",
        "state_dict": WithBuffers().state_dict(),
        "optimizer": {},
        "version": 2,
        "args": options,
        "state_dict_ema": model.state_dict(),
        "metric": 1.0,
    }  # of timm 1.0, CheckpointSaver
    is_old = not hasattr(torch.serialization, "safe_globals")
    loaded = emad.migrate.load(through_a_file(checkpoint, tmp_path), trust=is_old)
    assert (loaded.kind, loaded.updates, loaded.schedule) == ("timm", None, "timm:decay=0.9998,warmup=1")
    assert_same(loaded.tensors, model.state_dict())
    options.model_ema_warmup = False
    assert emad.migrate.load(checkpoint).schedule == "timm:decay=0.9998"
    del checkpoint["args"]
    assert emad.migrate.load(checkpoint).schedule is None


def test_the_layout_of_ema_pytorch(model):
    state = {"initted": torch.tensor(True), "step": torch.tensor(11)}
    state.update((f"ema_model.{name}", tensor) for name, tensor in model.state_dict().items())
    loaded = emad.migrate.load(state)
    assert (loaded.kind, loaded.updates) == ("ema-pytorch", 11)
    assert_same(emad.migrate.export(loaded, "ema-pytorch"), state)
    online = {f"online_model.{name}": tensor for name, tensor in model.state_dict().items()}
    assert_same(emad.migrate.export(loaded, "ema-pytorch", module=model), {**state, **online})


def test_the_layout_of_torch_ema(model):
    state = {
        "decay": 0.9,
        "num_updates": 5,
        "shadow_params": list(parameters_of(model).values()),
        "collected_params": None,
    }
    loaded = emad.migrate.load(state)
    assert (loaded.kind, loaded.updates, loaded.schedule) == ("torch-ema", 5, "torch-ema:decay=0.9")
    back = emad.migrate.export(loaded, "torch_ema")
    assert all(map(torch.equal, back["shadow_params"], state["shadow_params"]))
    assert {**back, "shadow_params": 0} == {**state, "shadow_params": 0}


# Names, kinds and files


def test_names_lose_what_wrappers_add(model):
    for state in (
        torch.nn.DataParallel(model).state_dict(),
        {f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items()},
        {"ema": torch.nn.DataParallel(model).state_dict(), "updates": 1},
    ):
        assert_same(emad.migrate.load(state).tensors, model.state_dict())
    with pytest.raises(emad.ManifestError, match="second"):
        emad.migrate.load({"a": torch.zeros(1), "module.a": torch.zeros(1)})


def test_a_module_tells_names_and_buffers_and_what_is_missing(model):
    class Outer(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.module = inner  # a name that wrappers use, but this is none

    outer = Outer(model)
    loaded = emad.migrate.load(outer.state_dict(), module=outer)
    assert set(loaded.tensors) == set(model.state_dict())
    assert loaded.buffers == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert_same(emad.migrate.export(loaded, "state-dict", module=outer), outer.state_dict())
    less = {name: tensor for name, tensor in loaded.tensors.items() if not name.startswith("norm")}
    assert_same(emad.migrate.export(less, "state-dict", module=outer), outer.state_dict())
    with pytest.raises(emad.ManifestError, match="other"):
        emad.migrate.export({**less, "other": torch.zeros(1)}, "state-dict", module=outer)
    with pytest.raises(emad.ManifestError, match="norm.weight"):
        emad.migrate.export(less, "torch-ema", module=outer, updates=1, schedule="torch-ema")


def test_lists_of_parameters_need_a_module_of_that_many(model):
    state = {**DIFFUSERS_STATE, "shadow_params": [torch.zeros(1)] * 3}
    with pytest.raises(emad.ManifestError, match="3 parameters.*6"):
        emad.migrate.load(state, module=model)


def test_dtypes_stay_as_they_are_stored(model):
    loaded = emad.migrate.load(model.bfloat16().state_dict())
    assert loaded.tensors["head.weight"].dtype == torch.bfloat16
    assert emad.migrate.export(loaded, "timm")["module.head.weight"].dtype == torch.bfloat16


def test_unknown_layouts_name_their_keys_and_the_known_kinds():
    with pytest.raises(emad.ArgumentError, match=r"epoch, weights;.*yolo.*diffusers.*averaged-model"):
        emad.migrate.load({"epoch": 1, "weights": {}})
    with pytest.raises(emad.ArgumentError, match="its keys are none"):
        emad.migrate.load({})
    with pytest.raises(emad.ArgumentError, match="'flax'.*safetensors.*timm"):
        emad.migrate.load({"epoch": 1}, "flax")
    with pytest.raises(emad.ArgumentError, match="that of torch-ema"):
        emad.migrate.load({"epoch": 1}, "torch_ema")
    with pytest.raises(emad.ArgumentError, match="'flax'"):
        emad.migrate.export({}, "flax")
    with pytest.raises(TypeError, match="list"):
        emad.migrate.load([])
    with pytest.raises(TypeError, match="list"):
        emad.migrate.export([], "timm")


def test_what_the_average_does_not_tell_must_be_named(client, model):
    loaded = emad.migrate.load(model.state_dict())
    with pytest.raises(emad.ArgumentError, match="updates="):
        emad.migrate.export(loaded, "averaged-model")
    assert int(emad.migrate.export(loaded, "averaged-model", updates=3)["n_averaged"]) == 3
    assert loaded.updates is None
    with pytest.raises(emad.ArgumentError, match="schedule="):
        emad.migrate.export(loaded, "torch-ema", updates=3, module=model, schedule="yolo")
    with pytest.raises(emad.ArgumentError, match="module="):
        emad.migrate.export(loaded, "torch-ema", updates=3, schedule="torch-ema")
    state = emad.migrate.export(loaded, "torch-ema", updates=3, schedule="torch-ema:decay=0.5", module=model)
    assert (state["decay"], state["num_updates"]) == (0.5, 3)
    state = emad.migrate.export(
        loaded, "diffusers", updates=3, schedule="diffusers:use_ema_warmup=1,precision=f64;copy=head.*", module=model
    )
    assert state["use_ema_warmup"] is True
    with pytest.raises(emad.ArgumentError, match="'tau'"):
        emad.migrate.export(loaded, "diffusers", updates=3, schedule="diffusers:tau=1", module=model)
    with pytest.raises(emad.ArgumentError, match="updates="):
        emad.migrate.start(client, "none", loaded)
    with pytest.raises(emad.ArgumentError, match="profile="):
        emad.migrate.start(client, "none", loaded, updates=3)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        emad.migrate.load(tmp_path / "none")
    (tmp_path / "broken").write_bytes(b"no checkpoint")
    with pytest.raises(emad.ArgumentError, match="not a safetensors file"):
        emad.migrate.load(tmp_path / "broken", "safetensors")
    for content in (b"", b"no checkpoint", b"\x80\x02garbage", b"PK\x03\x04garbage", b"\x10\0\0\0\0\0\0\0{garbage"):
        if content.endswith(b"{garbage"):
            pytest.importorskip("safetensors")
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(emad.ArgumentError, match="broken.*damaged"):
            emad.migrate.load(tmp_path / "broken")


def test_safetensors_tell_what_emad_wrote(client, name, model, tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "average.safetensors"
    with emad.torch.ModelEMA(model, 0.9, tau=10, name=name, client=client) as ema:
        averaged(model, ema, lambda: ema.update(model))
        ema.save(path)
        expected = ema.ema.state_dict()
    loaded = emad.migrate.load(str(path))
    assert (loaded.kind, loaded.updates, loaded.step) == ("safetensors", UPDATES, UPDATES)
    assert loaded.schedule == "yolo:decay=0.9,tau=10"
    assert_same(loaded.tensors, expected)
    emad.migrate.save(loaded, "safetensors", tmp_path / "again.safetensors")
    again = emad.migrate.load(tmp_path / "again.safetensors")
    assert again == Loaded({**again.tensors}, "safetensors", UPDATES, UPDATES, "yolo:decay=0.9,tau=10")
    assert_same(again.tensors, expected)
    assert "updates 7" in repr(again)


def test_safetensors_of_other_origin_tell_tensors_alone(model, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({f"module.{key}": value for key, value in model.state_dict().items()}, tmp_path / "a")
    loaded = emad.migrate.load(tmp_path / "a")
    assert (loaded.updates, loaded.step, loaded.schedule) == (None, None, None)
    assert_same(loaded.tensors, model.state_dict())
    assert emad.migrate.load(tmp_path / "a", "state-dict").kind == "state-dict"
    average = swa_utils.AveragedModel(model)
    average.update_parameters(model)
    safetensors.save_file(average.state_dict(), tmp_path / "b")
    loaded = emad.migrate.load(tmp_path / "b")
    assert (loaded.kind, loaded.updates) == ("averaged-model", 1)
    assert_same(loaded.tensors, model.state_dict())
    assert "n_averaged" in emad.migrate.load(tmp_path / "b", "safetensors").tensors


def test_a_view_is_exported_to_every_library(client, name, model):
    with emad.torch.AveragedModel(model, avg_fn=emad.torch.ema(0.9), name=name, client=client) as average:
        averaged(model, average, lambda: average.update_parameters(model))
        expected = average.module.state_dict()
        with client.view(name) as view:
            state = emad.migrate.export(view, "averaged-model")
            listed = emad.migrate.export(view, "diffusers", module=model, schedule="diffusers:decay=0.9")
            timm = emad.migrate.export(view, "timm")
        average.update_parameters(model)  # the states are copies
    reference = swa_utils.AveragedModel(WithBuffers())
    reference.load_state_dict(state)
    assert int(reference.n_averaged) == UPDATES
    assert_same(reference.module.state_dict(), expected)
    assert_same({key[len("module.") :]: value for key, value in timm.items()}, expected)
    assert listed["optimization_step"] == UPDATES and listed["decay"] == 0.9
    names = list(parameters_of(model))
    assert_same(dict(zip(names, listed["shadow_params"])), {key: expected[key] for key in names})


# Starting at the daemon


def test_the_daemon_goes_on_from_a_yolo_checkpoint(client, name, model):
    reference = InProcess(model, 0.9, tau=10)
    averaged(model, reference, lambda: reference.update(model))
    state = {"ema": copy.deepcopy(reference.ema.state_dict()), "updates": reference.updates}
    step = emad.migrate.start(client, name, emad.migrate.load(state, module=model), "ema=yolo:decay=0.9,tau=10")
    assert step == UPDATES
    with client.view(name) as view:
        assert view.updates == UPDATES
        assert_same(view.state_dict(), reference.ema.state_dict())
    with emad.torch.ModelEMA(model, 0.9, tau=10, name=name, client=client, resume="adapt") as ema:
        for _ in range(5):
            change(model)
            ema.update(model)
            reference.update(model)
        assert ema.updates == UPDATES + 5
        assert_same(ema.ema.state_dict(), reference.ema.state_dict())


def test_a_half_precision_average_goes_on_in_full(client, name, model):
    loaded = emad.migrate.load({"ema": copy.deepcopy(model).half().state_dict(), "updates": 100})
    emad.migrate.start(client, name, loaded)
    with emad.torch.ModelEMA(model, name=name, client=client, resume="adapt") as ema:
        decay = 0.9999 * (1 - math.exp(-101 / 2000))
        ema.update(model)
        start = loaded.tensors["head.weight"].float()
        expected = start * decay + model.head.weight.detach() * (1 - decay)
        torch.testing.assert_close(ema.ema.head.weight, expected)


# The command line


def migrate(daemon, *arguments):
    command = [sys.executable, "-m", "emad.migrate", *map(str, arguments), "--socket", daemon.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(autouse=True)
def package_on_the_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{emad.__path__[0]}/..")


def test_the_command_shows_what_a_file_holds(daemon, model, tmp_path):
    shown = migrate(daemon, through_a_file({"ema": model.state_dict(), "updates": 12}, tmp_path))
    assert shown.returncode == 0, shown.stderr
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert lines["kind"] == "yolo" and lines["updates"] == "12" and lines["step"] == "not told"
    assert lines["schedule"] == "yolo:decay=0.9999,tau=2000"
    assert lines["tensors"].startswith("9 (") and "float32" in lines["tensors"]


def test_the_command_writes_the_states_of_other_libraries(daemon, model, tmp_path):
    path = through_a_file({"ema": model.state_dict(), "updates": 12}, tmp_path)
    done = migrate(daemon, path, "--to", "averaged-model", "-o", tmp_path / "out.pt")
    assert done.returncode == 0, done.stderr
    average = swa_utils.AveragedModel(WithBuffers())
    average.load_state_dict(torch.load(tmp_path / "out.pt"))
    assert int(average.n_averaged) == 12
    assert_same(average.module.state_dict(), model.state_dict())


def test_the_command_says_what_is_wrong(daemon, model, tmp_path):
    failed = migrate(daemon, through_a_file({"epoch": 1}, tmp_path))
    assert failed.returncode == 1 and "epoch" in failed.stderr and "Traceback" not in failed.stderr
    failed = migrate(daemon, tmp_path / "none")
    assert failed.returncode == 1 and "none" in failed.stderr and "Traceback" not in failed.stderr
    failed = migrate(daemon, through_a_file(model.state_dict(), tmp_path), "--model", "m")
    assert failed.returncode == 1 and "--updates" in failed.stderr
    failed = migrate(daemon, tmp_path / "none", "--to", "timm")
    assert failed.returncode == 2 and "-o" in failed.stderr


def test_the_command_starts_a_model(daemon, client, name, model, tmp_path):
    path = through_a_file(model.state_dict(), tmp_path)
    done = migrate(daemon, path, "--model", name, "--updates", "5", "--profile", "ema=averaged-model:decay=0.9")
    assert done.returncode == 0, done.stderr
    with client.view(name, "ema") as view:
        assert view.updates == 5
        assert_same(view.state_dict(), model.state_dict())
