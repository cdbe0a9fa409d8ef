"""Optimizers: a call before every step, which is when weights change."""

from __future__ import annotations

import types
import weakref
from typing import Any, Callable, List


def call_before_steps(optimizer: Any, call: Callable[[], None]) -> List[Callable[[], None]]:
    """Makes one optimizer, or each of several, call before it changes weights. Returns what undoes it."""
    if optimizer is None:
        return []
    optimizers = [optimizer] if hasattr(optimizer, "step") else list(optimizer)
    for one in optimizers:
        if not callable(getattr(one, "step", None)):
            raise TypeError(f"optimizer is a {type(one).__qualname__}; an object with a step() method is accepted")
    return [_call_before(one, call) for one in optimizers]


def _call_before(optimizer: Any, call: Callable[[], None]) -> Callable[[], None]:
    # Torch calls the hooks of what its own constructor has made. Wrappers that derive from Optimizer to pass for one
    # (accelerate's) leave that constructor out, and have nothing to keep hooks in.
    if hasattr(optimizer, "_optimizer_step_pre_hooks"):

        def hook(*_: Any) -> None:  # optimizer, arguments, options; what it returned would replace the arguments
            call()

        return optimizer.register_step_pre_hook(hook).remove
    # Those wrappers, and torch before 2.0: wrap step, as a bound method because learning rate schedulers take it apart.
    inner = optimizer.step

    def step(_self: Any, *arguments: Any, **options: Any) -> Any:
        call()
        return inner(*arguments, **options)

    if getattr(inner, "_with_counter", False):
        step._with_counter = True  # type: ignore[attr-defined]  # a scheduler has wrapped it before
    # What undoes it must not keep the optimizer alive, and with it the parameters; both methods are bound to it.
    token = object()
    step._token, step._inner = token, inner  # type: ignore[attr-defined]
    optimizer.step = types.MethodType(step, optimizer)
    reference = weakref.ref(optimizer)

    def remove() -> None:
        alive = reference()
        current = None if alive is None else alive.__dict__.get("step")
        if getattr(current, "_token", None) is token:
            alive.step = current._inner

    return remove
