"""What one request did to files, and what it means to do with them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, TypeVar

import transaction
from kinto.core.events import EventCollector
from kinto.core.utils import instance_uri

from kinto_attachment.index.outbox import Garbage
from kinto_attachment.metadata import same_json

LEDGER = "kinto_attachment.ledger"
# An attribute of requests, by which plugins say that they write attachments themselves.
PLUGIN_FLAG = "_attachment_auto_save"

T = TypeVar("T")


@dataclass
class NewFile:
    """A file that the request stored, the record it is for, and what the record will say of it."""

    key: str
    record: str
    attachment: dict[str, Any] | None = None
    stored: float = field(default_factory=time.monotonic)


@dataclass
class RecordChange:
    """What the events of a request say of one record, from the first of them to the last."""

    request: Any
    record: str
    created: bool
    old: Any
    new: Any = None
    deleted: bool = False
    # Whether it had no attachment, or was deleted, at some time since the first of them.
    let_go: bool = False
    times: int = 0
    # Attachments that it had in between, in a batch that writes a record several times.
    passed: list[Any] = field(default_factory=list)


@dataclass
class Ledger:
    """What one request did to files, shared by the sub-requests of a batch.

    The events of the request fill ``changes`` and ``emptied`` (URIs of buckets and collections
    that were deleted). They become links at the end of the request's work.
    """

    new_files: dict[str, NewFile] = field(default_factory=dict)
    received: Any = None  # The form or body of the upload, once it is read.
    reserved: list[str] = field(default_factory=list)
    changes: dict[str, RecordChange] = field(default_factory=dict)
    emptied: list[str] = field(default_factory=list)
    linking: set[str] = field(default_factory=set)  # New files with a link, if it commits.
    # Filled by after-commit hooks, so with what is committed only:
    linked: list[str] = field(default_factory=list)
    garbage: list[Garbage] = field(default_factory=list)
    events: list[object] = field(default_factory=list)
    # What was looked up: which buckets are somebody's default bucket.
    default_buckets: dict[str, bool] = field(default_factory=dict)
    # Whether somebody writes the links when the request's work is done.
    is_awaited: bool = False

    @classmethod
    def of(cls, request: Any) -> Ledger:
        ledger: Ledger = request.bound_data.setdefault(LEDGER, cls())
        return ledger

    def new_file(self, attachment: Any) -> NewFile | None:
        """The file that this request stored and described so."""
        for file in self.new_files.values():
            if file.attachment is not None and same_json(file.attachment, attachment):
                return file
        return None

    def when_committed(self, to: list[T], *items: T) -> None:
        """Append to one of the lists above if the current transaction commits."""

        def append(committed: bool) -> None:
            if committed:
                to.extend(items)

        transaction.get().addAfterCommitHook(append)

    def forget_changes(self) -> None:
        """The transaction is given up, and with it what was written."""
        self.changes.clear()
        self.emptied.clear()
        self.linking.clear()
        self.default_buckets.clear()


class CollectedEvents(EventCollector):  # type: ignore[misc]
    """Kinto's collector of events, which knows where each object that they are about is stored.

    The payload of an event does not always: plugins that change several resources in one request
    have events with the ids of another one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parents: dict[int, tuple[object, str]] = {}
        self._by_plugins: set[int] = set()

    def add_event(
        self,
        resource_name: str,
        parent_id: str,
        action: Any,
        payload: Any,
        impacted: list[Any],
        request: Any,
    ) -> None:
        # With the object itself, so that its id is not given to another one.
        self._parents.update({id(each): (each, parent_id) for each in impacted})
        if getattr(request, PLUGIN_FLAG, False):
            self._by_plugins.update(id(each) for each in impacted)
        super().add_event(resource_name, parent_id, action, payload, impacted, request)

    def is_by_plugin(self, impacted: object) -> bool:
        """Whether a plugin had set its flag when the change was notified.

        A flag that is set later says nothing about what a client wrote before.
        """
        return id(impacted) in self._by_plugins

    def parent_of(self, impacted: object) -> str | None:
        """The ``parent_id`` that was notified with an impacted object."""
        _, parent_id = self._parents.get(id(impacted), (None, None))
        return parent_id


def collection_of(event: Any, impacted: Any) -> str:
    """The URI of the collection of a record that an event of Kinto's is about."""
    ids, request = event.payload, event.request
    uri: str = _parent(event, impacted) or instance_uri(
        request, "collection", bucket_id=ids["bucket_id"], id=ids["collection_id"]
    )
    return uri


def bucket_of(event: Any, impacted: Any) -> str:
    """The URI of the bucket of a collection that an event of Kinto's is about."""
    ids, request = event.payload, event.request
    uri: str = _parent(event, impacted) or instance_uri(request, "bucket", id=ids["bucket_id"])
    return uri


def _parent(event: Any, impacted: Any) -> Any:
    """What Kinto's storage was given; None when the event did not come by Kinto's collector."""
    collected = event.request.bound_data.get("resource_events")
    return collected.parent_of(impacted) if isinstance(collected, CollectedEvents) else None
