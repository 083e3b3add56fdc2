"""A bound on the bytes that the threads of a command read in a second, all together."""

from __future__ import annotations

import threading
import time


class Stopped(Exception):
    """The command ends: a thread shall not go on."""


class Rate:
    """Has the callers of :meth:`take` wait, or end; without ``per_second`` they do not wait."""

    def __init__(self, per_second: int = 0) -> None:
        self._per_second = per_second
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._free_at = time.monotonic()

    @property
    def is_bounded(self) -> bool:
        return bool(self._per_second)

    def take(self, size: int) -> None:
        """Wait until there is room for these bytes.

        :raises Stopped: the command ends.
        """
        if self._stopped.wait(self._delay(size)):
            raise Stopped()

    def stop(self) -> None:
        self._stopped.set()

    def _delay(self, size: int) -> float:
        if not self._per_second:
            return 0
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self._per_second
            return self._free_at - now
