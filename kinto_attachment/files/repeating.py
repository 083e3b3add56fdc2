"""Repeating work whose transaction conflicts with another one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from kinto.core.storage.exceptions import BackendError, IntegrityError

# Two writers of one collection conflict if they get the same timestamp, rarely twice.
ATTEMPTS = 10
PAUSE = 0.02  # Seconds, at most, before the second attempt; then longer, up to ten times that.
# PostgreSQL's appendix A: serialization_failure and deadlock_detected.
CONFLICTS = ("40001", "40P01")

T = TypeVar("T")


def repeated(
    action: Callable[[], T],
    *more: type[Exception],
    begin_again: Callable[[], object] = lambda: None,
) -> T:
    """Call a function that makes transactions, and repeat it if they conflict with others.

    ``more`` are additional errors that mean a conflict. ``begin_again`` is called before each
    repetition.

    :raises BackendError: the database does not answer, or conflicts do not end.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except more:
            pass
        except BackendError as error:
            if not is_conflict(error):
                raise
        begin_again()
        pause(attempt)
    return action()


def pause(attempt: int) -> None:
    """Wait after a conflict, longer after each attempt."""
    time.sleep(random.uniform(PAUSE / 4, PAUSE * attempt))  # noqa: S311


def is_conflict(error: BackendError) -> bool:
    """Whether a transaction conflicted with another one, so that it can be repeated."""
    cause = getattr(error.original, "orig", None)
    return isinstance(error, IntegrityError) or getattr(cause, "pgcode", None) in CONFLICTS
