"""Finding the records of earlier uploads of files, by id or by filename."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.names import printable

FIELDS = "attachment,original,path"
# The attributes that may have the filename: as sent, or before client or server compressed it.
NAMES = ("attachment.filename", "original.filename", "attachment.original.filename")
MAX_QUERY = 2000  # Characters of a list in a URL; servers take URLs of 4,000 and more.

Found = Mapping[str, Any]


def record_id(name: str) -> str:
    """The id of the record for a file of this name: its MD5, as a UUID."""
    digest = hashlib.md5(os.fsencode(name), usedforsecurity=False)
    return str(uuid.UUID(digest.hexdigest()))


def sent_name(name: str) -> str:
    """The filename as the server stores it: without folders and control characters."""
    return re.split(r"[/\\]", printable(name))[-1].strip()


def by_id(client: AttachmentClient, ids: Iterable[str]) -> dict[str, Found]:
    """The records that exist, by their ids, requested in batches."""
    found: dict[str, Found] = {}
    for group in _groups(ids, len):
        for record in client.records(in_id=group, _fields=FIELDS):
            found[record["id"]] = record
    return found


def by_name(client: AttachmentClient, names: Iterable[str]) -> dict[str, Found]:
    """For each filename, the record whose attachment has it; the last changed, if several.

    Records of files in folders, which ``upload -r`` makes, belong to their paths only.
    """
    by_text = {json.dumps(name, ensure_ascii=False): name for name in names}
    # Kinto splits lists at all commas, also at those in quotes.
    single = [text for text in by_text if "," in text]
    lists = list(_groups((text for text in by_text if "," not in text), _quoted_length))
    found: dict[str, Found] = {}
    for field in NAMES:
        queries = [{f"in_{field}": group} for group in lists] + [{field: text} for text in single]
        for query in queries:
            for record in client.records(**query, _fields=FIELDS):
                name = _value(record, field)
                if json.dumps(name, ensure_ascii=False) in by_text and not record.get("path"):
                    found.setdefault(name, record)
    return found


def _value(record: Found, field: str) -> Any:
    value: Any = record
    for part in field.split("."):
        value = value[part]
    return value


def _quoted_length(text: str) -> int:
    return 3 * len(text.encode("utf-8", "replace"))


def _groups(texts: Iterable[str], length: Callable[[str], int]) -> Iterator[list[str]]:
    group: list[str] = []
    room = MAX_QUERY
    for text in texts:
        room -= length(text) + 3
        if group and room < 0:
            yield group
            group, room = [], MAX_QUERY - length(text) - 3
        group.append(text)
    if group:
        yield group
