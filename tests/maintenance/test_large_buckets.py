"""A bucket of thousands of attachments is deleted in a few calls and queries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sqlalchemy
import transaction
from botocore.httpsession import URLLib3Session

from kinto_attachment.index.link import Link
from tests.support import invariants
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    attach,
    forget_database,
    make_app,
    postgresql_settings,
    put_collection,
)
from tests.support.sampling import one_in
from tests.support.services import S3, PostgreSQL

COUNT = 10_000 // one_in(8)  # A call deletes a thousand files, and a query as many links.
FILES = 20  # The others are missing, which makes no difference to the index and the storage.


@pytest.fixture
def app(postgresql: PostgreSQL, seaweedfs: S3) -> Iterator[Any]:
    url = postgresql.create_database()
    app = make_app(seaweedfs.options(seaweedfs.create_bucket()), postgresql_settings(url))
    put_collection(app)
    yield app
    forget_database(url)
    postgresql.drop_database(url)


@contextlib.contextmanager
def counting(app: Any) -> Iterator[tuple[list[str], list[str]]]:
    """The requests to the storage and the queries within the context."""
    calls: list[str] = []
    queries: list[str] = []
    send = URLLib3Session.send

    def sending(session: Any, request: Any) -> Any:
        calls.append(f"{request.method} {request.url}")
        return send(session, request)

    def query(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        queries.append(statement)

    engine = app.app.registry.storage.client.session_factory.session_factory.kw["bind"]
    sqlalchemy.event.listen(engine, "before_cursor_execute", query)
    try:
        with mock.patch.object(URLLib3Session, "send", sending):
            yield calls, queries
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", query)


def fill(app: Any) -> None:
    """Create records and links; a storage deletes missing files like existing ones."""
    for number in range(FILES):
        attach(app, f"{COLLECTION}/records/file{number}", b"content")
    storage, index = app.app.registry.storage, app.app.registry.attachment_links
    for start in range(FILES, COUNT, 1000):
        with transaction.manager:
            for number in range(start, min(start + 1000, COUNT)):
                storage.update("record", COLLECTION, f"r{number}", {"n": number})
                index.add(Link.to(f"{COLLECTION}/records/r{number}", f"{number}.txt", {}))


def test_deleting_a_bucket_asks_storage_and_database_only_a_few_times(app: Any) -> None:
    fill(app)
    with counting(app) as (calls, queries):
        app.delete(BUCKET, headers=ALICE)
    assert 0 < len(calls) <= COUNT / 1000 + 2, calls
    assert len(queries) < 50 + COUNT / 100, len(queries)
    assert not invariants.left(app.app.registry)


@pytest.mark.parametrize("uri", [BUCKET, COLLECTION])
def test_no_record_stays_without_its_file_however_many_there_are(
    postgresql: PostgreSQL, tmp_path: Path, uri: str
) -> None:
    url = postgresql.create_database()
    app = make_app(
        {"base_path": str(tmp_path)}, postgresql_settings(url), storage_max_fetch_size="4"
    )
    put_collection(app)
    for number in range(10):
        attach(app, f"{COLLECTION}/records/r{number}")
    app.delete(uri, headers=ALICE)
    put_collection(app)  # This would make remaining records visible again.
    assert app.get(f"{COLLECTION}/records", headers=ALICE).json["data"] == []
    assert not list(tmp_path.rglob("*.txt"))
    forget_database(url)
    postgresql.drop_database(url)
