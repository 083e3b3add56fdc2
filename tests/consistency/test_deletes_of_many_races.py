"""Deletions of many objects at once, while one of them changes or another one is created.

Kinto reads the objects, then deletes them, and pairs the two lists by position. An object that
was changed in between must not count as deleted.
The requests and PostgreSQL are real. Only the order of turns is set: see interleavings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import invariants, races
from tests.support.application import ALICE, BUCKET, attach, put
from tests.support.interleavings import Decide, Stage
from tests.support.services import PostgreSQL
from tests.support.snapshots import begin

OLD = {"status": "old"}
FIRST, SECOND = f"{BUCKET}/collections/first", f"{BUCKET}/collections/second"
ONE, TWO, NEW = (f"{FIRST}/records/{name}" for name in ("one", "two", "new"))
EXPECTED = {(200, 200), (200, 201)}  # Of the deletion, and of the other request.
ALSO = ["collection", "bucket"]

Act = Callable[[Any], Any]


@pytest.fixture(scope="module")
def app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with races.server(postgresql, tmp_path_factory.mktemp("files")) as app:
        yield app


def make(app: Any) -> None:
    put(app, BUCKET, data=OLD)
    for uri in (FIRST, SECOND):
        put(app, uri, data=OLD)
        for name in ("one", "two"):
            content = f"{name} of {uri}".encode()
            attach(app, f"{uri}/records/{name}", content, data=OLD)


def delete_old(parent: str) -> Act:
    return lambda app: app.delete(f"{parent}?status=old", headers=ALICE, status="*")


def delete_newest(app: Any) -> Any:
    return app.delete(f"{FIRST}/records?_limit=1", headers=ALICE, status="*")


def delete_all(app: Any) -> Any:
    return app.delete(f"{FIRST}/records", headers=ALICE, status="*")


def renew(uri: str) -> Act:
    body = {"data": {"status": "new"}}
    return lambda app: app.patch_json(uri, body, headers=ALICE, status="*")


def delete(uri: str) -> Act:
    return lambda app: app.delete(uri, headers=ALICE, status="*")


def create(app: Any) -> Any:
    return attach(app, NEW, b"new", status="*")


MEETINGS = {
    "a record leaves the filter": (delete_old(f"{FIRST}/records"), renew(ONE)),
    "the other record leaves the filter": (delete_old(f"{FIRST}/records"), renew(TWO)),
    "a record is deleted": (delete_all, delete(TWO)),
    "a record is created": (delete_all, create),
    "a newer record is created": (delete_newest, create),
    "a collection leaves the filter": (delete_old(f"{BUCKET}/collections"), renew(FIRST)),
    "the other collection leaves the filter": (
        delete_old(f"{BUCKET}/collections"),
        renew(SECOND),
    ),
}


@pytest.mark.parametrize("until", ["delete_all", "commit"])
@pytest.mark.parametrize("meeting", MEETINGS)
def test_a_deletion_of_many_meets(app: Any, meeting: str, until: str) -> None:
    """Another request runs between reading and deleting, or commits while the deletion waits."""
    acts = MEETINGS[meeting]
    registry = app.app.registry
    begin(app, make)
    with contextlib.closing(Stage(registry, also=ALSO)) as stage:
        first = 0 if until == "delete_all" else 1
        with stage.watching():
            bodies = [lambda act=act: act(app) for act in acts]
            outcomes = stage.play(bodies, interrupted(stage, first, until))
        told = "\n".join([*map(repr, outcomes), *stage.trace])
    deleted, changed = (getattr(outcome, "status_int", 0) for outcome in outcomes)
    assert (deleted, changed) in EXPECTED, told
    ids = {each["id"] for each in outcomes[0].json["data"]}
    spared = {uri for uri in (FIRST, SECOND) if uri.rpartition("/")[2] not in ids}
    if "collection" not in meeting:
        spared.remove(FIRST)
    check(app, told, spared)
    if until == "commit" or invariants.left(registry):
        invariants.check(registry, told, collecting=True)
        check(app, told, spared)


def interrupted(stage: Stage, first: int, until: str) -> Decide:
    """The ``first`` actor runs up to a step, then the other one runs to its end."""

    def decide(ready: list[int], last: int | None, step: int) -> int:
        came = stage.actors[first].label.startswith(until)
        wanted = 1 - first if came else first
        return wanted if wanted in ready else ready[0]

    return decide


def check(app: Any, told: str, spared: set[str]) -> None:
    """Every record has its file, and collections that were ``spared`` have their records."""
    assert not (lost := invariants.lost(app.app.registry)), f"{lost} after:\n{told}"
    for uri in spared:
        records = app.get(f"{uri}/records", headers=ALICE).json["data"]
        assert {record["id"] for record in records} == {"one", "two"}, f"{uri}:\n{told}"
