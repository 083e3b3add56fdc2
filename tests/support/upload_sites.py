"""Servers with uploads in several requests, and the contents of databases and storages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from tests.support import invariants, live, owned
from tests.support.faults_plugin import Faults, Kinds
from tests.support.services import PostgreSQL
from tests.support.snapshots import Snapshots
from tests.support.tus import BYTES, TUS, metadata

RECORD = "/buckets/b/collections/c/records/r"
USER = ("alice", "secret")
CONTENT = bytes(range(256)) * 64 * 1024  # 16 MiB


class Site:
    """A server, and the contents of its database and its storage."""

    def __init__(self, server: live.Server, registry: Any, faults: Faults) -> None:
        self.server, self.registry, self.faults = server, registry, faults
        self.kinds = Kinds()
        self.snapshots = Snapshots()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("http") else f"{self.server.url}{path}"
        return requests.request(method, url, auth=USER, timeout=60, **options)

    def start(self) -> None:
        self.snapshots.start(self.registry, "start", self.make)

    def make(self) -> None:
        """Create a bucket and a collection of alice, and nothing else."""
        for backend in (self.registry.storage, self.registry.permission, self.registry.cache):
            backend.flush()
        owned.own(self.registry)
        files = self.registry.attachment_storages.default.files
        files.delete(*[file.key for file in files.list()])
        for path in ("/buckets/b", "/buckets/b/collections/c"):
            assert self.request("PUT", path).ok

    def create(self, length: int = len(CONTENT)) -> str:
        told = {"Upload-Length": str(length), "Upload-Metadata": metadata(filename="a.bin")}
        answer = self.request("POST", f"{RECORD}/attachment/uploads", headers={**TUS, **told})
        assert answer.status_code == 201, answer.text
        return answer.headers["Location"]

    def offset(self, url: str) -> int:
        answer = self.request("HEAD", url, headers=TUS)
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["Upload-Offset"])

    def append(self, url: str, start: int, content: bytes) -> requests.Response:
        headers = {**TUS, **BYTES, "Upload-Offset": str(start)}
        return self.request("PATCH", url, data=content, headers=headers)

    def hash(self) -> str:
        record: dict[str, Any] = self.request("GET", RECORD).json()["data"]
        digest: str = record["attachment"]["hash"]
        return digest

    def check(self, told: str = "", *, collecting: bool = True) -> None:
        """Check that nothing is lost; cancel unfinished uploads, and check that nothing is left.

        For ``collecting`` see :func:`invariants.check`.
        """
        assert not (lost := invariants.lost(self.registry)), f"{lost} {told}"
        listing = "/buckets/b/collections/c/attachments/uploads"
        for session in self.request("GET", listing).json()["data"]:
            self.request("DELETE", f"{RECORD}/attachment/uploads/{session['id']}")
        invariants.check(self.registry, told, collecting=collecting)


@contextlib.contextmanager
def serving(
    storage: dict[str, str], postgresql: PostgreSQL, folder: Path, **settings: str
) -> Iterator[Site]:
    faults = Faults(folder)
    database = postgresql.create_database()
    with (
        live.kinto(
            # The quota makes the server update counters, which are compared with the sums.
            {**storage, "quota_bytes": "1G", **settings},
            workers=2,
            threads=4,
            preload=True,
            database=database,
            includes=["kinto.plugins.default_bucket", "tests.support.faults_plugin"],
            environ=faults.environ,
        ) as server,
        invariants.inside(server) as registry,
    ):
        yield Site(server, registry, faults)
    postgresql.drop_database(database)
