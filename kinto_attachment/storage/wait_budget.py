"""How long a request waits, in total, for a storage that does not answer.

Each call has timeouts. But an upload makes several calls, failed calls are retried, and a batch
has many parts, so that together they could take longer than the client or a proxy waits for the
response. Therefore each request has a budget of seconds, shared by everything it does. Only
silence is charged to it, never a transfer that makes progress, and a response from the storage
refills it. Once it is spent, calls fail at once. Calls that clean up after a failure have a
separate small budget. Commands have no budget.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kinto_attachment.errors import FileNotFound, KeyTaken, StorageUnavailable
from kinto_attachment.kinto_types import Handler, Registry, Request, Response

# Seconds for connecting and for each block sent; for each answer and for each block received.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 10.0
CLEANUP_TIMEOUT = 3.0
# Seconds of silence. A storage that hangs is called twice, for READ_TIMEOUT each: with a pause in
# between and one call that cleans up, that is about 25 s. Proxies usually give up after 60 s.
BUDGET = 12.0
CLEANUP_BUDGET = 2.5

_current: ContextVar[WaitBudget | None] = ContextVar("wait_budget", default=None)


class WaitBudget:
    """The budget of one request; threads that work for the request share it."""

    def __init__(self) -> None:
        self.refill()

    def is_spent(self, *, cleanup: bool) -> bool:
        return self._spent[cleanup] >= budget(cleanup=cleanup)

    def spend(self, seconds: float, *, cleanup: bool) -> None:
        self._spent[cleanup] += seconds

    def refill(self) -> None:
        self._spent = {False: 0.0, True: 0.0}  # Seconds, by whether the calls clean up.


@contextmanager
def within_budget(body: object = None, *, cleanup: bool = False) -> Iterator[None]:
    """Charge a call to the storage, which sends ``body``, to the current request's budget.

    :raises StorageUnavailable: the budget is spent.
    """
    current = _current.get()
    if current is None:
        yield
        return
    if current.is_spent(cleanup=cleanup):
        raise StorageUnavailable()
    begun = time.monotonic()
    try:
        yield
    except (FileNotFound, KeyTaken):  # The storage has answered.
        current.refill()
        raise
    except Exception:
        current.spend(seconds_of_silence(begun, body), cleanup=cleanup)
        raise
    current.refill()


def budget(*, cleanup: bool) -> float:
    """The seconds of silence that a request may spend on calls of this kind."""
    return CLEANUP_BUDGET if cleanup else BUDGET


def is_too_late_to_retry(lost: float, *, cleanup: bool) -> bool:
    """Whether a call that has lost this many seconds to silence should not be retried."""
    current = _current.get()
    spent = current is not None and current.is_spent(cleanup=cleanup)
    return spent or lost >= budget(cleanup=cleanup)


def seconds_of_silence(begun: float, body: object) -> float:
    """The seconds since a call began, or since the last block of its body was sent."""
    return time.monotonic() - max(begun, getattr(body, "asked", begun))


def tween(handler: Handler, registry: Registry) -> Handler:
    """Give each request a budget."""

    def budgeted(request: Request) -> Response:
        token = _current.set(WaitBudget())
        try:
            return handler(request)
        finally:
            _current.reset(token)

    return budgeted
