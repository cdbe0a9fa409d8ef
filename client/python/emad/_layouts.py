"""Layouts: how other libraries store an average, one row each: how it is recognised, read and written.

What is read becomes a Loaded: canonical names, tensors as they are stored, and what the state tells of count and
schedule. What a library does not store (AveragedModel its function, ema_pytorch its decay) is None there.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional

import torch

from ._errors import ArgumentError, ManifestError
from ._modules import canonical_name, unwrap

# The keys that are stored by both libraries that store any, by the names of the schedules; with the daemon's defaults.
_DEFAULTS: Dict[str, Dict[str, float]] = {
    "torch-ema": {"decay": 0.995, "use_num_updates": 1},
    "diffusers": {"decay": 0.9999, "min_decay": 0.0, "after": 0, "warmup": 0, "gamma": 1.0, "power": 2 / 3},
}
_DIFFUSERS_KEYS = {
    "decay": "decay", "min_decay": "min_decay", "update_after_step": "after", "use_ema_warmup": "warmup",
    "inv_gamma": "gamma", "power": "power",
}  # fmt: skip

# Keys of every schedule, which say how the daemon goes about it and not what the average is.
_COMMON_KEYS = frozenset(("form", "precision", "begin", "cadence", "snapshot", "keep"))

_YOLO_SCHEDULE = "yolo:decay=0.9999,tau=2000"  # the classes' own defaults, which their training scripts leave alone


@dataclass
class Loaded:
    """An average that was made elsewhere."""

    tensors: Dict[str, torch.Tensor]
    """By canonical names. Where the state has a list of parameters and no module told their names, param.0, ..."""
    kind: str
    updates: Optional[int] = None
    """How often it was updated; None where the state does not tell."""
    step: Optional[int] = None
    """The trainer's step, where the state tells."""
    schedule: Optional[str] = None
    """The schedule that continues it; None where the state does not tell. YOLO's has the values of its classes."""
    buffers: FrozenSet[str] = field(default=frozenset())
    """The names of those tensors that are buffers, where a module told."""

    def __repr__(self) -> str:
        facts = {"tensors": len(self.tensors), "updates": self.updates, "step": self.step, "schedule": self.schedule}
        told = [f"{key} {value}" for key, value in facts.items() if value is not None]
        return f"<emad.migrate.Loaded {self.kind}: {', '.join(told)}>"


Reader = Callable[[Mapping[str, Any], Optional[torch.nn.Module]], Loaded]
Writer = Callable[[Loaded, Optional[torch.nn.Module]], Any]


class Layout(NamedTuple):
    """One library's."""

    kind: str
    text: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Reader
    write: Writer


def named(state: Mapping[str, Any], prefix: str = "") -> Dict[str, torch.Tensor]:
    """The tensors of a state_dict whose names have a prefix, by their canonical names without it."""
    tensors: Dict[str, torch.Tensor] = {}
    for full, tensor in state.items():
        if not full.startswith(prefix) or full.endswith("_extra_state"):
            continue
        name = canonical_name(full[len(prefix) :])
        if not isinstance(tensor, torch.Tensor):
            raise ArgumentError(f"'{full}' of the state is a {type(tensor).__qualname__}; a tensor was expected")
        if name in tensors:
            raise ManifestError(f"'{full}' of the state is a second tensor of the name '{name}'")
        tensors[name] = tensor.detach()
    return tensors


def specification(name: str, **values: float) -> str:
    """A schedule with those values that are not the daemon's defaults."""
    keys = [f"{key}={_number(value)}" for key, value in values.items() if value != _DEFAULTS[name].get(key)]
    return f"{name}:{','.join(keys)}" if keys else name


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _values_of(average: Loaded, name: str) -> Dict[str, float]:
    """The values of all keys of a schedule that must have this name."""
    found, _, keys = (average.schedule or "").partition(";")[0].partition(":")
    if found != name:
        raise ArgumentError(
            f"the average's schedule is {average.schedule!r}, but this kind of state holds the values of a '{name}'; "
            f"name one: schedule='{name}:decay=...'"
        )
    values = dict(_DEFAULTS[name])
    for pair in filter(None, keys.split(",")):
        key, _, value = pair.partition("=")
        key = _DIFFUSERS_KEYS.get(key, key)
        if key in values:
            values[key] = float(value)
        elif key not in _COMMON_KEYS:
            raise ArgumentError(f"'{name}' has no key '{key}' that is stored; there are {', '.join(values)}")
    return values


def _count_of(average: Loaded) -> int:
    if average.updates is None:
        raise ArgumentError("the average does not tell how often it was updated; name it: updates=")
    return int(average.updates)


def _names_of(average: Loaded, module: Optional[torch.nn.Module]) -> Dict[str, str]:
    """The names in a state_dict of the module, by canonical names."""
    if module is None:
        return {name: name for name in average.tensors}
    names = {canonical_name(name): name for name in unwrap(module).state_dict() if not name.endswith("_extra_state")}
    for name in average.tensors:
        if name not in names:
            raise ManifestError(f"tensor '{name}' of the average is not among those of the module")
    return names


def _state_of(average: Loaded, module: Optional[torch.nn.Module], prefix: str = "") -> "OrderedDict[str, torch.Tensor]":
    """A state_dict; what the average does not hold is the module's."""
    own = {} if module is None else unwrap(module).state_dict()
    return OrderedDict(
        (prefix + name, average.tensors[canonical] if canonical in average.tensors else own[name].detach())
        for canonical, name in _names_of(average, module).items()
    )


def _list_read(parameters: Any, module: Optional[torch.nn.Module]) -> Dict[str, torch.Tensor]:
    if module is None:
        names = [f"param.{index}" for index in range(len(parameters))]
    else:
        names = [canonical_name(name) for name, _ in unwrap(module).named_parameters()]
    if len(names) != len(parameters):
        raise ManifestError(
            f"the state holds {len(parameters)} parameters, but the module has {len(names)}: were they all averaged?"
        )
    return named(dict(zip(names, parameters)))


def _list_write(average: Loaded, module: Optional[torch.nn.Module]) -> List[torch.Tensor]:
    if module is not None:
        order = [canonical_name(name) for name, _ in unwrap(module).named_parameters()]
        for name in order:
            if name not in average.tensors:
                raise ManifestError(f"parameter '{name}' of the module is not in the average")
    else:
        if not all(re.fullmatch(r"param\.\d+", name) for name in average.tensors):
            raise ArgumentError("this kind of state holds parameters in the module's order: name it, module=")
        order = sorted(average.tensors, key=lambda name: int(name[6:]))
    return [average.tensors[name] for name in order]


# The rows


def _yolo_read(state: Mapping[str, Any], module: Optional[torch.nn.Module]) -> Loaded:
    average = state["ema"] if state.get("ema") is not None else state.get("model")
    weights = average.state_dict() if isinstance(average, torch.nn.Module) else average
    if not isinstance(weights, Mapping):
        raise ArgumentError("the checkpoint's 'ema' and 'model' are neither a module nor a state_dict")
    # A finished training puts the average into 'model' and forgets the rest.
    updates = state.get("updates")
    return Loaded(named(weights), "yolo", None if updates is None else int(updates), schedule=_YOLO_SCHEDULE)


def _yolo_write(average: Loaded, module: Optional[torch.nn.Module]) -> Any:
    if module is None:
        return {"ema": _state_of(average, None), "updates": _count_of(average)}
    whole = copy.deepcopy(unwrap(module)).eval()
    whole.load_state_dict(_state_of(average, module), strict=False)
    return {"ema": whole, "updates": _count_of(average)}


def _timm_read(state: Mapping[str, Any], module: Optional[torch.nn.Module]) -> Loaded:
    if "state_dict_ema" not in state:
        return Loaded(named(state), "timm")
    schedule = None
    options = state.get("args")  # of timm's train.py
    decay = getattr(options, "model_ema_decay", None)
    if decay is not None:
        warmup = bool(getattr(options, "model_ema_warmup", False))
        schedule = f"timm:decay={float(decay)!r}" + (",warmup=1" if warmup else "")
    return Loaded(named(state["state_dict_ema"]), "timm", schedule=schedule)


def _timm_write(average: Loaded, module: Optional[torch.nn.Module]) -> Any:
    return _state_of(average, module, "module.")


def _diffusers_read(state: Mapping[str, Any], module: Optional[torch.nn.Module]) -> Loaded:
    return Loaded(
        _list_read(state["shadow_params"], module),
        "diffusers",
        int(state["optimization_step"]),
        schedule=diffusers_schedule(state),
    )


def diffusers_schedule(state: Mapping[str, Any]) -> str:
    """That of an EMAModel's state, or of the configuration that it has saved."""
    return specification("diffusers", **{key: state[theirs] for theirs, key in _DIFFUSERS_KEYS.items()})


def _diffusers_write(average: Loaded, module: Optional[torch.nn.Module]) -> Any:
    values = _values_of(average, "diffusers")
    return {
        "decay": values["decay"],
        "min_decay": values["min_decay"],
        "optimization_step": _count_of(average),
        "update_after_step": int(values["after"]),
        "use_ema_warmup": bool(values["warmup"]),
        "inv_gamma": values["gamma"],
        "power": values["power"],
        "shadow_params": _list_write(average, module),
    }


def _torch_ema_read(state: Mapping[str, Any], module: Optional[torch.nn.Module]) -> Loaded:
    updates = state["num_updates"]
    schedule = specification("torch-ema", decay=state["decay"], use_num_updates=0 if updates is None else 1)
    # Without a count the decay is constant: it does not matter how many updates there were.
    return Loaded(_list_read(state["shadow_params"], module), "torch-ema", updates or 0, schedule=schedule)


def _torch_ema_write(average: Loaded, module: Optional[torch.nn.Module]) -> Any:
    values = _values_of(average, "torch-ema")
    return {
        "decay": values["decay"],
        "num_updates": _count_of(average) if values["use_num_updates"] else None,
        "shadow_params": _list_write(average, module),
        "collected_params": None,
    }


def _ema_pytorch_read(state: Mapping[str, Any], module: Optional[torch.nn.Module]) -> Loaded:
    return Loaded(named(state, "ema_model."), "ema-pytorch", int(state["step"]))


def _ema_pytorch_write(average: Loaded, module: Optional[torch.nn.Module]) -> Any:
    updates = _count_of(average)
    state: "OrderedDict[str, torch.Tensor]" = OrderedDict(initted=torch.tensor(updates > 0), step=torch.tensor(updates))
    if module is not None:
        state.update((f"online_model.{name}", tensor) for name, tensor in unwrap(module).state_dict().items())
    state.update(_state_of(average, module, "ema_model."))
    return state


def _averaged_model_read(state: Mapping[str, Any], module: Optional[torch.nn.Module]) -> Loaded:
    return Loaded(named(state, "module."), "averaged-model", int(state["n_averaged"]))


def _averaged_model_write(average: Loaded, module: Optional[torch.nn.Module]) -> Any:
    state = OrderedDict(n_averaged=torch.tensor(_count_of(average)))
    state.update(_state_of(average, module, "module."))
    return state


def _are_tensors(state: Mapping[str, Any]) -> bool:
    return bool(state) and all(
        isinstance(value, torch.Tensor) or str(name).endswith("_extra_state") for name, value in state.items()
    )


LAYOUTS = (
    Layout(
        "yolo",
        "a checkpoint of YOLOv5, YOLOv7 or Ultralytics ('ema', 'updates'), or emad.torch.ModelEMA.state_dict()",
        lambda state: "ema" in state and ("updates" in state or "model" in state),
        _yolo_read,
        _yolo_write,
    ),
    Layout(
        "timm",
        "a checkpoint of timm ('state_dict_ema'), or ModelEmaV3.state_dict() ('module.*')",
        lambda state: "state_dict_ema" in state
        or (_are_tensors(state) and all(name.startswith("module.") for name in state)),
        _timm_read,
        _timm_write,
    ),
    Layout(
        "diffusers",
        "EMAModel.state_dict() ('optimization_step', 'shadow_params'), or a folder of its save_pretrained()",
        lambda state: {"optimization_step", "shadow_params"} <= state.keys(),
        _diffusers_read,
        _diffusers_write,
    ),
    Layout(
        "torch-ema",
        "torch_ema's ExponentialMovingAverage.state_dict() ('num_updates', 'shadow_params')",
        lambda state: {"num_updates", "shadow_params"} <= state.keys(),
        _torch_ema_read,
        _torch_ema_write,
    ),
    Layout(
        "ema-pytorch",
        "ema_pytorch's EMA.state_dict() ('initted', 'step', 'ema_model.*')",
        lambda state: {"initted", "step"} <= state.keys() and any(name.startswith("ema_model.") for name in state),
        _ema_pytorch_read,
        _ema_pytorch_write,
    ),
    Layout(
        "averaged-model",
        "torch.optim.swa_utils' AveragedModel.state_dict() ('n_averaged', 'module.*')",
        lambda state: "n_averaged" in state and any(name.startswith("module.") for name in state),
        _averaged_model_read,
        _averaged_model_write,
    ),
    Layout(
        "state-dict",
        "names and tensors and nothing else",
        _are_tensors,
        lambda state, module: Loaded(named(state), "state-dict"),
        lambda average, module: _state_of(average, module),
    ),
)
