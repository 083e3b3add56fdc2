"""Hostile requests over real sockets, on gunicorn and on waitress.

Each is answered with one of the statuses that its row names, never with a 5xx or a traceback.
Alice's file does not change, and the server continues to work.
"""

from __future__ import annotations

import json
import socket
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import live
from tests.support.application import BUCKET, COLLECTION, CONTENT, Part, form

RECORD = f"{COLLECTION}/records/r"
BOBS = "/buckets/bob/collections/c/records/r"
UPLOAD = f"PUT /v1{BOBS}/attachment?filename=a.txt"
JSON = ("Content-Type: application/json",)
BIDI = "\u202e"


def credentials(user: str) -> str:
    return "Authorization: Basic " + b64encode(f"{user}:secret".encode()).decode()


@pytest.fixture(scope="module", params=["gunicorn", "waitress"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Server]:
    folder: Path = tmp_path_factory.mktemp("files")
    storage = {"base_path": str(folder), "extensions": "default"}
    with live.kinto(storage, engine=request.param, threads=8) as server:
        with live.Client(server) as alice:
            for uri in (BUCKET, COLLECTION):
                assert alice.put(uri) == 201
            assert alice.attach(RECORD, CONTENT, "notes.txt")[0] == 201
        for uri in ("/buckets/bob", "/buckets/bob/collections/c"):
            body = b'{"data": {}}'
            line = f"PUT /v1{uri}"
            assert send(server, line, body, credentials("bob"), *JSON)[0] == 201
        yield server


def send(
    server: live.Server,
    line: str,
    body: bytes = b"",
    *headers: str,
    host: str | None = "localhost",
) -> tuple[int, bytes]:
    """The status and the rest of the answer to one request on its own connection."""
    lines = [f"{line} HTTP/1.1", *([] if host is None else [f"Host: {host}"]), *headers]
    if not any(header.lower().startswith("transfer-encoding") for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    lines += ["Connection: close", "", ""]
    with socket.create_connection(server.address, timeout=90) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), content


def batch(part: dict[str, Any]) -> bytes:
    return json.dumps({"requests": [part]}).encode()


def bobs_form(*parts: Part) -> tuple[str, bytes, str]:
    body, content_type = form(*parts)
    return f"POST /v1{BOBS}/attachment", body, f"Content-Type: {content_type}"


KEY = "00000000-0000-4000-8000-000000000000.txt"
HOSTS = ["x/v1/attachments/KEY?", "evil.example#", "evil.example?", "[::1", "a b", "user@evil"]
# Name: request line, body, headers, host, expected statuses. KEY stands for alice's key.
ATTACKS: dict[str, tuple[str, bytes, tuple[str, ...], str, set[int]]] = {
    **{f"host {host}": (UPLOAD, b"bob", (), host, {400}) for host in HOSTS},
    **{
        f"batch from {host}": (
            "POST /v1/batch",
            batch(
                {
                    "method": "PUT",
                    "path": f"/v1{BOBS}/attachment?filename=a.json",
                    "headers": {"Host": "good.example"},
                    "body": {"a": 1},
                }
            ),
            JSON,
            host,
            {200, 400},
        )
        for host in HOSTS
    },
    "a stranger's key": ("GET /v1/attachments/KEY", b"", (), "localhost", {404}),
    "an unknown key": (f"GET /v1/attachments/{KEY}", b"", (), "localhost", {404}),
    "a key with dots": ("GET /v1/attachments/../../etc/passwd", b"", (), "localhost", {400, 404}),
    "a key with escapes": ("GET /v1/attachments/%2e%2e/%2e%2e/x", b"", (), "localhost", {404}),
    "a stranger's record": (f"PUT /v1{RECORD}/attachment?filename=a.txt", b"bob", (), "l", {403}),
    "deleting a stranger's file": (f"DELETE /v1{RECORD}/attachment", b"", (), "l", {403}),
    "forged metadata": (
        f"PUT /v1{BOBS}",
        b'{"data": {"attachment": {"location": "http://localhost/v1/attachments/KEY"}}}',
        JSON,
        "localhost",
        {400},
    ),
    "a name of directions": (
        *bobs_form(Part("attachment", b"x", f"a{BIDI}txt.exe"))[:2],
        (),
        "l",
        {400},
    ),
    "an endless name": (f"{UPLOAD}{'x' * 5000}", b"x", (), "localhost", {400, 414}),
    "a precondition of many digits": (
        UPLOAD,
        b"x",
        (f'If-None-Match: "{"9" * 5000}"',),
        "l",
        {400},
    ),
    "a length that is none": (UPLOAD, b"", ("Content-Length: x",), "localhost", {400}),
    "two lengths": (UPLOAD, b"abc", ("Content-Length: 1", "Content-Length: 3"), "l", {400}),
    "a chunk that is none": (
        UPLOAD,
        b"zz\r\nabc\r\n0\r\n\r\n",
        ("Transfer-Encoding: chunked",),
        "l",
        {400},
    ),
    "nested JSON": (
        *bobs_form(Part("data", "[" * 9000), Part("attachment", b"x", "a.txt"))[:2],
        (),
        "localhost",
        {400},
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_is_refused_and_changes_nothing(server: live.Server, name: str) -> None:
    with live.Client(server) as alice:
        record = alice.request("GET", RECORD)[2]["data"]
    key = record["attachment"]["location"].rsplit("/", 1)[1]
    line, body, headers, host, expected = ATTACKS[name]
    if line.startswith("POST") and b"form-data" in body:
        content_type = form()[1]
        headers = (*headers, f"Content-Type: {content_type}")
    status, answer = send(
        server,
        line.replace("KEY", key),
        body.replace(b"KEY", key.encode()),
        credentials("bob"),
        *headers,
        host=host.replace("KEY", key),
    )
    assert status in expected, answer
    if line.endswith("/batch") and status == 200:
        assert [part["status"] for part in json.loads(answer)["responses"]] == [400]
    assert b"Traceback" not in answer
    assert CONTENT not in answer
    with live.Client(server) as alice:
        assert alice.request("GET", RECORD)[2]["data"] == record
        assert alice.request("GET", f"{RECORD}/attachment")[2] == CONTENT
    with live.Client(server) as bob:
        assert bob.request("GET", "/__heartbeat__")[0] == 200
