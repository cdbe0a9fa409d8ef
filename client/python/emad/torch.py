"""ModelEMA: the usual class of that name, with the average kept by the daemon.

The average is that of the YOLO class to the last bit (float32): the shadow starts as a copy of the state, every
floating-point entry becomes v*d + (1-d)*m with d = decay*(1 - exp(-n/tau)), integer entries stay as they were at the
start. What differs is where it is computed: update() hands over a snapshot and returns.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import logging
import operator
import os
import time
import warnings
import weakref
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

import torch

from ._client import Client, Exported
from ._errors import (
    AwayError,
    BusyError,
    Error,
    InternalError,
    LimitError,
    ManifestError,
    NoModelError,
    OutOfMemoryError,
    ProtocolError,
    RefusedError,
    RevokedError,
    ShutdownError,
    SystemCallError,
    TimeoutError,
)
from ._modules import Places, Swapped, canonical_name, default_name, plain_attribute, stamp, unwrap
from ._optimizers import call_before_steps
from ._tensors import settle
from ._trainer import Guards

__all__ = ["ModelEMA"]

# Troubles of the daemon, which must not stop a training. What remains are mistakes, which must.
_TROUBLES = (
    AwayError, BusyError, InternalError, LimitError, NoModelError, OutOfMemoryError, ProtocolError, ShutdownError,
    SystemCallError, TimeoutError,
)  # fmt: skip

# A daemon that does not answer keeps every push waiting in vain. From the second such wait in a row on none is tried
# for 2, 4, 8, ... times as long as was waited. Failing at once, as while the daemon is away, costs nothing: no pause.
_WAIT_SECONDS_MIN = 0.1
_PAUSE_SECONDS_MAX = 60.0
_REVOKED_RETRIES = 8

_log = logging.getLogger("emad")


class ModelEMA:
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
    rewind, policy, guards: as of Client.trainer. Updates that were missed count as calls of the schedule all the same.
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
    ):
        self.decay = float(decay)
        self.tau = float(tau)
        self.profile = profile
        self.name = default_name(unwrap(model)) if name is None else name
        self._schedule = schedule
        self._more_profiles = dict(profiles or {})
        self._choices: Dict[str, Any] = {"rewind": rewind, "policy": policy, "guards": guards}
        self._attributes: Dict[str, Any] = {}
        self._metadata: Dict[str, Any] = dict(attributes or {})
        self._metadata_unsent = False

        self._updates = updates = operator.index(updates)
        self._warned = False  # of the trouble that goes on
        self._restart_count = 0
        self._pause_until = 0.0
        self._vain_waits = 0
        self._mirror: Optional[torch.nn.Module] = None
        self._mirror_key: Tuple[int, int] = (0, 0)  # version and step of what the mirror holds
        self._mirror_stamp = 0

        self._model_seen = model
        self._places = Places(unwrap(model))
        self._has_own_client = client is None
        self._client = Client(url, timeout) if client is None else client
        try:
            if resume is None:
                resume = "never" if name is None else "auto"
            self._register(self._places.tensors(), updates, resume)
            if self._trainer.resumed and self._trainer.version:
                self._updates = self._trainer.last_step
            reference = weakref.ref(self)  # the optimizer must not keep the average alive
            self._hooks = call_before_steps(optimizer, lambda: _fence(reference))
        except BaseException:
            if self._has_own_client:
                self._client.close()
            raise
        self._is_asynchronous = bool(self._hooks)

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
        if model is not self._model_seen or not self._places.are_current():
            self._bind(model)
        self._updates += 1
        began = time.monotonic()
        if began < self._pause_until:
            return
        try:
            handle = self._trainer._open_handle()
            if self._trainer._in_flight:
                self._collect()
            self._gather()
            with self._trainer._enclosing(handle, loss, metadata):
                if self._is_asynchronous:
                    self._trainer._push_begin(handle, self._updates)
                    return  # how it went is known at the fence
                self._trainer._push(handle, self._updates, 0, None)
        except _TROUBLES as error:
            self._in_trouble(error, time.monotonic() - began)
        else:
            self._in_health()

    def fence(self) -> None:
        """Waits until the weights of the last update have been copied; then they may be changed.

        An optimizer that was given to the constructor does this by itself.
        """
        if self._trainer._in_flight:
            self._collect()

    def flush(self, timeout: Optional[float] = None) -> None:
        """Waits until all updates are in the average. Warns of those that were refused or lost."""
        self.fence()
        try:
            self._flush(timeout)
        except TimeoutError:
            raise
        except _TROUBLES as error:  # mostly that of an earlier push, told once
            self._in_trouble(error, 0.0)
            self._flush(timeout)
        self._in_health()

    @property
    def updates(self) -> int:
        """How often update() was called, counting those before the start.

        Assigning it begins the average anew at that count, with the weights that .ema holds: so the usual resume
        (`ema.ema.load_state_dict(...)`, then `ema.updates = n`) works. load_state_dict does both in one.
        """
        return self._updates

    @updates.setter
    def updates(self, updates: int) -> None:
        if self._mirror is None or self._mirror_stamp == stamp(self._mirror):
            self._refresh()  # the caller has not put weights of his own into it
        assert self._mirror is not None
        self.load_state_dict({"ema": self._mirror.state_dict(), "updates": updates})

    @property
    def ema(self) -> torch.nn.Module:
        """A copy of the model (without wrappers) with the averaged weights, in eval mode.

        Always the same module; asking for it waits for the updates so far and brings it up to date.
        """
        self._refresh()
        assert self._mirror is not None
        return self._mirror

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

    def update_attr(
        self,
        model: torch.nn.Module,
        include: Iterable[str] = (),
        exclude: Iterable[str] = ("process_group", "reducer"),
    ) -> None:
        """Copies plain attributes of the model (names, nc, stride, yaml, ...) beside the weights.

        Those in include if it is not empty, else all; never one that starts with "_" or is in exclude. All are set on
        .ema; those that can be written as JSON also travel with the averages as attributes.
        """
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
        self._set_attributes()
        self._metadata_unsent = True
        self._send_metadata()

    def state_dict(self) -> Dict[str, Any]:
        """The averaged weights and the count of updates, to resume from where no daemon remembers them."""
        state: "OrderedDict[str, torch.Tensor]" = OrderedDict()
        by_canonical = {canonical_name(place.name): place.name for place in self._places.places}

        def take(view_state: Mapping[str, torch.Tensor]) -> None:
            state.clear()
            for name in by_canonical:
                if name in view_state:
                    state[by_canonical[name]] = view_state[name].clone()

        self._read(None, take)
        return {"ema": state, "updates": self._updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Begins the average anew, at the weights and the count that state_dict() gave.

        The daemon's model of this name is replaced. The start has the precision of the model's own dtypes. A schedule
        other than yolo counts its calls from 1 again.
        """
        updates = int(state_dict["updates"])
        given = {canonical_name(name): tensor for name, tensor in state_dict["ema"].items()}
        start = {}
        for place in self._places.places:
            tensor = place.table[place.key]
            value = given.pop(canonical_name(place.name), tensor)  # what the profile does not hold
            if tuple(value.shape) != tuple(tensor.shape):
                raise ManifestError(
                    f"tensor '{place.name}' has shape {list(value.shape)} in the state, but {list(tensor.shape)} here"
                )
            start[place.name] = value.detach().to(dtype=tensor.dtype, device="cpu", copy=True).contiguous()
        if given:
            raise ManifestError(f"tensor '{next(iter(given))}' of the state is not among those of the model")
        self.fence()
        before = self._trainer
        self._register(start, updates, "never")
        before.close()
        self._updates = updates
        self._mirror_key = (0, 0)

    def save(self, path: Union[str, "os.PathLike[str]"], profile: Optional[str] = None) -> Exported:
        """Writes the average to a safetensors file, by way of a temporary file beside it."""
        self.flush()
        return self._client.export(self.name, profile or self.profile, path)

    def close(self) -> None:
        """Lets go of the model at the daemon, which keeps the average. Optimizers wait no longer."""
        for remove in self._hooks:
            remove()
        self._hooks = []
        self._is_asynchronous = False
        self._trainer.close()
        if self._has_own_client:
            self._client.close()

    def __enter__(self) -> "ModelEMA":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> None:
        raise TypeError("a ModelEMA cannot be copied or pickled: use .state_dict(), or copy .ema")

    def __repr__(self) -> str:
        return f"<emad.torch.ModelEMA {self.name!r}: {self._updates} updates>"

    # Registration

    def _register(self, start: Mapping[str, torch.Tensor], updates: int, resume: str) -> None:
        schedule = self._schedule
        if schedule is None:
            schedule = f"yolo:decay={self.decay!r},tau={self.tau!r}" + (f",updates={updates}" if updates else "")
        places = self._places.places
        self._trainer = self._client.trainer(
            self.name,
            start,
            profiles={self.profile: schedule, **self._more_profiles},
            attributes=self._metadata or None,
            start_step=updates,
            resume=resume,
            **self._choices,
            buffers=[place.name for place in places if place.is_buffer],
        )
        self._restart_count = 0
        # Addresses at which a direct source was seen; -1: it has to be taken anew.
        self._addresses = [-1] * len(places)

    def _bind(self, model: torch.nn.Module) -> None:
        """Another model object, or a model whose modules have been exchanged: the tensors must be of the same names."""
        self.fence()
        places = Places(unwrap(model))
        here = {canonical_name(place.name) for place in places.places}
        registered = {canonical_name(source.name): i for i, source in enumerate(self._trainer._sources)}
        for name in registered:
            if name not in here:
                raise ManifestError(f"tensor '{name}' of '{self.name}' is no longer in the model")
        for name in here:
            if name not in registered:
                raise ManifestError(f"tensor '{name}' of the model was not there when '{self.name}' was registered")
        places.places.sort(key=lambda place: registered[canonical_name(place.name)])
        self._model_seen = model
        self._places = places
        self._addresses = [-1] * len(here)

    # Pushing

    def _gather(self) -> None:
        """Brings the addresses of all tensors up to date, copying those that cannot be read later."""
        addresses = self._addresses
        sources = self._trainer._sources
        copies_buffers = self._is_asynchronous
        changed: List[int] = []
        index = 0
        for name, table, key, is_buffer in self._places.places:
            try:
                address = table[key].data_ptr()
            except (KeyError, AttributeError):
                raise ManifestError(f"tensor '{name}' of '{self.name}' is no longer in the model") from None
            # Its source keeps the storage alive, so an equal address is the same memory, and of the same dtype.
            if address != addresses[index]:
                changed.append(index)
            elif is_buffer and copies_buffers:
                source = sources[index]
                ctypes.memmove(source.address, address, source.bytes)
            index += 1
        if changed:
            self._take(changed)

    def _take(self, indices: List[int]) -> None:
        trainer = self._trainer
        for index in indices:
            place, source = self._places.places[index], trainer._sources[index]
            tensor = place.table[place.key]
            copies = place.is_buffer and self._is_asynchronous
            source.take(tensor, copy=copies)
            trainer._pointers[index] = source.address
            self._addresses[index] = -1
            if source.is_direct:
                self._addresses[index] = source.address
            elif copies and source.bytes and tensor.device.type == "cpu" and tensor.is_contiguous():
                self._addresses[index] = tensor.data_ptr()  # dense: the next copy is a memmove
        settle([trainer._sources[index] for index in indices])

    def _collect(self) -> None:
        """The end of an asynchronous copy: afterwards the weights may change."""
        began = time.monotonic()
        try:
            self._trainer.fence()
        except _TROUBLES as error:
            self._in_trouble(error, time.monotonic() - began)
        else:
            self._in_health()

    def _flush(self, timeout: Optional[float]) -> None:
        try:
            self._trainer.flush(timeout)
        except RefusedError as error:
            warnings.warn(f"emad: '{self.name}': {error}; the average goes on without", RuntimeWarning, stacklevel=4)
        except NoModelError:
            pass  # lost with what was pushed to it, and registered again: _in_health warns

    def _in_trouble(self, error: Error, waited: float) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"emad: at update {self._updates} '{self.name}' could not be averaged: {error}; training goes on, "
                "averaging resumes when it can",
                RuntimeWarning,
                stacklevel=3,
            )
        if waited < _WAIT_SECONDS_MIN:
            return
        if self._vain_waits:
            pause = min(waited * 2 ** min(self._vain_waits, 16), _PAUSE_SECONDS_MAX)
            self._pause_until = time.monotonic() + pause
        self._vain_waits += 1

    def _in_health(self) -> None:
        restart_count = self._trainer._facts().restart_count
        if restart_count != self._restart_count:
            self._restart_count = restart_count
            warnings.warn(
                f"emad: the daemon had lost '{self.name}': its average begins anew with the weights of update "
                f"{self._updates}",
                RuntimeWarning,
                stacklevel=3,
            )
        elif self._warned:
            _log.info("'%s' is averaged again, from update %d on", self.name, self._updates)
        self._warned = False
        self._vain_waits = 0
        if self._metadata_unsent:
            self._send_metadata()

    def _send_metadata(self) -> None:
        self._metadata_unsent = False
        try:
            self._trainer.set_attributes(self._metadata)
        except LimitError:
            raise
        except _TROUBLES as error:
            self._metadata_unsent = True  # with the next update that works
            self._in_trouble(error, 0.0)

    # Reading

    def _read(
        self,
        profile: Optional[str],
        copy_out: Callable[[Mapping[str, torch.Tensor]], None],
        known: Tuple[int, int] = (0, 0),
    ) -> Tuple[int, int]:
        """Hands the newest averages to copy_out, unless they are the known ones. Returns version and step."""
        self.flush()
        for attempt in range(_REVOKED_RETRIES):
            try:
                with self._client.view(self.name, profile or self.profile) as view:
                    key = (view.version, view.step)
                    if key != known:
                        with torch.no_grad():
                            copy_out(view.state_dict())
                        view.check()
                    return key
            except RevokedError:
                if attempt == _REVOKED_RETRIES - 1:
                    raise
        raise AssertionError("not reached")

    def _refresh(self) -> None:
        if self._mirror is None:
            self.fence()
            mirror = copy.deepcopy(self._places.module).eval()
            for parameter in mirror.parameters():
                parameter.requires_grad_(False)
            self._mirror = mirror
            self._set_attributes()
        mirror_places = Places(self._mirror).places

        def fill(state: Mapping[str, torch.Tensor]) -> None:
            self._mirror_key = (0, 0)  # until it is whole again
            for place in mirror_places:
                value = state.get(canonical_name(place.name))
                if value is not None:
                    place.table[place.key].copy_(value)

        self._mirror_key = self._read(None, fill, self._mirror_key)
        self._mirror_stamp = stamp(self._mirror)

    def _set_attributes(self) -> None:
        if self._mirror is not None:
            for key, value in self._attributes.items():
                setattr(self._mirror, key, value)


def _lend(swapped: Swapped, places: List[Any], state: Mapping[str, torch.Tensor]) -> None:
    swapped.restore()  # of an attempt whose view was revoked
    for place in places:
        value = state.get(canonical_name(place.name))
        if value is not None:
            swapped.put(place.table[place.key], value)


def _fence(reference: "weakref.ref[ModelEMA]") -> None:
    ema = reference()
    if ema is not None:
        ema.fence()
