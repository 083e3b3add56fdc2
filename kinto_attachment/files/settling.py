"""The work on files after a request's transaction was committed or aborted."""

from __future__ import annotations

import logging

import transaction
from kinto.core.storage.exceptions import BackendError, ObjectNotFoundError
from kinto.core.utils import msec_time

from kinto_attachment.errors import StorageError, cause
from kinto_attachment.files.ledger import Ledger, NewFile
from kinto_attachment.index.outbox import Garbage, Outbox, StoredFile, keys_by_storage
from kinto_attachment.kinto_types import Registry
from kinto_attachment.metadata import FIELD, same_json
from kinto_attachment.storage.storages import metric_of
from kinto_attachment.uris import RecordURI

logger = logging.getLogger(__name__)

# The number of outbox entries that a process remembers until they are due; gc finds the others.
MAX_LINGERING = 10_000
DUE_AT_ONCE = 10  # Entries that one request looks at.


def settle(registry: Registry, ledger: Ledger) -> None:
    """Delete or keep files, depending on the transaction. gc repeats steps that fail here."""
    # Files are deleted before their names are released and before subscribers are notified.
    # Nothing depends on this order, because an existing file also blocks its name.
    for step in (
        _undo,
        _delete_garbage,
        _delete_lingering,
        _release_reservations,
        _release_room,
        _notify,
    ):
        try:
            step(registry, ledger)
        except Exception as error:
            message = "Could not settle the attachments of a request: %s: %s"
            logger.exception(message, step.__name__, cause(error))
            registry.metrics.count("attachments.settle_failed")


def delete_garbage(registry: Registry, entry: Garbage) -> list[str] | None:
    """Delete the files of an outbox entry, then the entry.

    :returns: the keys of these files, without those that were linked again; None if another
        process has taken the entry.
    :raises StorageError: the entry remains, and possibly the files. It also remains if its storage
        is not configured.
    """
    links = registry.attachment_links
    outbox: Outbox = links.outbox
    storages = registry.attachment_storages
    storages[entry.storage]  # Otherwise the entry waits.
    with transaction.manager:
        # Lingering files have links, which also change.
        if not outbox.take(entry, is_alone=not entry.due):
            return None
        files: list[StoredFile] = [StoredFile(entry.storage, key) for key in entry.keys]
        if entry.due:  # The files may have been linked again, or moved to another storage.
            files = links.end_lingering(files)
        try:
            for storage, keys in keys_by_storage(files).items():
                storages[storage].files.delete(*keys)
        except StorageError:
            # A database restores the entry by rolling back; a memory backend needs this.
            outbox.put(entry)
            raise
    return [file.key for file in files]


def _undo(registry: Registry, ledger: Ledger) -> None:
    """Delete the files that this request stored and that have no committed link."""
    unlinked = [
        file
        for key, file in ledger.new_files.items()
        if key not in ledger.linked and not file.is_of_session
    ]
    if not unlinked:
        return
    # If this fails, their names stay reserved, so gc recognizes them.
    keys = {file.key for file in unlinked}
    ledger.left.update(keys)
    with transaction.manager:
        # A memory backend does not roll back, and after a lost connection the database may still
        # commit.
        lost = [file for file in unlinked if not is_in_use(registry, ledger, file)]
    ledger.left.difference_update(keys - {file.key for file in lost})
    for storage, deleted in keys_by_storage(lost).items():
        if _delete(registry, storage, deleted):
            ledger.left.difference_update(deleted)


def is_in_use(registry: Registry, ledger: Ledger, file: NewFile) -> bool:
    """Whether the file of a rolled back request has a link or a record nevertheless."""
    links = registry.attachment_links
    # If the request wrote no link, no commit of it can be under way, and no lock is needed.
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


def _delete_garbage(registry: Registry, ledger: Ledger) -> None:
    for entry in ledger.garbage:
        if entry.due:
            registry.attachment_lingering.append(entry)
        else:
            try_to_delete(registry, entry)


def _delete_lingering(registry: Registry, ledger: Ledger) -> None:
    """Delete files that linger since earlier requests of this process and are due now."""
    waiting = registry.attachment_lingering
    for _ in range(DUE_AT_ONCE):
        try:
            entry = waiting.popleft()
        except IndexError:
            return
        if entry.due > msec_time():
            waiting.append(entry)
        else:
            try_to_delete(registry, entry)


def try_to_delete(registry: Registry, entry: Garbage) -> None:
    """Delete the files of an outbox entry; if that fails, gc tries again."""
    try:
        delete_garbage(registry, entry)
    except (StorageError, BackendError) as error:
        _report_failed_delete(registry, entry.storage, entry.keys, error)


def _release_reservations(registry: Registry, ledger: Ledger) -> None:
    released = [key for key in ledger.reserved if key not in ledger.left]
    if released:
        with transaction.manager:
            for key in released:
                registry.attachment_links.reservations.release(key)


def _release_room(registry: Registry, ledger: Ledger) -> None:
    for file in ledger.entered:
        registry.attachment_usage.leave(file)


def _notify(registry: Registry, ledger: Ledger) -> None:
    for event in ledger.events:
        try:
            registry.notify(event)
        except Exception as error:
            logger.exception("A subscriber of %s failed: %s", type(event).__name__, cause(error))


def _delete(registry: Registry, storage: str, keys: list[str]) -> bool:
    try:
        registry.attachment_storages[storage].files.delete(*keys)
    except StorageError as error:
        _report_failed_delete(registry, storage, keys, error)
        return False
    return True


def _report_failed_delete(
    registry: Registry, storage: str, keys: list[str], error: Exception
) -> None:
    shown = ", ".join(keys[:10]) + (" …" if len(keys) > 10 else "")
    message = "Could not delete stored files; gc will try again: %s: %s"
    logger.exception(message, shown, cause(error))
    registry.metrics.count(metric_of(storage, "attachments.delete_failed"), len(keys))
