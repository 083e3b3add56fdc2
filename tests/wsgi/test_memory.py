"""A large file is uploaded and downloaded, and the server's memory does not grow."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import live
from tests.support.sampling import every_case

MIB = 1024 * 1024
SIZE = 144 * MIB
LIMIT = 64 * MIB  # Less than half of the file.
BLOCK = bytes(range(256)) * (MIB // 256)
ALICE = {"Authorization": "Basic " + b64encode(b"alice:secret").decode()}
NAMED, DEFAULT = "/v1/buckets/b", "/v1/buckets/default"

FORM_HEAD = (
    b"--the-boundary\r\n"
    b'Content-Disposition: form-data; name="attachment"; filename="big.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)
FORM_TAIL = b"\r\n--the-boundary--\r\n"


@pytest.fixture(scope="module")
def expected() -> str:
    digest = hashlib.sha256()
    for _ in range(SIZE // MIB):
        digest.update(BLOCK)
    return digest.hexdigest()


# The first two cover each value; the first and the last three cover each pair of values.
CASES = [
    ("gunicorn", "form", NAMED),
    ("waitress", "raw", DEFAULT),
    ("gunicorn", "raw", DEFAULT),
    ("waitress", "raw", NAMED),
    ("waitress", "form", DEFAULT),
]


@pytest.mark.parametrize(("engine", "kind", "bucket"), CASES if every_case() else CASES[:2])
def test_the_memory_does_not_depend_on_the_size(
    tmp_path: Path,
    engine: live.Engine,
    kind: str,
    bucket: str,
    expected: str,
    record_property: Any,
) -> None:
    record = f"{bucket}/collections/c/records/r"
    settings = {"base_path": str(tmp_path)}
    with live.kinto(settings, engine=engine) as server, client(server) as connection:
        for path in (NAMED, f"{NAMED}/collections/c"):
            assert ask(connection, "PUT", path)[0] == 201

        idle = live.idle_memory(server)
        status, attachment = upload(connection, record, kind, SIZE)
        uploading = live.peak_over_idle(server, idle)
        assert (status, attachment["size"], attachment["hash"]) == (201, SIZE, expected)

        idle = live.idle_memory(server)
        assert download(connection, f"{record}/attachment") == (SIZE, expected)
        downloading = live.peak_over_idle(server, idle)
    record_property("upload_mib", uploading / MIB)
    record_property("download_mib", downloading / MIB)
    print(f"{engine}, {kind}: +{uploading / MIB:.1f} MiB in, +{downloading / MIB:.1f} MiB out")
    assert uploading < LIMIT
    assert downloading < LIMIT


@contextlib.contextmanager
def client(server: live.Server) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(http.client.HTTPConnection(*server.address, timeout=120)) as client:
        yield client


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    **headers: str,
) -> tuple[int, Any]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {**ALICE, **fields})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def upload(
    connection: http.client.HTTPConnection, record: str, kind: str, size: int
) -> tuple[int, Any]:
    path = f"{record}/attachment"
    if kind == "raw":
        return ask(
            connection, "PUT", f"{path}?filename=big.bin", blocks(size), Content_Length=str(size)
        )
    length = len(FORM_HEAD) + size + len(FORM_TAIL)
    return ask(
        connection,
        "POST",
        path,
        blocks(size, FORM_HEAD, FORM_TAIL),
        Content_Length=str(length),
        Content_Type="multipart/form-data; boundary=the-boundary",
    )


def blocks(size: int, head: bytes = b"", tail: bytes = b"") -> Iterator[bytes]:
    yield head
    for _ in range(size // MIB):
        yield BLOCK
    yield tail


def download(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    """Size and SHA-256."""
    connection.request("GET", path, headers=ALICE)
    response = connection.getresponse()
    assert response.status == 200
    size, digest = 0, hashlib.sha256()
    while data := response.read(MIB):
        size += len(data)
        digest.update(data)
    return size, digest.hexdigest()
