"""Trainer: one rank's registration of a model, and the pushing of its snapshots."""

from __future__ import annotations

import contextlib
import ctypes
import json
import operator
import os
import threading
import time
import warnings
import weakref
from ctypes import byref, c_char_p, c_double, c_uint64, c_void_p, pointer
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence
from typing import Union

from . import _library
from ._errors import ClosedError, Error, RefusedError
from ._library import EBUSY, SLICE_SECONDS, CEnclosure, CFlushResult, CPushResult, CTensor, CTrainerInfo
from ._library import CTrainerOptions, milliseconds
from ._tensors import DTYPES, Piece, Source, check_names, check_piece, dtype_text, settle

if TYPE_CHECKING:
    from ._client import Client

FENCE_FAILURES_MAX = 4  # of the push before, and of this one; the rest is for a library that repeats itself

Profiles = Union[Mapping[str, str], Sequence[str], None]
Guards = Union[str, Mapping[str, Union[str, float]], None]


class PushResult(NamedTuple):
    """What became of a snapshot."""

    outcome: str
    """What the daemon has decided so far:

    accepted (it will be applied), started (it is the start of the average), applied; duplicate (this step was pushed
    before) or stale (an older one); refused as nonfinite, loss, norm-jump (by the guards) or incomplete (another rank
    left the step out); coalesced (it gave way to a newer snapshot) or skipped (the daemon lags, and the policy is to
    skip: nothing was copied).
    """
    step: int
    version: int
    """The version that holds it; 0 while it is only accepted, or refused."""
    refusal: str
    """Which tensor, how many values, which limit, when it was refused."""
    calls: int = 0
    """Calls of the schedules that it stood for: 1, or more after a gap in the steps; 0 while it is not applied."""


class FlushResult(NamedTuple):
    """Where a model stands when all that was pushed is decided."""

    version: int
    step: int
    refused_count: int
    """Snapshots refused since the registration."""
    refusal: str
    """Why the latest of them was."""
    coalesced: int = 0
    """Snapshots that gave way to newer ones since the registration."""


class TrainerInfo(NamedTuple):
    """Facts about a registration."""

    resumed: bool
    last_step: int
    updates: int
    version: int
    epoch: int
    restart_count: int
    """Times the model had to be registered again because the daemon had lost it: its average began anew."""
    lost_count: int
    """Pushes that never reached the daemon."""
    payload_bytes: int
    report: str
    """What each profile averages, copies, freezes and drops by which rules; what is new, what is gone."""
    skipped: int = 0
    """Pushes that were skipped because the daemon lagged."""
    coalesced: int = 0
    """Snapshots of this registration that gave way to newer ones, as of the latest answer."""


class Trainer:
    """Pushes snapshots of a model's tensors. Made by Client.trainer.

    The names, dtypes and shapes of the tensors are fixed when it is opened; where they lie may change from push to
    push. Tensors on an accelerator and tensors that are not contiguous (channels_last) are first copied into dense
    host memory, which is kept for the next push.

    One thread at a time; calls from several take turns.
    """

    def __init__(
        self,
        client: "Client",
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
    ):
        self.model = model
        self._client = client
        self._library = _library.load()
        self._lock = threading.RLock()
        self._in_flight = False  # a copy by the library's thread may still be reading
        self._stale_told = False
        self._late: Optional[Error] = None  # the failure of an asynchronous push that nobody has been told of
        self._sources = _sources_of(tensors)
        self._pointers = (c_void_p * max(1, len(self._sources)))()

        options = _options_of(profiles, attributes, rank, world, timeout)
        _apply_choices(options, resume, rewind, policy)
        options.stride = _stride_of(stride)
        options.guards = _guards_text(guards)
        options.wire = None if wire is None else _library.text(dtype_text(wire, "wire"), "wire")
        # The tensors are of start_step; to a model that goes back the daemon is told the step that will be pushed next.
        options.start_step = step_number(start_step) + ((options.stride or 1) if rewind != "refuse" else 0)
        manifest = _manifest_of(self._sources, pieces or {}, buffers or ())
        handle = c_void_p()
        name = _library.text(model, "model")
        _library.check(
            self._library.emad_trainer_open(
                client._pointer(), name, manifest, len(self._sources), byref(options), byref(handle)
            )
        )
        self._handle = handle
        # The sources and the client's handle live until the library has let go of them.
        alive = (self._sources, self._pointers, client._handle)
        self._finalizer = weakref.finalize(self, _close, self._library, handle, self._lock, os.getpid(), alive)
        try:
            self._start(tensors, step_number(start_step), options)
        except BaseException:
            self.close()
            raise

    def _start(self, tensors: Mapping[str, Any], start_step: int, options: CTrainerOptions) -> None:
        info = self.info()
        self.resumed = info.resumed
        self.last_step = info.last_step
        self.updates = info.updates
        self.version = info.version
        self.epoch = info.epoch
        self.payload_bytes = info.payload_bytes
        self.report = info.report
        if info.version:
            return
        # With several ranks the start is whole when all have pushed theirs: waiting here could be waiting for oneself.
        timeout = None if options.timeout_ms < 0 else options.timeout_ms / 1000
        result = self.push(start_step, tensors, wait=options.world <= 1, timeout=timeout)
        if result.outcome == "nonfinite":
            raise RefusedError(f"the start of '{self.model}' was refused: {result.refusal}")

    def push(
        self,
        step: int,
        tensors: Mapping[str, Any],
        wait: bool = False,
        timeout: Optional[float] = None,
        *,
        loss: Optional[float] = None,
        metadata: Optional[Mapping[str, Any]] = None,
    ) -> PushResult:
        """Copies the tensors' values into shared memory and hands them to the daemon.

        step: of the trainer; it must rise. One that is k strides behind the step before counts as k calls of the
        schedules (PushResult.calls), also where pushes were refused, skipped or left out.
        loss: the loss at this step, for the guard loss_max; NaN counts as above it.
        metadata: what can be written as JSON, 4096 bytes at most; it stays with the version (View.metadata). Numbers
        that are not finite become None.

        The tensors may be changed as soon as the call returns. Without wait the outcome is "accepted" and a later
        refusal is reported by flush; with it the call returns when the snapshot has been applied or refused. Ctrl-C
        takes effect when the call returns, which is after the timeout (seconds) at the latest.

        BusyError: the daemon lags and no stage became free in time; nothing was pushed. FencedError: a newer
        registration has taken over. AwayError, TimeoutError (with wait: accepted, but not applied yet).
        """
        with self._lock:
            handle = self._begin(tensors)
            with self._enclosing(handle, loss, metadata):
                return self._push(handle, step, _library.PUSH_WAIT if wait else 0, timeout)

    def push_begin(
        self,
        step: int,
        tensors: Mapping[str, Any],
        *,
        loss: Optional[float] = None,
        metadata: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """The same by a thread of the library: returns at once. The values must not change until fence() returned."""
        with self._lock:
            handle = self._begin(tensors)
            with self._enclosing(handle, loss, metadata):
                self._push_begin(handle, step)

    def seed(
        self,
        profile: str,
        tensors: Mapping[str, Any],
        updates: int,
        step: Optional[int] = None,
        timeout: Optional[float] = None,
        *,
        metadata: Optional[Mapping[str, Any]] = None,
    ) -> PushResult:
        """Makes these tensors the average of a profile, which goes on from there. Waits until they are.

        tensors: of the names, dtypes and shapes that are pushed. All other profiles stay as they are.
        updates: how many updates this average is of; the schedule goes on from that count.
        step: the trainer's step that it belongs to; one that is older than what is averaged already counts as that,
        and so does None (PushResult.step is 0 then). What was pushed before is decided first.
        Of a model with several ranks all of them call it, with the same step.

        RefusedError (its .result is the PushResult): the values are not finite. NoProfileError, TimeoutError.
        """
        with self._lock:
            with contextlib.suppress(RefusedError):  # of earlier pushes
                self.flush(timeout)
            handle = self._begin(tensors)
            with self._enclosing(handle, None, metadata, _library.text(profile, "profile"), updates):
                result = self._push(handle, 0 if step is None else step, _library.PUSH_WAIT, timeout)
        if result.outcome not in ("applied", "started"):
            error = RefusedError(f"the seed of '{profile}' was not taken ({result.outcome}): {result.refusal}")
            error.result = result
            raise error
        return result

    def fence(self, timeout: Optional[float] = None) -> None:
        """Waits until the values of push_begin have been copied; then they may be changed.

        Without a timeout it waits as long as that takes. Raises the failure of that push, once.
        """
        with self._lock:
            self._wait_copied(timeout)
            if self._late is not None:
                error, self._late = self._late, None
                raise error

    def flush(self, timeout: Optional[float] = None) -> FlushResult:
        """Waits until everything that was pushed is in a published version.

        Raises RefusedError (its .result is the FlushResult) when snapshots were refused since the last flush, and
        TimeoutError, which says what is missing.
        """
        with self._lock:
            self.fence()
            found = CFlushResult()
            handle = self._open_handle()
            _in_slices(
                lambda slice_ms: self._library.emad_flush(handle, slice_ms, byref(found)),
                self._client.timeout if timeout is None else timeout,
                lambda code: self._flush_failed(code, found),
            )
            return _flush_result(found)

    def info(self) -> TrainerInfo:
        """Facts about the registration as of now."""
        found = self._facts()
        return TrainerInfo(
            bool(found.resumed),
            found.last_step,
            found.updates,
            found.version,
            found.epoch,
            found.restart_count,
            found.lost_count,
            found.payload_bytes,
            found.report.decode(errors="replace"),
            found.skipped_count,
            found.coalesced_count,
        )

    def set_attributes(self, attributes: Mapping[str, Any], timeout: Optional[float] = None) -> None:
        """Replaces the model's attributes; they travel with the next version."""
        text = json_text(attributes, "attributes")
        with self._lock:
            _library.check(self._library.emad_attributes_set(self._open_handle(), text, milliseconds(timeout)))

    def close(self) -> None:
        """
        Waits for an unfinished copy and lets go of the memory. What was accepted will be applied; flush() before makes
        sure of it where the daemon may have been stopped meanwhile.
        """
        with self._lock:
            self._in_flight = False
            self._finalizer()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError(f"{self!r} cannot be copied or pickled: each process registers with a Client of its own")

    def __repr__(self) -> str:
        state = f"{len(self._sources)} tensors" if self._handle else "closed"
        return f"<emad.Trainer {self.model!r}: {state}>"

    # What follows is shared with emad.torch, which finds the tensors by itself.

    def _open_handle(self) -> c_void_p:
        if not self._handle:
            raise ClosedError(f"the trainer of '{self.model}' is closed")
        return self._handle

    def _facts(self) -> CTrainerInfo:
        """What info() tells, as the library gives it: cheap enough for every step."""
        found = CTrainerInfo()
        with self._lock:
            _library.check(self._library.emad_trainer_info(self._open_handle(), byref(found)))
        return found

    def _begin(self, tensors: Mapping[str, Any]) -> c_void_p:
        """Collects the addresses of a snapshot."""
        handle = self._open_handle()
        if self._in_flight:
            self._wait_copied(None)  # it reads memory that taking other tensors may let go
        if len(tensors) != len(self._sources):
            check_names(self._sources, tensors)
        pointers = self._pointers
        has_copies = False
        for index, source in enumerate(self._sources):
            try:
                tensor = tensors[source.name]
            except KeyError:
                check_names(self._sources, tensors)
                raise
            if not source.is_unchanged(tensor):
                source.take(tensor)
                pointers[index] = source.address
                has_copies = has_copies or not source.is_direct
        if has_copies:
            settle(self._sources)
        return handle

    @contextlib.contextmanager
    def _enclosing(
        self,
        handle: c_void_p,
        loss: Optional[float],
        metadata: Optional[Mapping[str, Any]],
        seeds: Optional[bytes] = None,
        updates: int = 0,
    ) -> Iterator[None]:
        """What the push inside carries beside its values. After a failure the next push does not carry it."""
        if loss is None and metadata is None and seeds is None:
            yield
            return
        enclosure = CEnclosure(seeds=seeds, updates=count_number(updates, "updates"))
        if loss is not None:
            enclosure.loss = pointer(c_double(float(loss)))
        if metadata is not None:
            enclosure.metadata = json_text(metadata, "metadata", finite_only=False)
        _library.check(self._library.emad_enclose(handle, byref(enclosure)))
        try:
            yield
        except BaseException:
            self._library.emad_enclose(handle, None)
            raise

    def _push(self, handle: c_void_p, step: int, flags: int, timeout: Optional[float]) -> PushResult:
        result = CPushResult()
        _library.check(
            self._library.emad_push(
                handle, step_number(step), self._pointers, flags, milliseconds(timeout), byref(result)
            )
        )
        outcome = _library.OUTCOMES[result.outcome]
        if outcome == "stale" and not self._stale_told:
            self._stale_told = True
            warnings.warn(
                f"emad: step {step} of '{self.model}' is behind what is averaged already: nothing changes until training "
                "has passed that; resume='never' begins anew, start_step and rewind='back' go back",
                RuntimeWarning,
                stacklevel=3,
            )
        return PushResult(
            outcome,
            result.step,
            result.version,
            result.refusal.decode(errors="replace"),
            result.calls,
        )

    def _push_begin(self, handle: c_void_p, step: int) -> None:
        number = step_number(step)
        code = self._library.emad_push_begin(handle, number, self._pointers)
        if code not in (0, EBUSY):
            # Mostly the failure of an earlier push, after its copy, which the library tells here and begins nothing.
            try:
                _library.check(code)
            except Error as error:
                _library.check(self._library.emad_push_begin(handle, number, self._pointers))
                self._late = error
                code = 0
        _library.check(code)
        self._in_flight = True

    def _wait_copied(self, timeout: Optional[float]) -> None:
        """Waits for the copy that is under way. Its failure is kept for fence(); TimeoutError while it goes on."""
        if not self._in_flight:
            return
        handle = self._open_handle()
        deadline = None if timeout is None else time.monotonic() + milliseconds(timeout) / 1000
        for _failure in range(FENCE_FAILURES_MAX):
            while True:
                remaining = SLICE_SECONDS if deadline is None else min(SLICE_SECONDS, deadline - time.monotonic())
                code = self._library.emad_fence(handle, milliseconds(max(0.0, remaining)))
                if code != _library.ETIMEOUT:
                    break
                if deadline is not None and time.monotonic() >= deadline:
                    _library.check(code)
            try:
                _library.check(code)
                break
            except Error as error:
                self._late = error  # it may be that of an earlier push, while this one is still copied: once more
        self._in_flight = False

    def _flush_failed(self, code: int, found: CFlushResult) -> None:
        try:
            _library.check(code)
        except RefusedError as error:
            error.result = _flush_result(found)
            raise


def _close(library: ctypes.CDLL, handle: c_void_p, lock: Any, process: int, _alive: tuple) -> None:
    """Also called when the interpreter ends, where another thread may be pushing still."""
    if os.getpid() != process:
        return  # forked: the handle is the parent's, and so is whoever holds the lock
    with lock:
        library.emad_trainer_close(handle)
        handle.value = None


def _flush_result(found: CFlushResult) -> FlushResult:
    return FlushResult(
        found.version,
        found.step,
        found.refused_count,
        found.refusal.decode(errors="replace"),
        found.coalesced_count,
    )


def _in_slices(call: Any, timeout: float, failed: Any) -> None:
    """Repeats a waiting call until its time is over, so that Ctrl-C is noticed in between.

    The first slices are short; later ones grow, in case it is the daemon's answer that takes long.
    """
    deadline = time.monotonic() + milliseconds(timeout) / 1000
    seconds = SLICE_SECONDS
    while True:
        remaining = max(0.0, deadline - time.monotonic())
        code = call(milliseconds(min(seconds, remaining)))
        if code != _library.ETIMEOUT or remaining <= seconds:
            break
        seconds = min(seconds * 1.5, 1.0)
    if code == _library.ETIMEOUT:
        _library.fail(code, f" ({timeout:g} s in all)")
    if code:
        failed(code)


def count_number(value: Any, what: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} is {value!r}, a {type(value).__name__}; an integer is accepted") from None
    if not 0 <= number < 2**64:
        raise ValueError(f"{what} is {number}; it must be in 0..2^64-1")
    return number


def step_number(step: Any) -> int:
    return count_number(step, "step")


def json_text(value: Mapping[str, Any], what: str, finite_only: bool = True) -> bytes:
    """finite_only: ValueError for numbers that JSON does not have; otherwise they become null."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} is a {type(value).__name__}; a mapping is accepted")
    try:
        plain = dict(value)
        if not finite_only:
            plain = json.loads(json.dumps(plain), parse_constant=lambda _: None)
        return json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError  # those derived from them take other arguments
        raise kind(f"the {what} cannot be written as JSON: {error}") from None


def _sources_of(tensors: Mapping[str, Any]) -> List[Source]:
    if not isinstance(tensors, Mapping):
        raise TypeError(f"tensors is a {type(tensors).__name__}; a dict of names and tensors is accepted")
    return [Source(name, tensor) for name, tensor in tensors.items()]


def _manifest_of(sources: List[Source], pieces: Mapping[str, Piece], buffers: Iterable[str]) -> Any:
    """The array of struct emad_tensor; it keeps alive what it points to."""
    marked = set(buffers)
    names = {source.name for source in sources}
    for name in [*pieces, *sorted(marked)]:
        if name not in names:
            raise ValueError(f"'{name}' is named in pieces or buffers, but there is no tensor of that name")
    manifest = (CTensor * max(1, len(sources)))()
    for entry, source in zip(manifest, sources):
        piece = check_piece(source, pieces.get(source.name))
        entry.name = _library.text(source.name, "a tensor's name")
        entry.dtype = DTYPES[source.dtype][0]
        entry.flags = _library.TENSOR_BUFFER if source.name in marked else 0
        entry.dimension_count = len(source.shape)
        entry.shape = _numbers(piece.shape if piece else source.shape)
        if piece:
            entry.offset = _numbers(piece.offset)
            entry.extent = _numbers(source.shape)
    return manifest


def _numbers(values: Sequence[int]) -> Any:
    return (c_uint64 * max(1, len(values)))(*values)


def _options_of(
    profiles: Profiles,
    attributes: Optional[Mapping[str, Any]],
    rank: int,
    world: int,
    timeout: Optional[float],
) -> CTrainerOptions:
    rank, world = operator.index(rank), operator.index(world)
    if not (1 <= world < 2**32 and 0 <= rank < world):
        raise ValueError(f"rank is {rank} and world is {world}; rank must be in 0..world-1")
    options = CTrainerOptions()
    specifications = specifications_of(profiles)
    if profiles is not None:  # an array of none asks for those of the daemon's settings
        options.profiles = (c_char_p * max(1, len(specifications)))(*specifications)
        options.profile_count = len(specifications)
    if attributes is not None:
        options.attributes = json_text(attributes, "attributes")
    options.rank = rank
    options.world = world
    options.timeout_ms = milliseconds(timeout)
    return options


def _apply_choices(options: CTrainerOptions, resume: str, rewind: str, policy: str) -> None:
    for what, value, known in (
        ("resume", resume, _library.RESUME),
        ("rewind", rewind, _library.REWIND),
        ("policy", policy, _library.POLICY),
    ):
        if value not in known:
            raise ValueError(f"{what} is {value!r}; it must be one of {', '.join(known)}")
        setattr(options, what, known[value])


def _stride_of(stride: Any) -> int:
    """As the library takes it: 0 for what the daemon's settings say."""
    if stride is None:
        return 0
    number = count_number(stride, "stride")
    if number == 0:
        raise ValueError("stride is 0; it is the number of steps from one call of the schedules to the next")
    return number


def _guards_text(guards: Guards) -> Optional[bytes]:
    if guards is None or isinstance(guards, str):
        return None if guards is None else _library.text(guards, "guards")
    if not isinstance(guards, Mapping):
        raise TypeError(f"guards is a {type(guards).__name__}; a str or a mapping is accepted")
    pairs = (f"{key}={value if isinstance(value, str) else repr(float(value))}" for key, value in guards.items())
    return _library.text(",".join(pairs), "guards")


def specifications_of(profiles: Profiles) -> List[bytes]:
    if profiles is None:
        return []
    if isinstance(profiles, Mapping):
        pairs: Dict[str, str] = dict(profiles)
        return [_library.text(f"{name}={schedule}", "a profile") for name, schedule in pairs.items()]
    if isinstance(profiles, str):
        profiles = [profiles]
    return [_library.text(profile, "a profile") for profile in profiles]
