"""Requests of tus 1.0.0 to an application under test."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from tests.support.application import ALICE, RECORD, Headers

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}


def metadata(**values: str) -> str:
    return ",".join(f"{name} {b64encode(v.encode()).decode()}" for name, v in values.items())


def create(
    app: Any,
    length: int | None,
    record: str = RECORD,
    headers: Headers = ALICE,
    content: bytes = b"",
    status: Any = None,
    **named: str,
) -> Any:
    """Create an upload; ``named`` is its metadata."""
    told = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    told["Upload-Metadata"] = metadata(**{"filename": "notes.txt", **named})
    if content:
        told |= BYTES
    url = f"{record}/attachment/uploads"
    return app.post(url, content, headers={**TUS, **told, **headers}, status=status)


def begin(app: Any, length: int | None, record: str = RECORD, **options: Any) -> str:
    """The URL of a new upload."""
    url: str = create(app, length, record, status=201, **options).headers["Location"]
    return url


def append(
    app: Any, url: str, offset: int, content: bytes, headers: Headers = ALICE, status: Any = None
) -> Any:
    told = {**TUS, **BYTES, "Upload-Offset": str(offset)}
    return app.patch(url, content, headers={**told, **headers}, status=status)


def head(app: Any, url: str, headers: Headers = ALICE, status: Any = None) -> Any:
    return app.head(url, headers={**TUS, **headers}, status=status)


def offset(app: Any, url: str, headers: Headers = ALICE) -> int:
    return int(head(app, url, headers, status=200).headers["Upload-Offset"])


def state(app: Any, url: str, headers: Headers = ALICE) -> Any:
    """The upload's description of itself, in JSON."""
    return app.get(url, headers=headers, status=200).json["data"]
