"""Requests that meet, in every order that one change of turns can make of them.

The requests are real and so is PostgreSQL; only whose turn it is, is told: see interleavings.
All pairs of requests meet in ``make chaos``; here are those that have most to do with each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kinto.core.events import ResourceChanged

from tests import publishing, races
from tests.application import ALICE, RECORD, attach, on_event
from tests.interleavings import Orders, at_random
from tests.races import (
    batch,
    delete_collection,
    delete_copy,
    delete_record,
    delete_records,
    patch,
    publish,
    publish_again,
    put_without,
    remove,
    replace,
)
from tests.services import PostgreSQL

PAIRS = [
    (replace, replace),
    (replace, patch),
    (replace, put_without),
    (replace, remove),
    (replace, delete_record),
    (replace, delete_collection),
    (replace, publish),
    (patch, remove),
    (remove, publish),
    (delete_record, publish),
    (delete_record, delete_copy),
    (delete_records, publish_again),
    (publish, publish_again),
    (batch, publish),
]


@pytest.fixture(scope="module")
def app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with races.server(postgresql, tmp_path_factory.mktemp("files")) as app:
        yield app


@pytest.fixture(scope="module")
def keeping_app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("files")
    with races.server(postgresql, folder, keep_old_files="true") as app:
        yield app


def names(operations: tuple[races.Operation, ...]) -> str:
    return "-".join(operation.__name__ for operation in operations)


@pytest.mark.parametrize("pair", PAIRS, ids=names)
def test_requests_that_meet_lose_and_leave_no_file(
    app: Any, pair: tuple[races.Operation, ...]
) -> None:
    assert races.meet(app, pair, Orders(preemptions=1)) > 2


@pytest.mark.parametrize("pair", [(replace, publish), (replace, delete_collection)], ids=names)
def test_requests_that_meet_lose_no_file_that_is_kept(
    keeping_app: Any, pair: tuple[races.Operation, ...]
) -> None:
    assert races.meet(keeping_app, pair, Orders(preemptions=1)) > 2


@pytest.mark.parametrize(
    "three",
    [(replace, delete_copy, publish_again), (remove, publish, publish_again)],
    ids=names,
)
def test_three_requests_that_meet_lose_and_leave_no_file(
    app: Any, three: tuple[races.Operation, ...]
) -> None:
    orders = [at_random(seed) for seed in range(20)]
    assert races.meet(app, three, orders) == 20


def test_a_copy_made_within_the_upload_shares_its_file(app: Any) -> None:
    races.start(app)

    def copy(event: Any) -> None:
        if event.payload["collection_id"] == "c" and event.payload["action"] == "update":
            publishing.copy(event.request, RECORD, races.SECOND_COPY)

    on_event(app, ResourceChanged, copy)
    attach(app, content=b"new")
    races.check(app, ["upload with a copy"])
    app.delete(RECORD, headers=ALICE)
    races.check(app, ["upload with a copy", "delete the record"])
