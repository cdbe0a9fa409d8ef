"""The daemon dies, the process forks, the interpreter ends: training goes on."""

import math
import multiprocessing
import os
import signal
import time
import warnings

import numpy as np
import pytest
import torch
from models import WithBuffers, train_step

import emad.torch


@pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])
def test_a_killed_daemon_is_one_warning_and_averaging_resumes(own_daemon, name, asynchronous):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = WithBuffers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ema = emad.torch.ModelEMA(
        model, optimizer=optimizer if asynchronous else None, name=name, url=own_daemon.url, timeout=5
    )
    with ema:

        def train(steps):
            for _ in range(steps):
                train_step(model, optimizer, generator)
                ema.update(model)
            ema.fence()

        train(5)
        assert ema.ema.head.weight.shape == (4, 8)
        own_daemon.kill()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            began = time.monotonic()
            train(40)
            assert time.monotonic() - began < 20
        ours = [str(warning.message) for warning in caught if "emad" in str(warning.message)]
        assert len(ours) == 1 and "training goes on" in ours[0]
        with pytest.raises(emad.Error):
            ema.ema  # an average that cannot be had is not made up

        own_daemon.start()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                train(1)
                try:
                    averaged = ema.ema
                    break
                except emad.Error:
                    continue
            train(5)
            averaged = ema.ema
        ours = [str(warning.message) for warning in caught if "begins anew" in str(warning.message)]
        assert len(ours) == ema._trainer.info().restart_count <= 1
        with emad.Client(own_daemon.url) as client, client.view(name) as view:
            assert view.step == ema.updates
            assert torch.equal(view.tensor("head.weight"), averaged.head.weight)


def test_a_stopped_daemon_does_not_stop_training(own_daemon, name):
    model = WithBuffers()
    with emad.torch.ModelEMA(model, name=name, url=own_daemon.url, timeout=0.5) as ema:
        ema.update(model)
        own_daemon.signal(signal.SIGSTOP)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                began = time.monotonic()
                for _ in range(500):
                    ema.update(model)
                assert time.monotonic() - began < 10
            assert len(caught) <= 1
        finally:
            own_daemon.signal(signal.SIGCONT)
        assert ema.updates == 501


def test_updates_that_were_missed_are_counted_by_the_next(own_daemon, name):
    model = torch.nn.Linear(4, 2)
    start = model.weight.detach().clone()
    with emad.torch.ModelEMA(model, decay=0.999, tau=100, name=name, url=own_daemon.url, timeout=0.5) as ema:
        with torch.no_grad():
            model.weight.add_(1)
        ema.update(model)
        ema.flush()
        own_daemon.signal(signal.SIGSTOP)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for _ in range(300):
                    ema.update(model)
        finally:
            own_daemon.signal(signal.SIGCONT)
        ema._pause_until = 0.0  # as if it had passed
        ema.update(model)
        ema.flush(timeout=20)
        with ema._client.view(name) as view:
            assert view.updates == view.step == ema.updates == 302
            # The weights were the same all along, so that nothing at all was missed.
            kept = math.prod(0.999 * (1 - math.exp(-call / 100)) for call in range(1, 303))
            expected = kept * start + (1 - kept) * model.weight.detach()
            assert torch.allclose(view.tensor("weight"), expected, atol=1e-6)


def test_calls_fail_at_once_while_the_daemon_is_away_and_work_when_it_is_back(own_daemon, name):
    with emad.Client(own_daemon.url, timeout=5) as client:
        own_daemon.kill()
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises((emad.AwayError, emad.TimeoutError)):
                client.ping(timeout=1)
        assert time.monotonic() - began < 4
        own_daemon.start()
        deadline = time.monotonic() + 30
        while True:
            try:
                assert client.ping().pid == own_daemon.process.pid
                break
            except emad.AwayError:
                assert time.monotonic() < deadline
        with client.trainer(name, {"w": np.ones(2, np.float32)}):
            pass


def _in_child(client, trainer, view, connection):
    results = []
    push = lambda: trainer.push(9, {"w": np.ones(4)})  # noqa: E731
    for use in (client.ping, trainer.flush, view.check, push, client.list, emad.Client):
        try:
            use()
            results.append("worked")
        except emad.Error as error:
            results.append(type(error).__name__)
    trainer.close()
    view.close()
    client.close()
    connection.send(results)
    connection.close()


def test_handles_of_the_parent_refuse_in_a_forked_child(client, name):
    with client.trainer(name, {"w": np.zeros(4)}, profiles={"ema": "constant:decay=0.5"}) as trainer:
        with client.view(name) as view:
            context = multiprocessing.get_context("fork")
            here, there = context.Pipe(duplex=False)
            child = context.Process(target=_in_child, args=(client, trainer, view, there))
            child.start()
            assert here.recv() == ["ForkedError"] * 6
            child.join(30)
            assert child.exitcode == 0
            view.check()
            assert trainer.push(1, {"w": np.ones(4)}, wait=True).outcome == "applied"
            assert client.ping().pid


def test_a_forked_child_keeps_nothing_of_its_parent_alive(client, name):
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    trainer = client.trainer(name, {"w": np.zeros(4)}, profiles={"ema": "constant:decay=0.5"})
    view = client.view(name)
    child = context.Process(target=here.recv)  # as a data loader's worker that outlives an evaluation
    child.start()
    try:
        for handle, count in ((view, "leases"), (trainer, "ranks_attached")):
            handle.close()
            deadline = time.monotonic() + 20
            while client.show(name)[count] and time.monotonic() < deadline:
                pass
            assert client.show(name)[count] == 0
    finally:
        there.send(None)
        child.join(30)
    assert child.exitcode == 0


class _Images(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.full((1, 6, 6), float(index))


def test_data_loader_workers_forked_while_updates_are_under_way(client, name):
    model = WithBuffers()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with emad.torch.ModelEMA(model, optimizer=optimizer, name=name, client=client) as ema:
        for _ in range(2):
            loader = torch.utils.data.DataLoader(_Images(), 4, num_workers=2, multiprocessing_context="fork")
            for images in loader:
                optimizer.zero_grad()
                model(images).square().mean().backward()
                optimizer.step()
                ema.update(model)
        ema.flush()
        assert ema.updates == 32
        with client.view(name) as view:
            assert view.step == 32


EXIT_UNDER_LOAD = """
import sys, threading, torch, emad.torch
model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(8)])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
ema = emad.torch.ModelEMA(model, optimizer=optimizer, name=sys.argv[1])
client = emad.Client()
view = client.view(sys.argv[1])
array, tensor = view["0.weight"], view.tensor("1.weight")
def read():
    while True:
        try:
            with client.view(sys.argv[1]) as other:
                other["0.weight"].sum()
        except emad.RevokedError:
            pass
if sys.argv[2] == "thread":
    threading.Thread(target=read, daemon=True).start()
for _ in range(20):
    optimizer.step()
    ema.update(model)
print("done", flush=True)
if sys.argv[2] == "raise":
    raise RuntimeError("as planned")
"""


@pytest.mark.parametrize("how", ["plain", "thread", "raise"])
def test_the_interpreter_may_end_while_a_push_is_under_way(run_python, name, how):
    done = run_python(EXIT_UNDER_LOAD, name, how)
    assert done.stdout == "done\n", done.stderr
    assert done.returncode == (1 if how == "raise" else 0), done.stderr
    if how != "raise":
        assert done.stderr == ""


INTERRUPTED = """
import os, signal, sys, threading, time, numpy, emad
client = emad.Client()
trainer = client.trainer(sys.argv[1], {"w": numpy.ones(4)})
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
began = time.monotonic()
try:
    client.view(sys.argv[1], min_step=1000, timeout=60)
except KeyboardInterrupt:
    print("interrupted" if time.monotonic() - began < 5 else "late")
"""


def test_ctrl_c_ends_a_long_wait(run_python, name):
    done = run_python(INTERRUPTED, name)
    assert done.stdout == "interrupted\n", done.stderr


def test_a_killed_trainer_leaves_its_average(run_python, client, name):
    program = (
        "import os, signal, sys, numpy, emad\n"
        "trainer = emad.Client().trainer(sys.argv[1], {'w': numpy.zeros(4)}, profiles={'ema': 'constant:decay=0.5'})\n"
        "trainer.push(1, {'w': numpy.ones(4)}, wait=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run_python(program, name).returncode == -signal.SIGKILL
    with client.view(name) as view:
        assert (view["w"] == 0.5).all()
    with client.trainer(name, {"w": np.zeros(4)}, profiles={"ema": "constant:decay=0.5"}) as trainer:
        assert trainer.resumed and trainer.last_step == 1


def test_no_descriptors_or_mappings_are_left(daemon, name):
    def count():
        with open("/proc/self/maps") as maps:
            return len(os.listdir("/proc/self/fd")), sum("memfd:" in line for line in maps)

    def use(index):
        with emad.Client(daemon.url) as client:
            with client.trainer(f"{name}-{index % 2}", {"w": np.zeros(1000)}) as trainer:
                trainer.push(1 + index, {"w": np.ones(1000)}, wait=True)
                with client.view(trainer.model) as view:
                    view["w"].sum()

    for index in range(3):
        use(index)
    before = count()
    for index in range(3, 23):
        use(index)
    descriptors, mappings = count()
    assert descriptors <= before[0] + 2  # NNG closes the last connection a little later
    assert mappings == before[1]
