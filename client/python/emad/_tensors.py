"""Tensors as they are given: NumPy arrays and torch tensors, and where their values lie in memory.

Neither library is imported here. A torch tensor can only be given where torch has been imported already, so it is found
in sys.modules; the same for NumPy.
"""

from __future__ import annotations

import ctypes
import operator
import sys
from ctypes import byref, c_uint
from typing import Any, Dict, NamedTuple, Optional, Tuple

from . import _library
from ._errors import ManifestError

# The numbers of enum emad_dtype, the names of safetensors, the bytes of an element.
DTYPES = {
    "F64": (0, 8), "F32": (1, 4), "F16": (2, 2), "BF16": (3, 2), "F8_E4M3": (4, 1), "F8_E5M2": (5, 1),
    "I64": (6, 8), "I32": (7, 4), "I16": (8, 2), "I8": (9, 1), "U8": (10, 1), "BOOL": (11, 1),
}  # fmt: skip

# What NumPy and torch call them; bfloat16 and float8 arrays come from the ml_dtypes package.
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "bool": "BOOL",
}  # fmt: skip
_PLAIN = {short: long for long, short in _NAMES.items()}
FLOATS = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"))
_BY_NUMBER = {number: short for short, (number, _) in DTYPES.items()}

_NOWHERE = ctypes.create_string_buffer(8)  # stands for the memory of empty tensors


class Piece(NamedTuple):
    """Where the box that a rank holds lies in the whole tensor."""

    shape: Tuple[int, ...]
    """Of the whole tensor."""
    offset: Tuple[int, ...]
    """Where the box begins, per dimension; its extent is the shape of the array that is pushed."""


def torch_dtype(short: str) -> Any:
    """The torch dtype for a safetensors name, or None where this torch has no such type."""
    import torch

    return getattr(torch, _PLAIN.get(short, ""), None)


def numpy_dtype(short: str) -> Any:
    """The NumPy dtype for a safetensors name, or None where NumPy has no such type."""
    import numpy

    long = _PLAIN.get(short)
    if long in (None, "bfloat16", "float8_e4m3fn", "float8_e5m2"):
        return None
    return numpy.dtype(long)


def served_number(dtype: Any) -> int:
    """The number of enum emad_served_dtype for what was asked for: None (as kept), a name, a torch or NumPy dtype."""
    if dtype is None:
        return 0
    number = c_uint()
    _library.check(_library.load().emad_dtype_parse(_library.text(dtype_text(dtype, "dtype"), "dtype"), byref(number)))
    return number.value


def served_name(number: int) -> Optional[str]:
    """The safetensors name for a number of enum emad_served_dtype; None for 0, as kept."""
    return _BY_NUMBER[number - 1] if number else None


def dtype_text(dtype: Any, what: str) -> str:
    """The name of a dtype that was given as whatever; what: the argument, for the sentence."""
    if isinstance(dtype, str):
        return dtype.rpartition("torch.")[2]
    torch_kind, numpy = _kind("torch", "dtype"), sys.modules.get("numpy")
    if torch_kind is not None and isinstance(dtype, torch_kind):
        return str(dtype).rpartition(".")[2]
    is_scalar = numpy is not None and isinstance(dtype, type) and issubclass(dtype, numpy.generic)
    if is_scalar or (numpy is not None and isinstance(dtype, numpy.dtype)):
        found = numpy.dtype(dtype)
        return found.name if found.isnative else f"{found.name} in foreign byte order"
    raise TypeError(f"{what} is {dtype!r}; a name such as 'bf16', a torch.dtype or a NumPy dtype is accepted")


class Source:
    """One tensor of a registration: what it must look like, and where its values lie at present."""

    __slots__ = (
        "name", "dtype", "shape", "bytes", "address", "is_direct", "held", "origin", "seen", "stage", "native",
        "is_torch",
    )  # fmt: skip

    def __init__(self, name: str, tensor: Any):
        if not isinstance(name, str):
            raise TypeError(f"a tensor's name is {name!r}, a {type(name).__name__}; a str is accepted")
        self.name = name
        self.dtype, self.shape = describe(name, tensor)
        self.bytes = DTYPES[self.dtype][1]
        for extent in self.shape:
            self.bytes *= extent
        self.address = 0
        self.is_direct = False  # address is that of the tensor itself, not of a copy
        self.held: Any = None  # owns the memory at address: it must live while the library may read it
        self.origin: Any = None  # owns the memory that the torch tensor had: no other can come to lie at its address
        self.seen: Any = None  # the object that was given last
        self.stage: Any = None  # copies of tensors whose values do not lie here, or not densely
        self.native: Any = None  # the dtype object of seen
        self.is_torch = False

    def is_unchanged(self, tensor: Any) -> bool:
        """Whether the values lie where they lay at the last take(). Cheap."""
        if tensor is not self.seen or not self.is_direct or tensor.dtype is not self.native:
            return False
        if tensor.shape != self.shape:
            return False
        # origin keeps the storage alive, so an equal address is the same storage and no other one in its place.
        # It may have been transposed in place, though.
        return tensor.data_ptr() == self.address and tensor.is_contiguous() if self.is_torch else _is_dense(tensor)

    def take(self, tensor: Any, copy: bool = False) -> None:
        """Checks a tensor and finds its values. copy: into memory of our own, even if it is dense.

        The memory of the tensor taken before is let go: no copy out of it may be under way.
        """
        dtype, shape = describe(self.name, tensor)
        if dtype != self.dtype or shape != self.shape:
            raise ManifestError(
                f"tensor '{self.name}' is {dtype} {list(shape)}, but was registered as {self.dtype} {list(self.shape)}"
            )
        self.is_torch = _is_torch(tensor)
        if self.is_torch:
            self._take_torch(tensor, copy)
        else:
            self._take_array(tensor, copy)
        self.seen = tensor
        self.native = tensor.dtype
        if not self.bytes:
            self.address = ctypes.addressof(_NOWHERE)
            self.is_direct = False

    def forget(self) -> None:
        """Lets go of all memory: the next take() begins anew. No copy out of it may be under way."""
        self.held = self.origin = self.seen = self.stage = None
        self.is_direct = False

    def _take_torch(self, tensor: Any, copy: bool) -> None:
        torch = sys.modules["torch"]
        # Shares the memory, and keeps it when the caller gives its tensor another one.
        self.origin = tensor = tensor.detach()
        self.is_direct = not copy and tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_neg()
        if self.is_direct:
            self.held = tensor
        else:
            is_cuda = tensor.device.type == "cuda"
            if not isinstance(self.stage, torch.Tensor):
                with torch.inference_mode(False):  # what is made in that mode could not be written to outside of it
                    self.stage = torch.empty(self.shape, dtype=tensor.dtype, device="cpu", pin_memory=is_cuda)
            # Without pinned memory non_blocking is ignored; with it settle() waits once for all tensors.
            self.stage.copy_(tensor, non_blocking=is_cuda)
            self.held = self.stage
        self.address = self.held.data_ptr()

    def _take_array(self, array: Any, copy: bool) -> None:
        numpy = sys.modules["numpy"]
        self.is_direct = not copy and array.flags.c_contiguous
        if self.is_direct:
            self.held = array
        else:
            if not isinstance(self.stage, numpy.ndarray):
                self.stage = numpy.empty(self.shape, dtype=array.dtype)
            self.stage[...] = array
            self.held = self.stage
        self.address = self.held.__array_interface__["data"][0]


def settle(sources: "list[Source]") -> None:
    """Waits for copies from CUDA devices that are under way into the sources' memory."""
    devices = {source.seen.device for source in sources if getattr(source.seen, "is_cuda", False)}
    for device in devices:
        sys.modules["torch"].cuda.current_stream(device).synchronize()


def describe(name: str, tensor: Any) -> Tuple[str, Tuple[int, ...]]:
    """The safetensors name of the dtype, and the shape. TypeError says what was given and what is accepted."""
    if _is_torch(tensor):
        _torch_check(name, tensor)
        long = str(tensor.dtype).rpartition(".")[2]
    elif _is_array(tensor):
        long = tensor.dtype.name if tensor.dtype.isnative else f"{tensor.dtype.name} in foreign byte order"
    else:
        raise TypeError(
            f"tensor '{name}' is a {type(tensor).__module__}.{type(tensor).__qualname__}; "
            "a NumPy array or a torch.Tensor is accepted"
        )
    short = _NAMES.get(long)
    if short is None:
        raise TypeError(f"tensor '{name}' has dtype {long}; accepted are {', '.join(_NAMES)}")
    return short, tuple(tensor.shape)


def _torch_check(name: str, tensor: Any) -> None:
    torch = sys.modules["torch"]
    if hasattr(tensor, "to_local"):
        raise TypeError(
            f"tensor '{name}' is a DTensor; give tensor.to_local(), and its place in the whole tensor with pieces="
        )
    if tensor.layout is not torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else f"{tensor.layout} on {tensor.device}"
        raise TypeError(f"tensor '{name}' is {kind}; a dense tensor that has values is accepted")


def _kind(module: str, name: str) -> Optional[type]:
    """A class of a module; None while the module has not been imported, or another thread is about to."""
    return getattr(sys.modules.get(module), name, None)


def _is_torch(tensor: Any) -> bool:
    kind = _kind("torch", "Tensor")
    return kind is not None and isinstance(tensor, kind)


def _is_array(tensor: Any) -> bool:
    kind = _kind("numpy", "ndarray")
    return kind is not None and isinstance(tensor, kind)


def _is_dense(array: Any) -> bool:
    return bool(array.flags.c_contiguous)


def check_piece(source: Source, piece: Optional[Piece]) -> Optional[Piece]:
    """The piece as plain tuples, if it holds the box that the tensor is."""
    if piece is None:
        return None
    shape, offset = (tuple(operator.index(number) for number in numbers) for numbers in piece)
    if not len(shape) == len(offset) == len(source.shape):
        raise ValueError(
            f"the piece of tensor '{source.name}' has shape {list(shape)} and offset {list(offset)}, but the tensor "
            f"has {len(source.shape)} dimensions"
        )
    for whole, begin, extent in zip(shape, offset, source.shape):
        if begin < 0 or begin + extent > whole:
            raise ValueError(
                f"the piece of tensor '{source.name}' at {list(offset)} with extent {list(source.shape)} does not fit "
                f"into {list(shape)}"
            )
    return Piece(shape, offset)


def check_names(sources: "list[Source]", tensors: Dict[str, Any]) -> None:
    """Raises for the first name that only one of the two sides has."""
    for source in sources:
        if source.name not in tensors:
            raise ManifestError(f"tensor '{source.name}' was registered, but is not among the {len(tensors)} pushed")
    known = {source.name for source in sources}
    for name in tensors:
        if name not in known:
            raise ManifestError(f"tensor '{name}' is pushed, but is not among the {len(sources)} registered")
