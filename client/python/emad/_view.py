"""View: one consistent version of an average, read in place.

The image of a profile is a whole safetensors file in shared memory. A view maps it a second time, privately and
copy-on-write: tensors over it may be handed to code that insists on writable memory, and a write by mistake stays in
this process. The mapping lives as long as the last array over it, so that an array which outlives its view never
crashes; only its values are then no longer guaranteed.

Of a daemon over the network the library copies the image first, or what is wanted of it, in the dtype that is wanted:
the memory is this process's own, and is never taken back.

The header is parsed when the first tensor is asked for: opening costs the same for every model.

A view may be asked for another dtype. Then the library converts what is not kept in it, each tensor when it is taken,
into memory of its own.
"""

from __future__ import annotations

import json
import math
import mmap
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from ctypes import CDLL, byref, c_void_p
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from . import _library
from ._errors import ClosedError, CorruptError
from ._library import CViewInfo, CViewTensor
from ._tensors import DTYPES, FLOATS, numpy_dtype, served_name, torch_dtype

if TYPE_CHECKING:
    from ._client import Client


class _Entry(NamedTuple):
    dtype: str
    shape: Tuple[int, ...]
    offset: int
    count: int
    index: int
    """In the order of the file."""


class View(Mapping):
    """A version of a profile: a read-only mapping of tensor names to NumPy arrays. Made by Client.view.

    The daemon leaves the memory as it is until the view is closed, or until it needs it back after its guaranteed time.
    check() tells: call it after the last read. Leaving a with block calls it once more unless you have done so
    yourself. What outlives the view should be copied before.

    dtype: the safetensors name of the dtype that was asked for, or None. Tensors that are kept in another one are then
    converted whenever they are taken, into private copies, which are checked already; integers stay as they are.
    """

    __hash__ = object.__hash__
    __eq__ = object.__eq__  # Mapping's would compare arrays

    def __init__(self, client: "Client", model: str, profile: Optional[str], handle: c_void_p, served: int = 0, is_part: bool = False):
        self.model = model
        self.profile = profile
        self.dtype: Optional[str] = served_name(served)
        self._served = served
        self._is_part = is_part  # not all tensors of the image are this view's
        self._library = _library.load()
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _close, self._library, handle, client._handle)
        self._finalizer.atexit = False  # other threads may be reading; the end of the process ends the lease
        self._handle: Optional[c_void_p] = handle
        self._checked = False
        self._entries: Optional[Dict[str, _Entry]] = None
        self._strings: Dict[str, str] = {}
        info = CViewInfo()
        _library.check(self._library.emad_view_info(handle, byref(info)))
        self.version: int = info.version
        self.step: int = info.step
        self.updates: int = info.updates
        self.decay: float = info.decay
        """Of the last update."""
        self.published: float = info.published_us / 1e6
        """Seconds since 1970."""
        self.image_bytes: int = info.image_bytes
        self._tensor_count: int = info.tensor_count
        self._image = mmap.mmap(info.fd, info.image_bytes, access=mmap.ACCESS_COPY, offset=info.fd_offset)

    def check(self) -> None:
        """Raises RevokedError when the daemon has taken the memory back: what was read must be thrown away."""
        with self._lock:
            _library.check(self._library.emad_view_check(self._open_handle()))
            self._checked = True

    def close(self) -> None:
        """Lets the daemon reuse the memory. Arrays stay readable, but their values may change from now on."""
        with self._lock:
            self._handle = None
            self._finalizer()

    def __enter__(self) -> "View":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self._handle is not None and not self._checked:
                self.check()
        finally:
            self.close()

    def __getitem__(self, name: str) -> Any:
        """A read-only NumPy array over the shared memory, or a converted copy."""
        import numpy

        entry = self._entry(name)
        served = self._served_dtype(entry)
        dtype = numpy_dtype(served)
        if dtype is None:
            raise TypeError(
                f"tensor '{name}' is {served}, which NumPy does not have; use tensor('{name}') or state_dict()"
            )
        if not entry.count:
            return numpy.empty(entry.shape, dtype)
        if served != entry.dtype:
            array = numpy.empty(entry.shape, dtype)
            self._read(entry, served, array.ctypes.data)
            return array
        # A view of a memory that is read-only cannot be made writable again.
        image = memoryview(self._image).toreadonly()
        return numpy.frombuffer(image, dtype, entry.count, entry.offset).reshape(entry.shape)

    def tensor(self, name: str) -> Any:
        """A torch tensor over the shared memory, or a converted copy.

        Writing into it changes this process' copy of the page alone.
        """
        import torch

        entry = self._entry(name)
        served = self._served_dtype(entry)
        dtype = torch_dtype(served)
        if dtype is None:
            raise TypeError(f"tensor '{name}' is {served}, which torch {torch.__version__} does not have")
        if not entry.count:
            return torch.empty(entry.shape, dtype=dtype, device="cpu")
        if served != entry.dtype:
            tensor = torch.empty(entry.shape, dtype=dtype, device="cpu")
            self._read(entry, served, tensor.data_ptr())
            return tensor
        return torch.frombuffer(self._image, dtype=dtype, count=entry.count, offset=entry.offset).reshape(entry.shape)

    def state_dict(self) -> "OrderedDict[str, Any]":
        """All tensors as torch tensors over the shared memory: nothing is copied but what has to be converted."""
        return OrderedDict((name, self.tensor(name)) for name in self)

    @property
    def image_metadata(self) -> Dict[str, str]:
        """The image's own metadata, strings only as in safetensors: emad.schedule, emad.rules, emad.decay, ..."""
        self._index()
        return dict(self._strings)

    @property
    def attributes(self) -> Dict[str, Any]:
        """The attributes that travel with the model."""
        return self._json("emad.attributes", {})

    @property
    def metadata(self) -> Dict[str, Any]:
        """What the push of this version carried as its metadata; {} for nothing."""
        return self._json("emad.metadata", {})

    @property
    def history(self) -> List[Dict[str, Any]]:
        """What was changed while the profile ran, oldest first.

        Each has step, updates and change (started, schedule, seeded, rewound, continued), some from and to.
        """
        return self._json("emad.history", [])

    def __iter__(self) -> Iterator[str]:
        return iter(self._index())

    def __contains__(self, name: object) -> bool:
        return name in self._index()

    def __len__(self) -> int:
        return self._tensor_count

    def __reduce__(self) -> str:
        raise TypeError(f"{self!r} cannot be copied or pickled: copy its tensors, or open a view in the other process")

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else f"{self._tensor_count} tensors"
        return f"<emad.View {self.model!r} {self.profile or ''} version {self.version}, step {self.step}: {state}>"

    def _json(self, key: str, absent: Any) -> Any:
        self._index()
        text = self._strings.get(key)
        return json.loads(text) if text else absent

    def _open_handle(self) -> c_void_p:
        if self._handle is None:
            raise ClosedError(f"the view of '{self.model}' is closed")
        return self._handle

    def _entry(self, name: str) -> _Entry:
        self._open_handle()
        try:
            return self._index()[name]
        except KeyError:
            raise KeyError(f"'{self.model}' holds no tensor '{name}'") from None

    def _served_dtype(self, entry: _Entry) -> str:
        return self.dtype if self.dtype is not None and entry.dtype in FLOATS else entry.dtype

    def _read(self, entry: _Entry, served: str, address: int) -> None:
        """Converts a tensor into memory of ours."""
        byte_count = entry.count * DTYPES[served][1]
        with self._lock:
            _library.check(
                self._library.emad_view_read(self._open_handle(), entry.index, self._served, address, byte_count)
            )

    def _names(self) -> List[str]:
        """Those of the view's own tensors, as the library counts them."""
        found = CViewTensor()
        names = []
        with self._lock:
            handle = self._open_handle()
            for index in range(self._tensor_count):
                _library.check(self._library.emad_view_tensor(handle, index, byref(found)))
                names.append(found.name.decode())
        return names

    def _index(self) -> Dict[str, _Entry]:
        if self._entries is None:
            was_checked = self._checked
            try:
                header, begin = _header(self._image)
                metadata = header.pop("__metadata__", {})
                entries = _entries(header, begin, self.image_bytes, self._names() if self._is_part else None)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.check()  # revoked memory may hold anything
                raise CorruptError(f"the image of '{self.model}' is damaged: {error}") from error
            if self._handle is not None:
                self.check()
                self._checked = was_checked
            self._strings = metadata
            self._entries = entries
        return self._entries


def _close(library: CDLL, handle: c_void_p, _client: object) -> None:
    # The mapping is not closed: arrays and tensors may lie over it, and the last of them unmaps it.
    library.emad_view_close(handle)


def _header(image: Any) -> Tuple[Dict[str, Any], int]:
    """The JSON header of a safetensors image, and where its tensors begin."""
    header_bytes = int.from_bytes(image[:8], "little")
    if header_bytes > len(image) - 8:
        raise ValueError(f"its header claims {header_bytes} bytes of {len(image)}")
    return json.loads(image[8 : 8 + header_bytes]), 8 + header_bytes


def _entries(
    header: Dict[str, Any], begin: int, image_bytes: int, names: Optional[List[str]] = None
) -> Dict[str, _Entry]:
    # The library counts the tensors by their place; those without elements, which share one, are never read.
    if names is None:
        names = sorted(header, key=lambda name: header[name]["data_offsets"])
    index_of = {name: index for index, name in enumerate(names)}
    return {
        name: _entry(name, fields, begin, image_bytes, index_of[name])
        for name, fields in header.items()
        if name in index_of
    }


def _entry(name: str, fields: Dict[str, Any], begin: int, image_bytes: int, index: int) -> _Entry:
    dtype = fields["dtype"]
    shape = tuple(fields["shape"])
    first, last = fields["data_offsets"]
    count = math.prod(shape)
    if not 0 <= first <= last <= image_bytes - begin or count * DTYPES[dtype][1] != last - first:
        raise ValueError(f"tensor '{name}' does not fit its place")
    return _Entry(dtype, shape, begin + first, count, index)
