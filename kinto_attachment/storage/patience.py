"""How long a request waits, in all, for a storage that does not answer.

A call has timeouts, but an upload makes several calls, a call that failed is made again, and a
batch has parts: together they would outlast whoever waits for the answer. So each request has a
**patience**, shared by all that it does. Only silence wears it out, never a transfer that goes on,
and an answer restores it. Once it is worn out, calls fail at once; only a few that clean up, which
are hasty, may still try. Commands wait for as long as they like.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kinto_attachment.errors import FileNotFound, KeyTaken, StorageUnavailable

# Seconds for connecting and for each block sent; for each answer and for each block received.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 10.0
HASTY_TIMEOUT = 3.0
# Once so many were lost, nothing is tried any more. A storage that hangs is thus asked twice, and
# has READ_TIMEOUT each time; with a moment in between, and a hasty call that cleans up, that is
# about 25 s. Proxies give up after 60.
PATIENCE = 12.0
HASTE = 2.5

_current: ContextVar[Patience | None] = ContextVar("patience", default=None)


class Patience:
    """Of one request; threads that work for it share it."""

    def __init__(self) -> None:
        self._lost = {False: 0.0, True: 0.0}  # Seconds, in calls of both kinds.

    def is_worn_out(self, *, hasty: bool) -> bool:
        return self._lost[hasty] >= limit(hasty=hasty)

    def lose(self, seconds: float, *, hasty: bool) -> None:
        self._lost[hasty] += seconds

    def restore(self) -> None:
        self._lost = {False: 0.0, True: 0.0}


@contextmanager
def waiting(body: object = None, *, hasty: bool = False) -> Iterator[None]:
    """Around a call that sends ``body`` to the storage.

    :raises StorageUnavailable: the request has waited for long enough.
    """
    patience = _current.get()
    if patience is None:
        yield
        return
    if patience.is_worn_out(hasty=hasty):
        raise StorageUnavailable()
    begun = time.monotonic()
    try:
        yield
    except (FileNotFound, KeyTaken):  # Answers.
        patience.restore()
        raise
    except Exception:
        patience.lose(silence(begun, body), hasty=hasty)
        raise
    patience.restore()


def limit(*, hasty: bool) -> float:
    """The seconds that may be lost."""
    return HASTE if hasty else PATIENCE


def is_over(lost: float, *, hasty: bool) -> bool:
    """Whether not to try again a call that has lost so many seconds."""
    patience = _current.get()
    worn_out = patience is not None and patience.is_worn_out(hasty=hasty)
    return worn_out or lost >= limit(hasty=hasty)


def silence(begun: float, body: object) -> float:
    """The seconds since a call began, or since the last block of its body could be sent."""
    return time.monotonic() - max(begun, getattr(body, "asked", begun))


def tween(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Give each request its patience."""

    def patient(request: Any) -> Any:
        token = _current.set(Patience())
        try:
            return handler(request)
        finally:
            _current.reset(token)

    return patient
