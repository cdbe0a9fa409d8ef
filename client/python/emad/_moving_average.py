"""ExponentialMovingAverage: torch_ema's class of that name, with the average kept by the daemon."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

import torch

from ._average import Average
from ._client import Client
from ._errors import ManifestError
from ._modules import Place, canonical_name, default_name, unwrap

Parameters = Optional[Iterable[torch.nn.Parameter]]


class _Parameters:
    """Parameters as places: held weakly, but for the call in which they are read."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], names: Sequence[str], died: Callable[[int], None]):
        self._references = [
            weakref.ref(parameter, lambda _, index=index: died(index)) for index, parameter in enumerate(parameters)
        ]
        self._read: Dict[int, torch.nn.Parameter] = {}
        self.places = [Place(name, self._read, index, False) for index, name in enumerate(names)]

    @contextlib.contextmanager
    def reading(self, parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """Inside the with block the places hold these parameters."""
        self._read.update(enumerate(parameters))
        try:
            yield
        finally:
            self._read.clear()

    @property
    def are_read(self) -> bool:
        return bool(self._read)

    def tensors(self) -> Dict[str, torch.Tensor]:
        return {place.name: self._read[place.key].detach() for place in self.places}

    def alive(self) -> List[Optional[torch.nn.Parameter]]:
        return [reference() for reference in self._references]


class ExponentialMovingAverage(Average):
    """Keeps a moving average of parameters, in the manner of torch_ema's class.

    ::

        ema = emad.torch.ExponentialMovingAverage(model.parameters(), decay=0.995, optimizer=optimizer)
        for batch in loader:
            ...
            optimizer.step()
            ema.update()
        with ema.average_parameters():
            validate(model)

    parameters: those to average, of which weak references are kept.
    decay, use_num_updates: as in torch_ema; decay*: min(decay, (1 + n) / (10 + n)) at update n with use_num_updates.
    module: whose parameters they are. The daemon then has them by their names in it; otherwise they are called param.0,
    param.1, ... in the order given.
    The other arguments are those of ModelEMA.

    What torch_ema keeps in the parameters' own dtype is float32 here when that is a smaller one.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        decay: float,
        use_num_updates: bool = True,
        *,
        module: Optional[torch.nn.Module] = None,
        optimizer: Union[torch.optim.Optimizer, Iterable[torch.optim.Optimizer], None] = None,
        name: Optional[str] = None,
        client: Optional[Client] = None,
        url: Optional[str] = None,
        timeout: float = 10.0,
        profile: str = "ema",
        resume: Optional[str] = None,
    ):
        _check_decay(decay)
        self._decay = float(decay)
        self._counts = bool(use_num_updates)
        self.collected_params: Optional[List[torch.Tensor]] = None
        given = _list_of(parameters)
        self._released: List[int] = []  # indices of parameters that have died, whose memory is still held
        kind = "parameters" if module is None else type(unwrap(module)).__name__
        reference = weakref.ref(self)
        places = _Parameters(given, _names_of(given, module), lambda index: _died(reference, index))
        with places.reading(given):
            self._connect(
                places,
                name=name,
                default_name=lambda: default_name(kind),
                profile=profile,
                optimizer=optimizer,
                client=client,
                url=url,
                timeout=timeout,
                resume=resume,
            )

    @property
    def decay(self) -> float:
        return self._decay

    @property
    def num_updates(self) -> Optional[int]:
        """How often update() was called; None without use_num_updates."""
        return self._updates if self._counts else None

    @property
    def shadow_params(self) -> List[torch.Tensor]:
        """A copy of the averages, in the order of the parameters."""
        shadows: List[torch.Tensor] = []

        def take(state: Mapping[str, torch.Tensor]) -> None:
            shadows[:] = [state[canonical_name(place.name)].clone() for place in self._places.places]

        self._read(None, take)
        return shadows

    def update(self, parameters: Parameters = None) -> None:
        """Takes the parameters' current values into the average. Call it after optimizer.step()."""
        with self._places.reading(self._parameters(parameters)):
            self._update()
        self._let_go()

    def copy_to(self, parameters: Parameters = None) -> None:
        """Copies the averages into the parameters."""
        chosen = self._parameters(parameters)

        def fill(state: Mapping[str, torch.Tensor]) -> None:
            for place, parameter in zip(self._places.places, chosen):
                parameter.data.copy_(state[canonical_name(place.name)])

        self._read(None, fill)

    def store(self, parameters: Parameters = None) -> None:
        """Keeps a copy of the parameters for restore()."""
        self.collected_params = [parameter.detach().clone() for parameter in self._parameters(parameters)]

    def restore(self, parameters: Parameters = None) -> None:
        """Copies what store() kept into the parameters."""
        if self.collected_params is None:
            raise RuntimeError("there is nothing to restore: call store() before")
        chosen = self._parameters(parameters)
        self.fence()
        for stored, parameter in zip(self.collected_params, chosen):
            parameter.data.copy_(stored)

    @contextlib.contextmanager
    def average_parameters(self, parameters: Parameters = None) -> Iterator[None]:
        """The parameters hold the averages inside the with block; their own values come back whatever happens."""
        chosen = self._parameters(parameters)
        self.store(chosen)
        try:
            self.copy_to(chosen)
            yield
        finally:
            self.restore(chosen)

    def to(self, device: Any = None, dtype: Optional[torch.dtype] = None) -> None:
        """Moves what store() kept. The averages stay at the daemon."""
        if self.collected_params is not None:
            self.collected_params = [
                tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
                for tensor in self.collected_params
            ]

    def state_dict(self) -> Dict[str, Any]:
        """As torch_ema's, whose class can load it: decay, num_updates, shadow_params, collected_params."""
        return {
            "decay": self._decay,
            "num_updates": self.num_updates,
            "shadow_params": self.shadow_params,
            "collected_params": self.collected_params,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Begins the average anew, at the weights, the decay and the count of a state of this class or of torch_ema's.

        The daemon's model of this name is replaced.
        """
        _check_decay(state_dict["decay"])
        chosen = self._parameters(None)
        values: Dict[str, torch.Tensor] = {}
        for place, parameter, shadow in zip(
            self._places.places, chosen, self._as_many(state_dict["shadow_params"], "shadows in the state")
        ):
            if shadow.shape != parameter.shape:
                raise ManifestError(
                    f"'{place.name}' has shape {list(shadow.shape)} in the state, but {list(parameter.shape)} here"
                )
            values[place.name] = shadow.detach()
        collected = state_dict["collected_params"]
        if collected is not None:
            collected = [
                stored.to(device=parameter.device, dtype=parameter.dtype, copy=True)
                for stored, parameter in zip(self._as_many(collected, "stored parameters in the state"), chosen)
            ]
        start = {
            place.name: values[place.name].to(dtype=parameter.dtype, device="cpu", copy=True).contiguous()
            for place, parameter in zip(self._places.places, chosen)
        }
        updates = state_dict["num_updates"]
        self._decay, self._counts = float(state_dict["decay"]), updates is not None
        self._begin_anew(start, updates or 0, seed=values)
        self.collected_params = collected

    def _specifications(self, updates: int) -> Dict[str, str]:
        counts = "" if self._counts else ",use_num_updates=0"
        return {self.profile: f"torch-ema:decay={self._decay!r}{counts}"}

    def _parameters(self, given: Parameters) -> List[torch.nn.Parameter]:
        if given is not None:
            return self._as_many(given, "parameters")
        alive = [parameter for parameter in self._places.alive() if parameter is not None]
        count = len(self._places.places)
        if len(alive) < count:
            raise ValueError(
                f"{count - len(alive)} of the {count} parameters do not exist any more: give the parameters, or keep "
                "the model"
            )
        return alive

    def _as_many(self, given: Iterable[Any], what: str) -> List[Any]:
        found = list(given)
        if len(found) != len(self._places.places):
            raise ValueError(f"there are {len(found)} {what}; the average is one of {len(self._places.places)}")
        return found

    def _collect(self) -> None:
        super()._collect()
        self._let_go()

    def _let_go(self) -> None:
        """Frees the memory of parameters that have died, unless it is being copied."""
        while self._released and not self._trainer._in_flight and not self._places.are_read:
            index = self._released.pop()
            self._addresses[index] = -1
            self._trainer._sources[index].forget()


def _check_decay(decay: float) -> None:
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is {decay}; it must be in 0..1")


def _died(reference: "weakref.ref[ExponentialMovingAverage]", index: int) -> None:
    ema = reference()
    if ema is not None and hasattr(ema, "_trainer"):  # else its constructor has failed
        ema._released.append(index)
        ema._let_go()


def _names_of(parameters: Sequence[torch.nn.Parameter], module: Optional[torch.nn.Module]) -> List[str]:
    if module is None:
        return [f"param.{index}" for index in range(len(parameters))]
    known = {id(parameter): name for name, parameter in unwrap(module).named_parameters()}
    for index, parameter in enumerate(parameters):
        if id(parameter) not in known:
            raise ValueError(f"parameter {index} of {len(parameters)} is none of the module's")
    return [known[id(parameter)] for parameter in parameters]


def _list_of(parameters: Iterable[torch.nn.Parameter]) -> List[torch.nn.Parameter]:
    found = list(parameters)
    for index, parameter in enumerate(found):
        if not isinstance(parameter, torch.Tensor):
            raise TypeError(f"parameter {index} is a {type(parameter).__qualname__}; give model.parameters()")
    return found
