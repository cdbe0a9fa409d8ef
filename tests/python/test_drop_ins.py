"""emad.torch.AveragedModel and ExponentialMovingAverage beside the classes they stand in for."""

import copy
import gc
import itertools
import pickle
import warnings
import weakref

import pytest
import torch
from models import WithBuffers, assert_same, train_step
from peers import diffusers_class, ema_pytorch_class, timm_class, torch_ema_class
from torch.optim import swa_utils

import emad.torch
from emad.torch import AveragedModel, ExponentialMovingAverage, ModelEMA


@pytest.fixture
def model():
    torch.manual_seed(0)
    return WithBuffers()


def change(model, generator):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
            else:
                tensor.add_(1)


def assert_close(found, expected):
    """Two states within 2 ulp of each call: PyTorch's kernels fuse multiplications and additions as they like."""
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        torch.testing.assert_close(found[key], value, rtol=2e-6, atol=2e-7, msg=lambda text, key=key: f"{key}: {text}")


# AveragedModel

# The arguments of our class, and those of torch's.
STRATEGIES = {
    "default": lambda: ({}, {}),
    "swa": lambda: ({"avg_fn": emad.torch.swa()}, {}),
    "ema": lambda: ({"avg_fn": emad.torch.ema(0.9)}, {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)}),
    "specification": lambda: ({"avg_fn": "averaged-model:decay=0.9"}, {"avg_fn": swa_utils.get_ema_avg_fn(0.9)}),
    "torch's ema": lambda: ({"avg_fn": swa_utils.get_ema_avg_fn(0.9)},) * 2,
    "torch's multi ema": lambda: ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)},) * 2,
    "torch's swa": lambda: ({"avg_fn": swa_utils.get_swa_avg_fn()},) * 2,
    "torch's multi swa": lambda: ({"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()}, {}),
}

needs_new_torch = pytest.mark.skipif(
    not hasattr(swa_utils, "get_ema_avg_fn"),
    reason=f"the AveragedModel of torch {torch.__version__} has no such functions, and leaves buffers as they were",
)


@needs_new_torch
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_averaged_model_averages_as_torch_s(client, name, model, strategy):
    ours, theirs = STRATEGIES[strategy]()
    generator = torch.Generator().manual_seed(1)
    reference = swa_utils.AveragedModel(model, **theirs)
    with AveragedModel(model, name=name, client=client, **ours) as averaged:
        assert_close(averaged.state_dict(), reference.state_dict())
        for count in range(1, 8):
            change(model, generator)
            averaged.update_parameters(model)
            reference.update_parameters(model)
            assert int(averaged.n_averaged) == count
            assert_close(averaged.state_dict(), reference.state_dict())


@needs_new_torch
def test_averaged_model_averages_buffers_on_request(client, name, model):
    generator = torch.Generator().manual_seed(1)
    reference = swa_utils.AveragedModel(model, avg_fn=swa_utils.get_ema_avg_fn(0.9), use_buffers=True)
    with AveragedModel(model, avg_fn=emad.torch.ema(0.9), use_buffers=True, name=name, client=client) as averaged:
        for _ in range(5):
            change(model, generator)
            averaged.update_parameters(model)
            reference.update_parameters(model)
        found, expected = averaged.state_dict(), reference.state_dict()
        for state in (found, expected):
            del state["module.norm.num_batches_tracked"]  # torch averages integers too, and cuts off their fractions
        assert_close(found, expected)


def test_averaged_model_is_a_module_like_torch_s(client, name, model):
    reference = swa_utils.AveragedModel(model)
    images = torch.randn(4, 1, 6, 6)
    with AveragedModel(model, name=name, client=client) as averaged:
        assert isinstance(averaged, torch.nn.Module)
        for one in (averaged, reference):
            one.update_parameters(model)
            one.eval()
        assert not averaged.module.training and model.training
        assert averaged.module is averaged.module and averaged.module is not model
        assert torch.equal(averaged(images), reference(images))
        assert [key for key, _ in averaged.named_parameters()] == [key for key, _ in reference.named_parameters()]
        assert [key for key, _ in averaged.named_buffers()] == [key for key, _ in reference.named_buffers()]
        assert [key for key, _ in averaged.named_modules()] == [key for key, _ in reference.named_modules()]
        assert len(list(averaged.parameters())) == len(list(model.parameters()))
        averaged.train()
        assert averaged.module.training
        averaged.double()
        assert averaged.module.head.weight.dtype == torch.float64
        model.head.weight.data.fill_(2)
        averaged.update_parameters(model)
        assert averaged.module.head.weight.dtype == torch.float64
        torch.testing.assert_close(averaged.module.head.weight, (reference.module.head.weight.double() + 2) / 2)


def test_averaged_model_follows_updates_whichever_way_it_is_asked(client, name, model):
    ways = {
        "module": lambda averaged: averaged.module.head.bias,
        "parameters": lambda averaged: list(averaged.parameters())[-1],
        "named_parameters": lambda averaged: dict(averaged.named_parameters())["module.head.bias"],
        "modules": lambda averaged: [one for one in averaged.modules() if isinstance(one, torch.nn.Linear)][0].bias,
        "state_dict": lambda averaged: averaged.state_dict()["module.head.bias"],
    }
    with AveragedModel(model, avg_fn=emad.torch.ema(0), name=name, client=client) as averaged:
        for value, ask in enumerate(ways.values()):
            model.head.bias.data.fill_(value)
            averaged.update_parameters(model)
            assert (ask(averaged) == value).all()
            model.head.bias.data.fill_(value + 0.5)
            averaged.update_parameters(model)
            assert (averaged(torch.zeros(1, 1, 6, 6)) != 0).any()
            assert (averaged.module.head.bias == value + 0.5).all()


def test_an_average_asked_for_in_inference_mode_is_brought_up_to_date_outside(client, name, model):
    with AveragedModel(model, name=name, client=client) as averaged:
        for _ in range(2):
            with torch.no_grad():
                model.head.bias.add_(1)
            averaged.update_parameters(model)
            with torch.inference_mode():
                averaged(torch.zeros(1, 1, 6, 6))
            assert list(averaged.state_dict())[0] == "n_averaged"
        torch.testing.assert_close(averaged.module.head.bias, model.head.bias - 0.5)


def test_update_bn_works_on_an_averaged_model(client, name, model):
    reference = swa_utils.AveragedModel(model)
    batches = [torch.randn(8, 1, 6, 6) for _ in range(4)]
    with AveragedModel(model, name=name, client=client) as averaged:
        for one in (averaged, reference):
            one.update_parameters(model)
            swa_utils.update_bn(batches, one)
        assert_close(averaged.state_dict(), reference.state_dict())


@needs_new_torch
@pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])
def test_averaged_model_while_training(client, name, model, asynchronous):
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    reference = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    arguments = {"optimizer": optimizer} if asynchronous else {}
    with AveragedModel(model, avg_fn=emad.torch.ema(0.9), name=name, client=client, **arguments) as averaged:
        for _ in range(10):
            train_step(model, optimizer, generator)
            averaged.update_parameters(model)
            reference.update_parameters(model)
        assert_close(averaged.state_dict(), reference.state_dict())
        with averaged.average_parameters(model):
            assert_close(model.state_dict(), reference.module.state_dict())


def test_wrapped_models_have_the_names_of_what_they_wrap(client, name, model):
    outer = torch.nn.DataParallel(model)
    with AveragedModel(outer, name=name, client=client) as averaged:
        averaged.update_parameters(outer)
        averaged.update_parameters(model)
        assert type(averaged.module) is WithBuffers
        assert set(averaged.state_dict()) == {"n_averaged"} | {f"module.{key}" for key in model.state_dict()}


@needs_new_torch
def test_torch_s_averaged_model_loads_the_state(client, name, model, tmp_path):
    generator = torch.Generator().manual_seed(1)
    reference = swa_utils.AveragedModel(model)
    with AveragedModel(model, name=name, client=client) as averaged:
        for _ in range(3):
            change(model, generator)
            averaged.update_parameters(model)
            reference.update_parameters(model)
        torch.save(averaged.state_dict(), tmp_path / "state.pt")
    resumed = swa_utils.AveragedModel(WithBuffers())
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert int(resumed.n_averaged) == 3
    assert_close(resumed.state_dict(), reference.state_dict())


@needs_new_torch
@pytest.mark.parametrize("strategy", ["default", "ema"])
def test_averaged_model_goes_on_from_a_state_of_torch_s(client, name, model, strategy):
    ours, theirs = STRATEGIES[strategy]()
    generator = torch.Generator().manual_seed(1)
    reference = swa_utils.AveragedModel(model, **theirs)
    for _ in range(3):
        change(model, generator)
        reference.update_parameters(model)
    with AveragedModel(WithBuffers(), name=name, client=client, **ours) as averaged:
        averaged.load_state_dict(copy.deepcopy(reference.state_dict()))
        assert_same(averaged.state_dict(), reference.state_dict())
        for _ in range(4):
            change(model, generator)
            averaged.update_parameters(model)
            reference.update_parameters(model)
        assert int(averaged.n_averaged) == 7
        assert_close(averaged.state_dict(), reference.state_dict())


def test_a_state_before_the_first_update_is_taken_over(client, name, model):
    reference = swa_utils.AveragedModel(WithBuffers())
    with AveragedModel(model, name=name, client=client) as averaged:
        averaged.update_parameters(model)
        averaged.load_state_dict(reference.state_dict())
        assert int(averaged.n_averaged) == 0
        assert_same(averaged.state_dict(), reference.state_dict())
        averaged.update_parameters(model)
        assert_same(averaged.module.state_dict(), model.state_dict())


def test_an_averaged_model_is_loaded_as_a_part_of_another_module(client, name, model):
    state = torch.nn.ModuleDict({"ema": swa_utils.AveragedModel(WithBuffers())}).state_dict()
    with AveragedModel(model, name=name, client=client) as averaged:
        whole = torch.nn.ModuleDict({"ema": averaged})
        averaged.update_parameters(model)
        whole.load_state_dict(state)
        assert int(averaged.n_averaged) == 0
        assert_same(whole.state_dict(), state)
        del state["ema.module.head.bias"]
        with pytest.raises(RuntimeError, match="head.bias"):
            whole.load_state_dict(state)


def test_states_that_do_not_fit_an_averaged_model_are_refused(client, name, model):
    state = swa_utils.AveragedModel(model).state_dict()
    with AveragedModel(model, name=name, client=client) as averaged:
        with pytest.raises(emad.ManifestError, match="n_averaged"):
            averaged.load_state_dict(model.state_dict())
        less = {key: value for key, value in state.items() if key != "module.head.bias"}
        with pytest.raises(emad.ManifestError, match="head.bias"):
            averaged.load_state_dict(less)
        averaged.load_state_dict(less, strict=False)
        with pytest.raises(emad.ManifestError, match="other"):
            averaged.load_state_dict({**state, "module.other": torch.zeros(1)})


def test_a_named_averaged_model_is_continued(client, name, model):
    with AveragedModel(model, name=name, client=client) as averaged:
        averaged.update_parameters(model)
        averaged.update_parameters(model)
    with AveragedModel(model, name=name, client=client) as averaged:
        assert int(averaged.n_averaged) == 2
    with AveragedModel(model, name=name, client=client, resume="never") as averaged:
        assert int(averaged.n_averaged) == 0


def test_functions_that_the_daemon_cannot_run_are_refused(client, name, model):
    with pytest.raises(TypeError, match="emad.torch.ema"):
        AveragedModel(model, avg_fn=lambda averaged, current, count: current, name=name, client=client)
    with pytest.raises(ValueError, match="multi_avg_fn"):
        AveragedModel(model, avg_fn="swa", multi_avg_fn="swa", name=name, client=client)
    with pytest.raises(emad.ScheduleError, match="averaged-modl"):
        AveragedModel(model, avg_fn="averaged-modl", name=name, client=client)
    with pytest.raises(ValueError, match="decay"):
        emad.torch.ema(1.5)


def test_the_drop_ins_are_neither_copied_nor_pickled(client, name, model):
    with AveragedModel(model, name=name, client=client) as averaged:
        with pytest.raises(TypeError, match="state_dict"):
            copy.deepcopy(averaged)
        copy.deepcopy(averaged.module)
    with ExponentialMovingAverage(model.parameters(), 0.9, name=name + "-2", client=client) as ema:
        with pytest.raises(TypeError, match="state_dict"):
            pickle.dumps(ema)


# ExponentialMovingAverage


@pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])
@pytest.mark.parametrize("use_num_updates", [True, False])
def test_moving_average_averages_as_torch_ema_s(client, name, model, use_num_updates, asynchronous):
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    reference = torch_ema_class()(model.parameters(), 0.9, use_num_updates)
    arguments = {"optimizer": optimizer} if asynchronous else {}
    with ExponentialMovingAverage(
        model.parameters(), 0.9, use_num_updates, name=name, client=client, **arguments
    ) as ema:
        for _ in range(12):
            train_step(model, optimizer, generator)
            ema.update()
            reference.update()
        assert ema.num_updates == reference.num_updates
        found, expected = ema.state_dict(), reference.state_dict()
        assert list(found) == list(expected)
        for one, other in zip(found["shadow_params"], expected["shadow_params"]):
            torch.testing.assert_close(one, other, rtol=2e-6, atol=2e-7)
        assert found["decay"] == expected["decay"] and found["collected_params"] is None


def test_moving_average_without_torch_ema(client, name):
    """The same by the formula, so that it is tested where the library is not at hand."""
    weight = torch.nn.Parameter(torch.zeros(4))
    shadow = 0.0
    with ExponentialMovingAverage([weight], 0.5, name=name, client=client) as ema:
        for count in range(1, 12):
            weight.data.fill_(count)
            ema.update()
            decay = min(0.5, (1 + count) / (10 + count))
            shadow -= (1 - decay) * (shadow - count)
            assert ema.num_updates == count
            torch.testing.assert_close(ema.shadow_params[0], torch.full((4,), shadow))


def test_the_averages_are_lent_to_the_parameters(client, name, model):
    raw = [parameter.detach().clone() for parameter in model.parameters()]
    with ExponentialMovingAverage(model.parameters(), 0, name=name, client=client, use_num_updates=False) as ema:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        ema.update()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        with pytest.raises(KeyError):
            with ema.average_parameters():
                for parameter, before in zip(model.parameters(), raw):
                    torch.testing.assert_close(parameter.detach(), before + 1)
                raise KeyError
        for parameter, before in zip(model.parameters(), raw):
            torch.testing.assert_close(parameter.detach(), before + 2)
        other = copy.deepcopy(model)
        ema.copy_to(other.parameters())
        for parameter, before in zip(other.parameters(), raw):
            torch.testing.assert_close(parameter.detach(), before + 1)
        ema.store()
        ema.copy_to()
        ema.restore()
        for parameter, before in zip(model.parameters(), raw):
            torch.testing.assert_close(parameter.detach(), before + 2)


def test_restore_without_store_says_so(client, name, model):
    with ExponentialMovingAverage(model.parameters(), 0.9, name=name, client=client) as ema:
        with pytest.raises(RuntimeError, match="store"):
            ema.restore()


def test_parameters_are_named_by_their_order_or_by_a_module(client, name, model):
    with ExponentialMovingAverage(model.parameters(), 0.9, name=name, client=client):
        with client.view(name) as view:
            assert list(view) == [f"param.{index}" for index in range(6)]
    outer = torch.nn.DataParallel(model)
    with ExponentialMovingAverage(outer.parameters(), 0.9, module=outer, name=name + "-2", client=client):
        with client.view(name + "-2") as view:
            assert set(view) == {key for key, _ in model.named_parameters()}
    with pytest.raises(ValueError, match="parameter 0"):
        ExponentialMovingAverage([torch.nn.Parameter(torch.zeros(1))], 0.9, module=model, name=name, client=client)


def test_parameters_are_held_weakly(daemon):
    model = WithBuffers()  # of our own: pytest keeps what a fixture made
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ExponentialMovingAverage(model.parameters(), 0.9, url=daemon.url, optimizer=optimizer) as ema:
        train_step(model, optimizer, torch.Generator())
        ema.update()
        died = weakref.ref(model.head.weight)
        last = [parameter.detach().clone() for parameter in model.parameters()]
        del model, optimizer
        gc.collect()
        assert died() is None
        with pytest.raises(ValueError, match="do not exist"):
            ema.update()
        ema.fence()
        gc.collect()
        assert all(source.held is None and source.origin is None for source in ema._trainer._sources)
        other = [torch.nn.Parameter(tensor) for tensor in last]
        ema.update(other)
        assert ema.num_updates == 2
        ema.copy_to(other)


def test_another_number_of_parameters_is_refused(client, name, model):
    with ExponentialMovingAverage(model.parameters(), 0.9, name=name, client=client) as ema:
        with pytest.raises(ValueError, match="2 parameters.*6"):
            ema.update(list(model.parameters())[:2])
        with pytest.raises(ValueError, match="2 shadows.*6"):
            ema.load_state_dict({**ema.state_dict(), "shadow_params": ema.shadow_params[:2]})
        with pytest.raises(emad.ManifestError, match="param.0.*in the state"):
            ema.load_state_dict({**ema.state_dict(), "shadow_params": [torch.zeros(1)] * 6})
        assert ema.num_updates == 0
    with pytest.raises(ValueError, match="decay"):
        ExponentialMovingAverage(model.parameters(), 1.5, name=name, client=client)
    with pytest.raises(TypeError, match="parameters"):
        ExponentialMovingAverage(["weight"], 0.5, name=name, client=client)


def test_torch_ema_loads_the_state(client, name, model):
    reference = torch_ema_class()(WithBuffers().parameters(), 0.5)
    with ExponentialMovingAverage(model.parameters(), 0.9, name=name, client=client) as ema:
        ema.update()
        ema.store()
        reference.load_state_dict(ema.state_dict())
    assert (reference.decay, reference.num_updates) == (0.9, 1)
    for shadow, stored, parameter in zip(reference.shadow_params, reference.collected_params, model.parameters()):
        assert torch.equal(shadow, parameter) and torch.equal(stored, parameter)


@pytest.mark.parametrize("use_num_updates", [True, False])
def test_moving_average_goes_on_from_a_state_of_torch_ema_s(client, name, model, use_num_updates):
    generator = torch.Generator().manual_seed(0)
    reference = torch_ema_class()(model.parameters(), 0.9, use_num_updates)
    for _ in range(5):
        change(model, generator)
        reference.update()
    with ExponentialMovingAverage(model.parameters(), 0.5, name=name, client=client) as ema:
        ema.load_state_dict(reference.state_dict())
        assert (ema.decay, ema.num_updates) == (0.9, reference.num_updates)
        for _ in range(5):
            change(model, generator)
            reference.update()
            ema.update()
        for one, other in zip(ema.shadow_params, reference.shadow_params):
            torch.testing.assert_close(one, other, rtol=2e-6, atol=2e-7)


# ModelEMA with the schedule of another library


def as_timm(model):
    average = timm_class()(model, decay=0.9, min_decay=0.1, update_after_step=2, use_warmup=True)
    steps = itertools.count(1)
    return lambda: average.update(model, step=next(steps)), lambda: average.module.state_dict()


def as_ema_pytorch(model):
    average = ema_pytorch_class()(model, beta=0.9, update_after_step=3, update_every=2)
    return average.update, lambda: average.ema_model.state_dict()


def as_diffusers(model):
    average = diffusers_class()(model.parameters(), decay=0.9, update_after_step=2, use_ema_warmup=True, power=0.75)
    names = [name for name, _ in model.named_parameters()]
    return lambda: average.step(model.parameters()), lambda: dict(zip(names, average.shadow_params))


@pytest.mark.parametrize(
    ("make", "schedule"),
    [
        (as_timm, "timm:decay=0.9,min_decay=0.1,after=2,warmup=1"),
        (as_ema_pytorch, "ema-pytorch:decay=0.9,after=3,every=2"),
        (as_diffusers, "diffusers:decay=0.9,after=2,warmup=1,power=0.75"),
    ],
    ids=["timm", "ema-pytorch", "diffusers"],
)
def test_model_ema_averages_as_other_libraries_do(client, name, model, make, schedule):
    generator = torch.Generator().manual_seed(1)
    update, read = make(model)
    with ModelEMA(model, schedule=schedule, name=name, client=client) as ema:
        for _ in range(20):
            change(model, generator)
            ema.update(model)
            update()
            assert_close(ema.state_dict()["ema"], read())


# What all drop-ins have in common


@pytest.mark.parametrize("kind", ["AveragedModel", "ExponentialMovingAverage"])
def test_the_optimizer_waits_for_the_copy_of_every_drop_in(client, name, kind):
    weights = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1 << 18)) for _ in range(16)])

    class Setting(torch.optim.Optimizer):
        def step(self, closure=None):
            for parameter in weights:
                parameter.data.fill_(self.value)

    optimizer = Setting(weights.parameters(), {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if kind == "AveragedModel":
            average = AveragedModel(weights, avg_fn=emad.torch.ema(0), optimizer=optimizer, name=name, client=client)
            update, read = lambda: average.update_parameters(weights), lambda: list(average.parameters())
        else:
            average = ExponentialMovingAverage(
                weights.parameters(), 0, False, optimizer=optimizer, name=name, client=client
            )
            update, read = lambda: average.update(), lambda: average.shadow_params
        with average:
            for value in range(1, 8):
                optimizer.value = float(value)
                optimizer.step()
                update()
                optimizer.value = -1.0
                optimizer.step()
                assert all((averaged == value).all() for averaged in read())


def test_training_goes_on_while_the_daemon_is_away(own_daemon, name, model):
    averaged = AveragedModel(model, name=name, url=own_daemon.url, timeout=0.5)
    ema = ExponentialMovingAverage(model.parameters(), 0.9, name=name + "-2", url=own_daemon.url, timeout=0.5)
    own_daemon.kill()
    with averaged, ema:
        with pytest.warns(RuntimeWarning, match="training goes on"):
            averaged.update_parameters(model)
        with pytest.warns(RuntimeWarning, match="training goes on"):
            ema.update()
        raw = [parameter.detach().clone() for parameter in model.parameters()]
        with pytest.raises(emad.Error):
            with ema.average_parameters():
                raise AssertionError("not reached")
        for parameter, before in zip(model.parameters(), raw):
            assert torch.equal(parameter, before)
        assert int(averaged.n_averaged) == ema.num_updates == 1


def test_a_drop_in_saves_a_safetensors_file(client, name, model, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    with AveragedModel(model, name=name, client=client) as averaged:
        averaged.update_parameters(model)
        averaged.save(tmp_path / "average.safetensors")
        assert_same(safetensors.load_file(str(tmp_path / "average.safetensors")), model.state_dict())
