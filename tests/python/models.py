"""Small models, and the class whose average is to be met to the last bit."""

import copy
import math

import torch


class WithBuffers(torch.nn.Module):
    """Parameters, float buffers that the forward pass changes, an integer buffer, and one that is not kept."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, width, 3)
        self.norm = torch.nn.BatchNorm2d(width)
        self.head = torch.nn.Linear(width, 4)
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        self.names = ["a", "b"]

    def forward(self, images):
        return self.head(self.norm(self.conv(images)).relu().mean((2, 3)))


def train_step(model, optimizer, generator):
    images = torch.randn(4, 1, 6, 6, generator=generator)
    optimizer.zero_grad()
    model(images).square().sum().backward()
    optimizer.step()


class InProcess:
    """The ModelEMA of YOLOv5 and YOLOv7, in the process and in plain PyTorch."""

    def __init__(self, model, decay=0.9999, updates=0, tau=2000):
        self.ema = copy.deepcopy(model).eval()
        self.updates = updates
        self.decay = lambda count: decay * (1 - math.exp(-count / tau))
        for parameter in self.ema.parameters():
            parameter.requires_grad_(False)

    def update(self, model):
        with torch.no_grad():
            self.updates += 1
            decay = self.decay(self.updates)
            state = model.state_dict()
            for key, value in self.ema.state_dict().items():
                if value.dtype.is_floating_point:
                    value *= decay
                    value += (1.0 - decay) * state[key].detach()


def assert_same(found, expected):
    """Two states, bit for bit."""
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), f"{key}: {(found[key] - value).abs().max()}"
