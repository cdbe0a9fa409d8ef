"""Profiles: rules for single tensors, changing them while training runs, and models that have grown or shrunk."""

import threading

import numpy as np
import pytest
import torch
from conftest import DaemonProcess

import emad

START = {
    "backbone.weight": np.zeros(4, np.float32),
    "lora_a.weight": np.zeros(4, np.float32),
    "head.weight": np.zeros(4, np.float32),
    "norm.running_mean": np.zeros(4, np.float32),
    "norm.count": np.zeros((), np.int64),
}
BUFFERS = ["norm.running_mean", "norm.count"]


def state(value):
    return {key: np.full_like(array, value) for key, array in START.items()}


def first(view, key):
    return float(view[key].ravel()[0])


def average(client, name, profile=None, key="backbone.weight"):
    with client.view(name, profile) as view:
        return first(view, key)


def test_rules_say_what_becomes_of_single_tensors(client, name):
    rules = "constant:decay=0.5;copy=*.running_*;average@0.75=lora_*;freeze=head.*;drop=norm.count"
    with client.trainer(name, START, profiles={"ema": rules}, buffers=BUFFERS) as trainer:
        for said in ("2 averaged", "1 copied", "1 frozen", "1 dropped", "1 by copy=*.running_*"):
            assert said in trainer.report
        for step in (1, 2):
            trainer.push(step, state(1), wait=True)
        with client.view(name) as view:
            assert set(view) == {"backbone.weight", "lora_a.weight", "head.weight", "norm.running_mean"}
            assert first(view, "backbone.weight") == 0.75
            assert first(view, "lora_a.weight") == 1 - 0.75**2
            assert first(view, "head.weight") == 0
            assert first(view, "norm.running_mean") == 1
            assert view.image_metadata["emad.schedule"] == "constant:decay=0.5"
            assert view.image_metadata["emad.rules"] == rules.split(";", 1)[1]
        assert client.show(name)["profiles"][0]["specification"] == f"ema={rules}"


def test_the_first_rule_that_matches_wins_and_one_without_a_tensor_is_named(client, name):
    rules = "constant:decay=0.5;average=norm.running_*;drop=norm.*;copy=nothing.*"
    with client.trainer(name, START, profiles=[f"ema={rules}"], buffers=BUFFERS) as trainer:
        assert "NO TENSOR matches copy=nothing.*" in trainer.report
        trainer.push(1, state(1), wait=True)
        with client.view(name) as view:
            assert "norm.count" not in view
            assert first(view, "norm.running_mean") == 0.5


@pytest.mark.parametrize(
    "profile, error, said",
    [
        ({"ema": "yolo;average@2=*"}, emad.ScheduleError, "rule 1"),
        ({"ema": "yolo;copi=*"}, emad.ScheduleError, "copy"),
        ({"ema": "yolo;copy"}, emad.ScheduleError, "ACTION=PATTERN"),
        ({"ema": "yolo;freeze@0.5=*"}, emad.ScheduleError, "average"),
        ({"ema": "yolo;" + ";".join(["copy=x"] * 17)}, emad.LimitError, "16"),
    ],
)
def test_rules_that_are_none_are_explained(client, name, profile, error, said):
    with pytest.raises(error, match=said):
        client.trainer(name, START, profiles=profile)


def test_a_profile_changes_while_it_is_trained_and_goes_on_from_its_average(client, name):
    with client.trainer(name, START, profiles={"ema": "constant:decay=0.5"}, buffers=BUFFERS) as trainer:
        trainer.push(1, state(1), wait=True)
        report = client.set_profiles(name, {"ema": "constant:decay=0.75;freeze=head.*"})
        assert report.startswith("ema: 3 averaged, 1 copied, 1 frozen") and "1 by freeze=head.*" in report
        assert average(client, name) == 0.5
        trainer.push(2, state(1), wait=True)
        with client.view(name) as view:
            assert first(view, "backbone.weight") == 0.625
            assert first(view, "head.weight") == 0.5
            assert view.updates == 2
            (entry,) = view.history
            assert entry == {
                "step": 1,
                "updates": 1,
                "change": "schedule",
                "from": "ema=constant:decay=0.5",
                "to": "ema=constant:decay=0.75;freeze=head.*",
            }


def test_a_profile_is_added_and_starts_from_the_next_snapshot(client, name):
    with client.trainer(name, START, profiles={"ema": "constant:decay=0.5"}, buffers=BUFFERS) as trainer:
        trainer.push(1, state(1), wait=True)
        with client.view(name) as before:
            client.set_profiles(name, ["slow=constant:decay=0.75;drop=norm.*"])
            assert average(client, name, "ema") == 0.5
            trainer.push(2, state(3), wait=True)
            trainer.push(3, state(1), wait=True)
            assert first(before, "backbone.weight") == 0.5
            before.check()
        assert average(client, name, "ema") == ((0.5 + 3) / 2 + 1) / 2
        with client.view(name, "slow") as view:
            assert set(view) == {"backbone.weight", "lora_a.weight", "head.weight"}
            assert first(view, "backbone.weight") == 3 * 0.75 + 0.25
            assert view.updates == 1
            assert view.history[0]["change"] == "started"
        shown = client.show(name)
        assert [profile["name"] for profile in shown["profiles"]] == ["ema", "slow"]
        assert shown["profiles"][1]["history"] == view_history(client, name, "slow")


def view_history(client, name, profile):
    with client.view(name, profile) as view:
        return view.history


def test_a_profile_is_stopped_but_never_the_last(client, name):
    profiles = {"ema": "constant:decay=0.5", "slow": "constant:decay=0.75"}
    with client.trainer(name, START, profiles=profiles, buffers=BUFFERS) as trainer:
        trainer.push(1, state(1), wait=True)
        assert client.remove_profile(name, "ema").startswith("slow: ")
        trainer.push(2, state(1), wait=True)
        assert average(client, name) == 1 - 0.75**2
        with pytest.raises(emad.NoProfileError, match="ema"):
            client.view(name, "ema")
        with pytest.raises(emad.NoProfileError, match="ema"):
            client.remove_profile(name, "ema")
        with pytest.raises(emad.ProfileError, match="only profile"):
            client.remove_profile(name, "slow")


def test_mistakes_leave_the_profiles_as_they_are(client, name):
    with client.trainer(name, START, profiles={"ema": "constant:decay=0.5"}, buffers=BUFFERS) as trainer:
        trainer.push(1, state(1), wait=True)
        for profiles, error in (
            ({"ema": "constant:decay=2"}, emad.ScheduleError),
            ({"e/ma": "constant"}, emad.NameError),
            ({}, emad.ArgumentError),
            ({f"p{i}": "constant" for i in range(16)}, emad.LimitError),
            (["a=constant", "a=yolo"], emad.ProfileError),
        ):
            with pytest.raises(error):
                client.set_profiles(name, profiles)
        with pytest.raises(emad.NoModelError):
            client.set_profiles(f"{name}-other", {"ema": "yolo"})
        trainer.push(2, state(1), wait=True)
        assert average(client, name) == 0.75
        assert view_history(client, name, "ema") == []


def test_registrations_take_profiles_that_were_set_as_they_are(client, name):
    with client.trainer(name, START, profiles={"ema": "constant:decay=0.5"}, buffers=BUFFERS) as trainer:
        trainer.push(1, state(1), wait=True)
    with pytest.raises(emad.ProfileError, match="resume=adapt"):
        client.trainer(name, START, profiles={"ema": "constant:decay=0.9"}, buffers=BUFFERS)
    client.set_profiles(name, {"ema": "constant:decay=0.75"})
    with client.trainer(name, START, profiles={"ema": "constant:decay=0.5"}, buffers=BUFFERS) as trainer:
        trainer.push(2, state(1), wait=True)
    assert average(client, name) == 0.625


def test_profiles_change_while_many_snapshots_are_pushed_and_read(client, name):
    """Constant weights are a fixed point of every schedule: any mixture of slots or sources would show."""
    failures = []
    running = threading.Event()
    done = threading.Event()

    def train():
        try:
            with client.trainer(name, state(3), profiles={"ema": "constant:decay=0.5"}, buffers=BUFFERS) as trainer:
                running.set()
                step = 0
                while not done.is_set():
                    step += 1
                    trainer.push(step, state(3))
                trainer.flush()
        except Exception as error:
            failures.append(error)
            running.set()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        running.wait(30)
        for turn in range(30):
            client.set_profiles(name, {"more": f"constant:decay=0.{turn + 10}" + (";drop=head.*" if turn % 2 else "")})
            with client.view(name, "ema") as view:
                assert all(first(view, key) in (3, 0) for key in view)
                assert first(view, "backbone.weight") == 3
            if turn % 5 == 4:
                client.remove_profile(name, "more")
    finally:
        done.set()
        thread.join()
    assert not failures
    assert average(client, name, "ema") == 3


# resume="adapt"


def test_adapt_continues_what_both_have_and_tells_the_difference(client, name):
    with client.trainer(name, START, profiles={"ema": "constant:decay=0.5"}, buffers=BUFFERS) as trainer:
        trainer.push(1, state(1), wait=True)
    grown = {key: array for key, array in state(1).items() if not key.startswith("head")}
    grown["lora_a.weight"] = np.full(6, 1, np.float32)
    grown["neck.weight"] = np.full(2, 8, np.float32)
    with pytest.raises(emad.ManifestError, match="resume=adapt"):
        client.trainer(name, grown, profiles={"ema": "constant:decay=0.5"}, buffers=BUFFERS)
    with client.trainer(
        name, grown, profiles={"ema": "constant:decay=0.75", "new": "swa"}, buffers=BUFFERS, resume="adapt"
    ) as trainer:
        assert trainer.resumed and trainer.last_step == 1
        for said in ("1 new ('neck.weight')", "1 gone ('head.weight')", "1 of another shape ('lora_a.weight')"):
            assert said in trainer.report
        assert average(client, name) == 0.5  # the old tensors, until the first new snapshot
        trainer.push(2, grown, wait=True)
        with client.view(name, "ema") as view:
            assert first(view, "backbone.weight") == 0.625
            assert first(view, "neck.weight") == 8
            assert view["lora_a.weight"].tolist() == [1] * 6
            assert "head.weight" not in view
            assert view.updates == 2
        with client.view(name, "new") as view:
            assert first(view, "backbone.weight") == 1


def test_adapt_takes_another_dtype(client, name):
    start = {"w": torch.zeros(4)}
    with client.trainer(name, start, profiles={"ema": "constant:decay=0.5"}) as trainer:
        trainer.push(1, {"w": torch.ones(4)}, wait=True)
    half = {"w": torch.ones(4, dtype=torch.bfloat16)}
    with client.trainer(name, half, profiles={"ema": "constant:decay=0.5"}, resume="adapt") as trainer:
        trainer.push(2, half, wait=True)
        with client.view(name) as view:
            assert view.tensor("w").dtype == torch.float32
            assert (view.tensor("w") == 0.75).all()


def test_adapt_takes_another_number_of_ranks(client, name):
    profiles = {"ema": "constant:decay=0.5"}
    with client.trainer(name, {"w": np.zeros(6, np.float32)}, profiles=profiles) as trainer:
        trainer.push(1, {"w": np.ones(6, np.float32)}, wait=True)
    ranks = [
        client.trainer(
            name,
            {"w": np.ones(3, np.float32)},
            profiles=profiles,
            rank=rank,
            world=2,
            pieces={"w": emad.Piece((6,), (3 * rank,))},
            resume="adapt",
        )
        for rank in range(2)
    ]
    for trainer in ranks:
        trainer.push(2, {"w": np.ones(3, np.float32)})
    for trainer in ranks:
        assert trainer.flush().step == 2
    with client.view(name) as view:
        assert view["w"].tolist() == [0.75] * 6
    for trainer in ranks:
        trainer.close()


def test_adapt_starts_a_model_that_is_not_there(client, name):
    with client.trainer(name, START, resume="adapt") as trainer:
        assert not trainer.resumed
        assert trainer.push(1, state(1), wait=True).outcome == "applied"


# begin, cadence, precision


def test_begin_and_cadence_are_keys_of_every_schedule(client, name):
    with client.trainer(
        name, START, profiles={"late": "constant:decay=0.5,begin=3", "rare": "constant:decay=0.5,cadence=2"}
    ) as trainer:
        for step in range(1, 6):
            trainer.push(step, state(step), wait=True)
            if step == 3:
                assert average(client, name, "late") == 3
    assert average(client, name, "late") == (3 / 2 + 4 / 2) / 2 + 5 / 2
    assert average(client, name, "rare") == (0 / 2 + 2 / 2) / 2 + 4 / 2


def test_what_a_trainer_leaves_open_the_daemons_settings_fill_in(tmp_path):
    process = DaemonProcess(tmp_path, "[model set/*]\nprofiles=slow=constant:decay=0.75\nstride=10\n")
    process.start()
    try:
        with emad.Client(process.url) as client:
            start = {"w": np.zeros(3, np.float32)}
            with client.trainer("set/net", start, profiles={}) as trainer:
                result = trainer.push(20, {"w": np.ones(3, np.float32)}, wait=True)
                assert (result.outcome, result.calls) == ("applied", 2)
            shown = client.show("set/net")
            assert [profile["specification"] for profile in shown["profiles"]] == ["slow=constant:decay=0.75"]
            with client.view("set/net", "slow") as view:
                assert view["w"].tolist() == [1 - 0.75**2] * 3
            with pytest.raises(emad.Error, match="profile"):
                client.trainer("other", start, profiles={})
    finally:
        assert process.stop() == 0
