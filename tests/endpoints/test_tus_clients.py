"""Popular clients of tus upload large files while connections and workers fail.

``tuspy`` sends chunks, ``tus-js-client`` the whole file in one request. Half-way, either the
connection breaks or the worker is killed; another worker continues.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.endpoints.test_clients import run_javascript
from tests.support import live, sampling
from tests.support.application import ALICE
from tests.support.faults import FaultProxy
from tests.support.interruptions import broken_half_way
from tests.support.resuming import COLLECTION, MIB, STORAGES, two_workers, write_film

# The full size only in make tests-all; in any case, several parts on S3 and checkpoints.
SIZE = (200 if sampling.every_case() else 40) * MIB
CHUNK = 8 * MIB
# ``make tests`` tries each case on one of the storages.
pytestmark = sampling.one_value("server")
PREFERRED = {"name": "Füm.bin", "type": "video/mp4"}


@pytest.fixture(scope="module", params=STORAGES)
def server(request: pytest.FixtureRequest) -> Iterator[live.Server]:
    with two_workers(request) as found:
        yield found


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.bin", SIZE)


def is_there(server: live.Server, record: str, film: Path) -> None:
    url = f"{server.url}{COLLECTION}/records/{record}"
    record = requests.get(url, headers=ALICE, timeout=90).json()["data"]
    sha256 = hashlib.sha256(film.read_bytes()).hexdigest()
    assert record["title"] == "Füm"
    assert record["attachment"]["hash"] == sha256
    assert record["attachment"]["size"] == SIZE
    assert record["attachment"]["filename"] == PREFERRED["name"]
    assert record["attachment"]["mimetype"] == PREFERRED["type"]
    with requests.get(f"{url}/attachment", headers=ALICE, stream=True, timeout=60) as answer:
        stored = hashlib.sha256()
        for block in answer.iter_content(MIB):
            stored.update(block)
    assert stored.hexdigest() == sha256


def tuspy(url: str) -> Any:
    # Every process that runs tests imports this file, but only one needs this package.
    from tusclient.client import TusClient

    return TusClient(url, ALICE)


METADATA = {
    "filename": PREFERRED["name"],
    "filetype": PREFERRED["type"],
    "data": json.dumps({"title": "Füm"}),
}


@pytest.mark.parametrize("how", ["connection", "worker"])
def test_tuspy(server: live.Server, film: Path, how: str) -> None:
    record = f"tuspy-{how}"
    with broken_half_way(server, how, SIZE) as proxy, film.open("rb") as file:
        url = f"{proxy.url}/v1{COLLECTION}/records/{record}/attachment/uploads"
        uploader = tuspy(url).uploader(
            file_stream=file, chunk_size=CHUNK, metadata=METADATA, retries=20, retry_delay=0.1
        )
        uploader.upload()
    assert uploader.offset == SIZE
    is_there(server, record, film)


@pytest.mark.parametrize("how", ["connection", "worker"])
@pytest.mark.parametrize("chunk", [None, CHUNK], ids=["whole", "chunks"])
def test_tus_js_client(server: live.Server, film: Path, how: str, chunk: int | None) -> None:
    record = f"js-{how}-{'whole' if chunk is None else 'chunks'}"
    with broken_half_way(server, how, SIZE) as proxy:
        result = run_javascript(
            {
                "endpoint": f"{proxy.url}/v1{COLLECTION}/records/{record}/attachment/uploads",
                "headers": ALICE,
                "path": str(film),
                "metadata": METADATA,
                "chunkSize": chunk,
                "pauses": [100] * 20,
            },
            "tus_upload.cjs",
        )
    assert result["requests"][0] == "POST"
    assert result["requests"].count("POST") == 1, "it did not begin again"
    assert "HEAD" in result["requests"]
    is_there(server, record, film)


@pytest.mark.parametrize("library", ["tuspy", "tus-js-client"])
def test_a_lost_last_answer_uploads_nothing_again(
    server: live.Server, tmp_path: Path, library: str
) -> None:
    record = f"lost-{library}"
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * 1000)
    with FaultProxy(server.address) as proxy:
        url = f"{proxy.url}/v1{COLLECTION}/records/{record}/attachment/uploads"
        # The answer to the creation arrives, but not the one to the bytes.
        answer = len(created_answer(server))
        proxy.cut(received=answer + 20, once=True)
        if library == "tuspy":
            with path.open("rb") as file:
                tuspy(url).uploader(
                    file_stream=file, metadata=METADATA, retries=5, retry_delay=0.1
                ).upload()
        else:
            result = run_javascript(
                {
                    "endpoint": url,
                    "headers": ALICE,
                    "path": str(path),
                    "metadata": METADATA,
                    "chunkSize": None,
                    "pauses": [50] * 5,
                },
                "tus_upload.cjs",
            )
            assert result["requests"] == ["POST", "PATCH", "HEAD"]
        assert proxy.broken.is_set()
    url = f"{server.url}{COLLECTION}/records/{record}"
    data = requests.get(url, headers=ALICE, timeout=90).json()["data"]
    assert data["attachment"]["size"] == 1000


def created_answer(server: live.Server) -> bytes:
    """The bytes of an answer to a creation, whose length only varies with cookies."""
    with live.Client(server) as client:
        status, headers, _ = client.request(
            "POST",
            f"{COLLECTION}/records/measure/attachment/uploads",
            headers={
                "Tus-Resumable": "1.0.0",
                "Upload-Length": "1000",
                "Upload-Metadata": "filename YQ==",
            },
        )
    assert status == 201, headers
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(["HTTP/1.1 201 Created", *lines, "", ""]).encode()
