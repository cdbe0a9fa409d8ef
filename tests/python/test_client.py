"""The connection, registrations and what a daemon tells about them."""

import gc
import os

import numpy as np
import pytest

import emad


def weights(value=0.0):
    return {"w": np.full((2, 3), value, np.float32), "b": np.full(3, value, np.float32)}


def test_ping_names_the_daemon(client, daemon):
    found = client.ping()
    assert found.agent.startswith("emad ")
    assert found.pid == daemon.process.pid
    assert 0 < found.round_trip < 10


def test_the_environment_names_the_daemon(daemon, monkeypatch):
    monkeypatch.setenv("EMAD_SOCKET", daemon.url)
    with emad.Client() as client:
        assert client.ping().pid == daemon.process.pid


def test_a_path_is_an_url(daemon):
    with emad.Client(daemon.url[len("ipc://") :]) as client:
        assert client.ping().pid == daemon.process.pid


def test_an_absent_daemon_is_a_connection_error_that_says_what_to_start(tmp_path):
    with pytest.raises(emad.AwayError, match="emad") as caught:
        emad.Client(f"ipc://{tmp_path}/nobody.sock", timeout=0.2)
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.name == "away"
    assert str(tmp_path) in str(caught.value)


def test_models_are_listed_shown_and_removed(client, name):
    with client.trainer(name, weights()) as trainer:
        trainer.push(1, weights(1), wait=True)
    assert name in str(client.list())
    assert name in str(client.show(name))
    assert isinstance(client.status(), dict)
    assert client.remove(name) > 0
    assert name not in str(client.list())
    with pytest.raises(emad.NoModelError, match=name) as caught:
        client.show(name)
    assert isinstance(caught.value, LookupError)


def test_a_model_of_the_same_manifest_is_continued(client, name):
    with client.trainer(name, weights(), profiles={"ema": "constant:decay=0.5"}, start_step=10) as trainer:
        assert not trainer.resumed
        assert trainer.push(11, weights(1), wait=True).outcome == "applied"
    with client.trainer(name, weights(9), profiles={"ema": "constant:decay=0.5"}) as trainer:
        assert trainer.resumed
        assert trainer.last_step == 11
    with client.view(name) as view:
        assert view.step == 11
        assert (view["w"] == 0.5).all()


def test_never_replaces_the_model(client, name):
    with client.trainer(name, weights(1)) as trainer:
        trainer.push(1, weights(1), wait=True)
    with client.trainer(name, weights(2), resume="never") as trainer:
        assert not trainer.resumed
        with client.view(name) as view:
            assert view.step == 0
            assert (view["w"] == 2).all()


def test_never_may_change_the_manifest(client, name):
    client.trainer(name, weights(1)).close()
    with client.trainer(name, {"other": np.ones(5, np.float64)}, resume="never"):
        with client.view(name) as view:
            assert list(view) == ["other"]


def test_must_demands_the_model(client, name):
    with pytest.raises(emad.NoModelError):
        client.trainer(name, weights(), resume="must")
    client.trainer(name, weights()).close()
    assert client.trainer(name, weights(), resume="must").resumed


def test_the_first_difference_of_a_manifest_is_named(client, name):
    client.trainer(name, weights()).close()
    with pytest.raises(emad.ManifestError, match=r"'w'.*\[2,4\].*\[2,3\]") as caught:
        client.trainer(name, {"w": np.zeros((2, 4), np.float32), "b": np.zeros(3, np.float32)})
    assert caught.value.code == -10005


def test_other_profiles_are_refused(client, name):
    client.trainer(name, weights(), profiles={"ema": "constant:decay=0.5"}).close()
    with pytest.raises(emad.ProfileError):
        client.trainer(name, weights(), profiles={"ema": "constant:decay=0.25"})


def test_a_wrong_schedule_names_the_right_ones(client, name):
    with pytest.raises(emad.ScheduleError, match="yolo"):
        client.trainer(name, weights(), profiles={"ema": "yollo"})


def test_a_wrong_name_is_a_value_error(client):
    with pytest.raises(emad.NameError) as caught:
        client.trainer("../escape", weights())
    assert isinstance(caught.value, ValueError)


def test_a_newer_registration_fences_the_older(client, daemon, name):
    older = client.trainer(name, weights())
    with emad.Client(daemon.url) as other, other.trainer(name, weights()) as newer:
        assert newer.epoch > older.epoch
        with pytest.raises(emad.FencedError):
            older.push(1, weights(1), wait=True)
        assert newer.push(1, weights(1), wait=True).outcome == "applied"


def test_several_profiles_are_kept_of_one_push(client, name):
    profiles = {"fast": "constant:decay=0.5", "slow": "constant:decay=0.75"}
    with client.trainer(name, weights(), profiles=profiles) as trainer:
        trainer.push(1, weights(1), wait=True)
    for profile, value in (("fast", 0.5), ("slow", 0.25)):
        with client.view(name, profile) as view:
            assert (view["w"] == value).all()
    with pytest.raises(emad.NoProfileError):
        client.view(name, "none")


def test_attributes_travel_with_the_averages(client, name):
    with client.trainer(name, weights(), attributes={"names": ["é", "b"], "nc": 2}) as trainer:
        with client.view(name) as view:
            assert view.attributes == {"names": ["é", "b"], "nc": 2}
        trainer.set_attributes({"nc": 3})
        trainer.push(1, weights(1), wait=True)
        with client.view(name) as view:
            assert view.attributes == {"nc": 3}


def test_export_writes_a_safetensors_file(client, name, tmp_path):
    with client.trainer(name, weights(), profiles={"ema": "constant:decay=0.5"}, start_step=2) as trainer:
        trainer.push(3, weights(1), wait=True)
    seen = []
    written = client.export(name, "ema", tmp_path / "ema.safetensors", progress=lambda *now: seen.append(now))
    assert written.step == 3
    assert written.bytes == os.path.getsize(tmp_path / "ema.safetensors")
    assert os.listdir(tmp_path) == ["ema.safetensors"]
    safetensors = pytest.importorskip("safetensors.numpy")
    found = safetensors.load_file(str(tmp_path / "ema.safetensors"))
    assert set(found) == {"w", "b"}
    assert (found["w"] == 1 - 0.5 ** 3).all()  # it stands for three calls


def test_what_a_progress_function_raises_stops_the_export(client, name, tmp_path):
    path = tmp_path / "ema.safetensors"
    path.write_bytes(b"before")
    client.trainer(name, weights()).close()

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.export(name, None, path, progress=interrupt)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["ema.safetensors"]


def test_an_export_that_cannot_be_written_is_an_os_error(client, name, tmp_path):
    client.trainer(name, weights()).close()
    with pytest.raises(OSError) as caught:
        client.export(name, None, tmp_path / "none" / "ema.safetensors")
    assert isinstance(caught.value, emad.Error)
    assert caught.value.errno == 2


def test_closing_a_client_closes_what_it_opened(daemon, name):
    client = emad.Client(daemon.url)
    trainer = client.trainer(name, weights())
    view = client.view(name)
    client.close()
    for use in (client.ping, trainer.info, view.check, lambda: trainer.push(1, weights())):
        with pytest.raises(emad.ClosedError):
            use()
    trainer.close()
    view.close()
    client.close()


def test_handles_may_be_dropped_in_any_order(daemon, name):
    client = emad.Client(daemon.url)
    trainer = client.trainer(name, weights())
    view = client.view(name)
    array = view["w"]
    del client
    gc.collect()
    assert trainer.push(1, weights(1), wait=True).outcome == "applied"
    del trainer
    gc.collect()
    view.check()
    del view
    gc.collect()
    assert array.shape == (2, 3)
