"""Tying files to the transaction: new files are deleted if it fails, old files if it commits.

Two tweens do this, with Kinto's transaction between them. The inner one writes the links when the
request has done everything else, and repeats uploads that conflict with another transaction. The
outer one deletes files when the outcome of the transaction is known: committed, aborted, or failed
at the commit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import transaction
from kinto.core.storage.exceptions import BackendError, IntegrityError
from kinto.core.storage.memory import MemoryBasedStorage

from kinto_attachment.errors import Held, QuotaExceeded
from kinto_attachment.files.changes import write_links
from kinto_attachment.files.ledger import LEDGER, CollectedEvents, Ledger
from kinto_attachment.files.locations import outermost
from kinto_attachment.files.locks import READ
from kinto_attachment.files.repeating import ATTEMPTS, is_conflict, pause
from kinto_attachment.files.session_ends import end_failed
from kinto_attachment.files.settling import settle
from kinto_attachment.kinto_types import Handler, Registry, Request, RequestEvent, Response

logger = logging.getLogger(__name__)

EVENTS = "resource_events"
# Kinto's caches of objects that it created implicitly during a request. They are no longer valid
# when the transaction starts again.
CREATED = ("buckets", "collections")

# How often the counters of a batch are written. After the first time, only other plugins can
# exceed a quota.
BOOKINGS = 3
# An attribute of requests that code on the server makes within another request.
JOINS = "kinto_attachment_joins_transaction"
KINDS = ("object", "plural")
# The services, Kinto's and ours, whose DELETE may conflict with uploads.
DELETED = {
    "attachment",
    "attachment-version",
    *(f"{name}-{kind}" for name in ("record", "collection", "bucket") for kind in KINDS),
}


def linking_tween(handler: Handler, registry: Registry) -> Handler:
    """Runs below the exception views, and above Kinto's tween that notifies listeners.

    So links are written after everything that other plugins write for the request, in whatever
    order the plugins are included. This keeps the order of locks: Kinto's objects first, then
    links.
    """

    def tween(request: Request) -> Response:
        request.bound_data[EVENTS] = CollectedEvents()
        ledger = Ledger.of(request)
        ledger.written_by_tween = True
        hooks = list(transaction.get().getAfterCommitHooks())
        for attempt in range(1, ATTEMPTS + 1):
            knew_of_holds = registry.attachment_holds.is_known
            try:
                response = handler(request)
                write_links(registry, ledger)
                # Last: counters are locked after all else.
                if _book(request, ledger, last=attempt >= BOOKINGS):
                    return response
                _begin_again(request, ledger, hooks)
            except Held:
                # The whole batch would be refused. Now that this process knows about holds, a
                # repetition only refuses the part with the file.
                if knew_of_holds or not in_batch(request) or not _rolls_back(registry):
                    raise
                _begin_again(request, ledger, hooks)
            except (IntegrityError, BackendError) as error:
                if attempt == ATTEMPTS or not _can_be_repeated(request, ledger, error):
                    raise
                logger.info("Concurrent write, repeating the request: %s", request.path)
                _begin_again(request, ledger, hooks)
                pause(attempt)
        raise AssertionError("unreachable")

    return tween


def _book(request: Request, ledger: Ledger, *, last: bool) -> bool:
    """Write the counters of quotas; False if a batch has to be repeated for that.

    Others have used the space of a part since it was checked. A repetition refuses only that part;
    otherwise, the whole batch would be refused.
    """
    registry = request.registry
    quota_of = partial(registry.attachment_collection_settings.quota, ledger)
    try:
        registry.attachment_usage.book(quota_of)
    except QuotaExceeded:
        if last or not in_batch(request) or not _rolls_back(registry):
            raise
        return False
    return True


def settling_tween(handler: Handler, registry: Registry) -> Handler:
    """Runs above pyramid_tm's tween, and so after the end of the transaction."""

    def tween(request: Request) -> Response:
        response = None
        try:
            response = handler(request)
            return response
        finally:
            ledger = request.bound_data.get(LEDGER)
            if ledger is not None:
                if ledger.attaching is not None and response is not None:
                    end_failed(registry, ledger, response)
                settle(registry, ledger)

    return tween


def restart_transaction(request: Request) -> None:
    """Release the database connection before the body is received, by starting a new transaction.

    Does nothing in a batch, which may have written something. After-commit hooks of the request,
    such as Kinto's for ``AfterResourceChanged``, move to the new transaction.
    """
    if not shares_transaction(request):
        hooks = list(transaction.get().getAfterCommitHooks())
        transaction.abort()
        _begin(hooks)
        forget(request.bound_data)


@contextmanager
def separate_transaction(request: Request) -> Iterator[None]:
    """Run the block in a short transaction, before that of the request.

    If the request shares its transaction with others, the block runs in that transaction.
    """
    if shares_transaction(request):
        yield
        return
    with paused_transaction(), transaction.manager:
        yield


@contextmanager
def paused_transaction() -> Iterator[None]:
    """Run the block between two transactions of the request, of which the first is aborted."""
    hooks = list(transaction.get().getAfterCommitHooks())
    transaction.abort()
    try:
        yield
    finally:
        _begin(hooks)


def shares_transaction(request: Request) -> bool:
    """Whether the transaction is not the request's own: in a batch, or for code on the server."""
    return in_batch(request) or getattr(request, JOINS, False)


def in_batch(request: Request) -> bool:
    service = outermost(request).current_service
    return service is not None and service.name == "batch"


def before_part_of_batch(event: RequestEvent) -> None:
    """Forget changes that were rolled back in the middle of a batch.

    If a part gets a 409, Kinto aborts the transaction, and continues with the next part in
    another one. It would still notify listeners, including ours, of the changes that were rolled
    back, and files of records that still exist would be deleted.
    """
    request = event.request
    if not in_batch(request) or isinstance(request.registry.storage, MemoryBasedStorage):
        return  # Memory backends do not roll back.
    # This runs several times in a transaction with several parts, which is harmless.
    transaction.get().addAfterAbortHook(forget, (request.bound_data,))


def forget(bound_data: dict[str, Any]) -> None:
    """Drop the data of an aborted transaction from Kinto's caches."""
    bound_data[EVENTS] = CollectedEvents()
    for name in (*CREATED, READ):
        bound_data.pop(name, None)


def _rolls_back(registry: Registry) -> bool:
    return registry.attachment_holds.rolls_back


def _begin(hooks: list[Any]) -> None:
    begun = transaction.begin()
    for hook, args, kwargs in hooks:
        begun.addAfterCommitHook(hook, args, kwargs)


def _can_be_repeated(request: Request, ledger: Ledger, error: BackendError) -> bool:
    """Whether the error is a conflict and the request's body is no longer needed.

    The file of an upload is already stored, and its form fields are in the ledger.
    """
    service = request.current_service
    deletes = request.method == "DELETE" and service is not None and service.name in DELETED
    if in_batch(request) or not (ledger.received is not None or deletes):
        return False
    return is_conflict(error)


def _begin_again(request: Request, ledger: Ledger, hooks: list[Any]) -> None:
    """Reset the request to its beginning, and drop everything that was read or cached."""
    transaction.abort()
    _begin(hooks)  # Kinto adds its own hooks again.
    ledger.forget_changes()
    request.bound_data.clear()
    request.bound_data |= {LEDGER: ledger, EVENTS: CollectedEvents()}
