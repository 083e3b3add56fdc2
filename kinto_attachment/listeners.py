"""What happens to files when records change, whoever changes them.

All links are made and dropped here, for our own uploads as for any other write of a record.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

import transaction
from kinto.core.errors import ERRORS, http_error, raise_invalid
from kinto.core.events import ACTIONS
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.storage.memory import MemoryBasedStorage
from kinto.core.utils import instance_uri
from pyramid.httpexceptions import HTTPPreconditionFailed

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.events import AttachmentAdded, AttachmentRemoved, AttachmentReplaced
from kinto_attachment.links import Link, Links
from kinto_attachment.metadata import FIELD, key_of
from kinto_attachment.settings import Settings
from kinto_attachment.transactions import Ledger

ALLOWED = "kinto_attachment.allowed"
BEFORE = "kinto_attachment.before"
FLUSHED = "kinto_attachment.flushed"

SOON = 60.0  # Seconds: gc spares files that are younger.


@contextmanager
def allow_metadata_changes(request: Any) -> Iterator[None]:
    """Let server-side code write the ``attachment`` of records.

    Only for the records whose change is notified (``notify_resource_event``) inside the block.
    """
    before = {id(impacted) for impacted in _impacted(request)}
    yield
    allowed = request.bound_data.setdefault(ALLOWED, [])
    # The objects themselves, not their ids: an id is given anew once its object is gone.
    allowed += [impacted for impacted in _impacted(request) if id(impacted) not in before]


def _impacted(request: Any) -> Iterator[dict[str, Any]]:
    collected = request.bound_data.get("resource_events")
    for _, impacted, _ in collected.event_dict.values() if collected else ():
        yield from impacted


def before_merge_patch(event: Any) -> None:
    """Remember an attachment: Kinto merges a patch (RFC 7396) into the old object in place."""
    record = getattr(event.request.context, "current_object", None)
    patches = event.request.content_type == "application/merge-patch+json"
    if patches and record is not None and FIELD in record:
        remembered = event.request.bound_data.setdefault(BEFORE, [])
        remembered.append((record, deepcopy(record[FIELD])))


def on_records_changed(event: Any) -> None:
    """Guard the metadata, and link, relink or unlink the files of created and updated records."""
    for record, attachment in event.request.bound_data.pop(BEFORE, ()):
        record[FIELD] = attachment  # The event has this very object as the old one.
    if any(_is_forged(event, impacted) for impacted in event.impacted_objects):
        _roll_back(event)
        description = "Attachment metadata cannot be modified."
        raise_invalid(event.request, name=FIELD, description=description)
    written: set[str] = set()
    for impacted in event.impacted_objects:
        new, old = _before_and_after(impacted)
        change = _Change(event, impacted["new"]["id"])
        if new != old:
            change.apply(new, old)
        elif change.record not in written:  # From the first write on, nobody else can write it.
            change.check(new)
        written.add(change.record)


def _before_and_after(impacted: dict[str, Any]) -> tuple[Any, Any]:
    """The new attachment object of a record, and the old one."""
    return impacted["new"].get(FIELD), (impacted.get("old") or {}).get(FIELD)


def _is_forged(event: Any, impacted: dict[str, Any]) -> bool:
    new, old = _before_and_after(impacted)
    if new == old or new is None:
        return False
    # Existing plugins say so by this flag, and Kinto merges the events of a request.
    if getattr(event.request, "_attachment_auto_save", False):
        return False
    return all(impacted is not other for other in event.request.bound_data.get(ALLOWED, ()))


def _roll_back(event: Any) -> None:
    """Undo the change on a memory backend: the error to come has a database do so by itself."""
    backend = event.request.registry.storage
    if not isinstance(backend, MemoryBasedStorage):
        return
    parent = {"resource_name": "record", "parent_id": collection_uri(event)}
    for impacted in reversed(event.impacted_objects):  # A batch may write a record twice.
        object_id = impacted["new"]["id"]
        if impacted.get("old"):
            backend.update(object_id=object_id, obj=impacted["old"], **parent)
        else:
            backend.delete(object_id=object_id, with_deleted=False, **parent)


class _Change:
    """The change of one record's attachment."""

    def __init__(self, event: Any, record_id: str) -> None:
        self.request = event.request
        registry = self.request.registry
        self.links: Links = registry.attachment_links
        self.settings: Settings = registry.attachment_settings
        self.prefix = registry.route_prefix
        self.scope = self.settings.for_collection(
            event.payload["bucket_id"], event.payload["collection_id"]
        )
        self.record = f"{collection_uri(event)}/records/{record_id}"
        self.created = event.payload["action"] == ACTIONS.CREATE.value

    def apply(self, new: Any, old: Any) -> None:
        key = key_of(self.settings, self.prefix, new)
        current = [] if self.created else self._current_links()
        self._check_precondition(old, [link.key for link in current])
        if key is not None and key not in [link.key for link in current]:
            self._link(key, new)
        retired = [link for link in current if link.key != key]
        _retire(self.request, retired, keep=self.scope.keep_old_files)
        self._announce(new, old)

    def _check_precondition(self, old: Any, current: list[str]) -> None:
        """Ask once more whether the record is as the client knows it.

        Kinto asks first, and then waits for other requests that write the record.
        """
        key = key_of(self.settings, self.prefix, old)
        if "If-Match" not in self.request.headers or current == ([] if key is None else [key]):
            return
        if not self.created and self._committed() != old:
            raise http_error(
                HTTPPreconditionFailed(),
                errno=ERRORS.MODIFIED_MEANWHILE,
                message="Resource was modified meanwhile",
            )

    def check(self, attachment: Any) -> None:
        """Refuse an update that brings back what was replaced or removed in the meantime.

        Kinto writes a record as it was read, with the changes of this request. What another
        request changed in between is undone by that, and the file that comes back is gone.

        :raises AttachmentGone: the attachment is not as it was when this request read it.
        """
        key = key_of(self.settings, self.prefix, attachment)
        current = [] if self.created else [link.key for link in self._current_links()]
        if current == ([] if key is None else [key]):
            return
        # The index says otherwise, but it may be younger than the record.
        if not self.created and self._committed() != attachment:
            raise AttachmentGone("The attachment was changed meanwhile, please retry.")
        if key is not None and not current:
            with suppress(AttachmentGone):
                self._link(key, attachment)

    def _committed(self) -> Any:
        """The attachment as others see it: that of the record which this request overwrites."""

        storage = self.request.registry.storage
        collection, _, record_id = self.record.rpartition("/records/")

        def read() -> Any:
            with transaction.manager, suppress(ObjectNotFoundError):
                return storage.get("record", collection, record_id).get(FIELD)
            return None

        # In another thread: Kinto's transactions and database connections are one per thread.
        with ThreadPoolExecutor(max_workers=1) as other:
            return other.submit(read).result()

    def _current_links(self) -> list[Link]:
        # Not just what the event calls old: a concurrent upload may have come between.
        return [link for link in self.links.of_record(self.record) if link.state == "current"]

    def _link(self, key: str, attachment: dict[str, Any]) -> None:
        link = Link.to(self.record, key, attachment)
        ledger = Ledger.of(self.request)
        # The first link only: a subscriber may have copied the new record already.
        if key in ledger.written and key not in ledger.linking:
            ledger.linking.add(key)
            # A client can send the file, and the end of its form hours later: gc may have been.
            soon = time.monotonic() - ledger.stored < SOON
            self.links.add(link) if soon else self.links.share(link)
            ledger.when_committed(ledger.linked, key)
        else:
            self.links.share(link)

    def _announce(self, new: Any, old: Any) -> None:
        ledger = Ledger.of(self.request)
        event: object
        if new is None:
            event = AttachmentRemoved(self.request, self.record, old)
        elif old is None:
            event = AttachmentAdded(self.request, self.record, new)
        else:
            event = AttachmentReplaced(self.request, self.record, new, old=old)
        ledger.when_committed(ledger.events, event)


def on_records_deleted(event: Any) -> None:
    """Drop the files of deleted records, however many were deleted at once."""
    request = event.request
    registry = request.registry
    ids = [impacted["old"]["id"] for impacted in event.impacted_objects]
    scope = registry.attachment_settings.for_collection(
        event.payload["bucket_id"], event.payload["collection_id"]
    )
    links = registry.attachment_links.of_records(collection_uri(event), ids)
    _retire(request, links, keep=scope.keep_old_files)
    ledger = Ledger.of(request)
    for impacted in event.impacted_objects:
        attachment = impacted["old"].get(FIELD)
        if attachment is not None:
            uri = f"{collection_uri(event)}/records/{impacted['old']['id']}"
            removed = AttachmentRemoved(request, uri, attachment)
            ledger.when_committed(ledger.events, removed)


def on_collections_deleted(event: Any) -> None:
    bucket_id = event.payload["bucket_id"]
    for impacted in event.impacted_objects:
        object_id = impacted["old"]["id"]
        uri = instance_uri(event.request, "collection", bucket_id=bucket_id, id=object_id)
        _retire_below(event.request, uri)


def on_buckets_deleted(event: Any) -> None:
    for impacted in event.impacted_objects:
        uri = instance_uri(event.request, "bucket", id=impacted["old"]["id"])
        _retire_below(event.request, uri)


def before_flush(event: Any) -> None:
    """Remember the files while there are links: Kinto tells of a flush only once it is done."""
    request = event.request
    service = request.current_service
    if service is not None and service.name == "flush" and request.method == "POST":
        links: Links = request.registry.attachment_links
        keys = {link.key for page in links.under() for link in page}
        keys.update(key for entry in links.outbox.entries() for key in entry.keys)
        request.bound_data[FLUSHED] = keys


def on_server_flushed(event: Any) -> None:
    _discard(event.request, event.request.bound_data.pop(FLUSHED, ()))


def _retire_below(request: Any, uri: str) -> None:
    """Retire all links of records below a bucket or collection."""
    # All in one, so that the storage is asked to delete as many files at once as it can.
    _discard(request, _drop_below(request.registry, uri))
    _delete_records_below(request.registry, uri)


def _delete_records_below(registry: Any, uri: str) -> None:
    """Delete all records, where Kinto goes on to delete as many objects as one query gives.

    The others would come back, without their files, with a bucket or collection of that name.
    """
    limit = registry.attachment_links.page_size
    for parent_id in (uri, f"{uri}/*"):
        while limit <= len(
            registry.storage.delete_all(
                resource_name="record", parent_id=parent_id, with_deleted=False
            )
        ):
            pass


def _drop_below(registry: Any, uri: str) -> Iterator[str]:
    links: Links = registry.attachment_links
    for page in links.under(f"{uri}/"):
        dropped = []
        for link in page:
            if _keeps(registry.attachment_settings, link):
                links.keep(link)
            else:
                dropped.append(link)
        yield from links.drop(dropped)


def _keeps(settings: Settings, link: Link) -> bool:
    _, _, bucket_id, _, collection_id, *_ = link.record.split("/")
    return settings.for_collection(bucket_id, collection_id).keep_old_files


def _retire(request: Any, links: list[Link], *, keep: bool) -> None:
    if keep:
        for link in links:
            request.registry.attachment_links.keep(link)
    else:
        _discard(request, request.registry.attachment_links.drop(links))


def _discard(request: Any, keys: Iterable[str]) -> None:
    """Have files deleted after the commit."""
    entries = request.registry.attachment_links.outbox.add(keys)
    ledger = Ledger.of(request)
    ledger.when_committed(ledger.garbage, *entries)


def collection_uri(event: Any) -> str:
    uri: str = instance_uri(
        event.request,
        "collection",
        bucket_id=event.payload["bucket_id"],
        id=event.payload["collection_id"],
    )
    return uri
