"""Following the versions of a model: what Client.watch does.

The wait is the daemon's own: a view that is asked for with a step answers when a version of it is there. Every slice of
it ends with a look at the newest step, so that a training which went back is noticed, and Ctrl-C in any case.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, Optional

from ._errors import AwayError, BusyError, NoModelError, NoProfileError, NoVersionError, RevokedError, ShutdownError
from ._errors import TimeoutError as EmadTimeoutError
from ._view import View

if TYPE_CHECKING:
    from ._client import Client

SLICE_SECONDS = 10.0
RETRY_SECONDS = 0.5


class Cadence:
    """At which steps a version is due: at the multiples of `every`, and at `until`."""

    def __init__(self, every: int, until: Optional[int], newest: int):
        self.every = every
        self.until = until
        self.begin(newest)

    def begin(self, newest: int) -> None:
        self.seen = newest
        self._set(newest if newest % self.every == 0 else self._behind(newest))

    def take(self, step: int) -> bool:
        """A version of this step was taken; False: it was the last one."""
        self.seen = step
        self._set(self._behind(step))
        return self.until is None or step < self.until

    def see(self, step: int) -> None:
        """The newest step there is; when training went back, the steps behind it are due again."""
        if step < self.seen:
            self.begin(step)
        self.seen = step

    def _behind(self, step: int) -> int:
        return (step // self.every + 1) * self.every

    def _set(self, due: int) -> None:
        self.due = due if self.until is None else min(due, self.until)


def follow(
    client: "Client",
    model: str,
    profile: Optional[str],
    every: int,
    until_step: Optional[int],
    timeout: Optional[float],
    options: Dict[str, Any],
) -> Iterator[View]:
    instance = client.ping().instance
    try:
        with client.view(model, profile, tensors=[]) as newest:
            cadence = Cadence(every, until_step, newest.step)
    except (NoVersionError, RevokedError):
        cadence = Cadence(every, until_step, 0)
    is_more = True
    while is_more:
        view, instance = _next(client, model, profile, cadence, instance, timeout, options)
        is_more = cadence.take(view.step)
        try:
            yield view
        finally:
            view.close()


def _next(client, model, profile, cadence, instance, timeout, options):  # type: ignore[no-untyped-def]
    """The next due version, and the daemon that it is from."""
    deadline = None if timeout is None else time.monotonic() + timeout
    failure: Optional[Exception] = None
    while True:
        left = SLICE_SECONDS if deadline is None else min(SLICE_SECONDS, max(0.0, deadline - time.monotonic()))
        try:
            view = client.view(model, profile, min_step=cadence.due, timeout=left, **options)
            return view, _instance(client)
        except (AwayError, ShutdownError, NoVersionError, RevokedError, BusyError, EmadTimeoutError) as error:
            failure = error
        except (NoModelError, NoProfileError) as error:
            # A daemon that was started anew gets it back from its trainer.
            if instance is not None and _instance(client) == instance:
                raise
            failure = error
        if deadline is not None and time.monotonic() >= deadline:
            raise failure
        if isinstance(failure, EmadTimeoutError):
            _look(client, model, cadence)
        else:
            time.sleep(RETRY_SECONDS)


def _instance(client: "Client") -> Optional[int]:
    try:
        return client.ping().instance
    except (AwayError, ShutdownError, EmadTimeoutError):
        return None


def _look(client: "Client", model: str, cadence: Cadence) -> None:
    try:
        rows = client.list()["models"]
    except (AwayError, ShutdownError, EmadTimeoutError):
        return
    for row in rows:
        if row["model"] == model and row["step"] is not None:
            cadence.see(row["step"])
