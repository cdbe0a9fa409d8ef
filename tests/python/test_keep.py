"""Averages kept on disk: which files are there, what is in them, and what happens when the disk refuses."""

import json
import os
import re
import select
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import DaemonProcess

import emad

safetensors = pytest.importorskip("safetensors")
pytest.importorskip("safetensors.numpy")

DEADLINE_SECONDS = 60
INTERVAL = 16
STDS = {"short": "power:std=0.05", "long": "power:std=.1"}


def weights(step: int) -> dict:
    generator = np.random.default_rng(step)
    return {"w": generator.standard_normal((64, 33)).astype(np.float32), "b": np.full(7, step, np.float64)}


def profiles(**keys: int) -> dict:
    """Both profiles, with keys such as snapshot=16 behind their schedules."""
    return {name: text + "".join(f",{key}={value}" for key, value in keys.items()) for name, text in STDS.items()}


def steps(directory: Path) -> list:
    return sorted(int(path.name[:20]) for path in directory.glob("*.safetensors"))


def counters(client: emad.Client) -> dict:
    return client.status()["counters"]


def settled(client: emad.Client, count: int) -> dict:
    """The counters once so many averages have been written, or not. The daemon tells nobody, so it is asked."""
    for _ in range(DEADLINE_SECONDS * 100):
        now = counters(client)
        if now["snapshots_written"] + now["snapshots_failed"] + now["snapshots_skipped"] >= count:
            return now
        select.select([], [], [], 0.01)
    raise AssertionError(f"not {count} after {DEADLINE_SECONDS} s: {now}")


def train(client, trainer, name, first, last, check=None):
    """Pushes those steps; where a file is due, waits for it, so that none is skipped. Returns views of those steps."""
    seen = {}
    for step in range(first, last + 1):
        assert trainer.push(step, weights(step), wait=True).outcome in ("applied", "started")
        if step % INTERVAL != 0:
            continue
        if check:
            check(step)
        for profile in STDS:
            with client.view(name, profile) as view:
                assert view.step == step
                seen[step, profile] = {key: np.array(view[key]) for key in view}
    return seen


@pytest.fixture
def keeper(tmp_path):
    """A daemon of the test's own, started when the test says so."""
    process = DaemonProcess(tmp_path)
    yield process
    process.kill()


@pytest.fixture
def small_disk(tmp_path):
    """A directory with room for 256 KiB."""
    directory = tmp_path / "state"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0777", "none", directory], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small tmpfs needs privileges: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


def test_files_are_the_bits_that_readers_saw(keeper):
    keeper.start()
    name = "run42/net"
    with emad.Client(keeper.url) as client:
        with client.trainer(name, weights(0), profiles=profiles(snapshot=INTERVAL)) as trainer:
            done = [0]

            def check(_step):
                done[0] += len(STDS)
                settled(client, done[0])

            seen = train(client, trainer, name, 1, 320, check)
        shown = client.show(name)
        assert counters(client)["snapshots_failed"] == counters(client)["snapshots_skipped"] == 0
    directory = Path(shown["snapshot_dir"])
    assert directory == keeper.directory / "state" / "snapshots" / "run42" / "net"
    for profile in shown["profiles"]:
        assert profile["snapshot_step"] == 320
        assert profile["snapshot_error"] is None
    assert sorted(os.listdir(directory)) == sorted(STDS)
    for profile in STDS:
        assert steps(directory / profile) == list(range(INTERVAL, 321, INTERVAL))
        assert all(re.fullmatch(r"\d{20}\.safetensors", file) for file in os.listdir(directory / profile))
    for (step, profile), tensors in seen.items():
        file = directory / profile / f"{step:020}.safetensors"
        loaded = safetensors.numpy.load_file(file)
        assert loaded.keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert loaded[key].dtype == tensor.dtype
            assert loaded[key].tobytes() == tensor.tobytes()
        with safetensors.safe_open(file, "numpy") as opened:
            metadata = opened.metadata()
        assert metadata["emad.step"] == str(step)
        assert (metadata["emad.model"], metadata["emad.profile"]) == (name, profile)


def test_few_are_kept_spread_over_the_training(keeper):
    keeper.start()
    with emad.Client(keeper.url) as client:
        with client.trainer("net", weights(0), profiles=profiles(snapshot=INTERVAL, keep=8)) as trainer:
            done = [0]

            def check(_step):
                done[0] += len(STDS)
                settled(client, done[0])
                for profile in STDS:
                    assert len(steps(directory / profile)) <= 8

            directory = Path(client.show("net")["snapshot_dir"])
            train(client, trainer, "net", 1, 400, check)
    for profile in STDS:
        kept = steps(directory / profile)
        assert kept[0] == INTERVAL and kept[-1] == 400
        assert len(kept) >= 4
        assert all(step // INTERVAL % 2 == 0 for step in kept[1:-1])
        gaps = np.diff(kept)
        assert gaps.max() <= 8 * INTERVAL


def test_a_gap_over_several_multiples_is_one_file(keeper):
    keeper.start()
    with emad.Client(keeper.url) as client:
        with client.trainer("net", weights(0), profiles={"ema": "power:std=.1,snapshot=10"}) as trainer:
            for count, step in enumerate((35, 70), 1):
                trainer.push(step, weights(step), wait=True)
                settled(client, count)
            trainer.push(75, weights(75), wait=True)
            trainer.push(80, weights(80), wait=True)
            settled(client, 3)
        directory = Path(client.show("net")["snapshot_dir"]) / "ema"
    assert steps(directory) == [35, 70, 80]


def test_a_training_that_starts_anew_moves_the_old_files_aside(keeper, emactl):
    keeper.start()
    with emad.Client(keeper.url) as client:
        for run in (1, 2):
            schedule = {"ema": "power:std=.1,snapshot=10"}
            with client.trainer("net", weights(0), profiles=schedule, resume="never") as trainer:
                for step in range(1, 41 if run == 1 else 21):
                    trainer.push(step, weights(step), wait=True)
                    if step % 10 == 0:
                        settled(client, (step // 10) + (4 if run == 2 else 0))
        directory = Path(client.show("net")["snapshot_dir"])
        command = [emactl, "--socket", keeper.url, "posthoc", "net", "--std", "0.12", "-n", "--json"]
        made = subprocess.run(command, capture_output=True, text=True)
        client.remove("net")
    assert made.returncode == 0, made.stderr
    assert [part["file"] for part in json.loads(made.stdout)["parts"]] == [
        str(directory / "ema" / f"{step:020}.safetensors") for step in (10, 20)
    ]
    assert steps(directory / "ema") == [10, 20]
    aside = [entry for entry in os.listdir(directory) if re.fullmatch(r"ema\.old-\d+", entry)]
    assert len(aside) == 1
    assert steps(directory / aside[0]) == [10, 20, 30, 40]


def test_a_full_disk_is_told_and_training_goes_on(small_disk, keeper):
    keeper.start()
    with emad.Client(keeper.url) as client:
        with client.trainer("net", weights(0), profiles={"ema": "power:std=.1,snapshot=1"}) as trainer:
            for step in range(1, 61):
                assert trainer.push(step, weights(step), wait=True).outcome == "applied"
                settled(client, step)
        now = counters(client)
        profile = client.show("net")["profiles"][0]
        assert now["snapshots_failed"] > 0 and now["snapshots_written"] > 0
        assert now["snapshots_failed"] + now["snapshots_written"] == 60
        assert "No space left" in profile["snapshot_error"] and "step 60" in profile["snapshot_error"]
        directory = small_disk / "snapshots" / "net" / "ema"
        # Whole files or none, and room for the next one as soon as something goes.
        assert all(re.fullmatch(r"\d{20}\.safetensors", file) for file in os.listdir(directory))
        for step in steps(directory):
            assert (safetensors.numpy.load_file(directory / f"{step:020}.safetensors")["b"] > 0).all()
            (directory / f"{step:020}.safetensors").unlink()
        with client.trainer("net", weights(0), profiles={"ema": "power:std=.1,snapshot=1"}, start_step=61) as trainer:
            assert trainer.push(61, weights(61), wait=True).outcome == "applied"
            settled(client, 61)
        profile = client.show("net")["profiles"][0]
        assert (profile["snapshot_step"], profile["snapshot_error"]) == (61, None)
    assert "No space left" in keeper.log()


def test_a_state_directory_that_cannot_be_written_is_told(keeper):
    (keeper.directory / "state").mkdir()
    (keeper.directory / "state" / "snapshots").symlink_to("/tmp")
    keeper.start()
    with emad.Client(keeper.url) as client:
        with client.trainer("net", weights(0), profiles={"ema": "power:std=.1,snapshot=1"}) as trainer:
            assert trainer.push(1, weights(1), wait=True).outcome == "applied"
            assert settled(client, 1)["snapshots_failed"] == 1
            assert "a link or a file" in client.show("net")["profiles"][0]["snapshot_error"]
            assert not Path("/tmp/net").exists()


def test_a_daemon_without_a_state_directory_says_what_to_set(keeper):
    keeper.start(state="")
    with emad.Client(keeper.url) as client:
        with pytest.raises(emad.Error, match="--state-dir"):
            client.trainer("net", weights(0), profiles=profiles(snapshot=INTERVAL))
        with client.trainer("net", weights(0), profiles=profiles()) as trainer:
            assert trainer.push(1, weights(1), wait=True).outcome == "applied"
        assert client.show("net")["snapshot_dir"] is None


def test_a_relative_state_directory_is_shown_as_a_whole_path(keeper, monkeypatch):
    monkeypatch.chdir(keeper.directory)
    keeper.start(state="elsewhere/")
    with emad.Client(keeper.url) as client:
        with client.trainer("net", weights(0), profiles={"ema": "yolo:snapshot=1"}) as trainer:
            trainer.push(1, weights(1), wait=True)
            settled(client, 1)
        directory = Path(client.show("net")["snapshot_dir"])
    assert directory == keeper.directory / "elsewhere" / "snapshots" / "net"
    assert steps(directory / "ema") == [1]


def test_an_end_finishes_what_is_being_written(keeper):
    directory = keeper.directory / "state" / "snapshots" / "net" / "ema"
    keeper.start()
    big = {"w": np.ones(16 << 20, np.float32)}
    with emad.Client(keeper.url) as client:
        with client.trainer("net", big, profiles={"ema": "power:std=.1,snapshot=1"}) as trainer:
            assert trainer.push(1, big, wait=True).outcome == "applied"
            # What has not begun is left out.
            while not directory.is_dir() or not os.listdir(directory):
                time.sleep(0.001)
    assert keeper.stop() == 0
    assert os.listdir(directory) == [f"{1:020}.safetensors"]
    assert safetensors.numpy.load_file(directory / f"{1:020}.safetensors")["w"].sum() == 16 << 20


def test_a_kill_leaves_whole_files_and_nothing_that_stays_half_written(keeper):
    big = {"w": np.ones(16 << 20, np.float32)}
    directory = keeper.directory / "state" / "snapshots" / "net"
    for _ in range(3):
        keeper.start()
        with emad.Client(keeper.url) as client:
            with client.trainer("net", big, profiles={"ema": "power:std=.1,snapshot=1"}) as trainer:
                trainer.push(1, big, wait=True)
                settled(client, 1)
                trainer.push(2, big, wait=True)
                keeper.kill()
    keeper.start()
    with emad.Client(keeper.url) as client:
        with client.trainer("net", weights(0), profiles={"ema": "power:std=.1,snapshot=1"}) as trainer:
            trainer.push(1, weights(1), wait=True)
            assert settled(client, 1)["snapshots_written"] == 1
    assert os.listdir(directory / "ema") == [f"{1:020}.safetensors"]
    aside = [file for old in directory.glob("ema.old-*") for file in old.iterdir()]
    assert aside
    for file in aside:
        assert re.fullmatch(r"\d{20}\.safetensors", file.name)
        assert (safetensors.numpy.load_file(file)["w"] == 1).all()


def test_a_width_that_nobody_tracked_is_made_of_them(keeper, emactl, tmp_path):
    keeper.start()
    with emad.Client(keeper.url) as client:
        followed = {**profiles(snapshot=INTERVAL), "wanted": "power:std=0.15"}
        with client.trainer("run/net", weights(0), profiles=followed) as trainer:
            train(client, trainer, "run/net", 1, 32 * INTERVAL, lambda step: settled(client, 2 * (step // INTERVAL)))
        out = tmp_path / "wanted.safetensors"
        done = subprocess.run(
            [emactl, "--socket", keeper.url, "posthoc", "run/net", "--std", "0.15", "-o", out, "--json"],
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        found = safetensors.numpy.load_file(str(out))
        with client.view("run/net", "wanted") as view:
            assert report["step"] == view.step == 32 * INTERVAL
            for name in view:
                wanted = np.array(view[name], dtype=np.float64)
                # Of noise an average is made as well as its weights are: that is what the error says.
                assert np.linalg.norm(found[name] - wanted) < 0.01 * np.linalg.norm(wanted)
        assert 0 < report["error"] < 0.01
