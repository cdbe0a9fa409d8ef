"""Trainings of several processes, as torch.distributed starts them."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import PACKAGE

import emad

WORLD = 2
STEPS = 6

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not getattr(torch.distributed, "is_gloo_available", lambda: True)(),
    reason="this torch has no gloo",
)

# What all of them do first. They differ in the data, so in their gradients, and not in the weights.
BEGIN = """
import os, sys, warnings
import torch
import torch.distributed as dist
import emad, emad.torch

NAME = sys.argv[1]
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = torch.nn.Linear(6, 4).double()
generator = torch.Generator().manual_seed(1 + rank)
opt = torch.optim.SGD(model.parameters(), lr=0.1)
"""

REPLICATED = BEGIN + """
model = torch.nn.parallel.DistributedDataParallel(model)
if rank > 0:
    try:
        emad.torch.ModelEMA(model, name=NAME)
    except ValueError as error:
        assert f"rank {rank}" in str(error) and "rank 0" in str(error), error
    else:
        raise SystemExit("a second one was not refused")
ema = emad.torch.ModelEMA(model, optimizer=opt, name=NAME, schedule="constant:decay=0.75") if rank == 0 else None
expected = {key: value.clone() for key, value in model.module.state_dict().items()}
for step in range(int(sys.argv[2])):
    opt.zero_grad()
    model(torch.randn(8, 6, generator=generator, dtype=torch.float64)).square().mean().backward()
    opt.step()
    if ema:
        ema.update(model)
    for key, value in model.module.state_dict().items():
        expected[key] = expected[key] * 0.75 + value * 0.25
if ema:
    for key, value in ema.ema.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-14, atol=1e-15)
    ema.close()
dist.barrier()
dist.destroy_process_group()
"""

# Each holds some rows; the daemon puts the model together.
SHARDED = BEGIN + """
weight = model.weight.detach()
rows = weight.shape[0] // world
own = {
    "weight": weight[rank * rows : (rank + 1) * rows].clone(),
    "bias": torch.ones(3 if rank == 1 else 0, dtype=torch.float64),
}
pieces = {"weight": emad.Piece(tuple(weight.shape), (rank * rows, 0)), "bias": emad.Piece((3,), (0,))}
with emad.Client() as client:
    trainer = client.trainer(NAME, own, profiles={"ema": "constant:decay=0.5"}, rank=rank, world=world, pieces=pieces)
    for step in range(1, int(sys.argv[2]) + 1):
        own["weight"] += 1
        trainer.push(step, own)
    trainer.flush()
    trainer.close()
dist.barrier()
dist.destroy_process_group()
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def launch(program, daemon, name):
    """All processes, with what torchrun would tell them. What they said, where one fails."""
    environment = {
        **os.environ, "EMAD_SOCKET": daemon.url, "PYTHONPATH": str(PACKAGE),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(WORLD), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, name, str(STEPS)], env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(WORLD)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD, "\n".join(said)


def test_the_first_of_several_replicas_averages_them(daemon, name):
    launch(REPLICATED, daemon, name)
    with emad.Client(daemon.url) as client, client.view(name) as view:
        assert view.step == STEPS


def test_shards_of_several_processes_make_one_average(daemon, name):
    launch(SHARDED, daemon, name)
    torch.manual_seed(0)
    values = torch.nn.Linear(6, 4).double().weight.detach().numpy()
    expected = values.copy()
    for _ in range(STEPS):
        values = values + 1
        expected = expected + (values - expected) * 0.5
    with emad.Client(daemon.url) as client, client.view(name) as view:
        assert view.step == STEPS
        np.testing.assert_allclose(view["weight"], expected, rtol=1e-14)
        assert (view["bias"] == 1).all() and view["bias"].shape == (3,)
