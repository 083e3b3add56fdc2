"""With many files in the database, each request finds its rows with an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction

from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.index.quiet_writes import write_locations
from kinto_attachment.uris import RecordURI
from tests.support.application import (
    ALICE,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    forget_database,
    make_app,
    postgresql_settings,
    put_collection,
)
from tests.support.many_rows import fill
from tests.support.services import PostgreSQL
from tests.support.statements import plans_of

MANY = 30_000
VERSIONS = f"{RECORD}/attachment/versions"
COPY = {"copy_from": RECORD}
ACTIONS: dict[str, Callable[[Any, str], object]] = {
    "replace": lambda app, _: attach(app, content=b"new"),
    "list files": lambda app, _: app.get(f"{COLLECTION}/attachments?_limit=100", headers=ALICE),
    "list versions": lambda app, _: app.get(VERSIONS, headers=ALICE),
    "read one": lambda app, first: app.get(f"{VERSIONS}/{first}", headers=ALICE),
    "restore": lambda app, first: app.post(f"{VERSIONS}/{first}/restore", headers=ALICE),
    "delete one": lambda app, first: app.delete(f"{VERSIONS}/{first}", headers=ALICE),
    "copy": lambda app, _: app.post_json(f"{OTHER}/attachment", COPY, headers=ALICE),
    "detach": lambda app, _: app.delete(f"{RECORD}/attachment", headers=ALICE),
    "delete": lambda app, _: app.delete(RECORD, headers=ALICE),
}


@pytest.fixture(scope="module")
def app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    url = postgresql.create_database()
    storage = {"base_path": str(tmp_path_factory.mktemp("files")), "keep_old_files": "true"}
    app = make_app(storage, postgresql_settings(url))
    put_collection(app)
    fill(postgresql, url, MANY)
    yield app
    forget_database(url)
    postgresql.drop_database(url)


@pytest.mark.postgresql
@pytest.mark.parametrize("action", ACTIONS)
def test_rows_are_found_by_an_index(app: Any, action: str) -> None:
    first = attach(app, content=b"first").headers["Attachment-Version"]
    attach(app, content=b"second")
    plans = plans_of(app, lambda: ACTIONS[action](app, first))
    assert any("Index Scan" in plan for plan in plans)
    for plan in plans:
        assert "Seq Scan on objects" not in plan


@pytest.mark.postgresql
def test_many_records_are_found_by_their_ids(app: Any) -> None:
    registry = app.app.registry
    uris = [f"{COLLECTION}/records/r{number}" for number in range(1, 201)]

    def write() -> None:
        with transaction.manager:
            BulkLinks(registry.storage, registry.attachment_links).locked_records(uris)
            write_locations(registry.storage, {RecordURI.parse(uri): "a.txt" for uri in uris})

    plans = plans_of(app, write)
    assert len(plans) == 4
    for plan in plans:
        # With any other index, all records of the collection are read for each of them.
        assert "Index Cond: ((id = ANY" in plan
