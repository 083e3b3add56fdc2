"""Repeating what conflicts with a transaction of somebody else, such as a request."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from kinto.core.storage.exceptions import BackendError

from kinto_attachment.files.transactions import is_conflict

T = TypeVar("T")

ATTEMPTS = 5
PAUSE = 0.1  # Seconds, at most, before the second attempt; then longer.


def repeated(action: Callable[[], T]) -> T:
    """Call a function that makes transactions of its own, again after a deadlock.

    :raises BackendError: the database does not answer, or conflicts do not end.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except BackendError as error:
            if not is_conflict(error):
                raise
        time.sleep(random.uniform(0, PAUSE * attempt))  # noqa: S311
    return action()
