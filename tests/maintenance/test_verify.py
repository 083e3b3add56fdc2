"""``kinto-attachment verify``: damaged and missing files are found in every storage."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import transaction

from kinto_attachment import cli
from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.index.orphans import short_digest
from kinto_attachment.maintenance import small_files, verify as maintenance
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.shards import Shard
from kinto_attachment.maintenance.verify import VerifyReport, verify
from kinto_attachment.storage import CHUNK_SIZE
from tests.support import direct, waiting
from tests.support.application import (
    ALICE,
    COLLECTION,
    RECORD,
    attach,
    links_of,
    move_behind,
    put_collection,
    records,
    sha256,
    write_behind,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build, runs_on

CONTENT = os.urandom(100_000)
MONTH = timedelta(days=30)


def record(name: str, collection: str = COLLECTION) -> str:
    return f"{collection}/records/{name}"


def files_of(app: Any, storage: str = "") -> Any:
    return app.app.registry.attachment_storages[storage].files


def report(app: Any, selection: Selection | None = None, **options: Any) -> VerifyReport:
    return verify(app.app.registry, selection or Selection(), **options)


def exchange(app: Any, key: str, content: bytes) -> None:
    """Damage a stored file, on any backend."""
    files_of(app).delete(key)
    files_of(app).write(key, io.BytesIO(content), "text/plain")


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def forget(app: Any, uri: str) -> None:
    """Delete a record whose file a test has damaged."""
    app.delete(uri, headers=ALICE)


def key_of(app: Any, uri: str) -> str:
    (link,) = [link for link in links_of(app) if link.record == uri]
    return str(link.key)


def noted(app: Any, *keys: str) -> set[str]:
    """The keys that are noted as intact."""
    with transaction.manager:
        known = app.app.registry.attachment_links.verified.read("", map(short_digest, keys))
    return {key for key in keys if short_digest(key) in known}


@pytest.fixture
def by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make processes read files of local folders, even if there are few."""
    monkeypatch.setattr(small_files, "FEWEST", 1)


@EVERYWHERE
@pytest.mark.usefixtures("by_processes")
class TestFindings:
    @pytest.mark.parametrize(
        ("damaged", "reason"),
        [
            (flipped(CONTENT), "its SHA-256 is"),
            (CONTENT[:-1], "it has 99999 bytes instead of 100000"),
            (b"", "it has 0 bytes instead of 100000"),
            (CONTENT + b"xy", "it has 100002 bytes instead of 100000"),
        ],
        ids=["a flipped bit", "cut", "empty", "longer"],
    )
    def test_damaged(self, app: Any, damaged: bytes, reason: str) -> None:
        attach(app, content=CONTENT)
        attach(app, record("whole"), b"whole")
        key = key_of(app, RECORD)
        exchange(app, key, damaged)
        before = records(app)
        found = report(app)
        (finding,) = found.damaged
        assert finding["reason"].startswith(reason)
        assert (finding["key"], finding["records"]) == (key, [RECORD])
        assert (found.files, found.bytes) == (1, 5)
        assert not found.missing + found.unreadable
        assert records(app) == before
        assert key in {file.key for file in files_of(app).list()}, "a finding is not deleted"
        exchange(app, key, CONTENT)
        assert not report(app).found

    def test_missing(self, app: Any) -> None:
        attach(app)
        key = key_of(app, RECORD)
        files_of(app).delete(key)
        found = report(app)
        (finding,) = found.missing
        assert (finding["key"], finding["records"]) == (key, [RECORD])
        assert found.files == 0
        assert not found.damaged + found.unreadable
        forget(app, RECORD)

    def test_all_is_well(self, build: Build) -> None:
        app = build(keep_old_files="true")
        for content in (b"old", b"", CONTENT):
            attach(app, content=content)
        found = report(app)
        assert (found.files, found.bytes, found.found) == (3, 100_003, False)


@ON_DATABASES
@pytest.mark.usefixtures("by_processes")
class TestNotes:
    def test_what_was_verified_lately_is_left_out(self, app: Any) -> None:
        attach(app, content=CONTENT)
        report(app)
        attach(app, record("new"), b"new")
        exchange(app, key_of(app, RECORD), flipped(CONTENT))
        found = report(app, older_than=MONTH)
        assert (found.files, found.left_out, found.found) == (1, 1, False)
        assert len(report(app, older_than=timedelta(0)).damaged) == 1
        assert len(report(app).damaged) == 1
        forget(app, RECORD)

    def test_what_is_damaged_is_read_again(self, app: Any) -> None:
        attach(app, content=CONTENT)
        key = key_of(app, RECORD)
        report(app)
        exchange(app, key, b"x")
        assert len(report(app).damaged) == 1
        assert not noted(app, key)
        assert len(report(app, older_than=MONTH).damaged) == 1
        forget(app, RECORD)

    def test_of_what_is_gone_are_forgotten(self, app: Any, monkeypatch: Any) -> None:
        # All in one row.
        monkeypatch.setattr(maintenance, "PREFIX", 0)
        monkeypatch.setattr("kinto_attachment.index.verified.PREFIX", 0)
        attach(app)
        attach(app, record("stays"))
        gone, stays = key_of(app, RECORD), key_of(app, record("stays"))
        report(app)
        assert noted(app, gone, stays) == {gone, stays}
        app.delete(f"{RECORD}/attachment", headers=ALICE)
        report(app, Selection(bucket="b"))
        assert noted(app, gone, stays) == {gone, stays}
        report(app)
        assert noted(app, gone, stays) == {stays}

    def test_an_ended_run_goes_on(self, app: Any, monkeypatch: Any) -> None:
        for number in range(6):
            attach(app, record(f"r{number}"), b"x")
        monkeypatch.setattr(maintenance, "AHEAD", 0)
        monkeypatch.setattr(maintenance, "FILES_AT_ONCE", 1)

        def end(step: str, count: int, total: int | None = None) -> None:
            if count == 3:
                raise KeyboardInterrupt()

        with pytest.raises(KeyboardInterrupt):
            report(app, progress=end)
        found = report(app, older_than=MONTH)
        assert (found.files, found.left_out) == (3, 3)


@ON_MEMORY
@pytest.mark.usefixtures("by_processes")
class TestSelection:
    def test_parts(self, app: Any) -> None:
        for collection in (COLLECTION, f"{COLLECTION}2", "/buckets/b2/collections/c"):
            put_collection(app, collection)
            attach(app, record("r", collection), b"123")
        assert report(app, Selection(bucket="b")).files == 2
        assert report(app, Selection(bucket="b", collection="c")).files == 1
        assert report(app, Selection(bucket="none")).files == 0
        shards = [report(app, Selection(shard=Shard(index, 3))) for index in (1, 2, 3)]
        assert sum(shard.files for shard in shards) == 3

    def test_a_sample(self, app: Any) -> None:
        for number in range(40):
            attach(app, record(f"r{number}"), b"1")
        found = report(app, sample=0.5)
        assert 0 < found.files < 40  # Wrong once in 10 ** 11 runs.
        assert found.files + found.left_out == 40

    def test_shared_files_are_read_once(self, app: Any) -> None:
        attach(app, content=b"12345")
        (link,) = links_of(app)
        with transaction.manager:
            for name in ("copy", "another"):
                app.app.registry.attachment_links.share(
                    replace(link, record=record(name), state="kept")
                )
        assert report(app).files == 1
        exchange(app, link.key, b"other")
        (finding,) = report(app).damaged
        assert finding["records"] == [record("another"), record("copy"), RECORD]
        exchange(app, link.key, b"12345")

    def test_several_storages(self, build: Build, tmp_path: Path) -> None:
        app = build(**{"storages.cold.base_path": str(tmp_path)})
        attach(app, content=b"here")
        attach(app, record("cold"), b"there")
        key = key_of(app, record("cold"))
        move_behind(app.app.registry, key, "cold")
        assert report(app).files == 2
        assert report(app, Selection(storage="cold")).bytes == 5
        files_of(app, "cold").delete(key)
        (finding,) = report(app).missing
        assert finding["storage"] == "cold"
        links = app.app.registry.attachment_links
        with transaction.manager:  # As if that storage were no longer configured.
            links.revise(key, lambda link: replace(link, storage="former"))
        found = report(app)
        assert (found.elsewhere, found.files, found.missing) == ({"former": 1}, 1, [])
        with transaction.manager:
            links.revise(key, lambda link: replace(link, storage="cold"))
        forget(app, record("cold"))


@ON_DATABASES
@pytest.mark.usefixtures("by_processes")
class TestBesideTheServer:
    """Changes by requests after the page of links was read are not findings."""

    @pytest.fixture
    def meanwhile(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
        todo: list[Any] = []
        start = maintenance._Verifier.start

        def start_after(self: Any, group: Any) -> None:
            while todo:
                todo.pop()()
            start(self, group)

        monkeypatch.setattr(maintenance._Verifier, "start", start_after)
        yield todo
        assert not todo

    def test_deleted(self, app: Any, meanwhile: list[Any]) -> None:
        attach(app)
        meanwhile.append(lambda: app.delete(RECORD, headers=ALICE))
        found = report(app)
        assert (found.files, found.found) == (0, False)

    def test_replaced(self, app: Any, meanwhile: list[Any]) -> None:
        attach(app)
        meanwhile.append(lambda: attach(app, content=b"another"))
        assert not report(app).found

    def test_damaged_in_a_record_that_is_written(self, app: Any, meanwhile: list[Any]) -> None:
        attach(app, content=CONTENT)
        exchange(app, key_of(app, RECORD), b"x")
        meanwhile.append(
            lambda: write_behind(app, RECORD, {**records(app)[RECORD], "title": "new"})
        )
        assert len(report(app).damaged) == 1
        forget(app, RECORD)


@ON_MEMORY
class TestOutages:
    def test_one_file_cannot_be_read(self, build: Build) -> None:
        app = build(folder="{id}")
        attach(app)
        attach(app, record("other"))
        files, key = files_of(app), key_of(app, RECORD)
        folder, moved = Path(files.path(key)).parent, Path(files.path("moved"))
        folder.rename(moved)
        # "Too many levels of symbolic links": root may read anything else.
        folder.symlink_to(folder)
        found = report(app)
        (finding,) = found.unreadable
        assert (finding["key"], found.files, found.damaged) == (key, 1, [])
        folder.unlink()
        moved.rename(folder)

    def test_the_storage_ends(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(5):
            attach(app, record(f"r{number}"))
        monkeypatch.setattr(maintenance, "MOST_FAILURES", 3)

        def refuse(*args: Any) -> Any:
            raise StorageUnavailable() from ConnectionRefusedError("played")

        monkeypatch.setattr(files_of(app), "open", refuse)
        with pytest.raises(CommandError, match=r"'default': .*ConnectionRefusedError: played"):
            report(app)
        monkeypatch.undo()


@ON_MEMORY
def test_the_rate_is_bounded(app: Any) -> None:
    attach(app, content=CONTENT)
    started = time.monotonic()
    assert report(app, rate=200_000).files == 1
    assert time.monotonic() - started >= 0.5


@runs_on("seaweedfs")
def test_the_storage_may_vouch(app: Any) -> None:
    attach(app, content=CONTENT)
    upload = direct.begin(
        app, record=record("direct"), size=len(CONTENT), attachment={"hash": sha256(CONTENT)}
    )
    direct.send_all(upload, CONTENT)
    direct.complete(app, upload)
    found = report(app, trust_storage=True)
    assert (found.files, found.vouched, found.bytes) == (2, 1, 200_000)
    assert report(app).vouched == 0
    exchange(app, key_of(app, record("direct")), flipped(CONTENT))
    assert len(report(app, trust_storage=True).damaged) == 1
    forget(app, record("direct"))


@ON_MEMORY
def test_ctrl_c_ends_the_reading_of_a_large_file(app: Any, monkeypatch: Any) -> None:
    attach(app, content=os.urandom(4 * CHUNK_SIZE))
    opened = threading.Event()

    def interrupt(verifier: Any) -> None:
        assert opened.wait(waiting.SECONDS)
        raise KeyboardInterrupt()

    read = files_of(app).open

    def tell(key: str) -> Any:
        opened.set()
        return read(key)

    monkeypatch.setattr(files_of(app), "open", tell)
    monkeypatch.setattr(maintenance._Verifier, "finish", interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        report(app, rate=CHUNK_SIZE // 60)  # The file would take four minutes.
    assert time.monotonic() - started < waiting.SECONDS
    monkeypatch.undo()
    assert report(app).files == 1


INI = """\
[app:main]
use = egg:kinto
kinto.userid_hmac_secret = test
kinto.includes = kinto_attachment tests.support.owned
kinto.attachment.base_path = %(here)s/files
"""


@pytest.mark.parametrize("option", ["--quiet", "--debug"])
def test_a_cron_job_is_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    ini = tmp_path / "kinto.ini"
    ini.write_text(INI)
    assert cli.main(["verify", "--ini", str(ini), option]) == 0
    assert ("files: 0" in capsys.readouterr().out) == (option == "--debug")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ini = tmp_path / "kinto.ini"
    ini.write_text(INI)
    command = ["verify", "--ini", str(ini)]
    assert cli.main([*command, "--json", "--sample", "1%", "--rate", "50M"]) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["files"] == 0
    assert "in memory" in answer.err
    for wrong in (["--sample", "0"], ["--sample", "101%"], ["--rate", "0"], ["--rate", "fast"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*command, *wrong])
        assert stopped.value.code == 2
        assert "should be" in capsys.readouterr().err
    assert cli.main([*command, "--storage", "none"]) == 2
