"""Two workers with shared storage, to test uploads in several requests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import live
from tests.support.services import S3, GoogleEmulator, PostgreSQL

MIB = 1024 * 1024
BUCKET, COLLECTION = "/buckets/b", "/buckets/b/collections/c"
# The parameters of fixtures that call two_workers.
STORAGES = [
    "local",
    pytest.param("seaweedfs", marks=pytest.mark.seaweedfs),
    pytest.param("gcs", marks=pytest.mark.gcs),
]


@contextmanager
def two_workers(request: pytest.FixtureRequest) -> Iterator[live.Server]:
    """A server on PostgreSQL and the storage that ``request.param`` names, with a collection."""
    postgresql: PostgreSQL = request.getfixturevalue("postgresql")
    folders: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    options: dict[str, Any] = {"base_path": str(folders.mktemp("files"))}
    environ = {}
    if request.param == "seaweedfs":
        seaweedfs: S3 = request.getfixturevalue("seaweedfs")
        options = {**seaweedfs.options(seaweedfs.create_bucket()), "downloads": "proxy"}
    elif request.param == "gcs":
        gcs: GoogleEmulator = request.getfixturevalue("gcs")
        options = {**gcs.options(gcs.create_bucket()), "downloads": "proxy"}
        environ = {"STORAGE_EMULATOR_HOST": gcs.url}
    database = postgresql.create_database()
    try:
        with live.kinto(
            options, workers=2, database=database, environ=environ, preload=True
        ) as server:
            with live.Client(server) as alice:
                alice.put(BUCKET)
                alice.put(COLLECTION)
            yield server
    finally:
        postgresql.drop_database(database)


def write_film(path: Path, size: int) -> Path:
    """Write a file of whole MiB, each of which is different."""
    block = hashlib.shake_256(b"film").digest(MIB)
    with path.open("wb") as file:
        for number in range(size // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])
    return path
