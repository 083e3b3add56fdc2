"""Live servers, and a client for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinto_attachment.client import AttachmentClient, Retries
from tests.support import live
from tests.support.sampling import try_in_turn
from tests.support.scripts import AUTH
from tests.support.services import S3, PostgreSQL

PRODUCTION = pytest.param("production", marks=[pytest.mark.postgresql, pytest.mark.seaweedfs])
numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)  # Before unsampled cases are deselected.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``make tests`` runs each case on one of the servers."""
    folder = Path(__file__).parent
    try_in_turn([item for item in items if item.path.parent == folder], "server")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the embedded server stores files."""
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="session")
def embedded(files: Path) -> Iterator[live.Server]:
    """Records in memory, files in a folder.

    In the bucket ``gzipped``, it compresses files; in ``encoded``, it accepts compressed ones.
    """
    settings = {
        "base_path": str(files),
        "resources.gzipped.gzipped": "true",
        "resources.encoded.content_encodings": "gzip",
        "resources.named.randomize": "false",
        "resources.small.max_size": "1000",
        "resources.limited.quota_bytes": "1000",
        "resources.keeping.keep_old_files": "true",
        # As in `make serve`.
        "resources.default.kept.keep_old_files": "true",
    }
    schemas = {"kinto.experimental_collection_schema_validation": "true"}
    with live.kinto(settings, settings=schemas) as server:
        yield server


@pytest.fixture(scope="session")
def production(postgresql: PostgreSQL, seaweedfs: S3) -> Iterator[live.Server]:
    """Records in PostgreSQL, files in SeaweedFS, to which downloads redirect; two workers."""
    database = postgresql.create_database()
    settings = {
        **seaweedfs.options(seaweedfs.create_bucket()),
        "resources.gzipped.gzipped": "true",
        "resources.encoded.content_encodings": "gzip",
        "resources.named.randomize": "false",
    }
    try:
        with live.kinto(settings, workers=2, database=database, preload=True) as server:
            yield server
    finally:
        postgresql.drop_database(database)


@pytest.fixture(params=["embedded", PRODUCTION])
def server(request: pytest.FixtureRequest) -> live.Server:
    found: live.Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def collection() -> str:
    """The name of a collection that no other test uses."""
    return f"c{next(numbers)}"


@pytest.fixture
def client(server: live.Server, collection: str) -> AttachmentClient:
    """A client that never waits long, for a collection in the default bucket."""
    return AttachmentClient(
        server.url, "default", collection, AUTH, retries=Retries(count=3, pause=0.01)
    )


@pytest.fixture
def local(embedded: live.Server, collection: str) -> AttachmentClient:
    """The same on the embedded server only, where the storage makes no difference."""
    return AttachmentClient(
        embedded.url, "default", collection, AUTH, retries=Retries(count=3, pause=0.01)
    )
