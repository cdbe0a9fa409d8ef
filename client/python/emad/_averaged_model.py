"""AveragedModel: torch.optim.swa_utils' class of that name, with the average kept by the daemon."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional, Tuple, Union

import torch

from ._client import Client
from ._errors import ManifestError
from ._module_average import ModuleAverage
from ._modules import canonical_name

_TORCH_FACTORIES = {
    "get_ema_avg_fn": "averaged-model",
    "get_ema_multi_avg_fn": "averaged-model",
    "get_swa_avg_fn": "swa",
    "get_swa_multi_avg_fn": "swa",
}


def ema(decay: float = 0.999) -> str:
    """The schedule of an exponential moving average, as torch's get_ema_avg_fn(decay) makes it."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is {decay}; it must be in 0..1")
    return f"averaged-model:decay={float(decay)!r}"


def swa() -> str:
    """The schedule of an equally weighted average (stochastic weight averaging)."""
    return "swa"


class AveragedModel(ModuleAverage, torch.nn.Module):
    """Keeps an equally weighted or a moving average of a model, in the manner of torch's AveragedModel.

    ::

        averaged = emad.torch.AveragedModel(model, avg_fn=emad.torch.ema(0.999), optimizer=optimizer)
        for batch in loader:
            ...
            optimizer.step()
            averaged.update_parameters(model)
        validate(averaged)

    avg_fn, multi_avg_fn: at most one of them. None: equal weights. Else a schedule, as ema(decay), swa() or any other
    specification ("averaged-model:decay=0.99"); or what torch's own get_ema_avg_fn and get_swa_avg_fn make. Another
    function cannot be taken along to the daemon.
    use_buffers: average the floating-point buffers too. Otherwise they are the model's latest, as are integers always.
    device: where .module is; None: where the model is.
    The other arguments are those of ModelEMA.

    As in torch the first update copies the model, and parameters, buffers and state_dict() have the names of torch's:
    state_dict() can be loaded by torch's class, and the other way round.

    .module is a copy of the model without wrappers (DistributedDataParallel, torch.compile), made when first asked for.
    Whoever asks again (.module, parameters(), buffers(), state_dict(), a call) finds it brought up to date. What is
    done to it (update_bn, to(), half()) is not done to the average: values put into it stay until the next update.
    """

    n_averaged: torch.Tensor

    def __init__(
        self,
        model: torch.nn.Module,
        device: Union[int, str, torch.device, None] = None,
        avg_fn: Union[str, Callable, None] = None,
        multi_avg_fn: Union[str, Callable, None] = None,
        use_buffers: bool = False,
        *,
        optimizer: Union[torch.optim.Optimizer, Iterable[torch.optim.Optimizer], None] = None,
        name: Optional[str] = None,
        client: Optional[Client] = None,
        url: Optional[str] = None,
        timeout: float = 10.0,
        profile: str = "ema",
        resume: Optional[str] = None,
    ):
        torch.nn.Module.__init__(self)
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("avg_fn and multi_avg_fn are both given; give one of them")
        self.use_buffers = bool(use_buffers)
        self._schedule = _schedule_of(multi_avg_fn if avg_fn is None else avg_fn)
        if self.use_buffers:
            self._schedule += ("," if ":" in self._schedule else ":") + "use_buffers=1"
        self._device = device
        self._count_shown = -1  # of updates, in the mirror
        self._connect_module(
            model,
            name=name,
            profile=profile,
            optimizer=optimizer,
            client=client,
            url=url,
            timeout=timeout,
            resume=resume,
        )
        self.register_buffer("n_averaged", torch.tensor(self._updates, dtype=torch.long, device=device))

    def update_parameters(self, model: torch.nn.Module) -> None:
        """Takes the model's current weights into the average. Call it after optimizer.step()."""
        self._follow(model)
        self._update()
        self.n_averaged.fill_(self._updates)

    @property
    def module(self) -> torch.nn.Module:
        """The averaged model. Always the same module; asking for it brings it up to date."""
        return self._refresh()

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self._refresh()(*arguments, **options)

    def named_modules(self, *arguments: Any, **options: Any) -> Iterator[Tuple[str, torch.nn.Module]]:
        # parameters(), buffers() and modules() are made of it.
        self._refresh()
        return super().named_modules(*arguments, **options)

    def named_children(self) -> Iterator[Tuple[str, torch.nn.Module]]:
        # train(), eval() and apply() are made of it; the values do not matter to them.
        self._mirror_module()
        return super().named_children()

    def state_dict(self, *arguments: Any, **options: Any) -> Dict[str, Any]:
        """As torch's: n_averaged, and the averaged weights with "module." before their names."""
        self._refresh()
        return torch.nn.Module.state_dict(self, *arguments, **options)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> None:
        """Begins the average anew, at the weights and the count of a state_dict() of this class or of torch's.

        The daemon's model of this name is replaced. strict: every weight must be there; otherwise those that are not
        are the model's own. assign: of no effect, the weights live at the daemon.
        """
        if "n_averaged" not in state_dict:
            raise ManifestError("the state has no 'n_averaged': it is not that of an AveragedModel")
        weights = {name: tensor for name, tensor in state_dict.items() if name != "n_averaged"}
        if strict:
            given = {canonical_name(name) for name in weights}
            for place in self._places.places:
                if canonical_name(place.name) not in given:
                    raise ManifestError(f"tensor '{place.name}' of the model is not in the state")
        values = self._values_of(weights)
        updates = int(state_dict["n_averaged"])
        # Before the first update torch's average holds what will be overwritten.
        self._begin_anew(self._start_of(values), updates, seed=values if updates else None)
        self.n_averaged.fill_(updates)
        self._mirror.key = (0, 0)
        self._count_shown = -1

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """For the load_state_dict() of a module that this one is a part of."""
        self._mirror_module()  # which is loaded next, as a child
        own = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
        try:
            self.load_state_dict(own)
        except ManifestError as error:
            arguments[-1].append(str(error))  # what torch raises when all are loaded

    def _specifications(self, updates: int) -> Dict[str, str]:
        return {self.profile: self._schedule}

    def _mirror_make(self, module: torch.nn.Module) -> torch.nn.Module:
        if self._device is not None:
            module.to(self._device)
        self._modules["module"] = module
        return module

    def _refresh(self) -> torch.nn.Module:
        # Nobody else updates this average, so that a loop over batches need not ask for each.
        if self._mirror.module is None or self._count_shown != self._updates:
            super()._refresh()
            self._count_shown = self._updates
        assert self._mirror.module is not None
        return self._mirror.module


def _schedule_of(strategy: Union[str, Callable, None]) -> str:
    """The schedule for an avg_fn: a specification, or a function that torch's factories have made."""
    if strategy is None:
        return swa()
    if isinstance(strategy, str):
        return strategy
    factory = getattr(strategy, "__qualname__", "").partition(".")[0]
    # Decorators (torch.no_grad) are looked through: the closure is that of the function inside.
    inner = inspect.unwrap(strategy) if callable(strategy) else None
    if getattr(strategy, "__module__", None) != "torch.optim.swa_utils" or factory not in _TORCH_FACTORIES:
        raise TypeError(
            f"the averaging function is {strategy!r}: the daemon cannot run it; give emad.torch.ema(decay), "
            "emad.torch.swa() or a schedule's specification ('emactl explain' lists them)"
        )
    if _TORCH_FACTORIES[factory] == "swa":
        return swa()
    return ema(inspect.getclosurevars(inner).nonlocals["decay"])
