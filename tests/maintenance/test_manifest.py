"""adopt --manifest: objects that other programs have stored."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment import cli
from kinto_attachment.maintenance import application
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.manifest import ManifestReport, register
from tests.support import invariants
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    put,
    put_collection,
    read,
    stored_files,
)
from tests.support.backends import ON_POSTGRESQL, Build

pytestmark = ON_POSTGRESQL

CONTENT = b"What another program stored."
BASE_URL = "https://cdn.example.org/"


@pytest.fixture
def app(build: Build) -> Any:
    return build(base_url=BASE_URL)


def line(app: Any, uri: str, key: str, content: bytes = CONTENT, **more: Any) -> str:
    """Store an object, and describe it for a record."""
    path = Path(app.app.registry.attachment_storages.default.files.path(key))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return json.dumps({"record": uri, "key": key, "size": len(content), "hash": digest, **more})


def test_objects_of_others_become_files_of_records(app: Any) -> None:
    put(app, RECORD, data={"title": "mine"})
    put(app, OTHER)
    lines = [
        line(app, RECORD, "2024/a report.pdf"),
        line(app, OTHER, "2024/x", b"other", filename="x.txt", mimetype="text/x"),
    ]
    registry = app.app.registry
    assert register(registry, lines, dry_run=True) == ManifestReport(objects=2, linked=2)
    assert "attachment" not in app.get(RECORD, headers=ALICE).json["data"]
    assert register(registry, lines) == ManifestReport(objects=2, linked=2)
    assert register(registry, lines) == ManifestReport(objects=2)
    record = app.get(RECORD, headers=ALICE).json["data"]
    assert record["title"] == "mine"
    assert record["attachment"]["location"] == f"{BASE_URL}2024/a%20report.pdf"
    assert read(app, f"{RECORD}/attachment") == CONTENT
    other = app.get(OTHER, headers=ALICE).json["data"]["attachment"]
    assert (other["filename"], other["mimetype"]) == ("x.txt", "text/x")
    app.delete(OTHER, headers=ALICE)
    assert stored_files(app) == {"2024/a report.pdf"}


def test_what_does_not_fit_is_reported(app: Any) -> None:
    put(app, RECORD)
    attach(app, OTHER)
    good = json.loads(line(app, RECORD, "2024/x"))
    lines = [
        line(app, f"{COLLECTION}/records/ghost", "2024/x"),
        line(app, OTHER, "2024/x"),
        json.dumps({**good, "size": 1}),
        json.dumps({**good, "key": "../x"}),
        json.dumps({**good, "hash": "x"}),
        json.dumps({**good, "record": "r"}),
        json.dumps({**good, "storage": "cold"}),
        "no JSON",
        "",
    ]
    report = register(app.app.registry, lines)
    assert (report.objects, report.linked, len(report.unplaced)) == (8, 0, 8)
    for said in (
        "ghost: there is no such record",
        "not of this size",
        "has 28 bytes",
        "line 4: `key`",
    ):
        assert said in "\n".join(report.unplaced)
    app.app.registry.attachment_storages.default.files.delete("2024/x")


@pytest.mark.parametrize(
    "changes",
    [
        {"readonly": "true"},
        {"read_only": True},
        {"filename": "a\x00b.txt"},
        {"filename": "a\r\nX: 1"},
        {"filename": "\ud800.txt"},
        {"filename": "../a.txt"},
        {"filename": {}},
        {"filename": "f" * 5000},
        {"mimetype": "text/html\r\nX: 1"},
        {"mimetype": "nonsense"},
        {"storage": "xdefault"},
        {"storage": 5},
        {"size": True},
        {"key": "\ud800"},
        {"key": ".kinto-attachment/site"},
        {"record": f"{RECORD}\x00"},
        {"record": f"{RECORD}\ud800"},
        {"record": None},
    ],
)
def test_a_line_that_is_wrong_changes_nothing(app: Any, changes: dict[str, Any]) -> None:
    put(app, RECORD)
    put(app, OTHER)
    wrong = json.dumps(json.loads(line(app, RECORD, "2024/x")) | changes)
    lines = [wrong, line(app, OTHER, "2024/y")]
    report = register(app.app.registry, lines)
    assert (report.linked, len(report.unplaced)) == (1, 1), report.unplaced
    assert "attachment" not in app.get(RECORD, headers=ALICE).json["data"]
    app.app.registry.attachment_storages.default.files.delete("2024/x")


def test_of_two_lines_for_a_record_the_first_counts(app: Any) -> None:
    put(app, RECORD)
    lines = [line(app, RECORD, "2024/x"), line(app, RECORD, "2024/y", b"other")]
    report = register(app.app.registry, [*lines, lines[0]])
    assert (report.objects, report.linked, len(report.unplaced)) == (3, 1, 1)
    assert "in the manifest before" in report.unplaced[0]
    assert read(app, f"{RECORD}/attachment") == CONTENT
    app.app.registry.attachment_storages.default.files.delete("2024/y")


def test_a_manifest_that_is_not_utf8(
    app: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(app, RECORD)
    path = tmp_path / "objects.jsonl"
    good = line(app, RECORD, "2024/x").encode()
    path.write_bytes(
        b"\xef\xbb\xbf" + good.replace(b"2024", b"\xff") + b"\n" + b"[" * 100_000 + b"\n" + good
    )
    monkeypatch.setattr(application, "open_application", lambda ini: app.app.registry)
    assert cli.main(["adopt", "--ini", "kinto.ini", "--manifest", str(path)]) == 1
    output = capsys.readouterr().out
    assert "line 1: `key` should be an object key" in output
    assert "line 2: is nested too deeply" in output
    assert "linked: 1" in output
    assert read(app, f"{RECORD}/attachment") == CONTENT


def test_a_record_with_the_same_content_keeps_its_own_file(app: Any) -> None:
    attach(app, content=CONTENT)
    (own,) = stored_files(app)
    registry = app.app.registry
    report = register(registry, [line(app, RECORD, "2024/x", readonly=True)])
    assert report.unplaced == [f"{RECORD}: its file is {own} already"]
    app.delete(RECORD, headers=ALICE)
    assert stored_files(app) == {"2024/x"}
    registry.attachment_storages.default.files.delete("2024/x")


def delete_record(app: Any) -> None:
    app.delete(RECORD, headers=ALICE)


def replace_file(app: Any) -> None:
    attach(app)


def delete_bucket(app: Any) -> None:
    app.delete(BUCKET, headers=ALICE)
    put_collection(app)


def flush(app: Any) -> None:
    app.post("/__flush__", headers=ALICE)
    put_collection(app)


@pytest.mark.parametrize("end", [delete_record, replace_file, delete_bucket, flush])
def test_readonly_objects_outlive_everything(app: Any, end: Any) -> None:
    put(app, RECORD)
    registry = app.app.registry
    register(registry, [line(app, RECORD, "2024/x", readonly=True)])
    assert read(app, f"{RECORD}/attachment") == CONTENT
    end(app)
    for _ in range(2):
        gc(registry, grace=timedelta(seconds=-1), orphan_age=timedelta(0), pause=timedelta(0))
    assert invariants.content(registry, "2024/x") == CONTENT
    (link,) = [link for link in invariants.links(registry) if link.key == "2024/x"]
    assert (link.state, bool(link.ended)) == ("kept", True)
    app.get("/attachments/2024/x", headers=ALICE, status=404)


def test_an_object_that_was_linked_before_becomes_readonly(app: Any) -> None:
    put(app, RECORD)
    registry = app.app.registry
    register(registry, [line(app, RECORD, "2024/x")])
    register(registry, [line(app, RECORD, "2024/x", readonly=True)])
    app.delete(RECORD, headers=ALICE)
    assert stored_files(app) == {"2024/x"}
