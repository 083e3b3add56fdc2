"""Refusing to delete or replace files that are held.

A request reads the links that it changes, and the holds are checked then. A process that knows
about held files also checks them before Kinto writes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kinto.core.utils import msec_time

from kinto_attachment.errors import Held
from kinto_attachment.files.ledger import Ledger, NewFile, SharedFile
from kinto_attachment.index.holds import Hold, refuse
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.uris import RecordURI


def is_lost(link: Link, *, stays: bool, keeps: bool, let_go: bool, ended: bool) -> bool:
    """Whether a change of its record deletes a file, or takes it away from the record.

    ``stays`` says whether the file remains the record's current one, ``keeps`` whether earlier
    files are kept, ``let_go`` whether the record is without a file at some time, and ``ended``
    whether it is deleted.
    """
    if ended:
        return True
    if link.state == "kept":
        return let_go and not keeps
    return not stays and (let_go or not keeps)


def refuse_loss(registry: Registry, links: Iterable[Link], now: int) -> None:
    """:raises Held: a file that would be lost is held."""
    try:
        refuse(links, now)
    except Held:
        registry.attachment_holds.note()
        raise


def by_setting(rules: CollectionSettings, now: int) -> dict[str, Any] | None:
    """The hold of a new file, in the form for its link; ``now`` is in ms since the epoch."""
    if not rules.hold:
        return None
    until = now + int(rules.hold * 1000)
    return Hold(until, reason=f"The setting is {rules.setting('hold')}.", since=now).dump()


# Before Kinto writes anything.


def refuse_change(request: Request, uri: RecordURI, old: Any, new: Any) -> None:
    """Refuse to change the attachment of a record from ``old`` to ``new``, which may be None.

    :raises Held: the change would delete or replace a file that is held.
    """
    stays = _location(new) is not None and _location(new) == _location(old)
    if old is not None and not stays:
        _refuse_early(request, uri, old, stays=stays, let_go=new is None, ended=False)


def refuse_deletion(request: Request, uri: RecordURI, old: Any) -> None:
    """Refuse to delete a record with an attachment, or None.

    :raises Held: one of its files is held.
    """
    _refuse_early(request, uri, old, stays=False, let_go=True, ended=True)


def refuse_deletion_below(registry: Registry, *uris: str) -> None:
    """Refuse to delete buckets or collections.

    :raises Held: files below them are held.
    """
    now = msec_time()
    if registry.attachment_holds.is_known:
        for uri in uris:
            refuse_loss(registry, registry.attachment_links.held_below(f"{uri}/", now), now)


def _refuse_early(
    request: Request, uri: RecordURI, old: Any, *, stays: bool, let_go: bool, ended: bool
) -> None:
    registry, now = request.registry, msec_time()
    if not registry.attachment_holds.is_known:
        return
    resolver = registry.attachment_collection_settings
    rules = resolver.of(request, uri.bucket_id, uri.collection_id)
    outcome = {"stays": stays, "let_go": let_go, "ended": ended, "keeps": rules.keep_old_files}
    links = [link for link in registry.attachment_links.of_record(str(uri)) if not link.ended]
    links += pending(request, uri, old, rules, now)
    refuse_loss(registry, [link for link in links if is_lost(link, **outcome)], now)


def pending(
    request: Request, uri: RecordURI, attachment: Any, rules: CollectionSettings, now: int
) -> list[Link]:
    """The link with the hold of a file that an earlier part of a batch has attached."""
    ledger, record = Ledger.of(request), str(uri)
    file = ledger.file_of(record, attachment) if isinstance(attachment, dict) else None
    if file is None:
        return []
    return [
        Link.to(record, file.key, attachment, hold=hold_of_new(ledger, record, file, rules, now))
    ]


def hold_of_new(
    ledger: Ledger, record: str, file: NewFile | SharedFile, rules: CollectionSettings, now: int
) -> Mapping[str, Any] | None:
    """The future hold of a file that this request has attached to a record."""
    known = ledger.holds.get((record, file.key))
    if known is not None:
        return known or None
    version = file.version if isinstance(file, SharedFile) else None
    # A restored version keeps its hold.
    return by_setting(rules, now) if version is None else version.hold


def _location(attachment: Any) -> object:
    return attachment.get("location") if isinstance(attachment, Mapping) else None
