"""Lives that end during an upload: no file remains that a namesake could read.

The requests and PostgreSQL are real. Only the order of turns is set: see interleavings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import invariants, races
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    RECORD,
    attach,
    put,
    stored_files,
)
from tests.support.interleavings import Stage
from tests.support.races import delete_collection, delete_record, remove, replace
from tests.support.sampling import sampled
from tests.support.services import PostgreSQL
from tests.support.snapshots import begin

EVERYONE = {"read": ["system.Everyone"]}
OPEN = {"collection:create": ["system.Authenticated"]}
NEW = f"{COLLECTION}/records/new"
VERSIONS = f"{RECORD}/attachment/versions"
ALSO = ["collection", "bucket"]
EXPECTED = {*races.EXPECTED, 403}  # 403: the bucket was deleted.
# One in so many of the moments at which one request can interrupt another; all in tests-all.
ONE_IN = {"upload": 8}
OTHERS_ONE_IN = 30

Act = Callable[[Any], Any]


def delete_bucket(app: Any) -> Any:
    return app.delete(BUCKET, headers=ALICE, status="*")


def upload(app: Any) -> Any:
    """Upload to a record that does not exist."""
    return attach(app, NEW, content=b"of alice", status="*")


def rename(app: Any) -> Any:
    body = {"data": {"filename": "renamed.txt"}}
    return app.patch_json(f"{RECORD}/attachment", body, headers=ALICE, status="*")


def restore(app: Any) -> Any:
    return app.post(f"{VERSIONS}/{app.versions[0]}/restore", headers=ALICE, status="*")


WRITES = [replace, upload, remove, rename, restore]
DELETIONS = [delete_record, delete_collection, delete_bucket]


@pytest.fixture(scope="module")
def app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("files")
    with races.server(postgresql, folder, keep_old_files="true") as app:
        yield app


def make(app: Any) -> list[str]:
    make_parents(app, ALICE)
    return [
        attach(app, content=content).headers["Attachment-Version"]
        for content in (b"first", b"second")
    ]


def make_parents(app: Any, headers: dict[str, str]) -> None:
    """Create the bucket and the collection, if missing; existing ones keep their owner."""
    for uri in (BUCKET, COLLECTION):
        if app.get(uri, headers=ALICE, status="*").status_int != 200:
            put(app, uri, headers, data={}, permissions=OPEN if uri == BUCKET else EVERYONE)


def be_a_namesake(app: Any) -> None:
    """Bob creates the deleted objects, to which alice no longer has access."""
    if app.get(COLLECTION, headers=ALICE, status="*").status_int != 200:
        make_parents(app, BOB)
        assert app.get(f"{COLLECTION}/records", headers=BOB).json["data"] == []
    for record in (RECORD, NEW):
        app.delete(record, headers=ALICE, status="*")
        answer = app.put_json(record, {"data": {}}, headers=BOB, status="*")
        if answer.status_int == 403:  # The collection is still alice's.
            put(app, record, ALICE)


def readable(app: Any) -> list[str]:
    found = []
    for key in sorted(stored_files(app)):
        path = f"/attachments/{key}"
        answers = [app.get(path, headers=who, status="*") for who in (BOB, ALICE, ANONYMOUS)]
        if any(answer.status_int == 200 for answer in answers):
            found.append(key)
    for record in (RECORD, NEW):
        if app.get(f"{record}/attachment", headers=BOB, status="*").status_int == 200:
            found.append(record)
        found += versions(app, record)
    return found


def versions(app: Any, record: str) -> list[str]:
    """The earlier files that bob sees: now, and after he has deleted his record."""
    found = []
    for _ in range(2):
        answer = app.get(f"{record}/attachment/versions", headers=BOB, status="*")
        found += [str(each) for each in answer.json.get("data", [])]
        app.delete(record, headers=BOB, status="*")
    return found


@sampled(3, "write", "end")
@pytest.mark.parametrize("end", DELETIONS, ids=lambda act: act.__name__)
@pytest.mark.parametrize("write", WRITES, ids=lambda act: act.__name__)
def test_nothing_is_left_for_a_namesake(app: Any, write: Act, end: Act) -> None:
    one_in = ONE_IN.get(write.__name__, OTHERS_ONE_IN)
    orders = races.some_orders(f"{write.__name__} {end.__name__}", one_in)
    with contextlib.closing(Stage(app.app.registry, also=ALSO)) as stage:
        for order in orders:
            app.versions = begin(app, make)
            with stage.watching():
                outcomes = stage.play([lambda: write(app), lambda: end(app)], order)
            told = "\n".join([*map(repr, outcomes), *stage.trace])
            for outcome in outcomes:
                assert getattr(outcome, "status_int", None) in EXPECTED, told
            be_a_namesake(app)
            assert not readable(app), told
            invariants.check(app.app.registry, told, collecting=orders.count == 0)
            assert len(stored_files(app)) >= 2, told
    assert orders.count > 2
