"""The record of what a request has done to files, and of the work after its transaction."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, TypeVar

import transaction
from kinto.core.events import ACTIONS, EventCollector
from kinto.core.utils import instance_uri, msec_time

from kinto_attachment.files import deletions
from kinto_attachment.index.link import Ended, Link
from kinto_attachment.index.outbox import Garbage
from kinto_attachment.index.session import Session
from kinto_attachment.index.totals import Totals
from kinto_attachment.kinto_types import Impacted, Request, ResourceEvent
from kinto_attachment.metadata import Attachment, same_json

LEDGER = "kinto_attachment.ledger"
# An attribute of requests, which other plugins set when they write attachments.
PLUGIN_FLAG = "_attachment_auto_save"

T = TypeVar("T")


@dataclass(frozen=True)
class Received:
    """A stored file, and the data that was sent with it for its record."""

    attachment: Attachment
    data: dict[str, Any] | None = None
    permissions: dict[str, Any] | None = None


@dataclass
class NewFile:
    """A file that the request stored, its record, and the attachment object for the record."""

    key: str
    record: str
    attachment: dict[str, Any] | None = None
    stored: float = field(default_factory=time.monotonic)
    created: int = field(default_factory=msec_time)  # The same as a wall-clock time.
    storage: str = ""
    # Whether it stays stored if the request fails: it belongs to an upload in several requests.
    is_of_session: bool = False


@dataclass(frozen=True)
class SharedFile:
    """An already stored file that the request attaches to a record.

    ``attachment`` is the attachment object for that record. ``link`` is the link that the file
    has; None for the file of a record that is older than the index.
    """

    record: str
    attachment: dict[str, Any]
    storage: str
    key: str
    link: Link | None = None

    @property
    def version(self) -> Link | None:
        """The link if the file is an earlier one of the same record."""
        return self.link if self.link is not None and self.link.record == self.record else None


@dataclass
class RecordChange:
    """The combined changes of one record from the events of a request."""

    request: Request | None  # None: deleted along with its collection or bucket.
    record: str
    created: bool
    old: Any
    new: Any = None
    deleted: bool = False
    # Whether it was deleted or had no attachment at some time during the request.
    let_go: bool = False
    # What ended its life during the request. The record may exist again.
    ended: Ended = ""
    times: int = 0
    # The attachments between old and new, if a batch writes the record several times.
    intermediate: list[Any] = field(default_factory=list)


@dataclass
class Ledger:
    """What one request has done to files; sub-requests of a batch share it.

    The events of the request fill ``changes`` and ``deleted_parents`` (URIs of deleted buckets
    and collections). Links are written from them when the request has done everything else.
    """

    new_files: dict[str, NewFile] = field(default_factory=dict)
    shared_files: list[SharedFile] = field(default_factory=list)
    received: Received | None = None  # Set when the body of an upload has been read.
    new_id: str | None = None  # Of a new record; the same if the request is repeated.
    reserved: list[str] = field(default_factory=list)
    left: set[str] = field(default_factory=set)  # Keys of files that are, or may be, left over.
    changes: dict[str, RecordChange] = field(default_factory=dict)
    deleted_parents: list[str] = field(default_factory=list)
    deleted_versions: list[Link] = field(default_factory=list)
    # Keys of new files that get a link in this transaction.
    linking: set[str] = field(default_factory=set)
    # The renamed attachments as the request read them, by record.
    renamed: dict[str, Any] = field(default_factory=dict)
    # The keys of the files of records before a command writes them, by record.
    expected: dict[str, str] = field(default_factory=dict)
    # The holds of files that the request has attached and not yet linked, by record and key. Holds
    # that have ended are empty.
    holds: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    # Filled by after-commit hooks, and so only with what was committed:
    linked: list[str] = field(default_factory=list)
    garbage: list[Garbage] = field(default_factory=list)
    events: list[object] = field(default_factory=list)
    # Cached: which buckets are the default bucket of some user.
    default_buckets: dict[str, bool] = field(default_factory=dict)
    # The upload in several requests to which the request belongs, once known.
    session: Session | None = None
    # The same, once all of its bytes are there.
    attaching: Session | None = None
    # The counters of bucket and collection when the request began, by URI.
    used: dict[str, Totals] = field(default_factory=dict)
    # Whether they were so low that the request cannot exceed a quota.
    has_plenty: bool = False
    # Files that were entered in the counters before they are linked: pairs of record and key.
    entered: list[tuple[str, str]] = field(default_factory=list)
    # Whether the linking tween writes the links at the end of the request.
    written_by_tween: bool = False

    @classmethod
    def of(cls, request: Request) -> Ledger:
        ledger: Ledger | None = request.bound_data.get(LEDGER)
        if ledger is None:  # Not setdefault: each call would make one, and there are many calls.
            ledger = request.bound_data[LEDGER] = cls()
        return ledger

    def new_file(self, attachment: Any) -> NewFile | None:
        """The file that this request stored, by its attachment object; None for other files."""
        for file in self.new_files.values():
            if file.attachment is not None and same_json(file.attachment, attachment):
                return file
        return None

    def shared_file(self, record: str, attachment: Any) -> SharedFile | None:
        """The file that this request shares with a record, by its attachment object."""
        for file in reversed(self.shared_files):
            if file.record == record and same_json(file.attachment, attachment):
                return file
        return None

    def key_of(self, record: str, attachment: Any) -> str | None:
        """The key of the file that the request attaches to a record."""
        file = self.file_of(record, attachment)
        return file.key if file is not None else None

    def file_of(self, record: str, attachment: Any) -> NewFile | SharedFile | None:
        """The file that the request attaches to a record."""
        return self.new_file(attachment) or self.shared_file(record, attachment)

    def revived(self, record: str) -> Link | None:
        """The version with which this request recreates a deleted record."""
        for file in self.shared_files:
            if file.record == record and file.version is not None and file.version.ended:
                return file.version
        return None

    def when_committed(self, to: list[T], *items: T) -> None:
        """Append to one of the lists above if the current transaction commits."""

        def append(committed: bool) -> None:
            if committed:
                to.extend(items)

        transaction.get().addAfterCommitHook(append)

    def forget_changes(self) -> None:
        """Forget the data that was written in an aborted transaction."""
        self.changes.clear()
        self.deleted_parents.clear()
        self.deleted_versions.clear()
        self.linking.clear()
        self.holds.clear()
        self.default_buckets.clear()


class CollectedEvents(EventCollector):  # type: ignore[misc]
    """Kinto's collector of events, which also records the parent of each impacted object.

    The payload of an event may have other ids: plugins may notify changes in several
    collections in one request, whose URL names another one.
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
        request: Request,
    ) -> None:
        if action == ACTIONS.DELETE:
            deletions.pair(request, impacted)
        # Keep the object itself, so that Python does not reuse its id.
        self._parents.update({id(each): (each, parent_id) for each in impacted})
        if getattr(request, PLUGIN_FLAG, False):
            self._by_plugins.update(id(each) for each in impacted)
        super().add_event(resource_name, parent_id, action, payload, impacted, request)

    def is_by_plugin(self, impacted: object) -> bool:
        """Whether another plugin had set the flag when the change was notified.

        A flag that is set later does not apply to earlier writes of a client.
        """
        return id(impacted) in self._by_plugins

    def parent_of(self, impacted: object) -> str | None:
        """The ``parent_id`` that an impacted object was notified with; None if it was not."""
        _, parent_id = self._parents.get(id(impacted), (None, None))
        return parent_id


def collection_of(event: ResourceEvent, impacted: Impacted) -> str:
    """The URI of the collection of a record in a resource event."""
    ids, request = event.payload, event.request
    uri: str = _parent(event, impacted) or instance_uri(
        request, "collection", bucket_id=ids["bucket_id"], id=ids["collection_id"]
    )
    return uri


def bucket_of(event: ResourceEvent, impacted: Impacted) -> str:
    """The URI of the bucket of a collection in a resource event."""
    ids, request = event.payload, event.request
    uri: str = _parent(event, impacted) or instance_uri(request, "bucket", id=ids["bucket_id"])
    return uri


def _parent(event: ResourceEvent, impacted: Impacted) -> str | None:
    """The parent id in Kinto's storage; None if the event did not pass Kinto's collector."""
    collected = event.request.bound_data.get("resource_events")
    return collected.parent_of(impacted) if isinstance(collected, CollectedEvents) else None
