"""A limit on the bytes that all threads of a command read per second."""

from __future__ import annotations

import threading
import time


class Stopped(Exception):
    """The command is ending, so the thread must stop."""


class Rate:
    """Makes callers of :meth:`take` wait or stop; without ``per_second``, they never wait."""

    def __init__(self, per_second: int = 0) -> None:
        self._per_second = per_second
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._free_at = time.monotonic()

    @property
    def is_bounded(self) -> bool:
        return bool(self._per_second)

    def take(self, size: int) -> None:
        """Wait until the rate allows these bytes.

        :raises Stopped: the command is ending.
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
