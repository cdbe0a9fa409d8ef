"""Averages made from files: a whole training run's synthesised averages against those that were tracked, merging, and
what is refused. Needs no daemon."""

import contextlib
import errno
import json
import math
import os
import signal
import struct
import subprocess

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import emad

STEPS, EVERY = 4096, 256
TRACKED = (0.05, 0.10)
WANTED = {0.07: 5e-5, 0.15: 5e-4, 0.2: 3e-3}
"""Relative width: how far the synthesised average may be from the tracked one, as a part of how far that moved.
Measured: 5.8e-6, 9.4e-5 and 1.2e-3."""


def exponent(std):
    t = std**-2
    return max(root.real for root in np.roots([1, 7, 16 - t, 12 - t]) if abs(root.imag) < 1e-9)


def schedule(std):
    return "power" if std == 0.05 else f"power:std={std:g}"


def facts(step, std, model="run/net", profile="ema", extra=None):
    return {
        "format": "pt", "emad.model": model, "emad.profile": profile, "emad.schedule": schedule(std) + ",snapshot=256"
        if std != 0.05 else "power:snapshot=256", "emad.step": str(step), "emad.updates": str(step),
        "emad.attributes": '{"nc":80,"name":"a\\"b\\u00e9"}', **(extra or {}),
    }


def path_of(folder, profile, step):
    return folder / profile / f"{step:020}.safetensors"


class Run:
    """A simulated training: a random walk that slows down, with power averages tracked in float64."""

    def __init__(self, folder):
        self.folder = folder
        self.averages = {std: None for std in (*TRACKED, *WANTED)}
        self.at = {}
        random = np.random.default_rng(7)
        drift = random.standard_normal((64, 32))
        weights = self.start = random.standard_normal((64, 32))
        decays = {std: exponent(std) + 1 for std in self.averages}
        for step in range(1, STEPS + 1):
            weights = weights + (drift + 3 * random.standard_normal(weights.shape)) / (100 + step)
            for std, power in decays.items():
                decay = (1 - 1 / step) ** power
                old = self.averages[std]
                self.averages[std] = weights.copy() if old is None else old + (1 - decay) * (weights - old)
            if step % EVERY == 0:
                self.keep(step)
        self.weights = weights

    def keep(self, step):
        mean = np.linspace(0, 1, 5) * step  # a buffer: the profiles copy it
        for number, std in enumerate(TRACKED):
            path = path_of(self.folder, ("narrow", "wide")[number], step)
            path.parent.mkdir(exist_ok=True)
            tensors = {"w": self.averages[std], "bn.running_mean": mean, "steps": np.array([step], np.int64)}
            save_file(tensors, path, facts(step, std, profile=path.parent.name))
        self.at[step] = {std: average.copy() for std, average in self.averages.items()}

    def difference(self, made, std, step=STEPS):
        """As a part of how far the average moved from the start."""
        wanted = self.at[step][std]
        return np.linalg.norm(made - wanted) / np.linalg.norm(wanted - self.start)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("snapshots"))


@contextlib.contextmanager
def fails_with(number, match=None):
    with pytest.raises(emad.SystemCallError, match=match) as caught:
        yield
    assert caught.value.errno == number


def metadata_of(path):
    with safe_open(path, "numpy") as file:
        return file.metadata()


# ---- post-hoc averages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", WANTED)
def test_a_synthesised_average_is_nearly_the_tracked_one(training, tmp_path, std):
    made = emad.posthoc(training.folder, tmp_path / "out", std=std)
    difference = training.difference(load_file(tmp_path / "out")["w"], std)
    assert difference < WANTED[std]
    assert 0 < made.error < 0.03
    assert made.step == STEPS and made.later == 0 and len(made.parts) == 2 * STEPS // EVERY
    assert math.isclose(sum(part.weight for part in made.parts), 1, abs_tol=1e-12)
    assert [part.step for part in made.parts] == sorted(part.step for part in made.parts)
    assert {(part.profile, round(part.std, 9)) for part in made.parts} == {("narrow", 0.05), ("wide", 0.1)}
    assert made.bytes == os.path.getsize(tmp_path / "out")


def test_the_average_of_an_earlier_step(training, tmp_path):
    made = emad.posthoc(training.folder, tmp_path / "out", std=0.15, step=2048)
    assert (made.step, made.later, len(made.parts)) == (2048, 16, 16)
    assert training.difference(load_file(tmp_path / "out")["w"], 0.15, 2048) < 1e-2
    assert metadata_of(tmp_path / "out")["emad.step"] == "2048"


def test_a_tracked_average_is_that_file(training, tmp_path):
    made = emad.posthoc(training.folder, tmp_path / "out", std=0.1, step=1024)
    assert [part.weight for part in made.parts if part.weight] == [1.0]
    stored, written = load_file(path_of(training.folder, "wide", 1024)), load_file(tmp_path / "out")
    assert {name: value.tobytes() for name, value in written.items()} == {
        name: value.tobytes() for name, value in stored.items()
    }


def test_files_of_one_width_will_do_but_say_so(training, tmp_path):
    files = sorted(training.folder.glob("wide/*"))
    made = emad.posthoc(files, None, std=0.15)
    assert made.error > 0.02 and made.bytes == 0
    assert emad.posthoc(training.folder, None, std=0.15).error < made.error / 4


def test_what_was_copied_is_not_added_up(training, tmp_path):
    emad.posthoc(training.folder, tmp_path / "out", std=0.2)
    written = load_file(tmp_path / "out")
    assert written["bn.running_mean"].tolist() == (np.linspace(0, 1, 5) * STEPS).tolist()
    assert written["steps"].tolist() == [STEPS]


def test_the_new_file_says_what_it_is(training, tmp_path):
    made = emad.posthoc(training.folder, tmp_path / "out", std=0.15, profile="longer")
    metadata = metadata_of(tmp_path / "out")
    assert math.isclose(float(metadata.pop("emad.error")), made.error, rel_tol=1e-3)
    assert metadata == {
        "format": "pt", "emad.model": "run/net", "emad.profile": "longer", "emad.schedule": "power:std=0.15",
        "emad.step": str(STEPS), "emad.updates": str(STEPS), "emad.sources": "32",
        "emad.attributes": '{"nc":80,"name":"a\\"b\\u00e9"}',
    }
    # It is an average of schedule power like any other.
    again = emad.posthoc([tmp_path / "out"], None, std=0.15)
    assert [part.weight for part in again.parts] == [1.0]


@pytest.mark.parametrize("dtype, unit", [("F64", 0), ("F32", 2**-24), ("F16", 2**-11), ("BF16", 2**-8)])
def test_the_dtype_may_be_chosen(training, tmp_path, dtype, unit):
    emad.posthoc(training.folder, tmp_path / "exact", std=0.15)
    emad.posthoc(training.folder, tmp_path / "out", std=0.15, dtype=dtype)
    exact = load_file(tmp_path / "exact")["w"]
    with safe_open(tmp_path / "out", "pt") as file:
        made = file.get_tensor("w")
        assert file.get_tensor("steps").tolist() == [STEPS]
    assert str(made.dtype) == {"F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16",
                               "BF16": "torch.bfloat16"}[dtype]
    assert (abs(made.double().numpy() - exact) <= unit * abs(exact) + 1e-7 * (dtype == "F16")).all()


def test_files_may_differ_in_the_order_of_their_tensors(training, tmp_path):
    """Also: tensors of many sizes, with none and with one element, and more files than may be open."""
    random = np.random.default_rng(3)
    names = [f"t{i}" for i in range(50)]
    shapes = {name: tuple(random.integers(0, 5, size=random.integers(0, 4))) for name in names}
    states = []
    for step in range(1, 81):
        states.append({name: random.standard_normal(shapes[name]).astype(np.float32) for name in names})
        header, data = {"__metadata__": facts(step, 0.1)}, b""
        for name in random.permutation(names):
            values = states[-1][name].tobytes()
            header[name] = {
                "dtype": "F32", "shape": list(map(int, shapes[name])),
                "data_offsets": [len(data), len(data) + len(values)],
            }
            data += values
        text = json.dumps(header).encode()
        (tmp_path / f"{step}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    made = emad.posthoc(tmp_path, tmp_path / "out", std=0.15)
    written = load_file(tmp_path / "out")
    assert set(written) == set(names)
    for name in names:
        wanted = sum(part.weight * state[name].astype(np.float64) for part, state in zip(made.parts, states))
        assert written[name].shape == shapes[name]
        np.testing.assert_array_equal(written[name], np.asarray(wanted).astype(np.float32))


def test_progress_reaches_the_whole_and_may_stop_it(training, tmp_path):
    seen = []
    emad.posthoc(training.folder, tmp_path / "out", std=0.15, progress=lambda *bytes: seen.append(bytes))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]

    def stop(*_):
        raise KeyboardInterrupt

    (tmp_path / "out").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        emad.posthoc(training.folder, tmp_path / "out", std=0.15, progress=stop)
    assert (tmp_path / "out").read_text() == "old" and os.listdir(tmp_path) == ["out"]


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path):
    """Two snapshots; writes a third one with what is given instead."""
    folder = tmp_path / "files"
    folder.mkdir()
    tensors = {"w": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}

    def write(name, step=100, std=0.05, without=(), extra=None, **changed):
        path = folder / f"{name}.safetensors"
        state = {key: value for key, value in {**tensors, **changed}.items() if value is not None}
        metadata = {key: value for key, value in facts(step, std, extra=extra).items() if key not in without}
        save_file(state, path, metadata)
        return path

    write("a", 100)
    write("b", 200)
    return write


@pytest.mark.parametrize(
    "changed, kind, words",
    [
        ({"b": None}, emad.ManifestError, ["c.safetensors has no tensor 'b'", "the same tensors"]),
        ({"z": np.ones(1)}, emad.ManifestError, ["'z'"]),
        ({"w": np.ones((2, 3), np.float32)}, emad.ManifestError, ["'w'", "F32 [2,3]", "[3,2]"]),
        ({"w": np.ones((3, 2))}, emad.ManifestError, ["'w'", "F64 [3,2]", "F32"]),
        ({"w": np.full((3, 2), np.nan, np.float32)}, emad.CorruptError, ["c.safetensors", "'w'", "NaN", "leave"]),
        ({"b": np.array([1, np.inf], np.float32)}, emad.CorruptError, ["c.safetensors", "'b'", "infinity"]),
        ({"step": 200}, emad.ArgumentError, ["b.safetensors", "c.safetensors", "std 0.05", "step 200", "leave one"]),
        ({"step": 0}, emad.ProfileError, ["step 0"]),
        ({"without": ["emad.step"]}, emad.ProfileError, ["does not say"]),
        ({"without": ["emad.schedule"]}, emad.ProfileError, ["does not say"]),
        ({"extra": {"emad.step": "12x"}}, emad.ProfileError, ["does not say"]),
        ({"extra": {"emad.schedule": "yolo"}}, emad.ScheduleError, ["c.safetensors", "'yolo'", "power"]),
        ({"extra": {"emad.schedule": "power:std=7"}}, emad.ScheduleError, ["std"]),
        ({"extra": {"emad.model": "other"}}, emad.ProfileError, ["'other'", "'run/net'"]),
    ],
)
def test_a_file_that_does_not_fit_is_named(pair, tmp_path, changed, kind, words):
    files = [tmp_path / "files" / "a.safetensors", tmp_path / "files" / "b.safetensors"]
    files.append(pair("c", **{"step": 150, **changed}))
    with pytest.raises(kind) as caught:
        emad.posthoc(files, tmp_path / "out", std=0.07)
    for word in words:
        assert word in str(caught.value)
    assert os.listdir(tmp_path) == ["files"]


def test_damaged_files_are_refused(pair, tmp_path):
    files = sorted((tmp_path / "files").iterdir())
    whole = files[0].read_bytes()
    for bad in (b"", b"text", whole[:7], whole[:100], whole[:-1], whole + b"\0", b"\xff" * 100):
        files[0].write_bytes(bad)
        with pytest.raises(emad.CorruptError, match="a.safetensors"):
            emad.posthoc(files, tmp_path / "out", std=0.07)
        with pytest.raises(emad.CorruptError, match="a.safetensors"):
            emad.merge(files, tmp_path / "out")
    assert os.listdir(tmp_path) == ["files"]


def test_what_is_no_file_is_refused(pair, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(emad.ArgumentError, match="pipe"):
        emad.posthoc(tmp_path / "pipe", None, std=0.07)
    with fails_with(errno.ENOENT):
        emad.posthoc(tmp_path / "absent", None, std=0.07)
    with fails_with(errno.EISDIR):
        emad.merge([tmp_path], None)
    with fails_with(errno.EISDIR):
        emad.posthoc(tmp_path / "files", tmp_path, std=0.07)
    with fails_with(errno.ENOENT):
        emad.posthoc(tmp_path / "files", tmp_path / "absent" / "out", std=0.07)


def test_a_directory_gives_what_fits_and_teaches_when_nothing_does(pair, tmp_path):
    pair("other-model", 300, extra={"emad.model": "other"})
    pair("other-schedule", 300, extra={"emad.schedule": "yolo"})
    (tmp_path / "files" / ".hidden.safetensors").write_text("no")
    (tmp_path / "files" / "notes.txt").write_text("no")
    deep = tmp_path / "files" / "inner" / "deep"
    deep.mkdir(parents=True)
    (deep / "x.safetensors").write_text("too deep: another model's")
    made = emad.posthoc(tmp_path / "files", None, std=0.07, model="run/net")
    assert [part.step for part in made.parts] == [100, 200]
    with pytest.raises(emad.ProfileError, match="other"):
        emad.posthoc(tmp_path / "files", None, std=0.07)
    with fails_with(errno.ENOENT, match="of model absent.*snapshot=1000"):
        emad.posthoc(tmp_path / "files", None, std=0.07, model="absent")
    (tmp_path / "empty").mkdir()
    with fails_with(errno.ENOENT, match="snapshot=1000"):
        emad.posthoc(tmp_path / "empty", None, std=0.07)


@pytest.mark.parametrize(
    "step, words", [(99, ["oldest", "100"]), (150, ["nearest", "100", "200"]), (201, ["newest", "200"])]
)
def test_a_step_without_a_snapshot_names_the_nearest(pair, tmp_path, step, words):
    with pytest.raises(emad.NoVersionError) as caught:
        emad.posthoc(tmp_path / "files", None, std=0.07, step=step)
    for word in (*words, f"step {step}"):
        assert word in str(caught.value)


def test_wrong_arguments_are_explained(pair, tmp_path):
    files = tmp_path / "files"
    for std in (0, -1, 0.29, math.nan, math.inf):
        with pytest.raises(emad.ArgumentError, match="from 0.001 to 0.288675"):
            emad.posthoc(files, None, std=std)
    with pytest.raises(TypeError):
        emad.posthoc(files, None, std="0.1")
    with pytest.raises(ValueError):
        emad.posthoc(files, None, std=0.1, step=0)
    with pytest.raises(TypeError):
        emad.posthoc(files, None, std=0.1, step=1.5)
    for dtype in ("I64", "float33", "F8_E4M4", ""):
        with pytest.raises(emad.ArgumentError, match="all are f64"):
            emad.posthoc(files, None, std=0.1, dtype=dtype)
    with pytest.raises(emad.NameError):
        emad.posthoc(files, None, std=0.1, profile="a/b")
    with pytest.raises(emad.ArgumentError, match="there are no files"):
        emad.posthoc([], None, std=0.1)
    with pytest.raises(emad.ArgumentError, match="there are no files"):
        emad.merge([], None)
    with pytest.raises(emad.ArgumentError, match="linear, minus-sqrt, uniform"):
        emad.merge([files], None, shape="cubic")


def test_a_sum_that_the_dtype_cannot_hold_is_refused(pair, tmp_path):
    files = [pair("big", 300, 0.05, w=np.full((3, 2), 1e6, np.float32))]
    emad.merge(files, tmp_path / "out", dtype="BF16")
    with pytest.raises(emad.LimitError, match="'w'.*F16.*wider"):
        emad.merge(files, tmp_path / "out2", dtype="F16")


# ---- merging ------------------------------------------------------------------------------------------------------


def checkpoints(folder, count, steps=None):
    states = []
    for i in range(count):
        states.append({"w": np.random.default_rng(i).standard_normal(1000).astype(np.float32), "n": np.array([i])})
        save_file(states[-1], folder / f"{i}.safetensors", {"emad.step": str(steps[i])} if steps else None)
    return [folder / f"{i}.safetensors" for i in range(count)], states


@pytest.mark.parametrize("shape", ["linear", "minus-sqrt", "uniform"])
def test_merging_follows_the_shape(tmp_path, shape):
    files, states = checkpoints(tmp_path, 7)
    made = emad.merge(files, tmp_path / "out", shape=shape)
    x = np.arange(8) / 7
    weights = np.diff(np.sqrt(x)) if shape == "minus-sqrt" else np.full(7, 1 / 7)
    np.testing.assert_allclose([part.weight for part in made.parts], weights, rtol=1e-14)
    wanted = sum(weight * state["w"].astype(np.float64) for weight, state in zip(weights, states))
    written = load_file(tmp_path / "out")
    np.testing.assert_allclose(written["w"], wanted, rtol=1e-6, atol=1e-9)
    assert written["n"].tolist() == [6] and not made.by_step
    assert metadata_of(tmp_path / "out") == {
        "emad.profile": "merged", "emad.schedule": f"merge:shape={shape},n=7", "emad.sources": "7"
    }


def test_merging_sorts_by_step_when_all_files_have_one(tmp_path):
    files, _ = checkpoints(tmp_path, 4, steps=[40, 10, 30, 20])
    made = emad.merge(files, tmp_path / "out", shape="minus-sqrt")
    assert made.by_step and [part.step for part in made.parts] == [10, 20, 30, 40]
    assert made.parts[0].weight > made.parts[3].weight
    assert load_file(tmp_path / "out")["n"].tolist() == [0]
    assert metadata_of(tmp_path / "out")["emad.step"] == "40"


def test_constants_stay_constants(tmp_path):
    files = []
    for i in range(5):
        save_file({"w": np.full(100_000, 0.1, np.float32)}, tmp_path / f"{i}.safetensors", facts(100 * i + 100, 0.1))
        files.append(tmp_path / f"{i}.safetensors")
    emad.merge(files, tmp_path / "merged", shape="minus-sqrt")
    emad.posthoc(files, tmp_path / "made", std=0.2)
    for name in ("merged", "made"):
        assert set(load_file(tmp_path / name)["w"]) == {np.float32(0.1)}


def test_the_result_may_replace_one_of_the_files(tmp_path):
    files, states = checkpoints(tmp_path, 2)
    emad.merge(files, files[0])
    np.testing.assert_allclose(load_file(files[0])["w"], (states[0]["w"] + states[1]["w"]) / 2, atol=1e-6)
    assert sorted(os.listdir(tmp_path)) == ["0.safetensors", "1.safetensors"]


# ---- the tool -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(emactl):
    def run_tool(*arguments):
        return subprocess.run(
            [emactl, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )

    return run_tool


def test_the_tool_makes_what_the_library_makes(run, training, tmp_path):
    made = emad.posthoc(training.folder, tmp_path / "wanted", std=0.15, step=2048)
    result = run("posthoc", "run/net", "--from", training.folder, "--std", 0.15, "--step", 2048, "-o", tmp_path / "out")
    assert result.returncode == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "wanted").read_bytes()
    head, *rows, blank, last = result.stdout.splitlines()
    assert head.split() == ["STEP", "STD", "WEIGHT", "FILE"] and blank == ""
    assert [row.split()[0] for row in rows] == [str(part.step) for part in made.parts]
    assert rows[-1].split()[1] in ("0.05", "0.1") and rows[-1].endswith(made.parts[-1].path)
    assert last.startswith(f"{tmp_path}/out: ") and "std 0.15 at step 2048, 16 snapshots, error" in last
    assert "16 snapshots behind step 2048 are left out" in result.stderr
    assert run("verify", tmp_path / "out").returncode == 0


def test_the_tool_speaks_json(run, training, tmp_path):
    made = emad.posthoc(training.folder, None, std=0.15)
    result = run("posthoc", "--files", training.folder, "--std", 0.15, "--json", "-o", tmp_path / "out")
    document = json.loads(result.stdout)
    assert result.stderr == "" and set(document) == {
        "model", "std", "error", "later", "step", "file", "file_bytes", "elapsed_us", "parts"
    }
    assert (document["model"], document["std"], document["error"]) == (None, 0.15, made.error)
    assert (document["step"], document["later"]) == (STEPS, 0)
    assert document["file"] == f"{tmp_path}/out" and document["file_bytes"] == os.path.getsize(tmp_path / "out")
    assert document["parts"] == [
        {"file": part.path, "profile": part.profile, "step": part.step, "std": part.std, "weight": part.weight}
        for part in made.parts
    ]


def test_the_tool_takes_the_models_own_directory_and_writes_nothing_when_asked(run, training, tmp_path):
    (tmp_path / "all" / "run").mkdir(parents=True)
    (tmp_path / "all" / "run" / "net").symlink_to(training.folder)
    for folder in (training.folder, tmp_path / "all"):
        result = run("posthoc", "run/net", "--from", folder, "--std", 0.15, "--json", "-n", "-o", tmp_path / "out")
        document = json.loads(result.stdout)
        assert (document["model"], document["file"], len(document["parts"])) == ("run/net", None, 32)
    assert os.listdir(tmp_path) == ["all"]


def test_the_tool_says_when_an_average_is_beyond_the_snapshots(run, training):
    result = run("posthoc", "--files", path_of(training.folder, "wide", 256), "--std", 0.02, "-n")
    assert result.returncode == 0 and "do not make this average well" in result.stderr
    assert run("posthoc", "--files", path_of(training.folder, "wide", 256), "--std", 0.02, "-n", "-q").stderr == ""


def test_the_tools_exit_status_tells_inputs_from_the_output(run, training, pair, tmp_path):
    bad = pair("c", 300, w=np.full((3, 2), np.nan, np.float32))
    good = training.folder
    for arguments, status in (
        (["--files", good, "-o", tmp_path / "absent" / "out"], 73),
        (["--files", good, "-o", tmp_path], 73),
        (["--files", tmp_path / "absent", "-o", tmp_path / "out"], 66),
        (["--files", good, "--step", 77, "-o", tmp_path / "out"], 66),
        (["run/net", "--from", tmp_path / "absent", "-o", tmp_path / "out"], 66),
        (["other", "--from", good, "-o", tmp_path / "out"], 66),
        (["--files", bad, tmp_path / "files" / "a.safetensors", "-o", tmp_path / "out"], 65),
        (["--files", __file__, "-o", tmp_path / "out"], 65),
    ):
        result = run("posthoc", "--std", 0.15, *arguments)
        assert result.returncode == status, result.stderr
        assert result.stderr.splitlines()[-1].startswith("emactl: ")
    assert os.listdir(tmp_path) == ["files"]


def test_without_snapshots_of_the_daemon_the_tool_teaches(run, client, daemon, name):
    with client.trainer(name, {"w": np.zeros(3, np.float32)}, profiles={"ema": "constant"}):
        result = run("--socket", daemon.url, "posthoc", name, "--std", 0.15, "-n")
    client.remove(name)
    assert result.returncode == 66
    assert "--from DIR" in result.stderr and "snapshot=1000" in result.stderr


def test_the_tool_merges(run, tmp_path):
    files, _ = checkpoints(tmp_path, 4, steps=[40, 10, 30, 20])
    made = emad.merge(files, tmp_path / "wanted", shape="minus-sqrt")
    result = run("merge", "--shape", "minus-sqrt", *files, "-o", tmp_path / "out")
    assert result.returncode == 0 and "in the order of their steps" in result.stderr
    assert (tmp_path / "out").read_bytes() == (tmp_path / "wanted").read_bytes()
    assert result.stdout.splitlines()[0].split() == ["STEP", "WEIGHT", "FILE"]
    assert result.stdout.splitlines()[-1].startswith(f"{tmp_path}/out: ")
    document = json.loads(run("merge", *files, "-n", "--json").stdout)
    assert document["shape"] == "linear" and document["is_by_step"] is True and document["file"] is None
    assert [part["weight"] for part in document["parts"]] == [0.25] * 4
    assert made.parts[0].path == document["parts"][0]["file"]


def sparse_files(folder, count, elements):
    """Files of float32 zeros, of which only the headers take room on the disk."""
    text = json.dumps({"w": {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}}).encode()
    files = [folder / f"{i}.safetensors" for i in range(count)]
    for file in files:
        file.write_bytes(struct.pack("<Q", len(text)) + text)
        os.truncate(file, 8 + len(text) + 4 * elements)
    return files


def test_memory_does_not_grow_with_the_files(emactl, tmp_path):
    """Files of 96 MiB, and 48 MiB of addresses for the whole program."""
    files = sparse_files(tmp_path, 3, 24 << 20)
    limited = ["sh", "-c", f'ulimit -v {48 << 10}; exec "$0" "$@"', emactl, "merge", *files, "-o", tmp_path / "out"]
    result = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert os.path.getsize(tmp_path / "out") > 96 << 20


def test_an_interrupt_leaves_nothing_behind(emactl, tmp_path):
    """64 GiB to read: nobody is done with that by accident."""
    files = sparse_files(tmp_path, 64, 256 << 20)
    process = subprocess.Popen([emactl, "merge", *files, "-o", tmp_path / "out"], stdout=subprocess.DEVNULL)
    while process.poll() is None and len(os.listdir(tmp_path)) == len(files):
        pass
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == -signal.SIGINT
    assert len(os.listdir(tmp_path)) == len(files)


# ---- with a daemon ------------------------------------------------------------------------------------------------


def test_exported_averages_make_the_one_that_the_daemon_tracked(client, name, tmp_path):
    """The daemon tracks three widths in float32; two of them, exported now and then, make the third."""
    random = np.random.default_rng(11)
    weights = random.standard_normal((40, 30)).astype(np.float32)
    start, drift = weights.copy(), random.standard_normal(weights.shape).astype(np.float32)
    profiles = {"narrow": "power:std=0.05", "wide": "power:std=0.1", "wanted": "power:std=0.15"}
    files = []
    with client.trainer(name, {"w": weights}, profiles=profiles) as trainer:
        for step in range(1, 513):
            weights += (drift + random.standard_normal(weights.shape).astype(np.float32)) / (50 + step)
            trainer.push(step, {"w": weights}, wait=True)
            if step % 32 == 0:
                for profile in ("narrow", "wide"):
                    files.append(tmp_path / f"{profile}-{step}")
                    client.export(name, profile, files[-1])
        client.export(name, "wanted", tmp_path / "wanted")
    client.remove(name)
    made = emad.posthoc(files, tmp_path / "made", std=0.15, model=name)
    assert made.step == 512 and len(made.parts) == 32
    wanted, got = load_file(tmp_path / "wanted")["w"], load_file(tmp_path / "made")["w"]
    difference = np.linalg.norm(got - wanted) / np.linalg.norm(wanted - start)
    assert difference < 2e-3
