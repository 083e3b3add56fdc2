"""A connection that breaks at the commit: it is unknown whether the database received it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import invariants, waiting
from tests.support.application import (
    RECORD,
    attach,
    forget_database,
    make_app,
    postgresql_settings,
    put_collection,
    sha256,
)
from tests.support.services import PostgreSQL

SOCKET = ".s.PGSQL.5432"


class Relay:
    """Stands between Kinto and PostgreSQL, and can break a connection that commits.

    The client's side breaks at once. The bytes that it sent arrive when ``arrive`` says so, or
    never.
    """

    def __init__(self, folder: Path, upstream: str) -> None:
        self.upstream = upstream
        self.breaks = False
        self.arrives = True
        self.broken = threading.Event()
        self.arrive = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / SOCKET))
        self.listener.listen()
        self.sockets = [self.listener]
        self._start(self._accept)

    def close(self) -> None:
        self.arrive.set()
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _start(self, target: Any, *args: Any) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{self.upstream}/{SOCKET}")
                self.sockets += [client, server]
                self._start(self._send, client, server)
                self._start(self._receive, server, client)

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.breaks and b"COMMIT" in data:
                    self.breaks = False
                    client.shutdown(socket.SHUT_RDWR)
                    self.broken.set()
                    self.arrive.wait(waiting.SECONDS)
                    if self.arrives:
                        server.sendall(data)  # It is read, although nobody waits for the answer.
                    break
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _receive(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path, postgresql.uri.partition("?host=")[2])
    yield relay
    relay.close()


@pytest.fixture
def app(postgresql: PostgreSQL, relay: Relay, tmp_path: Path) -> Iterator[Any]:
    url = postgresql.create_database()
    through = f"{url.partition('?')[0]}?host={tmp_path}"
    # With a quota, counters are updated, which are compared with the sums.
    storage = {"base_path": str(tmp_path / "files"), "quota_bytes": "1G"}
    app = make_app(storage, postgresql_settings(through))
    put_collection(app)
    attach(app, content=b"old")
    yield app
    forget_database(through)
    postgresql.drop_database(url)


@pytest.mark.parametrize("arrives", [True, False], ids=["arrives", "is lost"])
@pytest.mark.parametrize("record", [RECORD, f"{RECORD}2"], ids=["replaced", "created"])
def test_no_file_is_lost_when_the_connection_breaks_at_the_commit(
    app: Any, postgresql: PostgreSQL, relay: Relay, arrives: bool, record: str
) -> None:
    relay.breaks, relay.arrives = True, arrives
    answers: list[Any] = []
    upload = threading.Thread(
        target=lambda: answers.append(attach(app, record, b"new", status="*"))
    )
    upload.start()
    assert relay.broken.wait(waiting.SECONDS)
    # The commit arrives once the request has ended, or waits for something that depends on it.
    waiting.until(lambda: not upload.is_alive() or postgresql.somebody_waits())
    relay.arrive.set()
    waiting.join(upload)
    assert answers[0].status_int == 500
    registry = app.app.registry
    if arrives:
        waiting.until(lambda: has_new_file(registry, record))
    assert has_new_file(registry, record) == arrives
    assert not invariants.lost(registry)
    invariants.collect(registry)
    assert not invariants.lost(registry)
    assert not invariants.left(registry)


def has_new_file(registry: Any, uri: str) -> bool:
    record = invariants.records(registry).get(uri)
    return record is not None and record["attachment"]["hash"] == sha256(b"new")
