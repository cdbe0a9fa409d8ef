"""Views: reading in place."""

import gc
import threading
import time
import warnings

import numpy as np
import pytest
import torch

import emad

HALF = {"ema": "constant:decay=0.5"}


@pytest.fixture
def trainer(client, name):
    with client.trainer(name, {"w": np.zeros((2, 3), np.float32), "n": np.zeros(2, np.int64)}, profiles=HALF) as opened:
        yield opened


def values(value):
    return {"w": np.full((2, 3), value, np.float32), "n": np.full(2, value, np.int64)}


def mapped_ranges():
    """The address ranges of this process that are private mappings of shared memory."""
    ranges = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.split()
            if "memfd:" in line and fields[1][3] == "p":
                ranges.append(tuple(int(end, 16) for end in fields[0].split("-")))
    return ranges


def test_facts_about_the_version(client, trainer, name):
    before = time.time()
    trainer.push(7, values(1), wait=True)
    with client.view(name, "ema") as view:
        assert (view.model, view.profile, view.step) == (name, "ema", 7)
        assert view.version == 2
        assert before - 1 < view.published < time.time() + 1
        assert len(view) == 2
        assert set(view) == {"w", "n"}
        assert "w" in view and "x" not in view
        assert view.image_metadata["format"] == "pt"
        assert view.image_metadata["emad.model"] == name
        with pytest.raises(KeyError, match="x"):
            view["x"]


def test_arrays_and_tensors_lie_in_the_shared_memory(client, trainer, name):
    with client.view(name) as view:
        array = view["w"]
        tensors = view.state_dict()
        ranges = mapped_ranges()
        for address in (array.__array_interface__["data"][0], tensors["w"].data_ptr(), tensors["n"].data_ptr()):
            assert any(begin <= address < end for begin, end in ranges)
        assert array.__array_interface__["data"][0] == tensors["w"].data_ptr()


def test_arrays_are_read_only(client, trainer, name):
    with client.view(name) as view:
        with pytest.raises(ValueError):
            view["w"][0, 0] = 1
        with pytest.raises(ValueError):
            view["w"].flags.writeable = True


def test_a_write_into_a_tensor_stays_in_this_process(client, trainer, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with client.view(name) as view:
            view.tensor("w").fill_(9)
            with client.view(name) as other:
                assert (other["w"] == 0).all()


def test_a_version_stays_as_it_is_while_others_come(client, trainer, name):
    with client.view(name) as view:
        for step in range(1, 3):
            trainer.push(step, values(step), wait=True)
        assert (view["w"] == 0).all()
        view.check()
        with client.view(name) as newer:
            assert newer.version > view.version


def test_arrays_outlive_view_and_client(daemon, name):
    client = emad.Client(daemon.url)
    with client.trainer(name, {"w": torch.full((1 << 16,), 3.0)}):
        view = client.view(name)
        array, tensor = view["w"], view.tensor("w")
    view.close()
    client.close()
    del view, client
    gc.collect()
    assert array.sum() == 3.0 * (1 << 16)
    assert tensor.sum() == 3.0 * (1 << 16)
    with emad.Client(daemon.url) as other:
        other.remove(name)
    assert np.isfinite(array).all() and tensor.shape == (1 << 16,)


def test_a_closed_view_gives_nothing(client, trainer, name):
    view = client.view(name)
    view.close()
    for use in (view.check, lambda: view["w"], view.state_dict):
        with pytest.raises(emad.ClosedError):
            use()


def test_a_model_without_a_version(client, name):
    with pytest.raises(emad.NoModelError):
        client.view(name)
    half = {"w": ((4,), (0,))}
    with client.trainer(name, {"w": np.zeros(2, np.float32)}, pieces=half, rank=0, world=2):
        with pytest.raises((emad.NoVersionError, emad.TimeoutError)):
            client.view(name, timeout=0.3)


def test_min_step_waits_for_the_version(client, trainer, name):
    pushing = threading.Timer(0.5, lambda: trainer.push(4, values(1)))
    pushing.start()
    with client.view(name, min_step=4, timeout=20) as view:
        assert view.step == 4
    pushing.join()


def test_min_step_gives_up_and_says_which_step_there_is(client, trainer, name):
    trainer.push(3, values(1), wait=True)
    began = time.monotonic()
    with pytest.raises(emad.TimeoutError, match="3") as caught:
        client.view(name, min_step=400, timeout=0.7)
    assert isinstance(caught.value, TimeoutError)
    assert 0.6 < time.monotonic() - began < 5


def test_waiting_can_be_interrupted(client, trainer, name):
    import _thread

    interrupting = threading.Timer(0.3, _thread.interrupt_main)
    interrupting.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        client.view(name, min_step=400, timeout=30)
    assert time.monotonic() - began < 5
    interrupting.join()


def test_types_that_numpy_lacks_are_served_by_torch(client, name):
    start = {"w": torch.zeros(4, dtype=torch.bfloat16), "kept": torch.ones(4, dtype=torch.bfloat16)}
    with client.trainer(name, start, profiles={"ema": "k-diffusion"}, buffers=["kept"]):
        with client.view(name) as view:
            assert view.tensor("kept").dtype == torch.bfloat16
            assert (view.state_dict()["kept"] == 1).all()
            with pytest.raises(TypeError, match="kept.*BF16.*state_dict"):
                view["kept"]


def test_a_view_is_one_whole_version_while_updates_go_on(client, name):
    """Every element of every tensor carries the step: a mixture would show."""
    count = 1 << 16
    with client.trainer(name, {"a": np.zeros(count), "b": np.zeros(count)}, profiles={"ema": "constant:decay=0"}) as t:
        stop = threading.Event()

        def push():
            step = 0
            while not stop.is_set():
                step += 1
                t.push(step, {"a": np.full(count, float(step)), "b": np.full(count, float(step))})

        pushing = threading.Thread(target=push)
        pushing.start()
        try:
            steps = set()
            for _ in range(300):
                try:
                    with client.view(name) as view:
                        a, b = view["a"].copy(), view["b"].copy()
                        view.check()
                except emad.RevokedError:
                    continue
                assert (a == view.step).all() and (b == view.step).all()
                steps.add(view.step)
        finally:
            stop.set()
            pushing.join()
        assert len(steps) > 3


def test_a_revoked_view_says_so_and_never_crashes(own_daemon, name):
    """Views hold all versions but one; the daemon waits its guaranteed time, then takes the oldest back."""
    value = np.zeros(1 << 16)
    with emad.Client(own_daemon.url) as client:
        with client.trainer(name, {"w": value}, profiles={"ema": "constant:decay=0"}) as trainer:
            oldest = client.view(name)
            array, tensor = oldest["w"], oldest.tensor("w")
            held = []
            for step in range(1, 8):
                trainer.push(step, {"w": value + step}, wait=True)
                held.append(client.view(name))
            with pytest.raises(emad.RevokedError, match="1"):
                oldest.check()
            array.sum(), tensor.sum()  # whatever it holds by now
            with pytest.raises(emad.RevokedError):
                with oldest:
                    oldest["w"]
            held[-1].check()
            assert (held[-1]["w"] == 7).all()


def test_leaving_the_block_checks_unless_you_did(own_daemon, name):
    value = np.zeros(8)
    with emad.Client(own_daemon.url) as client:
        with client.trainer(name, {"w": value}, profiles={"ema": "constant:decay=0"}) as trainer:

            def revoke(view):
                held = [view]
                while not view._library.emad_view_check(view._handle):  # view.check() would count as yours
                    trainer.push(held[-1].step + 1, {"w": value}, wait=True)
                    held.append(client.view(name))

            with pytest.raises(emad.RevokedError):
                with client.view(name) as view:
                    view["w"].sum()
                    revoke(view)
            with client.view(name) as view:
                view["w"].sum()
                view.check()
                revoke(view)  # nothing was read since
            with pytest.raises(ZeroDivisionError):
                with client.view(name) as view:
                    revoke(view)
                    1 / 0


def test_a_wait_for_the_application_ends_in_time(own_daemon, name, tmp_path):
    value = np.zeros(8)
    with emad.Client(own_daemon.url) as client, client.trainer(name, {"w": value}) as trainer:
        held = [client.view(name)]
        with pytest.raises(emad.TimeoutError, match="accepted"):
            for step in range(1, 8):
                trainer.push(step, {"w": value}, wait=True, timeout=0.02)
                held.append(client.view(name))
        trainer.flush()
