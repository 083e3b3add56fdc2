"""Many clients at once: two workers of eight threads, on PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.http.streams import CHUNK_SIZE
from tests.support import invariants, live, waiting
from tests.support.application import ALICE, Part, form, sha256
from tests.support.live import Client
from tests.support.sampling import one_in
from tests.support.services import PostgreSQL
from tests.support.tus import BYTES, TUS, metadata

CLIENTS = 16
UPLOADS = 20 // one_in(10)  # Per client.
SLOW = 20 // one_in(2)  # Many more than there are database connections.
REPLACEMENTS = 6 // one_in(3)

SETTINGS = {
    "resources.b.named.randomize": "false",
    # Causes counters to be updated, which are compared with the sums.
    "quota_bytes": "1G",
    "resources.b.c.quota_files": "1000000",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def server(postgresql: PostgreSQL, files: Path) -> Iterator[live.Server]:
    database = postgresql.create_database()
    with live.kinto(
        {"base_path": str(files), **SETTINGS},
        workers=2,
        threads=8,
        preload=True,
        database=database,
        settings={"kinto.storage_pool_size": "8"},
    ) as server:
        with Client(server) as client:
            for path in ("", "/collections/c", "/collections/named"):
                assert client.put(f"/buckets/b{path}") == 201
        yield server
    postgresql.drop_database(database)


@pytest.fixture(scope="module")
def registry(server: live.Server) -> Iterator[Any]:
    with invariants.inside(server) as registry:
        yield registry


def all_at_once(server: live.Server, work: Callable[[int, Client], Any]) -> list[Any]:
    """Let each of the clients do something, starting together."""
    barrier = threading.Barrier(CLIENTS, timeout=waiting.SECONDS)

    def run(number: int) -> Any:
        with Client(server) as client:
            barrier.wait()
            return work(number, client)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(run, range(CLIENTS)))


def check(registry: Any) -> None:
    present = invariants.Present.read(registry)
    assert not invariants.lost(registry, present)
    assert not invariants.left(registry, present)


@pytest.mark.parametrize(
    "collection",
    [
        "/buckets/b/collections/c",
        "/buckets/b/collections/named",
        "/buckets/default/collections/new",
    ],
    ids=["random names", "one name", "default bucket"],
)
def test_uploads_to_one_collection_all_succeed(
    server: live.Server, registry: Any, collection: str
) -> None:
    def upload(number: int, client: Client) -> list[int]:
        return [
            client.attach(f"{collection}/records/r{number}-{turn}", os.urandom(1000))[0]
            for turn in range(UPLOADS)
        ]

    statuses = Counter([*chain.from_iterable(all_at_once(server, upload))])
    assert statuses == {201: CLIENTS * UPLOADS}, f"{statuses}\n{server.log()[-3000:]}"
    check(registry)


def test_of_uploads_to_one_record_one_file_remains(server: live.Server, registry: Any) -> None:
    record = "/buckets/b/collections/c/records/one"

    def upload(number: int, client: Client) -> list[tuple[int, str]]:
        contents = [f"{number} {turn}".encode() * 100 for turn in range(REPLACEMENTS)]
        return [(client.attach(record, content)[0], sha256(content)) for content in contents]

    answers = [*chain.from_iterable(all_at_once(server, upload))]
    assert Counter(status for status, _ in answers) == {201: 1, 200: CLIENTS * REPLACEMENTS - 1}
    last = invariants.records(registry)[record]["attachment"]
    assert last["hash"] in [hashed for _, hashed in answers]
    check(registry)


def test_with_one_etag_one_upload_wins(server: live.Server, registry: Any) -> None:
    record = "/buckets/b/collections/c/records/matched"
    with Client(server) as client:
        assert client.attach(record, b"first")[0] == 201
        for turn in range(REPLACEMENTS):
            etag = client.request("GET", record)[1]["ETag"]

            def upload(number: int, client: Client, turn: int = turn, etag: str = etag) -> int:
                content = f"{turn} {number}".encode()
                return client.attach(record, content, **{"If-Match": etag})[0]

            assert Counter(all_at_once(server, upload)) == {200: 1, 412: CLIENTS - 1}
            check(registry)


def test_of_uploads_that_shall_create_a_record_one_wins(
    server: live.Server, registry: Any
) -> None:
    record = "/buckets/b/collections/c/records/fresh"

    def upload(number: int, client: Client) -> int:
        return client.attach(record, str(number).encode(), **{"If-None-Match": "*"})[0]

    assert Counter(all_at_once(server, upload)) == {201: 1, 412: CLIENTS - 1}
    check(registry)


def test_changes_of_all_kinds_lose_and_leave_nothing(server: live.Server, registry: Any) -> None:
    records = [f"/buckets/b/collections/c/records/mixed{number}" for number in range(4)]

    def work(number: int, client: Client) -> list[int]:
        statuses = []
        for turn in range(12 // one_in(2)):
            record = records[(number + turn) % len(records)]
            act = (number * 5 + turn) % 6
            if act < 3:
                status = client.attach(record, os.urandom(100))[0]
            elif act == 3:
                status = client.request("DELETE", f"{record}/attachment")[0]
            elif act == 4:
                status = client.put(record, {"turn": turn})
            else:
                status = client.request("DELETE", record)[0]
            statuses.append(status)
        return statuses

    statuses = Counter([*chain.from_iterable(all_at_once(server, work))])
    # Plain writes may be told to retry. In Kinto, an update and a deletion of one record can wait
    # for each other, for the record and its permissions: then PostgreSQL ends one of them.
    assert set(statuses) <= {200, 201, 204, 404, 409, 503}
    check(registry)


PLAIN = "/buckets/b/collections/c/records/plain"


@pytest.fixture(scope="module")
def frugal_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frugal")


@pytest.fixture(scope="module")
def frugal(postgresql: PostgreSQL, frugal_files: Path) -> Iterator[live.Server]:
    """A server with many threads and two database connections."""
    database = postgresql.create_database()
    settings = {"kinto.storage_pool_size": "2", "kinto.storage_max_overflow": "0"}
    with (
        live.kinto(
            {"base_path": str(frugal_files)},
            threads=32,
            database=database,
            settings=settings,
        ) as server,
        Client(server) as client,
    ):
        for path in ("/buckets/b", "/buckets/b/collections/c", PLAIN):
            assert client.put(path) == 201
        yield server
    postgresql.drop_database(database)


def check_reads(server: live.Server) -> None:
    """Without a free connection, a request is refused once SQLAlchemy has waited 30 s."""
    with Client(server) as client:
        for _ in range(10):
            assert client.request("GET", PLAIN)[0] == 200


def test_slow_uploads_hold_no_database_connection(frugal: live.Server, frugal_files: Path) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(SLOW) as pool:
        uploads = [pool.submit(upload_slowly, frugal, number, stop) for number in range(SLOW)]
        try:
            waiting.until(lambda: len(list(frugal_files.glob(".unfinished/*"))) == SLOW)
            check_reads(frugal)
        finally:
            stop.set()
        assert [upload.result(waiting.SECONDS) for upload in uploads] == [201] * SLOW


def test_slow_parts_hold_no_database_connection(frugal: live.Server, frugal_files: Path) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(SLOW) as pool:
        uploads = [pool.submit(send_part_slowly, frugal, number, stop) for number in range(SLOW)]
        try:
            waiting.until(lambda: len(list(frugal_files.glob(".unfinished/*"))) == SLOW)
            check_reads(frugal)
        finally:
            stop.set()
        assert [upload.result(waiting.SECONDS) for upload in uploads] == [204] * SLOW


def send_part_slowly(server: live.Server, number: int, stop: threading.Event) -> int:
    """Begin an upload by tus, and append to it as :func:`upload_slowly` does."""
    record = f"/buckets/b/collections/c/records/parts{number}"
    told = {**TUS, "Upload-Defer-Length": "1", "Upload-Metadata": metadata(filename="a.bin")}

    def pieces() -> Iterator[bytes]:
        while not stop.wait(0.5):
            yield bytes(1024)

    with Client(server) as client:
        _, headers, _ = client.request("POST", f"{record}/attachment/uploads", None, told)
        path = headers["Location"].partition("/v1")[2]
        sent = {**TUS, **BYTES, "Upload-Offset": "0", "Transfer-Encoding": "chunked"}
        return client.request("PATCH", path, pieces(), sent)[0]


def upload_slowly(server: live.Server, number: int, stop: threading.Event) -> int:
    """Send 2 KiB/s until the event, then the rest. The numbers cover every way to upload."""
    bucket = ("b", "default")[number % 2]
    record = f"/buckets/{bucket}/collections/c/records/slow{number}/attachment"
    head, tail, method, headers = b"", b"", "PUT", {"Transfer-Encoding": "chunked"}
    if number % 4 < 2:
        body, headers["Content-Type"] = form(Part("attachment", b"?", "a.bin"))
        method, (head, tail) = "POST", body.split(b"?")

    def pieces() -> Iterator[bytes]:
        # Forms are parsed in pieces of this size: after one, the test sees the file.
        yield head + bytes(CHUNK_SIZE)
        while not stop.wait(0.5):
            yield bytes(1024)
        yield tail

    with Client(server) as client:
        path = f"{record}?filename=a.bin"
        return client.request(method, path, filter(None, pieces()), headers)[0]


def test_slow_downloads_hold_no_database_connection(frugal: live.Server) -> None:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(frugal))
        # More than the buffers of sockets hold.
        assert client.attach("/buckets/b/collections/c/records/big", bytes(16 * 1024**2))[0] == 201
        for _ in range(SLOW):
            slow = stack.enter_context(Client(frugal)).connection
            slow.request(
                "GET", "/v1/buckets/b/collections/c/records/big/attachment", headers=ALICE
            )
            assert slow.getresponse().read(1024) == bytes(1024)
        check_reads(frugal)
