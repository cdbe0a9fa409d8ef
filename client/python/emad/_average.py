"""Average: what the drop-ins of emad.torch have in common.

A drop-in keeps the averages of tensors that lie at known places (see Places). It registers them under a name, hands a
snapshot over at every update, and reads the averages back from the daemon. It decides itself what it calls all that.
"""

from __future__ import annotations

import ctypes
import logging
import operator
import os
import time
import warnings
import weakref
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

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
from ._modules import canonical_name
from ._optimizers import call_before_steps
from ._tensors import settle

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


class Average:
    """The part of a drop-in that talks to the daemon.

    The daemon's troubles never stop a training: there is one warning, and averaging resumes when it can.
    """

    name: str
    """Of the model at the daemon."""
    profile: str
    """The name of the average that is read."""

    def _specifications(self, updates: int) -> Dict[str, str]:
        """The profiles to register when that many updates have been made already."""
        raise NotImplementedError

    def _connect(
        self,
        places: Any,
        *,
        name: Optional[str],
        default_name: Callable[[], str],
        profile: str,
        updates: int = 0,
        attributes: Optional[Mapping[str, Any]] = None,
        optimizer: Union[torch.optim.Optimizer, Iterable[torch.optim.Optimizer], None] = None,
        client: Optional[Client] = None,
        url: Optional[str] = None,
        timeout: float = 10.0,
        resume: Optional[str] = None,
        choices: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """What every constructor does at its end. The arguments mean what ModelEMA's do."""
        self.name = default_name() if name is None else name
        self.profile = profile
        self._metadata: Dict[str, Any] = dict(attributes or {})
        self._metadata_unsent = False
        self._choices: Dict[str, Any] = dict(choices or {})  # further arguments of Client.trainer

        self._updates = updates = operator.index(updates)
        self._warned = False  # of the trouble that goes on
        self._restart_count = 0
        self._pause_until = 0.0
        self._vain_waits = 0

        self._places = places
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

    def save(
        self, path: Union[str, "os.PathLike[str]"], profile: Optional[str] = None, dtype: Any = None
    ) -> Exported:
        """Writes the average to a safetensors file, by way of a temporary file beside it.

        dtype: of all floating-point tensors in the file, for example torch.bfloat16; None: as the average is kept.
        """
        self.flush()
        return self._client.export(self.name, profile or self.profile, path, dtype=dtype)

    def close(self) -> None:
        """Lets go of the model at the daemon, which keeps the average. Optimizers wait no longer."""
        for remove in self._hooks:
            remove()
        self._hooks = []
        self._is_asynchronous = False
        self._trainer.close()
        if self._has_own_client:
            self._client.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> None:
        raise TypeError(f"{self!r} cannot be copied or pickled: use its .state_dict()")

    def __repr__(self) -> str:
        return f"<emad.torch.{type(self).__name__} {self.name!r}: {self._updates} updates>"

    # Registration

    def _register(self, start: Mapping[str, torch.Tensor], updates: int, resume: str) -> None:
        places = self._places.places
        self._trainer = self._client.trainer(
            self.name,
            start,
            profiles=self._specifications(updates),
            attributes=self._metadata or None,
            start_step=updates,
            resume=resume,
            **self._choices,
            buffers=[place.name for place in places if place.is_buffer],
        )
        self._restart_count = 0
        # Addresses at which a direct source was seen; -1: it has to be taken anew.
        self._addresses = [-1] * len(places)

    def _begin_anew(
        self, start: Mapping[str, torch.Tensor], updates: int, seed: Optional[Mapping[str, torch.Tensor]] = None
    ) -> None:
        """Replaces the daemon's model of this name by one that starts at these weights and this count.

        seed: the average as it is to be, with its counter at that count; without it the schedule counts from 1 again,
        unless its specification says otherwise.
        """
        self.fence()
        before = self._trainer
        self._register(start, updates, "never")
        before.close()
        if seed is not None:
            self._trainer.seed(self.profile, seed, updates=updates, step=updates)
        self._updates = updates

    def _bind(self, places: Any) -> None:
        """Other places, to be read from now on: the tensors must be of the same names."""
        self.fence()
        here = {canonical_name(place.name) for place in places.places}
        registered = {canonical_name(source.name): i for i, source in enumerate(self._trainer._sources)}
        for name in registered:
            if name not in here:
                raise ManifestError(f"tensor '{name}' of '{self.name}' is no longer in the model")
        for name in here:
            if name not in registered:
                raise ManifestError(f"tensor '{name}' of the model was not there when '{self.name}' was registered")
        places.places.sort(key=lambda place: registered[canonical_name(place.name)])
        self._places = places
        self._addresses = [-1] * len(here)

    # Pushing

    def _update(self, loss: Optional[float] = None, metadata: Optional[Mapping[str, Any]] = None) -> None:
        """Counts an update and hands the tensors over as they are."""
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

    def _gather(self) -> None:
        """Brings the addresses of all tensors up to date, copying those that cannot be read later."""
        addresses = self._addresses
        sources = self._trainer._sources
        copies_buffers = self._is_asynchronous
        changed: List[int] = []
        index = 0
        for name, table, key, is_buffer in self._places.places:
            try:
                tensor = table[key]
                address = tensor.data_ptr()
                is_dense = tensor.is_contiguous()
            except (KeyError, AttributeError):
                raise ManifestError(f"tensor '{name}' of '{self.name}' is no longer in the model") from None
            # Its source keeps the storage alive, so an equal address is the same memory, and of the same dtype. What is
            # not dense there has been transposed since.
            if address != addresses[index] or not is_dense:
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
            tensor = place.table[place.key].detach()  # a source must not keep a parameter alive
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
                stacklevel=4,
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
                stacklevel=4,
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


def _fence(reference: "weakref.ref[Average]") -> None:
    average = reference()
    if average is not None:
        average.fence()
