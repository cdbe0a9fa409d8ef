"""Long random histories of a model, each step of them compared with a small model of the daemon in NumPy.

The model knows the formulas of a few schedules and these rules: a push stands for the calls since the newest averaged
step, a refused one for nothing; a new profile or tensor starts from the next snapshot; a changed profile goes on from
its values and its count, also one that is stopped and set again before anything was pushed; a seed replaces one profile;
going back with rewind=continue keeps everything; of a model that has changed the tensors of the same name and shape go
on.
"""

import math

import numpy as np
import pytest

TENSORS = ("body.w", "head.w", "norm.w")
ACTIONS = ("average", "average", "copy", "freeze", "drop")

# Specifications with what they do at call n.
SCHEDULES = (
    ("constant:decay=0.75", lambda n: 0.75),
    ("constant:decay=0.5", lambda n: 0.5),
    ("yolo:decay=0.9,tau=10", lambda n: 0.9 * (1 - math.exp(-n / 10))),
    ("torch-ema:decay=0.8", lambda n: min(0.8, (1 + n) / (10 + n))),
    ("diffusers:decay=0.7", lambda n: 0.0 if n <= 1 else min(n / (9 + n), 0.7)),
    ("swa", lambda n: (n - 1) / n),
    ("linear:start=0.3,end=0.8,total=20", lambda n: 0.8 - 0.5 * (1 - min(n - 1, 20) / 20)),
)


class Profile:
    """One average, by the book."""

    def __init__(self):
        self.schedule = SCHEDULES[0]
        self.rules = {}
        self.calls = 0
        self.has_started = False
        self.values = {}

    def change(self, random):
        self.schedule = SCHEDULES[random.integers(len(SCHEDULES))]
        self.rules = {tensor: ACTIONS[random.integers(len(ACTIONS))] for tensor in TENSORS}
        self.rules[TENSORS[random.integers(len(TENSORS))]] = "average"  # something must be held

    def specification(self):
        rules = "".join(f";{action}={tensor}" for tensor, action in self.rules.items())
        return self.schedule[0] + rules

    def held(self, weights):
        return [tensor for tensor in weights if self.rules.get(tensor) != "drop"]

    def goes_on(self, tensor, weights):
        return tensor in self.values and self.values[tensor].shape == weights[tensor].shape

    def reads(self, tensor, weights):
        """Whether the next snapshot's values of a tensor get into it."""
        action = self.rules.get(tensor, "average")
        return action in ("average", "copy") or (action == "freeze" and not self.goes_on(tensor, weights))

    def push(self, weights, calls):
        decay = 1.0
        if self.has_started:
            decay = math.prod(self.schedule[1](self.calls + call) for call in range(1, calls + 1))
            self.calls += calls
        self.has_started = True
        before, self.values = self.values, {}
        for tensor in self.held(weights):
            action = self.rules.get(tensor, "average")
            old = before.get(tensor)
            if old is None or old.shape != weights[tensor].shape or action == "copy":
                self.values[tensor] = weights[tensor]
            else:
                self.values[tensor] = old if action == "freeze" else decay * old + (1 - decay) * weights[tensor]

    def seed(self, weights, updates):
        self.calls = updates
        self.has_started = True
        self.values = {tensor: weights[tensor] for tensor in self.held(weights)}


class Walk:
    def __init__(self, client, name, seed):
        self.client, self.name = client, name
        self.random = np.random.default_rng(seed)
        self.profiles = {"ema": Profile()}
        self.removed = {}  # since the newest version, which still holds them
        self.step = int(self.random.integers(100))
        self.stride = int(self.random.choice([1, 1, 3]))
        self.widths = dict.fromkeys(TENSORS, 7)
        self.is_settled = True  # everything that was changed has seen a snapshot
        weights = self.weights()
        self.trainer = client.trainer(
            name, weights, profiles=self.specifications(), start_step=self.step, stride=self.stride
        )
        self.profiles["ema"].push(weights, 0)

    def specifications(self):
        return {name: profile.specification() for name, profile in self.profiles.items()}

    def weights(self):
        return {tensor: self.random.normal(size=width) for tensor, width in self.widths.items()}

    def push(self):
        calls = int(self.random.integers(1, 4))
        self.step += calls * self.stride
        weights = self.weights()
        result = self.trainer.push(self.step, weights, wait=True)
        assert (result.outcome, result.calls) == ("applied", calls)
        for profile in self.profiles.values():
            profile.push(weights, calls)
        self.is_settled = True
        self.removed = {}

    def push_nothing_finite(self):
        weights = self.weights()
        weights[TENSORS[1]][3] = np.nan
        if any(profile.reads(TENSORS[1], weights) for profile in self.profiles.values()):
            assert self.trainer.push(self.step + self.stride, weights, wait=True).outcome == "nonfinite"

    def push_an_old_step(self):
        assert self.trainer.push(self.step, self.weights(), wait=True).outcome == "duplicate"

    def change(self):
        name = str(self.random.choice(["ema", "slow", "third"]))
        profile = self.profiles.setdefault(name, self.removed.pop(name, None) or Profile())
        profile.change(self.random)
        self.client.set_profiles(self.name, {name: profile.specification()})
        self.is_settled = False

    def remove(self):
        if len(self.profiles) == 1:
            return
        name = list(self.profiles)[self.random.integers(len(self.profiles))]
        self.removed[name] = self.profiles.pop(name)
        self.client.remove_profile(self.name, name)

    def seed(self):
        if not self.is_settled:
            return
        name = list(self.profiles)[self.random.integers(len(self.profiles))]
        weights, updates = self.weights(), int(self.random.integers(1, 50))
        self.trainer.seed(name, weights, updates=updates)
        self.profiles[name].seed(weights, updates)
        self.removed = {}

    def register_again(self):
        back = int(self.random.integers(0, 3)) * self.stride
        self.step -= min(back, self.step - self.step % self.stride)
        self.trainer.close()
        self.trainer = self.client.trainer(
            self.name,
            self.weights(),
            profiles=self.specifications(),
            start_step=self.step,
            stride=self.stride,
            rewind="continue",
            resume="adapt",
        )
        assert self.trainer.resumed and self.trainer.last_step == self.step

    def adapt(self):
        for tensor in TENSORS:
            if self.random.random() < 0.3:
                self.widths[tensor] = 12 - self.widths[tensor]
        if self.widths.pop("more.w", None) is None:
            self.widths["more.w"] = 4
        self.trainer.close()
        self.trainer = self.client.trainer(
            self.name, self.weights(), profiles=self.specifications(), stride=self.stride, resume="adapt"
        )
        self.is_settled = False

    def check(self):
        for name, profile in self.profiles.items():
            if not (self.is_settled and profile.has_started):
                continue
            with self.client.view(self.name, name) as view:
                assert view.updates == profile.calls, name
                assert set(view) == set(profile.values), name
                for tensor, expected in profile.values.items():
                    np.testing.assert_allclose(view[tensor], expected, rtol=0, atol=1e-12, err_msg=f"{name}: {tensor}")


@pytest.mark.parametrize("seed", range(12))
def test_a_walk(client, name, seed):
    walk = Walk(client, name, seed)
    rare = [walk.remove, walk.seed, walk.push_nothing_finite, walk.push_an_old_step, walk.register_again, walk.adapt]
    moves = [walk.push] * 8 + [walk.change] * 3 + rare
    for _ in range(80):
        move = moves[walk.random.integers(len(moves))]
        move()
        walk.check()
    walk.trainer.close()
