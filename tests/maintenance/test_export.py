"""``kinto-attachment export``: the current collection, under load, complete or not at all."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment import cli
from kinto_attachment.maintenance import application, export as maintenance, export_targets
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.export import ExportReport, export
from kinto_attachment.maintenance.selection import Selection
from tests.support.application import (
    ALICE,
    COLLECTION,
    RECORD,
    attach,
    attachment_of,
    key_of,
    put,
    put_collection,
    read,
    records,
    sha256,
    userid,
    write_behind,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build
from tests.support.documents import code_blocks

ONE = Selection(bucket="b", collection="c")
SECOND = f"{COLLECTION}/records/second"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def paths(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def contents(target: Path) -> dict[str, bytes]:
    """The files of an export, by path."""
    if target.suffix == ".zip":
        with zipfile.ZipFile(target) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}
    return {path: (target / path).read_bytes() for path in paths(target)}


def exported(target: Path, name: str = "records.jsonl") -> dict[str, dict[str, Any]]:
    """The lines of an export's records, by id."""
    found = [json.loads(line) for line in contents(target)[name].splitlines()]
    assert len({line["data"]["id"] for line in found}) == len(found)
    return {line["data"]["id"]: line for line in found}


def without_location(record: dict[str, Any]) -> dict[str, Any]:
    attachment = {**record["attachment"]}
    del attachment["location"]
    return {**record, "attachment": attachment}


def delete_behind(app: Any, uri: str = RECORD) -> None:
    """Delete a file from the storage only."""
    files = app.app.registry.attachment_storages[""].files
    files.delete(key_of(attachment_of(app, uri)))


@EVERYWHERE
@pytest.mark.parametrize("name", ["folder", "archive.zip"])
def test_a_collection(app: Any, tmp_path: Path, name: str) -> None:
    put_collection(app, data={"schema": {"type": "object"}})
    attach(app, content=b"first", data={"title": "Ein Titel: ä, 😀"})
    attach(app, SECOND, b"", "empty.txt")
    put(app, f"{COLLECTION}/records/plain", data={"n": 1})
    put_collection(app, "/buckets/b/collections/other")
    target = tmp_path / name
    report = export(app.app.registry, str(target), ONE)
    assert report == ExportReport(collections=1, records=3, files=2, bytes=5)
    stored = records(app)
    assert {uri: line["data"] for uri, line in exported(target).items()} == {
        "r": without_location(stored[RECORD]),
        "second": without_location(stored[SECOND]),
        "plain": stored[f"{COLLECTION}/records/plain"],
    }
    assert {path: content for path, content in contents(target).items() if "files/" in path} == {
        f"files/{sha256(content)}": content for content in (b"first", b"")
    }
    described = json.loads(contents(target)["collection.json"])
    assert described["collection"]["data"] == app.get(COLLECTION, headers=ALICE).json["data"]
    assert described["bucket"]["data"]["id"] == "b"
    counted = {name: described[name] for name in ("records", "files", "bytes", "has_permissions")}
    assert counted == {"records": 3, "files": 2, "bytes": 5, "has_permissions": False}
    assert os.listdir(tmp_path) == [name], "nothing is left beside it"
    assert oct((target if target.is_file() else tmp_path / name).stat().st_mode)[-2:] == "00"


@ON_DATABASES
class TestSelection:
    def test_several_collections(self, build: Build, tmp_path: Path) -> None:
        app = build(gzipped=True)
        attach(app)
        put_collection(app, "/buckets/x/collections/c")
        attach(app, "/buckets/x/collections/c/records/r", b"other")
        put_collection(app, "/buckets/x/collections/empty")
        assert export(app.app.registry, str(tmp_path / "all")).collections == 3
        index = json.loads((tmp_path / "all" / "export.json").read_text())
        assert {(each["bucket"], each["collection"]) for each in index["collections"]} == {
            ("b", "c"),
            ("x", "c"),
            ("x", "empty"),
        }
        attachment = exported(tmp_path / "all", "x/c/records.jsonl")["r"]["data"]["attachment"]
        assert attachment["original"]["size"] == 5
        assert (tmp_path / f"all/x/c/files/{attachment['hash']}").is_file()
        assert exported(tmp_path / "all", "x/empty/records.jsonl") == {}
        of_bucket = export(app.app.registry, str(tmp_path / "x.zip"), Selection(bucket="x"))
        assert (of_bucket.collections, of_bucket.files) == (2, 1)
        with pytest.raises(CommandError, match="no such collection"):
            export(app.app.registry, str(tmp_path / "none"), Selection(bucket="none"))
        assert not (tmp_path / "none").exists()

    def test_shared_files(self, app: Any, tmp_path: Path) -> None:
        attach(app, content=b"same")
        attach(app, SECOND, b"same", "another.txt")
        copy = {"copy_from": RECORD}
        app.post_json(f"{COLLECTION}/records/copy/attachment", copy, headers=ALICE)
        report = export(app.app.registry, str(tmp_path / "one"), ONE)
        assert (report.records, report.files, report.bytes) == (3, 1, 4)

    def test_permissions(self, app: Any, tmp_path: Path) -> None:
        attach(app, permissions={"read": ["system.Everyone"]})
        export(app.app.registry, str(tmp_path / "one"), ONE, permissions=True)
        alice = userid(app)
        found = exported(tmp_path / "one")["r"]["permissions"]
        assert found == {"read": ["system.Everyone"], "write": [alice]}
        described = json.loads((tmp_path / "one/collection.json").read_text())
        assert described["bucket"]["permissions"] == {"write": [alice]}
        assert described["collection"]["permissions"] == {"write": [alice]}


@ON_DATABASES
class TestBesideTheServer:
    """A change after a page of records was read is exported completely, or not at all."""

    @pytest.fixture
    def meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
        todo: list[Callable[[], Any]] = []
        copy = maintenance._Exporter._copy

        def copy_after(self: Any, *arguments: Any) -> Any:
            while todo:
                todo.pop()()
            return copy(self, *arguments)

        monkeypatch.setattr(maintenance._Exporter, "_copy", copy_after)
        yield todo
        assert not todo

    @pytest.mark.parametrize("keeps", [False, True], ids=["deletes", "keeps"])
    def test_replaced(
        self, build: Build, tmp_path: Path, meanwhile: list[Any], keeps: bool
    ) -> None:
        app = build(keep_old_files=keeps)
        attach(app, content=b"before")
        attach(app, SECOND, b"second")
        meanwhile.append(lambda: attach(app, content=b"after"))
        report = export(app.app.registry, str(tmp_path / "one"), ONE)
        attachment = exported(tmp_path / "one")["r"]["data"]["attachment"]
        content = (tmp_path / f"one/files/{attachment['hash']}").read_bytes()
        assert sha256(content) == attachment["hash"]
        assert content == (b"before" if keeps else b"after")
        assert (report.records, report.files, report.found) == (2, 2, False)
        assert len(paths(tmp_path / "one")) == 4, "no file that nobody has"

    def test_replaced_after_it_was_copied(
        self, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: list[Any]
    ) -> None:
        monkeypatch.setattr(maintenance, "AT_ONCE", 1)
        attach(app, content=b"before")
        attach(app, SECOND, b"second")
        note = maintenance._Exporter._note
        todo = [lambda: attach(app, content=b"after"), lambda: app.delete(SECOND, headers=ALICE)]

        def note_and_go_on(self: Any, row: Any) -> None:
            note(self, row)
            if todo:
                todo.pop(0)()

        monkeypatch.setattr(maintenance._Exporter, "_note", note_and_go_on)
        export(app.app.registry, str(tmp_path / "one"), ONE)
        found = exported(tmp_path / "one")
        assert {each: line["data"]["attachment"]["hash"] for each, line in found.items()} == {
            "r": sha256(b"after")
        }
        assert paths(tmp_path / "one") == {
            "collection.json",
            "records.jsonl",
            f"files/{sha256(b'after')}",
        }

    def test_deleted(self, app: Any, tmp_path: Path, meanwhile: list[Any]) -> None:
        attach(app)
        meanwhile.append(lambda: app.delete(RECORD, headers=ALICE))
        report = export(app.app.registry, str(tmp_path / "one"), ONE)
        assert (report.records, report.files, report.found) == (0, 0, False)

    def test_the_collection_is_deleted(
        self, app: Any, tmp_path: Path, meanwhile: list[Any]
    ) -> None:
        attach(app)
        put_collection(app, "/buckets/x/collections/c")
        attach(app, "/buckets/x/collections/c/records/r", b"other")
        meanwhile.append(lambda: app.delete(COLLECTION, headers=ALICE))
        assert export(app.app.registry, str(tmp_path / "all")).collections == 1
        assert {path.split("/")[0] for path in paths(tmp_path / "all")} == {"x", "export.json"}
        put_collection(app)
        meanwhile.append(lambda: app.delete(COLLECTION, headers=ALICE))
        with pytest.raises(CommandError, match="deleted meanwhile"):
            export(app.app.registry, str(tmp_path / "one.zip"), ONE)
        assert os.listdir(tmp_path) == ["all"]


@ON_MEMORY
class TestFindings:
    def test_missing_and_damaged(self, app: Any, tmp_path: Path) -> None:
        attach(app, content=b"lost")
        attach(app, SECOND, b"damaged")
        attach(app, f"{COLLECTION}/records/whole", b"whole")
        delete_behind(app)
        files = app.app.registry.attachment_storages[""].files
        path = Path(files.path(key_of(attachment_of(app, SECOND))))
        path.write_bytes(b"Damaged")
        report = export(app.app.registry, str(tmp_path / "one"), ONE)
        assert [dict(each) for each in report.missing] == [
            {"record": RECORD, "reason": "its file does not exist"}
        ]
        (damaged,) = report.damaged
        assert damaged["reason"].startswith("its file has other content: 7 bytes with")
        assert exported(tmp_path / "one").keys() == {"whole"}
        assert len(paths(tmp_path / "one")) == 3
        for uri in (RECORD, SECOND):
            app.delete(uri, headers=ALICE)

    @pytest.mark.parametrize("attachment", [5, {}, {"hash": "../../x", "size": 1}])
    def test_attachments_that_are_none(self, app: Any, tmp_path: Path, attachment: Any) -> None:
        put(app, RECORD)
        write_behind(app, RECORD, {"attachment": attachment})
        (found,) = export(app.app.registry, str(tmp_path / "one"), ONE).damaged
        assert str(found) == f"{RECORD}: its attachment has no size or hash"
        write_behind(app, RECORD, {})


@ON_MEMORY
class TestTargets:
    @pytest.mark.parametrize("kind", ["file", "folder", "zip", "no parent", "link"])
    def test_something_is_there(self, app: Any, tmp_path: Path, kind: str) -> None:
        (tmp_path / "file").write_bytes(b"x")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "notes").write_bytes(b"x")
        (tmp_path / "zip").symlink_to("folder")
        target = {
            "file": "file",
            "folder": "folder",
            "zip": "there.zip",
            "no parent": "none/folder",
            "link": "dangling.zip",
        }[kind]
        (tmp_path / "there.zip").write_bytes(b"x")
        (tmp_path / "dangling.zip").symlink_to("nowhere")
        before = contents(tmp_path)
        with pytest.raises((CommandError, OSError), match=r"exists|not empty|No such file"):
            export(app.app.registry, str(tmp_path / target), ONE)
        assert contents(tmp_path) == before

    def test_an_empty_folder(self, app: Any, tmp_path: Path) -> None:
        assert export(app.app.registry, str(tmp_path), ONE).records == 0
        assert paths(tmp_path) == {"collection.json", "records.jsonl"}

    def test_two_at_once(self, app: Any, tmp_path: Path) -> None:
        for name in ("folder", "archive.zip"):
            with (
                export_targets.opened(str(tmp_path / name)),
                pytest.raises(CommandError, match="another export"),
            ):
                export(app.app.registry, str(tmp_path / name), ONE)

    def test_a_run_that_was_ended_is_continued(
        self, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(20):
            attach(app, f"{COLLECTION}/records/r{number}", str(number).encode())
        with monkeypatch.context() as patch:

            def end(*arguments: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(maintenance._Exporter, "_described", end)
            with pytest.raises(KeyboardInterrupt):
                export(app.app.registry, str(tmp_path), ONE)
        assert "collection.json" not in paths(tmp_path)
        copied = sorted((tmp_path / "files").iterdir())
        assert len(copied) == 20
        copied[0].write_bytes(b"?")  # As if the process had died while writing it.
        (tmp_path / ".draft-1").write_bytes(b"x")
        opened = []
        files = app.app.registry.attachment_storages[""].files
        read_file = files.open

        def note(key: str) -> Any:
            opened.append(key)
            return read_file(key)

        monkeypatch.setattr(files, "open", note)
        report = export(app.app.registry, str(tmp_path), ONE)
        assert (report.records, report.files, len(opened)) == (20, 20, 1)
        assert len(paths(tmp_path)) == 22

    @pytest.mark.parametrize("name", ["folder", "archive.zip"])
    def test_a_disk_that_is_full(self, app: Any, tmp_path: Path, name: str) -> None:
        attach(app, content=bytes(400_000))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                export(app.app.registry, str(tmp_path / name), ONE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not {"collection.json", "archive.zip"} & {*os.listdir(tmp_path), *paths(tmp_path)}
        assert export(app.app.registry, str(tmp_path / name), ONE).files == 1
        assert read(app) in contents(tmp_path / name).values()


def sums_of(target: Path) -> str:
    """The document's command that checks an exported folder."""
    (command,) = [each for each in code_blocks("docs/export.rst", "shell") if "sha256sum" in each]
    return command.replace("main/main/docs", str(target))


@ON_MEMORY
def test_the_command(
    app: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(application, "open_application", lambda ini: app.app.registry)
    attach(app, permissions={"read": ["system.Everyone"]})
    target = tmp_path / "folder"
    command = ["export", "--ini", "kinto.ini", "--bucket", "b", "--collection", "c"]
    assert cli.main([*command, "--to", str(target), "--json", "--permissions"]) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["records"] == 1
    assert "in memory" in answer.err
    assert "permissions" in exported(target)["r"]
    assert cli.main([*command, "--to", str(target)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert subprocess.check_output(["bash", "-c", sums_of(target)], timeout=60) == b""
    delete_behind(app)
    assert cli.main([*command, "--to", str(tmp_path / "a.zip"), "--quiet", "--debug"]) == 1
    assert f"{RECORD}: its file does not exist" in capsys.readouterr().out
    app.delete(RECORD, headers=ALICE)
    with pytest.raises(SystemExit) as stopped:
        cli.main(command)
    assert stopped.value.code == 2
