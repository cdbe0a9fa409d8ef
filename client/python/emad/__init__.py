"""Moving averages of model weights, kept by the emad daemon.

A trainer pushes snapshots of its weights; the daemon keeps their exponential moving averages in shared memory; anybody
on the host opens a consistent version of an average as a view and reads it in place::

    client = emad.Client()
    trainer = client.trainer("run42/net", model.state_dict(), profiles={"ema": "yolo:decay=0.999"})
    trainer.push(step, model.state_dict())
    with client.view("run42/net", "ema") as view:
        weights = view.state_dict()

`emad.torch` has drop-ins for the usual classes (ModelEMA, AveragedModel, ExponentialMovingAverage), `emad.migrate`
takes over what other libraries have stored. Every failure is an exception derived from `emad.Error`, but for values of
a wrong Python type, which are a TypeError or a ValueError as everywhere.

Neither NumPy nor PyTorch is imported by this package; arrays and tensors are recognised when they are given, and views
import what they are asked for.
"""

from ._client import Client, Daemon, Exported, ImagePart, RolledBack
from ._errors import (
    ArgumentError,
    AwayError,
    BusyError,
    ClosedError,
    CorruptError,
    Error,
    ExistsError,
    FencedError,
    ForkedError,
    InternalError,
    LimitError,
    ManifestError,
    NameError,
    NoModelError,
    NoProfileError,
    NoVersionError,
    OutOfMemoryError,
    ProfileError,
    ProtocolError,
    RefusedError,
    RevokedError,
    ScheduleError,
    ShutdownError,
    SystemCallError,
    TimeoutError,
    VersionError,
)
from ._library import version
from ._sums import Part, Sum, merge, posthoc
from ._tensors import Piece
from ._trainer import FlushResult, PushResult, Trainer, TrainerInfo
from ._view import View

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "AwayError",
    "BusyError",
    "Client",
    "ClosedError",
    "CorruptError",
    "Daemon",
    "Error",
    "ExistsError",
    "Exported",
    "FencedError",
    "FlushResult",
    "ForkedError",
    "ImagePart",
    "InternalError",
    "LimitError",
    "ManifestError",
    "NameError",
    "NoModelError",
    "NoProfileError",
    "NoVersionError",
    "OutOfMemoryError",
    "Part",
    "Piece",
    "ProfileError",
    "ProtocolError",
    "PushResult",
    "RefusedError",
    "RevokedError",
    "RolledBack",
    "ScheduleError",
    "ShutdownError",
    "Sum",
    "SystemCallError",
    "TimeoutError",
    "Trainer",
    "TrainerInfo",
    "VersionError",
    "View",
    "merge",
    "posthoc",
    "version",
]
