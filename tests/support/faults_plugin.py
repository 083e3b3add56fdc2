"""A plugin that makes one step of a server fail, or kills the server at that step.

It does nothing unless the variable ``KINTO_ATTACHMENT_FAULTS`` names a folder. Steps are writes
to records, index and permissions, commits, and writes and deletions of files, in the order in
which they happen. Tests give orders to the plugin with :class:`Faults`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import transaction
from kinto.core.storage.exceptions import BackendError, IntegrityError
from pyramid.events import ApplicationCreated

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.index import usage
from tests.support import owned

VARIABLE = "KINTO_ATTACHMENT_FAULTS"

OBJECT_CALLS = ("create", "update", "delete", "delete_all", "flush")
PERMISSION_CALLS = ("replace_object_permissions", "delete_object_permissions")
LINK_CALLS = ("put_link",)
REPLACEMENT_CALLS = ("replace_link",)
OUTBOX_CALLS = ("take_alone",)
FILE_CALLS = (
    *("write", "delete", "begin", "append", "finish", "discard"),
    *("begin_direct", "finish_direct"),
)
SESSION_CALLS = ("commit",)

When = Literal["before", "after"]
How = Literal["error", "bug", "conflict", "kill"]


@dataclass(frozen=True)
class Order:
    """Fail at the ``step``-th step from now, or at none if it is 0; the steps are listed."""

    step: int
    when: When = "before"
    how: How = "error"
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Faults:
    """Gives orders to the servers that were started with ``environ``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {VARIABLE: str(folder)}

    @property
    def _order(self) -> Path:
        return self.folder / "order"

    @property
    def _trace(self) -> Path:
        return self.folder / "trace"

    def give(self, order: Order) -> None:
        self._trace.write_text("")
        draft = self._order.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(order)))
        draft.rename(self._order)

    def take_back(self) -> bool:
        """Cancel the order; returns whether it had not been carried out yet."""
        try:
            self._order.unlink()
        except FileNotFoundError:
            return False
        return True

    def steps(self) -> list[str]:
        """The steps since the last order."""
        return self._trace.read_text().splitlines()


@dataclass
class Kinds:
    """The kinds of steps of the actions at a site, and those at which a fault was tried."""

    seen: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)

    def is_new(self, step: str) -> bool:
        return step not in self.tried


def includeme(config: Any) -> None:
    if VARIABLE in os.environ:
        injector = _Injector(Path(os.environ[VARIABLE]))
        config.add_subscriber(lambda event: owned.remember(event.app.registry), ApplicationCreated)
        config.add_subscriber(lambda event: injector.wrap(event.app.registry), ApplicationCreated)


class _Injector:
    def __init__(self, folder: Path) -> None:
        self.faults = Faults(folder)
        self.lock = threading.Lock()
        self.order_id = ""
        self.count = 0

    def wrap(self, registry: Any) -> None:
        storages = registry.attachment_storages
        # Otherwise an upload has one step fewer if another one has just read the counters.
        mock.patch.object(usage, "RECENT", 0.0).start()
        for target, calls, label in (
            (registry.storage, OBJECT_CALLS, _object_label),
            (registry.permission, PERMISSION_CALLS, _permission_label),
            (registry.attachment_links.collections, LINK_CALLS, _link_label),
            (registry.attachment_links.replacements, REPLACEMENT_CALLS, _link_label),
            (registry.attachment_links.outbox, OUTBOX_CALLS, _outbox_label),
            (registry.attachment_sessions, SESSION_CALLS, _session_label),
            *((storage.files, FILE_CALLS, _file_label) for storage in storages),
        ):
            for name in filter(partial(hasattr, target), calls):
                setattr(target, name, self.step(getattr(target, name), name, label))
        commit = transaction.Transaction._commitResources

        def committing(txn: Any) -> None:
            if txn._resources and (order := self.next("commit")) is not None:
                txn._resources.append(_Voter(order))
            commit(txn)

        mock.patch.object(transaction.Transaction, "_commitResources", committing).start()

    def step(
        self, call: Callable[..., Any], name: str, label: Callable[..., str]
    ) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            what = label(name, *args, **kwargs)
            order = self.next(what)
            if order is not None and order.when == "before":
                fail(what, order)
            result = call(*args, **kwargs)
            if order is not None and order.when == "after":
                fail(what, order)
            return result

        return wrapper

    def next(self, what: str) -> Order | None:
        """Count the step; returns the order if it is for this step, to be carried out."""
        with self.lock, contextlib.suppress(FileNotFoundError):
            order = Order(**json.loads(self.faults._order.read_text()))
            if order.id != self.order_id:
                self.order_id, self.count = order.id, 0
            self.count += 1
            with self.faults._trace.open("a") as trace:
                trace.write(f"{what}\n")
            if self.count == order.step and self.faults.take_back():
                return order
        return None


def fail(what: str, order: Order) -> None:
    if order.how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if order.how == "conflict":
        raise IntegrityError()
    if order.how == "bug":
        raise RuntimeError(f"injected {order.when} {what}")
    raise StorageUnavailable() if what.startswith("file") else BackendError()


def _object_label(name: str, resource_name: Any = None, *args: Any, **kwargs: Any) -> str:
    return f"{resource_name or 'everything'} {name}"


def _outbox_label(name: str, *args: Any, **kwargs: Any) -> str:
    return "attachment-garbage delete"


def _session_label(name: str, *args: Any, **kwargs: Any) -> str:
    return "attachment-upload update"


def _link_label(name: str, *args: Any, **kwargs: Any) -> str:
    return "attachment update"


def _permission_label(name: str, *args: Any, **kwargs: Any) -> str:
    return f"permission {name}"


def _file_label(name: str, *args: Any, **kwargs: Any) -> str:
    return f"file {name}"


class _Voter:
    """A participant that fails its transaction before or after the database has committed."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def sortKey(self) -> str:
        return " first" if self.order.when == "before" else "~~ last"

    def tpc_vote(self, txn: Any) -> None:
        fail("commit", self.order)

    def abort(self, txn: Any) -> None: ...

    tpc_begin = commit = tpc_finish = tpc_abort = abort
