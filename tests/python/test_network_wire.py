"""Shorter weights on the wire: snapshots that travel as bf16 or f16, and how many bytes that takes."""

import contextlib

import numpy as np
import pytest
from proxy import Proxy
from test_network import CHUNK, free_port, running

import emad

HALF = {"ema": "constant:decay=0.5"}
COUNT = 3 * CHUNK // 4 + 1000  # of float32: three chunks and a bit


def bf16(values):
    """Float32 rounded to bfloat16, to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).reshape(values.shape)


ROUNDED = {
    "bf16": bf16,
    "f16": lambda values: values.astype(np.float16).astype(np.float32),
    "f32": lambda values: values.astype(np.float32),
}


def snapshot(step):
    """Doubles, singles and halves, each with a boundary of chunks somewhere, and what is not to be touched."""
    generator = np.random.default_rng(step)
    return {
        # Of single precision: NumPy would round others twice on the way to 16 bits.
        "double": generator.standard_normal(CHUNK // 8 + 77, np.float32).astype(np.float64),
        "w": generator.standard_normal(COUNT, np.float32),
        "half": generator.standard_normal(1001).astype(np.float16),
        "n": np.full(3, step, np.int64),
        "small": np.arange(5, dtype=np.uint8),
    }


def rounded(values, wire):
    """What arrives: the doubles and singles by way of the wire's dtype."""
    shorter = ROUNDED[wire]
    return {**values, "double": shorter(values["double"]).astype(np.float64), "w": shorter(values["w"])}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    port = free_port()
    directory = tmp_path_factory.mktemp("wire") / "run"
    with running(directory, f"[network]\nlisten=tcp://127.0.0.1:{port}\nanonymous=push\n") as daemon:
        daemon.port = port
        yield daemon


@pytest.fixture
def proxy(daemon):
    with contextlib.closing(Proxy(daemon.port)) as proxy:
        yield proxy


def assert_equal(url, first, second):
    with emad.Client(url) as client, client.view(first) as one, client.view(second) as other:
        assert (one.step, one.updates) == (other.step, other.updates)
        assert set(one) == set(other)
        for name in one:
            assert one[name].tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("wire", ROUNDED)
def test_the_average_is_that_of_a_local_trainer_that_pushes_the_rounded_weights(daemon, proxy, wire):
    with emad.Client(proxy.url) as remote, emad.Client(daemon.url) as local:
        with (
            remote.trainer(f"there-{wire}", snapshot(0), profiles=HALF, wire=wire) as there,
            local.trainer(f"here-{wire}", rounded(snapshot(0), wire), profiles=HALF) as here,
        ):
            for step in range(1, 4):
                there.push(step, snapshot(step), wait=True)
                here.push(step, rounded(snapshot(step), wire), wait=True)
    assert_equal(daemon.url, f"there-{wire}", f"here-{wire}")


def bytes_of_pushes(proxy, name, values, **options):
    with emad.Client(proxy.url) as client, client.trainer(name, values, profiles=HALF, **options) as trainer:
        before = proxy.passed
        for step in range(1, 4):
            trainer.push(step, values, wait=True)
        return proxy.passed - before


def test_float32_travels_as_bf16_in_half_of_the_bytes(daemon, proxy):
    values = {"w": np.random.default_rng(7).standard_normal(4 * CHUNK, np.float32)}
    whole = bytes_of_pushes(proxy, "whole", values)
    half = bytes_of_pushes(proxy, "half", values, wire="bf16")
    assert whole > 3 * 16 * CHUNK
    assert 0.5 <= half / whole < 0.505


def test_what_is_no_wider_travels_as_it_is(daemon, proxy):
    values = {"half": np.ones(CHUNK, np.float16), "n": np.ones(CHUNK, np.int32)}
    whole = bytes_of_pushes(proxy, "kept", values)
    assert abs(bytes_of_pushes(proxy, "kept16", values, wire="bf16") - whole) < 0.001 * whole


def test_a_push_of_the_pusher_s_thread_and_a_tensor_s_own_dtype_object(daemon, proxy):
    with emad.Client(proxy.url) as remote, emad.Client(daemon.url) as local:
        with (
            remote.trainer("behind", snapshot(0), profiles=HALF, wire=np.dtype(np.float16)) as there,
            local.trainer("before", rounded(snapshot(0), "f16"), profiles=HALF) as here,
        ):
            there.push_begin(1, snapshot(1))
            there.fence()
            there.flush()
            here.push(1, rounded(snapshot(1), "f16"), wait=True)
    assert_equal(daemon.url, "behind", "before")


def test_a_seed_keeps_every_bit(daemon, proxy):
    values = {"w": snapshot(1)["w"]}
    with emad.Client(proxy.url) as client, client.trainer("seeded", snapshot_of(0), profiles=HALF, wire="bf16") as trainer:
        trainer.seed("ema", values, 10, 5)
        with client.view("seeded") as view:
            assert view["w"].tobytes() == values["w"].tobytes()


def snapshot_of(step):
    return {"w": snapshot(step)["w"]}


def test_what_is_too_large_for_f16_is_refused_as_any_infinite_value(daemon, proxy):
    with emad.Client(proxy.url) as client, client.trainer("large", {"w": np.ones(9, np.float32)}, wire="f16") as trainer:
        result = trainer.push(1, {"w": np.full(9, 7e4, np.float32)}, wait=True)
        assert result.outcome == "nonfinite"


@pytest.mark.parametrize("wrong", ["bf15", "f8_e4m3", "float8_e5m2", "f64", "i32", ""])
def test_other_dtypes_are_refused_with_those_that_there_are(daemon, proxy, wrong):
    for url in (proxy.url, daemon.url):
        with emad.Client(url) as client:
            with pytest.raises(emad.ArgumentError, match="snapshots do not travel as") as error:
                client.trainer("wrong", {"w": np.ones(9, np.float32)}, wire=wrong)
            assert "all are f32, float32, float, f16, float16, half, bf16, bfloat16" in str(error.value)
            with pytest.raises(TypeError, match="wire is 16"):
                client.trainer("wrong", {"w": np.ones(9, np.float32)}, wire=16)


def test_where_memory_is_shared_nothing_is_rounded(daemon):
    values = snapshot_of(3)
    with emad.Client(daemon.url) as client, client.trainer("shared", values, profiles=HALF, wire="bf16"):
        with client.view("shared") as view:
            assert view["w"].tobytes() == values["w"].tobytes()
