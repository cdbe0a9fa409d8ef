"""emad.torch.ModelEMA beside the class it stands in for."""

import copy
import gc
import os
import pickle
import time
import warnings

import pytest
import torch
from models import InProcess, WithBuffers, assert_same, train_step

import emad.torch
from emad.torch import ModelEMA


@pytest.fixture
def model():
    torch.manual_seed(0)
    return WithBuffers()


def change(model, amount=1.0):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(amount)


def raw_state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_ema_is_a_frozen_copy_in_eval_mode_that_stays_the_same_module(client, name, model):
    with ModelEMA(model, name=name, client=client) as ema:
        averaged = ema.ema
        assert type(averaged) is WithBuffers and averaged is not model
        assert not averaged.training and model.training
        assert not any(parameter.requires_grad for parameter in averaged.parameters())
        assert_same(averaged.state_dict(), model.state_dict())
        change(model)
        ema.update(model)
        assert ema.ema is averaged
        assert ema.updates == 1
        assert not torch.equal(averaged.head.weight, model.head.weight)


def test_the_average_starts_as_a_copy_that_does_not_follow_the_model(client, name, model):
    start = raw_state(model)
    with ModelEMA(model, name=name, client=client) as ema:
        change(model)
        assert_same(ema.ema.state_dict(), start)


def test_without_a_name_every_average_is_new(daemon, model):
    with ModelEMA(model, url=daemon.url) as first, ModelEMA(model, url=daemon.url) as second:
        assert first.name != second.name
        assert first.name.startswith("WithBuffers-") and str(os.getpid()) in first.name
        first.update(model)
        second.update(model)


def test_average_parameters_swaps_and_restores(client, name, model):
    with ModelEMA(model, 0.5, tau=1e-9, name=name, client=client) as ema:
        change(model)
        ema.update(model)
        raw, objects = raw_state(model), list(model.parameters())
        averaged = ema.state_dict()["ema"]
        with ema.average_parameters(model) as lent:
            assert lent is model
            for key, value in averaged.items():
                assert torch.equal(model.state_dict()[key], value)
            assert not torch.equal(model.head.bias, raw["head.bias"])
        assert_same(model.state_dict(), raw)
        assert all(one is other for one, other in zip(model.parameters(), objects))


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_raw_weights_come_back_whatever_happens(client, name, model, raised):
    with ModelEMA(model, name=name, client=client) as ema:
        change(model)
        ema.update(model)
        raw = raw_state(model)
        with pytest.raises(raised):
            with ema.average_parameters(model):
                with torch.no_grad():
                    model.head.weight.fill_(5)  # even when the average was written to
                raise raised
        assert_same(model.state_dict(), raw)


def test_raw_weights_stay_when_the_average_cannot_be_had(client, name, model):
    with ModelEMA(model, name=name, client=client) as ema:
        raw = raw_state(model)
        client.remove(name)
        with pytest.raises(emad.Error):
            with ema.average_parameters(model, profile="none"):
                raise AssertionError("not reached")
        assert_same(model.state_dict(), raw)


def test_training_goes_on_after_a_swap(client, name, model):
    generator = torch.Generator().manual_seed(0)
    twin = copy.deepcopy(model)
    optimizers = [torch.optim.Adam(one.parameters()) for one in (model, twin)]
    with ModelEMA(model, name=name, client=client, optimizer=optimizers[0]) as ema:
        for step in range(6):
            train_step(model, optimizers[0], generator.manual_seed(step))
            train_step(twin, optimizers[1], generator.manual_seed(step))
            ema.update(model)
            with ema.average_parameters(model):
                pass
    assert_same(model.state_dict(), twin.state_dict())


class Wrapped(torch.optim.Optimizer):
    """Passes for an optimizer without having been made as one, as accelerate's does."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self, closure=None):
        self.optimizer.step(closure)


@pytest.mark.parametrize("scheduled", ["before", "after", "never", "wrapped"])
def test_the_optimizer_waits_for_the_copy(client, name, scheduled):
    """The weights are changed right after update(): what is averaged must be those before."""
    weights = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1 << 18)) for _ in range(16)])

    class Setting(torch.optim.Optimizer):
        def step(self, closure=None):
            for parameter in weights:
                parameter.data.fill_(self.value)

    optimizer = Setting(weights.parameters(), {})
    optimizer.value = 1.0
    schedule = lambda: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)  # noqa: E731
    optimizer.param_groups[0]["lr"] = 1.0
    scheduler = schedule() if scheduled == "before" else None
    given = Wrapped(optimizer) if scheduled == "wrapped" else optimizer
    with ModelEMA(weights, optimizer=given, name=name, client=client, schedule="constant:decay=0") as ema:
        scheduler = schedule() if scheduled == "after" else scheduler
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for value in range(1, 12):
                optimizer.value = float(value)
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                ema.update(weights)
                optimizer.value = -1.0
                given.step()
                for averaged in ema.ema.parameters():
                    assert (averaged == value).all()
    optimizer.step()  # after close nothing waits


def test_buffers_are_those_of_the_update_although_forward_changes_them(client, name, model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ModelEMA(model, optimizer=optimizer, name=name, client=client, schedule="constant:decay=0") as ema:
        for step in range(5):
            ema.update(model)
            buffers = {key: value.clone() for key, value in model.named_buffers() if key.startswith("norm")}
            model(torch.randn(4, 1, 6, 6) + step)
            for key, value in ema.ema.named_buffers():
                if key in buffers:
                    assert torch.equal(value, buffers[key]), key
            train_step(model, optimizer, torch.Generator())


@pytest.mark.alone
def test_an_update_returns_long_before_the_copy_is_done_with_an_optimizer(client, name):
    model = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(16)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def blocked(optimizer):
        """The least of several times, which the load of the machine does not touch."""
        times = []
        with ModelEMA(model, optimizer=optimizer, name=name, client=client, resume="never") as ema:
            for _ in range(12):
                began = time.perf_counter()
                ema.update(model)
                times.append(time.perf_counter() - began)
                ema.flush()
        return min(times)

    assert blocked(optimizer) < blocked(None) / 4  # 64 MiB; typically 1/100


@pytest.mark.parametrize("wrap", ["DataParallel", "compile", "nested"])
def test_wrapped_models(client, name, model, wrap):
    wrapped = {
        "DataParallel": torch.nn.DataParallel,
        "compile": lambda inner: torch.compile(inner, backend="eager"),
        "nested": lambda inner: torch.nn.DataParallel(torch.compile(inner, backend="eager")),
    }[wrap]
    if wrap != "DataParallel" and not hasattr(torch, "compile"):
        pytest.skip("this torch has no compile")
    outer = wrapped(model)
    with ModelEMA(outer, name=name, client=client) as ema:
        assert type(ema.ema) is WithBuffers
        change(model)
        ema.update(outer)
        ema.update(model)
        ema.update(outer)
        assert ema.updates == 3
        with client.view(name) as view:
            assert set(view) == set(model.state_dict())
        with ema.average_parameters(outer):
            assert_same(model.state_dict(), ema.ema.state_dict())


def test_checkpoint_wrappers_inside_the_model(client, name):
    class CheckpointWrapper(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._checkpoint_wrapped_module = inner

    plain = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    wrapped = torch.nn.Sequential(CheckpointWrapper(copy.deepcopy(plain[0])), copy.deepcopy(plain[1]))
    with ModelEMA(wrapped, name=name, client=client) as ema:
        ema.update(wrapped)
        with client.view(name) as view:
            plain.load_state_dict(view.state_dict())
        ema.update(plain)  # the same names, another object
        assert ema.updates == 2


def test_a_sharded_model_is_refused(client, name):
    FullyShardedDataParallel = type("FullyShardedDataParallel", (torch.nn.Module,), {"world_size": 2})
    with pytest.raises(TypeError, match="sharded"):
        ModelEMA(FullyShardedDataParallel(), name=name, client=client)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])
def test_replaced_parameters_and_modules_are_found(client, name, model, asynchronous):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if asynchronous else None
    with ModelEMA(model, name=name, client=client, schedule="constant:decay=0", optimizer=optimizer) as ema:
        ema.update(model)
        model.head.weight = torch.nn.Parameter(torch.full((4, 8), 2.0))
        ema.update(model)
        assert (ema.ema.head.weight == 2).all()
        model.head = torch.nn.Linear(8, 4)
        torch.nn.init.constant_(model.head.weight, 3)
        ema.update(model)
        assert (ema.ema.head.weight == 3).all()
        model.norm.running_mean = torch.full((8,), 4.0)
        ema.update(model)
        assert (ema.ema.norm.running_mean == 4).all()
        model.head.weight.data = torch.full((4, 8), 5.0)
        ema.update(model)
        assert (ema.ema.head.weight == 5).all()
        ema.fence()
        model.head = torch.nn.Linear(8, 5)
        with pytest.raises(emad.ManifestError, match="head.*5, 8.*4, 8"):
            ema.update(model)
        model.head = torch.nn.Linear(8, 4, bias=False)
        with pytest.raises(emad.ManifestError, match="head.bias"):
            ema.update(model)


def test_channels_last_models(client, name, model):
    model.to(memory_format=torch.channels_last)
    reference = InProcess(model, 0.5, tau=2)
    with ModelEMA(model, 0.5, tau=2, name=name, client=client) as ema:
        for _ in range(4):
            change(model, 0.25)
            ema.update(model)
            reference.update(model)
        assert_same(ema.ema.state_dict(), reference.ema.state_dict())
        with ema.average_parameters(model):
            assert model.conv.weight.stride() == reference.ema.conv.weight.stride()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])
def test_weights_that_are_transposed_where_they_lie(client, name, asynchronous):
    model = torch.nn.Linear(3, 3)
    model.register_buffer("table", torch.arange(9.0).reshape(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if asynchronous else None
    with ModelEMA(model, schedule="constant:decay=0", optimizer=optimizer, name=name, client=client) as ema:
        for _ in range(3):
            ema.update(model)
            ema.fence()
            model.weight.data = model.weight.data.t()
            model.table = model.table.t()
        ema.update(model)
        assert_same(ema.state_dict()["ema"], model.state_dict())


def test_half_precision_models(client, name, model):
    model.bfloat16()
    with ModelEMA(model, schedule="constant:decay=0.5", name=name, client=client) as ema:
        change(model)
        ema.update(model)
        assert ema.ema.head.weight.dtype == torch.bfloat16
        assert ema.state_dict()["ema"]["head.weight"].dtype == torch.float32
        with ema.average_parameters(model):
            assert model.head.weight.dtype == torch.bfloat16


def test_tied_weights_stay_tied(client, name):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(5, 3)
            self.head = torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    model = Tied()
    raw = raw_state(model)
    with ModelEMA(model, name=name, client=client) as ema:
        change(model)
        ema.update(model)
        assert ema.ema.head.weight is ema.ema.embedding.weight
        assert set(ema.state_dict()["ema"]) == set(model.state_dict())
        with ema.average_parameters(model):
            assert model.head.weight is model.embedding.weight
        assert torch.equal(model.head.weight, raw["head.weight"] + 1)


def test_state_dict_resumes_where_it_was_saved(client, name, model, tmp_path):
    reference = InProcess(model, 0.9, tau=10)
    with ModelEMA(model, 0.9, tau=10, name=name, client=client) as ema:
        for _ in range(20):
            change(model, 0.1)
            ema.update(model)
            reference.update(model)
        torch.save(ema.state_dict(), tmp_path / "ema.pt")
    other = WithBuffers()
    with ModelEMA(other, 0.9, tau=10, name=name + "-again", client=client) as ema:
        ema.update(other)
        ema.load_state_dict(torch.load(tmp_path / "ema.pt"))
        assert ema.updates == 20
        assert_same(ema.ema.state_dict(), reference.ema.state_dict())
        for _ in range(20):
            change(model, 0.1)
            ema.update(model)
            reference.update(model)
        assert ema.updates == 40
        assert_same(ema.ema.state_dict(), reference.ema.state_dict())


def test_the_usual_way_to_resume_works(client, name, model):
    reference = InProcess(model, 0.9, tau=10)
    for _ in range(5):
        change(model, 0.1)
        reference.update(model)
    with ModelEMA(WithBuffers(), 0.9, tau=10, name=name, client=client) as ema:
        ema.ema.load_state_dict(reference.ema.float().state_dict())
        ema.updates = reference.updates
        change(model, 0.1)
        ema.update(model)
        reference.update(model)
        assert ema.updates == 6
        assert_same(ema.ema.state_dict(), reference.ema.state_dict())


def test_a_state_that_does_not_fit_is_refused(client, name, model):
    with ModelEMA(model, name=name, client=client) as ema:
        state = ema.state_dict()
        with pytest.raises(emad.ManifestError, match="head.weight"):
            ema.load_state_dict({"ema": {**state["ema"], "head.weight": torch.zeros(1)}, "updates": 3})
        with pytest.raises(emad.ManifestError, match="other"):
            ema.load_state_dict({"ema": {**state["ema"], "other": torch.zeros(1)}, "updates": 3})
        ema.update(model)
        assert ema.updates == 1


def test_a_named_average_is_continued_by_the_next_process(client, daemon, name, model):
    reference = InProcess(model)
    with ModelEMA(model, name=name, url=daemon.url) as ema:
        for _ in range(3):
            change(model)
            ema.update(model)
            reference.update(model)
    with ModelEMA(model, name=name, url=daemon.url) as ema:
        assert ema.updates == 3
        change(model)
        ema.update(model)
        reference.update(model)
        assert ema.updates == 4
        assert_same(ema.ema.state_dict(), reference.ema.state_dict())
    with ModelEMA(model, name=name, url=daemon.url, resume="never") as ema:
        assert ema.updates == 0
        assert_same(ema.ema.state_dict(), model.state_dict())


def test_save_writes_a_safetensors_file(client, name, model, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    with ModelEMA(model, name=name, client=client) as ema:
        change(model)
        ema.update(model)
        assert ema.save(tmp_path / "best.safetensors").step == 1
        assert_same(safetensors.load_file(str(tmp_path / "best.safetensors")), ema.ema.state_dict())


def test_attributes_are_copied_beside_the_weights(client, name, model):
    model.nc = 2
    model.stride = torch.tensor([8.0, 16.0])
    model.hook = lambda: None
    model._private = 1
    with ModelEMA(model, name=name, client=client) as ema:
        ema.update_attr(model)
        ema.update(model)
        averaged = ema.ema
        assert averaged.names == ["a", "b"] and averaged.nc == 2 and averaged.hook is model.hook
        assert not averaged.training
        with client.view(name) as view:
            assert view.attributes == {"names": ["a", "b"], "nc": 2, "stride": [8.0, 16.0]}
        model.names, model.nc = ["c"], 3
        outer = torch.nn.DataParallel(model)
        outer.nc = 4
        ema.update_attr(outer, include=["nc"])
        assert averaged.nc == 4 and averaged.names == ["a", "b"]
        ema.update_attr(model, exclude=["nc"])
        assert averaged.nc == 4 and averaged.names == ["c"]


def test_attributes_that_are_too_long_to_travel_do_not_stop_training(client, name, model):
    with ModelEMA(model, name=name, client=client, attributes={"run": 7}) as ema:
        model.names = [f"class {index}" for index in range(10000)]
        with pytest.warns(RuntimeWarning, match="32768"):
            ema.update_attr(model)
        assert ema.ema.names == model.names
        ema.update(model)
        ema.load_state_dict(ema.state_dict())
        model.names = ["short"]
        ema.update_attr(model)
        ema.update(model)
        ema.flush()
        with client.view(name) as view:
            assert view.attributes == {"run": 7, "names": ["short"]}


def test_a_model_may_hold_its_average(client, name, model):
    model.average = ModelEMA(model, schedule="constant:decay=0.5", name=name, client=client)
    with model.average as ema:
        change(model)
        ema.update(model)
        assert ema.ema.average is ema
        ema.update_attr(model)
        with ema.average_parameters(model):
            assert_same(model.state_dict(), ema.ema.state_dict())


def test_several_profiles(client, name, model):
    profiles = {"slow": "constant:decay=0.75"}
    with ModelEMA(model, schedule="constant:decay=0.5", profiles=profiles, name=name, client=client) as ema:
        start = model.head.bias.detach().clone()
        change(model)
        ema.update(model)
        for profile, moved in (("ema", 0.5), ("slow", 0.25)):
            with ema.average_parameters(model, profile):
                torch.testing.assert_close(model.head.bias.detach(), start + moved)


def test_a_nan_is_warned_of_and_does_not_reach_the_average(client, name, model):
    with ModelEMA(model, name=name, client=client) as ema:
        ema.update(model)
        good = model.head.bias.detach().clone()
        with torch.no_grad():
            model.head.bias[1] = float("nan")
        ema.update(model)
        with pytest.warns(RuntimeWarning, match="head.bias"):
            averaged = ema.ema
        assert torch.isfinite(averaged.head.bias).all()
        with torch.no_grad():
            model.head.bias.copy_(good)
        ema.update(model)
        assert ema.updates == 3
        assert torch.isfinite(ema.ema.head.bias).all()


def test_it_is_neither_copied_nor_pickled_but_its_module_is(client, name, model):
    with ModelEMA(model, name=name, client=client) as ema:
        with pytest.raises(TypeError, match="state_dict"):
            pickle.dumps(ema)
        with pytest.raises(TypeError):
            copy.deepcopy(ema)
        assert copy.deepcopy(ema.ema).half().head.weight.dtype == torch.float16


def test_an_optimizer_does_not_keep_it_alive(daemon, model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ema = ModelEMA(model, optimizer=optimizer, url=daemon.url)
    ema.update(model)
    name = ema.name
    del ema
    gc.collect()
    train_step(model, optimizer, torch.Generator())
    with emad.Client(daemon.url) as client:
        client.view(name).close()


def test_what_is_not_a_model_or_an_optimizer(client, name, model):
    with pytest.raises(TypeError, match="Module"):
        ModelEMA([model], name=name, client=client)
    with pytest.raises(TypeError, match="optimizer"):
        ModelEMA(model, name=name, client=client, optimizer=[model.parameters()])
