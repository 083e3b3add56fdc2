"""With a plugin that publishes collections, included before ours or after it."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import invariants, live, races, waiting
from tests.support.application import (
    ALICE,
    COLLECTION,
    CONTENT,
    RECORD,
    attach,
    put,
    put_collection,
    read,
    stored_links,
)
from tests.support.interleavings import Stage
from tests.support.sampling import one_in
from tests.support.services import PostgreSQL
from tests.support.snapshots import begin

PUBLIC = "/buckets/b/collections/public"
COPY = f"{PUBLIC}/records/r"
EDITS, PUBLICATIONS = 15 // one_in(3), 10 // one_in(3)
ORDERS = {
    "before": {"included_first": "tests.support.signing", "includes": ""},
    "after": {"includes": "tests.support.signing"},
}


@pytest.fixture(scope="module", params=ORDERS)
def app(
    request: pytest.FixtureRequest,
    postgresql: PostgreSQL,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("files")
    with races.server(postgresql, folder, ORDERS[request.param]) as app:
        yield app


def publish(app: Any, status: Any = 200) -> Any:
    asked = {"data": {"status": "to-publish"}}
    return app.patch_json(COLLECTION, asked, headers=ALICE, status=status)


def replace(app: Any) -> Any:
    return attach(app, content=b"new", status="*")


def remove(app: Any) -> Any:
    return app.delete(f"{RECORD}/attachment", headers=ALICE, status="*")


def make(app: Any) -> None:
    put_collection(app)
    put(app, PUBLIC)
    attach(app)


def make_unpublished(app: Any) -> None:
    """A record that was changed since it was published."""
    make(app)
    publish(app)
    attach(app, content=b"not published yet")


def test_copies_share_the_file(app: Any) -> None:
    begin(app, make)
    publish(app)
    assert read(app, f"{COPY}/attachment") == CONTENT
    attach(app, content=b"new")
    assert read(app, f"{COPY}/attachment") == CONTENT
    publish(app)
    assert read(app, f"{COPY}/attachment") == b"new"
    assert len({key for _, key, _ in stored_links(app)}) == 1
    races.check(app, [])


@pytest.mark.parametrize("edit", [replace, remove])
def test_editors_and_publishers_do_not_wait_for_each_other(
    app: Any, edit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has to be checked: an upload is repeated after a deadlock, and succeeds."""
    orders = races.some_orders(edit.__name__)
    with contextlib.closing(Stage(app.app.registry, also=["collection"])) as stage:
        for order in orders:
            begin(app, make_unpublished)
            with stage.watching():
                edited, published = stage.play(
                    [lambda: edit(app), lambda: publish(app, status="*")], order
                )
            trace = "\n".join(stage.trace)
            assert edited.status_int in (200, 204), f"{edited}\n{trace}"
            # 409: the file to copy was replaced after the record was read.
            assert published.status_int in (200, 409), f"{published}\n{trace}"
            assert "deadlock detected" not in caplog.text, trace
            races.check(app, stage.trace, collecting=orders.count == 0)
    assert orders.count > 10 / races.ONE_IN


@pytest.mark.parametrize("order", ORDERS)
def test_under_load(postgresql: PostgreSQL, tmp_path: Path, order: str) -> None:
    plugins = ["kinto.plugins.default_bucket", "kinto_attachment"]
    plugins.insert(0 if order == "before" else 2, "tests.support.signing")
    database = postgresql.create_database()
    settings = {"kinto.includes": " ".join(plugins)}
    storage = {"base_path": str(tmp_path / "files"), "linger": "1m"}
    with live.kinto(storage, database=database, threads=8, settings=settings) as server:
        statuses: list[tuple[str, int]] = []

        def edit(number: int) -> None:
            with live.Client(server) as client:
                for count in range(EDITS):
                    uri = f"{COLLECTION}/records/r{number}"
                    status, _, _ = client.attach(uri, f"{number}-{count}".encode())
                    statuses.append(("edit", status))

        def publish() -> None:
            headers = {"Content-Type": "application/json"}
            with live.Client(server) as client:
                for _ in range(PUBLICATIONS):
                    body = '{"data": {"status": "to-publish"}}'
                    status, _, _ = client.request("PATCH", COLLECTION, body, headers)
                    statuses.append(("publish", status))

        with live.Client(server) as client:
            for uri in ("/buckets/b", COLLECTION, PUBLIC):
                assert client.put(uri) == 201
        jobs = [threading.Thread(target=edit, args=(number,)) for number in range(3)]
        jobs.append(threading.Thread(target=publish))
        for job in jobs:
            job.start()
        waiting.join(*jobs)
        answers = Counter(statuses)
        assert answers["edit", 200] + answers["edit", 201] == 3 * EDITS, answers
        assert answers["publish", 200] == PUBLICATIONS, answers
        with invariants.inside(server) as registry:
            assert not invariants.lost(registry)
