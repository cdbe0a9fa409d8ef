"""Client: the connection to a daemon."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import warnings
import weakref
from ctypes import byref, c_uint64, c_void_p
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Union

from . import _library
from ._errors import ClosedError
from ._library import CDaemon, CExportInfo, CExportOptions, milliseconds
from ._tensors import Piece, served_name, served_number
from ._trainer import Profiles, Trainer, _in_slices, step_number
from ._view import View


class Daemon(NamedTuple):
    """Who answers."""

    agent: str
    instance: int
    """Differs after every start of the daemon."""
    pid: int
    uptime: float
    """Seconds."""
    round_trip: float
    """Seconds that the question took."""


class Exported(NamedTuple):
    """What an export has written."""

    version: int
    step: int
    updates: int
    decay: float
    bytes: int
    overflow_count: int = 0
    """Values that were finite and, too large for the dtype asked for, are infinite now, or 448 in F8_E4M3."""
    overflow_tensor: Optional[str] = None
    """The first tensor with such a value."""


class _Handle:
    """The library's client. Trainers and views hold on to it, so that it is closed after them."""

    def __init__(self, library: ctypes.CDLL, pointer: c_void_p):
        self.pointer = pointer
        self.close = weakref.finalize(self, library.emad_client_close, pointer)
        self.close.atexit = False  # other threads may be using it; the end of the process closes it


class Client:
    """A connection to the daemon, for any number of trainers and views, from any number of threads.

    url: "ipc:///run/emad/emad.sock", or a path. None: the environment's EMAD_SOCKET, else the system's daemon.
    timeout: seconds that any call may take unless it is given its own.

    The connection comes back by itself after the daemon was away. A child that was forked while its parent used emad
    gets a ForkedError, from a client of its own too: it must exec first, as multiprocessing does with "spawn" and
    "forkserver".
    """

    def __init__(self, url: Optional[str] = None, timeout: float = 10.0):
        library = _library.load()
        self.url = url
        self.timeout = 10.0 if timeout is None else timeout
        pointer = c_void_p()
        _library.check(
            library.emad_client_open(
                None if url is None else _library.text(url, "url"), milliseconds(self.timeout), byref(pointer)
            )
        )
        self._library = library
        self._handle: _Handle = _Handle(library, pointer)
        self._lock = threading.Lock()
        self._open: "weakref.WeakSet[Union[Trainer, View]]" = weakref.WeakSet()
        self._is_closed = False

    def trainer(
        self,
        model: str,
        tensors: Mapping[str, Any],
        *,
        profiles: Profiles = None,
        attributes: Optional[Mapping[str, Any]] = None,
        start_step: int = 0,
        resume: str = "auto",
        rank: int = 0,
        world: int = 1,
        pieces: Optional[Mapping[str, Piece]] = None,
        buffers: Optional[Iterable[str]] = None,
        timeout: Optional[float] = None,
    ) -> Trainer:
        """Registers a model, or this rank of it.

        tensors: names and NumPy arrays or torch tensors. A model of that name with the same names, dtypes and shapes
        is continued (Trainer.resumed, Trainer.last_step); otherwise these values are the start of its averages, at
        start_step. resume="never" replaces a model of that name, resume="must" raises NoModelError when there is none.
        profiles: {"ema": "yolo:decay=0.999"}, up to 16; None: {"ema": "yolo"}.
        attributes: what can be written as JSON; it travels with the averages.
        buffers: the names of tensors that are state but are not trained (running means, counters); schedules treat
        them as their library of origin does.
        rank, world, pieces: a model that is spread over several processes; pieces says for each tensor of which this
        rank holds a part where that part lies.
        """
        opened = Trainer(
            self,
            model,
            tensors,
            profiles=profiles,
            attributes=attributes,
            start_step=start_step,
            resume=resume,
            rank=rank,
            world=world,
            pieces=pieces,
            buffers=buffers,
            timeout=timeout,
        )
        self._remember(opened)
        return opened

    def view(
        self,
        model: str,
        profile: Optional[str] = None,
        min_step: Optional[int] = None,
        timeout: Optional[float] = None,
        dtype: Any = None,
    ) -> View:
        """Opens the newest version of a profile (None: the model's first) for reading in place.

        min_step: waits for a version of that step or later, for timeout seconds at most.
        dtype: torch.bfloat16, "bf16", a NumPy dtype: floating-point tensors that are kept in another one are served as
        converted copies, each value rounded once. None: all as they are kept.
        """
        served = served_number(dtype)
        arguments = (
            self._pointer(),
            _library.text(model, "model"),
            None if profile is None else _library.text(profile, "profile"),
            step_number(min_step or 0),
        )
        handle = c_void_p()
        if min_step:
            _in_slices(
                lambda slice_ms: self._library.emad_view_open(*arguments, slice_ms, byref(handle)),
                self.timeout if timeout is None else timeout,
                _library.check,
            )
        else:
            _library.check(self._library.emad_view_open(*arguments, milliseconds(timeout), byref(handle)))
        view = View(self, model, profile, handle, served)
        self._remember(view)
        return view

    def export(
        self,
        model: str,
        profile: Optional[str],
        path: Union[str, "os.PathLike[str]"],
        min_step: Optional[int] = None,
        timeout: Optional[float] = None,
        progress: Optional[Callable[[int, int], Any]] = None,
        dtype: Any = None,
    ) -> Exported:
        """Writes a profile to a safetensors file. On any failure the file is as it was.

        progress: called now and then with the bytes written and the bytes in all; what it raises stops the export.
        dtype: torch.bfloat16, "bf16", a NumPy dtype: all floating-point tensors are converted to it, each value rounded
        once. A RuntimeWarning tells of values that are too large for it; see Exported.overflow_count.
        """
        raised = []

        def report(_context: Any, done_bytes: int, total_bytes: int) -> int:
            try:
                if progress is not None:
                    progress(done_bytes, total_bytes)
                return 0
            except BaseException as error:  # KeyboardInterrupt too: ctypes would drop it
                raised.append(error)
                return 1

        served = served_number(dtype)
        options = CExportOptions(
            step_number(min_step or 0), milliseconds(timeout), served, _library.PROGRESS(report), None
        )
        info = CExportInfo()
        code = self._library.emad_export(
            self._pointer(),
            _library.text(model, "model"),
            None if profile is None else _library.text(profile, "profile"),
            os.fsencode(path),
            byref(options),
            byref(info),
        )
        if raised:
            raise raised[0]
        _library.check(code)
        exported = Exported(
            info.version,
            info.step,
            info.updates,
            info.decay,
            info.file_bytes,
            info.overflow_count,
            info.overflow_tensor.decode() or None,
        )
        if exported.overflow_count:
            warnings.warn(
                f"emad: {exported.overflow_count} values of '{model}' are too large for {served_name(served)} and are "
                f"{'448' if served_name(served) == 'F8_E4M3' else 'infinite'} in {os.fspath(path)!r}, the first of "
                f"them in tensor '{exported.overflow_tensor}'",
                RuntimeWarning,
                stacklevel=2,
            )
        return exported

    def ping(self, timeout: Optional[float] = None) -> Daemon:
        """Asks the daemon who it is."""
        found = CDaemon()
        _library.check(self._library.emad_hello(self._pointer(), milliseconds(timeout), byref(found)))
        return Daemon(
            found.agent.decode(errors="replace"),
            found.instance,
            found.pid,
            found.uptime_ms / 1e3,
            found.round_trip_us / 1e6,
        )

    def status(self, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Facts about the daemon."""
        return self._json(self._library.emad_status_json, (), timeout)

    def list(self, timeout: Optional[float] = None) -> Any:
        """Facts about all models."""
        return self._json(self._library.emad_list_json, (), timeout)

    def show(self, model: str, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Facts about one model: its profiles, ranks, versions and tensors."""
        return self._json(self._library.emad_show_json, (_library.text(model, "model"),), timeout)

    def remove(self, model: str, timeout: Optional[float] = None) -> int:
        """Forgets a model; returns the bytes freed. Views that are open stay readable."""
        freed = c_uint64()
        _library.check(
            self._library.emad_remove(
                self._pointer(), _library.text(model, "model"), milliseconds(timeout), byref(freed)
            )
        )
        return freed.value

    def close(self) -> None:
        """Closes the connection with its trainers and views. No other thread may be using them."""
        with self._lock:
            self._is_closed = True
            for opened in list(self._open):
                opened.close()
            self._handle.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<emad.Client {self.url or 'default'}{': closed' if self._is_closed else ''}>"

    def _pointer(self) -> c_void_p:
        if self._is_closed:
            raise ClosedError("the client is closed")
        return self._handle.pointer

    def _remember(self, opened: Union[Trainer, View]) -> None:
        with self._lock:
            if self._is_closed:
                opened.close()
                raise ClosedError("the client was closed meanwhile")
            self._open.add(opened)

    def _json(self, function: Any, arguments: tuple, timeout: Optional[float]) -> Any:
        pointer = c_void_p()
        _library.check(function(self._pointer(), *arguments, milliseconds(timeout), byref(pointer)))
        return json.loads(_library.take_string(self._library, pointer))
