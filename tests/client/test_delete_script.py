"""``scripts/delete.py``: the files of records are deleted, and the records stay."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kinto_attachment.client import AttachmentClient
from tests.support import live
from tests.support.scripts import Script


@pytest.fixture
def delete(embedded: live.Server, collection: str, tmp_path: Path) -> Script:
    return Script.of("delete.py", embedded, collection, tmp_path / "tmp")


@pytest.fixture
def filled(local: AttachmentClient) -> AttachmentClient:
    for record in ("a", "b", "c"):
        local.upload(record, io.BytesIO(b"content"), {"title": record}, filename=f"{record}.txt")
    return local


def left(client: AttachmentClient) -> set[str]:
    """The records that have a file."""
    assert {record["title"] for record in client.records()} == {"a", "b", "c"}
    return {record["id"] for record in client.records() if record.get("attachment")}


def test_those_that_are_named(delete: Script, filled: AttachmentClient) -> None:
    done = delete.call("--json", "a", "c")
    assert (done.code, done.results()) == (0, {"a.txt": "deleted", "c.txt": "deleted"})
    assert left(filled) == {"b"}


def test_all(delete: Script, filled: AttachmentClient) -> None:
    dry = delete.call("--json", "--all", "--dry-run")
    assert (dry.code, dry.summary["skipped"]) == (0, 3)
    assert left(filled) == {"a", "b", "c"}
    done = delete.call("--json", "--all", "--jobs", 2)
    assert (done.code, done.summary["deleted"]) == (0, 3)
    assert left(filled) == set()
    assert "nothing to do" in delete.call("--all").out


def test_files_in_folders_are_reported_with_their_folders(
    delete: Script, local: AttachmentClient
) -> None:
    for name in ("a", "b"):
        data = {"path": f"{name}/x.txt"}
        local.upload(name, io.BytesIO(b"content"), data, filename="x.txt")
    local.upload("c", io.BytesIO(b"content"), {"path": "../x.txt"}, filename="x.txt")
    done = delete.call("--json", "--all", "--dry-run")
    assert {line["file"] for line in done.lines if "file" in line} == {
        "a/x.txt",
        "b/x.txt",
        "x.txt",
    }


def test_one_that_is_not_there(delete: Script, filled: AttachmentClient) -> None:
    done = delete.call("--json", "nobody", "a")
    assert done.code == 1
    assert (done.summary["failed"], done.summary["deleted"]) == (1, 1)
    assert left(filled) == {"b", "c"}


@pytest.mark.parametrize("arguments", [[], ["--all", "a"]])
def test_nothing_is_deleted_by_mistake(
    delete: Script, filled: AttachmentClient, arguments: list[str]
) -> None:
    done = delete.call(*arguments)
    assert done.code == 2
    assert "--all" in done.err
    assert left(filled) == {"a", "b", "c"}
