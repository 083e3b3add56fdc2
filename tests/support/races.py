"""Concurrent requests, on a server that publishes copies of records."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import invariants, sampling
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    RECORD,
    attach,
    forget_database,
    key_of,
    make_app,
    move_behind,
    postgresql_settings,
    put,
    put_collection_behind,
)
from tests.support.interleavings import Decide, Orders, Stage
from tests.support.invariants import Present
from tests.support.services import PostgreSQL
from tests.support.snapshots import begin

PUBLIC = f"{BUCKET}/collections/public"
COPY = f"{PUBLIC}/records/copy"
SECOND_COPY = f"{PUBLIC}/records/second"

# 409: from Kinto or us: please retry. 503: Kinto's update and delete of one record can deadlock,
# on the record and its permissions.
EXPECTED = (200, 201, 204, 404, 409, 503)

Operation = Callable[[Any], Any]


def replace(app: Any) -> Any:
    return attach(app, content=b"new", status="*")


def patch(app: Any) -> Any:
    return app.patch_json(RECORD, {"data": {"title": "x"}}, headers=ALICE, status="*")


def put_without(app: Any) -> Any:
    return app.put_json(RECORD, {"data": {"title": "y"}}, headers=ALICE, status="*")


def remove(app: Any) -> Any:
    return app.delete(f"{RECORD}/attachment", headers=ALICE, status="*")


def delete_record(app: Any) -> Any:
    return app.delete(RECORD, headers=ALICE, status="*")


def delete_records(app: Any) -> Any:
    return app.delete(f"{COLLECTION}/records", headers=ALICE, status="*")


def delete_collection(app: Any) -> Any:
    return app.delete(COLLECTION, headers=ALICE, status="*")


def batch(app: Any) -> Any:
    requests = [
        {"method": "PATCH", "path": f"/v1{RECORD}", "body": {"data": {"title": "z"}}},
        {"method": "DELETE", "path": f"/v1{RECORD}/attachment"},
        {"method": "PATCH", "path": f"/v1{RECORD}", "body": {"data": {"title": "zz"}}},
    ]
    return app.post_json("/batch", {"requests": requests}, headers=ALICE, status="*")


def publish(app: Any) -> Any:
    return app.post_json("/publish", {"copies": {RECORD: COPY}}, status="*")


def publish_again(app: Any) -> Any:
    return app.post_json("/publish", {"copies": {COPY: SECOND_COPY}}, status="*")


def delete_copy(app: Any) -> Any:
    return app.delete(COPY, headers=ALICE, status="*")


OPERATIONS: list[Operation] = [
    replace,
    patch,
    put_without,
    remove,
    delete_record,
    delete_records,
    delete_collection,
    batch,
    publish,
    publish_again,
    delete_copy,
]
PAIRS = list(itertools.combinations_with_replacement(OPERATIONS, 2))


ONE_IN = 30  # Of the moments at which one request can interrupt another; all in tests-all.


FEW = 8  # Concurrent requests have at least so many such moments.


def some_orders(name: str, one_in: int = ONE_IN) -> Orders:
    """Orders with one switch between requests: a sample, which depends on ``name``."""
    one_in = sampling.one_in(one_in)
    return Orders(preemptions=1, one_in=one_in, first=sampling.start(name, min(one_in, FEW)))


@contextlib.contextmanager
def server(
    postgresql: PostgreSQL,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    **attachment: str,
) -> Iterator[Any]:
    """Kinto in this process, with files in ``folder``."""
    settings = {"includes": "tests.support.publishing", **(settings or {})}
    url = postgresql.create_database()
    name = url.split("?")[0].rsplit("/", 1)[1]
    postgresql.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")  # For speed.
    # The quotas make the server update counters, which are compared with the sums.
    quotas = {"quota_bytes": "1G", "resources.b.c.quota_files": "1000000"}
    storage = {"base_path": str(folder), **quotas, **attachment}
    try:
        yield make_app(storage, postgresql_settings(url), **settings)
    finally:
        forget_database(url)
        postgresql.drop_database(url)


def meet(
    app: Any,
    operations: Sequence[Operation],
    orders: Iterable[Decide],
    *,
    also: Collection[str] = (),
) -> int:
    """Run operations on a record and its copy in these orders; returns the number of orders.

    After each order, no file may be lost, and none left after gc, which runs after the first order
    and whenever something is left. Then the records are deleted one after the other: files that
    they share must not be deleted with the first. Calls about ``also`` are steps, too.
    """
    count = 0
    with contextlib.closing(Stage(app.app.registry, also)) as stage:
        for count, order in enumerate(orders, 1):
            start(app)
            with stage.watching():
                outcomes = stage.play([lambda one=one: one(app) for one in operations], order)
            for outcome in outcomes:
                assert getattr(outcome, "status_int", None) in EXPECTED, repr(outcome)
            there = check(app, stage.trace, collecting=count == 1).records
            for record in filter(there.__contains__, (RECORD, COPY, SECOND_COPY)):
                if app.delete(record, headers=ALICE, status="*").status_int == 200:
                    check(app, [*stage.trace, f"delete {record}"], collecting=count == 1)
    return count


def start(app: Any) -> None:
    """Reset the server to a record with a file, and its copy."""
    begin(app, make)


def make(app: Any) -> None:
    put_collection_behind(app)
    put(app, PUBLIC)
    key = key_of(attach(app, content=b"old").json)
    publish(app)
    if len(app.app.registry.attachment_storages) > 1:
        move_behind(app.app.registry, key, "")


def check(app: Any, trace: list[str], *, collecting: bool = True) -> Present:
    """See :func:`invariants.check`."""
    return invariants.check(app.app.registry, "\n".join(trace), collecting=collecting)
