"""Checkpoints: what the daemon writes comes back bit by bit, whatever dies, and what is damaged is never served."""

import json
import os
import random
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

import emad
from conftest import DaemonProcess

NAME = "run42/net"
PROFILES = {"ema": "yolo:decay=0.999,tau=50", "slow": "constant:decay=0.99", "edm": "power:std=0.1"}


def weights(step, elements=64):
    generator = np.random.default_rng(step)
    return {
        "head.weight": generator.standard_normal((elements, 8), dtype=np.float32),
        "head.bias": generator.standard_normal(8),
        "bn.count": np.array(step, np.int64),
    }


def train(client, first, last, name=NAME, profiles=PROFILES, elements=64, **choices):
    with client.trainer(name, weights(0, elements), profiles=profiles, **choices) as trainer:
        for step in range(first, last + 1):
            trainer.push(step, weights(step, elements), wait=True)
        return trainer.resumed, trainer.last_step


def served(client, name=NAME, profiles=PROFILES):
    """All that a reader sees: tensors, counters and metadata of every profile."""
    seen = {}
    for profile in profiles:
        with client.view(name, profile) as view:
            seen[profile] = ({key: np.array(view[key]).tobytes() for key in view}, view.step, view.updates, view.version)
    shown = client.show(name)
    facts = ("name", "specification", "updates", "calls", "decay", "action", "drift", "value_norm", "nonfinite")
    counts = [[profile.get(key) for key in facts] for profile in shown["profiles"]]
    return seen, counts, shown["attributes"], shown["metadata"], shown["stride"], shown["policy"], shown["guards"]


def models(client):
    return {model["model"]: model["step"] for model in client.list()["models"]}


def directory_of(daemon, name=NAME):
    return daemon.directory / "state" / "checkpoints" / name.replace("/", "%")


def generations(daemon, name=NAME):
    return sorted(path for path in directory_of(daemon, name).iterdir() if len(path.name) == 41 and path.name[20] == "-")


def copy_tree(state, target):
    subprocess.run(["cp", "-a", state, target], check=True)


def told(emactl, daemon, *command):
    """What emactl says, lines of one blank between words."""
    done = subprocess.run([emactl, "--socket", daemon.url, *command], capture_output=True, text=True, check=True)
    return "\n".join(" ".join(line.split()) for line in done.stdout.splitlines())


@pytest.fixture
def own(tmp_path):
    process = DaemonProcess(tmp_path, "[limits]\nlease-min=100ms\n")
    yield process
    process.kill()


def test_a_daemon_that_was_stopped_goes_on_where_it_was(own):
    own.start()
    with emad.Client(own.url) as client:
        with client.trainer(
            NAME, weights(0), profiles=PROFILES, attributes={"a": "é"}, guards="nonfinite=refuse,loss_max=10", policy="coalesce"
        ) as trainer:
            for step in range(1, 41):
                trainer.push(step, weights(step), wait=True, metadata={"step": step})
        before = served(client)
    assert own.stop() == 0
    own.start()
    with emad.Client(own.url) as client:
        assert served(client) == before
        assert client.status()["counters"]["models_recovered"] == 1
        assert train(client, 41, 80) == (True, 40)
        recovered = served(client)[0]
        train(client, 1, 80, name="whole")
        uninterrupted = served(client, "whole")[0]
    for profile in PROFILES:
        assert recovered[profile][0] == uninterrupted[profile][0]
        assert recovered[profile][2] == uninterrupted[profile][2]


def test_any_safetensors_reader_takes_the_files(own):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    own.start()
    with emad.Client(own.url) as client:
        train(client, 1, 5)
        assert client.checkpoint(NAME) == 5
        (generation,) = generations(own)
        manifest = json.loads((generation / "manifest.json").read_text())
        assert (manifest["model"], manifest["step"], len(manifest["tensors"])) == (NAME, 5, 3)
        for profile in PROFILES:
            loaded = load_file(generation / f"{profile}.safetensors")
            with client.view(NAME, profile) as view:
                assert loaded.keys() == set(view)
                assert all(loaded[key].tobytes() == np.array(view[key]).tobytes() for key in view)
        # What is there is not written again.
        written = (generation / "manifest.json").stat().st_mtime_ns
        assert client.checkpoint(NAME) == 5 and client.checkpoint() == 0
        assert (generation / "manifest.json").stat().st_mtime_ns == written


def test_emactl_tells_of_the_last_checkpoint(own, emactl):
    own.start()
    with emad.Client(own.url) as client:
        train(client, 1, 5)
        assert "last checkpoint -" in told(emactl, own, "status")
        assert "checkpoint step -" in told(emactl, own, "show", NAME)
        client.checkpoint(NAME)
        assert client.status()["checkpoint"]["model"] == NAME
        said = told(emactl, own, "status")
        assert "ago\nits model run42/net\nits step 5\n" in said and "failing" not in said
        said = told(emactl, own, "show", NAME)
        assert "checkpoint step 5\ncheckpoint written " in said and "ago\nfailures in a row 0\n" in said


def test_what_is_said_after_the_checkpoint_comes_back_too(own):
    own.start()
    with emad.Client(own.url) as client:
        with client.trainer(NAME, weights(0), profiles=PROFILES, attributes={"a": 1}) as trainer:
            for step in range(1, 6):
                trainer.push(step, weights(step), wait=True)
            assert client.checkpoint(NAME) == 5
            (generation,) = generations(own)
            averages = {path.name: path.stat().st_mtime_ns for path in generation.glob("*.safetensors")}
            trainer.set_attributes({"a": 2, "b": "é"})
        # Another guard, too, and then the end: on disk is the same version.
        with client.trainer(NAME, weights(0), profiles=PROFILES, attributes={"a": 3}, guards="loss_max=10,norm_jump=0.5"):
            pass
        before = served(client)
    assert own.stop() == 0
    assert generations(own) == [generation]
    assert {path.name: path.stat().st_mtime_ns for path in generation.glob("*.safetensors")} == averages
    own.start()
    with emad.Client(own.url) as client:
        assert served(client) == before
        assert client.show(NAME)["attributes"] == {"a": 3}
        # The norms of before the restart are what the first snapshot is compared with.
        with client.trainer(NAME, weights(0), profiles=PROFILES, guards="norm_jump=0.5") as trainer:
            large = {key: value * 100 if value.dtype.kind == "f" else value for key, value in weights(6).items()}
            assert trainer.push(6, large, wait=True).outcome == "norm-jump"
            assert trainer.push(6, weights(6), wait=True).outcome == "applied"


def test_after_a_kill_the_last_checkpoint_is_there(own):
    own.start()
    with emad.Client(own.url) as client:
        train(client, 1, 10)
        client.checkpoint(NAME)
        before = served(client)
        train(client, 11, 20)
    own.kill()
    own.start()
    with emad.Client(own.url) as client:
        assert served(client) == before
        assert train(client, 11, 12)[0]


def test_two_generations_stay_and_those_that_a_person_keeps(own):
    own.start()
    with emad.Client(own.url) as client:
        for step in range(1, 7):
            train(client, step, step)
            client.checkpoint(NAME)
            if step == 2:
                (generations(own)[-1] / "keep").touch()
        assert [int(path.name[:20]) for path in generations(own)] == [2, 5, 6]
        assert not [path for path in directory_of(own).iterdir() if path.name.startswith(".")]


def test_every_damaged_file_is_set_aside_and_the_generation_before_is_served(own, tmp_path):
    own.start()
    with emad.Client(own.url) as client:
        train(client, 1, 3)
        client.checkpoint(NAME)
        older = served(client)[0]
        train(client, 4, 6)
        client.checkpoint(NAME)
    own.kill()
    pristine = tmp_path / "pristine"
    copy_tree(tmp_path / "state", pristine)
    generator = random.Random(11)
    newest = generations(own)[-1].name
    damages = []
    for file in sorted(os.listdir(generations(own)[-1])):
        size = (generations(own)[-1] / file).stat().st_size
        damages += [(file, "flip", place) for place in (0, size - 1, generator.randrange(size))]
        damages += [(file, "cut", generator.randrange(size)), (file, "longer", size + 1), (file, "gone", 0), (file, "link", 0)]
    for number, (file, how, place) in enumerate(damages):
        state = tmp_path / f"damaged{number}"
        copy_tree(pristine, state)
        path = state / "checkpoints" / NAME.replace("/", "%") / newest / file
        if how == "flip":
            with open(path, "r+b") as opened:
                opened.seek(place)
                byte = opened.read(1)[0]
                opened.seek(place)
                opened.write(bytes([byte ^ 1 << generator.randrange(8)]))
        elif how == "gone":
            path.unlink()
        elif how == "link":
            path.rename(tmp_path / f"elsewhere{number}")
            path.symlink_to(tmp_path / f"elsewhere{number}")
        else:
            os.truncate(path, place)
        own.start(state)
        with emad.Client(own.url) as client:
            assert served(client)[0] == older, (file, how)
            assert client.status()["counters"]["checkpoints_bad"] == 1
            # The next one does not collide with what was set aside.
            train(client, 4, 7)
            client.checkpoint(NAME)
        own.kill()
        assert [entry for entry in os.listdir(path.parent.parent) if entry.startswith(f"{newest}.bad-")], (file, how)
        assert newest in own.log()


def test_killed_at_any_moment_of_a_checkpoint_a_whole_generation_is_found(own):
    generator = random.Random(5)
    own.start()
    with emad.Client(own.url) as client:
        train(client, 1, 1, elements=4096)
        client.checkpoint(NAME)
    step = 1
    for _ in range(20):
        stop = threading.Event()
        acknowledged = [step]

        def loop(stop=stop, acknowledged=acknowledged, first=step + 1):
            try:
                with emad.Client(own.url, timeout=0.3) as client:
                    with client.trainer(NAME, weights(0, 4096), profiles=PROFILES) as trainer:
                        for at in range(first, first + 10000):
                            trainer.push(at, weights(at, 4096), wait=True)
                            acknowledged[0] = max(acknowledged[0], client.checkpoint(NAME, timeout=0.3))
                            if stop.is_set():
                                return
            except emad.Error:
                pass

        thread = threading.Thread(target=loop)
        thread.start()
        time.sleep(generator.uniform(0.02, 0.25))  # the moment is what is tried
        own.kill()
        stop.set()
        thread.join()
        own.start()
        with emad.Client(own.url) as client:
            with client.view(NAME, "slow") as view:
                assert acknowledged[0] <= view.step <= acknowledged[0] + 1
                step = view.step
                assert int(view["bn.count"]) == step
            assert client.status()["counters"]["checkpoints_bad"] == 0


def test_a_full_disk_leaves_the_last_one_and_training_goes_on(own, emactl, tmp_path):
    state = tmp_path / "small"
    state.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", state], capture_output=True).returncode != 0:
        pytest.skip("a small file system needs the right to mount one")
    try:
        own.start(state)
        with emad.Client(own.url) as client:
            train(client, 1, 3)
            client.checkpoint(NAME)
            before = served(client)[0]
            (state / "filler").write_bytes(bytes(os.statvfs(state).f_bavail * os.statvfs(state).f_bsize))
            train(client, 4, 9)
            with pytest.raises(OSError, match="No space left"):
                client.checkpoint(NAME)
            train(client, 10, 12)
            shown = client.show(NAME)["checkpoint"]
            assert shown["step"] == 3 and shown["failures"] >= 1 and "No space left" in shown["error"]
            assert "No space left" in client.status()["checkpoint"]["error"]
            for command in (["status"], ["show", NAME]):
                said = told(emactl, own, *command)
                assert "failures in a row" in said and "No space left" in said
        own.kill()
        own.start(state)
        with emad.Client(own.url) as client:
            assert served(client)[0] == before
            (state / "filler").unlink()
            train(client, 4, 5)
            assert client.checkpoint(NAME) == 5
    finally:
        own.kill()
        subprocess.run(["umount", state], check=True)


def checkpoint_of(url):
    with emad.Client(url) as client:
        try:
            client.checkpoint(NAME)
        except emad.Error:
            pass  # the daemon has ended meanwhile


def test_the_disk_gets_no_more_than_its_bandwidth(own):
    def limit(bytes_per_s):
        own.configuration.write_text(f"[checkpoint]\ncheckpoint-bandwidth={bytes_per_s}\n")

    def checkpoint(step):
        trainer.push(step, weights(step, elements), wait=True)
        begun = time.monotonic()
        assert client.checkpoint(NAME) == step
        return time.monotonic() - begun

    elements = 1 << 19  # 16 MiB
    limit("8M")
    own.start()
    with emad.Client(own.url) as client, client.trainer(NAME, weights(0, elements), profiles={"ema": "yolo"}) as trainer:
        limited = checkpoint(1)
        print(f"16 MiB at 8 MiB/s: {limited:.2f} s")
        assert limited >= 1.8  # a tenth of a second's worth goes at once
        limit("0")
        own.signal(signal.SIGHUP)
        while "checkpoint-bandwidth=0 now" not in own.log():
            time.sleep(0.01)
        free = checkpoint(2)
        print(f"without a limit: {free:.2f} s")
        # One under way goes on at another limit, and the end has none.
        limit("64K")
        own.signal(signal.SIGHUP)
        while "checkpoint-bandwidth=64K now" not in own.log():
            time.sleep(0.01)
        trainer.push(3, weights(3, elements), wait=True)
        asked = threading.Thread(target=checkpoint_of, args=(own.url,))
        asked.start()
        while not client.show(NAME)["checkpoint"]["writing"]:
            time.sleep(0.01)
        begun = time.monotonic()
        assert own.stop() == 0
        assert time.monotonic() - begun < 20  # at the limit it would take four minutes
        asked.join()
    assert [path.name[:20] for path in generations(own)][-1] == f"{3:020}"


def test_a_state_directory_that_went_away_is_taken_anew(own, tmp_path):
    own.start()
    state, gone, other = tmp_path / "state", tmp_path / "gone", tmp_path / "other"
    other.mkdir()
    second = DaemonProcess(other)
    with emad.Client(own.url) as client:
        train(client, 1, 3)
        assert client.checkpoint(NAME) == 3
        state.rename(gone)
        train(client, 4, 5)
        assert client.checkpoint(NAME) == 5
        for place in (state, gone):
            assert int((place / "emad.lock").read_text()) == own.process.pid
        with pytest.raises(RuntimeError, match=f"used by another emad, pid {own.process.pid}"):
            second.start(state)
        # Nobody holds the one that is gone.
        second.start(gone)
        with emad.Client(second.url) as reader:
            assert models(reader) == {NAME: 3}
        assert second.stop() == 0
    assert own.stop() == 0
    assert not (state / "emad.lock").exists() and not (gone / "emad.lock").exists()


def test_planted_links_are_not_followed(own, tmp_path):
    own.start()
    with emad.Client(own.url) as client:
        train(client, 1, 3)
        client.checkpoint(NAME)
    own.kill()
    # A model's directory that is a link, one that leads to a whole generation, and names that no model has.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkpoints = tmp_path / "state" / "checkpoints"
    generation = generations(own)[0]
    generation.rename(elsewhere / generation.name)
    generation.symlink_to(elsewhere / generation.name)
    (checkpoints / "linked").symlink_to(directory_of(own))
    (checkpoints / "..%up").mkdir()
    (checkpoints / "a file").touch()
    own.start()
    with emad.Client(own.url) as client:
        assert models(client) == {}
        train(client, 1, 2, name="linked")
        with pytest.raises(OSError, match="a link or a file is in the place of a directory"):
            client.checkpoint("linked")
        train(client, 1, 2)
        client.checkpoint(NAME)
    own.kill()
    assert os.listdir(elsewhere) == [generation.name]


def test_checkpoints_that_are_a_link_as_a_whole_are_refused(own, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    own.start()
    with emad.Client(own.url) as client:
        train(client, 1, 2)
        with pytest.raises(OSError, match="a link or a file is in the place of a directory"):
            client.checkpoint(NAME)
    assert own.stop() == 0
    assert os.listdir(tmp_path / "elsewhere") == []


def test_what_was_removed_or_started_anew_does_not_come_back(own):
    own.start()
    with emad.Client(own.url) as client:
        train(client, 1, 9)
        train(client, 1, 9, name="gone")
        client.checkpoint()
        client.remove("gone")
        train(client, 1, 2, resume="never")
    assert own.stop() == 0
    own.start()
    with emad.Client(own.url) as client:
        assert list(models(client)) == [NAME]
        assert client.show(NAME)["step"] == 2
    aside = sorted(path.name.split("%%")[0] for path in (own.directory / "state" / "checkpoints").glob("*%%old-*"))
    assert aside == ["gone", "run42%net"]


def test_many_models_come_back_whatever_they_are_called(own):
    names = ["a", "a/b", "a/b/c", "0" * 20 + "-" + "0" * 20, "x" * 200, "p=1+2", "@_.-x"]
    own.start()
    with emad.Client(own.url) as client:
        for step, name in enumerate(names, 1):
            train(client, 1, step, name=name)
    assert own.stop() == 0
    own.start()
    with emad.Client(own.url) as client:
        assert models(client) == {name: n for n, name in enumerate(names, 1)}


def test_updates_and_the_interval_make_them_due(tmp_path):
    process = DaemonProcess(tmp_path, "[checkpoint]\ncheckpoint-interval=200ms\ncheckpoint-updates=5\n")
    process.start()
    try:
        with emad.Client(process.url) as client:
            train(client, 1, 6)
            deadline = time.monotonic() + 20
            while client.show(NAME)["checkpoint"]["step"] != 6:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert client.status()["counters"]["checkpoints_written"] >= 2
    finally:
        process.kill()


def test_the_tool_says_what_is_on_disk(own, emactl):
    def run(*arguments):
        return subprocess.run([emactl, "--socket", own.url, *arguments], capture_output=True, text=True)

    own.start()
    with emad.Client(own.url) as client:
        train(client, 1, 4)
    asked = run("checkpoint", NAME)
    assert (asked.returncode, asked.stdout) == (0, f"{NAME} is on disk as of step 4\n")
    assert json.loads(run("checkpoint", NAME, "--json").stdout) == {"model": NAME, "step": 4}
    assert run("checkpoint").stdout == "all models are on disk\n"
    assert run("checkpoint", "no/such").returncode == 66
    own.kill()
    own.start(state="")
    with emad.Client(own.url) as client:
        train(client, 1, 1)
    refused = run("checkpoint", NAME)
    assert refused.returncode == 64 and "--state-dir" in refused.stderr
    assert "no checkpoints" in own.log()
