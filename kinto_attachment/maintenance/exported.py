"""The layout of an export: a folder or a ZIP with these paths.

``collection.json`` has a collection and its bucket, ``records.jsonl`` a line of JSON for each
record, and ``files/{sha256}`` the bytes of each file. An export of several collections has a
folder ``{bucket}/{collection}/`` with these files for each, and ``export.json``, which lists them.
The file that lists the others is written last. An export without it is incomplete.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from kinto_attachment.uris import CollectionURI

FORMAT = "kinto-attachment-export/1"
SITE, COLLECTION, RECORDS, FILES = "export.json", "collection.json", "records.jsonl", "files"
# Writing and reading a ZIP takes a kilobyte of memory for each file.
MAX_FILES_IN_ZIP = 100_000


def is_zip(path: str) -> bool:
    """Whether an export is a ZIP, judging by its name."""
    return path.lower().endswith(".zip")


def folder_of(collection: CollectionURI) -> str:
    """The folder of a collection in an export of several. Some generators make ids with dots."""
    return f"{_segment(collection.bucket_id)}/{_segment(collection.collection_id)}/"


def file_path(folder: str, digest: str) -> str:
    return f"{folder}{FILES}/{digest}"


def dump(value: Any) -> bytes:
    """A JSON value in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _segment(object_id: str) -> str:
    return quote(object_id, safe="").replace(".", "%2E")
