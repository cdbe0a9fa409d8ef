"""Drop-ins for the classes that usually keep averages of a model in PyTorch, with the average kept by the daemon.

ModelEMA stands in for the class of that name of YOLOv5 and YOLOv7, AveragedModel for torch.optim.swa_utils', and
ExponentialMovingAverage for torch_ema's. What differs is where the average is computed: an update hands over a snapshot
and returns. All three take these arguments besides those of their originals:

optimizer: the optimizer, or a list of them, that changes the weights. With it an update returns at once: the parameters
are copied behind the next forward and backward pass, and optimizer.step() waits for the end of that copy.
name: of the model at the daemon. A model of that name and shape is continued, unless resume="never".
client, url, timeout: an emad.Client to use, or how to reach the daemon.
profile: the name of the average.
"""

from __future__ import annotations

import warnings
from typing import Any, Dict, Iterable, Mapping, Optional, Union

import torch

from ._averaged_model import AveragedModel, ema, swa
from ._client import Client
from ._errors import LimitError
from ._module_average import ModuleAverage
from ._modules import plain_attribute, stamp, unwrap
from ._moving_average import ExponentialMovingAverage
from ._trainer import Guards

__all__ = ["AveragedModel", "ExponentialMovingAverage", "ModelEMA", "ema", "swa"]


class ModelEMA(ModuleAverage):
    """Keeps a moving average of everything in the model's state_dict (parameters and persistent buffers).

    ::

        ema = emad.torch.ModelEMA(model, optimizer=optimizer)
        for batch in loader:
            ...
            optimizer.step()
            ema.update(model)
        with ema.average_parameters(model):
            validate(model)
        ema.save("best.safetensors")

    The average is that of the YOLO class to the last bit (float32): the shadow starts as a copy of the state, every
    floating-point entry becomes v*d + (1-d)*m with d = decay*(1 - exp(-n/tau)), integer entries stay as they were at
    the start.

    model: may be wrapped in DataParallel, DistributedDataParallel or torch.compile. With several processes that hold
    the same weights (DistributedDataParallel) only rank 0 makes a ModelEMA.
    decay, updates, tau: as in the YOLO class. updates: how many there have been already, to resume.
    optimizer: the optimizer, or a list of them, that changes the weights. With it update() returns at once: the
    parameters are copied behind the next forward and backward pass, and optimizer.step() waits for the end of that
    copy. (Buffers are copied at once, for the forward pass changes them; so are weights on an accelerator and weights
    that are not contiguous, as channels_last.) Whoever changes weights by other means calls fence() before. Without an
    optimizer update() returns when the weights have been copied.
    name: of the model at the daemon. A model of that name and shape is continued, unless resume="never"; .updates says
    where it stands. Without a name it is made of the class, the host and the process id, and always new.
    schedule: another schedule than yolo's, for example "constant:decay=0.999"; profile: the name of this average.
    profiles: further averages to keep of the same weights, {"slow": "yolo:decay=0.99999"}.
    rewind, policy, guards, wire: as of Client.trainer. Updates that were missed count as calls of the schedule all the same.
    client, url, timeout: a client to use, or how to reach the daemon.

    While the daemon is away the training goes on: there is one warning, and averaging resumes when the daemon is back.
    The weights of the steps in between are not in the average. If the daemon had lost the average, it begins anew with
    the current weights, and a second warning says so. Asking for the average (.ema, average_parameters, save,
    state_dict) while it cannot be had raises an emad.Error.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        decay: float = 0.9999,
        updates: int = 0,
        tau: float = 2000,
        optimizer: Union[torch.optim.Optimizer, Iterable[torch.optim.Optimizer], None] = None,
        name: Optional[str] = None,
        *,
        client: Optional[Client] = None,
        url: Optional[str] = None,
        timeout: float = 10.0,
        profile: str = "ema",
        schedule: Optional[str] = None,
        profiles: Optional[Mapping[str, str]] = None,
        attributes: Optional[Mapping[str, Any]] = None,
        resume: Optional[str] = None,
        rewind: str = "refuse",
        policy: str = "block",
        guards: Guards = None,
        wire: Any = None,
    ):
        self.decay = float(decay)
        self.tau = float(tau)
        self._schedule = schedule
        self._more_profiles = dict(profiles or {})
        self._attributes: Dict[str, Any] = {}
        self._connect_module(
            model,
            name=name,
            profile=profile,
            updates=updates,
            attributes=attributes,
            optimizer=optimizer,
            client=client,
            url=url,
            timeout=timeout,
            resume=resume,
            choices={"rewind": rewind, "policy": policy, "guards": guards, "wire": wire},
        )

    def update(
        self,
        model: torch.nn.Module,
        *,
        loss: Optional[float] = None,
        metadata: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """Takes the model's current weights into the average. Call it after optimizer.step().

        loss, metadata: as of Trainer.push.
        """
        self._follow(model)
        self._update(loss, metadata)

    @property
    def updates(self) -> int:
        """How often update() was called, counting those before the start.

        Assigning it begins the average anew at that count, with the weights that .ema holds: so the usual resume
        (`ema.ema.load_state_dict(...)`, then `ema.updates = n`) works. load_state_dict does both in one.
        """
        return self._updates

    @updates.setter
    def updates(self, updates: int) -> None:
        mirror = self._mirror
        if mirror.module is None or mirror.stamp == stamp(mirror.module):
            self._refresh()  # the caller has not put weights of his own into it
        assert mirror.module is not None
        self.load_state_dict({"ema": mirror.module.state_dict(), "updates": updates})

    @property
    def ema(self) -> torch.nn.Module:
        """A copy of the model (without wrappers) with the averaged weights, in eval mode.

        Always the same module; asking for it waits for the updates so far and brings it up to date.
        """
        return self._refresh()

    def update_attr(
        self,
        model: torch.nn.Module,
        include: Iterable[str] = (),
        exclude: Iterable[str] = ("process_group", "reducer"),
    ) -> None:
        """Copies plain attributes of the model (names, nc, stride, yaml, ...) beside the weights.

        Those in include if it is not empty, else all; never one that starts with "_" or is in exclude. All are set on
        .ema; those that can be written as JSON also travel with the averages as attributes. Where these are too many
        bytes for that (32768 in all) there is a warning, and those that travelled so far go on to.
        """
        before = dict(self._metadata)
        included, excluded = set(include), {*exclude, "training"}
        inner = unwrap(model)
        found = dict(inner.__dict__)
        if included and inner is not model:
            found.update(model.__dict__)  # attributes are often set on the wrapper
        for key, value in found.items():
            if (included and key not in included) or key.startswith("_") or key in excluded:
                continue
            self._attributes[key] = value
            plain = plain_attribute(value)
            if plain is not None:
                self._metadata[key] = plain
        if self._mirror.module is not None:
            self._set_attributes(self._mirror.module)
        self._metadata_unsent = True
        try:
            self._send_metadata()
        except LimitError as error:
            self._metadata = before
            warnings.warn(f"emad: '{self.name}': {error}; training goes on", RuntimeWarning, stacklevel=2)

    def state_dict(self) -> Dict[str, Any]:
        """The averaged weights and the count of updates, to resume from where no daemon remembers them."""
        return {"ema": self._averages(), "updates": self._updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Begins the average anew, at the weights and the count that state_dict() gave.

        The daemon's model of this name is replaced. The start has the precision of the model's own dtypes. A schedule
        other than yolo counts its calls from 1 again.
        """
        self._begin_anew(self._start_of(self._values_of(state_dict["ema"])), int(state_dict["updates"]))
        self._mirror.key = (0, 0)

    def __getstate__(self) -> None:
        raise TypeError("a ModelEMA cannot be copied or pickled: use .state_dict(), or copy .ema")

    def _specifications(self, updates: int) -> Dict[str, str]:
        schedule = self._schedule
        if schedule is None:
            schedule = f"yolo:decay={self.decay!r},tau={self.tau!r}" + (f",updates={updates}" if updates else "")
        return {self.profile: schedule, **self._more_profiles}

    def _mirror_make(self, module: torch.nn.Module) -> torch.nn.Module:
        module.eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        self._set_attributes(module)
        return module

    def _set_attributes(self, module: torch.nn.Module) -> None:
        for key, value in self._attributes.items():
            setattr(module, key, value)
