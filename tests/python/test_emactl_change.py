"""What emactl changes at the daemon: profiles while training runs, and averages that are imported from files."""

import json
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch

import emad

safetensors_numpy = pytest.importorskip("safetensors.numpy")

USAGE, DATA, NO_INPUT, UNAVAILABLE = 64, 65, 66, 69

START = {"body.w": np.zeros(4, np.float32), "head.w": np.zeros(4, np.float32)}


def state(value):
    return {key: np.full_like(array, value) for key, array in START.items()}


@pytest.fixture
def run(emactl, daemon):
    """Runs the tool against the daemon, and returns what it printed and its exit code."""

    def run_tool(*arguments):
        return subprocess.run(
            [emactl, *map(str, arguments)],
            env={**os.environ, "EMAD_SOCKET": daemon.url},
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    return run_tool


@pytest.fixture
def trainer(client, name):
    with client.trainer(name, START, profiles={"ema": "constant:decay=0.5"}) as opened:
        opened.push(1, state(1), wait=True)
        yield opened


def average(client, name, profile=None, key="body.w"):
    with client.view(name, profile) as view:
        return float(view[key][0])


# profile


def test_profile_set_adds_and_changes(run, client, name, trainer):
    done = run("profile", "set", name, "ema=constant:decay=0.75;freeze=head.*", "slow=constant:decay=0.9")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["ema: 1 averaged, 1 frozen, 1 by freeze=head.*", "slow: 2 averaged"]
    trainer.push(2, state(1), wait=True)
    assert average(client, name, "ema") == 0.625
    assert average(client, name, "ema", "head.w") == 0.5
    assert average(client, name, "slow") == 1


def test_profile_remove_stops_one(run, client, name, trainer):
    client.set_profiles(name, {"slow": "swa"})
    done = run("profile", "remove", name, "ema", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"model": name, "report": "slow: 2 averaged"}
    last = run("profile", "remove", name, "slow")
    assert (last.returncode, last.stdout) == (DATA, "")
    assert "only profile" in last.stderr


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        (["ste", "MODEL", "ema=yolo"], USAGE, "did you mean 'set'?"),
        (["frobnicate", "MODEL", "ema=yolo"], USAGE, "set and remove"),
        (["set", "MODEL"], USAGE, "profile needs set|remove MODEL SPEC"),
        (["remove", "MODEL", "a", "b"], USAGE, "one profile at a time"),
        (["set", "MODEL", "ema=yoolo"], DATA, "yolo"),
        (["set", "MODEL", "ema=yolo;dropp=*"], DATA, "'drop'"),
        (["remove", "MODEL", "other"], NO_INPUT, "other"),
        (["set", "nobody", "ema=yolo"], NO_INPUT, "nobody"),
    ],
)
def test_profile_mistakes(run, client, name, trainer, arguments, status, said):
    done = run("profile", *(name if argument == "MODEL" else argument for argument in arguments))
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    trainer.push(2, state(1), wait=True)
    assert average(client, name) == 0.75


def test_show_tells_what_was_changed_and_how_it_is_guarded(run, client, name):
    choices = {"guards": "nonfinite=skip-tensor,loss_max=4", "stride": 10, "policy": "coalesce"}
    with client.trainer(name, START, profiles={"ema": "constant:decay=0.5;freeze=head.*"}, **choices) as trainer:
        trainer.push(10, state(1), wait=True, metadata={"epoch": 3})
        client.set_profiles(name, {"ema": "constant:decay=0.75;freeze=head.*"})
        trainer.push(40, state(1), wait=True, metadata={"epoch": 4})
        shown = run("show", name)
        assert shown.returncode == 0
        lines = shown.stdout.splitlines()
        facts = {line[:14].strip(): line[14:].strip() for line in lines[: lines.index("")]}
        assert facts["guards"] == choices["guards"]
        assert facts["stride"] == "10"
        assert facts["policy"] == "coalesce"
        assert facts["metadata"] == "epoch=4"
        assert "COALESCED" in shown.stdout
        assert "ema=constant:decay=0.75;freeze=head.*" in shown.stdout
        (change,) = [line for line in lines if line.startswith("ema ") and " schedule " in line]
        assert "ema=constant:decay=0.5;freeze=head.*" in change


# import


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "ema.safetensors"
    safetensors_numpy.save_file(state(7), path)
    return path


def test_a_file_is_imported_and_training_goes_on_from_it(run, client, name, saved):
    done = run("import", name, saved, "--profile", "ema=yolo:decay=0.9,tau=5", "--updates", 40, "--step", 1000)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{name}: 2 tensors, 32 B, step 1000, 40 updates\nema: 2 averaged\n")
    assert "resume=adapt" in done.stderr
    with client.view(name) as view:
        assert (view.step, view.updates) == (1000, 40)
        assert view.history[-1]["change"] == "seeded"
        assert (view["body.w"] == 7).all()
    half = {key: torch.ones(4, dtype=torch.bfloat16) for key in START}
    with client.trainer(name, half, profiles={"ema": "yolo:decay=0.9,tau=5"}, resume="adapt") as trainer:
        assert trainer.resumed and trainer.last_step == 1000
        assert trainer.push(1001, half, wait=True).calls == 1
    decay = 0.9 * (1 - np.exp(-41 / 5))
    assert average(client, name) == pytest.approx(7 * decay + 1 - decay, rel=1e-6)


def test_what_emad_wrote_says_by_itself_what_it_is(run, client, name, tmp_path):
    rules = "constant:decay=0.5;freeze=head.*"
    attributes = {"nc": 80}
    with client.trainer(f"{name}/a", START, profiles={"fast": rules}, attributes=attributes) as trainer:
        for step in (5, 6, 8):
            trainer.push(step, state(step), wait=True)
    client.export(f"{name}/a", "fast", tmp_path / "fast.safetensors")
    done = run("import", f"{name}/b", tmp_path / "fast.safetensors", "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["profile"] == f"fast={rules}"
    assert (told["step"], told["updates"], told["tensors"], told["payload_bytes"]) == (8, 8, 2, 32)
    with client.view(f"{name}/a", "fast") as one, client.view(f"{name}/b", "fast") as other:
        assert (other.step, other.updates, other.attributes) == (one.step, one.updates, attributes)
        for key in START:
            assert (one[key] == other[key]).all()
    with client.trainer(f"{name}/b", START, profiles={"fast": rules}, resume="adapt") as trainer:
        trainer.push(9, state(0), wait=True)
    with client.trainer(f"{name}/a", START, profiles={"fast": rules}) as trainer:
        trainer.push(9, state(0), wait=True)
    assert average(client, f"{name}/a") == average(client, f"{name}/b")


def test_a_prefix_chooses_tensors(run, client, name, tmp_path):
    tensors = {"model_ema." + key: array for key, array in state(3).items()}
    safetensors_numpy.save_file({**tensors, "model.body.w": np.ones(4, np.float32)}, tmp_path / "both.safetensors")
    done = run("import", name, tmp_path / "both.safetensors", "--strip", "model_ema.")
    assert done.returncode == 0
    with client.view(name) as view:
        assert set(view) == set(START)
        assert (view["head.w"] == 3).all()
    none = run("import", f"{name}-2", tmp_path / "both.safetensors", "--strip", "ema_model.")
    assert none.returncode == DATA
    assert "none of its 3 tensors" in none.stderr
    with pytest.raises(emad.NoModelError):
        client.show(f"{name}-2")


def test_a_model_that_is_there_is_replaced_only_on_request(run, client, name, trainer, saved):
    refused = run("import", name, saved, "--json")
    assert (refused.returncode, refused.stdout) == (DATA, "")
    assert json.loads(refused.stderr)["error"]["name"] == "exists"
    assert average(client, name) == 0.5
    assert run("import", name, saved, "--replace", "--quiet").stdout == ""
    assert average(client, name) == 7
    with pytest.raises(emad.FencedError):
        trainer.push(2, state(1))


@pytest.mark.parametrize("bad, said", [(np.nan, "1 NaN and 0 infinite"), (np.inf, "0 NaN and 1 infinite")])
def test_a_file_that_is_not_finite_is_refused_and_replaces_nothing(run, client, name, trainer, tmp_path, bad, said):
    path = tmp_path / "bad.safetensors"
    safetensors_numpy.save_file({"v": np.ones(2, np.float32), "w": np.array([1, bad], np.float32)}, path)
    done = run("import", name, path, "--replace")
    assert done.returncode == DATA
    assert "'w'" in done.stderr and said in done.stderr
    assert average(client, name) == 0.5


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_pickle_is_not_loaded_but_shown_the_way(run, client, name, tmp_path, kind):
    path = tmp_path / "model.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"w": 1}))
    else:
        torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=kind == "zip")
    done = run("import", name, path)
    assert done.returncode == DATA
    assert f"python3 -m emad.migrate {path} --model {name}" in done.stderr


def test_files_that_are_none(run, name, tmp_path, saved):
    assert run("import", name, tmp_path / "absent.safetensors").returncode == NO_INPUT
    (tmp_path / "short.safetensors").write_bytes(saved.read_bytes()[:-3])
    assert run("import", name, tmp_path / "short.safetensors").returncode == DATA
    safetensors_numpy.save_file({}, tmp_path / "empty.safetensors")
    empty = run("import", name, tmp_path / "empty.safetensors")
    assert empty.returncode == DATA and "no tensors" in empty.stderr
    assert run("import", name, saved, "--updates", "many").returncode == USAGE
    assert run("import", name, saved, "--profile", "ema=yoolo").returncode == DATA
    assert run("import", "a//b", saved).returncode == USAGE


def test_without_a_daemon(emactl, tmp_path, saved, name):
    environment = {**os.environ, "EMAD_SOCKET": f"ipc://{tmp_path}/nobody.sock"}
    for arguments in (["import", name, saved], ["profile", "set", name, "ema=yolo"]):
        done = subprocess.run([emactl, "-t", "0.2", *arguments], env=environment, capture_output=True, timeout=60)
        assert done.returncode == UNAVAILABLE
