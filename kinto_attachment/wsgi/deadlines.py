"""Time limits for receiving a body: a timeout for silence, and a minimum rate."""

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

# `tcpi_bytes_received` in `struct tcp_info`, since Linux 4.1.
BYTES_RECEIVED = struct.Struct("=128xQ")


def connection_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """The socket of a request, if the server provides it, as gunicorn does."""
    if not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1."):
        return None  # Later versions share a connection between requests.
    connection: socket.socket | None = environ.get("gunicorn.socket")
    return connection


def stop_waiting(connection: socket.socket) -> None:
    """Make the next read of another thread from this socket fail with a TimeoutError.

    A read in progress ends with the next byte, or by the timeout that it started with. Shutting
    the socket down for reading would end it at once, but then Linux still delivers what arrives
    later, as the next request; and over TLS, no response could be sent any more.
    """
    with suppress(OSError):  # The client has closed the connection.
        connection.settimeout(0.001)


@dataclass(frozen=True)
class Limits:
    """The configured limits for bodies; 0 switches a limit off."""

    timeout: float = 0.0  # Seconds without a byte.
    min_rate: int = 0  # Bytes per second, over a window.

    @property
    def window(self) -> float:
        """Seconds: twice the timeout, so that a client can catch up after a pause."""
        return 2 * self.timeout or 60.0


class Pace:
    """Measures the rate of a body over the time that the server spent waiting for it.

    Time in which the server processed what it had received does not count.
    """

    def __init__(self, limits: Limits, clock: Clock = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._waited = 0.0  # Seconds in this window, without the current wait.
        self._since: float | None = None  # When the current wait began.
        self._before = 0  # Bytes received before this window.

    def start_waiting(self) -> None:
        self._since = self._clock()

    def stop_waiting(self) -> None:
        if self._since is not None:
            self._waited += self._clock() - self._since
            self._since = None

    def too_slow(self, received: int, unknown: int = 0) -> bool:
        """Whether the rate was too low in the window that ends now; False within a window.

        Call it regularly, also between waits.

        :param received: the number of bytes since the start, at least.
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
    """A wait that the watchdog may have to end."""

    def is_over(self) -> bool: ...

    def end(self) -> None: ...


class Watchdog:
    """Checks all waits every second, in one daemon thread of the process.

    The thread is started by the first wait, and again after a fork. It sleeps after a
    second without waits, until the next one wakes it. Other waits do not wake it, since that
    takes longer than most of them.
    """

    INTERVAL = 1.0  # Seconds.

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._waits: set[Watched] = set()
        self._thread: threading.Thread | None = None
        self._is_used = self._sleeps = False  # In the current second; until the next wait.

    @contextmanager
    def watching(self, wait: Watched) -> Iterator[None]:
        """Watch a wait until the end of the block."""
        with self._changed:
            self._waits.add(wait)
            self._is_used = True
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="bodies", daemon=True)
                self._thread.start()
            elif self._sleeps:
                self._sleeps = False
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._waits.discard(wait)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_used:
                    self._sleeps = True
                    self._changed.wait()
                self._is_used = bool(self._waits)
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
        except Exception:  # A failing wait must not end the thread.
            logger.exception("Could not check the time limits of a body")
            return False


WATCHDOG = Watchdog()


class Deadline:
    """A fixed time limit for reading from a connection."""

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


class BodyTimeouts:
    """Enforces the limits on one body: by the socket's timeout, and by the watchdog for the rate.

    A server's ``read(n)`` blocks until it has n bytes, so that neither can be checked between
    reads. If the socket is not known, the rate is only checked between reads.
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
        # A window without a byte is too slow, too.
        self._timeout = limits.timeout or (limits.window if limits.min_rate else 0.0)
        self._received_before = bytes_received(connection) if connection is not None else None

    def step(self, size: int) -> int:
        """The number of bytes to read at once, at most ``size``.

        If the bytes that have arrived for a read cannot be counted, reads have to be so small that
        a client that is fast enough completes some of them in each window.
        """
        if self._connection is None or self._received_before is not None:
            return size
        return min(size, int(self._limits.min_rate * self._limits.window) // 2 or size)

    @contextmanager
    def waiting(self, size: int) -> Iterator[None]:
        """Limit a read of ``size`` bytes in this block.

        :raises BodyTimeout: they, or those before them, arrive too slowly.
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
                raise  # It is a timeout of the server.
            raise BodyTimeout("Request body stopped arriving.") from error
        finally:
            self._pace.stop_waiting()
            self._asked_for = 0

    def arrived(self, size: int) -> None:
        """Count the bytes of a read."""
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
    """The bytes received on a TCP connection, read or not; None if they are unknown."""
    if sys.platform != "linux":
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (received,) = BYTES_RECEIVED.unpack_from(info)
    except (OSError, struct.error):  # It is not TCP, or the kernel is old.
        return None
    return int(received) or None
