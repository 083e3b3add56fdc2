"""What a database and its storages hold, to be put back: quicker than the requests that made it.

A snapshot is of the server's database and files, taken while no request is under way. Whoever puts
one back may be another process than the server, as the tests that kill servers are.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import pickle
from collections.abc import Callable, Hashable
from typing import Any

import sqlalchemy
from kinto.core.storage.memory import Storage as MemoryStorage

from kinto_attachment.index.used_storages import UsedStorages
from kinto_attachment.storage import CHUNK_SIZE
from tests.support import owned
from tests.support.application import clear

# Kinto's, on PostgreSQL and in memory.
TABLES = ("objects", "timestamps", "user_principals", "access_control_entries", "cache")
ATTRIBUTES = ("_store", "_cemetery", "_timestamps", "_created_at", "_ttl", "_quota")

_numbers = itertools.count(1)


class Snapshot:
    """What is in the backends of an application now; ``put_back`` as often as wanted."""

    def __init__(self, registry: Any) -> None:
        in_memory = isinstance(registry.storage, MemoryStorage)
        self._database = (_Memory if in_memory else _Schema)(registry)
        self._files = {
            storage.name: {
                file.key: _read(storage.files, file.key) for file in storage.files.list()
            }
            for storage in registry.attachment_storages
        }

    def put_back(self, registry: Any) -> None:
        self._database.put_back()
        registry.attachment_links.used_storages = UsedStorages(registry.storage)
        registry.attachment_holds.forget()
        for storage in registry.attachment_storages:
            files, wanted = storage.files, self._files[storage.name]
            there = {file.key for file in files.list()}
            if there - wanted.keys():
                files.delete(*there - wanted.keys())
            for key in wanted.keys() - there:
                files.write(key, io.BytesIO(wanted[key]), "text/plain")
            for unfinished in getattr(files, "list_unfinished", list)():
                files.discard_unfinished(unfinished)
        owned.own(registry)


class Snapshots:
    """What was made by requests once, and is put back from then on."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Snapshot, Any]] = {}

    def start(self, registry: Any, name: Hashable, make: Callable[[], Any]) -> Any:
        """Have there what ``make`` makes; returns what it returned."""
        if name in self._known:
            snapshot, made = self._known[name]
            snapshot.put_back(registry)
            return made
        made = make()
        self._known[name] = Snapshot(registry), made
        return made


def begin(app: Any, make: Callable[..., Any], *arguments: Hashable, **options: Hashable) -> Any:
    """Have in an application what ``make(app, …)`` makes where nothing is.

    Applications are shared by tests, and so is what was made.
    """

    def made() -> Any:
        clear(app)
        return make(app, *arguments, **options)

    if not hasattr(app, "snapshots"):
        app.snapshots = Snapshots()
    app.app.registry.seen.clear()
    app.app.registry.on_event = None
    return app.snapshots.start(app.app.registry, (make, *arguments, *options.items()), made)


def _read(files: Any, key: str) -> bytes:
    with contextlib.closing(files.open(key)) as reader:
        return b"".join(iter(lambda: reader.read(CHUNK_SIZE), b""))


class _Memory:
    def __init__(self, registry: Any) -> None:
        self._backends = (registry.storage, registry.permission, registry.cache)
        self._pickled = [
            pickle.dumps(
                {name: vars(backend)[name] for name in ATTRIBUTES if name in vars(backend)}
            )
            for backend in self._backends
        ]

    def put_back(self) -> None:
        for backend, pickled in zip(self._backends, self._pickled, strict=True):
            vars(backend).update(pickle.loads(pickled))


class _Schema:
    """Copies of the tables, beside them."""

    def __init__(self, registry: Any) -> None:
        self._client = registry.storage.client
        self._name = f"snapshot_{next(_numbers)}"
        copies = (f"CREATE TABLE {self._name}.{name} AS TABLE {name}" for name in TABLES)
        self._execute(f"CREATE SCHEMA {self._name}", *copies)

    def put_back(self) -> None:
        self._execute(
            # No trigger: timestamps are to be those of the copies.
            "SET LOCAL session_replication_role = replica",
            *(f"DELETE FROM {name}" for name in TABLES),
            *(f"INSERT INTO {name} SELECT * FROM {self._name}.{name}" for name in TABLES),
        )

    def _execute(self, *statements: str) -> None:
        with self._client.connect(force_commit=True) as session:
            session.execute(sqlalchemy.text(";\n".join(statements)))
