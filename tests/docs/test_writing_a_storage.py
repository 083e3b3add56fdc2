"""The storage in docs/writing-a-storage.rst works as pasted, and so do its tests."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pyramid.exceptions import ConfigurationError

from kinto_attachment.storage import CAPABILITIES, testing as contracts
from tests.support import ROOT, forking, live
from tests.support.application import (
    ALICE,
    CONTENT,
    MEMORY,
    RECORD,
    attach,
    check_invariant,
    make_app,
    put_collection,
    read,
    stored_files,
)
from tests.support.documents import code_blocks, tables

PAGE = "docs/writing-a-storage.rst"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder into which the page was pasted."""
    small, listing, tests = code_blocks(PAGE, "python")
    (tmp_path / "small_storage.py").write_text(f"{small}\n\n\n{listing}\n")
    (tmp_path / "test_small_storage.py").write_text(tests)
    return tmp_path


def options() -> dict[str, str]:
    (example,) = code_blocks(PAGE, "ini")
    return dict(re.findall(r"^kinto\.attachment\.(\S+) = (.+)$", example, re.M))


Start = Callable[..., Any]


@pytest.fixture
def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.syspath_prepend(folder)

    def starter(**changes: str) -> Any:
        app = make_app({**options(), **changes}, MEMORY)
        put_collection(app)
        return app

    yield starter
    sys.modules.pop("small_storage", None)


class TestItsTests:
    def run(self, folder: Path, *arguments: str) -> tuple[int, str]:
        """Run them in another folder, where this repository's tests cannot be imported."""
        (command,) = code_blocks(PAGE, "console")
        program, *given = command.removeprefix("$ ").split()
        assert program == "pytest"
        done = forking.run(
            [sys.executable, "-m", program, *given, "-p", "no:cacheprovider", *arguments],
            cwd=folder,
            # Also without the plugins of pytest that this project uses.
            env={
                **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout

    def test_pass(self, folder: Path) -> None:
        code, output = self.run(folder, "-q")
        assert code == 0, output
        (passed,) = re.findall(r"^(\d+) passed", output, re.M)
        assert int(passed) > 140

    def test_notice_a_capability_whose_contract_is_left_out(self, folder: Path) -> None:
        tests = folder / "test_small_storage.py"
        tests.write_text(tests.read_text().replace("(ListsFilesContract)", "(StorageContract)"))
        code, output = self.run(folder, "-q", "-k", "capability")
        assert code == 1
        assert "run ListsFilesContract, too" in output
        assert "1 failed, 1 passed" in output

    def test_notice_a_mistake(self, folder: Path) -> None:
        storage = folder / "small_storage.py"
        code = storage.read_text()
        (check,) = re.findall(r"with self\.lock:\n( +if key .*\n +raise .*\n)", code)
        storage.write_text(code.replace(check, ""))
        status, output = self.run(folder, "-q", "-k", "racing")
        assert status == 1
        assert "test_one_of_two_racing_writers_wins" in output


class TestAServerOnIt:
    def test_uploads_reads_replaces_and_deletes(self, start: Start) -> None:
        app = start()
        attach(app)
        assert read(app) == CONTENT
        attach(app, content=b"new")
        assert read(app) == b"new"
        app.delete(f"{RECORD}/attachment", headers=ALICE)
        assert app.app.registry.attachment_storages.default.files.files == {}

    def test_says_that_it_lists_files(self, start: Start) -> None:
        app = start(backend="small_storage.ListingStorage")
        attach(app)
        assert app.get("/").json["capabilities"]["attachments"]["lists_files"] is True
        assert len(stored_files(app)) == 1
        check_invariant(app)

    def test_heeds_its_option(self, start: Start) -> None:
        app = start(**{"backend.max_bytes": "10"})
        attach(app, content=b"x" * 11, status=507)
        attach(app, content=b"x" * 10)
        assert app.get("/__heartbeat__", status=503).json["attachments"] is False

    def test_refuses_a_bad_option(self, start: Start) -> None:
        with pytest.raises(ConfigurationError, match="max_bytes should be a whole number"):
            start(**{"backend.max_bytes": "many"})

    def test_is_answered_for_in_an_outage(self, start: Start) -> None:
        app = start()
        app.app.registry.attachment_storages.default.files.outage = ConnectionRefusedError(
            "played"
        )
        attach(app, status=503)

    def test_as_in_production(self, folder: Path) -> None:
        """With processes and sockets, and bytes that are sent by ``wsgi.file_wrapper``."""
        path = f"{ROOT}{os.pathsep}{folder}"
        with live.kinto(options(), environ={"PYTHONPATH": path}) as server:
            url = f"{server.url}/buckets/default/collections/c/records/r/attachment"
            content = os.urandom(1_000_000)
            form = {"attachment": ("a.bin", content)}
            created = requests.post(url, files=form, headers=ALICE, timeout=90)
            assert created.status_code == 201
            for location in (url, created.json()["location"]):
                assert requests.get(location, headers=ALICE, timeout=90).content == content
            part = requests.get(url, headers={**ALICE, "Range": "bytes=5-9"}, timeout=90)
            assert (part.status_code, part.content) == (206, content[5:10])


def test_the_page_names_the_capabilities_and_their_methods() -> None:
    (rows,) = [rows for head, *rows in tables(PAGE) if head[0] == "capability"]
    named = {name: set(re.findall(r"[a-z]+(?:_[a-z]+)*(?=[:,])", text)) for name, text, _ in rows}
    assert set(named) == {capability.__name__ for capability in CAPABILITIES}
    for capability in CAPABILITIES:
        methods = {name for name in vars(capability) if not name.startswith("_")}
        assert methods <= named[capability.__name__]
        assert hasattr(contracts, f"{capability.__name__}Contract")


def test_the_page_says_what_each_method_guarantees() -> None:
    (rows,) = [rows for head, *rows in tables(PAGE) if head[0] == "method"]
    assert [name for name, _ in rows] == ["write", "open", "stat", "delete", "url"]
