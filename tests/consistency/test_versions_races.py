"""Versions that are restored or deleted while something else happens to their record.

The requests and PostgreSQL are real. Only the order of turns is set: see interleavings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction
from kinto.core.storage.exceptions import BackendError

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.files.detaching import detach
from kinto_attachment.files.settling import delete_garbage
from tests.support import invariants, races
from tests.support.application import (
    ALICE,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    put,
    put_collection_behind,
)
from tests.support.interleavings import Stage
from tests.support.races import delete_collection, delete_record, publish, remove, replace
from tests.support.sampling import sampled
from tests.support.services import PostgreSQL
from tests.support.snapshots import begin
from tests.support.statements import before_statement

ALSO = ["collection"]
ONE_IN = 30  # Of the moments at which one request can interrupt another; all in tests-all.
EXPECTED = {*races.EXPECTED, 403}
VERSIONS = f"{RECORD}/attachment/versions"

Act = Callable[[Any], Any]


@pytest.fixture(scope="module")
def app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("files")
    with races.server(postgresql, folder, keep_old_files="true") as app:
        yield app


def plain(app: Any) -> list[str]:
    """Create a record with three versions."""
    put_collection_behind(app)
    return [
        attach(app, content=content).headers["Attachment-Version"]
        for content in (b"first", b"second", b"third")
    ]


def deleted(app: Any) -> list[str]:
    versions = plain(app)
    app.delete(RECORD, headers=ALICE)
    return versions


def shared(app: Any) -> list[str]:
    """The version that is restored or deleted is also the file of another record."""
    versions = plain(app)
    put(app, races.PUBLIC)
    app.post(f"{VERSIONS}/{versions[0]}/restore", headers=ALICE)
    publish(app)
    app.post(f"{VERSIONS}/{versions[2]}/restore", headers=ALICE)
    return versions


def restore(app: Any) -> Any:
    return app.post(f"{VERSIONS}/{app.versions[0]}/restore", headers=ALICE, status="*")


def restore_another(app: Any) -> Any:
    return app.post(f"{VERSIONS}/{app.versions[1]}/restore", headers=ALICE, status="*")


def delete_version(app: Any) -> Any:
    return app.delete(f"{VERSIONS}/{app.versions[0]}", headers=ALICE, status="*")


def copy(app: Any) -> Any:
    """Copy to a new record."""
    body = {"copy_from": RECORD, "version": app.versions[0]}
    return app.post_json(f"{OTHER}/attachment", body, headers=ALICE, status="*")


def create_record(app: Any) -> Any:
    return app.put_json(RECORD, {"data": {}}, headers=ALICE, status="*")


def upload(app: Any) -> Any:
    return attach(app, content=b"new", status="*")


def delete_copy(app: Any) -> Any:
    return races.delete_copy(app)


def collect(app: Any) -> Any:
    invariants.collect(app.app.registry)


def expire(app: Any) -> Any:
    """What gc does with a file that was kept for long enough."""
    registry = app.app.registry
    links = registry.attachment_links
    with transaction.manager:
        of_record = links.of_record(RECORD)
        found = [each for each in of_record if each.version == app.versions[0]]
        entries = links.outbox.add_files(links.drop_kept(found))
    for entry in entries:
        delete_garbage(registry, entry)


def detach_current(app: Any) -> Any:
    """What gc does with a current file that is too old."""
    registry = app.app.registry
    with transaction.manager:
        links = registry.attachment_links.of_record(RECORD)
        found = [each for each in links if each.state == "current"]
    with contextlib.suppress(AttachmentGone, BackendError):
        for link in found:
            detach(registry, link)


def versions_there(app: Any) -> str:
    found = app.get(VERSIONS, headers=ALICE, status="*")
    return str(found.json["data"]) if found.status_int == 200 else ""


def meet(app: Any, before: Callable[[Any], list[str]], acts: list[Act]) -> set[tuple[Any, ...]]:
    """Run two requests in many orders; returns the pairs of their statuses.

    No file is lost, none is left over, and what was not deleted is still a version.
    """
    name = " ".join(act.__name__ for act in [before, *acts])
    orders = races.some_orders(name, ONE_IN)
    statuses = set()
    with contextlib.closing(Stage(app.app.registry, also=ALSO)) as stage:
        for order in orders:
            app.versions = begin(app, before)
            with stage.watching():
                outcomes = stage.play([lambda act=act: act(app) for act in acts], order)  # type: ignore[misc]
            told = "\n".join([*map(repr, outcomes), *stage.trace])
            statuses.add(tuple(getattr(each, "status_int", each) for each in outcomes))
            for outcome in outcomes:
                assert outcome is None or getattr(outcome, "status_int", 0) in EXPECTED, told
            registry = app.app.registry
            present = invariants.Present.read(registry)
            assert not invariants.lost(registry, present), told
            check_versions(app, acts, outcomes, told)
            if orders.count == 0 or invariants.left(registry, present):
                invariants.check(registry, told, collecting=True)
                check_versions(app, acts, outcomes, told)
    assert orders.count > 2
    return statuses


def check_versions(app: Any, acts: list[Act], outcomes: list[Any], told: str) -> None:
    done = {
        act
        for act, each in zip(acts, outcomes, strict=True)
        if getattr(each, "status_int", 0) < 300
    }
    if delete_collection in done:
        return
    new_life = create_record in done or (upload in done and restore not in done)
    if app.get(RECORD, headers=ALICE, status="*").status_int == 200 and new_life:
        return
    first, second, third = app.versions
    there = versions_there(app)
    if expire not in acts:
        assert (first in there) == (delete_version not in done), told
    assert second in there, told
    assert third in there, told


@sampled(2)
@pytest.mark.parametrize(
    "other",
    [restore, restore_another, replace, remove, delete_record, delete_version, collect],
    ids=lambda act: act.__name__,
)
def test_a_restore_meets(app: Any, other: Act) -> None:
    statuses = meet(app, plain, [restore, other])
    if other is delete_version:
        assert (200, 204) not in statuses
        assert {200, 204} <= {status for pair in statuses for status in pair}


@sampled(2)
@pytest.mark.parametrize(
    "other",
    [restore_another, delete_version, replace, remove, delete_record, delete_collection, collect],
    ids=lambda act: act.__name__,
)
def test_a_deletion_meets(app: Any, other: Act) -> None:
    meet(app, plain, [delete_version, other])


@pytest.mark.parametrize(
    "other",
    [restore, delete_version, replace, delete_record, delete_collection, expire, collect],
    ids=lambda act: act.__name__,
)
def test_a_copy_meets(app: Any, other: Act) -> None:
    meet(app, plain, [copy, other])


@pytest.mark.parametrize("other", [restore, delete_record], ids=lambda act: act.__name__)
def test_an_expiry_meets(app: Any, other: Act) -> None:
    statuses = meet(app, plain, [expire, other])
    if other is restore:
        assert {status for _, status in statuses} >= {200, 404}


@pytest.mark.parametrize(
    "other", [replace, remove, restore, delete_record], ids=lambda act: act.__name__
)
def test_a_detachment_meets(app: Any, other: Act) -> None:
    meet(app, plain, [detach_current, other])


@pytest.mark.parametrize("other", [delete_version, delete_copy], ids=lambda act: act.__name__)
def test_a_restore_of_a_shared_file_meets(app: Any, other: Act) -> None:
    statuses = meet(app, shared, [restore, other])
    if other is delete_version:
        assert (200, 204) not in statuses


@pytest.mark.parametrize(
    "other", [delete_record, delete_copy, replace], ids=lambda act: act.__name__
)
def test_a_deletion_of_a_shared_file_meets(app: Any, other: Act) -> None:
    meet(app, shared, [delete_version, other])


@pytest.mark.parametrize(
    "other",
    [restore, restore_another, create_record, upload, delete_version, delete_collection, collect],
    ids=lambda act: act.__name__,
)
def test_a_restore_of_a_deleted_record_meets(app: Any, other: Act) -> None:
    statuses = meet(app, deleted, [restore, other])
    if other is create_record:
        # The second request finds a record of another life.
        assert not {(201, 201)} & statuses
    if other is delete_version:
        assert (201, 204) not in statuses


def test_a_deleted_record_does_not_come_back_in_a_namesake_of_its_collection(app: Any) -> None:
    """Its versions have been read before, and a collection of that name exists."""
    app.versions = begin(app, deleted)

    def make_anew() -> None:
        app.delete(COLLECTION, headers=ALICE)
        put(app, COLLECTION)

    with before_statement(app, "INSERT INTO objects", make_anew):
        assert restore(app).status_int == 409
    app.get(RECORD, headers=ALICE, status=404)
    assert versions_there(app) == ""
