"""Processes read small files for ``verify``; its findings do not depend on them."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.errors import AttachmentError
from kinto_attachment.index.link import Link
from kinto_attachment.maintenance import reading_program, verify as maintenance
from kinto_attachment.maintenance.contents import problem_of
from kinto_attachment.maintenance.rates import Rate
from kinto_attachment.maintenance.small_files import FEWEST, SMALL, ReadingProcess, SmallFiles
from kinto_attachment.maintenance.verify import VerifyReport, verify
from kinto_attachment.parsers import DownloadMode
from kinto_attachment.storage.local import LocalStorage
from kinto_attachment.storage.storages import Storage, Storages
from tests.support import waiting
from tests.support.application import COLLECTION, attach, links_of, sha256
from tests.support.backends import ON_MEMORY, Build

CONTENT = b"The content of a small file."
KEYS = [f"{number % 3}/folder/{number}.txt" for number in range(FEWEST)]


def link_of(key: str, content: bytes = CONTENT) -> Link:
    record = f"{COLLECTION}/records/r"
    return Link(record, key, "file.txt", sha256(content), "text/plain", len(content))


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """A folder with small files."""
    storage = LocalStorage(str(tmp_path / "files"), durable=False)
    for key in KEYS:
        storage.write(key, io.BytesIO(CONTENT), "text/plain")
    return storage


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that a test starts; all of them have to end by its end."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def remember(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(start(*args, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", remember)
    yield processes
    monkeypatch.undo()
    assert None not in {process.returncode for process in processes}


@pytest.fixture
def files(storage: LocalStorage, started: list[Any]) -> Iterator[SmallFiles]:
    small = SmallFiles(Storages({"": Storage("", storage, DownloadMode("stream"))}))
    yield small
    small.close()


def whole(files: SmallFiles, links: list[Link]) -> set[str]:
    return {key for _, key in files.whole(links)}


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def lead_outside(path: Path) -> None:
    outside = path.parents[3] / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def move_folder(path: Path) -> None:
    """Replace the file's folder by a symbolic link."""
    moved = path.parent.with_name("moved")
    moved.mkdir()
    path.rename(moved / path.name)
    path.parent.rmdir()
    path.parent.symlink_to(moved)


class TestFiles:
    def test_whole_ones(self, files: SmallFiles) -> None:
        assert whole(files, [*map(link_of, KEYS)]) == {*KEYS}

    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param(lambda path: path.write_bytes(CONTENT[:-1] + b"!"), id="other bytes"),
            pytest.param(lambda path: path.write_bytes(CONTENT[:-1]), id="cut"),
            pytest.param(lambda path: path.write_bytes(CONTENT + b"!"), id="longer"),
            pytest.param(lambda path: path.write_bytes(b""), id="empty"),
            pytest.param(Path.unlink, id="missing"),
            pytest.param(make_folder, id="a folder"),
            pytest.param(lead_outside, id="a link that leads out"),
            pytest.param(lambda path: (path.unlink(), path.symlink_to(path)), id="a loop"),
        ],
    )
    def test_others(
        self, files: SmallFiles, storage: LocalStorage, damage: Callable[[Path], object]
    ) -> None:
        damage(Path(storage.path(KEYS[5])))
        assert whole(files, [*map(link_of, KEYS)]) == {*KEYS} - {KEYS[5]}
        try:
            problem = problem_of(storage, link_of(KEYS[5]), Rate())
        except AttachmentError as error:
            problem = type(error).__name__
        assert problem, "the thread that reads it again finds the same"

    def test_behind_a_link_in_the_place_of_a_folder(
        self, files: SmallFiles, storage: LocalStorage
    ) -> None:
        key = "sole/file.txt"
        storage.write(key, io.BytesIO(CONTENT), "text/plain")
        links = [*map(link_of, [*KEYS, key])]
        assert whole(files, links) == {*KEYS, key}
        move_folder(Path(storage.path(key)))
        assert whole(files, links) == {*KEYS}

    def test_large_ones_are_left_to_threads(
        self, files: SmallFiles, storage: LocalStorage
    ) -> None:
        links = [*map(link_of, KEYS)]
        for key, size in (("large", SMALL), ("larger", SMALL + 1)):
            content = os.urandom(size)
            storage.write(key, io.BytesIO(content), "text/plain")
            links.append(link_of(key, content))
        assert whole(files, links) == {*KEYS, "large"}

    def test_keys_that_lead_anywhere(self, files: SmallFiles, storage: LocalStorage) -> None:
        outside = Path(storage.base_path).with_name("outside")
        outside.write_bytes(CONTENT)
        keys = [str(outside), "../outside", "0/../../outside", "0//folder", "\udc80"]
        assert whole(files, [*map(link_of, [*KEYS, *keys])]) == {*KEYS}

    def test_few_are_not_worth_a_process(
        self, files: SmallFiles, started: list[subprocess.Popen[bytes]]
    ) -> None:
        assert not whole(files, [*map(link_of, KEYS[1:])])
        assert not started

    def test_of_another_class_of_storage(self, tmp_path: Path) -> None:
        class Mirrored(LocalStorage):
            """A subclass, which may store its files in any form."""

        storage = Mirrored(str(tmp_path))
        files = SmallFiles(Storages({"": Storage("", storage, DownloadMode("stream"))}))
        assert not files.whole(map(link_of, KEYS))


class TestProcesses:
    def test_one_reads_many_batches(
        self, files: SmallFiles, started: list[subprocess.Popen[bytes]]
    ) -> None:
        for _ in range(3):
            assert len(whole(files, [*map(link_of, KEYS)])) == len(KEYS)
        assert len(started) == 1

    def test_one_that_was_killed(
        self,
        files: SmallFiles,
        started: list[subprocess.Popen[bytes]],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        assert whole(files, [*map(link_of, KEYS)])
        os.kill(started[0].pid, signal.SIGKILL)
        started[0].wait(waiting.SECONDS)
        for _ in range(2):
            assert not whole(files, [*map(link_of, KEYS)])
        (message,) = caplog.messages
        assert "exit code -9" in message
        assert len(started) == 1

    def test_one_goes_on_after_a_key_that_no_file_can_have(
        self, storage: LocalStorage, started: list[subprocess.Popen[bytes]]
    ) -> None:
        """For example, in a locale whose encoding lacks a character."""
        process = ReadingProcess()
        try:
            found = [(key, len(CONTENT), sha256(CONTENT)) for key in ("\ud800", "\0", KEYS[0])]
            assert process.ask(storage.base_path, found) == [False, False, True]
        finally:
            process.close()

    def test_one_that_cannot_be_started(
        self,
        files: SmallFiles,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        assert not whole(files, [*map(link_of, KEYS)])
        assert "No such file" in caplog.text

    def test_one_gets_no_ctrl_c(
        self, files: SmallFiles, started: list[subprocess.Popen[bytes]]
    ) -> None:
        assert whole(files, [*map(link_of, KEYS)])
        assert os.getpgid(started[0].pid) != os.getpgid(0)

    def test_none_outlives_the_command(self) -> None:
        """Not even if the command is killed with SIGKILL."""
        command = [sys.executable, "-I", "-S", reading_program.__file__]
        start = "import subprocess, sys, time; import os; "
        start += f"p = subprocess.Popen({command!r}, stdin=subprocess.PIPE, stdout=sys.stdout); "
        start += "print(p.pid, flush=True); time.sleep(1000)"
        parent = subprocess.Popen([sys.executable, "-I", "-c", start], stdout=subprocess.PIPE)
        assert parent.stdout is not None
        assert int(waiting.line_of(parent)) > 0
        parent.kill()
        parent.wait(waiting.SECONDS)
        # The output ends when the last process that has it open has ended.
        waiting.wait_for_bytes(parent.stdout.fileno())
        assert parent.stdout.read() == b""
        parent.stdout.close()


def test_the_program(storage: LocalStorage) -> None:
    """The program runs in this process, so that its coverage is measured."""
    files = [(KEYS[0], len(CONTENT), sha256(CONTENT)), (KEYS[1], 1, sha256(CONTENT))]
    batches = [(storage.base_path, files), (f"{storage.base_path}/none", files)]
    lines = b"".join(json.dumps(batch).encode() + b"\n" for batch in batches)
    answers = io.BytesIO()
    reading_program.serve(io.BytesIO(lines), answers)
    assert answers.getvalue() == b"10\n00\n"


@pytest.fixture
def app(build: Build) -> Any:
    app = build(folder="{fan}")
    for number in range(FEWEST):
        attach(app, f"{COLLECTION}/records/r{number}", CONTENT)
    return app


@pytest.fixture
def read_by_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the files that the command itself has read."""
    keys: list[str] = []

    def note(files: Any, link: Link, rate: Rate) -> str:
        keys.append(link.key)
        return problem_of(files, link, rate)

    monkeypatch.setattr(maintenance, "problem_of", note)
    return keys


@ON_MEMORY
class TestVerify:
    def test_threads_read_what_is_not_whole(
        self, app: Any, started: list[Any], read_by_threads: list[str]
    ) -> None:
        storage, key = app.app.registry.attachment_storages.default.files, links_of(app)[0].key
        path = Path(storage.path(key))
        path.write_bytes(b"damaged")
        (finding,) = report(app).damaged
        assert finding["reason"] == f"it has 7 bytes instead of {len(CONTENT)}"
        assert read_by_threads == [key]
        path.write_bytes(CONTENT)

    def test_threads_read_all_at_a_rate(
        self, app: Any, started: list[Any], read_by_threads: list[str]
    ) -> None:
        assert report(app, rate=10**9).files == len(read_by_threads) == FEWEST
        assert not started

    def test_a_process_dies(
        self,
        app: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        read_by_threads: list[str],
    ) -> None:
        program = tmp_path / "program.py"
        program.write_text("import os, signal\ninput()\nos.kill(os.getpid(), signal.SIGKILL)\n")
        monkeypatch.setattr(reading_program, "__file__", str(program))
        with caplog.at_level(logging.WARNING):
            found = report(app)
        assert (found.files, found.found) == (FEWEST, False)
        assert len(read_by_threads) == FEWEST
        assert "A process that reads files has failed" in caplog.text

    def test_ctrl_c_leaves_no_process(
        self, app: Any, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(maintenance, "AHEAD", 0)

        def interrupt(step: str, count: int, total: int | None = None) -> None:
            raise KeyboardInterrupt()

        with pytest.raises(KeyboardInterrupt):
            report(app, progress=interrupt)
        assert started


def report(app: Any, **options: Any) -> VerifyReport:
    return verify(app.app.registry, **options)
