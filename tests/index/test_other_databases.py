"""Storage backends for Kinto from other packages, of which only the interface is known."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from kinto.core.events import ResourceChanged

from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.reindex import reindex
from tests.support.application import (
    ALICE,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    on_event,
    outbox,
    read,
    stored_files,
    stored_links,
)
from tests.support.backends import ON_MEMORY, Build
from tests.support.owned import STRAY

pytestmark = ON_MEMORY


@pytest.fixture
def app(build: Build) -> Any:
    return build({"storage_backend": "tests.support.other_database"})


def test_files_are_attached_replaced_and_deleted(app: Any) -> None:
    attach(app, RECORD, b"first")
    attach(app, RECORD, b"second")
    attach(app, OTHER, b"third")

    assert len(stored_files(app)) == 2
    assert read(app) == b"second"
    app.delete(f"{RECORD}/attachment", headers=ALICE)
    assert len(stored_files(app)) == 1
    app.delete(COLLECTION, headers=ALICE)
    assert not stored_files(app)
    assert not outbox(app)


def test_a_record_whose_collection_is_gone_gets_no_link(app: Any) -> None:
    storage = app.app.registry.storage

    def delete_collection(event: Any) -> None:
        if event.payload["resource_name"] == "record":
            storage.delete("collection", "/buckets/b", "c", with_deleted=False)

    on_event(app, ResourceChanged, delete_collection)
    attach(app, RECORD, status=409)
    assert not stored_links(app)

    # Undo what a rollback would, which this backend does not have.
    storage.delete("record", COLLECTION, "r")
    app.app.registry.attachment_storages.default.files.delete(*stored_files(app))


def test_gc_keeps_files_that_a_transaction_may_be_linking(app: Any) -> None:
    attach(app, RECORD)
    files = app.app.registry.attachment_storages.default.files
    files.write(STRAY, io.BytesIO(b"stray"), "text/plain")
    report = gc(
        app.app.registry, grace=timedelta(seconds=-5), orphan_age=timedelta(0), pause=timedelta(0)
    )

    assert len(report.errors) == 1
    assert "transaction" in report.errors[0]
    assert STRAY in stored_files(app)
    assert not report.unlinked
    assert not reindex(app.app.registry).found
    files.delete(STRAY)
