"""gc: the files that it deletes, reports and keeps."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import transaction

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.index.link import Link
from kinto_attachment.maintenance import heartbeat
from kinto_attachment.maintenance.collection import GcReport
from kinto_attachment.maintenance.dangling import DanglingLinks
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.storage import ListsUnfinished
from tests.support import waiting
from tests.support.application import (
    ALICE,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    key_of,
    outbox,
    put,
    put_collection,
    read,
    sha256,
    stored_files,
    stored_links,
    write_behind,
)
from tests.support.backends import (
    EVERYWHERE,
    ON_DATABASES,
    ON_MEMORY,
    ON_POSTGRESQL,
    Build,
    runs_on,
)
from tests.support.interruptions import failing_deletes
from tests.support.owned import STRAY, stray

pytestmark = EVERYWHERE

# Clocks differ, and times of object stores have no fractions of seconds.
AT_ONCE = timedelta(seconds=-5)


def store(app: Any, key: str = STRAY, content: bytes = b"stray") -> None:
    """Store a file that belongs to no request, as if left by a killed one."""
    app.app.registry.attachment_storages.default.files.write(
        key, io.BytesIO(content), "text/plain"
    )


def collect(app: Any, grace: timedelta = AT_ONCE, **options: Any) -> GcReport:
    options = {"orphan_age": timedelta(0), "pause": timedelta(0), **options}
    return gc(app.app.registry, grace=grace, **options)


def test_a_clean_server_has_nothing_to_collect(app: Any) -> None:
    attach(app)
    attach(app, OTHER)
    report = collect(app)
    assert not report.found
    assert report.scanned == 2
    assert len(stored_files(app)) == 2


@pytest.mark.parametrize("shared", [False, True], ids=["sole", "shared"])
def test_a_file_that_is_kept_while_gc_looks_stays(
    build: Build, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    app = build(keep_old_files="true", max_size="1000")
    attachment = attach(app).json
    kept = key_of(attachment)
    links = app.app.registry.attachment_links
    if shared:
        write_behind(app, OTHER, {"attachment": attachment})
        with transaction.manager:
            links.share(Link.to(OTHER, kept, attachment))
    look = DanglingLinks.among

    def replace_first(dangling: Any, found: list[Link]) -> list[Link]:
        if not replaced:
            replaced.append(waiting.elsewhere(attach, app, content=b"new"))
        return look(dangling, found)

    replaced: list[Any] = []
    monkeypatch.setattr(DanglingLinks, "among", replace_first)
    assert not collect(app).missing
    assert replaced
    assert kept in stored_files(app)
    with transaction.manager:
        states = {link.key: link.state for link in links.of_record(RECORD)}
    assert states == {kept: "kept", key_of(replaced[0].json): "current"}


def test_files_without_a_link_are_deleted(app: Any) -> None:
    attach(app)
    store(app)
    report = collect(app)
    assert (report.unlinked, report.freed) == ([STRAY], len(b"stray"))
    assert stored_files(app) == {key_of(attachment_of(app), base=None)}
    assert read(app)


def test_a_dry_run_only_reports(app: Any) -> None:
    store(app)
    assert collect(app, dry_run=True).unlinked == [STRAY]
    assert collect(app, dry_run=True).unlinked == [STRAY], "the first has deleted it"
    assert collect(app).unlinked == [STRAY]
    assert not collect(app, dry_run=True).found


def test_young_files_are_left_alone(app: Any) -> None:
    store(app)
    assert not collect(app, grace=timedelta(hours=1)).found
    assert stored_files(app) == {STRAY}
    collect(app)


@ON_MEMORY
@pytest.mark.parametrize(
    "key",
    [
        *("notes.txt", "index.html", "backup.tar", f"{STRAY}/other.txt", f"x{STRAY}"),
        # Names from other programs, including this plugin on another site.
        *(
            "00000000-0000-4000-8000-000000000000.txt",
            "folder/6f9619ff-8b86-4d01-b42d-00c04fc964ff.txt",
        ),
        "__heartbeat__/6f9619ff-8b86-4d01-b42d-00c04fc964fe.txt",
    ],
)
@pytest.mark.parametrize("randomize", ["true", "false"])
def test_files_of_others_are_left_alone(build: Build, key: str, randomize: str) -> None:
    app = build(randomize=randomize)
    store(app, key)
    assert not collect(app, really=True).found
    assert stored_files(app) == {key}
    app.app.registry.attachment_storages.default.files.delete(key)


@ON_MEMORY
def test_names_that_the_plugin_gave_are_known_in_any_folder(build: Build) -> None:
    app = build({"attachment.folder": "{collection_id}"})
    registry = app.app.registry
    uploaded = registry.attachment_site.random_name(registry.attachment_storages.default, "a.TXT")
    keys = [STRAY, f"earlier/folder/{stray(1)}", f"c/{uploaded}"]
    for key in keys:
        store(app, key)
    assert sorted(collect(app).unlinked) == sorted(keys)
    assert not stored_files(app)


@ON_DATABASES
def test_reserved_names_of_requests_that_died_tell_whose_files_they_are(build: Build) -> None:
    """The name of an old file may now be reserved for a new one that is being uploaded."""
    app = build(randomize="false")
    for key in ("notes.txt", "index.html"):
        store(app, key)
        os.utime(app.app.registry.attachment_storages.default.files.path(key), (0, 0))
    links = app.app.registry.attachment_links
    with transaction.manager:
        assert links.reservations.claim("notes.txt")
    report = collect(app, grace=timedelta(hours=1))
    assert (report.unlinked, report.freed) == ([], 0)
    assert collect(app, orphan_age=timedelta(days=1)).orphaned
    with transaction.manager:
        assert links.reservations.has("notes.txt"), "without it, nobody knows whose file it is"
    report = collect(app)
    assert (report.unlinked, report.freed) == (["notes.txt"], len(b"stray"))
    assert stored_files(app) == {"index.html"}
    with transaction.manager:
        assert not links.reservations.has("notes.txt")
    app.app.registry.attachment_storages.default.files.delete("index.html")


@ON_DATABASES
def test_a_file_that_an_upload_could_not_delete_is_known_by_its_name(build: Build) -> None:
    app = build(randomize="false")
    put(app, COLLECTION, data={"schema": {"type": "object", "required": ["title"]}})
    with failing_deletes(app):
        attach(app, status=400)
    assert stored_files(app) == {"notes.txt"}
    assert collect(app).unlinked == ["notes.txt"]
    assert not stored_files(app)


@ON_DATABASES
def test_a_file_that_was_stored_although_the_storage_failed_is_known_by_its_name(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, the response was lost."""
    app = build(randomize="false")
    files = app.app.registry.attachment_storages.default.files
    write = files.write

    def write_and_fail(*args: Any, **headers: Any) -> None:
        write(*args, **headers)
        raise StorageUnavailable()

    monkeypatch.setattr(files, "write", write_and_fail)
    attach(app, status=503)
    monkeypatch.undo()
    assert collect(app).unlinked == ["notes.txt"]
    assert not stored_files(app)
    collect(app)
    assert key_of(attach(app).json) == "notes.txt", "the name is free again"


@ON_MEMORY
def test_files_of_heartbeats_that_died_are_deleted(app: Any) -> None:
    key = f"__heartbeat__/{STRAY}"
    store(app, key, heartbeat.CONTENT)
    assert collect(app).unlinked == [key]
    assert not stored_files(app)


@ON_DATABASES
def test_deletions_that_failed_are_finished(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(app)
    key = key_of(attachment_of(app))

    def refuse(*keys: str) -> bool:
        raise StorageUnavailable()

    with monkeypatch.context() as patched:
        patched.setattr(app.app.registry.attachment_storages.default.files, "delete", refuse)
        attach(app, content=b"new")
        assert collect(app, dry_run=True).finished == [key]
        failed = collect(app)
        assert failed.errors
        assert key in failed.errors[0]
    assert len(stored_files(app)) == 2
    assert len(outbox(app)) == 1
    assert collect(app).finished == [key]
    assert len(stored_files(app)) == 1
    assert not outbox(app)
    assert not collect(app).found


@ON_DATABASES
def test_links_of_records_that_are_gone_are_dropped(app: Any) -> None:
    attach(app)
    key = key_of(attachment_of(app))
    parent, _, object_id = RECORD.rpartition("/records/")
    with transaction.manager:
        app.app.registry.storage.delete("record", parent, object_id, with_deleted=False)
    assert collect(app, dry_run=True).dangling == [RECORD]
    assert stored_files(app) == {key}
    assert collect(app).dangling == [RECORD]
    assert not stored_files(app)
    assert not stored_links(app)


@ON_DATABASES
def test_links_of_records_that_have_another_file_are_dropped(app: Any) -> None:
    attach(app)
    old = Link.to(RECORD, STRAY, {"hash": sha256(b"stray")})
    store(app)
    with transaction.manager:
        app.app.registry.attachment_links.add(old)
    assert collect(app).dangling == [RECORD]
    assert stored_files(app) == {key_of(attachment_of(app))}


@ON_MEMORY
def test_kept_files_are_kept_when_their_record_is_gone(build: Build) -> None:
    app = build(keep_old_files="true")
    attach(app)
    attach(app, content=b"new")
    app.delete(RECORD, headers=ALICE)
    assert not collect(app).found
    assert len(stored_files(app)) == 2


@ON_POSTGRESQL
@pytest.mark.parametrize(
    "before", [None, "", "https://old.example/files/", "https://new.example/files/"]
)
def test_files_stay_when_the_base_url_was_changed(build: Build, before: str | None) -> None:
    app = build(keep_old_files="true", **({} if before is None else {"base_url": before}))
    attach(app, content=b"earlier")
    attach(app)
    moved = build(base_url="https://new.example/")
    assert not collect(moved).found
    assert read(moved) == CONTENT
    unset = build()
    assert not collect(unset).found
    assert read(unset) == CONTENT


@ON_MEMORY
@pytest.mark.parametrize("location", ["https://old.example/a.txt", "a.txt", ""])
def test_files_stay_of_records_that_others_wrote_with_another_address_and_hash(
    app: Any, location: str
) -> None:
    """The address shows nothing here: the file may still belong to the record."""
    attachment = attach(app).json
    changed = {**attachment, "location": location, "hash": "0" * 64}
    write_behind(app, RECORD, {"attachment": changed})
    assert not collect(app).dangling
    assert len(stored_files(app)) == 1
    write_behind(app, RECORD, {"attachment": attachment})


@ON_MEMORY
def test_a_file_goes_whose_record_others_gave_another_one(app: Any) -> None:
    attach(app)
    other = attach(app, OTHER, b"other").json
    write_behind(app, RECORD, {"attachment": other})
    assert collect(app).dangling == [RECORD]
    assert stored_files(app) == {key_of(other)}
    app.delete(RECORD, headers=ALICE)
    assert read(app, f"{OTHER}/attachment") == b"other"


@ON_DATABASES
def test_a_file_that_comes_while_gc_looks_is_not_missing(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = app.app.registry.attachment_storages.default.files
    attach(app)
    look = storage.list

    def look_and_be_overtaken() -> Iterator[Any]:
        yield from look()
        waiting.elsewhere(attach, app, OTHER, status=201)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "list", look_and_be_overtaken)
        report = collect(app)
    assert report.scanned == 1
    assert not report.found


@ON_MEMORY
@pytest.mark.parametrize("shards", [1, 3])
def test_the_storage_is_not_asked_for_files_that_it_has_listed(
    app: Any, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """Otherwise gc would send a request for each file."""
    for number in range(20):
        attach(app, f"{COLLECTION}/records/r{number}")
    asked: list[str] = []
    storage = app.app.registry.attachment_storages.default.files
    with monkeypatch.context() as patched:
        patched.setattr(storage, "exists", lambda key: bool(asked.append(key)) or True)
        for index in range(shards):
            assert not collect(app, shard=Shard(index + 1, shards)).found
    assert asked == []


@ON_DATABASES
def test_records_whose_file_is_missing_are_reported(app: Any) -> None:
    attach(app)
    attach(app, OTHER)
    storage = app.app.registry.attachment_storages.default.files
    key = key_of(attachment_of(app))
    content = read(app)
    storage.delete(key)
    assert collect(app).missing == [RECORD]
    assert stored_links(app) >= {(RECORD, key, "current")}, "a restored file must find its link"
    store(app, key, content)
    assert not collect(app).found


@ON_DATABASES
def test_a_record_that_is_gone_misses_no_file(app: Any) -> None:
    """For example, another program or release deleted both."""
    attach(app)
    registry = app.app.registry
    registry.attachment_storages.default.files.delete(key_of(attachment_of(app)))
    parent, _, object_id = RECORD.rpartition("/records/")
    with transaction.manager:
        registry.storage.delete("record", parent, object_id, with_deleted=False)
    report = collect(app, orphan_age=timedelta(days=1))
    assert (report.dangling, report.missing) == ([RECORD], [])
    assert collect(app).dangling == [RECORD]
    assert not collect(app).dangling


# Not on moto, where all multipart uploads have the start time 2010.
@runs_on("local", "seaweedfs", "gcs")
def test_remains_of_interrupted_writes_are_removed(app: Any) -> None:
    storage = app.app.registry.attachment_storages.default.files
    if not isinstance(storage, ListsUnfinished):
        pytest.fail("every storage with unfinished writes has to list them")
    start_unfinished(storage)
    before = len(list(storage.list_unfinished()))
    assert not collect(app, grace=timedelta(hours=1)).unfinished
    assert len(collect(app, dry_run=True).unfinished) == before
    assert len(list(storage.list_unfinished())) == before
    assert len(collect(app).unfinished) == before
    assert not list(storage.list_unfinished())


def start_unfinished(storage: Any) -> None:
    """Create the remains of a process that is killed while it writes a large file."""
    if hasattr(storage, "base_path"):
        folder = os.path.join(storage.base_path, ".unfinished")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"abc-1@host:{STRAY}"), "wb") as file:
            file.write(b"half")
    elif hasattr(storage, "s3_client"):
        storage.s3_client.create_multipart_upload(Bucket=storage.bucket_name, Key=STRAY)


@ON_DATABASES
def test_names_reserved_by_requests_that_died_are_freed(build: Build) -> None:
    app = build(randomize="false")
    links = app.app.registry.attachment_links
    with transaction.manager:
        assert links.reservations.claim("notes.txt")
    attach(app)
    assert key_of(attachment_of(app)) == "notes-1.txt"
    collect(app, grace=timedelta(hours=1))
    attach(app, OTHER)
    assert key_of(attachment_of(app, OTHER)) == "notes-2.txt"
    collect(app)
    attach(app, f"{COLLECTION}/records/third")
    assert key_of(attachment_of(app, f"{COLLECTION}/records/third")) == "notes.txt"


@ON_DATABASES
def test_shards_share_the_work(app: Any) -> None:
    keys = {stray(number) for number in range(40)}
    for key in keys:
        store(app, key)
    attach(app)
    attach(app, OTHER)
    storage = app.app.registry.attachment_storages.default.files
    storage.delete(key_of(attachment_of(app)))
    reports = [collect(app, shard=Shard(index, 3)) for index in (1, 2, 3)]
    found = [key for report in reports for key in report.unlinked]
    assert sorted(found) == sorted(keys)
    assert all(report.unlinked for report in reports)
    assert [uri for report in reports for uri in report.missing] == [RECORD]
    assert sum(report.scanned for report in reports) == 41
    app.delete(RECORD, headers=ALICE)


@ON_MEMORY
def test_more_links_than_a_page_are_checked(build: Build) -> None:
    app = build({"storage_max_fetch_size": 5})
    for number in range(12):
        attach(app, f"{COLLECTION}/records/r{number}")
    app.app.registry.attachment_links.page_size = 5
    assert not collect(app).found
    app.app.registry.attachment_storages.default.files.delete(
        key_of(attachment_of(app, f"{COLLECTION}/records/r7"))
    )
    assert collect(app).missing == [f"{COLLECTION}/records/r7"]
    app.delete(f"{COLLECTION}/records/r7", headers=ALICE)


@ON_MEMORY
def test_an_unreachable_storage_is_an_error_and_nothing_is_deleted(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(app)
    storage = app.app.registry.attachment_storages.default.files

    def refuse(*arguments: Any) -> Any:
        raise StorageUnavailable()

    with monkeypatch.context() as patched:
        patched.setattr(storage, "list", refuse)
        report = collect(app)
    assert report.errors
    assert not report.unlinked
    assert read(app)


@ON_MEMORY
def test_progress_is_told(app: Any) -> None:
    store(app)
    start_unfinished(app.app.registry.attachment_storages.default.files)
    steps: list[tuple[str, int]] = []
    collect(app, progress=lambda step, count: steps.append((step, count)))
    assert steps == [("remains removed", 1)]


@ON_MEMORY
def test_progress_is_told_for_every_thousand_files(app: Any) -> None:
    storage = app.app.registry.attachment_storages.default.files
    os.makedirs(storage.base_path, exist_ok=True)
    for number in range(1001):  # Not with the storage, which would sync each file.
        with open(storage.path(f"{number:04}.txt"), "wb"):
            pass
    steps: list[tuple[Any, ...]] = []
    collect(app, dry_run=True, progress=lambda *step: steps.append(step))
    assert steps == [("files scanned", 1000, 0)]  # Files and links are usually as many.
    storage.delete(*stored_files(app))


@ON_MEMORY
def test_attachments_written_behind_our_back_are_no_reason_to_delete_theirs(app: Any) -> None:
    put_collection(app)
    attach(app)
    record = {"id": "copy", "attachment": attachment_of(app)}
    write_behind(app, f"{COLLECTION}/records/copy", record)
    assert not collect(app).found
    assert read(app)
    app.delete(f"{COLLECTION}/records/copy", headers=ALICE)
