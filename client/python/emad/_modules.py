"""Modules: the state of a torch module as a list of places, so that no state_dict is built per step.

A place is a module's dictionary of parameters or buffers and a key in it: reading it finds a parameter that was
replaced. A module that was replaced is found by comparing the links between modules with those that were recorded.
"""

from __future__ import annotations

import json
import os
import re
import socket
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import torch

# What wrappers add to the names of a state_dict. The library leaves out the same parts.
WRAPPER_PARTS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))

_names_given: Dict[str, int] = {}


def _layers(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The model and what is inside its wrappers, from the outermost on."""
    wrappers = (torch.nn.parallel.DataParallel, torch.nn.parallel.DistributedDataParallel)
    inner: Any = model
    while isinstance(inner, torch.nn.Module):
        yield inner
        inner = inner.module if isinstance(inner, wrappers) else getattr(inner, "_orig_mod", None)


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile."""
    if not isinstance(model, torch.nn.Module):
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        raise TypeError(f"model is a {kind}; a torch.nn.Module is accepted")
    *_, inner = _layers(model)
    return inner


def check_first(model: torch.nn.Module) -> None:
    """Of the processes of DistributedDataParallel, which all hold the same weights, the first alone averages them.

    A second one under the same name would take the model over from it, in the middle of the training.
    """
    for layer in _layers(model):
        if not isinstance(layer, torch.nn.parallel.DistributedDataParallel):
            continue
        rank = torch.distributed.get_rank(layer.process_group)
        if rank > 0:
            raise ValueError(
                f"this is rank {rank} of DistributedDataParallel, whose weights are those of rank 0: that alone averages "
                "them. Write `ema = ModelEMA(...) if torch.distributed.get_rank() == 0 else None`"
            )


def canonical_name(name: str) -> str:
    """A tensor's name without the parts that wrappers add; a name made of such parts alone stays as it is."""
    return ".".join(part for part in name.split(".") if part not in WRAPPER_PARTS) or name


class Place(NamedTuple):
    """Where a module keeps one entry of its state."""

    name: str
    table: Dict[str, Any]
    key: str
    is_buffer: bool


class Places:
    """The persistent state of a module, in the order of its state_dict.

    As in a state_dict a parameter that is used under two names appears under both. What modules add to their
    state_dict by hooks does not appear.
    """

    def __init__(self, module: torch.nn.Module):
        self.module = module
        self.links: List[Tuple[Dict[str, Any], str, Any]] = []
        self.places: List[Place] = list(self._walk(module, ""))

    def _walk(self, module: torch.nn.Module, prefix: str) -> Iterator[Place]:
        if _is_sharded(module):
            raise TypeError(
                f"'{prefix or 'the model'}' is sharded by FullyShardedDataParallel: no process holds all of it; "
                "push its pieces with emad.Client.trainer(rank=, world=, pieces=)"
            )
        for key, parameter in module._parameters.items():
            if parameter is not None:
                yield Place(prefix + key, module._parameters, key, False)
        for key, buffer in module._buffers.items():
            if buffer is not None and key not in module._non_persistent_buffers_set:
                yield Place(prefix + key, module._buffers, key, True)
        for key, child in module._modules.items():
            self.links.append((module._modules, key, child))
            if child is not None:
                yield from self._walk(child, f"{prefix}{key}.")

    def are_current(self) -> bool:
        """Whether the modules are those that were walked."""
        for table, key, child in self.links:
            if table.get(key) is not child:
                return False
        return True

    def tensors(self) -> Dict[str, torch.Tensor]:
        return {place.name: place.table[place.key] for place in self.places}


def _is_sharded(module: torch.nn.Module) -> bool:
    if type(module).__name__ != "FullyShardedDataParallel":
        return False
    return "NO_SHARD" not in str(getattr(module, "sharding_strategy", "")) and getattr(module, "world_size", 2) > 1


class Swapped:
    """Weights lent to a module: their memory is exchanged, the module's own is never written.

    The parameters stay the same objects, so optimizers and wrappers notice nothing.
    """

    def __init__(self) -> None:
        self._raw: List[Tuple[torch.Tensor, torch.Tensor]] = []

    def put(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        """Lends a value, converted to the tensor's dtype, device and memory format."""
        lent = torch.empty_like(tensor.detach())
        lent.copy_(value)
        # Recorded before it is exchanged: an interrupt in between restores what is still there.
        self._raw.append((tensor, tensor.detach()))
        tensor.data = lent

    def restore(self) -> None:
        """Gives everything back, whatever happens meanwhile: an interrupt is raised when all is done."""
        interrupt = None
        while True:
            try:
                for tensor, raw in reversed(self._raw):
                    tensor.data = raw
                break
            except KeyboardInterrupt as error:
                interrupt = error
        self._raw.clear()
        if interrupt is not None:
            raise interrupt


def default_name(kind: str) -> str:
    """Unique on this host and, where containers share a daemon, among them; never that of another run."""
    base = re.sub(r"[^A-Za-z0-9._@+=-]", "_", f"{kind}-{socket.gethostname()}-{os.getpid()}")[:180]
    _names_given[base] = count = _names_given.get(base, 0) + 1
    return base if count == 1 else f"{base}-{count}"


def stamp(module: torch.nn.Module) -> int:
    """Changes when somebody writes into the module's tensors."""
    return sum(tensor._version for tensor in module.state_dict(keep_vars=True).values() if torch.is_tensor(tensor))


def plain_attribute(value: Any) -> Any:
    """The value as JSON knows it, or None when it cannot be written as JSON."""
    if isinstance(value, torch.Tensor) or type(value).__module__ == "numpy":
        if getattr(value, "size", None) is None or _count(value) > 1024:
            return None
        value = value.tolist()
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None


def _count(value: Any) -> int:
    return int(value.numel() if isinstance(value, torch.Tensor) else value.size)
