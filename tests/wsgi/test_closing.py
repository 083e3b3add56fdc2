"""Connections that are answered and dropped outside the threads of the server."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kinto_attachment.wsgi import closing
from kinto_attachment.wsgi.closing import Closing, hang_up
from tests.support import waiting

Pair = tuple[socket.socket, socket.socket]


def connected() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=waiting.SECONDS)
        server, _ = listener.accept()
    return server, client


@pytest.fixture
def pair() -> Iterator[Pair]:
    server, client = connected()
    with server, client:
        yield server, client


def sends_until_it_is_cut_off(client: socket.socket) -> int:
    size = 0
    try:
        while True:
            size += client.send(bytes(65536))
    except ConnectionError:
        return size


def drips_until_it_is_cut_off(client: socket.socket) -> None:
    def is_cut_off() -> bool:
        try:
            client.sendall(b"x")
        except ConnectionError:
            return True
        return False

    waiting.until(is_cut_off, pause=0.01)


def test_the_server_sees_the_end_and_the_client_does_not(pair: Pair) -> None:
    server, client = pair
    client.sendall(b"what was not read")
    with hang_up(server) as taken:
        assert not os.get_inheritable(server.fileno())
        assert server.recv(100) == b""
        server.shutdown(socket.SHUT_WR)
        server.close()
        assert taken.recv(100) == b"what was not read"
        taken.sendall(b"still there")
        assert client.recv(100) == b"still there"


def test_the_client_reads_its_answer_and_the_end_while_it_sends(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "SECONDS", waiting.SECONDS)
    server, client = pair
    server.sendall(b"answer")
    Closing().take_over(server)
    server.close()
    client.sendall(bytes(closing.MAX_BYTES // 2))
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b""
    client.sendall(b"more")


def test_for_so_many_bytes(pair: Pair) -> None:
    Closing().take_over(pair[0])
    assert sends_until_it_is_cut_off(pair[1]) < 8 * closing.MAX_BYTES


def test_for_so_long(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "SECONDS", 0.2)
    Closing().take_over(pair[0])
    drips_until_it_is_cut_off(pair[1])


def test_for_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "SECONDS", waiting.SECONDS)
    monkeypatch.setattr(closing, "MAX_CONNECTIONS", 3)
    crowd, pairs = Closing(), [connected() for _ in range(5)]
    before = {*threading.enumerate()}
    for server, _ in pairs:
        crowd.take_over(server)
    assert {*threading.enumerate()} - before == {crowd._thread}
    for server, client in pairs[:2]:
        with server, client:
            drips_until_it_is_cut_off(client)
    for server, client in pairs[2:]:
        with server, client:
            client.sendall(b"x")
            assert client.recv(1) == b""
            client.sendall(b"x")


def test_a_client_that_has_hung_up_is_no_trouble(pair: Pair) -> None:
    crowd = Closing()
    for server, client in (pair, connected()):
        client.close()
        with server:
            crowd.take_over(server)
    server, client = connected()
    with server, client:
        crowd.take_over(server)
        assert client.recv(1) == b""


def test_the_child_of_a_process_that_is_closing_closes_its_own(pair: Pair) -> None:
    """The child has none of the threads, so nothing would release the lock."""
    crowd = Closing()
    with crowd._lock:
        child = os.fork()
        if not child:
            try:
                signal.alarm(30)  # Ends the child.
                crowd.take_over(pair[0])
                os._exit(0)
            finally:
                os._exit(1)
    assert waiting.status_of(child) == 0


class Wrapped:
    """Like gevent's socket, which is not one of the standard library."""

    def __init__(self, inner: socket.socket) -> None:
        self.fileno = inner.fileno


def test_a_socket_of_another_kind_is_not_exchanged(pair: Pair) -> None:
    other: Any = Wrapped(pair[0])
    with pytest.raises(OSError, match="cannot be exchanged"):
        hang_up(other)
    pair[1].sendall(b"x")
    assert pair[0].recv(1) == b"x"


def test_a_socket_that_cannot_be_exchanged_is_shut(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> int:
        raise OSError("Too many open files")

    monkeypatch.setattr(closing.os, "dup", fail)
    Closing().take_over(pair[0])
    assert pair[0].recv(1) == b""
    assert pair[1].recv(1) == b""
