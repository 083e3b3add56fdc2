"""Deletions while clients upload to what is deleted: no request fails with a deadlock."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import invariants, live, waiting
from tests.support.sampling import one_in
from tests.support.services import PostgreSQL

ROUNDS = 12 // one_in(6)
UPLOADERS = 4


@pytest.fixture(scope="module")
def server(
    postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Server]:
    files = str(tmp_path_factory.mktemp("files"))
    storage = {"base_path": files, "resources.kept.keep_old_files": "true"}
    database = postgresql.create_database()
    with live.kinto(storage, database=database, threads=8) as server:
        yield server


@pytest.fixture(scope="module")
def registry(server: live.Server) -> Iterator[Any]:
    with invariants.inside(server) as registry:
        yield registry


@pytest.mark.parametrize(
    ("bucket", "victim"),
    [
        ("/buckets/collection", "/collections/c"),
        ("/buckets/kept", "/collections/c"),
        ("/buckets/bucket", ""),
        ("/buckets/records", "/collections/c/records"),
    ],
)
def test_deletions_meet_uploads(
    server: live.Server, registry: Any, bucket: str, victim: str
) -> None:
    collection = f"{bucket}/collections/c"
    answers: Counter[tuple[str, int]] = Counter()
    done = threading.Event()

    def upload(number: int) -> None:
        with live.Client(server) as client:
            count = 0
            while not done.is_set():
                uri = f"{collection}/records/r{number}-{count % 3}"
                status, _, answer = client.attach(uri, f"{number}-{count}".encode())
                if status == 409:  # The record was written, but its collection was deleted.
                    assert "collection was deleted" in answer["message"], answer
                    status = 404
                answers["upload", status] += 1
                count += 1

    uploaders = [threading.Thread(target=upload, args=(n,)) for n in range(UPLOADERS)]
    with live.Client(server) as client:
        for uri in (bucket, collection):
            client.put(uri)
        for uploader in uploaders:
            uploader.start()
        try:
            for _ in range(ROUNDS):
                before = answers["upload", 200]
                # A status of 200 means a replacement.
                waiting.until(lambda before=before: answers["upload", 200] >= before + 5)
                status, _, _ = client.request("DELETE", bucket + victim)
                answers["delete", status] += 1
                for uri in (bucket, collection):
                    client.put(uri)
        finally:
            done.set()
            waiting.join(*uploaders)
    assert answers["delete", 200] == ROUNDS, answers
    refused = {status for what, status in answers if what == "upload"} - {200, 201, 404, 403}
    assert not refused, answers
    invariants.check(registry, str(answers), collecting=True)
