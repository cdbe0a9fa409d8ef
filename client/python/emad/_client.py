"""Client: the connection to a daemon."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import warnings
import weakref
from ctypes import byref, c_char_p, c_uint64, c_void_p
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, NamedTuple, Optional, Union

from . import _library, _watch
from ._errors import ClosedError
from ._library import CClientOptions, CDaemon, CExportInfo, CExportOptions, CRange, CRolledBack, CViewInfo
from ._library import CViewOptions, milliseconds
from ._tensors import Piece, served_name, served_number
from ._trainer import Guards, Profiles, Trainer, _in_slices, count_number, specifications_of, step_number
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


class ImagePart(NamedTuple):
    """Bytes of an image, and which version they are of."""

    data: bytes
    version: int
    step: int
    updates: int
    image_bytes: int
    """Of the whole."""


class RolledBack(NamedTuple):
    """Which version an average went back to."""

    version: int
    """The newest of all now, under its new number."""
    step: int
    updates: int
    step_before: int
    """Of what was the newest."""
    taken: int
    """The number that it had; the same as version where nothing was to be done."""
    source: str
    """"memory" or "disk"."""


class _Handle:
    """The library's client. Trainers and views hold on to it, so that it is closed after them."""

    def __init__(self, library: ctypes.CDLL, pointer: c_void_p):
        self.pointer = pointer
        self.close = weakref.finalize(self, library.emad_client_close, pointer)
        self.close.atexit = False  # other threads may be using it; the end of the process closes it


class Client:
    """A connection to the daemon, for any number of trainers and views, from any number of threads.

    url: "ipc:///run/emad/emad.sock", or a path. None: the environment's EMAD_SOCKET, else the system's daemon.
    timeout: seconds that any call may take unless it is given its own; a daemon that does not answer is given up a
    second after that.
    token_file, tls_...: for a daemon on another host ("tcp://HOST:PORT", "tls+tcp://HOST:PORT"): the client's token, the
    authority that the daemon's certificate is from, the client's own certificate and its key, all files; and the name in
    the daemon's certificate where it is not the url's. None: the environment's EMAD_TOKEN_FILE, EMAD_TLS_CA,
    EMAD_TLS_CERTIFICATE, EMAD_TLS_KEY and EMAD_TLS_NAME.

    The connection comes back by itself after the daemon was away. A child that was forked while its parent used emad
    gets a ForkedError, from a client of its own too: it must exec first, as multiprocessing does with "spawn" and
    "forkserver".
    """

    def __init__(
        self,
        url: Optional[str] = None,
        timeout: float = 10.0,
        *,
        token_file: Union[str, os.PathLike, None] = None,
        tls_ca: Union[str, os.PathLike, None] = None,
        tls_certificate: Union[str, os.PathLike, None] = None,
        tls_key: Union[str, os.PathLike, None] = None,
        tls_name: Optional[str] = None,
    ):
        library = _library.load()
        files = (token_file, tls_ca, tls_certificate, tls_key, tls_name)
        options = CClientOptions(*(None if file is None else os.fsencode(file) for file in files))
        self.url = url
        self.timeout = 10.0 if timeout is None else timeout
        pointer = c_void_p()
        _library.check(
            library.emad_client_open_with(
                None if url is None else _library.text(url, "url"),
                milliseconds(self.timeout),
                byref(options),
                byref(pointer),
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
        rewind: str = "refuse",
        policy: str = "block",
        stride: Optional[int] = None,
        guards: Guards = None,
        rank: int = 0,
        world: int = 1,
        pieces: Optional[Mapping[str, Piece]] = None,
        buffers: Optional[Iterable[str]] = None,
        timeout: Optional[float] = None,
        wire: Any = None,
    ) -> Trainer:
        """Registers a model, or this rank of it.

        tensors: names and NumPy arrays or torch tensors. A model of that name with the same names, dtypes and shapes
        is continued (Trainer.resumed, Trainer.last_step); otherwise these values are the start of its averages, at
        start_step. resume="never" replaces a model of that name, resume="must" raises NoModelError when there is none,
        and resume="adapt" continues it whatever the tensors, profiles and world are: tensors of the same name and shape
        go on from their average, new ones start with the next push, and Trainer.report says what was new and what is
        gone.
        profiles: {"ema": "yolo:decay=0.999"}, up to 16; None: {"ema": "yolo"}; {}: those that the daemon's settings have
        for the model. Rules may follow for tensors that are to be treated otherwise than the schedule's library does,
        the first that matches wins:
        {"ema": "yolo;copy=*.running_*;average@0.99=lora_*;drop=head.*"}. The same as a list: ["ema=yolo;drop=head.*"].
        rewind: what it means that the model is averaged up to start_step or further, because training went back to an
        older checkpoint. "refuse": pushes are stale until training is ahead again; "continue": the average stays as it
        is and goes on; "back": it goes back to the newest version before start_step that the daemon still has in memory
        or on disk (NoVersionError, which says what there is).
        policy: what a push does while all stages wait to be applied: "block" waits for one, for its timeout at most;
        "skip" returns at once with the outcome "skipped"; "coalesce" gives up an older snapshot. Either way the next
        snapshot that is applied stands for the calls of those before it.
        stride: steps from one call of the schedules to the next. A trainer that pushes every 10th step passes 10, one
        that counts images the batch size; a distance of k strides between two pushes counts as k calls. None: what the
        daemon's settings say for the model, else 1.
        guards: what a snapshot must satisfy, "nonfinite=skip-tensor,loss_max=10,norm_jump=5" or the same as a mapping.
        nonfinite: refuse (the default), skip-tensor (those tensors keep their average) or apply; loss_max: of the loss
        that a push carries; norm_jump: the relative change of a tensor's L2 norm from one snapshot to the next.
        attributes: what can be written as JSON; it travels with the averages.
        buffers: the names of tensors that are state but are not trained (running means, counters); schedules treat
        them as their library of origin does.
        rank, world, pieces: a model that is spread over several processes; pieces says for each tensor of which this
        rank holds a part where that part lies.
        timeout: seconds; None: the client's, but at least a minute, because much memory takes its time.
        wire: "bf16", "f16" or "f32", or such a torch or NumPy dtype: over tcp:// and tls+tcp:// floating-point values that
        are wider travel in it, each rounded once, with half of the bytes for float32; the average is that of the
        rounded values. Other tensors, and a seed, travel as they are. Not looked at where memory is shared.

        ManifestError and ProfileError name the first difference to the model that is there; ScheduleError, NameError,
        LimitError, ArgumentError (guards); OutOfMemoryError says what is needed and what there is; RefusedError: the
        start is not finite; NoModelError, AwayError, TimeoutError.
        """
        opened = Trainer(
            self,
            model,
            tensors,
            profiles=profiles,
            attributes=attributes,
            start_step=start_step,
            resume=resume,
            rewind=rewind,
            policy=policy,
            stride=stride,
            guards=guards,
            rank=rank,
            world=world,
            pieces=pieces,
            buffers=buffers,
            timeout=timeout,
            wire=wire,
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
        tensors: Union[str, Iterable[str], None] = None,
    ) -> View:
        """Opens the newest version of a profile (None: the model's first) for reading in place; over tcp, copies it.

        min_step: waits for a version of that step or later, for timeout seconds at most.
        dtype: torch.bfloat16, "bf16", a NumPy dtype: floating-point tensors that are kept in another one are served as
        converted copies, each value rounded once. None: all as they are kept. Over tcp the daemon converts what gets
        shorter by it, so that fewer bytes travel.
        tensors: the only tensors that the view is to have: a name or a pattern (head.*, with ? and [a-z] as well), or
        several. Over tcp nothing else travels but the image's header. An emad.SystemCallError says the nearest name when
        one of them means none.
        """
        served = served_number(dtype)
        texts = None if tensors is None else [tensors] if isinstance(tensors, str) else list(tensors)
        options = CViewOptions(step_number(min_step or 0), milliseconds(timeout), served)
        if texts is not None:
            options.tensors = (c_char_p * max(1, len(texts)))(*(_library.text(text, "a tensor") for text in texts))
            options.tensor_count = len(texts)
        handle = c_void_p()
        arguments = (
            self._pointer(),
            _library.text(model, "model"),
            None if profile is None else _library.text(profile, "profile"),
            byref(options),
            byref(handle),
        )

        def opening(slice_ms: int) -> int:
            options.timeout_ms = slice_ms
            return self._library.emad_view_open_with(*arguments)

        if min_step:
            _in_slices(opening, self.timeout if timeout is None else timeout, _library.check)
        else:
            _library.check(opening(milliseconds(timeout)))
        view = View(self, model, profile, handle, served, texts is not None)
        self._remember(view)
        return view

    def read_image(
        self,
        model: str,
        profile: Optional[str] = None,
        *,
        offset: int = 0,
        count: int,
        min_step: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> ImagePart:
        """Copies count bytes of a profile's image, a safetensors file, from byte offset on; over tcp only these travel.

        With count 0 it tells the newest version and its size. Two calls may be of two versions. ArgumentError says the
        size when the bytes do not lie in the image.
        """
        buffer = ctypes.create_string_buffer(max(1, count_number(count, "count")))
        part = CRange(count_number(offset, "offset"), count, ctypes.addressof(buffer), step_number(min_step or 0))
        info = CViewInfo()

        def reading(slice_ms: int) -> int:
            part.timeout_ms = slice_ms
            return self._library.emad_image_read(
                self._pointer(),
                _library.text(model, "model"),
                None if profile is None else _library.text(profile, "profile"),
                byref(part),
                byref(info),
            )

        if min_step:
            _in_slices(reading, self.timeout if timeout is None else timeout, _library.check)
        else:
            _library.check(reading(milliseconds(timeout)))
        return ImagePart(buffer.raw[:count], info.version, info.step, info.updates, info.image_bytes)

    def watch(
        self,
        model: str,
        profile: Optional[str] = None,
        *,
        every: int = 1,
        until_step: Optional[int] = None,
        timeout: Optional[float] = None,
        dtype: Any = None,
        tensors: Union[str, Iterable[str], None] = None,
    ) -> Iterator[View]:
        """Yields a view of each version that is due, as they come::

            for view in client.watch("run42/net", every=1000):
                evaluate(view.state_dict(), view.step)

        every: a version is due when its step has reached a multiple of this that was not taken yet; the newest one at
        the start too, if it is of such a step. While the loop is busy versions pass; the newest due one is next.
        until_step: the loop ends when a version of this step or later was taken.
        timeout: seconds that a version may take to come (TimeoutError); None: for ever.
        profile, dtype and tensors: as for view. A view is closed when the next is asked for; nobody else waits for it, but
        check() it after a long evaluation, or keep a copy.

        It outlives restarts of the daemon. NoModelError and NoProfileError at the start, or when it was removed.
        """
        every = count_number(every, "every")
        if every < 1:
            raise ValueError("every is 0; a version can be due at each step at most: 1")
        until = None if until_step is None else step_number(until_step)
        texts = tensors if tensors is None or isinstance(tensors, str) else list(tensors)
        return _watch.follow(self, model, profile, every, until, timeout, {"dtype": dtype, "tensors": texts})

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

    def checkpoint(self, model: Optional[str] = None, timeout: Optional[float] = None) -> int:
        """Writes the newest version of a model, or of all, to the daemon's disk; returns the step that is there.

        Training and reading go on meanwhile. Without a model it returns 0 when all are on disk. ArgumentError when the
        daemon has no state directory; NoVersionError, NoModelError, TimeoutError; OSError when it cannot be written.
        """
        step = c_uint64()
        name = None if model is None else _library.text(model, "model")
        _library.check(self._library.emad_checkpoint(self._pointer(), name, milliseconds(timeout), byref(step)))
        return step.value

    def keep_checkpoint(self, model: str, step: int, keep: bool = True, timeout: Optional[float] = None) -> None:
        """Marks the checkpoint of that step as one that stays when older ones are removed, or takes the mark away.

        NoVersionError says of which steps there are some; ArgumentError when the daemon has no state directory.
        """
        _library.check(
            self._library.emad_checkpoint_keep(
                self._pointer(), _library.text(model, "model"), step_number(step), int(keep), milliseconds(timeout)
            )
        )

    def history(self, model: str, timeout: Optional[float] = None) -> Dict[str, Any]:
        """What there is of a model, newest first: "versions" in memory, "generations" on disk (state is "whole",
        "damaged" or "aside"), "snapshots" (averages kept under their steps), "changes" of the profiles."""
        return self._json(self._library.emad_history_json, (_library.text(model, "model"),), timeout)

    def rollback(
        self, model: str, step: int, *, dry_run: bool = False, timeout: Optional[float] = None
    ) -> RolledBack:
        """Takes the average back to the newest version of that step or an earlier one, in memory or on disk.

        It becomes a new version of all profiles at once. Snapshots that waited are dropped ("incomplete"). A trainer
        that begins again behind that step is averaged as ever; one that simply goes on too, its next push standing for
        all steps since. Asking again changes nothing.
        dry_run: only says which version it would be.

        NoVersionError, which says what there is; ManifestError and ProfileError when the checkpoint is of other tensors
        or profiles; NoModelError, TimeoutError; PermissionError: it needs the daemon's admin permission.
        """
        found = CRolledBack()
        _library.check(
            self._library.emad_rollback(
                self._pointer(),
                _library.text(model, "model"),
                step_number(step),
                1 if dry_run else 0,
                milliseconds(timeout),
                byref(found),
            )
        )
        return RolledBack(
            found.version,
            found.step,
            found.updates,
            found.step_before,
            found.taken,
            "disk" if found.from_disk else "memory",
        )

    def set_profiles(self, model: str, profiles: Profiles, timeout: Optional[float] = None) -> str:
        """Adds profiles to a model, or changes those of the same names, from its next update on.

        profiles: {"slow": "yolo:decay=0.99999;drop=head.*"}, or a list of "name=schedule;rules". A new one starts from
        the next snapshot; a known one goes on from its average and its counts. Training and reading go on meanwhile.
        From then on registrations take the profiles as they are, unless they say resume="adapt".
        Returns what each profile averages, copies, freezes and drops by which rules.

        ScheduleError, NameError, ProfileError, NoModelError, LimitError (more than 16), OutOfMemoryError (need and
        have), TimeoutError.
        """
        specifications = specifications_of(profiles)
        array = (c_char_p * max(1, len(specifications)))(*specifications)
        report = c_void_p()
        _library.check(
            self._library.emad_profile_set(
                self._pointer(),
                _library.text(model, "model"),
                array,
                len(specifications),
                milliseconds(timeout),
                byref(report),
            )
        )
        return _library.take_string(self._library, report)

    def remove_profile(self, model: str, name: str, timeout: Optional[float] = None) -> str:
        """Stops one profile from the next update on; returns the report on those that are left.

        NoProfileError; ProfileError when it is the only one; NoModelError, TimeoutError.
        """
        report = c_void_p()
        _library.check(
            self._library.emad_profile_remove(
                self._pointer(),
                _library.text(model, "model"),
                _library.text(name, "a profile's name"),
                milliseconds(timeout),
                byref(report),
            )
        )
        return _library.take_string(self._library, report)

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

    def __reduce__(self) -> str:
        raise TypeError(f"{self!r} cannot be copied or pickled: make one of the same url in the other process")

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
