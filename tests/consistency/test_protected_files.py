"""Locked and held files, and every way to delete them: the responses and the remaining state."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import transaction

from kinto_attachment.files.stored_records import stored_record
from kinto_attachment.maintenance.move import move
from kinto_attachment.maintenance.selection import Selection
from tests.support import direct, invariants
from tests.support.application import (
    ALICE,
    BUCKET,
    CONTENT,
    attach,
    key_of,
    links_of,
    put,
    put_collection,
    read,
    stored_content,
    stored_files,
)
from tests.support.backends import ON_DATABASES, ON_OBJECT_STORES, Build
from tests.support.protected import (
    IN_BATCHES,
    UNLOCKED,
    UPLOADS,
    WAYS,
    WHOLE,
    Place,
    Request,
    changed_setting,
)
from tests.support.sampling import sampled
from tests.support.snapshots import begin

pytestmark = ON_DATABASES

FAR = 4_102_444_800_000  # The year 2100.
HOLDS: dict[str, dict[str, Any]] = {
    "dated": {"until": FAR, "reason": "An audit"},
    "open": {"until": None},
}
HERE = Place(BUCKET, BUCKET)
PUBLISHING = {"includes": "tests.support.publishing"}
PUBLISHING_FIRST = {"included_first": "tests.support.publishing"}


def start(app: Any, place: Place = HERE) -> None:
    """Create two records with files; the file of one is to be protected."""
    begin(app, make, place)


def make(app: Any, place: Place) -> None:
    put_collection(app)
    attach(app, place.record, CONTENT)
    attach(app, place.other, b"Another one")


def hold(app: Any, place: Place = HERE, **data: Any) -> Any:
    return app.put_json(
        f"{place.record}/attachment/hold", {"data": data}, headers=ALICE, status=200
    )


def lock(app: Any, place: Place = HERE) -> None:
    put(app, place.collection, data={"attachment": {"locked": True}})


def forget_holds(app: Any) -> None:
    """Make the process forget that files are held, as if another process had held them."""
    known = app.app.registry.attachment_holds
    if known.rolls_back:
        known.forget()


def check_nothing_changed(app: Any, before: Any, place: Place = HERE) -> None:
    """Check the file, the record and all other files."""
    assert snapshot(app, place) == before
    assert not invariants.lost(app.app.registry)


def snapshot(app: Any, place: Place = HERE) -> dict[str, Any]:
    with transaction.manager:
        record = stored_record(app.app.registry, place.real_record)
    key = key_of((record or {})["attachment"])
    return {"record": record, "files": stored_files(app), "content": stored_content(app, key)}


# The plugin that writes by itself is included before or after ours; then the kind of hold, and
# whether the process knows that files are held.
CASES = {
    "dated": (PUBLISHING, "dated", True),
    "open": (PUBLISHING_FIRST, "open", True),
    "unknown": (PUBLISHING, "open", False),
}


class TestEachWay:
    @sampled(4, "backends", "way", "case")
    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    @pytest.mark.parametrize("way", WAYS)
    def test_to_lose_a_held_file(
        self, build: Build, way: str, case: tuple[dict[str, str], str, bool]
    ) -> None:
        plugins, kind, is_known = case
        app, wanted = build(plugins), HOLDS[kind]
        start(app)
        hold(app, **wanted)
        before = snapshot(app)
        if not is_known:
            forget_holds(app)
        answer = WAYS[way](app, HERE)
        if answer.status_int == 201 and way in ("direct", "resumable"):
            # This process does not know of the hold: the end of the upload is refused.
            url = answer.headers["Location"]
            if way == "direct":
                answer = direct.put_own(app, answer.json["data"], b"new", status="*")
            else:
                answer = app.patch(url, b"new", headers=RESUMING, status="*")
            app.delete(url, headers=ALICE)
        assert answer.status_int == 423
        told = answer.json["details"]
        assert told["until"] == wanted["until"]
        assert told["reason"] == wanted.get("reason")
        assert told["record"] == HERE.record
        check_nothing_changed(app, before)

    @pytest.mark.parametrize("way", ["form", "delete record", "delete collection", "flush"])
    def test_a_held_file_is_moved_and_stays_held(
        self, build: Build, tmp_path_factory: pytest.TempPathFactory, way: str
    ) -> None:
        folder = tmp_path_factory.getbasetemp() / "other storage"
        app = build(PUBLISHING, **{"storages.cold.base_path": str(folder)})
        start(app)
        hold(app, **HOLDS["dated"])
        registry = app.app.registry
        for to in ("cold", ""):
            assert move(registry, to, Selection(), keep=timedelta(0)).deleted == 2
            assert WAYS[way](app, HERE).status_int == 423
            assert read(app, f"{HERE.record}/attachment") == CONTENT
            assert not invariants.lost(registry)
        assert stored_files(app) == {link.key for link in links_of(app)}

    @sampled(3, "backends", "way", "by")
    @pytest.mark.parametrize("by", ["setting", "data"])
    @pytest.mark.parametrize("way", WAYS)
    def test_to_change_a_locked_file(self, build: Build, way: str, by: str) -> None:
        app = build(PUBLISHING)
        start(app)
        if by == "data":
            lock(app)
        before = snapshot(app)
        with changed_setting(app, "locked", by == "setting"):
            answer = WAYS[way](app, HERE)
        if way in UNLOCKED:
            assert answer.status_int in (200, 202)
            return
        assert answer.status_int == 423
        assert answer.json["details"]["until"] is None
        assert "locked" in answer.json["details"]["reason"]
        check_nothing_changed(app, before)


RESUMING = {
    **ALICE,
    "Tus-Resumable": "1.0.0",
    "Content-Type": "application/offset+octet-stream",
    "Upload-Offset": "0",
}


def parts(way: Request, place: Place) -> list[dict[str, Any]]:
    """The way, between two parts that do not concern the file."""
    path = f"/v1{place.other}"
    title = {"method": "PATCH", "path": path}
    first, last = ({**title, "body": {"data": {"title": name}}} for name in ("first", "last"))
    return [first, way.as_part(place), last]


class TestBatches:
    @sampled(3, "backends", "way", "is_known")
    @pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
    @pytest.mark.parametrize("way", {**IN_BATCHES, **WHOLE})
    def test_only_the_part_is_refused_that_is_about_a_held_file(
        self, app: Any, way: str, is_known: bool
    ) -> None:
        start(app)
        hold(app, until=FAR)
        before = snapshot(app)
        if not is_known:
            forget_holds(app)
        requests = parts({**IN_BATCHES, **WHOLE}[way], HERE)
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [each["status"] for each in answers] == [200, 423, 200]
        assert answers[1]["body"]["details"]["until"] == FAR
        check_nothing_changed(app, before)
        assert app.get(HERE.other, headers=ALICE).json["data"]["title"] == "last"

    @pytest.mark.parametrize("way", IN_BATCHES)
    def test_only_the_part_is_refused_that_is_about_a_locked_file(
        self, app: Any, way: str
    ) -> None:
        start(app)
        lock(app)
        before = snapshot(app)
        requests = parts(IN_BATCHES[way], HERE)
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [each["status"] for each in answers] == [200, 423, 200]
        check_nothing_changed(app, before)


class TestDefaultBuckets:
    @pytest.fixture
    def place(self, app: Any) -> Place:
        bucket = app.get("/", headers=ALICE).json["user"]["bucket"]
        return Place("/buckets/default", f"/buckets/{bucket}")

    @pytest.mark.parametrize("way", {**UPLOADS, **IN_BATCHES, **WHOLE})
    def test_keep_files_that_are_held(self, app: Any, place: Place, way: str) -> None:
        start(app, place)
        hold(app, place, until=None)
        before = snapshot(app, place)
        assert WAYS[way](app, place).status_int == 423
        check_nothing_changed(app, before, place)

    @pytest.mark.parametrize("way", {**UPLOADS, **IN_BATCHES})
    def test_keep_files_that_are_locked(self, app: Any, place: Place, way: str) -> None:
        start(app, place)
        lock(app, place)
        before = snapshot(app, place)
        assert WAYS[way](app, place).status_int == 423
        check_nothing_changed(app, before, place)


@ON_OBJECT_STORES
def test_held_files_stay_in_object_stores(app: Any) -> None:
    start(app)
    hold(app, until=FAR)
    before = snapshot(app)
    for way in ("raw", "copy", "detach", "delete record", "delete collection", "flush"):
        assert WAYS[way](app, HERE).status_int == 423, way
    check_nothing_changed(app, before)
