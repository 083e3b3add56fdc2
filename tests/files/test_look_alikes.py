"""Buckets and collections whose ids differ where one has ``_``, a wildcard in LIKE."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import transaction

from kinto_attachment.files.stored_records import delete_records_below
from tests.support.application import (
    ALICE,
    BOB,
    BUCKET,
    CONTENT,
    attach,
    put,
    put_collection,
    read,
    records,
    stored_files,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build

MINE, OTHER = "/buckets/a_b", "/buckets/axb"
READERS = {"permissions": {"read": ["system.Authenticated"]}}


@pytest.fixture
def app(build: Build) -> Any:
    app = build()
    for bucket in (MINE, OTHER):
        put_collection(app, f"{bucket}/collections/c")
        for name in ("r", "r2"):
            attach(app, f"{bucket}/collections/c/records/{name}")
    app.patch_json(f"{OTHER}/collections/c/records/r", READERS, headers=ALICE)
    return app


def check_untouched(app: Any, *buckets: str) -> None:
    for bucket in buckets:
        found = app.get(f"{bucket}/collections/c/records", headers=ALICE).json["data"]
        assert {record["id"] for record in found} == {"r", "r2"}
        assert read(app, f"{bucket}/collections/c/records/r2/attachment") == CONTENT
    assert read(app, f"{OTHER}/collections/c/records/r/attachment", BOB) == CONTENT


@ON_POSTGRESQL
class TestOfBuckets:
    def test_one_is_not_deleted_with_the_records_of_another(
        self, app: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "kinto_attachment.files.look_alikes"):
            answer = app.delete(MINE, headers=ALICE, status=409).json
        assert (answer["errno"], answer["error"]) == (122, "Conflict")
        assert "axb" not in answer["message"]
        assert "the records of axb" in caplog.text
        check_untouched(app, MINE, OTHER)

    def test_it_can_be_deleted_when_the_other_is_gone(self, app: Any) -> None:
        app.delete(OTHER, headers=ALICE)  # Nothing else matches its id.
        assert len(stored_files(app)) == 2
        app.delete(MINE, headers=ALICE)
        assert not stored_files(app)

    def test_kinto_answers_for_one_that_is_not_there(self, app: Any) -> None:
        app.delete("/buckets/a__", headers=ALICE, status=403)

    def test_a_part_of_a_batch_is_refused(self, app: Any) -> None:
        parts = [
            {"method": "DELETE", "path": MINE},
            {"method": "PUT", "path": BUCKET, "body": {"data": {"n": 1}}},
        ]
        answer = app.post_json("/batch", {"requests": parts}, headers=ALICE).json
        assert [part["status"] for part in answer["responses"]] == [409, 200]
        check_untouched(app, MINE, OTHER)

    def test_all_are_deleted_at_once(self, app: Any) -> None:
        app.delete("/buckets", headers=ALICE)
        assert not stored_files(app)
        put_collection(app)

    def test_of_many_only_one_is_refused(self, app: Any) -> None:
        app.delete("/buckets?id=a_b", headers=ALICE, status=409)
        check_untouched(app, MINE, OTHER)

    def test_what_kinto_leaves_is_deleted_of_this_one_alone(self, app: Any) -> None:
        """Kinto deletes the records that one query returns, and the plugin the others."""
        with transaction.manager:
            delete_records_below(app.app.registry, MINE)
        assert set(records(app)) == {f"{OTHER}/collections/c/records/{n}" for n in ("r", "r2")}
        assert read(app, f"{OTHER}/collections/c/records/r/attachment", BOB) == CONTENT
        app.delete("/buckets", headers=ALICE)
        put_collection(app)


@ON_MEMORY
def test_in_memory_there_are_no_such_patterns(app: Any) -> None:
    app.delete(MINE, headers=ALICE)
    check_untouched(app, OTHER)


@ON_DATABASES
@pytest.mark.parametrize("path", ["/c_d", "?id=c_d"])
def test_of_collections(build: Build, path: str) -> None:
    app = build()
    for name in ("c_d", "cxd"):
        put(app, f"{BUCKET}/collections/{name}")
        attach(app, f"{BUCKET}/collections/{name}/records/r")
    app.delete(f"{BUCKET}/collections{path}", headers=ALICE)
    assert set(records(app)) == {f"{BUCKET}/collections/cxd/records/r"}
    assert read(app, f"{BUCKET}/collections/cxd/records/r/attachment") == CONTENT
    assert len(stored_files(app)) == 1
