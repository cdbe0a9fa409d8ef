"""emactl diff and get: of files against NumPy, of averages against a real daemon's views."""

import io
import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

numpy = pytest.importorskip("numpy")
emad = pytest.importorskip("emad")

DATA, NO_INPUT, USAGE, CANNOT_CREATE = 65, 66, 64, 73
FORMATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1",
           "BOOL": "|b1"}  # fmt: skip


def image(tensors, raw=None):
    """A safetensors file of arrays; raw: {name: (dtype, shape, bytes)} for what NumPy does not have."""
    header, payload = {}, b""
    parts = {name: (dtype, list(array.shape), array.astype(FORMATS[dtype]).tobytes())
             for name, (dtype, array) in tensors.items()}  # fmt: skip
    for name, (dtype, shape, content) in sorted({**parts, **(raw or {})}.items(), key=lambda item: -len(item[1][2])):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(payload), len(payload) + len(content)]}
        payload += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


@pytest.fixture
def run(emactl, daemon):
    def run_tool(*arguments, text=True, **environment):
        return subprocess.run(
            [emactl, *map(str, arguments)], capture_output=True, text=text, timeout=60, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "EMAD_SOCKET": daemon.url, **environment},
        )  # fmt: skip

    return run_tool


@pytest.fixture
def files(tmp_path):
    """Two files, and the arrays in them."""
    generator = numpy.random.default_rng(7)
    a = {"big": ("F32", generator.standard_normal((300, 257))), "same": ("I64", numpy.arange(5)),
         "half": ("F16", generator.standard_normal(40)), "gone": ("F32", numpy.zeros(2)),
         "turned": ("F32", numpy.zeros((2, 3))), "mixed": ("F32", numpy.array([0.5, -2.0]))}  # fmt: skip
    b = {**a, "big": ("F32", a["big"][1] + 1e-3 * generator.standard_normal((300, 257))),
         "half": ("F16", a["half"][1] * 1.5), "turned": ("F32", numpy.zeros((3, 2))), "new": ("U8", numpy.ones(3)),
         "mixed": ("F64", numpy.array([0.5, -2.0]))}  # fmt: skip
    del b["gone"]
    paths = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path, tensors in zip(paths, (a, b)):
        path.write_bytes(image(tensors))
    return paths, a, b


@pytest.fixture
def model(daemon, name):
    state = {"layer.weight": numpy.arange(12, dtype=numpy.float32).reshape(4, 3), "n": numpy.array(3)}
    with emad.Client(daemon.url) as client:
        profiles = {"ema": "constant:decay=0.5", "slow": "constant:decay=0.9"}
        trainer = client.trainer(name, state, profiles=profiles, buffers=["n"])
        for step in range(1, 4):
            state["layer.weight"] = state["layer.weight"] + 1
            trainer.push(step, state, wait=True)
        yield name
        trainer.close()


# ---- diff ---------------------------------------------------------------------------------------------------------


def test_diff_says_what_numpy_says(run, files):
    (left, right), a, b = files
    result = run("diff", left, right, "--json")
    assert (result.returncode, result.stderr) == (1, "")
    document = json.loads(result.stdout)
    assert document["a"] == {"file": str(left)} and document["is_equal"] is False
    assert (document["tensors"], document["differing_tensors"]) == (4, 2)
    assert (document["only_in_a"], document["only_in_b"]) == (["gone"], ["new"])
    assert document["other_shapes"] == [{"name": "turned", "a_shape": [2, 3], "b_shape": [3, 2]}]
    assert [row["name"] for row in document["differences"]] == ["half", "big"]
    for row in document["differences"]:
        dtype = FORMATS[row["a_dtype"]]
        x, y = (tensors[row["name"]][1].astype(dtype).astype("f8").ravel() for tensors in (a, b))
        assert row["distance"] == pytest.approx(numpy.linalg.norm(x - y), rel=1e-12)
        assert row["relative"] == pytest.approx(numpy.linalg.norm(x - y) / numpy.linalg.norm(x), rel=1e-12)
        assert row["largest"] == abs(x - y).max()
        assert row["cosine"] == pytest.approx(x @ y / numpy.linalg.norm(x) / numpy.linalg.norm(y), rel=1e-12)
        assert (row["elements"], row["differing"]) == (x.size, (x != y).sum())
    squares = sum(row["distance"] ** 2 for row in document["differences"])
    assert document["distance"] == pytest.approx(squares**0.5, rel=1e-12)


def test_diff_prints_the_most_distant_first_and_names_the_rest(run, files):
    (left, right), _, _ = files
    result = run("diff", left, right, "--top", "1")
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["TENSOR", "SHAPE", "DTYPE"] and lines[1].split()[:3] == ["half", "[40]", "F16"]
    assert lines[2] == "" and "only in the first:  gone [2]" in lines and "only in the second: new [3]" in lines
    assert "other shape:        turned [2,3] and [3,2]" in lines
    assert any("4 tensors in both, 2 differ (the 1 most distant are shown)" in line for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_diff_of_equal_values_is_0_whatever_their_dtypes(run, tmp_path):
    values = numpy.array([1.5, -2, 0.25])
    bf16 = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    (tmp_path / "a.safetensors").write_bytes(image({"w": ("F64", values)}))
    (tmp_path / "b.safetensors").write_bytes(image({}, {"w": ("BF16", [3], bf16)}))
    result = run("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert result.returncode == 0 and result.stdout.endswith("they are equal\n")
    quiet = run("diff", "--quiet", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_diff_takes_nan_for_itself_alone(run, tmp_path):
    for name, values in (("a", [1, numpy.nan, 2]), ("b", [1, numpy.nan, 2]), ("c", [1, 5, 2])):
        (tmp_path / f"{name}.safetensors").write_bytes(image({"w": ("F32", numpy.array(values))}))
    assert run("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors").returncode == 0
    result = run("diff", tmp_path / "a.safetensors", tmp_path / "c.safetensors", "--json")
    (row,) = json.loads(result.stdout)["differences"]
    assert result.returncode == 1 and (row["nonfinite"], row["relative"]) == (1, None)


def test_diff_compares_profiles_of_one_version_and_files(run, model, tmp_path):
    document = json.loads(run("diff", f"{model}:ema", f"{model}:slow", "--json").stdout)
    assert document["a"] == {"model": model, "profile": "ema", "version": 4, "step": 3}
    assert document["b"]["version"] == 4 and document["differing_tensors"] == 1
    # 0 -> .5 -> 1.25 -> 2.125 against 0 -> .1 -> .29 -> .561
    assert document["largest"] == pytest.approx(2.125 - 0.561, abs=1e-6)
    path = tmp_path / "e.safetensors"
    assert run("export", model, "slow", "-o", path).returncode == 0
    assert run("diff", f"{model}:slow", path).returncode == 0
    assert run("diff", path, model).returncode == 1


def test_diff_fails_with_more_than_1(run, model, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    assert run("diff", model, f"{model}:nosuch").returncode == NO_INPUT
    assert run("diff", "no/such", model).returncode == NO_INPUT
    assert run("diff", model, tmp_path / "absent.safetensors").returncode == NO_INPUT
    assert run("diff", model, tmp_path / "bad.safetensors").returncode == DATA
    assert run("diff", "x" * 201, model).returncode == USAGE


def test_diff_of_files_needs_no_daemon(run, files):
    (left, _), _, _ = files
    assert run("diff", left, left, EMAD_SOCKET="ipc:///nonexistent/emad.sock").returncode == 0


def test_diff_while_training_goes_on_is_of_whole_versions(run, daemon, name):
    """Both tensors of a version are equal; a mixture of versions would differ."""
    state = {"a": numpy.zeros(300_000, numpy.float32), "b": numpy.zeros(300_000, numpy.float32)}
    with emad.Client(daemon.url) as client:
        trainer = client.trainer(name, state, profiles={"x": "constant:decay=0.5", "y": "constant:decay=0.5"})
        seen = set()
        for step in range(1, 30):
            state = {key: value + 1 for key, value in state.items()}
            trainer.push(step, state)
            if step % 5 == 0:
                result = run("diff", f"{name}:x", f"{name}:y", "--json")
                document = json.loads(result.stdout)
                assert (result.returncode, document["is_equal"]) == (0, True)
                assert document["a"]["version"] == document["b"]["version"]
                seen.add(document["a"]["version"])
        trainer.close()
    assert len(seen) > 1


def mapping_count(process):
    """How many slots of shared memory a process has mapped."""
    try:
        return Path(f"/proc/{process.pid}/maps").read_text().count("emad")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_diff_begins_again_when_the_daemon_takes_a_version_back(emactl, own_daemon, name):
    """It is stopped in the middle, until its versions are gone. Where it was too quick, another is stopped."""
    state = {"w": numpy.zeros(4 << 20, numpy.float32)}
    step = 0
    with emad.Client(own_daemon.url) as client:
        trainer = client.trainer(name, state, profiles={"x": "constant:decay=0.5", "y": "constant:decay=0.5"})
        for _ in range(10):
            step += 1
            trainer.push(step, state, wait=True)
            process = subprocess.Popen(
                [emactl, "--socket", own_daemon.url, "diff", f"{name}:x", f"{name}:y", "--json"],
                stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            while mapping_count(process) < 2 and process.poll() is None:
                time.sleep(0.0005)
            process.send_signal(signal.SIGSTOP)
            pinned, first = [], step
            for step in range(first + 1, first + 5):
                trainer.push(step, state, wait=True, timeout=30)
                pinned.append(client.view(name))  # so that the slots of those before are needed
            process.send_signal(signal.SIGCONT)
            document = json.loads(process.communicate(timeout=60)[0])
            assert process.returncode == 0 and document["is_equal"]
            assert document["a"]["step"] == document["b"]["step"] in (first, step)
            if document["a"]["step"] == step:
                break
        assert document["a"]["step"] == step
        trainer.close()


def test_diff_does_not_take_memory_for_what_it_reads(emactl, tmp_path):
    values = numpy.zeros(32 << 20, "<f4")
    path = tmp_path / "large.safetensors"
    path.write_bytes(image({"w": ("F32", values)}))
    script = 'ulimit -v 100000; exec "$0" diff "$1" "$1"'
    result = subprocess.run(["sh", "-c", script, emactl, path], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


# ---- get ----------------------------------------------------------------------------------------------------------


def test_get_shows_what_a_person_can_take_in(run, model):
    result = run("get", model, "layer.weight")
    assert (result.returncode, result.stderr) == (0, "")
    head, values, *numbers = result.stdout.splitlines()
    assert head == f"layer.weight: F32 [4,3] of {model}:ema, version 4, step 3"
    assert values == "[2.125, 3.125, 4.125, ..., 11.125, 12.125, 13.125]"
    assert dict(line.split() for line in numbers) == {
        "elements": "12", "min": "2.125", "max": "13.125", "mean": "7.625", "std": "3.45205253", "zeros": "0",
        "nan": "0", "infinite": "0",
    }  # fmt: skip
    assert run("get", model, "layer.weight", "--stats").stdout.splitlines() == numbers
    assert run("get", model, "layer.weight", "--quiet").stdout.splitlines() == [values]
    assert run("get", model, "n").stdout.splitlines()[1] == "[3]"


def test_get_says_the_numbers_in_json(run, files):
    (path, _), a, _ = files
    document = json.loads(run("get", path, "big", "--json").stdout)
    values = a["big"][1].astype("<f4").astype("f8")
    assert document["of"] == {"file": str(path)} and document["shape"] == [300, 257]
    assert document["mean"] == pytest.approx(values.mean(), rel=1e-9)
    assert document["std"] == pytest.approx(values.std(), rel=1e-12)
    assert (document["min"], document["max"]) == (values.min(), values.max())
    assert document["first"] == list(values.ravel()[:3]) and document["last"] == list(values.ravel()[-3:])
    assert "first" not in json.loads(run("get", path, "big", "--json", "--stats").stdout)


def test_get_of_nothing_finite(run, tmp_path):
    path = tmp_path / "f.safetensors"
    path.write_bytes(image({"nan": ("F32", numpy.full(3, numpy.nan)), "none": ("F32", numpy.zeros((0, 4))),
                            "flags": ("BOOL", numpy.array([True, False]))}))  # fmt: skip
    document = json.loads(run("get", path, "nan", "--json").stdout)
    assert (document["mean"], document["nan"], document["first"]) == (None, 3, [None, None, None])
    document = json.loads(run("get", path, "none", "--json").stdout)
    assert (document["elements"], document["first"], document["last"]) == (0, [], [])
    assert run("get", path, "flags").stdout.splitlines()[1] == "[True, False]"
    assert json.loads(run("get", path, "flags", "--json").stdout)["first"] == [True, False]


def test_get_shows_integers_in_full(run, tmp_path):
    path = tmp_path / "f.safetensors"
    values = [2**63 - 1, -(2**63), 0, 2**53 + 1, 5, 6, 7]
    path.write_bytes(image({"n": ("I64", numpy.array(values))}))
    shown = ", ".join(map(str, values[:3])) + ", ..., " + ", ".join(map(str, values[4:]))
    assert run("get", path, "n", "--quiet").stdout == f"[{shown}]\n"
    assert json.loads(run("get", path, "n", "--json").stdout)["first"] == values[:3]


def test_a_misspelt_tensor_is_answered_with_the_nearest(run, model):
    result = run("get", model, "layer.wieght")
    assert result.returncode == NO_INPUT and "the nearest is 'layer.weight'" in result.stderr
    assert json.loads(run("get", model, "x", "--json").stderr)["error"]["name"] == "ENOENT"


def test_numpy_loads_what_get_writes(run, files, tmp_path):
    (path, _), a, _ = files
    for name, (dtype, array) in a.items():
        assert run("get", path, name, "--npy", "-o", tmp_path / "t.npy").returncode == 0
        loaded = numpy.load(tmp_path / "t.npy")
        assert loaded.dtype == numpy.dtype(FORMATS[dtype]) and loaded.shape == array.shape
        assert (loaded == array.astype(FORMATS[dtype])).all()
        assert numpy.load(io.BytesIO(run("get", path, name, "--npy", text=False).stdout)).tobytes() == loaded.tobytes()
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors", "t.npy"]
    assert "needs a place of its own: -o FILE" in run("get", path, "big", "--npy", "--json").stderr


def test_bfloat16_is_written_as_float32_and_it_is_said(run, tmp_path):
    path = tmp_path / "f.safetensors"
    path.write_bytes(image({}, {"w": ("BF16", [2], b"\x08\x40\x80\xbf")}))
    result = run("get", path, "w", "--npy", "-o", tmp_path / "w.npy")
    assert result.stderr == "NumPy has no BF16: it was written as F32\n"
    loaded = numpy.load(tmp_path / "w.npy")
    assert loaded.dtype == numpy.float32 and list(loaded) == [2.125, -1]


def test_get_leaves_the_file_alone_when_it_fails(run, model, tmp_path):
    assert run("get", model, "n", "--npy", "-o", tmp_path / "absent" / "f").returncode == CANNOT_CREATE
    (tmp_path / "old").write_text("old")
    assert run("get", model, "nosuchtensor", "--npy", "-o", tmp_path / "old").returncode == NO_INPUT
    assert (tmp_path / "old").read_text() == "old" and os.listdir(tmp_path) == ["old"]


def test_get_of_a_large_tensor_is_quick_and_small(emactl, tmp_path):
    path = tmp_path / "large.safetensors"
    path.write_bytes(image({"w": ("F32", numpy.ones(16 << 20, "<f4"))}))
    begin = time.monotonic()
    script = 'ulimit -v 100000; exec "$0" get "$1" w --json'
    result = subprocess.run(["sh", "-c", script, emactl, path], capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(result.stdout)["mean"] == 1 and time.monotonic() - begin < 30
