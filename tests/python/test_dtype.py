"""Averages in another dtype: every bit as torch rounds it, in views and in files."""

import json
import os
import struct
import subprocess
import warnings

import numpy as np
import pytest
import torch

import emad
from emad.torch import ModelEMA

HALF = {"ema": "constant:decay=0.5"}
KINDS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": getattr(torch, "float8_e4m3fn", None), "F8_E5M2": getattr(torch, "float8_e5m2", None),
}  # fmt: skip
KINDS = {name: kind for name, kind in KINDS.items() if kind is not None}
BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def bits(tensor):
    """The tensor's bits as integers: -0.0 is not 0.0, and NaN is itself."""
    return tensor.view(BITS[tensor.element_size()])


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    different = (bits(found) != bits(expected)).flatten().nonzero().flatten()
    assert not len(different), (
        f"{len(different)} of {found.numel()} differ: {found.flatten()[different[:5]]} instead of "
        f"{expected.flatten()[different[:5]]}"
    )


def rounded_to_odd(values):
    """float64 as float32 so that a second rounding, to a smaller dtype, is that of the float64 itself."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    is_below = nearest.astype(np.float64) < values
    is_above = nearest.astype(np.float64) > values
    is_even = nearest.view(np.uint32) % 2 == 0
    with np.errstate(over="ignore", under="ignore"):
        nearest = np.where(is_even & is_below, np.nextafter(nearest, np.float32(np.inf)), nearest)
        nearest = np.where(is_even & is_above, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return nearest


def converted_by_torch(tensor, kind):
    if kind == KINDS.get("F8_E4M3"):
        tensor = tensor.clamp(-448, 448)  # as .to() does; older releases of PyTorch make NaN of what is larger
    if tensor.dtype == torch.float64 and kind not in (torch.float64, torch.float32):
        return torch.from_numpy(rounded_to_odd(tensor.numpy())).to(kind)
    return tensor.to(kind)


def special_values(kind):
    """Finite ones: zeros, the smallest and largest of every dtype, what lies between, and the neighbours."""
    points = [0.0, 1.0, 448.0, 464.0, 480.0, 57344.0, 61440.0, 65504.0, 65520.0, 65536.0]
    for exponent in (-150, -149, -134, -133, -127, -126, -25, -24, -17, -16, -15, -14, -11, -10, -9, -7, -6):
        points += [2.0**exponent, 1.5 * 2.0**exponent, 2.0**exponent * (1 + 2.0**-7)]
    for mantissa_bits in (2, 3, 7, 10, 23):
        points += [1 + 2.0**-mantissa_bits / 2, 1 + 2.0**-mantissa_bits * 1.5, 2 - 2.0**-mantissa_bits / 2]
    points.append(2.0**128 - 2.0**104)
    points = np.array(points, kind)
    with np.errstate(over="ignore"):
        points = np.concatenate([points, np.nextafter(points, kind(np.inf)), np.nextafter(points, kind(0))])
    points = np.concatenate([points, -points])
    return points[np.isfinite(points)]


def random_values(kind, seed):
    """Of every size: random bits, and random numbers around 1."""
    random = np.random.default_rng(seed)
    width = {np.float32: np.uint32, np.float64: np.uint64}[kind]
    patterns = random.integers(0, np.iinfo(width).max, 200_000, width, endpoint=True).view(kind)
    near = random.standard_normal(200_000) * 10.0 ** random.uniform(-12, 6, 200_000)
    values = np.concatenate([patterns, near.astype(kind)])
    return values[np.isfinite(values)]


@pytest.fixture
def opened(client, name):
    """Starts an average of some tensors and returns what view() gives of it."""

    def start(tensors, **arguments):
        client.trainer(name, tensors, resume="never", **arguments).close()
        return lambda **options: client.view(name, **options)

    return start


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("target", KINDS)
def test_every_bit_is_as_torch_rounds_it(opened, kind, target):
    values = np.concatenate([special_values(kind), random_values(kind, 1)])
    view = opened({"w": values})
    with view(dtype=target) as served:
        assert_same_bits(served.tensor("w"), converted_by_torch(torch.from_numpy(values), KINDS[target]))


@pytest.mark.parametrize("target", KINDS)
def test_every_finite_value_of_a_small_dtype_that_is_kept(opened, target):
    tensors = {}
    for source in KINDS.values():
        size = torch.empty(0, dtype=source).element_size()
        if size <= 2:
            patterns = np.arange(256**size).astype({1: np.uint8, 2: np.uint16}[size])
            every = torch.from_numpy(patterns.view({1: np.uint8, 2: np.int16}[size])).view(source)
            tensors[str(source)] = every[torch.isfinite(every.float())].clone()
    view = opened({"p": torch.zeros(1), **tensors}, profiles={"ema": "k-diffusion"}, buffers=list(tensors))
    with view(dtype=target) as served:
        for source, values in tensors.items():
            assert_same_bits(served.tensor(source), converted_by_torch(values.float(), KINDS[target]))


def test_double_precision_is_rounded_once_where_torch_rounds_twice(opened):
    values = torch.tensor([1 + 2**-8 + 2**-40, 1 + 2**-8, 1 + 3 * 2**-8 - 2**-40], dtype=torch.float64)
    with opened({"w": values})(dtype="bf16") as view:
        assert view.tensor("w").double().tolist() == [1 + 2**-7, 1, 1 + 2**-7]
    assert values.to(torch.bfloat16)[0] == 1  # so the expectations of the other tests cannot come from there


def test_what_is_too_large_becomes_infinite_or_the_largest_value_where_there_is_no_infinity(opened):
    view = opened({"w": torch.tensor([1e6, -1e6, 3.4e38, 449.0, 465.0, 65519.0, 65520.0])})
    infinity = float("inf")
    with view(dtype="f16") as served:
        assert served.tensor("w").tolist() == [infinity, -infinity, infinity, 449, 465, 65504, infinity]
    with view(dtype="bf16") as served:
        assert served.tensor("w")[2] == infinity
    if hasattr(torch, "float8_e4m3fn"):
        with view(dtype="f8_e4m3") as served:
            assert served.tensor("w").float().tolist() == [448, -448, 448, 448, 448, 448, 448]


def test_flushing_of_subnormal_numbers_in_this_thread_changes_nothing(opened):
    values = torch.tensor([1e-40, -1e-45, 1e-20, 3e-39])
    view = opened({"w": values, "d": values.double()})
    expected = values.to(torch.bfloat16), values.double()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush")
    try:
        with view(dtype="bf16") as half, view(dtype="f64") as double, view(dtype="f32") as single:
            found = half.tensor("w"), double.tensor("w"), single.tensor("d")
    finally:
        torch.set_flush_denormal(False)
    assert_same_bits(found[0], expected[0])
    assert_same_bits(found[1], expected[1])
    assert_same_bits(found[2], values)


# What a view gives


STATE = {
    "w": torch.arange(6.0).reshape(2, 3) / 8,
    "d": torch.full((4,), 1 / 3, dtype=torch.float64),
    "h": torch.ones(3, dtype=torch.bfloat16),
    "n": torch.tensor(7),
    "flag": torch.tensor([True, False]),
    "none": torch.zeros(0, 5),
    "scalar": torch.tensor(0.1),
}


def test_a_state_dict_has_the_dtype_and_integers_are_as_they_are(opened):
    with opened(STATE)(dtype=torch.bfloat16) as view:
        assert view.dtype == "BF16"
        state = view.state_dict()
        assert set(state) == set(STATE)
        for name, tensor in STATE.items():
            assert_same_bits(state[name], tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor)


def test_numpy_arrays_are_converted_where_numpy_has_the_dtype(opened):
    view = opened(STATE)
    with view(dtype=np.float16) as served:
        assert {array.dtype.name for array in served.values()} == {"float16", "int64", "bool"}
        assert (served["w"] == STATE["w"].numpy()).all()
        assert served["none"].shape == (0, 5)
        assert served["n"] == 7
    with view(dtype="bf16") as served:
        with pytest.raises(TypeError, match="'w' is BF16, which NumPy does not have"):
            served["w"]
        assert served["n"] == 7


def test_only_what_is_kept_in_another_dtype_is_copied(opened):
    with opened(STATE)(dtype="F32") as view:
        mapped = [
            tuple(int(end, 16) for end in line.split()[0].split("-"))
            for line in open("/proc/self/maps")
            if "memfd:" in line and line.split()[1][3] == "p"
        ]

        def is_shared(tensor):
            return any(begin <= tensor.data_ptr() < end for begin, end in mapped)

        assert [is_shared(view.tensor(name)) for name in ("w", "h", "n", "scalar", "d")] == [True] * 4 + [False]
        copied = view.tensor("d")
        copied.fill_(9)
        assert_same_bits(view.tensor("d"), STATE["d"].float())


def test_copies_outlive_the_view(opened):
    with opened(STATE)(dtype="f16") as view:
        state = view.state_dict()
    assert_same_bits(state["w"], STATE["w"].half())
    with pytest.raises(emad.ClosedError):
        view.tensor("w")


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, "bf16", "BF16", "bfloat16", "BFloat16", "torch.bfloat16"],
    ids=str,
)
def test_a_dtype_has_many_names(opened, dtype):
    with opened({"w": torch.ones(2)})(dtype=dtype) as view:
        assert (view.dtype, view.tensor("w").dtype) == ("BF16", torch.bfloat16)


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float16"), "half", "f16", torch.half], ids=str)
def test_numpy_names_a_dtype_too(opened, dtype):
    with opened({"w": torch.ones(2)})(dtype=dtype) as view:
        assert view.tensor("w").dtype == torch.float16


def test_without_a_dtype_all_is_as_it_is_kept(opened):
    with opened(STATE)() as view:
        assert view.dtype is None
        assert [view.tensor(name).dtype for name in ("w", "d", "h")] == [torch.float32, torch.float64, torch.float32]


@pytest.mark.parametrize(
    ("dtype", "kind", "words"),
    [
        ("bf15", ValueError, "nearest is 'bf16'.*f8_e5m2"),
        ("int64", ValueError, "'int64'"),
        (torch.int64, ValueError, "'int64'"),
        (np.dtype("int8"), ValueError, "'int8'"),
        (np.dtype(">f4"), ValueError, "foreign byte order"),
        ("f16\0", ValueError, "NUL"),
        (16, TypeError, "16"),
        (float, TypeError, "float"),
    ],
    ids=str,
)
def test_what_is_no_dtype_is_told(opened, client, name, tmp_path, dtype, kind, words):
    view = opened({"w": torch.ones(2)})
    with pytest.raises(kind, match=words):
        view(dtype=dtype)
    with pytest.raises(kind, match=words):
        client.export(name, None, tmp_path / "f", dtype=dtype)
    assert os.listdir(tmp_path) == []


def test_a_revoked_view_converts_nothing(own_daemon, name):
    value = np.zeros(1 << 12)
    with emad.Client(own_daemon.url) as client:
        with client.trainer(name, {"w": value}, profiles={"ema": "constant:decay=0"}) as trainer:
            oldest = client.view(name, dtype="f16")
            assert (oldest["w"] == 0).all()
            held = []
            for step in range(1, 8):
                trainer.push(step, {"w": value + step}, wait=True)
                held.append(client.view(name, dtype="f16"))
            for take in (lambda: oldest["w"], lambda: oldest.tensor("w"), oldest.state_dict):
                with pytest.raises(emad.RevokedError):
                    take()
            assert (held[-1]["w"] == 7).all()


def test_conversion_of_versions_that_are_being_replaced_is_never_a_mixture(own_daemon, name):
    count = 1 << 18
    with emad.Client(own_daemon.url) as client:
        with client.trainer(name, {"w": np.zeros(count)}, profiles={"ema": "constant:decay=0"}) as trainer:
            whole = 0
            for step in range(1, 60):
                trainer.push(step, {"w": np.full(count, float(step))})
                try:
                    with client.view(name, dtype="f32") as view:
                        array = view["w"]
                        assert (array == view.step).all()
                        whole += 1
                except emad.RevokedError:
                    continue
            assert whole > 0


# Files


def header_of(path):
    content = path.read_bytes()
    header_bytes = struct.unpack_from("<Q", content)[0]
    return json.loads(content[8 : 8 + header_bytes]), 8 + header_bytes


@pytest.mark.parametrize("target", KINDS)
def test_a_file_holds_what_a_view_gives(opened, client, name, tmp_path, emactl, target):
    safetensors = pytest.importorskip("safetensors.torch")
    view = opened(STATE, attributes={"names": ["é"]})
    path = tmp_path / "out.safetensors"
    seen = []
    written = client.export(name, None, path, dtype=target, progress=lambda *now: seen.append(now))
    assert (written.overflow_count, written.overflow_tensor) == (0, None)
    assert written.bytes == os.path.getsize(path)
    assert seen[-1] == (written.bytes, written.bytes) and seen == sorted(seen)
    assert os.listdir(tmp_path) == [path.name]
    found = safetensors.load_file(str(path))
    with view(dtype=target) as served:
        state = served.state_dict()
        assert set(found) == set(state)
        for key, tensor in state.items():
            assert_same_bits(found[key], tensor)
        header, begin = header_of(path)
        assert header.pop("__metadata__") == {**served.image_metadata, "emad.dtype": target}
    assert begin % 4096 == 0
    sizes = [state[key].element_size() for key in sorted(header, key=lambda key: header[key]["data_offsets"])]
    assert sizes == sorted(sizes, reverse=True)
    assert {key: fields["dtype"] for key, fields in header.items() if key in ("w", "d", "h", "none", "scalar")} == {
        key: target for key in ("w", "d", "h", "none", "scalar")
    }
    verified = subprocess.run([emactl, "verify", "--json", path], capture_output=True, check=True, timeout=60)
    document = json.loads(verified.stdout)
    assert document["is_good"] and document["dtypes"][target]["tensors"] == 5
    assert document["metadata"]["emad.dtype"] == target


def test_without_a_dtype_the_file_is_the_image(opened, client, name, tmp_path):
    with opened(STATE)() as view:
        client.export(name, None, tmp_path / "out")
        assert "emad.dtype" not in view.image_metadata
        assert (tmp_path / "out").read_bytes() == view._image[:]


def test_values_that_are_too_large_are_warned_of(opened, client, name, tmp_path):
    opened({"small": torch.ones(3), "large": torch.tensor([1e5, -1e5, 1.0]), "larger": torch.tensor([1e9])})
    with pytest.warns(RuntimeWarning, match="3 values.*F16.*tensor 'large'"):
        written = client.export(name, None, tmp_path / "out", dtype="f16")
    assert (written.overflow_count, written.overflow_tensor) == (3, "large")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert client.export(name, None, tmp_path / "out", dtype="bf16").overflow_count == 0
        assert client.export(name, None, tmp_path / "out").overflow_count == 0


def test_what_a_progress_function_raises_stops_a_converting_export(opened, client, name, tmp_path):
    opened({"w": torch.ones(3 << 20)})
    (tmp_path / "out").write_text("before")
    calls = []

    def interrupt(done_bytes, total_bytes):
        calls.append(done_bytes)
        if done_bytes > total_bytes / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.export(name, None, tmp_path / "out", dtype="bf16", progress=interrupt)
    assert len(calls) > 2
    assert (tmp_path / "out").read_text() == "before" and os.listdir(tmp_path) == ["out"]


def anonymous_bytes():
    """The memory of this process that is neither a file's nor shared."""
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["RssAnon"].split()[0]) << 10


def test_a_large_model_is_converted_in_little_memory(opened, client, name, tmp_path):
    count = 16 << 20
    opened({"w": np.zeros(count, np.float32)})
    before, peaks = anonymous_bytes(), []
    written = client.export(
        name, None, tmp_path / "out", dtype="f64", progress=lambda *_: peaks.append(anonymous_bytes())
    )
    assert written.bytes == 4096 + 8 * count and len(peaks) > 50
    assert max(peaks) - before < 4 << 20


# ModelEMA


def test_save_takes_a_dtype(client, name, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    with ModelEMA(model, name=name, client=client) as ema:
        with torch.no_grad():
            model[0].weight.add_(1)
        ema.update(model)
        written = ema.save(tmp_path / "half.safetensors", dtype=torch.float16)
        assert (written.step, written.overflow_count) == (1, 0)
        found = safetensors.load_file(str(tmp_path / "half.safetensors"))
        for key, value in ema.ema.state_dict().items():
            assert_same_bits(found[key], value.half() if value.is_floating_point() else value)
        with ema.average_parameters(model):
            assert model[0].weight.dtype == torch.float32
            assert torch.equal(model[0].weight, ema.ema.state_dict()["0.weight"])
