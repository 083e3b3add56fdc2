"""Concurrent requests, in a sample or all of the orders that have one change of turns.

The requests and PostgreSQL are real. Only the order of turns is set: see interleavings.
``make chaos`` combines all pairs of requests; here are those that affect each other most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
import transaction
from kinto.core.events import ResourceChanged

from kinto_attachment.files import link_steps
from kinto_attachment.maintenance import gc as gc_module
from kinto_attachment.maintenance.reindex import reindex
from tests.support import invariants, publishing, races, waiting
from tests.support.application import (
    ALICE,
    BUCKET,
    OTHER,
    RECORD,
    Part,
    attach,
    form,
    on_event,
    put,
    read,
    send,
)
from tests.support.interleavings import Stage, at_random
from tests.support.races import (
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
from tests.support.sampling import one_in
from tests.support.services import PostgreSQL

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

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with races.server(postgresql, tmp_path_factory.mktemp("files")) as app:
        yield app


@pytest.fixture(scope="module")
def keeping_app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("files")
    with races.server(postgresql, folder, keep_old_files="true") as app:
        yield app


@pytest.fixture(scope="module")
def changed_app(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server whose records have their files in one storage, while new ones go to another."""
    options = {"storages.other.base_path": str(tmp_path_factory.mktemp("other"))}
    folder = tmp_path_factory.mktemp("files")
    with races.server(postgresql, folder, storage="other", **options) as app:
        yield app


END = 40  # Bytes of a form that arrive late, after the file.


def names(operations: tuple[races.Operation, ...]) -> str:
    return "-".join(operation.__name__ for operation in operations)


@pytest.mark.parametrize("pair", PAIRS, ids=names)
def test_requests_that_meet_lose_and_leave_no_file(
    app: Any, pair: tuple[races.Operation, ...]
) -> None:
    assert races.meet(app, pair, races.some_orders(names(pair))) > 2


@pytest.mark.parametrize("pair", [(replace, publish), (replace, delete_collection)], ids=names)
def test_requests_that_meet_lose_no_file_that_is_kept(
    keeping_app: Any, pair: tuple[races.Operation, ...]
) -> None:
    assert races.meet(keeping_app, pair, races.some_orders(f"kept {names(pair)}")) > 2


@pytest.mark.parametrize(
    "pair",
    [(replace, replace), (replace, publish), (replace, delete_record), (replace, batch)],
    ids=names,
)
def test_requests_that_meet_lose_and_leave_no_file_of_two_storages(
    changed_app: Any, pair: tuple[races.Operation, ...]
) -> None:
    assert races.meet(changed_app, pair, races.some_orders(f"across {names(pair)}")) > 2


@pytest.mark.parametrize(
    "three",
    [(replace, delete_copy, publish_again), (remove, publish, publish_again)],
    ids=names,
)
def test_three_requests_that_meet_lose_and_leave_no_file(
    app: Any, three: tuple[races.Operation, ...]
) -> None:
    orders = [at_random(seed) for seed in range(20 // one_in(5))]
    assert races.meet(app, three, orders) == len(orders)


def test_two_requests_that_share_the_same_files_do_not_wait_for_each_other(app: Any) -> None:
    """They begin with different ones; each would hold the lock that the other one waits for."""
    sources = [RECORD, OTHER]
    targets = [f"{BUCKET}/collections/{name}" for name in ("first", "second")]

    def copy_all(target: str, sources: list[str]) -> Any:
        requests = [
            {
                "method": "POST",
                "path": f"/v1{target}/records/{number}/attachment",
                "headers": {"Content-Type": "application/json"},
                "body": {"copy_from": source},
            }
            for number, source in enumerate(sources)
        ]
        answer = app.post_json("/batch", {"requests": requests}, headers=ALICE, status="*")
        return [part["status"] for part in answer.json.get("responses", [])] or answer.status_int

    def when_the_first_has_a_lock(ready: list[int], last: int | None, step: int) -> int:
        has_lock = any(line.startswith("A update attachment-lock") for line in stage.trace)
        return max(ready) if has_lock else min(ready)

    races.start(app)
    attach(app, OTHER)
    for target in targets:
        put(app, target)
    acts = [
        lambda: copy_all(targets[0], sources),
        lambda: copy_all(targets[1], sources[::-1]),
    ]
    with contextlib.closing(Stage(app.app.registry)) as stage, stage.watching():
        outcomes = stage.play(acts, when_the_first_has_a_lock)
    assert outcomes == [[201, 201], [201, 201]], stage.trace
    assert sum("B update attachment-lock" in line for line in stage.trace) == 2


def test_gc_does_not_take_what_reindex_links(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # reindex checks whether a file still exists, so nothing needs to wait for it.
    monkeypatch.setattr(gc_module._Collector, "links_are_written", lambda self: True)
    registry = app.app.registry
    outcomes = set()
    now = timedelta(0)
    at_once: dict[str, Any] = {"grace": -DAY, "orphan_age": now, "pause": now}
    with contextlib.closing(Stage(registry)) as stage:
        for order in races.some_orders("reindex"):
            races.start(app)
            with transaction.manager:
                registry.storage.delete_all("attachment", "attachments:*", with_deleted=False)
            with stage.watching():
                rebuilt, collected = stage.play(
                    [lambda: reindex(registry), lambda: gc_module.gc(registry, **at_once)], order
                )
            told = "\n".join([repr(rebuilt), repr(collected), *stage.trace])
            linked = {link.key for link in invariants.links(registry)}
            stored = {file.key for file in registry.attachment_storages.default.files.list()}
            assert linked == stored, told
            assert rebuilt.linked == 2 * len(stored) == 2, told  # Of the record and its copy.
            outcomes.add(bool(collected.errors))
    assert outcomes == {True, False}, "gc refuses as long as the records have no links"


def test_a_copy_made_within_the_upload_shares_its_file(app: Any) -> None:
    races.start(app)

    def publish_too(event: Any) -> None:
        if event.payload["collection_id"] == "c" and event.payload["action"] == "update":
            copy = races.SECOND_COPY
            publishing.copy(event.request, RECORD, copy, ids_of=copy)

    on_event(app, ResourceChanged, publish_too)
    attach(app, content=b"new")
    races.check(app, ["upload with a copy"])
    app.delete(RECORD, headers=ALICE)
    races.check(app, ["upload with a copy", "delete the record"])


class Lingering(BytesIO):
    """The body of a form whose end arrives after gc has run."""

    def __init__(self, app: Any, content: bytes) -> None:
        parts = Part("attachment", content, "a.txt"), Part("data", "{}" + " " * END)
        body, self.content_type = form(*parts)
        super().__init__(body)
        self.app, self.length = app, len(body)

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        rest = self.length - self.tell()
        if rest == END:
            report = waiting.elsewhere(invariants.collect, self.app.app.registry)
            assert len(report.unlinked) == 1
        return super().read(min(size, rest - END) if rest > END else size)


def test_a_file_that_gc_takes_before_its_form_ends_is_not_linked(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_steps, "UNCHECKED_SECONDS", 0)
    races.start(app)
    body = Lingering(app, b"new")
    headers = {**ALICE, "Content-Type": body.content_type}
    path = f"{RECORD}/attachment"
    answer = send(app, "POST", path, body, length=body.length, headers=headers, status="*")
    assert answer.status_int == 409
    assert read(app) == b"old"
    races.check(app, ["gc"])
