"""What is refused in Python before anything is sent, and the exceptions themselves."""

import builtins
import copy
import errno
import math
import pickle

import numpy as np
import pytest
import torch

import emad
from emad import _errors
from emad._errors import error_from


@pytest.fixture
def trainer(client, name):
    start = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}
    with client.trainer(name, start, profiles={"ema": "constant:decay=0.5"}) as opened:
        yield opened


GOOD = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    "wrong, kind, words",
    [
        ([[0.0] * 3] * 2, TypeError, ["'b'", "list", "NumPy", "torch"]),
        (3.0, TypeError, ["'b'", "float"]),
        (np.zeros(3, np.complex64), TypeError, ["'b'", "complex64", "float32"]),
        (np.zeros(3, ">f4"), TypeError, ["'b'", "byte order"]),
        (torch.zeros(3, dtype=torch.complex64), TypeError, ["'b'", "complex64"]),
        (torch.zeros(3).to_sparse(), TypeError, ["'b'", "sparse"]),
        (torch.zeros(3, device="meta"), TypeError, ["'b'", "meta"]),
        (np.zeros(3, np.float64), emad.ManifestError, ["'b'", "F64", "F32"]),
        (np.zeros(4, np.float32), emad.ManifestError, ["'b'", "[4]", "[3]"]),
        (torch.zeros(3, 1), emad.ManifestError, ["'b'", "[3, 1]", "[3]"]),
    ],
)
def test_a_wrong_tensor_is_named(trainer, client, name, wrong, kind, words):
    with pytest.raises(kind) as caught:
        trainer.push(1, {**GOOD, "b": wrong})
    for word in words:
        assert word in str(caught.value)
    assert trainer.push(1, GOOD, wait=True).outcome == "applied"


def test_a_dtype_that_changes_in_place_is_noticed(client, name):
    linear = torch.nn.Linear(3, 2)
    with client.trainer(name, dict(linear.named_parameters())) as trainer:
        linear.half()
        with pytest.raises(emad.ManifestError, match="weight.*F16.*F32"):
            trainer.push(1, dict(linear.named_parameters()))
        linear.float()
        trainer.push(1, dict(linear.named_parameters()), wait=True)


def test_missing_and_additional_tensors_are_named(trainer):
    with pytest.raises(emad.ManifestError, match="'b'"):
        trainer.push(1, {"w": GOOD["w"]})
    with pytest.raises(emad.ManifestError, match="'c'"):
        trainer.push(1, {**GOOD, "c": GOOD["b"]})
    with pytest.raises(emad.ManifestError, match="'b'"):
        trainer.push(1, {"w": GOOD["w"], "c": GOOD["b"]})


@pytest.mark.parametrize("step, kind", [("7", TypeError), (1.5, TypeError), (-1, ValueError), (2**64, ValueError)])
def test_a_wrong_step(trainer, step, kind):
    with pytest.raises(kind, match="step"):
        trainer.push(step, GOOD)


def test_steps_may_be_numpy_integers(trainer):
    assert trainer.push(np.int64(3), GOOD, wait=True).step == 3


@pytest.mark.parametrize(
    "options, kind, word",
    [
        ({"resume": "maybe"}, ValueError, "auto, never, must"),
        ({"rank": 2, "world": 2}, ValueError, "world"),
        ({"buffers": ["x"]}, ValueError, "'x'"),
        ({"pieces": {"w": ((2, 3), (1, 0))}}, ValueError, "'w'"),
        ({"pieces": {"w": ((6,), (0,))}}, ValueError, "'w'"),
        ({"attributes": {"x": object()}}, TypeError, "JSON"),
        ({"attributes": {"x": float("nan")}}, ValueError, "JSON"),
        ({"attributes": {"x": "\udcff"}}, ValueError, "JSON"),
        ({"attributes": [1]}, TypeError, "mapping"),
        ({"profiles": {"ema": 3.0}}, emad.ScheduleError, "3.0"),
        ({"profiles": [3]}, TypeError, "profile"),
        ({"timeout": "1"}, TypeError, "timeout"),
        ({"timeout": -1}, ValueError, "timeout"),
    ],
)
def test_wrong_options(client, name, options, kind, word):
    with pytest.raises(kind, match=word):
        client.trainer(name, GOOD, **options)


def test_wrong_names_and_urls(client, name):
    with pytest.raises(TypeError, match="model"):
        client.trainer(7, GOOD)
    with pytest.raises(TypeError, match="7"):
        client.trainer(name, {7: GOOD["w"]})
    with pytest.raises(TypeError, match="list"):
        client.trainer(name, [GOOD["w"]])
    with pytest.raises(ValueError, match="NUL"):
        client.view("a\0b")
    with pytest.raises(ValueError, match="a tensor's name"):
        client.trainer(name, {"\ud800": GOOD["w"]})
    with pytest.raises(TypeError, match="url"):
        emad.Client(7)


def test_a_timeout_may_be_infinite(client, name):
    with client.trainer(name, GOOD, timeout=math.inf) as trainer:
        assert trainer.push(1, GOOD, wait=True, timeout=math.inf).outcome == "applied"
        assert trainer.flush(timeout=math.inf).step == 1


def test_handles_are_neither_copied_nor_pickled(client, name):
    with client.trainer(name, GOOD) as trainer, client.view(name) as view:
        for handle, advice in ((client, "same url"), (trainer, "a Client of its own"), (view, "open a view")):
            for how in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match=advice):
                    how(handle)


def test_every_code_has_an_exception_of_its_own_that_survives_pickling():
    for code in range(-10023, -10000):
        error = error_from(code, "x", "a sentence")
        assert type(error).code == code
        assert type(error) in vars(emad).values()
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.code, again.name) == (type(error), "a sentence", code, "x")


def test_codes_of_the_operating_system():
    error = error_from(-errno.EACCES, "EACCES", "no right to open /x")
    assert isinstance(error, OSError) and isinstance(error, emad.Error)
    assert error.errno == errno.EACCES
    assert str(error) == "no right to open /x"
    assert isinstance(error_from(-errno.ENOMEM, "ENOMEM", ""), MemoryError)


def test_exceptions_are_the_built_in_ones_too():
    assert issubclass(emad.TimeoutError, builtins.TimeoutError)
    assert issubclass(emad.AwayError, ConnectionError)
    for kind in vars(_errors).values():
        if isinstance(kind, type) and kind is not emad.Error and issubclass(kind, Exception):
            assert issubclass(kind, emad.Error)


def test_an_explicit_library_that_does_not_exist(run_python):
    done = run_python("import emad; emad.version()", EMAD_LIBRARY="/nowhere/libemad.so")
    assert done.returncode == 1
    assert "ImportError" in done.stderr and "/nowhere/libemad.so" in done.stderr


def test_neither_numpy_nor_torch_is_imported(run_python):
    program = "import sys, emad; emad.Client().ping(); assert not {'torch', 'numpy'} & set(sys.modules)"
    done = run_python(program)
    assert done.returncode == 0, done.stderr
