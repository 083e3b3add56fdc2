"""What becomes of the files when a record's attachment changes, whoever changes it.

All links are made and dropped here, for our own uploads as for any other write of a record.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import transaction
from kinto.core.errors import ERRORS, http_error
from kinto.core.events import ACTIONS
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.utils import instance_uri
from pyramid.httpexceptions import HTTPPreconditionFailed

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.events import AttachmentAdded, AttachmentRemoved, AttachmentReplaced
from kinto_attachment.links import Link, Links
from kinto_attachment.metadata import FIELD, key_of
from kinto_attachment.settings import Settings
from kinto_attachment.transactions import Ledger

SOON = 60.0  # Seconds: gc spares files that are younger.


class Change:
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
        retire(self.request, retired, keep=self.scope.keep_old_files)
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


def retire(request: Any, links: list[Link], *, keep: bool) -> None:
    """Have a record let go of files: for good, or to keep them beside its current one."""
    if keep:
        for link in links:
            request.registry.attachment_links.keep(link)
    else:
        discard(request, request.registry.attachment_links.drop(links))


def discard(request: Any, keys: Iterable[str]) -> None:
    """Have files deleted after the commit."""
    entries = request.registry.attachment_links.outbox.add(keys)
    ledger = Ledger.of(request)
    ledger.when_committed(ledger.garbage, *entries)


def collection_uri(event: Any) -> str:
    """The collection of the records that an event of Kinto's is about."""
    uri: str = instance_uri(
        event.request,
        "collection",
        bucket_id=event.payload["bucket_id"],
        id=event.payload["collection_id"],
    )
    return uri
