"""libemad: where it is found and what its functions look like. The only module that talks to ctypes' loader.

Searched in this order: the file that EMAD_LIBRARY names; the build directory of the source tree that this package lies
in; what the system's loader knows.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import os
from ctypes import CFUNCTYPE, POINTER, c_char, c_char_p, c_double, c_int, c_size_t, c_uint, c_uint8, c_uint32
from ctypes import c_uint64, c_void_p
from pathlib import Path
from typing import List, NoReturn, Optional

from ._errors import error_from

ETIMEOUT = -10012
EBUSY = -10013
INTERFACE = "0.1"  # releases that differ here have another interface

TENSOR_BUFFER = 1
PUSH_WAIT = 1
RESUME = {"auto": 0, "never": 1, "must": 2, "adapt": 3}
REWIND = {"refuse": 0, "continue": 1, "back": 2}
POLICY = {"block": 0, "skip": 1, "coalesce": 2}
OUTCOMES = (
    "accepted",
    "started",
    "applied",
    "duplicate",
    "stale",
    "nonfinite",
    "incomplete",
    "loss",
    "norm-jump",
    "coalesced",
    "skipped",
)

SLICE_SECONDS = 0.2
"""How long one call into the library may block where the call can be repeated: Ctrl-C is noticed between two calls."""


class CDaemon(ctypes.Structure):
    _fields_ = [
        ("agent", c_char * 64),
        ("instance", c_uint64),
        ("pid", c_uint64),
        ("uptime_ms", c_uint64),
        ("round_trip_us", c_uint64),
    ]


class CTensor(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("dtype", c_uint),
        ("flags", c_uint32),
        ("dimension_count", c_uint32),
        ("shape", POINTER(c_uint64)),
        ("offset", POINTER(c_uint64)),
        ("extent", POINTER(c_uint64)),
    ]


class CTrainerOptions(ctypes.Structure):
    _fields_ = [
        ("profiles", POINTER(c_char_p)),
        ("profile_count", c_uint32),
        ("attributes", c_char_p),
        ("start_step", c_uint64),
        ("rank", c_uint32),
        ("world", c_uint32),
        ("resume", c_uint),
        ("rewind", c_uint),
        ("policy", c_uint),
        ("stride", c_uint64),
        ("guards", c_char_p),
        ("wire", c_char_p),
        ("timeout_ms", c_int),
    ]


class CTrainerInfo(ctypes.Structure):
    _fields_ = [
        ("resumed", c_int),
        ("last_step", c_uint64),
        ("updates", c_uint64),
        ("version", c_uint64),
        ("epoch", c_uint64),
        ("restart_count", c_uint64),
        ("lost_count", c_uint64),
        ("payload_bytes", c_uint64),
        ("report", c_char * 2048),
        ("skipped_count", c_uint64),
        ("coalesced_count", c_uint64),
    ]


class CClientOptions(ctypes.Structure):
    _fields_ = [
        ("token_file", c_char_p),
        ("tls_ca", c_char_p),
        ("tls_certificate", c_char_p),
        ("tls_key", c_char_p),
        ("tls_name", c_char_p),
    ]


class CRolledBack(ctypes.Structure):
    _fields_ = [
        ("version", c_uint64),
        ("step", c_uint64),
        ("updates", c_uint64),
        ("step_before", c_uint64),
        ("taken", c_uint64),
        ("from_disk", c_int),
    ]


class CPushResult(ctypes.Structure):
    _fields_ = [
        ("outcome", c_uint),
        ("step", c_uint64),
        ("version", c_uint64),
        ("calls", c_uint64),
        ("refusal", c_char * 512),
    ]


class CFlushResult(ctypes.Structure):
    _fields_ = [
        ("version", c_uint64),
        ("step", c_uint64),
        ("refused_count", c_uint64),
        ("coalesced_count", c_uint64),
        ("refusal", c_char * 512),
    ]


class CEnclosure(ctypes.Structure):
    _fields_ = [
        ("metadata", c_char_p),
        ("loss", POINTER(c_double)),
        ("seeds", c_char_p),
        ("updates", c_uint64),
    ]


class CViewOptions(ctypes.Structure):
    _fields_ = [
        ("min_step", c_uint64),
        ("timeout_ms", c_int),
        ("dtype", c_uint),
        ("tensors", POINTER(c_char_p)),
        ("tensor_count", c_size_t),
    ]


class CRange(ctypes.Structure):
    _fields_ = [
        ("offset", c_uint64),
        ("bytes", c_uint64),
        ("buffer", c_void_p),
        ("min_step", c_uint64),
        ("timeout_ms", c_int),
    ]


class CViewTensor(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("dtype", c_uint),
        ("dimension_count", c_uint32),
        ("shape", POINTER(c_uint64)),
        ("data", c_void_p),
        ("bytes", c_uint64),
    ]


class CViewInfo(ctypes.Structure):
    _fields_ = [
        ("version", c_uint64),
        ("step", c_uint64),
        ("updates", c_uint64),
        ("decay", c_double),
        ("published_us", c_uint64),
        ("image", POINTER(c_uint8)),
        ("image_bytes", c_uint64),
        ("fd", c_int),
        ("fd_offset", c_uint64),
        ("tensor_count", c_uint64),
    ]


class CSumPart(ctypes.Structure):
    _fields_ = [
        ("path", c_char_p),
        ("profile", c_char_p),
        ("std", c_double),
        ("step", c_uint64),
        ("weight", c_double),
    ]


class CSum(ctypes.Structure):
    _fields_ = [
        ("part_count", c_size_t),
        ("parts", POINTER(CSumPart)),
        ("step", c_uint64),
        ("later_count", c_size_t),
        ("is_by_step", c_int),
        ("error", c_double),
        ("file_bytes", c_uint64),
    ]


PROGRESS = CFUNCTYPE(c_int, c_void_p, c_uint64, c_uint64)


class CExportOptions(ctypes.Structure):
    _fields_ = [
        ("min_step", c_uint64),
        ("timeout_ms", c_int),
        ("dtype", c_uint),
        ("progress", PROGRESS),
        ("context", c_void_p),
    ]


class CExportInfo(ctypes.Structure):
    _fields_ = [
        ("version", c_uint64),
        ("step", c_uint64),
        ("updates", c_uint64),
        ("decay", c_double),
        ("published_us", c_uint64),
        ("tensor_count", c_uint64),
        ("file_bytes", c_uint64),
        ("overflow_count", c_uint64),
        ("overflow_tensor", c_char * 520),
    ]


class CPosthocOptions(ctypes.Structure):
    _fields_ = [
        ("std", c_double),
        ("step", c_uint64),
        ("model", c_char_p),
        ("profile", c_char_p),
        ("dtype", c_char_p),
        ("open_files_max", c_uint32),
        ("progress", PROGRESS),
        ("context", c_void_p),
    ]


class CMergeOptions(ctypes.Structure):
    _fields_ = [
        ("shape", c_char_p),
        ("profile", c_char_p),
        ("dtype", c_char_p),
        ("open_files_max", c_uint32),
        ("progress", PROGRESS),
        ("context", c_void_p),
    ]


# name: (result, arguments). Handles are plain pointers; char ** results stay pointers, so that they can be freed.
_PROTOTYPES = {
    "emad_error": (c_char_p, []),
    "emad_code_name": (c_char_p, [c_int]),
    "emad_version": (c_char_p, []),
    "emad_free": (None, [c_void_p]),
    "emad_client_open_with": (c_int, [c_char_p, c_int, POINTER(CClientOptions), POINTER(c_void_p)]),
    "emad_client_close": (None, [c_void_p]),
    "emad_hello": (c_int, [c_void_p, c_int, POINTER(CDaemon)]),
    "emad_status_json": (c_int, [c_void_p, c_int, POINTER(c_void_p)]),
    "emad_list_json": (c_int, [c_void_p, c_int, POINTER(c_void_p)]),
    "emad_show_json": (c_int, [c_void_p, c_char_p, c_int, POINTER(c_void_p)]),
    "emad_checkpoint": (c_int, [c_void_p, c_char_p, c_int, POINTER(c_uint64)]),
    "emad_checkpoint_keep": (c_int, [c_void_p, c_char_p, c_uint64, c_int, c_int]),
    "emad_history_json": (c_int, [c_void_p, c_char_p, c_int, POINTER(c_void_p)]),
    "emad_rollback": (c_int, [c_void_p, c_char_p, c_uint64, c_uint, c_int, POINTER(CRolledBack)]),
    "emad_remove": (c_int, [c_void_p, c_char_p, c_int, POINTER(c_uint64)]),
    "emad_trainer_open": (
        c_int,
        [c_void_p, c_char_p, POINTER(CTensor), c_size_t, POINTER(CTrainerOptions), POINTER(c_void_p)],
    ),
    "emad_trainer_close": (None, [c_void_p]),
    "emad_trainer_info": (c_int, [c_void_p, POINTER(CTrainerInfo)]),
    "emad_push": (c_int, [c_void_p, c_uint64, POINTER(c_void_p), c_uint, c_int, POINTER(CPushResult)]),
    "emad_enclose": (c_int, [c_void_p, POINTER(CEnclosure)]),
    "emad_profile_set": (
        c_int,
        [c_void_p, c_char_p, POINTER(c_char_p), c_uint32, c_int, POINTER(c_void_p)],
    ),
    "emad_profile_remove": (c_int, [c_void_p, c_char_p, c_char_p, c_int, POINTER(c_void_p)]),
    "emad_push_begin": (c_int, [c_void_p, c_uint64, POINTER(c_void_p)]),
    "emad_fence": (c_int, [c_void_p, c_int]),
    "emad_flush": (c_int, [c_void_p, c_int, POINTER(CFlushResult)]),
    "emad_attributes_set": (c_int, [c_void_p, c_char_p, c_int]),
    "emad_view_open_with": (c_int, [c_void_p, c_char_p, c_char_p, POINTER(CViewOptions), POINTER(c_void_p)]),
    "emad_image_read": (c_int, [c_void_p, c_char_p, c_char_p, POINTER(CRange), POINTER(CViewInfo)]),
    "emad_view_close": (None, [c_void_p]),
    "emad_view_check": (c_int, [c_void_p]),
    "emad_view_tensor": (c_int, [c_void_p, c_uint64, POINTER(CViewTensor)]),
    "emad_view_info": (c_int, [c_void_p, POINTER(CViewInfo)]),
    "emad_dtype_parse": (c_int, [c_char_p, POINTER(c_uint)]),
    "emad_view_read": (c_int, [c_void_p, c_uint64, c_uint, c_void_p, c_uint64]),
    "emad_export": (
        c_int,
        [c_void_p, c_char_p, c_char_p, c_char_p, POINTER(CExportOptions), POINTER(CExportInfo)],
    ),
    "emad_posthoc": (
        c_int,
        [POINTER(c_char_p), c_size_t, c_char_p, POINTER(CPosthocOptions), POINTER(POINTER(CSum))],
    ),
    "emad_merge": (c_int, [POINTER(c_char_p), c_size_t, c_char_p, POINTER(CMergeOptions), POINTER(POINTER(CSum))]),
    "emad_sum_free": (None, [POINTER(CSum)]),
}

_loaded: Optional[ctypes.CDLL] = None


def load() -> ctypes.CDLL:
    """libemad, loaded once. ImportError says where it was looked for."""
    global _loaded
    if _loaded is None:
        library = _open_first(_candidates())
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
        _version_check(library)
        _loaded = library
    return _loaded


def version() -> str:
    """The version of libemad, "0.1.0"."""
    return load().emad_version().decode()


def _candidates() -> List[str]:
    named = os.environ.get("EMAD_LIBRARY")
    if named:
        return [named]
    candidates = []
    here = Path(__file__).resolve()
    if len(here.parents) > 3 and (here.parents[3] / "client" / "emad.h").exists():
        for build in (os.environ.get("BUILD"), "release"):
            path = here.parents[3] / "build" / (build or "release") / "libemad.so"
            if path.exists() and str(path) not in candidates:
                candidates.append(str(path))
    found = ctypes.util.find_library("emad")
    return candidates + ([found] if found else []) + ["libemad.so.0"]


def _open_first(candidates: List[str]) -> ctypes.CDLL:
    failures = []
    for candidate in candidates:
        try:
            return ctypes.CDLL(candidate)
        except OSError as error:
            failures.append(f"{candidate} ({error})")
    raise ImportError(
        f"libemad cannot be loaded: tried {', '.join(failures)}; install it, or set EMAD_LIBRARY to its file"
    )


def _version_check(library: ctypes.CDLL) -> None:
    found = library.emad_version().decode()
    if not found.startswith(INTERFACE + "."):
        raise ImportError(f"this package is for libemad {INTERFACE}.x, the one that was found is {found}")


def fail(code: int, addition: str = "") -> NoReturn:
    """Raises the exception for a code that the library has just returned to this thread."""
    library = load()
    sentence = library.emad_error().decode(errors="replace")
    name = library.emad_code_name(code).decode(errors="replace")
    raise error_from(code, name, sentence + addition)


def check(code: int) -> None:
    if code:
        fail(code)


def milliseconds(timeout: Optional[float]) -> int:
    """timeout_ms of the library for seconds; None is the client's own."""
    if timeout is None:
        return -1
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is {type(timeout).__name__}; a number of seconds or None is accepted")
    if math.isnan(timeout) or timeout < 0:
        raise ValueError(f"timeout is {timeout} s; it must not be negative")
    return math.ceil(min(timeout * 1000, 2**31 - 1))


def text(value: object, what: str) -> bytes:
    """UTF-8 for the library."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is {type(value).__name__}; a str is accepted")
    if "\0" in value:
        raise ValueError(f"{what} contains a NUL character")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is {value!r}, which has no UTF-8: {error.reason}") from None


def take_string(library: ctypes.CDLL, pointer: c_void_p) -> str:
    """Copies a char * that the library allocated, and frees it."""
    try:
        return ctypes.string_at(pointer.value).decode()
    finally:
        library.emad_free(pointer)
