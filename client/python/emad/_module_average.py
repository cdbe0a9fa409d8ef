"""ModuleAverage: the drop-ins that average all of a module's state (parameters and persistent buffers).

The average is shown as a module: a mirror, a copy of the model that is made when it is first asked for and brought up
to date whenever it is asked for again.
"""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import torch

from ._average import Average
from ._errors import ManifestError
from ._modules import Places, Swapped, canonical_name, check_first, default_name, stamp, unwrap


class Mirror:
    """The module that shows an average."""

    def __init__(self) -> None:
        self.module: Optional[torch.nn.Module] = None
        self.key: Tuple[int, int] = (0, 0)  # version and step of what it holds
        self.stamp = 0  # of the module as it was filled


class ModuleAverage(Average):
    """An Average of a module's state."""

    def _connect_module(self, model: torch.nn.Module, **arguments: Any) -> None:
        """As _connect, whose arguments it takes."""
        self._mirror = Mirror()
        # In a tuple: a module must not become a child of a drop-in that is a module itself.
        self._model_seen = (model,)
        inner = unwrap(model)
        check_first(model)
        self._connect(Places(inner), default_name=lambda: default_name(type(inner).__name__), **arguments)

    def _follow(self, model: torch.nn.Module) -> None:
        """Finds another model object, or a model whose modules have been exchanged."""
        if model is not self._model_seen[0] or not self._places.are_current():
            self._bind(Places(unwrap(model)))
            self._model_seen = (model,)

    def _mirror_make(self, module: torch.nn.Module) -> torch.nn.Module:
        """The mirror for a copy of the model."""
        return module

    def _mirror_module(self) -> torch.nn.Module:
        """The mirror, whatever it holds."""
        if self._mirror.module is None:
            self.fence()
            with torch.inference_mode(False):  # what is made in that mode could not be written to outside of it
                # The model may hold its average, which cannot be copied.
                self._mirror.module = self._mirror_make(copy.deepcopy(self._places.module, {id(self): self}))
        return self._mirror.module

    def _refresh(self) -> torch.nn.Module:
        """The mirror, brought up to date."""
        mirror = self._mirror
        module = self._mirror_module()
        places = Places(module).places

        def fill(state: Mapping[str, torch.Tensor]) -> None:
            mirror.key = (0, 0)  # until it is whole again
            for place in places:
                value = state.get(canonical_name(place.name))
                if value is not None:
                    place.table[place.key].copy_(value)

        mirror.key = self._read(None, fill, mirror.key)
        mirror.stamp = stamp(module)
        return module

    @contextlib.contextmanager
    def average_parameters(self, model: torch.nn.Module, profile: Optional[str] = None) -> Iterator[torch.nn.Module]:
        """The model with the averaged weights inside the with block; its own come back whatever happens."""
        swapped = Swapped()
        try:
            places = Places(unwrap(model)).places
            # Into memory of our own, so that the daemon may go on while the block lasts.
            self._read(profile, lambda state: _lend(swapped, places, state))
            yield model
        finally:
            swapped.restore()

    def _averages(self) -> "OrderedDict[str, torch.Tensor]":
        """A copy of the averages by the model's names, in the precision in which they are kept."""
        state: "OrderedDict[str, torch.Tensor]" = OrderedDict()
        by_canonical = {canonical_name(place.name): place.name for place in self._places.places}

        def take(view_state: Mapping[str, torch.Tensor]) -> None:
            state.clear()
            for name in by_canonical:
                if name in view_state:
                    state[by_canonical[name]] = view_state[name].clone()

        self._read(None, take)
        return state

    def _values_of(self, state: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """A state's tensors by the model's own names; the model's values where the state has none."""
        given = {canonical_name(name): tensor for name, tensor in state.items()}
        values = {}
        for place in self._places.places:
            tensor = place.table[place.key]
            value = given.pop(canonical_name(place.name), tensor)  # what the profile does not hold
            if tuple(value.shape) != tuple(tensor.shape):
                raise ManifestError(
                    f"tensor '{place.name}' has shape {list(value.shape)} in the state, but {list(tensor.shape)} here"
                )
            values[place.name] = value.detach()
        if given:
            raise ManifestError(f"tensor '{next(iter(given))}' of the state is not among those of the model")
        return values

    def _start_of(self, values: Mapping[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """Values as a start to register: in the dtypes of the model."""
        dtypes = {place.name: place.table[place.key].dtype for place in self._places.places}
        return {
            name: value.to(dtype=dtypes[name], device="cpu", copy=True).contiguous() for name, value in values.items()
        }


def _lend(swapped: Swapped, places: List[Any], state: Mapping[str, torch.Tensor]) -> None:
    swapped.restore()  # of an attempt whose view was revoked
    for place in places:
        value = state.get(canonical_name(place.name))
        if value is not None:
            swapped.put(place.table[place.key], value)
