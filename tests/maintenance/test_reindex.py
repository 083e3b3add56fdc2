"""reindex: links created again from records, for other programs' data and after restores."""

from __future__ import annotations

from typing import Any

import pytest
import transaction

from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.reindex import ReindexReport, reindex
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    key_of,
    links_of,
    put,
    put_collection,
    read,
    stored_files,
    stored_links,
    write_behind,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, Build


def lose_links(app: Any) -> set[tuple[str, str, str]]:
    """Delete the links, as if another plugin had written the records; returns the lost links."""
    lost = stored_links(app)
    with transaction.manager:
        app.app.registry.storage.delete_all("attachment", "attachments:*", with_deleted=False)
    return lost


@ON_DATABASES
def test_every_record_with_a_file_is_linked_again(app: Any) -> None:
    other_collection = f"{BUCKET}/collections/d"
    put_collection(app, other_collection)
    for uri in (RECORD, OTHER, f"{other_collection}/records/r"):
        attach(app, uri)
    put(app, f"{COLLECTION}/records/plain", data={"title": "no file"})
    attach(app, f"{COLLECTION}/records/removed")
    app.delete(f"{COLLECTION}/records/removed/attachment", headers=ALICE)
    lost = lose_links(app)
    assert reindex(app.app.registry) == ReindexReport(records=3, linked=3)
    assert stored_links(app) == lost
    assert reindex(app.app.registry) == ReindexReport(records=3, linked=0), "twice is as once"


@ON_DATABASES
def test_a_file_of_several_records_lives_until_the_last_lets_go(app: Any) -> None:
    attach(app)
    record = {"id": "other", "attachment": attachment_of(app)}
    write_behind(app, OTHER, record)
    lose_links(app)
    assert reindex(app.app.registry).linked == 2
    app.delete(RECORD, headers=ALICE)
    assert read(app, f"{OTHER}/attachment")
    app.delete(OTHER, headers=ALICE)
    assert not stored_files(app)


@ON_DATABASES
def test_a_record_that_only_kept_its_file_is_linked_again(build: Build) -> None:
    """As if a backup of the record, but not of the index, had been restored."""
    app = build(keep_old_files="true")
    attachment = attach(app).json
    app.delete(f"{RECORD}/attachment", headers=ALICE)
    assert {state for _, _, state in stored_links(app)} == {"kept"}
    write_behind(app, RECORD, {"attachment": attachment})
    foreign = {**attachment, "location": "https://elsewhere.example/x.txt"}
    attach(app, OTHER)
    app.delete(f"{OTHER}/attachment", headers=ALICE)
    write_behind(app, OTHER, {"attachment": foreign})
    assert reindex(app.app.registry) == ReindexReport(records=2, linked=1, foreign=[OTHER])
    assert (RECORD, key_of(attachment), "current") in stored_links(app)
    assert read(app)
    app.delete(OTHER, headers=ALICE)


@ON_DATABASES
def test_a_record_that_was_made_again_begins_a_life_of_its_own(build: Build) -> None:
    """Files of an earlier record with its id are not among its versions, now or later."""
    app = build(keep_old_files="true")
    versions = f"{RECORD}/attachment/versions"
    first = attach(app, content=b"one").headers["Attachment-Version"]
    app.delete(RECORD, headers=ALICE)
    attach(app, content=b"two")
    (new,) = (link for link in links_of(app) if link.is_current)
    with transaction.manager:
        app.app.registry.storage.delete("attachment", new.parent, new.id, with_deleted=False)
    assert reindex(app.app.registry).linked == 1
    app.delete(RECORD, headers=ALICE)
    app.post(f"{versions}/{first}/restore", headers=ALICE, status=201)
    assert [each["id"] for each in app.get(versions, headers=ALICE).json["data"]] == [first]


@ON_DATABASES
def test_what_cannot_be_matched_is_reported(app: Any) -> None:
    attach(app)
    app.app.registry.attachment_storages.default.files.delete(key_of(attachment_of(app)))
    foreign = {"id": "other", "attachment": {"location": "https://elsewhere.example/x.txt"}}
    write_behind(app, OTHER, foreign)
    write_behind(app, f"{COLLECTION}/records/odd", {"id": "odd", "attachment": "no object"})
    lose_links(app)
    report = reindex(app.app.registry)
    assert report.missing == [RECORD]
    assert sorted(report.foreign) == sorted([OTHER, f"{COLLECTION}/records/odd"])
    assert report.linked == 0
    assert not stored_links(app)
    for uri in (RECORD, OTHER, f"{COLLECTION}/records/odd"):
        parent, _, object_id = uri.rpartition("/records/")
        with transaction.manager:
            app.app.registry.storage.delete("record", parent, object_id, with_deleted=False)


@ON_MEMORY
def test_more_records_than_a_page_are_read(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RECORDS_AT_ONCE", 20)
    attach(app)
    attachment = attachment_of(app)
    for number in range(45):
        write_behind(app, f"{COLLECTION}/records/r{number}", {"attachment": attachment})
    told: list[tuple[int, int]] = []
    report = reindex(app.app.registry, progress=lambda _, *counts: told.append(counts))
    assert (report.records, report.linked) == (46, 45)
    assert told[-1] == (46, 46)
    app.delete(COLLECTION, headers=ALICE)
    assert not stored_files(app)
