"""reindex: the links made again from the records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import transaction

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.files.locations import own_key
from kinto_attachment.index.links import Link, Links
from kinto_attachment.maintenance import records
from kinto_attachment.metadata import FIELD


@dataclass
class Rebuilt:
    """What reindex did: how many links it made; URIs of records that it could not match."""

    records: int = 0
    linked: int = 0
    foreign: list[str] = field(default_factory=list)  # Their location is none of ours.
    missing: list[str] = field(default_factory=list)  # Their file is not there.


def reindex(
    registry: Any, *, progress: Callable[[str, int], None] = lambda step, count: None
) -> Rebuilt:
    """Link every record with an attachment of ours to its file, where no link is."""
    report = Rebuilt()
    for collection in records.collections(registry):
        for page in records.with_attachment(registry, collection):
            with transaction.manager:
                for record in page:
                    _relink(registry, f"{collection}/records/{record['id']}", record, report)
            progress("records checked", report.records)
    return report


def _relink(registry: Any, uri: str, record: dict[str, Any], report: Rebuilt) -> None:
    links: Links = registry.attachment_links
    report.records += 1
    attachment = record[FIELD]
    current = [link for link in links.of_record(uri) if link.state == "current"]
    if any(link.describes(attachment) for link in current):
        return
    key = own_key(registry.attachment_settings, registry.route_prefix, attachment)
    if key is None:
        report.foreign.append(uri)
        return
    try:
        links.share(Link.to(uri, key, attachment), is_known=True)
        report.linked += 1
    except AttachmentGone:
        report.missing.append(uri)
