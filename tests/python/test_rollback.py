"""Going back to a version in memory or on disk: exactly that average, under load, and whatever dies."""

import contextlib
import json
import random
import subprocess
import threading
import time

import numpy as np
import pytest

import emad
from conftest import DaemonProcess

NAME = "run42/net"
PROFILES = {"ema": "constant:decay=0.5", "slow": "constant:decay=0.9", "edm": "power:std=0.1"}


def weights(step, elements=256):
    generator = np.random.default_rng(step)
    return {"w": generator.standard_normal(elements), "b": generator.standard_normal((4, 8), dtype=np.float32)}


class Reference:
    """What constant:decay=d makes of the pushes, in float64, as SEMANTICS say: s + (1-d)*(x-s) over a gap of k calls."""

    def __init__(self, decay, shadow):
        self.decay, self.shadow = decay, shadow

    def push(self, values, calls=1):
        d = self.decay**calls
        self.shadow = self.shadow + (1 - d) * (values - self.shadow)

    def copy(self):
        return Reference(self.decay, self.shadow.copy())


def train(client, first, last, **choices):
    with client.trainer(NAME, weights(0), profiles=PROFILES, **choices) as trainer:
        for step in range(first, last + 1):
            trainer.push(step, weights(step), wait=True)
        return trainer.last_step


def served(client):
    """All that a reader sees of an average, but for the numbers of versions."""
    seen = {}
    for profile in PROFILES:
        with client.view(NAME, profile) as view:
            seen[profile] = ({key: np.array(view[key]).tobytes() for key in view}, view.step, view.updates)
    facts = ("name", "updates", "calls", "decay", "action")
    return seen, [[profile.get(key) for key in facts] for profile in client.show(NAME)["profiles"]]


def directory_of(daemon):
    return daemon.directory / "state" / "checkpoints" / NAME.replace("/", "%")


def flip(path, position=-9):
    contents = bytearray(path.read_bytes())
    contents[position] ^= 1
    path.write_bytes(contents)


@pytest.fixture
def own(tmp_path):
    process = DaemonProcess(tmp_path, "[limits]\nlease-min=100ms\n[checkpoint]\ncheckpoint-keep=4\n")
    process.start()
    yield process
    process.kill()


@pytest.fixture
def tool(own, emactl):
    return lambda *arguments: subprocess.run(
        [emactl, "--socket", own.url, *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def alone(own):
    with emad.Client(own.url, timeout=20) as client:
        yield client


def settled(client):
    """Waits for the checkpoint that a rollback asks for."""
    client.checkpoint(NAME)


def test_back_to_memory_and_on_is_as_if_nothing_had_been(alone):
    train(alone, 1, 10)
    at_ten = served(alone)
    train(alone, 11, 12)
    before = alone.show(NAME)["version"]
    back = alone.rollback(NAME, 10)
    assert (back.step, back.step_before, back.source, back.version) == (10, 12, "memory", before + 1)
    assert back.updates == at_ten[0]["ema"][2]
    assert served(alone) == at_ten
    train(alone, 11, 14)
    on = served(alone)
    alone.remove(NAME)
    train(alone, 1, 14)
    assert served(alone) == on


def test_back_to_disk_and_on_is_as_if_nothing_had_been(alone):
    train(alone, 1, 10)
    at_ten = served(alone)
    assert alone.checkpoint(NAME) == 10
    train(alone, 11, 40)
    before = alone.show(NAME)["version"]
    look = alone.rollback(NAME, 20, dry_run=True)
    assert (look.step, look.source, look.version) == (10, "disk", before)
    assert alone.show(NAME)["step"] == 40
    back = alone.rollback(NAME, 20)
    assert (back.step, back.step_before, back.source, back.version, back.taken) == (10, 40, "disk", before + 1, look.taken)
    assert served(alone) == at_ten
    train(alone, 11, 30)
    on = served(alone)
    alone.remove(NAME)
    train(alone, 1, 30)
    assert served(alone) == on


def test_the_average_is_that_of_a_float64_model(alone):
    reference = Reference(0.5, weights(0)["w"])
    slow = Reference(0.9, weights(0)["w"])
    kept = {}
    for step in range(1, 31):
        reference.push(weights(step)["w"])
        slow.push(weights(step)["w"])
        kept[step] = reference.copy(), slow.copy()
    train(alone, 1, 20)
    alone.checkpoint(NAME)
    train(alone, 21, 30)
    with alone.trainer(NAME, weights(0), profiles=PROFILES, start_step=30) as trainer:
        assert alone.rollback(NAME, 25).step == 20
        reference, slow = kept[20]
        # The trainer simply goes on: its push stands for all steps since the one that was gone back to.
        result = trainer.push(31, weights(31), wait=True)
        assert (result.outcome, result.calls) == ("applied", 11)
        for model in (reference, slow):
            model.push(weights(31)["w"], 11)
    for profile, model in (("ema", reference), ("slow", slow)):
        with alone.view(NAME, profile) as view:
            np.testing.assert_allclose(view["w"], model.shadow, rtol=0, atol=1e-14)
            assert view.history[-1]["change"] == "rolled back"
            assert (view.history[-1]["from"], view.history[-1]["to"]) == ("step 30", "step 20")


def test_asking_again_changes_nothing(alone):
    train(alone, 1, 5)
    first = alone.rollback(NAME, 4)
    again = alone.rollback(NAME, 4)
    assert again.version == again.taken == first.version
    assert len([row for row in alone.history(NAME)["changes"] if row["profile"] == "ema"]) == 1
    assert alone.rollback(NAME, 10**6).version == first.version


def test_what_is_not_there_is_named(alone):
    train(alone, 1, 10)
    with pytest.raises(emad.NoVersionError, match="in memory") as caught:
        alone.rollback(NAME, 3)
    assert all(f" {step}" in str(caught.value) for step in (8, 9, 10))
    alone.checkpoint(NAME)
    train(alone, 11, 20)
    with pytest.raises(emad.NoVersionError, match="on disk is step 10"):
        alone.rollback(NAME, 9)
    with pytest.raises(emad.NoModelError):
        alone.rollback("none", 9)
    assert alone.show(NAME)["step"] == 20


def test_other_profiles_are_refused_by_name(alone):
    train(alone, 1, 10)
    alone.checkpoint(NAME)
    train(alone, 11, 20)
    alone.set_profiles(NAME, {"more": "constant:decay=0.1"})
    with pytest.raises(emad.ProfileError, match="step 10 has other profiles.*emactl import"):
        alone.rollback(NAME, 10)
    # The average goes on as if nothing had been asked.
    with alone.trainer(NAME, weights(0), profiles=PROFILES, start_step=20) as trainer:
        assert trainer.push(21, weights(21), wait=True).outcome == "applied"
    alone.remove_profile(NAME, "more")
    assert alone.rollback(NAME, 10).source == "disk"


def test_another_decay_of_the_same_profiles_is_no_hindrance(alone):
    train(alone, 1, 10)
    at_ten = served(alone)[0]
    alone.checkpoint(NAME)
    train(alone, 11, 20)
    alone.set_profiles(NAME, {"ema": "constant:decay=0.25"})
    assert alone.rollback(NAME, 10).source == "disk"
    assert served(alone)[0] == at_ten
    changes = [row["change"] for row in alone.history(NAME)["changes"] if row["profile"] == "ema"]
    assert changes == ["rolled back", "schedule"]


def test_a_damaged_checkpoint_is_passed_over(own, alone):
    train(alone, 1, 5)
    at_five = served(alone)
    alone.checkpoint(NAME)
    train(alone, 6, 10)
    alone.checkpoint(NAME)
    train(alone, 11, 20)
    flip(next(directory_of(own).glob("*10-*")) / "slow.safetensors")
    back = alone.rollback(NAME, 12)
    assert (back.step, back.source) == (5, "disk")
    assert served(alone) == at_five
    settled(alone)
    rows = {(row["step"], row["state"]): row for row in alone.history(NAME)["generations"]}
    assert "slow.safetensors is damaged" in rows[10, "aside"]["reason"] and rows[10, "aside"]["aside_us"]
    assert rows[5, "whole"]["reason"] is None
    assert alone.status()["counters"]["checkpoints_bad"] == 1


def test_when_all_are_damaged_nothing_has_happened(own, alone):
    train(alone, 1, 5)
    alone.checkpoint(NAME)
    train(alone, 6, 20)
    before = served(alone)
    flip(next(directory_of(own).glob("*5-*")) / "ema.safetensors")
    with pytest.raises(emad.NoVersionError, match="on disk is nothing"):
        alone.rollback(NAME, 12)
    assert served(alone) == before
    assert train(alone, 21, 22) == 20


def test_a_rollback_outlives_the_daemon(own, alone):
    train(alone, 1, 10)
    at_ten = served(alone)
    alone.checkpoint(NAME)
    train(alone, 11, 20)
    alone.checkpoint(NAME)
    version = alone.rollback(NAME, 15).version
    settled(alone)
    own.kill()
    own.start()
    with emad.Client(own.url) as client:
        assert served(client) == at_ten
        assert client.show(NAME)["version"] == version
        assert client.history(NAME)["changes"][0]["change"] == "rolled back"


@pytest.mark.parametrize("rewind_from", ["memory", "disk"])
def test_a_registration_goes_back_to_disk_too(alone, rewind_from):
    train(alone, 1, 10)
    at_ten = served(alone)
    alone.checkpoint(NAME)
    train(alone, 11, 12 if rewind_from == "memory" else 30)
    assert train(alone, 11, 10, start_step=10, rewind="back") == 10
    assert served(alone) == at_ten
    assert alone.history(NAME)["changes"][0]["change"] == "rewound"
    train(alone, 11, 15)
    on = served(alone)
    alone.remove(NAME)
    train(alone, 1, 15)
    assert served(alone) == on


def test_a_registration_that_finds_nothing_leaves_the_trainer_before(alone):
    train(alone, 1, 10)
    alone.checkpoint(NAME)
    with alone.trainer(NAME, weights(0), profiles=PROFILES, start_step=10) as trainer:
        for step in range(11, 21):
            trainer.push(step, weights(step), wait=True)
        with emad.Client(alone.url) as other, pytest.raises(emad.NoVersionError, match="on disk is step 10"):
            other.trainer(NAME, weights(0), profiles=PROFILES, start_step=4, rewind="back")
        assert trainer.push(21, weights(21), wait=True).outcome == "applied"


def test_kept_averages_of_later_steps_go_aside(own, alone):
    kept = {"ema": "constant:decay=0.5,snapshot=5"}
    with alone.trainer(NAME, weights(0), profiles=kept) as trainer:
        for step in range(1, 31):
            trainer.push(step, weights(step), wait=True)
            while step % 5 == 0 and alone.show(NAME)["profiles"][0]["snapshot_step"] != step:
                time.sleep(0.005)
            if step == 12:
                alone.checkpoint(NAME)
    assert alone.rollback(NAME, 13).step == 12
    settled(alone)
    history = alone.history(NAME)
    assert [row["step"] for row in history["snapshots"]] == [10, 5]
    assert all(row["profile"] == "ema" and row["bytes"] > 0 for row in history["snapshots"])
    (aside,) = (own.directory / "state" / "snapshots" / NAME).glob("ema.old-*")
    assert sorted(int(path.stem) for path in aside.iterdir())[-1] == 30


def test_a_marked_checkpoint_stays(alone, tool):
    train(alone, 1, 3)
    assert tool("checkpoint", NAME, "--keep").returncode == 0
    for step in range(4, 11):
        train(alone, step, step)
        alone.checkpoint(NAME)
    rows = alone.history(NAME)["generations"]
    assert [row["step"] for row in rows] == [10, 9, 8, 7, 3]
    assert [row["keep"] for row in rows] == [False] * 4 + [True]
    assert alone.rollback(NAME, 6, dry_run=True).step == 3
    with pytest.raises(emad.NoVersionError, match="no checkpoint of step 4: on disk is steps 10, 9, 8, 7, 3"):
        alone.keep_checkpoint(NAME, 4, False)
    shown = tool("checkpoint", NAME, "--unkeep", "--step", "3")
    assert "may go" in shown.stdout
    alone.keep_checkpoint(NAME, 3, False)
    train(alone, 11, 11)
    alone.checkpoint(NAME)
    assert [row["step"] for row in alone.history(NAME)["generations"]] == [11, 10, 9, 8]


def test_readers_see_one_whole_version_while_it_goes_back_and_on(own, alone):
    names = ["v", "w"]
    stop = threading.Event()
    wrong = []

    def tensors(step):
        return {name: np.full(1 << 16, float(step)) for name in names}

    def read():
        with emad.Client(own.url, timeout=20) as client:
            while not stop.is_set():
                try:
                    with client.view(NAME) as view:
                        values = {float(value) for name in names for value in (view[name].min(), view[name].max())}
                        step = view.step
                        view.check()
                except emad.RevokedError:
                    continue
                if values != {float(step)}:
                    wrong.append((step, values))

    readers = [threading.Thread(target=read) for _ in range(3)]
    chance = random.Random(11)
    with alone.trainer(NAME, tensors(0), profiles={"ema": "constant:decay=0"}) as trainer:
        for step in range(1, 4):
            trainer.push(step, tensors(step), wait=True)
        alone.checkpoint(NAME)
        alone.keep_checkpoint(NAME, 3)
        for reader in readers:
            reader.start()
        sources = set()
        step = 3
        try:
            while step < 300 and not wrong:
                step += 1
                trainer.push(step, tensors(step), wait=chance.random() < 0.5)
                if chance.random() < 0.1:
                    alone.checkpoint(NAME)
                if chance.random() < 0.2:
                    back = alone.rollback(NAME, max(3, step - chance.randrange(40)))
                    sources.add(back.source)
                    assert back.step <= step
            try:
                trainer.flush()
            except emad.RefusedError as refused:  # those that had not been averaged yet when it went back
                assert "rolled back to an earlier step on request" in str(refused)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
    assert not wrong and sources == {"memory", "disk"}


@pytest.mark.parametrize("survives", [False, True], ids=["memory-lost", "memory-kept"])
def test_kills_leave_the_old_average_or_the_new_one(own, survives, tmp_path):
    chance = random.Random(5)
    if survives:
        own.kill()
        segments = tmp_path / "segments"
        own.configuration.write_text(f"{own.configuration.read_text()}[daemon]\nsegments-dir={segments}\n")
        own.start()
    for round_number in range(6):
        with emad.Client(own.url, timeout=20) as client:
            if round_number == 0:
                train(client, 1, 10)
                at_ten = served(client)[0]
                client.checkpoint(NAME)
                client.keep_checkpoint(NAME, 10)
            first = client.show(NAME)["step"] + 1
            train(client, first, first + 19)
            client.checkpoint(NAME)
            later = served(client)[0]

            def ask():
                with contextlib.suppress(emad.Error, OSError), emad.Client(own.url, timeout=2) as other:
                    other.rollback(NAME, 10)

            asker = threading.Thread(target=ask)
            asker.start()
            time.sleep(chance.random() * 0.004)
            own.kill()
            asker.join()
        own.start()
        with emad.Client(own.url, timeout=20) as client:
            seen = served(client)[0]
            assert seen == later or seen == at_ten, round_number


def test_the_tool_shows_and_goes_back(alone, tool):
    train(alone, 1, 10)
    alone.checkpoint(NAME)
    train(alone, 11, 20)
    shown = tool("history", NAME)
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line[:2] in ("c ", "m ", "d ")] == [
        ["c", "20"], ["m", "19"], ["m", "18"], ["d", "10"]]
    facts = json.loads(tool("rollback", NAME, "--list", "--json").stdout)
    assert [row["step"] for row in facts["versions"]] == [20, 19, 18] and facts["owned"]
    assert facts["generations"][0]["updates"] == 9 or facts["generations"][0]["updates"] == 10
    would = tool("rollback", NAME, "--step", "12", "--dry-run")
    assert would.returncode == 0 and "would go back from step 20 to step 10" in would.stdout and "on disk" in would.stdout
    done = json.loads(tool("rollback", NAME, "--step", "12", "--json").stdout)
    assert (done["step"], done["source"], done["step_before"], done["dry_run"]) == (10, "disk", 20, False)
    assert "already" in tool("rollback", NAME, "--step", "12").stdout
    assert tool("rollback", NAME, "--step", "2").returncode == 66
    assert tool("rollback", NAME).returncode == 64
    assert tool("checkpoint", NAME, "--unkeep").returncode == 64


def test_without_a_state_directory_there_is_memory(client, name):
    with client.trainer(name, weights(0), profiles={"ema": "constant:decay=0.5"}) as trainer:
        for step in range(1, 6):
            trainer.push(step, weights(step), wait=True)
        history = client.history(name)
        assert [row["step"] for row in history["versions"]] == [5, 4, 3]
        assert client.rollback(name, 3).source == "memory"
        assert client.history(name)["versions"][0]["state"] == "current"
