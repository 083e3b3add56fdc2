"""A hold that is set while something else happens to the file: one of the two is refused.

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
    BUCKET,
    RECORD,
    attach,
    links_of,
    put,
    put_collection,
)
from tests.support.interleavings import Stage
from tests.support.races import (
    batch,
    delete_collection,
    delete_record,
    delete_records,
    patch,
    publish,
    put_without,
    remove,
    replace,
)
from tests.support.sampling import sampled
from tests.support.services import PostgreSQL
from tests.support.snapshots import begin

ALSO = ["collection", "bucket"]
HOLD = f"{RECORD}/attachment/hold"
# 403: the bucket was deleted. 503: a deadlock in Kinto, or with it.
EXPECTED = {*races.EXPECTED, 403, 423}

Act = Callable[[Any], Any]


@pytest.fixture(scope="module", params=["false", "true"], ids=["plain", "keeping"])
def app(
    request: pytest.FixtureRequest, postgresql: PostgreSQL, tmp_path_factory: Any
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("files")
    with races.server(postgresql, folder, keep_old_files=request.param) as app:
        yield app


def make(app: Any) -> None:
    put_collection(app)
    put(app, races.PUBLIC)
    attach(app, content=b"to be held")


def hold(app: Any) -> Any:
    return app.put_json(HOLD, {"data": {"until": None}}, headers=ALICE, status="*")


def delete_bucket(app: Any) -> Any:
    return app.delete(BUCKET, headers=ALICE, status="*")


OTHERS: list[Act] = [
    replace,
    patch,
    put_without,
    remove,
    delete_record,
    delete_records,
    delete_collection,
    delete_bucket,
    batch,
    publish,
    hold,
]


@sampled(2, "app", "other")
@pytest.mark.parametrize("other", OTHERS, ids=lambda act: act.__name__)
def test_a_hold_meets(app: Any, other: Act) -> None:
    statuses = set()
    registry = app.app.registry
    orders = races.some_orders(other.__name__)
    with contextlib.closing(Stage(registry, also=ALSO)) as stage:
        for order in orders:
            begin(app, make)
            with stage.watching():
                outcomes = stage.play([lambda: hold(app), lambda: other(app)], order)
            told = "\n".join([*map(repr, outcomes), *stage.trace])
            for outcome in outcomes:
                assert getattr(outcome, "status_int", 0) in EXPECTED, told
            held, _ = outcomes
            statuses.add(tuple(each.status_int for each in outcomes))
            if held.status_int == 200:
                # With versions, a file that was replaced afterwards is still held.
                (link,) = [each for each in links_of(app) if each.hold]
                assert (link.record, link.ended) == (RECORD, ""), told
                app.delete(RECORD, headers=ALICE, status=423)
            invariants.check(registry, told, collecting=orders.count == 0)
    assert any(first == 200 for first, _ in statuses), statuses
