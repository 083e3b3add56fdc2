"""Direct uploads to an application under test, and the requests of clients to their URLs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests

from tests.support.application import ALICE, CONTENT, RECORD, Headers

MIB = 1024 * 1024


def create(
    app: Any,
    size: int | None = None,
    record: str = RECORD,
    headers: Headers = ALICE,
    status: Any = 201,
    attachment: dict[str, Any] | None = None,
    **members: Any,
) -> Any:
    """Request an upload; ``attachment`` has members of the file besides name and size."""
    size = len(CONTENT) if size is None else size
    file = {"filename": "notes.txt", "size": size, **(attachment or {})}
    url = f"{record}/attachment/uploads"
    return app.post_json(url, {"attachment": file, **members}, headers=headers, status=status)


def begin(app: Any, size: int | None = None, record: str = RECORD, **options: Any) -> Any:
    """A new upload: its JSON, and its ``path``."""
    answer = create(app, size, record, **options)
    return {**answer.json["data"], "path": answer.headers["Location"]}


def send(part: dict[str, Any], content: bytes, **options: Any) -> requests.Response:
    """Send bytes to a part's URL at the storage, as a page in a browser does."""
    headers = {**part["headers"], **options.pop("headers", {})}
    with requests.Session() as session:
        session.trust_env = False
        url = options.pop("url", part["url"])
        return session.put(url, data=content, headers=headers, timeout=90, **options)


def send_all(upload: dict[str, Any], content: bytes) -> None:
    for part in upload["parts"]:
        answer = send(part, content[part["offset"] : part["offset"] + part["size"]])
        assert answer.status_code == 200, answer.text


def put_own(
    app: Any, upload: dict[str, Any], content: bytes, status: Any = None, **headers: str
) -> Any:
    """Send the file to the server's own URL, without credentials."""
    (part,) = upload["parts"]
    return app.put(path_of(part["url"]), content, headers=headers, status=status)


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def complete(
    app: Any, upload: dict[str, Any], headers: Headers = ALICE, status: Any = None
) -> Any:
    return app.post(f"{upload['path']}/complete", headers=headers, status=status)


def state(app: Any, upload: dict[str, Any], headers: Headers = ALICE, status: Any = 200) -> Any:
    return app.get(upload["path"], headers=headers, status=status).json.get("data")
