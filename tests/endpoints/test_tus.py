"""Uploads in several requests, by tus."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from tests.support.application import ALICE, CONTENT, RECORD, attachment_of, read, sha256
from tests.support.backends import EVERYWHERE

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}


def metadata(**values: str) -> str:
    return ",".join(f"{k} {b64encode(v.encode()).decode()}" for k, v in values.items())


def create(app: Any, length: int | None, record: str = RECORD, headers: Any = ALICE, **also: Any):
    status = also.pop("status", None)
    told = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    named = {"Upload-Metadata": metadata(**{"filename": "notes.txt", **also})}
    return app.post(
        f"{record}/attachment/uploads", headers={**TUS, **told, **named, **headers}, status=status
    )


def patch(app: Any, url: str, offset: int, content: bytes, headers: Any = ALICE, **options: Any):
    told = {**TUS, **BYTES, "Upload-Offset": str(offset)}
    return app.patch(url, content, headers={**told, **headers}, **options)


def head(app: Any, url: str, headers: Any = ALICE, **options: Any):
    return app.head(url, headers={**TUS, **headers}, **options)


@EVERYWHERE
def test_a_file_arrives_in_several_requests(app: Any) -> None:
    created = create(app, len(CONTENT))
    assert created.status_code == 201
    url = created.headers["Location"]
    assert head(app, url).headers["Upload-Offset"] == "0"
    patched = patch(app, url, 0, CONTENT[:5])
    assert (patched.status_code, patched.headers["Upload-Offset"]) == (204, "5")
    assert head(app, url).headers["Upload-Offset"] == "5"
    last = patch(app, url, 5, CONTENT[5:])
    assert last.headers["Upload-Offset"] == str(len(CONTENT))
    assert attachment_of(app)["hash"] == sha256(CONTENT)
    assert read(app) == CONTENT
    assert head(app, url).headers["Upload-Offset"] == str(len(CONTENT))
