"""release-hold: ends the holds of a record's files before their date, which clients cannot."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.files.stored_records import stored_record
from kinto_attachment.index.holds import Hold, standing
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.reports import Report
from kinto_attachment.terminal import printable
from kinto_attachment.uris import RecordURI

logger = logging.getLogger(__name__)


class Released(dict[str, Any]):
    """A file and its former hold: an object in JSON, and a line for people."""

    def __str__(self) -> str:
        return f"{self['version']} {self['filename']} ({self['state']}): {self['reason']}"


@dataclass
class ReleaseReport(Report):
    """The files of the record that were held."""

    for_information: ClassVar[tuple[str, ...]] = ("released",)

    released: list[Released] = field(default_factory=list)


def release_hold(
    registry: Registry,
    record: str,
    *,
    by: str,
    reason: str,
    version: str | None = None,
    dry_run: bool = False,
) -> ReleaseReport:
    """End the holds of all files of a record, or of one ``version``, and log who and why.

    :raises CommandError: the URI is not that of a record, the record or version does not exist, or
        there is no reason.
    """
    try:
        uri = str(RecordURI.parse(record.rstrip("/")))
    except ValueError as error:
        message = "RECORD should be a URI such as /buckets/B/collections/C/records/R"
        raise CommandError(message) from error
    if not reason.strip() or not by.strip():
        raise CommandError("--reason and --by should not be empty")
    report = ReleaseReport()
    with transaction.manager:
        links = [
            link
            for link in registry.attachment_links.of_record(uri)
            if version in (None, link.version)
        ]
        # A record without files is valid, and so are the files of a deleted record.
        if not links and (version is not None or stored_record(registry, uri) is None):
            missing = "record" if version is None else f"version {version} of the record"
            raise CommandError(f"There is no {missing} {uri}")
        held = [link for link in links if standing(link, msec_time())]
    for link in held:
        hold = _release(registry, link, dry_run=dry_run)
        if hold is None:
            continue
        report.released.append(_told(link, hold))
        if not dry_run:
            _log(link, hold, by=by, reason=reason)
    return report


def _release(registry: Registry, link: Link, *, dry_run: bool) -> Hold | None:
    """End the hold of one file; returns the hold."""
    found: list[Hold | None] = []

    def released(each: Link) -> Link:
        if each.record != link.record:
            return each
        found.append(standing(each, msec_time()))
        return each if dry_run else replace(each, hold=None)

    with transaction.manager:
        registry.attachment_links.revise(link.key, released)
    return next(iter(found), None)


def _told(link: Link, hold: Hold) -> Released:
    return Released(
        record=link.record,
        version=link.version,
        filename=link.filename,
        state=link.state,
        until=None if hold.is_open else hold.until,
        date=hold.until or None,
        reason=hold.reason,
        by=hold.by,
        since=hold.since,
    )


def _log(link: Link, hold: Hold, *, by: str, reason: str) -> None:
    logger.warning(
        "release-hold: %s has ended the hold of %s (version %s), set by %s since %s (%s): %s",
        printable(by),
        link.record,
        link.version,
        hold.by,
        hold.since,
        hold.reason,
        printable(reason),
    )
