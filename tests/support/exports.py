"""Forged exports, as folders and ZIPs, to test imports with."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from tests.support.application import sha256

FORMAT = "kinto-attachment-export/1"
TIMESTAMP = 1_700_000_000_000


def attachment(content: bytes, filename: str = "notes.txt", **more: Any) -> dict[str, Any]:
    described = {"filename": filename, "hash": sha256(content), "mimetype": "text/plain"}
    return {**described, "size": len(content), **more}


def line(
    record_id: str, content: bytes | None = None, filename: str = "notes.txt", **data: Any
) -> tuple[dict[str, Any], bytes | None]:
    """A record, and the content of its file if it has one."""
    record: dict[str, Any] = {"id": record_id, "last_modified": TIMESTAMP, **data}
    if content is not None:
        record = {"attachment": attachment(content, filename), **record}
    return {"data": record}, content


def head(records: int, **more: Any) -> dict[str, Any]:
    """``collection.json`` of the collection ``c`` in the bucket ``b``."""
    return {
        "format": FORMAT,
        "bucket": {"data": {"id": "b", "last_modified": TIMESTAMP}},
        "collection": {"data": {"id": "c", "last_modified": TIMESTAMP}},
        "has_permissions": False,
        "records": records,
        **more,
    }


def write(folder: Path, *lines: tuple[dict[str, Any], bytes | None], **more: Any) -> None:
    """An export of these records."""
    (folder / "files").mkdir(parents=True)
    for _, content in lines:
        if content is not None:
            (folder / "files" / sha256(content)).write_bytes(content)
    text = "".join(json.dumps(record) + "\n" for record, _ in lines)
    (folder / "records.jsonl").write_text(text)
    (folder / "collection.json").write_text(json.dumps(head(len(lines), **more)))


def packed(folder: Path, archive: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """Pack an export into a ZIP."""
    with zipfile.ZipFile(archive, "w", compression) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, str(path.relative_to(folder)))
    return archive
