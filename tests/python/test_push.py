"""Pushing: what is accepted, what becomes of it, and where the values are read."""

import numpy as np
import pytest
import torch

import emad

HALF = {"ema": "constant:decay=0.5"}


def test_every_outcome_is_told(client, name):
    with client.trainer(name, {"w": np.zeros(4, np.float32)}, profiles=HALF, start_step=5) as trainer:
        applied = trainer.push(6, {"w": np.ones(4, np.float32)}, wait=True)
        assert (applied.outcome, applied.step) == ("applied", 6)
        assert applied.version > trainer.version
        assert trainer.push(6, {"w": np.ones(4, np.float32)}, wait=True).outcome == "duplicate"
        with pytest.warns(RuntimeWarning, match="step 2 "):
            assert trainer.push(2, {"w": np.ones(4, np.float32)}, wait=True).outcome == "stale"
        assert trainer.push(7, {"w": np.ones(4, np.float32)}).outcome == "accepted"
        assert trainer.flush().step == 7
        with client.view(name) as view:
            assert (view["w"] == 0.75).all()
            assert view.updates == 2
            assert view.decay == 0.5


def test_nan_is_refused_and_names_the_tensor_and_the_count(client, name):
    good = {"a": np.ones(8, np.float32), "b": np.ones(8, np.float32)}
    with client.trainer(name, good, profiles=HALF) as trainer:
        bad = {"a": good["a"], "b": good["b"].copy()}
        bad["b"][3] = np.nan
        bad["b"][7] = np.inf
        refused = trainer.push(1, bad, wait=True)
        assert refused.outcome == "nonfinite"
        assert refused.version == 0
        assert "b" in refused.refusal and "2" in refused.refusal
        with client.view(name) as view:
            assert view.step == 0
            assert (view["b"] == 1).all()
        assert trainer.push(2, good, wait=True).outcome == "applied"


def test_flush_tells_what_was_refused(client, name):
    with client.trainer(name, {"w": np.ones(8, np.float32)}, profiles=HALF) as trainer:
        trainer.push(1, {"w": np.full(8, np.nan, np.float32)})
        with pytest.raises(emad.RefusedError, match="w") as caught:
            trainer.flush()
        assert caught.value.result.refused_count == 1
        trainer.push(2, {"w": np.ones(8, np.float32)})
        assert trainer.flush().step == 2


def test_a_start_that_is_not_finite_is_refused(client, name):
    with pytest.raises(emad.RefusedError, match="w"):
        client.trainer(name, {"w": np.full(8, np.nan, np.float32)})


def test_torch_dtypes_are_averaged_in_single_precision_or_better(client, name):
    floats = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    start = {str(dtype): torch.zeros(5, dtype=dtype) for dtype in floats}
    with client.trainer(name, start, profiles=HALF) as trainer:
        trainer.push(1, {key: value + 1.5 for key, value in start.items()}, wait=True)
        with client.view(name) as view:
            state = view.state_dict()
            for dtype in floats:
                found = state[str(dtype)]
                assert found.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
                assert (found == 0.75).all()


def test_integers_and_booleans_are_copied_bit_for_bit(client, name):
    kinds = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    start = {str(dtype): torch.zeros(5, dtype=dtype) for dtype in kinds}
    start["w"] = torch.zeros(1)
    later = {key: torch.tensor([1, 0, 1, 3, 1]).to(value.dtype) for key, value in start.items() if key != "w"}
    later["w"] = torch.ones(1)
    with client.trainer(name, start, profiles={"latest": "constant:decay=0.5", "frozen": "yolo"}) as trainer:
        trainer.push(1, later, wait=True)
        for profile, expected in (("latest", later), ("frozen", start)):
            with client.view(name, profile) as view:
                state = view.state_dict()
                for dtype in kinds:
                    assert state[str(dtype)].dtype == dtype
                    assert torch.equal(state[str(dtype)], expected[str(dtype)])


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_numpy_dtypes(client, name, kind):
    start = {"x": np.zeros((2, 2), kind), "w": np.zeros(1, np.float32)}
    with client.trainer(name, start, profiles=HALF) as trainer:
        trainer.push(1, {"x": np.ones((2, 2), kind), "w": np.ones(1, np.float32)}, wait=True)
        with client.view(name) as view:
            assert (view["x"] == (0.5 if kind.startswith("float") else 1)).all()
            assert view["x"].shape == (2, 2)


def test_float8_where_torch_has_it(client, name):
    if not hasattr(torch, "float8_e4m3fn"):
        pytest.skip("this torch has no float8")
    kinds = [torch.float8_e4m3fn, torch.float8_e5m2]
    start = {str(dtype): torch.zeros(4).to(dtype) for dtype in kinds}
    with client.trainer(name, start, profiles=HALF) as trainer:
        trainer.push(1, {key: torch.full((4,), 1.5).to(value.dtype) for key, value in start.items()}, wait=True)
        with client.view(name) as view:
            assert all((value.float() == 0.75).all() for value in view.state_dict().values())


def test_shapes_of_every_kind(client, name):
    shapes = {"scalar": (), "empty": (0, 3), "one": (1,), "deep": (2, 1, 3, 1, 2), "odd": (7, 13)}
    start = {key: torch.zeros(shape) for key, shape in shapes.items()}
    with client.trainer(name, start, profiles=HALF) as trainer:
        trainer.push(1, {key: value + 1 for key, value in start.items()}, wait=True)
        with client.view(name) as view:
            for key, shape in shapes.items():
                assert view[key].shape == shape
                assert view.tensor(key).shape == shape
                assert (view[key] == 0.5).all()


def test_tensors_that_are_not_contiguous(client, name):
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    last = images.to(memory_format=torch.channels_last)
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensors = {"last": last, "turned": images[0, 0].t(), "strided": images[0, 0, :, ::2], "array": matrix.T}
    with client.trainer(name, tensors, profiles=HALF) as trainer:
        for step in (1, 2):
            last.mul_(3)
            trainer.push(step, tensors, wait=True)
        with client.view(name) as view:
            state = view.state_dict()
            first = images
            expected = ((first + 3 * first) / 2 + 9 * first) / 2
            assert torch.equal(state["last"], expected)
            assert torch.equal(state["turned"], images[0, 0].t())
            assert torch.equal(state["strided"], images[0, 0, :, ::2])
            assert (view["array"] == matrix.T).all()


def test_tensors_that_are_not_contiguous_may_be_pushed_in_and_out_of_inference_mode(client, name):
    turned = torch.arange(6.0).reshape(2, 3).t()
    with torch.inference_mode():
        trainer = client.trainer(name, {"w": turned}, profiles={"ema": "constant:decay=0"})
    with trainer:
        trainer.push(1, {"w": turned + 1}, wait=True)
        with torch.inference_mode():
            trainer.push(2, {"w": (turned + 2).t().clone().t()}, wait=True)
        trainer.push(3, {"w": turned}, wait=True)
        with client.view(name) as view:
            assert torch.equal(view.tensor("w"), turned)


def test_the_default_device_makes_no_difference(client, name):
    if not hasattr(torch, "set_default_device"):
        pytest.skip("this torch has no default device")
    turned = torch.arange(6.0).reshape(2, 3).t()
    with torch.device("meta"):  # as set_default_device("cuda"), where there is none
        with client.trainer(name, {"w": turned}, profiles={"ema": "constant:decay=0"}) as trainer:
            trainer.push(1, {"w": turned + 1}, wait=True)
        with client.view(name, dtype=torch.float64) as view, client.view(name) as kept:
            for state in (view.state_dict(), kept.state_dict()):
                assert state["w"].device.type == "cpu"
                assert state["w"].tolist() == (turned + 1).tolist()


def test_arrays_are_pushed_while_another_thread_imports_torch(run_python, name):
    program = """
import sys, types, numpy, emad
sys.modules["torch"] = types.ModuleType("torch")  # as it is while its first lines run
arrays = {"w": numpy.ones(3)}
client = emad.Client()
with client.trainer(sys.argv[1], arrays) as trainer:
    print(trainer.push(1, arrays, wait=True).outcome)
    print(client.view(sys.argv[1], dtype=numpy.float32)["w"].dtype)
"""
    done = run_python(program, name)
    assert (done.stdout, done.stderr) == ("applied\nfloat32\n", "")


def test_a_tensor_may_be_transposed_in_place_between_pushes(client, name):
    tensor = torch.arange(9.0).reshape(3, 3)
    with client.trainer(name, {"w": tensor}, profiles={"ema": "constant:decay=0"}) as trainer:
        for step in (1, 2, 3):
            tensor.t_()
            trainer.push(step, {"w": tensor}, wait=True)
            with client.view(name) as view:
                assert torch.equal(view.tensor("w"), tensor)


def test_a_tensor_may_lie_elsewhere_at_every_push(client, name):
    with client.trainer(name, {"w": torch.zeros(1000)}, profiles=HALF) as trainer:
        expected = 0.0
        for step in range(1, 20):
            given = torch.full((1000,), float(step)) if step % 2 else np.full(1000, step, np.float32)
            trainer.push(step, {"w": given})
            expected = expected * 0.5 + step * 0.5
            del given
        trainer.flush()
        with client.view(name) as view:
            assert np.allclose(view["w"], expected, rtol=1e-6, atol=0)


def test_memory_that_a_tensor_gives_up_is_kept_until_the_fence(client, name):
    weight = torch.zeros(1 << 20)
    with client.trainer(name, {"w": weight}, profiles=HALF) as trainer:
        for step in range(1, 6):
            weight.data = torch.full((1 << 20,), 4.0)
            trainer.push_begin(step, {"w": weight})
            weight.data = torch.full((1 << 20,), float("nan"))
        trainer.fence()
        assert trainer.flush().step == 5


def test_shared_storage_is_pushed_under_every_name(client, name):
    base = torch.arange(10.0)
    tensors = {"whole": base, "tied": base, "part": base[3:7]}
    with client.trainer(name, tensors, profiles=HALF):
        with client.view(name) as view:
            assert torch.equal(view.tensor("whole"), base)
            assert torch.equal(view.tensor("tied"), base)
            assert torch.equal(view.tensor("part"), base[3:7])


def test_parameters_that_require_gradients(client, name):
    linear = torch.nn.Linear(3, 2)
    with client.trainer(name, dict(linear.named_parameters())) as trainer:
        assert trainer.push(1, dict(linear.named_parameters()), wait=True).outcome == "applied"


def test_push_begin_and_fence(client, name):
    value = torch.zeros(1 << 20)
    with client.trainer(name, {"w": value}, profiles={"ema": "constant:decay=0"}) as trainer:
        for step in range(1, 8):
            value.fill_(step)
            trainer.push_begin(step, {"w": value})
            trainer.fence()
            value.fill_(-1)
        trainer.flush()
        with client.view(name) as view:
            assert (view["w"] == 7).all()


def test_a_refusal_of_an_asynchronous_push_is_told_by_flush(client, name):
    with client.trainer(name, {"w": torch.zeros(4)}) as trainer:
        trainer.push_begin(1, {"w": torch.full((4,), float("inf"))})
        trainer.fence()
        with pytest.raises(emad.RefusedError):
            trainer.flush()


def test_names_lose_the_parts_that_wrappers_add(client, name):
    with client.trainer(name, {"module.net._orig_mod.w": torch.zeros(2)}):
        with client.view(name) as view:
            assert list(view) == ["net.w"]


def test_pieces_of_two_ranks_make_one_model(daemon, name):
    whole = np.arange(12, dtype=np.float32).reshape(4, 3)
    bias = np.ones(3, np.float32)
    with emad.Client(daemon.url) as first, emad.Client(daemon.url) as second:
        upper = {"w": whole[:1].copy()}
        lower = {"w": whole[1:].copy(), "b": bias}
        pieces = [{"w": emad.Piece((4, 3), (0, 0))}, {"w": ((4, 3), (1, 0))}]
        tensors = [{**upper, "b": np.zeros((0,), np.float32)}, lower]
        pieces[0]["b"] = emad.Piece((3,), (0,))
        ranks = [
            one.trainer(name, tensors[rank], profiles=HALF, rank=rank, world=2, pieces=pieces[rank])
            for rank, one in enumerate((first, second))
        ]
        for rank, trainer in enumerate(ranks):
            trainer.push(1, {key: value + 2 for key, value in tensors[rank].items()})
        for trainer in ranks:
            trainer.flush()
        with first.view(name, min_step=1) as view:
            assert (view["w"] == whole + 1).all()
            assert (view["b"] == bias + 1).all()
