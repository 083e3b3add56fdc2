"""Files follow the transaction: new ones are undone with it, old ones deleted after it.

A request keeps a :class:`Ledger` of what it did to files and of what it means to do. The tween,
which sits above Kinto's transaction, settles it when the outcome is known, whichever way the
request ended: committed, aborted, failed at the commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import transaction
from kinto.core.storage.exceptions import BackendError, ObjectNotFoundError
from kinto.core.storage.memory import MemoryBasedStorage

from kinto_attachment.errors import StorageError
from kinto_attachment.links import Links
from kinto_attachment.metadata import FIELD, key_of
from kinto_attachment.outbox import Garbage, Outbox

logger = logging.getLogger(__name__)

LEDGER = "kinto_attachment.ledger"
# What Kinto remembers during a request about objects that it created implicitly, and the events
# that it collected: void when the transaction starts again.
REMEMBERED = ("resource_events", "buckets", "collections")

T = TypeVar("T")


@dataclass
class Ledger:
    """What one request did to files, shared by the sub-requests of a batch."""

    written: dict[str, str] = field(default_factory=dict)  # Key -> URI of the record it is for.
    stored: float = 0.0  # When the last of them was, by time.monotonic().
    reserved: list[str] = field(default_factory=list)
    linking: set[str] = field(default_factory=set)  # Files of ours with a link, if it commits.
    # Filled by after-commit hooks, so with what is committed only:
    linked: list[str] = field(default_factory=list)
    garbage: list[Garbage] = field(default_factory=list)
    events: list[object] = field(default_factory=list)

    @classmethod
    def of(cls, request: Any) -> Ledger:
        ledger: Ledger = request.bound_data.setdefault(LEDGER, cls())
        return ledger

    def when_committed(self, to: list[T], *items: T) -> None:
        """Append to one of the lists above if the current transaction commits."""

        def append(committed: bool) -> None:
            if committed:
                to.extend(items)

        transaction.get().addAfterCommitHook(append)


def restart() -> None:
    """Give up the current transaction, and with it the database connection, and begin a new one.

    What waits for the commit of the request (Kinto's ``AfterResourceChanged`` among it) waits
    for the commit of the new one. Only for requests that have written nothing yet, or whose
    writes are to be made anew.
    """
    hooks = list(transaction.get().getAfterCommitHooks())
    transaction.abort()
    begun = transaction.begin()
    for hook, args, kwargs in hooks:
        begun.addAfterCommitHook(hook, args, kwargs)


def release(request: Any) -> None:
    """Hold no database connection while the body arrives; not in a batch, which has written."""
    if not in_batch(request):
        restart()
        forget(request.bound_data)


def forget(bound_data: dict[str, Any]) -> None:
    """Drop what Kinto remembers of a transaction that did not come to pass."""
    for name in REMEMBERED:
        bound_data.pop(name, None)


def before_part_of_batch(event: Any) -> None:
    """Have what is rolled back in the middle of a batch forgotten.

    When a part is answered with 409, Kinto gives up the transaction, and goes on with the next
    part in another one. It would still tell listeners, us among them, of the changes that were
    rolled back, and the files of records that were not deleted after all would go.
    """
    request = event.request
    if not in_batch(request) or isinstance(request.registry.storage, MemoryBasedStorage):
        return  # What is on a memory backend stays.
    current, bound_data = transaction.get(), request.bound_data
    hooks = current.getAfterAbortHooks()
    if all(hook is not forget or args[0] is not bound_data for hook, args, _ in hooks):
        current.addAfterAbortHook(forget, (bound_data,))


def in_batch(request: Any) -> bool:
    while (parent := getattr(request, "parent", None)) is not None:
        request = parent
    service = request.current_service
    return service is not None and service.name == "batch"


@contextmanager
def aside(request: Any) -> Iterator[None]:
    """Run something in a short transaction of its own, where the request's has not begun.

    In a batch there is no such place, and it becomes part of the batch's transaction.
    """
    if in_batch(request):
        yield
        return
    hooks = list(transaction.get().getAfterCommitHooks())
    transaction.abort()
    try:
        with transaction.manager:
            yield
    finally:
        begun = transaction.begin()
        for hook, args, kwargs in hooks:
            begun.addAfterCommitHook(hook, args, kwargs)


def settling_tween(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Above pyramid_tm's tween: below it, the transaction is open; here, it has ended."""

    def tween(request: Any) -> Any:
        try:
            return handler(request)
        finally:
            ledger = request.bound_data.get(LEDGER)
            if ledger is not None:
                settle(registry, ledger)

    return tween


def settle(registry: Any, ledger: Ledger) -> None:
    """Do what the outcome of the transaction asks for; a failure here is gc's to finish."""
    for step in (_undo, _finish, _free_names, _notify):
        try:
            step(registry, ledger)
        except Exception:
            logger.exception("Could not settle the attachments of a request: %s", step.__name__)
            registry.metrics.count("attachments.settle_failed")


def finish(registry: Any, entry: Garbage) -> bool:
    """Delete the files of an outbox entry, then the entry; False if somebody else has.

    :raises StorageError: the files are still there, maybe, and so is the entry.
    """
    outbox: Outbox = registry.attachment_links.outbox
    with transaction.manager:
        if not outbox.take(entry):
            return False
        try:
            registry.attachment_storage.delete(*entry.keys)
        except StorageError:
            # The transaction fails, and the entry is back; on a memory backend, by this.
            outbox.put(entry)
            raise
    return True


def _undo(registry: Any, ledger: Ledger) -> None:
    """Delete the files that this request stored and did not, in the end, link to a record."""
    unlinked = [key for key in ledger.written if key not in ledger.linked]
    if not unlinked:
        return
    with transaction.manager:
        # A memory backend keeps what was written, and a database that we have lost may yet commit.
        lost = [key for key in unlinked if not _in_use(registry, ledger, key)]
    _delete(registry, lost)


def _in_use(registry: Any, ledger: Ledger, key: str) -> bool:
    links: Links = registry.attachment_links
    record_uri = ledger.written[key]
    # Without a link written, no commit can be under way: losers of a race need not meet here.
    in_doubt = key in ledger.linking
    if not links.is_unlinked(record_uri, key) if in_doubt else links.of_key(key):
        return True
    collection_uri, _, object_id = record_uri.rpartition("/records/")
    try:
        record = registry.storage.get("record", collection_uri, object_id)
    except ObjectNotFoundError:
        return False
    settings, prefix = registry.attachment_settings, registry.route_prefix
    return key_of(settings, prefix, record.get(FIELD)) == key


def _finish(registry: Any, ledger: Ledger) -> None:
    for entry in ledger.garbage:
        try:
            finish(registry, entry)
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
