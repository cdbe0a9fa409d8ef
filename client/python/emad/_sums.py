"""Averages made from files: posthoc and merge. No daemon is needed."""

from __future__ import annotations

import os
from ctypes import POINTER, byref, c_char_p
from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Union

from . import _library
from ._library import CMergeOptions, CPosthocOptions, CSum

Path = Union[str, "os.PathLike[str]"]
Progress = Callable[[int, int], Any]


class Part(NamedTuple):
    """One file of a sum."""

    path: str
    profile: str
    """As the file says, or ""."""
    std: float
    """Relative width of its average; 0 where that was not asked for."""
    step: int
    """As the file says, or 0."""
    weight: float
    """All weights add up to 1; 0: the file was not needed."""


class Sum(NamedTuple):
    """What was added up."""

    parts: List[Part]
    """Oldest first."""
    step: int
    """Of the result."""
    later: int
    """posthoc: snapshots behind the step, left out."""
    by_step: bool
    """merge: the files were put in the order of their steps."""
    error: float
    """posthoc: how far the sum is from the wanted average, as a part of it; merge: 0."""
    bytes: int
    """Of the new file; 0 when none was written."""


def posthoc(
    paths: Union[Path, Iterable[Path]],
    output: Optional[Path],
    *,
    std: float,
    step: Optional[int] = None,
    model: Optional[str] = None,
    profile: Optional[str] = None,
    dtype: Optional[str] = None,
    progress: Optional[Progress] = None,
) -> Sum:
    """Makes the average of another width from stored averages of schedule `power`.

    paths: snapshots that the daemon kept, or exported files, or the directory of a model's snapshots.
    output: the safetensors file to write, whole or not at all. None: only finds the weights.
    std: relative width of the wanted average, from 0.001 to 0.2886, for example 0.15.
    step: of the result, one that a snapshot has; None: the newest.
    model: files of other models in a directory are left out; None: files of several models are refused.
    profile: the name in the new file; None: "posthoc".
    dtype: of its floating-point tensors: "F32", "bfloat16", ...; None: as in the files.
    progress: called now and then with the bytes read and the bytes in all; what it raises stops the writing.

    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", section 3.
    """
    if isinstance(std, bool) or not isinstance(std, (int, float)):
        raise TypeError(f"std is {type(std).__name__}; a number is accepted")
    options = CPosthocOptions(
        std=std,
        step=_step(step),
        model=None if model is None else _library.text(model, "model"),
        profile=None if profile is None else _library.text(profile, "profile"),
        dtype=None if dtype is None else _library.text(dtype, "dtype"),
    )
    return _make("emad_posthoc", paths, output, options, progress)


def merge(
    paths: Iterable[Path],
    output: Optional[Path],
    *,
    shape: str = "linear",
    profile: Optional[str] = None,
    dtype: Optional[str] = None,
    progress: Optional[Progress] = None,
) -> Sum:
    """Merges checkpoints of a constant learning rate into what a decayed one would have left.

    paths: safetensors files with the same tensors, oldest first; where all of them have an emad.step they are put in
    that order. shape: of the decay: "linear" (which comes out as the mean), "minus-sqrt", "uniform" (the mean).
    output, profile ("merged"), dtype, progress: as for posthoc.

    "WSM: Decay-Free Learning Rate Schedule via Checkpoint Merging for LLM Pre-training".
    """
    options = CMergeOptions(
        shape=_library.text(shape, "shape"),
        profile=None if profile is None else _library.text(profile, "profile"),
        dtype=None if dtype is None else _library.text(dtype, "dtype"),
    )
    return _make("emad_merge", paths, output, options, progress)


def _step(step: Optional[int]) -> int:
    if step is None:
        return 0
    if isinstance(step, bool) or not isinstance(step, int):
        raise TypeError(f"step is {type(step).__name__}; an int is accepted")
    if not 0 < step < 2**64:
        raise ValueError(f"step is {step}; it must be from 1 to {2**64 - 1}")
    return step


def _make(
    name: str,
    paths: Union[Path, Iterable[Path]],
    output: Optional[Path],
    options: Union[CPosthocOptions, CMergeOptions],
    progress: Optional[Progress],
) -> Sum:
    library = _library.load()
    names = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else list(paths)
    array = (c_char_p * len(names))(*map(_path, names))
    raised: List[BaseException] = []

    def report(_context: Any, done_bytes: int, total_bytes: int) -> int:
        try:
            if progress is not None:
                progress(done_bytes, total_bytes)
            return 0
        except BaseException as error:  # KeyboardInterrupt too: ctypes would drop it
            raised.append(error)
            return 1

    options.progress = _library.PROGRESS(report)
    found = POINTER(CSum)()
    code = getattr(library, name)(
        array, len(names), None if output is None else _path(output), byref(options), byref(found)
    )
    if raised:
        raise raised[0]
    _library.check(code)
    try:
        return _sum(found.contents)
    finally:
        library.emad_sum_free(found)


def _path(path: Path) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("a path contains a NUL character")
    return encoded


def _sum(found: CSum) -> Sum:
    parts = [
        Part(os.fsdecode(part.path), part.profile.decode(errors="replace"), part.std, part.step, part.weight)
        for part in found.parts[: found.part_count]
    ]
    return Sum(parts, found.step, found.later_count, bool(found.is_by_step), found.error, found.file_bytes)
