"""What is done to files once the outcome of a request's transaction is known."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import transaction
from kinto.core.storage.exceptions import BackendError, ObjectNotFoundError
from kinto.core.utils import msec_time

from kinto_attachment.errors import StorageError
from kinto_attachment.files.ledger import Ledger, NewFile
from kinto_attachment.index.links import Links
from kinto_attachment.index.outbox import Garbage, Outbox
from kinto_attachment.metadata import FIELD, same_json
from kinto_attachment.uris import RecordURI

logger = logging.getLogger(__name__)

# How many entries wait in a process for the end of their `linger`; gc finds the others.
MAX_LINGERING = 10_000
DUE_AT_ONCE = 10


def settle(registry: Any, ledger: Ledger) -> None:
    """Do what the outcome of the transaction asks for; a failure here is gc's to finish."""
    for step in (_undo, _delete_garbage, _delete_lingering, _free_names, _notify):
        try:
            step(registry, ledger)
        except Exception:
            logger.exception("Could not settle the attachments of a request: %s", step.__name__)
            registry.metrics.count("attachments.settle_failed")


def delete_garbage(registry: Any, entry: Garbage) -> bool:
    """Delete the files of an outbox entry, then the entry; False if somebody else has.

    :raises StorageError: the files are still there, maybe, and so is the entry.
    """
    links: Links = registry.attachment_links
    outbox: Outbox = links.outbox
    with transaction.manager:
        if not outbox.take(entry):
            return False
        # Files that lingered may have been linked again.
        keys = links.end_lingering(entry.keys) if entry.due else entry.keys
        try:
            if keys:
                registry.attachment_storage.delete(*keys)
        except StorageError:
            # The transaction fails, and the entry is back; on a memory backend, by this.
            outbox.put(entry)
            raise
    return True


def _undo(registry: Any, ledger: Ledger) -> None:
    """Delete the files that this request stored and did not, in the end, link to a record."""
    unlinked = [file for key, file in ledger.new_files.items() if key not in ledger.linked]
    if not unlinked:
        return
    with transaction.manager:
        # A memory backend keeps what was written, and a database that we have lost may yet commit.
        lost = [file.key for file in unlinked if not _is_in_use(registry, ledger, file)]
    _delete(registry, lost)


def _is_in_use(registry: Any, ledger: Ledger, file: NewFile) -> bool:
    links: Links = registry.attachment_links
    # Without a link written, no commit can be under way: losers of a race need not meet here.
    in_doubt = file.key in ledger.linking
    if in_doubt and not links.confirm_unlinked(file.record, file.key):
        return True
    if not in_doubt and links.of_key(file.key):
        return True
    uri = RecordURI.parse(file.record)
    try:
        record = registry.storage.get("record", uri.collection, uri.record_id)
    except ObjectNotFoundError:
        return False
    return file.attachment is not None and same_json(record.get(FIELD), file.attachment)


def _delete_garbage(registry: Any, ledger: Ledger) -> None:
    for entry in ledger.garbage:
        if entry.due:
            _lingering(registry).append(entry)
        else:
            _try_to_delete(registry, entry)


def _delete_lingering(registry: Any, ledger: Ledger) -> None:
    """Delete what earlier requests of this process let linger, and whose time is over."""
    waiting = _lingering(registry)
    for _ in range(DUE_AT_ONCE):
        try:
            entry = waiting.popleft()
        except IndexError:
            return
        if entry.due > msec_time():
            waiting.append(entry)
        else:
            _try_to_delete(registry, entry)


def _lingering(registry: Any) -> deque[Garbage]:
    waiting: deque[Garbage] = registry.attachment_lingering
    return waiting


def _try_to_delete(registry: Any, entry: Garbage) -> None:
    try:
        delete_garbage(registry, entry)
    except (StorageError, BackendError):
        _report_failed_delete(registry, entry.keys)


def _free_names(registry: Any, ledger: Ledger) -> None:
    if ledger.reserved:
        with transaction.manager:
            for key in ledger.reserved:
                registry.attachment_links.reservations.release(key)


def _notify(registry: Any, ledger: Ledger) -> None:
    for event in ledger.events:
        try:
            registry.notify(event)
        except Exception:
            logger.exception("A subscriber of %s failed", type(event).__name__)


def _delete(registry: Any, keys: list[str]) -> None:
    if not keys:
        return
    try:
        registry.attachment_storage.delete(*keys)
    except StorageError:
        _report_failed_delete(registry, keys)


def _report_failed_delete(registry: Any, keys: list[str]) -> None:
    shown = ", ".join(keys[:10]) + (" …" if len(keys) > 10 else "")
    logger.exception("Could not delete stored files, left to gc: %s", shown)
    registry.metrics.count("attachments.delete_failed", len(keys))
