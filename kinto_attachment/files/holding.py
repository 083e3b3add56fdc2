"""Holding the current file of a record, and ending the hold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kinto.core.utils import msec_time
from pyramid.httpexceptions import HTTPForbidden

from kinto_attachment.errors import AttachmentChanged, FileNotFound, InvalidForm
from kinto_attachment.files.forms import read_json
from kinto_attachment.files.holds import hold_of_new
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.permissions import may_now
from kinto_attachment.files.transactions import restart_transaction
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.holds import Hold, standing
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD, same_json
from kinto_attachment.terminal import printable
from kinto_attachment.wsgi.bodies import body_of

logger = logging.getLogger(__name__)

FIELDS = {"until", "reason"}
LATEST = 253_402_300_800_000  # The year 10,000, in ms since the epoch. Dates have to be before it.
REASON_LENGTH = 1000  # Characters.

Change = Callable[["Hold | None"], "Hold | None"]
"""From the current hold to the next one."""


def present(request: Request) -> Hold:
    """The hold of the record's file.

    :raises FileNotFound: it is not held or does not exist.
    """
    hold = _present(request, _attachment(request.context.record))
    if hold is None:
        raise FileNotFound("The file is not held.")
    return hold


def put(request: Request) -> Hold:
    """Hold the record's file as the request's body says.

    :raises InvalidForm: the body is not valid.
    :raises Held: the file is held until a later date.
    :raises AttachmentChanged: the record's file was replaced or removed in the meantime.
    """
    _attachment(request.context.record)
    restart_transaction(request)
    until, reason = _wanted(read_json("body", body_of(request)))
    now, by = msec_time(), request.prefixed_userid

    def held(before: Hold | None) -> Hold:
        base = before or Hold(since=now)
        if until is not None and until < base.until:
            raise base.refusal(str(request.context.uri), "A date can only be moved later.")
        return replace(
            base,
            until=base.until if until is None else until,
            is_open=base.is_open or until is None,
            reason=base.reason if reason is None else reason,
            by=by,
        )

    if not may_now(request, "write", request.context.uri.collection):
        raise HTTPForbidden()
    request.registry.attachment_holds.note()
    hold = _change(request, held)
    assert hold is not None  # noqa: S101
    return hold


def end(request: Request) -> None:
    """End an open-ended hold.

    :raises FileNotFound: the file is not held or does not exist.
    :raises Held: the date of the hold is in the future.
    """
    _attachment(request.context.record)
    now = msec_time()

    def ended(before: Hold | None) -> None:
        if before is None:
            raise FileNotFound("The file is not held.")
        if before.until > now:
            message = "A hold with a date ends by itself."
            raise replace(before, is_open=False).refusal(str(request.context.uri), message)

    _change(request, ended)


def _change(request: Request, change: Change) -> Hold | None:
    """Change the hold of the record's file, while nobody else can change the record."""
    uri, registry = str(request.context.uri), request.registry
    attachment = _locked_attachment(request)
    ledger, now = Ledger.of(request), msec_time()
    file = ledger.file_of(uri, attachment)
    if file is not None:  # It has no link yet.
        after = change(_present(request, attachment))
        ledger.holds[uri, file.key] = after.dump() if after is not None else {}
        _log(request, after)
        return after
    link = _link_of(request, attachment)
    result: list[Hold | None] = []

    def changed(each: Link) -> Link:
        if each.record != uri or each.state != "current":
            return each
        after = change(standing(each, now))
        result.append(after)
        return replace(each, hold=after.dump() if after is not None else None)

    registry.attachment_links.revise(link.key, changed)
    if not result:
        raise AttachmentChanged()
    _log(request, result[0])
    return result[0]


def _locked_attachment(request: Request) -> dict[str, Any]:
    """The attachment of the record, which others cannot change before the commit.

    :raises AttachmentChanged: it has changed since the request was authorized.
    """
    uri, registry = str(request.context.uri), request.registry
    bulk = BulkLinks(registry.storage, registry.attachment_links)
    record = bulk.locked_records([uri], wait=True).get(uri)
    attachment = (record or {}).get(FIELD)
    if not isinstance(attachment, dict):
        raise AttachmentChanged()
    if not same_json(attachment, (request.context.record or {}).get(FIELD)):
        raise AttachmentChanged()
    return attachment


def _present(request: Request, attachment: dict[str, Any]) -> Hold | None:
    uri, ledger, now = request.context.uri, Ledger.of(request), msec_time()
    file = ledger.file_of(str(uri), attachment)
    if file is None:
        return standing(_link_of(request, attachment), now)
    known = hold_of_new(ledger, str(uri), file, rules_of(request), now)
    hold = Hold.load(known) if known else None
    return hold if hold is not None and hold.stands(now) else None


def _link_of(request: Request, attachment: dict[str, Any]) -> Link:
    """The link of the record's current file.

    :raises FileNotFound: the index has no link, because the file is not on this server.
    """
    links = request.registry.attachment_links.of_record(str(request.context.uri))
    for link in links:
        if link.is_current and link.describes(attachment):
            return link
    raise FileNotFound("The attachment of the record is not a file of this server.")


def _attachment(record: dict[str, Any] | None) -> dict[str, Any]:
    attachment = (record or {}).get(FIELD)
    if not isinstance(attachment, dict):
        raise FileNotFound("The record has no attachment.")
    return attachment


def _wanted(body: dict[str, Any]) -> tuple[int | None, str | None]:
    """The date in ms since the epoch (None: open-ended) and the reason, if any."""
    data = body.get("data")
    if not isinstance(data, dict) or "until" not in data or not data.keys() <= FIELDS:
        raise InvalidForm("data in body: should have `until`, and may have `reason`")
    until, reason = data["until"], data.get("reason")
    if until is not None and type(until) is not int:
        raise InvalidForm("data.until in body: should be ms since the epoch, or null")
    if until is not None and not msec_time() < until < LATEST:
        raise InvalidForm("data.until in body: should be in the future, before the year 10000")
    if reason is not None and not _is_text(reason):
        raise InvalidForm(
            f"data.reason in body: should be a line of up to {REASON_LENGTH} characters"
        )
    return until, reason


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= REASON_LENGTH and value == printable(value)


def _log(request: Request, hold: Hold | None) -> None:
    uri, by = request.context.uri, request.prefixed_userid
    if hold is None:
        logger.info("%s has ended the hold of the file of %s", by, uri)
    else:
        until = "open-ended" if hold.is_open else hold.until
        logger.info("%s holds the file of %s: until %s: %s", by, uri, until, hold.reason)
