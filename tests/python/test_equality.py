"""The average of emad.torch.ModelEMA is that of the class in PyTorch, bit for bit."""

import pytest
import torch
from models import InProcess, WithBuffers, assert_same, train_step

import emad.torch


@pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])
def test_a_thousand_updates_are_equal_to_the_last_bit(client, name, asynchronous):
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(7)
    model = WithBuffers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    reference = InProcess(model, decay=0.999, tau=100)
    ema = emad.torch.ModelEMA(
        model, 0.999, tau=100, optimizer=optimizer if asynchronous else None, name=name, client=client
    )
    with ema:
        for count in range(1, 1001):
            train_step(model, optimizer, generator)
            reference.update(model)
            ema.update(model)
            if count in (1, 2, 10, 500, 1000):
                assert_same(ema.ema.state_dict(), reference.ema.state_dict())
        assert ema.updates == reference.updates == 1000
    assert reference.ema.norm.num_batches_tracked == 0  # frozen at the start, as the original does


@pytest.mark.parametrize("decay, tau, updates", [(0.9999, 2000, 0), (0.5, 1, 0), (0.9, 30, 12345)])
def test_other_parameters_of_the_schedule(client, name, decay, tau, updates):
    torch.manual_seed(1)
    model = WithBuffers()
    reference = InProcess(model, decay, updates, tau)
    with emad.torch.ModelEMA(model, decay, updates, tau, name=name, client=client) as ema:
        for _ in range(50):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
            reference.update(model)
            ema.update(model)
        assert ema.updates == updates + 50
        assert_same(ema.ema.state_dict(), reference.ema.state_dict())


def test_double_precision(client, name):
    torch.manual_seed(3)
    model = WithBuffers().double()
    reference = InProcess(model, 0.99, 0, 10)
    with emad.torch.ModelEMA(model, 0.99, tau=10, name=name, client=client) as ema:
        for _ in range(100):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
            reference.update(model)
            ema.update(model)
        assert_same(ema.ema.state_dict(), reference.ema.state_dict())
