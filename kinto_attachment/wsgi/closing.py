"""Connections that have been answered, and whose clients are still sending.

When a server closes at once, such a client sees a broken connection instead of the answer: so what
it sends is read and dropped for a while (RFC 9112 9.6). No thread that answers requests is held by
that: a thread beside them takes the connections over.
"""

from __future__ import annotations

import _socket
import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

SECONDS = 2.0
MAX_BYTES = 4 * 1024 * 1024  # Of one connection.
MAX_CONNECTIONS = 256  # Above it, the oldest is closed.
PIECE_SIZE = 64 * 1024


def hang_up(connection: socket.socket) -> socket.socket:
    """Have a server see the end of a connection; returns what the client is still connected to.

    The server's socket is exchanged below it, since servers that are told to close a connection
    read on themselves, for as long as the client likes, or wait for its end in their main loop.

    :raises OSError: there are no file descriptors left, or the socket is not the system's own
        (gevent's are not); the connection is as before.
    """
    if not isinstance(connection, _socket.socket):
        raise OSError(errno.ENOTSUP, "This socket cannot be exchanged")
    ended, other = socket.socketpair()
    other.close()
    with ended:
        taken = socket.socket(fileno=os.dup(connection.fileno()))
        os.dup2(ended.fileno(), connection.fileno(), inheritable=False)
    return taken


@dataclass(eq=False)
class _Guest:
    connection: socket.socket
    until: float
    left: int = MAX_BYTES


class Closing:
    """The connections of a process that are being dropped; its thread starts with the first."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._arrived: deque[socket.socket] = deque()
        self._thread: threading.Thread | None = None

    def take_over(self, connection: socket.socket) -> None:
        """End a server's connection, and let the client see what it was answered."""
        try:
            taken = hang_up(connection)
        except OSError:
            with suppress(OSError):  # The client has hung up already.
                connection.shutdown(socket.SHUT_RDWR)
            return
        with self._lock:
            self._arrived.append(taken)
            if self._thread is None or not self._thread.is_alive():
                self._bell, self._door = socket.socketpair()
                self._bell.setblocking(False)
                self._thread = threading.Thread(target=self._run, name="closing", daemon=True)
                self._thread.start()
            with suppress(BlockingIOError):  # Rung more than often enough.
                self._bell.send(b"\0")

    def _run(self) -> None:
        guests: deque[_Guest] = deque()  # All stay equally long: the first to leave is the first.
        with selectors.DefaultSelector() as selector:
            selector.register(self._door, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                while guests and (guests[0].until <= now or len(guests) > MAX_CONNECTIONS):
                    self._close(guests.popleft(), selector)
                for key, _ in selector.select(guests[0].until - now if guests else None):
                    if key.data is None:
                        guests += self._welcome(selector)
                    elif not self._drop(key.data):
                        guests.remove(key.data)
                        self._close(key.data, selector)

    def _welcome(self, selector: selectors.BaseSelector) -> list[_Guest]:
        self._door.recv(PIECE_SIZE)
        guests = []
        while self._arrived:
            guest = _Guest(self._arrived.popleft(), time.monotonic() + SECONDS)
            guest.connection.setblocking(False)
            with suppress(OSError):  # The client has hung up: the first read says so too.
                guest.connection.shutdown(socket.SHUT_WR)
            selector.register(guest.connection, selectors.EVENT_READ, guest)
            guests.append(guest)
        return guests

    @staticmethod
    def _drop(guest: _Guest) -> bool:
        """Whether there may be more to come."""
        try:
            size = len(guest.connection.recv(PIECE_SIZE))
        except BlockingIOError:
            return True
        except OSError:
            return False
        guest.left -= size
        return size > 0 and guest.left > 0

    @staticmethod
    def _close(guest: _Guest, selector: selectors.BaseSelector) -> None:
        selector.unregister(guest.connection)
        guest.connection.close()


CLOSING = Closing()
