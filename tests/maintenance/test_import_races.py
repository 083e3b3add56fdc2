"""Imports that are killed, that run at the same time, and beside a server in use."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.files import imports
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.importing import ImportReport, import_
from tests.maintenance.test_adopt import configured
from tests.support import exports, forking, waiting
from tests.support.application import (
    ALICE,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    put,
    read,
    records,
    stored_files,
)
from tests.support.backends import ON_DATABASES, ON_POSTGRESQL, Build
from tests.support.faults_plugin import Faults, Order
from tests.support.protected import changed_setting
from tests.support.usage import miscounted

SERVER = "https://k.test"
COUNT = 40


def many(folder: Path) -> Path:
    """Many records, each with a different file."""
    lines = [exports.line(f"r{number}", f"{number}".encode() * 9000) for number in range(COUNT)]
    exports.write(folder, *lines)
    return folder


def bring(app: Any, path: Path, **options: Any) -> ImportReport:
    return import_(app.app.registry, str(path), server=SERVER, **options)


@ON_POSTGRESQL
def test_killed(app: Any, tmp_path: Path) -> None:
    export = many(tmp_path / "export")
    ini = configured(app, tmp_path, "tests.support.faults_plugin")
    command = [sys.executable, "-m", "kinto_attachment.cli", "import", "--ini", str(ini)]
    command += ["--from", str(export), "--server", SERVER]
    faults = Faults(tmp_path)
    faults.give(Order(30, how="kill"))
    environ = {**os.environ, **faults.environ}
    done = forking.run(command, env=environ, capture_output=True, timeout=waiting.SECONDS)
    assert done.returncode == -signal.SIGKILL, done.stderr
    count = len(records(app))
    assert 0 < count < COUNT
    report = bring(app, export)
    assert (report.same, report.created) == (count, COUNT - count)
    collected = gc(app.app.registry, grace=timedelta(0), orphan_age=timedelta(0))
    assert not collected.missing + collected.errors
    assert len(stored_files(app)) == len(records(app)) == COUNT


@ON_DATABASES
def test_two_at_once(app: Any, tmp_path: Path) -> None:
    export, both = many(tmp_path / "export"), Barrier(2, timeout=waiting.SECONDS)

    def run() -> ImportReport:
        both.wait()
        return bring(app, export)

    with ThreadPoolExecutor(2) as threads:
        reports = [each.result(waiting.SECONDS) for each in [threads.submit(run) for _ in "ab"]]
    assert [each.created + each.same for each in reports] == [COUNT, COUNT]
    assert sum(each.created for each in reports) == COUNT
    assert not any(each.found for each in reports)
    assert len(stored_files(app)) == COUNT


@ON_DATABASES
def test_a_storage_that_fails(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = many(tmp_path / "export")
    files = app.app.registry.attachment_storages[""].files
    write, written = files.write, []

    def fail(key: str, *arguments: Any, **options: Any) -> None:
        if len(written) == 5:
            raise StorageUnavailable() from ConnectionRefusedError("played")
        written.append(key)
        write(key, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", fail)
        with pytest.raises(StorageUnavailable):
            bring(app, export)
    assert len(stored_files(app)) == len(records(app)) == 5
    assert bring(app, export).created == COUNT - 5


@ON_DATABASES
def test_a_failure_after_the_file_was_stored(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports.write(tmp_path / "one", exports.line("r", b"1"))

    def fail(*arguments: Any) -> None:
        raise RuntimeError("played")

    with monkeypatch.context() as patch:
        patch.setattr(imports, "check_whole", fail)
        with pytest.raises(RuntimeError, match="played"):
            bring(app, tmp_path / "one")
    assert not stored_files(app)
    assert bring(app, tmp_path / "one").created == 1


Meanwhile = Callable[[Any, ExitStack], Any]


def hold(app: Any) -> None:
    wanted = {"data": {"until": None, "reason": "An audit"}}
    app.put_json(f"{RECORD}/attachment/hold", wanted, headers=ALICE)


# Changes made after everything was checked, and the reasons why nothing is written.
MEANWHILE: dict[str, tuple[Meanwhile, str]] = {
    "locked by a setting": (
        lambda app, stack: stack.enter_context(changed_setting(app, "locked", value=True)),
        "The files of this collection are locked.",
    ),
    "locked": (
        lambda app, stack: put(app, COLLECTION, data={"attachment": {"locked": True}}),
        "The files of this collection are locked.",
    ),
    "held": (lambda app, stack: hold(app), "The file is held."),
    "a schema": (
        lambda app, stack: put(app, COLLECTION, data={"schema": {"required": ["title"]}}),
        "'title' is a required property",
    ),
    "no room": (
        lambda app, stack: attach(app, OTHER, b"o" * 35),
        "The quota of the bucket leaves",
    ),
    "too large": (
        lambda app, stack: stack.enter_context(changed_setting(app, "max_size", 19)),
        "File size exceeds",
    ),
}


@ON_DATABASES
@pytest.mark.parametrize("name", MEANWHILE)
def test_what_is_refused_meanwhile(build: Build, tmp_path: Path, name: str) -> None:
    app = build(**{"resources.b.quota_bytes": "50"})
    attach(app, content=b"old")
    exports.write(tmp_path / "one", exports.line("r", b"n" * 20))
    change, told = MEANWHILE[name]
    with ExitStack() as stack:
        todo = [lambda: change(app, stack)]

        def progress(step: str, count: int, total: int | None = None) -> None:
            while todo:
                todo.pop()()

        report = bring(app, tmp_path / "one", replace=True, progress=progress)
        (refused,) = report.refused
        assert told in str(refused)
        assert (report.replaced, read(app)) == (0, b"old")
        assert not miscounted(app.app.registry)
    app.delete(f"{RECORD}/attachment/hold", headers=ALICE, status="*")


@ON_DATABASES
class TestBesideTheServer:
    def at_writing(self, monkeypatch: pytest.MonkeyPatch, change: Callable[[], Any]) -> None:
        """Call a function after the record was read and its file stored."""
        receive = imports._receive
        todo = [change]

        def receive_and_go_on(*arguments: Any) -> Any:
            received = receive(*arguments)
            while todo:
                todo.pop()()
            return received

        monkeypatch.setattr(imports, "_receive", receive_and_go_on)

    def test_somebody_creates_the_record(
        self, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"imported"))
        self.at_writing(monkeypatch, lambda: attach(app, content=b"theirs"))
        (refused,) = bring(app, tmp_path / "one").refused
        assert "it exists with other content" in str(refused)
        assert read(app) == b"theirs"

    def test_somebody_creates_the_same_record(
        self, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"same"))
        self.at_writing(monkeypatch, lambda: attach(app, content=b"same"))
        assert bring(app, tmp_path / "one").same == 1

    def test_somebody_deletes_the_record(
        self, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The record's file was to be kept, so it is stored again."""
        attach(app, content=b"same", data={"n": 1})
        exports.write(tmp_path / "one", exports.line("r", b"same", n=2))
        self.at_writing(monkeypatch, lambda: app.delete(RECORD, headers=ALICE))
        report = bring(app, tmp_path / "one", replace=True)
        assert (report.created, report.files) == (1, 1)
        assert read(app) == b"same"

    def test_the_file_to_be_shared_is_deleted(
        self, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attach(app, content=b"same")
        exports.write(tmp_path / "one", exports.line("r", b"same"), exports.line("z", b"same"))
        self.at_writing(monkeypatch, lambda: app.delete(RECORD, headers=ALICE))
        assert bring(app, tmp_path / "one").created == 1
        assert read(app, f"{COLLECTION}/records/z/attachment") == b"same"

    def test_the_collection_is_deleted(
        self, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"1"))
        self.at_writing(monkeypatch, lambda: app.delete(COLLECTION, headers=ALICE))
        (refused,) = bring(app, tmp_path / "one").refused
        assert "was deleted meanwhile" in str(refused)
        assert not stored_files(app)

    def test_the_export_is_changed(self, app: Any, tmp_path: Path) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"1"))

        def progress(step: str, count: int, total: int | None = None) -> None:
            (file,) = (tmp_path / "one" / "files").iterdir()
            file.write_bytes(b"2")

        with pytest.raises((CommandError, StorageUnavailable), match="damaged"):
            bring(app, tmp_path / "one", progress=progress)
        assert not stored_files(app)
        assert not records(app)
