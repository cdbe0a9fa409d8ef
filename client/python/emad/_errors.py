"""Exceptions: one class for every code of the library, all derived from Error.

Each also derives from the built-in exception that a caller who knows nothing of emad would catch: ConnectionError when
the daemon is away, TimeoutError when a deadline passed, ValueError for a name or a schedule that is not valid.
"""

from __future__ import annotations

import builtins
import errno as errnos
import os
from typing import Optional


class Error(Exception):
    """A failure of emad. str() is the library's sentence."""

    code: int = -10023
    """0 is never; -errno, or a code of emad.h."""

    name: str = "internal"
    """The code's name, "no-model" or "ENOENT"."""


class ProtocolError(Error):
    """The bytes received are not a valid message."""

    code, name = -10001, "protocol"


class VersionError(Error):
    """The daemon speaks another protocol version."""

    code, name = -10002, "version"


class LimitError(Error, ValueError):
    """A limit was exceeded."""

    code, name = -10003, "limit"


class NameError(Error, ValueError):
    """The name is not allowed."""

    code, name = -10004, "name"


class ManifestError(Error, ValueError):
    """The tensors do not match those of the model."""

    code, name = -10005, "manifest"


class ScheduleError(Error, ValueError):
    """The schedule is not valid."""

    code, name = -10006, "schedule"


class NoModelError(Error, LookupError):
    """No such model."""

    code, name = -10007, "no-model"


class NoProfileError(Error, LookupError):
    """No such profile."""

    code, name = -10008, "no-profile"


class ExistsError(Error):
    """The model exists already."""

    code, name = -10009, "exists"


class FencedError(Error):
    """A newer registration has taken over."""

    code, name = -10010, "fenced"


class AwayError(Error, ConnectionError):
    """The daemon cannot be reached."""

    code, name = -10011, "away"


class TimeoutError(Error, builtins.TimeoutError):
    """The deadline passed."""

    code, name = -10012, "timeout"


class BusyError(Error):
    """No room until earlier work is done."""

    code, name = -10013, "busy"


class RevokedError(Error):
    """The view was revoked by the daemon: what was read from it must be thrown away."""

    code, name = -10014, "revoked"


class ForkedError(Error, RuntimeError):
    """The handle belongs to the parent process."""

    code, name = -10015, "forked"


class OutOfMemoryError(Error, MemoryError):
    """Not enough memory, here or at the daemon."""

    code, name = -10016, "memory"


class CorruptError(Error):
    """The data are damaged."""

    code, name = -10017, "corrupt"


class ArgumentError(Error, ValueError):
    """An argument is not valid."""

    code, name = -10018, "argument"


class ShutdownError(Error, ConnectionError):
    """The daemon is shutting down."""

    code, name = -10019, "shutdown"


class NoVersionError(Error, LookupError):
    """The model has no averaged version yet."""

    code, name = -10020, "no-version"


class ProfileError(Error, ValueError):
    """The profiles do not match those of the model."""

    code, name = -10021, "profile"


class RefusedError(Error):
    """A snapshot was refused."""

    code, name = -10022, "refused"
    result: Optional[tuple] = None
    """The FlushResult where a flush says so, the PushResult where a seed does."""


class InternalError(Error):
    """A fault inside emad."""

    code, name = -10023, "internal"


class ClosedError(ArgumentError):
    """The client, trainer or view has been closed by this process."""


class SystemCallError(Error, OSError):
    """The operating system refused; errno says what."""

    def __str__(self) -> str:
        return self.args[0] if self.args else ""


_CLASSES = {
    kind.code: kind
    for kind in (
        ProtocolError, VersionError, LimitError, NameError, ManifestError, ScheduleError, NoModelError, NoProfileError,
        ExistsError, FencedError, AwayError, TimeoutError, BusyError, RevokedError, ForkedError, OutOfMemoryError,
        CorruptError, ArgumentError, ShutdownError, NoVersionError, ProfileError, RefusedError, InternalError,
    )
}  # fmt: skip


def error_from(code: int, name: str, sentence: str) -> Error:
    """The exception for a code. name and sentence as the library gives them."""
    if code == -errnos.ENOMEM:
        kind: type = OutOfMemoryError
    elif -4096 < code < 0:
        kind = SystemCallError
        sentence = sentence or os.strerror(-code)
    else:
        kind = _CLASSES.get(code, InternalError)
    error = kind(sentence or name)
    error.code = code
    error.name = name
    if kind is SystemCallError:
        error.errno = -code
        error.strerror = sentence
    return error
