"""Quotas that many clients reach at once: two workers of eight threads, on PostgreSQL."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import pytest
import transaction

from kinto_attachment.index.usage_slots import MOST
from kinto_attachment.maintenance.counters import recount
from tests.support import invariants, live, waiting
from tests.support.live import Client
from tests.support.sampling import one_in
from tests.support.services import PostgreSQL
from tests.support.tus import BYTES, TUS, metadata
from tests.support.usage import held, miscounted

CLIENTS = 16
SIZE = 1000
ROOM = 60 // one_in(2)  # Files of that size.
TURNS = 10 // one_in(2)
SETTINGS = {
    "resources.full.quota_bytes": str(ROOM * SIZE + SIZE - 1),
    "resources.files.quota_files": str(ROOM),
    "resources.two.one.quota_bytes": str(ROOM // 2 * SIZE),
    "resources.two.quota_bytes": str(ROOM * SIZE),
    "resources.parts.quota_bytes": str(ROOM * SIZE),
    "resources.busy.quota_bytes": "1G",
    "resources.busy.c.quota_bytes": "1G",
    "resources.busy.kept.keep_old_files": "true",
}
COLLECTIONS = {
    "full": ("c", "d"),
    "files": ("c",),
    "two": ("one", "other"),
    "parts": ("c",),
    "busy": ("c", "kept"),
}


@pytest.fixture(scope="module")
def server(
    postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Server]:
    database = postgresql.create_database()
    with live.kinto(
        {"base_path": str(tmp_path_factory.mktemp("files")), **SETTINGS},
        workers=2,
        threads=8,
        preload=True,
        database=database,
        settings={"kinto.storage_pool_size": "8"},
    ) as server:
        with Client(server) as client:
            for bucket, collections in COLLECTIONS.items():
                assert client.put(f"/buckets/{bucket}") == 201
                for name in collections:
                    assert client.put(f"/buckets/{bucket}/collections/{name}") == 201
        yield server
    postgresql.drop_database(database)


@pytest.fixture(scope="module")
def registry(server: live.Server) -> Iterator[Any]:
    with invariants.inside(server) as registry:
        yield registry


def all_at_once(server: live.Server, work: Callable[[int, Client], list[int]]) -> Counter[int]:
    """The statuses that the clients get, which start together."""
    barrier = threading.Barrier(CLIENTS, timeout=waiting.SECONDS)

    def run(number: int) -> list[int]:
        with Client(server) as client:
            barrier.wait()
            return work(number, client)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return Counter(chain.from_iterable(pool.map(run, range(CLIENTS))))


def fill(client: Client, *records: str) -> list[int]:
    """Upload new files until there is no room left."""
    statuses: list[int] = []
    while statuses[-1:] != [507]:
        record = f"{records[len(statuses) % len(records)]}-{len(statuses)}"
        statuses.append(client.attach(record, b"x" * SIZE)[0])
    return statuses


def slots_of(registry: Any, scope: str) -> int:
    with transaction.manager:
        slots = registry.attachment_usage._slots._lock(scope)
        transaction.abort()
    return len(slots)


class TestAreFilledExactly:
    def test_in_bytes(self, server: live.Server, registry: Any) -> None:
        """The quota is one byte too small for another file. The counter starts as one row."""
        where = [f"/buckets/full/collections/{name}/records/" for name in "cd"]
        statuses = all_at_once(
            server, lambda number, client: fill(client, *[f"{each}r{number}" for each in where])
        )
        assert statuses == {201: ROOM, 507: CLIENTS}, f"{statuses}\n{server.log()[-3000:]}"
        assert held(registry, "/buckets/full") == (ROOM, ROOM * SIZE)
        assert 1 < slots_of(registry, "/buckets/full") <= MOST
        self.check(registry)

    def test_in_files(self, server: live.Server, registry: Any) -> None:
        record = "/buckets/files/collections/c/records/r"
        statuses = all_at_once(server, lambda number, client: fill(client, f"{record}{number}"))
        assert statuses == {201: ROOM, 507: CLIENTS}, f"{statuses}\n{server.log()[-3000:]}"
        self.check(registry)

    def test_of_bucket_and_collection(self, server: live.Server, registry: Any) -> None:
        names = ("one", "other")
        statuses = all_at_once(
            server,
            lambda number, client: fill(
                client, f"/buckets/two/collections/{names[number % 2]}/records/r{number}"
            ),
        )
        assert statuses == {201: ROOM, 507: CLIENTS}, f"{statuses}\n{server.log()[-3000:]}"
        files, _ = held(registry, "/buckets/two/collections/one")
        assert files <= ROOM // 2
        assert held(registry, "/buckets/two") == (ROOM, ROOM * SIZE)
        self.check(registry)

    def test_by_uploads_in_several_requests(self, server: live.Server, registry: Any) -> None:
        """Each is complete, or nothing of its second half was stored."""

        def work(number: int, client: Client) -> list[int]:
            statuses: list[int] = []
            while statuses[-1:] != [507]:
                record = f"/buckets/parts/collections/c/records/r{number}-{len(statuses)}"
                statuses.append(upload_in_halves(client, record))
            return statuses

        statuses = all_at_once(server, work)
        assert set(statuses) == {204, 507}, f"{statuses}\n{server.log()[-3000:]}"
        _, size = held(registry, "/buckets/parts")
        assert ROOM * SIZE - SIZE < size <= ROOM * SIZE
        self.check(registry)

    def check(self, registry: Any) -> None:
        assert not miscounted(registry)
        assert not invariants.lost(registry)


def upload_in_halves(client: Client, record: str) -> int:
    headers = {**TUS, "Upload-Length": str(SIZE), "Upload-Metadata": metadata(filename="a.bin")}
    status, answer, _ = client.request("POST", f"{record}/attachment/uploads", b"", headers)
    if status != 201:
        return status
    url = "/" + answer["Location"].partition("/v1/")[2]
    for offset in (0, SIZE // 2):
        headers = {**TUS, **BYTES, "Upload-Offset": str(offset)}
        status, _, _ = client.request("PATCH", url, b"x" * (SIZE // 2), headers)
        if status != 204:
            return status
    return status


def change(client: Client, number: int, turns: int = TURNS) -> list[int]:
    """Upload, replace, copy and delete a few records, for which all clients compete."""
    statuses = []
    for turn in range(turns):
        name = ("c", "kept")[turn % 2]
        record = f"/buckets/busy/collections/{name}/records/r{(number + turn) % 5}"
        match (number + turn) % 4:
            case 0 | 1:
                statuses.append(client.attach(record, b"x" * (number + turn))[0])
            case 2:
                source = f"/buckets/busy/collections/c/records/r{turn % 5}"
                body = json.dumps({"copy_from": source})
                headers = {"Content-Type": "application/json"}
                status = client.request("POST", f"{record}/attachment", body, headers)[0]
                statuses.append(status)
            case _:
                statuses.append(client.request("DELETE", record)[0])
    return statuses


class TestCountersAreRight:
    def test_where_there_was_none(self, server: live.Server, registry: Any) -> None:
        """As if the quota had just been set: the first request counts, and the others wait."""
        for _ in range(2):
            for scope in ("/buckets/busy", "/buckets/busy/collections/c"):
                with transaction.manager:
                    registry.attachment_usage._slots.forget(scope)
            self.run(server)
            assert not miscounted(registry)

    def test_beside_reindex(self, server: live.Server, registry: Any) -> None:
        with Client(server) as client:
            client.attach("/buckets/busy/collections/c/records/first", b"x")
        self.spoil(registry)
        assert miscounted(registry)
        done = threading.Event()

        def repair() -> int:
            count = recount(registry, lambda number: None)
            while not done.is_set():
                count += recount(registry, lambda number: None)
            return count

        with ThreadPoolExecutor(1) as thread:
            repaired = thread.submit(repair)
            try:
                self.run(server)
            finally:
                done.set()
            assert repaired.result(waiting.SECONDS) == 1, "what was right stays so"
        assert not miscounted(registry)

    def run(self, server: live.Server) -> None:
        statuses = all_at_once(server, lambda number, client: change(client, number))
        # 404: nothing to copy or delete; 409: a file was deleted while it was copied.
        assert set(statuses) <= {200, 201, 404, 409}, f"{statuses}\n{server.log()[-3000:]}"

    def spoil(self, registry: Any) -> None:
        with transaction.manager:
            slots = registry.attachment_usage._slots
            slots._execute(
                "UPDATE objects SET data = data || '{\"bytes\": 7}'"
                " WHERE parent_id = 'attachments-usage:/buckets/busy' AND id = '01'"
            )
