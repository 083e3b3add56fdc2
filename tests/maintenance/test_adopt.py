"""adopt: records of another release of kinto-attachment, some of which are invalid."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
from sqlalchemy import text

from kinto_attachment import cli
from kinto_attachment.index.old_rows import PARENT, SINCE_9, UNTIL_8
from kinto_attachment.maintenance.adopt import AdoptReport, adopt
from kinto_attachment.maintenance.linking import Candidate, Placer
from kinto_attachment.maintenance.rollback import back, forget
from kinto_attachment.metadata import FIELD
from tests.support import invariants
from tests.support.application import (
    ALICE,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    put,
    read,
    stored_files,
    stored_links,
    write_behind,
)
from tests.support.backends import ON_POSTGRESQL, Build

pytestmark = ON_POSTGRESQL

CONTENT = b"What the other release stored."


def key_of(uri: str) -> str:
    return f"old/{uri.rpartition('/')[2]}.txt"


def store(app: Any, uri: str, content: bytes = CONTENT, location: str = "", **more: Any) -> None:
    """Create a record and its file like the other release, but without its row."""
    path = Path(app.app.registry.attachment_storages.default.files.path(key_of(uri)))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    attachment = {
        "filename": "a b.txt",
        "hash": hashlib.sha256(content).hexdigest(),
        "location": location or key_of(uri),
        "mimetype": "text/plain",
        "size": len(content),
        **more,
    }
    write_behind(app, uri, {"attachment": attachment})


def add_row(app: Any, uri: str, key: str = "", resource_name: str = UNTIL_8) -> None:
    row = {"location": key or key_of(uri), "record_uri": uri}
    with transaction.manager:
        app.app.registry.storage.create(resource_name, PARENT, row)


def rows(app: Any, resource_name: str = UNTIL_8) -> list[str]:
    """The records that the other release's rows name."""
    with transaction.manager:
        found = app.app.registry.storage.list_all(resource_name, PARENT)
    return sorted(row["record_uri"] for row in found)


def reasons(report: AdoptReport) -> dict[str, str]:
    return dict(each.split(": ", 1) for each in report.unplaced)


@pytest.fixture
def app(build: Build) -> Any:
    return build()


def test_former_addresses_are_told(app: Any) -> None:
    forms = {
        RECORD: "https://old.example/x/old/r.txt",
        OTHER: "https://old.example/old/other.txt",
        f"{COLLECTION}/records/quoted": "https://old.example/x/old/%71uoted.txt",
        f"{COLLECTION}/records/slash": "/old/slash.txt",
    }
    for uri, location in forms.items():
        store(app, uri, uri.encode(), location)
    report = adopt(app.app.registry)
    told = f"its location is under no known address (--old-base-url): {forms[RECORD]}"
    assert reasons(report)[RECORD] == told
    assert (report.linked, len(report.unplaced)) == (1, 3)
    # Without a trailing slash, the other release omitted its last segment.
    report = adopt(app.app.registry, old_base_urls=["https://old.example/x"])
    assert (report.linked, report.unplaced, report.unnamed) == (3, [], [])
    for uri in forms:
        assert read(app, f"{uri}/attachment") == uri.encode()


def test_a_file_with_other_content_is_reported(app: Any) -> None:
    """With a row, only on request: the row is trusted otherwise."""
    store(app, RECORD, hash="0" * 64)
    add_row(app, RECORD)
    report = adopt(app.app.registry, verify=True)
    assert reasons(report) == {RECORD: f"its file {key_of(RECORD)} has another hash"}
    assert adopt(app.app.registry).linked == 1
    assert not adopt(app.app.registry).found
    again = adopt(app.app.registry, verify=True)
    assert (again.linked, again.unplaced) == (0, report.unplaced)
    app.delete(RECORD, headers=ALICE)


def test_nobody_gets_a_file_by_a_forged_attachment(app: Any) -> None:
    """The other release accepts any attachment that a client writes into a new record."""
    store(app, OTHER)
    add_row(app, OTHER)
    forged = {**attachment_of(app, OTHER), "hash": "0" * 64}
    write_behind(app, RECORD, {"attachment": forged})
    copy = f"{COLLECTION}/records/copy"
    write_behind(app, copy, {"attachment": attachment_of(app, OTHER)})
    report = adopt(app.app.registry)
    assert report.linked == 2
    assert reasons(report) == {RECORD: f"its file {key_of(OTHER)} has another hash"}
    assert {uri for uri, _, _ in stored_links(app)} == {OTHER, copy}
    for uri in (RECORD, copy):
        app.delete(uri, headers=ALICE)
    assert read(app, f"{OTHER}/attachment") == CONTENT


def test_each_record_without_a_file_is_reported_with_the_reason(app: Any) -> None:
    attachments = {
        "missing": {"location": "old/nothing.txt", "hash": "0" * 64, "size": 1},
        "size": {"location": key_of(RECORD), "hash": "0" * 64, "size": 1},
        "odd": "no object",
        "poor": {"location": key_of(RECORD)},
        "outside": {"location": "../../etc/passwd", "hash": "0" * 64, "size": 1},
    }
    store(app, RECORD)
    for name, attachment in attachments.items():
        write_behind(app, f"{COLLECTION}/records/{name}", {"attachment": attachment})
    add_row(app, f"{COLLECTION}/records/missing", "old/nothing.txt")
    report = adopt(app.app.registry)
    found = {uri.rpartition("/")[2]: why for uri, why in reasons(report).items()}
    assert found == {
        "missing": "its file does not exist",
        "size": f"its file {key_of(RECORD)} has {len(CONTENT)} bytes",
        "odd": "its attachment has no size or hash",
        "poor": "its attachment has no size or hash",
        "outside": "its location is under no known address (--old-base-url): ../../etc/passwd",
    }
    for name in attachments:
        app.delete(f"{COLLECTION}/records/{name}", headers=ALICE)


def test_an_upload_meanwhile_wins(app: Any) -> None:
    """It happens between reading the record and linking the file that the record had."""
    store(app, RECORD)

    def locate(uri: str, record: dict[str, Any]) -> list[Candidate]:
        attach(app, RECORD, content=b"newer")
        return [Candidate("", key_of(RECORD))]

    with transaction.manager:
        parent, _, object_id = RECORD.rpartition("/records/")
        page = {RECORD: app.app.registry.storage.get("record", parent, object_id)}
    with Placer(app.app.registry, locate) as placer:
        assert list(placer.place(page)) == []
    assert read(app, f"{RECORD}/attachment") == b"newer"
    (link,) = invariants.links(app.app.registry)
    assert link.key != key_of(RECORD)
    app.app.registry.attachment_storages.default.files.delete(key_of(RECORD))


def test_no_row_is_left_but_the_links(app: Any) -> None:
    for number in range(5):
        store(app, f"{COLLECTION}/records/r{number}")
    copy = {"attachment": attachment_of(app, f"{COLLECTION}/records/r0")}
    write_behind(app, f"{COLLECTION}/records/copy", copy)
    assert adopt(app.app.registry).linked == 6
    with transaction.manager:
        locks = app.app.registry.storage.list_all("attachment-lock", "attachments-lock:*")
    assert not locks


@pytest.mark.parametrize("resource_name", [UNTIL_8, SINCE_9])
def test_the_old_rows_go_when_nothing_needs_them(app: Any, resource_name: str) -> None:
    store(app, RECORD)
    store(app, OTHER)
    for uri in (RECORD, OTHER, f"{COLLECTION}/records/gone"):
        add_row(app, uri, resource_name=resource_name)
    registry = app.app.registry
    assert forget(registry, dry_run=True) == forget(registry)
    assert len(rows(app, resource_name)) == 2, "of files that adopt has not placed"
    assert forget(registry).needed == [f"{uri}: {key_of(uri)}" for uri in (RECORD, OTHER)]
    adopt(registry)
    assert forget(registry).deleted == 2
    assert not rows(app, resource_name)


@contextlib.contextmanager
def migrated(app: Any) -> Iterator[None]:
    """As ``kinto migrate`` leaves the database with release 9."""
    connect = app.app.registry.storage.client.connect
    name = "'kinto_attachment_schema_version'"
    with connect(force_commit=True) as session:
        session.execute(text(f"INSERT INTO metadata (name, value) VALUES ({name}, '2')"))
    try:
        yield
    finally:
        with connect(force_commit=True) as session:
            session.execute(text(f"DELETE FROM metadata WHERE name = {name}"))


def test_back_to_release_9(app: Any) -> None:
    """Its rows have another name than those of earlier releases."""
    stranded = f"{COLLECTION}/records/stranded"
    for uri in (RECORD, OTHER, stranded):
        store(app, uri)
        add_row(app, uri, resource_name=SINCE_9)
    write_behind(app, stranded, {"title": "without"})
    report = adopt(app.app.registry)
    assert (report.linked, report.kept, report.unnamed) == (2, 1, [])
    attach(app, OTHER, content=b"new")
    report = back(app.app.registry)
    assert (report.written, report.deleted) == (1, 2)
    assert rows(app, SINCE_9) == sorted([RECORD, OTHER])
    assert not rows(app)


def test_back_to_release_9_without_a_row(app: Any) -> None:
    attach(app)
    with migrated(app):
        back(app.app.registry)
    assert rows(app, SINCE_9) == [RECORD]
    assert forget(app.app.registry).deleted == 1
    back(app.app.registry)
    assert rows(app) == [RECORD]


def test_a_site_of_this_plugin_is_taken_over_too(app: Any) -> None:
    attach(app)
    put(app, OTHER)
    before = stored_links(app)
    report = adopt(app.app.registry)
    assert report == AdoptReport(records=1)
    assert stored_links(app) == before
    assert stored_files(app) == {key for _, key, _ in before}


def configured(app: Any, folder: Path, *includes: str) -> Path:
    """The ini file of a command for the same database and files."""
    settings = app.app.registry.settings
    ini = folder / "kinto.ini"
    names = ("storage", "permission", "cache")
    lines = {
        **{f"{name}_backend": f"kinto.core.{name}.postgresql" for name in names},
        **{f"{name}_url": settings["storage_url"] for name in names},
        "includes": " ".join(["kinto_attachment", *includes]),
        "userid_hmac_secret": "secret",
        "attachment.base_path": settings["attachment.base_path"],
    }
    text = "\n".join(f"kinto.{name} = {value}" for name, value in lines.items())
    ini.write_text(f"[app:main]\nuse = egg:kinto\n{text}\n")
    return ini


def test_the_command(app: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(app, RECORD)
    ini = configured(app, tmp_path)
    command = ["adopt", "--ini", str(ini)]
    assert cli.main([*command, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["linked"] == 1
    assert cli.main([*command, "--quiet", "--debug"]) == 0
    assert capsys.readouterr().out == ""
    assert read(app, f"{RECORD}/attachment") == CONTENT
    write_behind(app, OTHER, {FIELD: {"location": "x", "hash": "0", "size": 1}})
    assert cli.main(command) == 1
    assert f"{OTHER}: its file does not exist" in capsys.readouterr().out
    app.delete(OTHER, headers=ALICE)


def test_an_empty_folder_is_refused(
    app: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(app, RECORD)
    add_row(app, RECORD)
    ini, empty = configured(app, tmp_path), tmp_path / "empty"
    base_path = app.app.registry.settings["attachment.base_path"]
    ini.write_text(ini.read_text().replace(base_path, str(empty)))
    for options in ([], ["--dry-run"]):
        assert cli.main(["adopt", "--ini", str(ini), *options]) == 2
        assert f"no file in file:{empty}" in capsys.readouterr().err
    assert not [path for path in empty.rglob("*") if path.is_file()]
    report = adopt(app.app.registry)
    assert (report.linked, report.unplaced) == (1, [])
    forget(app.app.registry)


def test_a_gzipped_file_keeps_what_is_told_about_its_original(app: Any) -> None:
    original = {"filename": "a b.txt", "hash": "0" * 64, "mimetype": "text/plain", "size": 1000}
    content = gzip.compress(bytes(1000))
    gzipped = {"filename": "a b.txt.gz", "mimetype": "application/x-gzip", "original": original}
    store(app, RECORD, content, **gzipped)
    add_row(app, RECORD)
    store(app, OTHER, content + b" ", **gzipped)
    assert adopt(app.app.registry, verify=True).linked == 2
    for uri in (RECORD, OTHER):
        assert read(app, f"{uri}/attachment").startswith(content)
        assert attachment_of(app, uri)["original"] == original
    assert {link.original["size"] for link in invariants.links(app.app.registry)} == {1000}


def test_the_command_registers_a_manifest(
    app: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ini, manifest = configured(app, tmp_path), tmp_path / "objects.jsonl"
    store(app, RECORD)
    line = {"record": RECORD, "key": key_of(RECORD), "size": len(CONTENT)}
    digest = hashlib.sha256(CONTENT).hexdigest()
    manifest.write_text("\n".join(json.dumps({**line, "hash": each}) for each in (digest, "x")))
    command = ["adopt", "--ini", str(ini), "--manifest", str(manifest)]
    assert cli.main(command) == 1
    assert "line 2: `size` should be in bytes" in capsys.readouterr().out
    assert read(app, f"{RECORD}/attachment") == CONTENT
    manifest.write_text(json.dumps({**line, "hash": digest}))
    assert cli.main([*command, "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"objects": 1, "linked": 0, "unplaced": []}
    manifest.unlink()
    assert cli.main(command) == 2
    (said,) = capsys.readouterr().err.splitlines()[-1:]
    assert "objects.jsonl" in said
