"""How long a server waits for a body: judged by the clock, whatever the client does."""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from kinto_attachment.errors import BodyTimeout

logger = logging.getLogger(__name__)

Clock = Callable[[], float]

# What `struct tcp_info` of Linux has at this place is `tcpi_bytes_received`, since 4.1.
BYTES_RECEIVED = struct.Struct("=128xQ")


def connection_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """The socket that a request came by, where the server gives it (gunicorn does)."""
    if not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1."):
        return None  # Other requests arrive by the same socket at the same time.
    connection: socket.socket | None = environ.get("gunicorn.socket")
    return connection


def stop_waiting(connection: socket.socket) -> None:
    """Have the next wait of another thread for the client's bytes fail, with a TimeoutError.

    The wait that is under way ends with the next byte, or by the timeout that it began with.
    Shutting the socket for reading would end it at once, but what arrives later is still read
    (Linux), as the next request; and TLS cannot send an answer any more.
    """
    with suppress(OSError):  # The client has hung up.
        connection.settimeout(0.001)


@dataclass(frozen=True)
class Limits:
    """What a body has to keep to; 0 switches a limit off."""

    timeout: float = 0.0  # Seconds without a byte.
    min_rate: int = 0  # Bytes a second, over a window.

    @property
    def window(self) -> float:
        """Seconds; a client that pauses for as long as it may still has time to catch up."""
        return 2 * self.timeout or 60.0


class Pace:
    """Judges whether a body comes too slowly, by the time that the server waited for it.

    The time in which the server was busy with what it had does not count.
    """

    def __init__(self, limits: Limits, clock: Clock = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._waited = 0.0  # Seconds of this window, without the wait that has not ended.
        self._since: float | None = None  # When that wait began.
        self._before = 0  # Bytes that had been received when this window began.

    def start_waiting(self) -> None:
        self._since = self._clock()

    def stop_waiting(self) -> None:
        if self._since is not None:
            self._waited += self._clock() - self._since
            self._since = None

    def too_slow(self, received: int, unknown: int = 0) -> bool:
        """Judge when a window is over; to be asked every now and then, also between waits.

        :param received: the number of bytes since the beginning, at least.
        :param unknown: how many more may have been received.
        """
        now = self._clock()
        waited = self._waited + (now - self._since if self._since is not None else 0.0)
        if not self._limits.min_rate or waited < self._limits.window:
            return False
        if received + unknown - self._before < self._limits.min_rate * waited:
            return True
        self._before, self._waited = received, 0.0
        if self._since is not None:
            self._since = now
        return False


class Watched(Protocol):
    """A wait that somebody else may have to end."""

    def is_over(self) -> bool: ...

    def end(self) -> None: ...


class Watchdog:
    """Looks after waits every second, from one daemon thread of the process.

    The thread is started by the first wait, after a fork again, and sleeps while there is none.
    """

    INTERVAL = 1.0  # Seconds.

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._waits: set[Watched] = set()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, wait: Watched) -> Iterator[None]:
        """Have a wait looked after; once this is left, it is not ended any more."""
        with self._changed:
            self._waits.add(wait)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="bodies", daemon=True)
                self._thread.start()
            elif len(self._waits) == 1:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._waits.discard(wait)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waits:
                    self._changed.wait()
            time.sleep(self.INTERVAL)
            self.look()

    def look(self) -> None:
        """End the waits that are over."""
        with self._changed:
            for wait in [wait for wait in self._waits if self._is_over(wait)]:
                self._waits.discard(wait)
                wait.end()

    @staticmethod
    def _is_over(wait: Watched) -> bool:
        try:
            return wait.is_over()
        except Exception:  # One wait must not be the end of the thread.
            logger.exception("Could not look after a body")
            return False


WATCHDOG = Watchdog()


class Deadline:
    """Until when somebody may wait for a connection."""

    def __init__(
        self, connection: socket.socket, seconds: float, clock: Clock = time.monotonic
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._until = clock() + seconds

    def is_over(self) -> bool:
        return self._clock() >= self._until

    def end(self) -> None:
        stop_waiting(self._connection)


class Patience:
    """What one request grants its body: the socket's timeout bounds a stall, the watchdog a drip.

    A server's ``read(n)`` returns when it has n bytes, not when there are some: neither can be
    seen between reads. Without a socket, the rate is judged there all the same.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        connection: socket.socket | None = None,
        watchdog: Watchdog = WATCHDOG,
        clock: Clock = time.monotonic,
    ) -> None:
        limits = limits or Limits()
        self._limits = limits
        self._connection = connection
        self._watchdog = watchdog
        self._pace = Pace(self._limits, clock)
        self._read = 0
        self._asked_for = 0
        self._ended = False
        # Without a byte for a window, a body is too slow as well.
        self._timeout = limits.timeout or (limits.window if limits.min_rate else 0.0)
        self._received_before = bytes_received(connection) if connection is not None else None

    def step(self, size: int) -> int:
        """How much to ask the server for, of the ``size`` bytes that are wanted.

        Where nobody can tell how much of a read has arrived, reads have to be so small that a
        client which is not too slow fills some in each window.
        """
        if self._connection is None or self._received_before is not None:
            return size
        return min(size, int(self._limits.min_rate * self._limits.window) // 2 or size)

    @contextmanager
    def waiting(self, size: int) -> Iterator[None]:
        """A read of so many bytes.

        :raises BodyTimeout: they, or those before them, come too slowly.
        """
        if self._pace.too_slow(self._received()):
            raise self._too_slow()
        self._asked_for = size
        self._pace.start_waiting()
        try:
            with self._bounded():
                yield
        except TimeoutError as error:
            if self._ended:
                raise self._too_slow() from error
            if not self._timeout:
                raise  # Of the server's own.
            raise BodyTimeout("Request body stopped arriving.") from error
        finally:
            self._pace.stop_waiting()
            self._asked_for = 0

    def arrived(self, size: int) -> None:
        """A read has returned so many bytes."""
        self._read += size

    def is_over(self) -> bool:
        unknown = self._asked_for if self._received_before is None else 0
        return self._pace.too_slow(self._received(), unknown)

    def end(self) -> None:
        self._ended = True
        if self._connection is not None:
            stop_waiting(self._connection)

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        if self._connection is None:
            yield
            return
        before = self._connection.gettimeout()
        self._connection.settimeout(self._timeout or before)
        try:
            with self._watchdog.watching(self) if self._limits.min_rate else nullcontext():
                yield
        finally:
            self._connection.settimeout(before)

    def _received(self) -> int:
        if self._connection is None or self._received_before is None:
            return self._read
        return (bytes_received(self._connection) or 0) - self._received_before

    @staticmethod
    def _too_slow() -> BodyTimeout:
        return BodyTimeout("Request body arrives too slowly.")


def bytes_received(connection: socket.socket) -> int | None:
    """All that has come by a TCP connection, read or not; None where nobody counts it."""
    if sys.platform != "linux":
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (received,) = BYTES_RECEIVED.unpack_from(info)
    except (OSError, struct.error):  # Not TCP; an old kernel.
        return None
    return int(received) or None
