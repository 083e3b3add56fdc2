"""Lingering close: ending connections while the client is still sending.

If a server closes such a connection at once, the client sees a broken connection instead of the
response. So the client's bytes are read and dropped for a while (RFC 9112 9.6), in a background
thread, so that no thread of the server has to wait.
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
MAX_CONNECTIONS = 256  # Above that, the oldest is closed.
RECEIVE_SIZE = 64 * 1024


def hang_up(connection: socket.socket) -> socket.socket:
    """End a connection for the server; returns a socket that is still connected to the client.

    The file descriptor of the server's socket is replaced by one that is at its end. If servers
    had to close the connection, they would read as long as the client sends, or wait for its end
    in their main loop.

    :raises OSError: there are no file descriptors left, or the socket is not one of the standard
        library's (gevent's are not); the connection is as before.
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
class _Connection:
    socket: socket.socket
    until: float  # By time.monotonic().
    left: int = MAX_BYTES


class Closing:
    """The lingering connections of a process; the thread is started by the first of them."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._arrived: deque[socket.socket] = deque()
        self._thread: threading.Thread | None = None

    def take_over(self, connection: socket.socket) -> None:
        """End a connection for the server, and keep it open until the client has the response."""
        try:
            taken = hang_up(connection)
        except OSError:
            with suppress(OSError):  # The client has closed it already.
                connection.shutdown(socket.SHUT_RDWR)
            return
        with self._lock:
            self._arrived.append(taken)
            if self._thread is None or not self._thread.is_alive():
                self._wakeup_sender, self._wakeup_receiver = socket.socketpair()
                self._wakeup_sender.setblocking(False)
                self._thread = threading.Thread(target=self._run, name="closing", daemon=True)
                self._thread.start()
            with suppress(BlockingIOError):  # It will wake up anyway.
                self._wakeup_sender.send(b"\0")

    def _run(self) -> None:
        # In the order in which they end, since all stay equally long.
        connections: deque[_Connection] = deque()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup_receiver, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                while connections and (
                    connections[0].until <= now or len(connections) > MAX_CONNECTIONS
                ):
                    self._close(connections.popleft(), selector)
                timeout = connections[0].until - now if connections else None
                for key, _ in selector.select(timeout):
                    if key.data is None:
                        connections += self._admit(selector)
                    elif not self._drop(key.data):
                        connections.remove(key.data)
                        self._close(key.data, selector)

    def _admit(self, selector: selectors.BaseSelector) -> list[_Connection]:
        self._wakeup_receiver.recv(RECEIVE_SIZE)
        connections = []
        while self._arrived:
            connection = _Connection(self._arrived.popleft(), time.monotonic() + SECONDS)
            connection.socket.setblocking(False)
            with suppress(OSError):  # The client has closed it: the first read fails too.
                connection.socket.shutdown(socket.SHUT_WR)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connections.append(connection)
        return connections

    @staticmethod
    def _drop(connection: _Connection) -> bool:
        """Drop the bytes that have arrived; False at the end."""
        try:
            size = len(connection.socket.recv(RECEIVE_SIZE))
        except BlockingIOError:
            return True
        except OSError:
            return False
        connection.left -= size
        return size > 0 and connection.left > 0

    @staticmethod
    def _close(connection: _Connection, selector: selectors.BaseSelector) -> None:
        selector.unregister(connection.socket)
        connection.socket.close()


CLOSING = Closing()
