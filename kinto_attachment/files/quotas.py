"""Quotas: refusing files that would exceed the limit of their bucket or collection.

There are three checks: before the body is read, if its length is known; while it is read; and
exactly, when the index is written at the end of the transaction. The first two only save work for
client and server. Memory backends cannot roll back, and an error at the end of a batch fails all
of it. In these cases, a stored file is also checked before Kinto writes its record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from kinto_attachment.errors import QuotaExceeded
from kinto_attachment.files.ledger import Ledger, NewFile, SharedFile
from kinto_attachment.files.transactions import (
    in_batch,
    separate_transaction,
    shares_transaction,
)
from kinto_attachment.http.streams import BoundedReader, Reader
from kinto_attachment.index.link import Link
from kinto_attachment.index.session import Session
from kinto_attachment.index.totals import Totals
from kinto_attachment.index.usage_limits import check, exceeded
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD
from kinto_attachment.quota_settings import Quota

NOTHING = Totals()
PLENTY = 16  # A multiple of the space that a request can use.


@dataclass(frozen=True)
class Allowance:
    """The number of bytes of a file that may be stored, and the error for more bytes."""

    bytes: int
    error: QuotaExceeded

    def bound(self, reader: Reader) -> BoundedReader:
        return BoundedReader(reader, self.bytes, self.error)


def look(request: Request) -> None:
    """Read the counters while the first transaction of the request is open.

    They are not read if there was far more space a moment ago than the request can use.
    """
    usage, ledger = request.registry.attachment_usage, Ledger.of(request)
    scopes = usage.scopes_of(str(request.context.uri))
    if not scopes or in_batch(request):
        return
    recent = usage.recent(scopes)
    if recent is not None and _have_plenty(request, recent):
        ledger.has_plenty = True
        return
    known = usage.known(scopes)
    if len(known) == len(scopes):
        ledger.used = known


def _have_plenty(request: Request, held: dict[str, Totals]) -> bool:
    length = request.content_length
    quotas = [(_quota_of(request)(scope), used) for scope, used in held.items()]
    return length is not None and all(
        (not quota.bytes or length * PLENTY <= quota.bytes - used.bytes)
        and (not quota.files or quota.files - used.files >= PLENTY)
        for quota, used in quotas
    )


def check_file(request: Request, size: int | None, *, replaces: bool = True) -> Allowance | None:
    """Refuse a new file of ``size`` stored bytes, or None if the size is not known.

    If it ``replaces`` the record's file, it can use the bytes of that file.

    :returns: the number of bytes that may be stored; None if there is no limit.
    :raises QuotaExceeded:
    """
    held = _held(request)
    freed = _freed(request) if held and replaces else NOTHING
    more, allowances = Totals(1, size or 0) - freed, []
    for scope, used in held.items():
        quota = _quota_of(request)(scope)
        check(quota, used, more)
        if quota.bytes:
            left = max(quota.bytes - used.bytes, 0) + freed.bytes
            allowances.append(Allowance(left, exceeded(quota, used)))
    return min(allowances, key=lambda each: each.bytes, default=None)


def check_shared(request: Request, key: str, size: int) -> None:
    """Refuse a file of another record if it is new to the bucket or collection.

    :raises QuotaExceeded:
    """
    held = _held(request)
    others = _records(request, key) if held else ()
    freed = _freed(request) if held else NOTHING
    for scope, used in held.items():
        gained = NOTHING if _are_in(scope, others) else Totals(1, size)
        check(_quota_of(request)(scope), used, gained - freed)


@contextmanager
def entered(request: Request, attachment: dict[str, Any]) -> Iterator[None]:
    """Check a stored file exactly before Kinto writes its record, if this is necessary.

    The block writes the record. If it fails, the file is not counted.

    :raises QuotaExceeded:
    """
    registry, uri = request.registry, str(request.context.uri)
    usage, ledger = registry.attachment_usage, Ledger.of(request)
    if not usage.is_counting:
        yield
        return
    file = ledger.file_of(uri, attachment)
    is_new = file is not None and uri not in _entered(request, file.key)
    changes = _changes(request, file, attachment["size"]) if file is not None and is_new else {}
    if file is None or not changes:
        yield
        return
    usage.enter((uri, file.key), changes, _quota_of(request))
    ledger.entered.append((uri, file.key))
    try:
        yield
    except BaseException:
        usage.leave((uri, file.key))
        raise


def _changes(request: Request, file: NewFile | SharedFile, size: int) -> dict[str, Totals]:
    """The changes of counters for a file that has to be counted before it is linked."""
    registry, uri = request.registry, str(request.context.uri)
    usage, ledger = registry.attachment_usage, Ledger.of(request)
    scopes = usage.scopes_of(uri)
    if not scopes or not (usage.enters_all or shares_transaction(request)):
        return {}
    if isinstance(file, SharedFile) and file.version is not None:
        return {}
    if not isinstance(file, SharedFile) and file.is_of_session and ledger.session is not None:
        size -= ledger.session.counted
    links = registry.attachment_links
    others = _records(request, file.key) if isinstance(file, SharedFile) else []
    replaced = [] if _keeps(request) else _current(links.of_record(uri), file.key)
    changes = {}
    for scope in scopes:
        changes[scope] = NOTHING if _are_in(scope, others) else Totals(1, size)
        for link in replaced:
            rest = [each for each in _records(request, link.key) if each != uri]
            if not _are_in(scope, rest):
                changes[scope] -= Totals(1, link.size)
    return changes


def arriving(request: Request, reader: Reader, content_length: int | None) -> Reader:
    """The bytes of a request for an upload in several requests, limited by the quota.

    :raises QuotaExceeded: the request's length exceeds the quota; reading raises it, too.
    """
    allowance = check_bytes(request, content_length or 0)
    return reader if allowance is None else allowance.bound(reader)


def check_bytes(request: Request, size: int) -> Allowance | None:
    """The same as :func:`check_file` for bytes that are not a file yet."""
    allowances = []
    for scope, used in _held(request).items():
        quota = _quota_of(request)(scope)
        check(quota, used, Totals(0, size))
        if quota.bytes:
            error = exceeded(quota, used)
            allowances.append(Allowance(max(quota.bytes - used.bytes, 0), error))
    return min(allowances, key=lambda each: each.bytes, default=None)


def resize(request: Request, before: Session, after: Session) -> None:
    """Count the bytes of an upload so far, in the transaction that commits them.

    :raises QuotaExceeded: the transaction has to be rolled back.
    """
    difference = after.counted - before.counted
    usage = request.registry.attachment_usage
    usage.resize(before.record, difference, _quota_of(request))


def tightest(request: Request, bucket_id: str, collection_id: str) -> tuple[Quota, Totals] | None:
    """The quota with the fewest bytes left for a collection, and its counter.

    If none limits the bytes, a quota of files; None if there is no quota.
    """
    registry = request.registry
    scopes = registry.attachment_settings.quotas.counted(bucket_id, collection_id)
    held = registry.attachment_usage.peek(scopes)
    limits = [(_quota_of(request)(scope), used) for scope, used in held.items()]
    limits = [(quota, used) for quota, used in limits if quota]
    return min(limits, key=lambda each: _left(*each), default=None)


def _left(quota: Quota, used: Totals) -> tuple[float, float]:
    left_bytes = quota.bytes - used.bytes if quota.bytes else float("inf")
    left_files = quota.files - used.files if quota.files else float("inf")
    return left_bytes, left_files


def _held(request: Request) -> dict[str, Totals]:
    """The counters of the record's bucket and collection, unless far below their quotas."""
    usage, ledger = request.registry.attachment_usage, Ledger.of(request)
    scopes = usage.scopes_of(str(request.context.uri))
    if not scopes:
        return {}
    if not shares_transaction(request):
        if ledger.has_plenty:
            return {}
        if ledger.used.keys() == {*scopes}:
            return ledger.used
    else:
        return usage.peek(scopes)
    with separate_transaction(request):
        found: dict[str, Totals] = usage.read(scopes)
    return found


def _quota_of(request: Request) -> Callable[[str], Quota]:
    resolver = request.registry.attachment_collection_settings
    return partial(resolver.quota, Ledger.of(request))


def _keeps(request: Request) -> bool:
    """Whether a replaced file stays stored, permanently or for a while."""
    uri = request.context.uri
    resolver = request.registry.attachment_collection_settings
    rules = resolver.of(request, uri.bucket_id, uri.collection_id)
    return bool(rules.keep_old_files or rules.linger)


def _freed(request: Request) -> Totals:
    """The files and bytes that may become free when the record's file is replaced."""
    attachment = (request.context.record or {}).get(FIELD)
    size = attachment.get("size") if isinstance(attachment, dict) else None
    return NOTHING if type(size) is not int or _keeps(request) else Totals(1, size)


def _current(links: Iterable[Link], key: str) -> list[Link]:
    """The links to the record's current file, unless it has this key."""
    return [link for link in links if link.state == "current" and link.key != key]


def _records(request: Request, key: str) -> list[str]:
    """The URIs of the records that have a file, or get it in an earlier part of a batch."""
    links = request.registry.attachment_links.of_key(key)
    return [*(link.record for link in links), *_entered(request, key)]


def _entered(request: Request, key: str) -> list[str]:
    """The records that get a file in this transaction and have no link to it yet."""
    waiting = request.registry.attachment_usage.entered()
    mine = Ledger.of(request).entered
    return [file[0] for file in mine if file[1] == key and file in waiting]


def _are_in(scope: str, records: Iterable[str]) -> bool:
    return any(record.startswith(f"{scope}/") for record in records)
