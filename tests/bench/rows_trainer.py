"""
What an average costs the trainer: the time for which it is blocked.

Asynchronous: the time inside ModelEMA.update(), and that of the fence before the optimizer's step, with matrix
products between them in place of a forward and backward pass, on all of PyTorch's threads. They last SPAN times as
long as a synchronous copy, which is little: on processors such models take seconds for a step. Two steps follow each
other as in a training, so that the daemon averages beside them. How much slower the products are for it, where there
is no processor left for the copy and the daemon, is a row of its own.

The peers are the loop of the YOLO class, and PyTorch's foreach functions in the fastest form there is, on the same
weights in the same round, after the daemon has finished.
"""

import copy
import statistics
import time
from typing import List, Tuple

import torch

import emad.torch
from stand import Daemon, Goal, Row, compared, convolutional, rounds, seconds_of, transformer

SPAN = 8
SPAN_SECONDS_MAX = 1.0
STEPS = 2
GROUP = "trainer"


class YoloEMA:
    """The averaging of YOLOv5's and YOLOv7's ModelEMA."""

    def __init__(self, model: torch.nn.Module):
        self.ema = copy.deepcopy(model)
        self.updates = 0

    def update(self, model: torch.nn.Module, decay: float) -> None:
        with torch.no_grad():
            self.updates += 1
            state = model.state_dict()
            for name, shadow in self.ema.state_dict().items():
                if shadow.dtype.is_floating_point:
                    shadow *= decay
                    shadow += (1.0 - decay) * state[name].detach()


class Foreach:
    """The same with PyTorch's foreach functions, in one call for all tensors or in two."""

    def __init__(self, model: torch.nn.Module, shadow: torch.nn.Module):
        pairs = zip(model.state_dict().values(), shadow.state_dict().values())
        self.pairs = [(value, average) for value, average in pairs if value.dtype.is_floating_point]
        self.values, self.shadows = ([pair[i] for pair in self.pairs] for i in (0, 1))

    def lerp(self, decay: float) -> None:
        torch._foreach_lerp_(self.shadows, self.values, 1.0 - decay)

    def multiply_add(self, decay: float) -> None:
        torch._foreach_mul_(self.shadows, decay)
        torch._foreach_add_(self.shadows, self.values, alpha=1.0 - decay)

    def seconds(self, decay: float) -> float:
        """Of the faster form."""
        with torch.no_grad():
            return min(seconds_of(lambda: self.lerp(decay)), seconds_of(lambda: self.multiply_add(decay)))


class Nudge(torch.optim.Optimizer):
    """Changes every weight a little, without gradients."""

    def __init__(self, model: torch.nn.Module):
        super().__init__(model.parameters(), {})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        torch._foreach_mul_([p for group in self.param_groups for p in group["params"]], 0.9999)


class Products:
    """Matrix products for a while."""

    def __init__(self) -> None:
        self.a, self.b, self.c = (torch.full((512, 512), 0.5) for _ in range(3))

    def rate(self, seconds: float) -> float:
        """Products a second."""
        begun = now = time.perf_counter()
        count = 0
        while now - begun < seconds:
            torch.mm(self.a, self.b, out=self.c)
            count += 1
            now = time.perf_counter()
        return count / (now - begun)


class Subject:
    """One model with everything that averages it."""

    def __init__(self, model: torch.nn.Module):
        self.model = model.eval()
        count = sum(parameter.numel() for parameter in model.parameters())
        self.label = f"{count / 1e6:.1f} M parameters, {len(model.state_dict())} tensors"
        self.yolo = YoloEMA(model)
        self.foreach = Foreach(model, self.yolo.ema)
        self.optimizer = Nudge(model)
        self.products = Products()


def synchronous(subject: Subject, daemon: Daemon, round_count: int) -> Row:
    """Of update() without an optimizer, which returns when the weights have been copied and accepted."""
    blocked, foreach = [], []
    with emad.torch.ModelEMA(subject.model, name="synchronous", client=daemon.client) as ema:
        daemon.wait_quiet()
        for _ in rounds(round_count + 1, 10):
            foreach.append(1e3 * subject.foreach.seconds(0.999))
            blocked.append(1e3 * seconds_of(lambda: ema.update(subject.model)))
            ema.flush(60)
            subject.optimizer.step()
    daemon.client.remove("synchronous")
    daemon.wait_quiet()
    return compared(GROUP, f"synchronous copy, {subject.label}", "ms", blocked[1:], "foreach", foreach[1:],
                    Goal(most=0.6))  # fmt: skip


def asynchronous(subject: Subject, daemon: Daemon, round_count: int, span: float, goal: Goal) -> List[Row]:
    yolo, foreach, alone, steps = [], [], [], []
    with emad.torch.ModelEMA(
        subject.model, name="asynchronous", optimizer=subject.optimizer, client=daemon.client
    ) as ema:
        daemon.wait_quiet()
        step_measure(subject, ema, span)
        for _ in rounds(round_count, 30):
            ema.flush(60)
            yolo += STEPS * [1e3 * seconds_of(lambda: subject.yolo.update(subject.model, 0.999))]
            foreach += STEPS * [1e3 * subject.foreach.seconds(0.999)]
            alone += STEPS * [subject.products.rate(span)]
            steps += [step_measure(subject, ema, span) for _ in range(STEPS)]
        ema.flush(60)
    daemon.client.remove("asynchronous")
    daemon.wait_quiet()
    updates, fences, rates = zip(*steps)
    blocked = [update + fence for update, fence in zip(updates, fences)]
    found = [
        compared(GROUP, f"update() and fence, {subject.label}", "ms", blocked, "foreach", foreach, goal),
        compared(GROUP, f"update() and fence, {subject.label}", "ms", blocked, "YOLO loop", yolo),
        compared(GROUP, f"forward and backward beside it, {subject.label}", "products/s", rates, "alone", alone),
    ]
    found[0].note = (
        f"update() {statistics.median(updates):.3g} ms, fence {statistics.median(fences):.3g} ms, "
        f"{span * 1e3:.0f} ms of forward and backward between them"
    )
    return found


def step_measure(subject: Subject, ema: emad.torch.ModelEMA, span: float) -> Tuple[float, float, float]:
    """One training step: milliseconds inside update() and in the fence, and the rate of what lay between."""
    update = 1e3 * seconds_of(lambda: ema.update(subject.model))
    rate = subject.products.rate(span)
    fence = 1e3 * seconds_of(ema.fence)
    subject.optimizer.step()
    return update, fence, rate


def rows(quick: bool) -> List[Row]:
    found = []
    models = [(convolutional, 12, Goal(most=1 / 20, text="1/20"))]
    if not quick:
        models.append((transformer, 9, Goal(most=1 / 100, text="1/100")))
    for make, round_count, goal in models:
        round_count = 2 if quick else round_count
        with Daemon() as daemon:
            subject = Subject(make())
            copied = synchronous(subject, daemon, round_count)
            span = min(SPAN * copied.value / 1e3, SPAN_SECONDS_MAX)
            found += asynchronous(subject, daemon, round_count, span, goal) + [copied]
            del subject
    return found
