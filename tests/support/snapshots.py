"""Snapshots of a database and its storages: restoring one is faster than repeating the requests.

A snapshot has the server's database and files, and is taken while no request is in progress. A
process other than the server can restore it, as in the tests that kill servers.
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

# Kinto's tables, on PostgreSQL and in memory.
TABLES = ("objects", "timestamps", "user_principals", "access_control_entries", "cache")
ATTRIBUTES = ("_store", "_cemetery", "_timestamps", "_created_at", "_ttl", "_quota")

_numbers = itertools.count(1)


class Snapshot:
    """The current contents of an application's backends; ``put_back`` can be called repeatedly."""

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
    """States that requests created once, and that are restored from then on."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Snapshot, Any]] = {}

    def start(self, registry: Any, name: Hashable, make: Callable[[], Any]) -> Any:
        """Restore the state that ``make`` creates; returns the result of ``make``."""
        if name in self._known:
            snapshot, made = self._known[name]
            snapshot.put_back(registry)
            return made
        made = make()
        self._known[name] = Snapshot(registry), made
        return made


def begin(app: Any, make: Callable[..., Any], *arguments: Hashable, **options: Hashable) -> Any:
    """Put the state that ``make(app, …)`` creates into an empty application.

    Tests share applications, and these states.
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
            # No trigger: the timestamps of the copies are kept.
            "SET LOCAL session_replication_role = replica",
            *(f"DELETE FROM {name}" for name in TABLES),
            *(f"INSERT INTO {name} SELECT * FROM {self._name}.{name}" for name in TABLES),
        )

    def _execute(self, *statements: str) -> None:
        with self._client.connect(force_commit=True) as session:
            session.execute(sqlalchemy.text(";\n".join(statements)))
