"""emactl verify: what lies below a state directory is whole, or it says what is not and why."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest

import emad
from conftest import DaemonProcess

NAMES = ("run42/net", "other")
PROFILES = {"ema": "constant:decay=0.5,snapshot=2", "slow": "constant:decay=0.9"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A state directory of two models, two checkpoints each, as a daemon has left it."""
    daemon = DaemonProcess(tmp_path_factory.mktemp("verify"), "")
    daemon.start()
    with emad.Client(daemon.url) as client:
        for name in NAMES:
            with client.trainer(name, {"w": np.zeros(5000, np.float32)}, profiles=PROFILES) as trainer:
                for step in range(1, 7):
                    trainer.push(step, {"w": np.full(5000, step, np.float32)}, wait=True)
                    if step in (3, 6):
                        client.checkpoint(name)
    assert daemon.stop() == 0
    return daemon.directory / "state"


@pytest.fixture
def state(written, tmp_path):
    return shutil.copytree(written, tmp_path / "state")


@pytest.fixture
def verify(emactl):
    def run(*arguments):
        return subprocess.run([emactl, "verify", *arguments], capture_output=True, text=True, timeout=60)

    return run


def rows(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def checkpoint_of(state, step, name="run42%net"):
    return next((state / "checkpoints" / name).glob(f"{step:020d}-*"))


def flip(path, position):
    contents = bytearray(path.read_bytes())
    contents[position] ^= 1
    path.write_bytes(contents)


def test_a_whole_state_directory_is_good(state, verify):
    done = verify("--json", state)
    assert done.returncode == 0 and done.stderr == ""
    found = rows(done)
    assert all(row["is_good"] and row["reason"] is None for row in found)
    checkpoints = [(row["model"], row["step"]) for row in found if row["kind"] == "checkpoint"]
    assert checkpoints == [("other", 3), ("other", 6), ("run42/net", 3), ("run42/net", 6)]
    averages = {row["model"] for row in found if row["kind"] == "average"}
    assert averages == set(NAMES)
    shown = verify(f"{state}/")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[-1] == f"{state}: good"
    assert verify("--quiet", state).stdout == ""


def test_a_model_and_a_checkpoint_are_verified_by_themselves(state, verify):
    assert [row["step"] for row in rows(verify("--json", state / "checkpoints" / "other"))] == [3, 6]
    assert len(rows(verify("--json", state / "checkpoints"))) == 4
    (row,) = rows(verify("--json", checkpoint_of(state, 6)))
    assert (row["model"], row["step"], row["is_good"]) == ("run42/net", 6, True)
    assert row["bytes"] == sum(path.stat().st_size for path in checkpoint_of(state, 6).iterdir())
    # A copy by any other name is judged by what it says itself.
    copy = shutil.copytree(checkpoint_of(state, 6), state.parent / "copy")
    assert rows(verify("--json", copy))[0]["is_good"]


DAMAGES = {
    "a bit of an average": (lambda path: flip(path / "slow.safetensors", -5), "slow.safetensors: its checksum is"),
    "a bit of a header": (lambda path: flip(path / "ema.safetensors", 20), "ema.safetensors: its checksum is"),
    "a bit of the manifest": (lambda path: flip(path / "manifest.json", 60), "manifest.json is cut off or damaged"),
    "a cut file": (lambda path: os.truncate(path / "ema.safetensors", 9000), "bytes, the manifest says"),
    "a cut manifest": (lambda path: os.truncate(path / "manifest.json", 100), "manifest.json is cut off or damaged"),
    "a missing file": (lambda path: (path / "ema.safetensors").unlink(), "ema.safetensors: it is missing"),
    "a missing manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_named(state, verify, damage):
    change, sentence = DAMAGES[damage]
    change(checkpoint_of(state, 3))
    done = verify("--json", state)
    assert done.returncode == 65
    bad = [row for row in rows(done) if not row["is_good"]]
    assert [row["path"] for row in bad] == [str(checkpoint_of(state, 3))]
    assert sentence in bad[0]["reason"]
    shown = verify(state)
    assert shown.returncode == 65 and "1 of " in shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("damaged")]
    assert sentence[:20] in line


def test_every_bit_of_a_checkpoint_counts(state, verify):
    place = checkpoint_of(state, 6, "other")
    for path in sorted(place.iterdir()):
        whole = path.read_bytes()
        for position in np.random.default_rng(3).integers(0, len(whole), 8):
            flip(path, int(position))
            assert verify("--quiet", place).returncode == 65, (path.name, position)
            path.write_bytes(whole)
    assert verify("--quiet", place).returncode == 0


def test_nan_in_what_was_written_is_told(tmp_path, verify):
    daemon = DaemonProcess(tmp_path, "")
    daemon.start()
    with emad.Client(daemon.url) as client:
        values = np.zeros(10, np.float32)
        values[3] = np.nan
        with client.trainer("n", {"w": np.zeros(10, np.float32)}, guards="nonfinite=apply") as trainer:
            trainer.push(1, {"w": values}, wait=True)
        client.checkpoint("n")
    assert daemon.stop() == 0
    done = verify("--json", tmp_path / "state")
    assert done.returncode == 65
    assert "ema.safetensors: 1 values in 1 of its 1 tensors are NaN" in rows(done)[0]["reason"]


def test_one_that_was_moved_under_another_s_name_is_damaged(state, verify):
    here, there = checkpoint_of(state, 3), checkpoint_of(state, 6)
    shutil.rmtree(there)
    here.rename(there)
    done = verify("--json", there)
    assert done.returncode == 65 and "another checkpoint" in rows(done)[0]["reason"]


def test_what_was_set_aside_is_told_and_no_failure(state, verify):
    damaged = checkpoint_of(state, 6)
    flip(damaged / "ema.safetensors", -5)
    damaged.rename(f"{damaged}.bad-1790000000")
    done = verify(state)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].endswith("good, but for 1 that the daemon has set aside")
    assert any(line.startswith("aside") and "its checksum is" in line for line in done.stdout.splitlines())


def test_a_damaged_kept_average_is_found(state, verify):
    (first, *_) = sorted((state / "snapshots" / "other" / "ema").glob("*.safetensors"))
    os.truncate(first, 5000)
    done = verify("--json", state)
    assert done.returncode == 65
    assert [row["path"] for row in rows(done) if not row["is_good"]] == [str(first)]


def test_what_is_no_directory_of_emad_s_is_refused(tmp_path, verify):
    (tmp_path / "empty").mkdir()
    done = verify(tmp_path / "empty")
    assert done.returncode == 64 and "no checkpoint is in it" in done.stderr
    assert verify(tmp_path / "none").returncode == 66
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo" / "manifest.json")
    assert verify(tmp_path / "fifo").returncode == 65
