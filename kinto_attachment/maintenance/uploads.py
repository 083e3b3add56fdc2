"""uploads: lists unfinished uploads in several requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, ClassVar

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.index.session import Session
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.reports import Progress, Report, no_progress
from kinto_attachment.maintenance.selection import EVERYTHING, Selection
from kinto_attachment.uris import RecordURI


class Line(dict[str, Any]):
    """An upload: an object in JSON, and a line for people."""

    def __str__(self) -> str:
        size = "?" if self["size"] is None else f"{self['size']:,}"
        expires = datetime.fromtimestamp(self["expires_at"] / 1000, timezone.utc)
        return (
            f"{self['record']} {self['filename']}: {self['offset']:,} of {size} bytes, "
            f"{self['state']} until {expires:%Y-%m-%dT%H:%M:%SZ}, {self['protocol']}, {self['id']}"
        )


@dataclass
class UploadsReport(Report):
    """The unfinished uploads, and the number of their stored bytes."""

    for_information: ClassVar[tuple[str, ...]] = ("uploads",)

    uploads: list[Line] = field(default_factory=list)
    bytes: int = 0


def uploads(
    registry: Registry,
    selection: Selection = EVERYTHING,
    *,
    progress: Progress = no_progress,
) -> UploadsReport:
    """List the uploads of the selected buckets and collections."""
    report = UploadsReport()
    for session in _unfinished(registry):
        if selection.has_collection(RecordURI.parse(session.record)):
            report.uploads.append(_line(session))
            report.bytes += session.size
            progress("uploads", len(report.uploads))
    return report


def _unfinished(registry: Registry) -> Iterator[Session]:
    pages = registry.attachment_sessions.pages()
    while True:
        with transaction.manager:
            page = next(pages, None)
        if page is None:
            return
        now = msec_time()
        yield from (each for each in page if each.seen_at(now).is_unfinished)


def _line(session: Session) -> Line:
    return Line(
        record=session.record,
        id=session.upload,
        owner=session.owner,
        protocol=session.protocol,
        state=session.state,
        filename=session.filename,
        offset=session.size,
        size=session.length,
        created=session.created,
        expires_at=session.expires,
    )
