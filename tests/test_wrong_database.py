"""Commands with a database that is not the storage's: an empty one must not count as success."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import transaction

from kinto_attachment import cli
from tests.support.application import (
    ALICE,
    BUCKET,
    CONTENT,
    RECORD,
    attach,
    forget_database,
    make_app,
    postgresql_settings,
    put_collection,
    read,
)
from tests.support.sampling import every_case
from tests.support.services import PostgreSQL

INI = """\
[app:main]
use = egg:kinto
kinto.includes = kinto_attachment
kinto.userid_hmac_secret = secret
kinto.attachment.base_path = {files}
kinto.attachment.storages.cold.base_path = {folder}/cold
{database}
"""
# Each succeeds if there is nothing to do.
COMMANDS = {
    "verify": [],
    "export": ["--to", "{folder}/export"],
    "usage": [],
    "uploads": [],
    "reindex": [],
    "relocate": ["--server", "https://kinto.example"],
    "bundle": [],
    "move": ["--to", "cold", "--dry-run"],
}

# All of them do the same check before they begin. One of the tests shows that each command does
# it, another that each still succeeds, and the others what the result depends on.
FEW = ("verify", "usage")

Run = Callable[..., list[int]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def few() -> Collection[str]:
    return COMMANDS if every_case() else FEW


@pytest.fixture
def run(tmp_path: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the commands; returns their exit codes. Each error must contain ``reason``."""

    def run(url: str = "", reason: str = "", names: Collection[str] = COMMANDS) -> list[int]:
        ini = tmp_path / "kinto.ini"
        settings = postgresql_settings(url) if url else {}
        database = "\n".join(f"kinto.{name} = {value}" for name, value in settings.items())
        ini.write_text(INI.format(files=files, folder=tmp_path, database=database))
        codes = []
        for command in names:
            options = COMMANDS[command]
            words = [word.format(folder=tmp_path) for word in options]
            codes.append(cli.main([command, "--ini", str(ini), *words]))
            said = capsys.readouterr()
            assert ("The storage default has files" in said.err) == (reason == "files"), command
            assert ("in memory" in said.err) == (reason == "memory"), command
            assert bool(said.out) == (codes[-1] != 2), command
            shutil.rmtree(tmp_path / "export", ignore_errors=True)
        return codes

    return run


def test_in_memory_nothing_is_known(run: Run, files: Path, few: Collection[str]) -> None:
    assert run(reason="memory") == [0] * len(COMMANDS), "a new site has no files"
    files.mkdir(exist_ok=True)
    (files / "somebody.txt").write_bytes(CONTENT)
    assert run(reason="memory", names=few) == [2] * len(few)


@pytest.mark.postgresql
class TestDatabases:
    @pytest.fixture
    def start(
        self, postgresql: PostgreSQL, files: Path
    ) -> Iterator[Callable[[], tuple[Any, str]]]:
        """Start a server on a new database; returns the database's URL, too."""
        with ExitStack() as stack:

            def started() -> tuple[Any, str]:
                url = postgresql.create_database()
                stack.callback(postgresql.drop_database, url)
                stack.callback(forget_database, url)
                app = make_app({"base_path": str(files)}, postgresql_settings(url))
                put_collection(app)
                return app, url

            yield started

    def test_a_database_that_knows_no_file_is_not_the_one(
        self, start: Any, run: Run, few: Collection[str]
    ) -> None:
        right, right_url = start()
        _, other_url = start()
        attach(right)
        assert 2 not in run(right_url, names=few)
        assert run(other_url, reason="files") == [2] * len(COMMANDS)
        assert read(right) == CONTENT

    def test_one_whose_files_were_deleted_is(
        self, start: Any, run: Run, files: Path, few: Collection[str]
    ) -> None:
        app, url = start()
        assert run(url, names=few) == [0] * len(few), "a new site has no files"
        attach(app)
        (files / "orphan.txt").write_bytes(CONTENT)
        app.delete(BUCKET, headers=ALICE)
        assert run(url, names=few) == [0] * len(few)

    def test_one_with_records_of_another_plugin_is(
        self, start: Any, run: Run, files: Path, few: Collection[str]
    ) -> None:
        app, url = start()
        files.mkdir(exist_ok=True)
        (files / "old.txt").write_bytes(CONTENT)
        assert run(url, reason="files", names=few) == [2] * len(few)
        old = {"location": "http://localhost/attachments/old.txt", "filename": "old.txt"}
        with transaction.manager:
            app.app.registry.storage.update(
                "record", RECORD.rpartition("/records/")[0], "r", {"attachment": old}
            )
        assert 2 not in run(url, names=few)
