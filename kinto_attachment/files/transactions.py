"""Files follow the transaction: new ones are undone with it, old ones deleted after it.

Two tweens do so, with Kinto's transaction between them. The inner one writes the links when all
other work of the request is done, and repeats an upload that met another writer. The outer one
settles what the request did to files when the outcome of the transaction is known, whichever way
it ended: committed, aborted, failed at the commit.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import transaction
from kinto.core.storage.exceptions import BackendError, IntegrityError
from kinto.core.storage.memory import MemoryBasedStorage

from kinto_attachment.files.changes import write_links
from kinto_attachment.files.ledger import LEDGER, CollectedEvents, Ledger
from kinto_attachment.files.locations import outermost
from kinto_attachment.files.settling import settle

logger = logging.getLogger(__name__)

EVENTS = "resource_events"
# What Kinto remembers during a request about objects that it created implicitly: void when the
# transaction starts again.
CREATED = ("buckets", "collections")

# Two writers in one collection collide when they get the same timestamp, so rarely twice.
ATTEMPTS = 10
PAUSE = 0.02  # Seconds, for the first; then longer, up to ten times that.
KINDS = ("object", "plural")
# Kinto's services whose DELETE meets uploads, and ours.
DELETED = {
    "attachment",
    *(f"{name}-{kind}" for name in ("record", "collection", "bucket") for kind in KINDS),
}
# PostgreSQL's appendix A: serialization_failure and deadlock_detected.
CONFLICTS = ("40001", "40P01")


def linking_tween(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Below the view of exceptions, and above Kinto's tween that tells listeners of changes.

    So links are written after what other plugins write on behalf of the request, whatever the
    order in which they are included, and locks are taken in everybody's order: first those of
    Kinto's objects, then ours.
    """

    def tween(request: Any) -> Any:
        request.bound_data[EVENTS] = CollectedEvents()
        ledger = Ledger.of(request)
        ledger.is_awaited = True
        hooks = list(transaction.get().getAfterCommitHooks())
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = handler(request)
                write_links(registry, ledger)
                return response
            except (IntegrityError, BackendError) as error:
                if attempt == ATTEMPTS or not _can_be_repeated(request, ledger, error):
                    raise
                logger.info("Another writer came between: once more %s", request.path)
                _begin_again(request, ledger, hooks)
                time.sleep(random.uniform(PAUSE / 4, PAUSE * attempt))  # noqa: S311
        raise AssertionError("unreachable")

    return tween


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


def restart_transaction(request: Any) -> None:
    """Hold no database connection while the body arrives; not in a batch, which has written.

    What waits for the commit of the request (Kinto's ``AfterResourceChanged`` among it) waits
    for the commit of the new transaction.
    """
    if not in_batch(request):
        hooks = list(transaction.get().getAfterCommitHooks())
        transaction.abort()
        _begin(hooks)
        forget(request.bound_data)


@contextmanager
def separate_transaction(request: Any) -> Iterator[None]:
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
        _begin(hooks)


def in_batch(request: Any) -> bool:
    service = outermost(request).current_service
    return service is not None and service.name == "batch"


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


def forget(bound_data: dict[str, Any]) -> None:
    """Drop what Kinto remembers of a transaction that did not come to pass."""
    bound_data[EVENTS] = CollectedEvents()
    for name in CREATED:
        bound_data.pop(name, None)


def _begin(hooks: list[Any]) -> None:
    begun = transaction.begin()
    for hook, args, kwargs in hooks:
        begun.addAfterCommitHook(hook, args, kwargs)


def _can_be_repeated(request: Any, ledger: Ledger, error: BackendError) -> bool:
    """Whether the request met another writer, and sends nothing that is gone once it is read.

    The file of an upload is stored already, and what came with it is in the ledger.
    """
    service = request.current_service
    deletes = request.method == "DELETE" and service is not None and service.name in DELETED
    if in_batch(request) or not (ledger.received is not None or deletes):
        return False
    cause = getattr(error.original, "orig", None)
    return isinstance(error, IntegrityError) or getattr(cause, "pgcode", None) in CONFLICTS


def _begin_again(request: Any, ledger: Ledger, hooks: list[Any]) -> None:
    """As if the request had come just now: nothing that was read or cached before holds."""
    transaction.abort()
    _begin(hooks)  # Kinto adds its own when it is called again.
    ledger.forget_changes()
    request.bound_data.clear()
    request.bound_data |= {LEDGER: ledger, EVENTS: CollectedEvents()}
