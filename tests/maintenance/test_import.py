"""``kinto-attachment import``: an export becomes the same site elsewhere."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import transaction
from sqlalchemy import text

from kinto_attachment import cli
from kinto_attachment.maintenance import application
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.export import export
from kinto_attachment.maintenance.importing import ImportReport, import_
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.parsers import extensions
from tests.support import exports, owned
from tests.support.application import (
    ALICE,
    BOB,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    check_invariant,
    clear,
    links_of,
    put,
    put_collection,
    put_raw,
    read,
    records,
    sha256,
    stored_files,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Applications, Build
from tests.support.protected import changed_setting


@contextmanager
def collection(app: Any, **data: Any) -> Iterator[None]:
    put(app, COLLECTION, data=data)
    yield


@contextmanager
def held(app: Any) -> Iterator[None]:
    hold = {"data": {"until": 4_102_444_800_000, "reason": "An audit"}}
    app.put_json(f"{RECORD}/attachment/hold", hold, headers=ALICE)
    yield


# Violations of the server's limits, and the command's messages about them.
LIMITS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "locked": (
        lambda app: collection(app, attachment={"locked": True}),
        "The files of this collection are locked. The collection's data have attachment.locked.",
    ),
    "held": (held, "The file is held. An audit"),
    "extensions": (
        lambda app: changed_setting(app, "extensions", extensions("txt")),
        "body: File extension is not allowed. The setting is",
    ),
    "max_size": (
        lambda app: changed_setting(app, "max_size", 99),
        "body: File size exceeds the limit of 99 bytes.",
    ),
    "quota": (
        lambda app: attach(app, OTHER, b"o" * 60) and nullcontext(),
        "The quota of the bucket leaves 87 of 150 bytes.",
    ),
    "schema": (
        lambda app: collection(app, schema={"required": ["title"]}),
        "'title' is a required property",
    ),
}

ONE = Selection(bucket="b", collection="c")
SECOND = f"{COLLECTION}/records/second"
SERVER = "http://localhost"


def bring(
    app: Any, path: Path, selection: Selection | None = None, **options: Any
) -> ImportReport:
    options = {"server": SERVER, **options}
    return import_(app.app.registry, str(path), selection or Selection(), **options)


def fill(app: Any) -> None:
    """Create a collection with every kind of record."""
    put_collection(app, data={"displayFields": ["title"]})
    attach(
        app, content=b"first", data={"title": "ä 😀"}, permissions={"read": ["system.Everyone"]}
    )
    attach(app, SECOND, b"", "empty.txt")
    attach(app, f"{COLLECTION}/records/same", b"first")
    copy = {"copy_from": RECORD}
    app.post_json(f"{COLLECTION}/records/copy/attachment", copy, headers=ALICE)
    put(app, f"{COLLECTION}/records/plain", data={"n": 1.5, "deep": {"list": [None, True]}})
    put(app, f"{COLLECTION}/records/nothing", data={"attachment": None})
    put(app, f"{COLLECTION}/records/tombstone", data={"deleted": True})
    put(app, f"{COLLECTION}/records/gone")
    app.delete(f"{COLLECTION}/records/gone", headers=ALICE)


def described(app: Any) -> dict[str, Any]:
    """The site as its users see it, without the locations."""
    found = {}
    with transaction.manager:
        for uri, record in records(app).items():
            attachment = record.get("attachment")
            content = read(app, f"{uri}/attachment") if attachment else None
            plain = {**record}
            if attachment:
                plain["attachment"] = {k: v for k, v in attachment.items() if k != "location"}
            found[uri] = plain, content and sha256(content)
        permissions = app.app.registry.permission
        uris = ["/buckets/b", COLLECTION, *found]
        allowed = dict(zip(uris, permissions.get_objects_permissions(uris), strict=True))
    parents = [app.get(uri, headers=ALICE).json["data"] for uri in ("/buckets/b", COLLECTION)]
    return {"records": found, "permissions": allowed, "parents": parents}


@ON_DATABASES
@pytest.mark.parametrize("name", ["folder", "archive.zip"])
def test_round_trip(build: Build, tmp_path: Path, name: str) -> None:
    app = build()
    fill(app)
    target = tmp_path / name
    export(app.app.registry, str(target), ONE, permissions=True)
    before = described(app)
    clear(app)
    report = bring(app, target, permissions=True)
    assert report == ImportReport(collections=1, created=7, files=4, bytes=15)
    assert described(app) == before
    assert attachment_of(app)["location"].startswith("http://localhost/v1/attachments/")
    check_invariant(app)
    assert bring(app, target, permissions=True) == ImportReport(same=7)


@pytest.fixture
def elsewhere(
    request: pytest.FixtureRequest, applications: Applications, tmp_path_factory: Any
) -> Iterator[Any]:
    """Another site: files in S3, records in a separate database."""
    storage, database = (request.getfixturevalue(each) for each in request.param)
    app = applications.get({**storage, "folder": "{bucket_id}"}, database, {})
    owned.own(app.app.registry)
    yield app
    try:
        check_invariant(app)
    finally:
        clear(app)


@ON_DATABASES
@pytest.mark.seaweedfs
@pytest.mark.parametrize(
    "elsewhere", [("seaweedfs_storage", "memory_database")], indirect=True, ids=["seaweedfs"]
)
def test_another_configuration(build: Build, elsewhere: Any, tmp_path: Path) -> None:
    app = build()
    fill(app)
    export(app.app.registry, str(tmp_path / "site"), permissions=True)
    report = bring(elsewhere, tmp_path / "site", permissions=True, server="https://k.test/v1/")
    assert report == ImportReport(collections=1, created=7, files=4, bytes=15)
    assert described(elsewhere) == described(app)
    location = attachment_of(elsewhere)["location"]
    assert location.startswith("https://k.test/v1/attachments/b/")


@ON_MEMORY
class TestStoredForms:
    """Files are stored in the same form again."""

    def test_compressed(self, build: Build, tmp_path: Path) -> None:
        app = build(gzipped=True)
        attach(app, content=bytes(5000))
        stored = attachment_of(app)
        export(app.app.registry, str(tmp_path / "one"), ONE, permissions=True)
        clear(app)
        assert bring(app, tmp_path / "one", permissions=True).created == 1
        found = attachment_of(app)
        assert {**found, "location": ""} == {**stored, "location": ""}
        assert found["original"]["size"] == 5000

    def test_encoded(self, build: Build, tmp_path: Path) -> None:
        app = build(content_encodings="gzip")
        content = gzip.compress(b"text")
        put_raw(app, content=content, headers={**ALICE, "Content-Encoding": "gzip"})
        export(app.app.registry, str(tmp_path / "one"), ONE, permissions=True)
        clear(app)
        bring(app, tmp_path / "one", permissions=True)
        (link,) = links_of(app)
        assert link.encoding == "gzip"
        assert attachment_of(app)["encoding"] == "gzip"


@ON_DATABASES
class TestExisting:
    """Records that already exist."""

    def test_the_same_and_others(self, app: Any, tmp_path: Path) -> None:
        exports.write(
            tmp_path / "one", exports.line("r", b"new"), exports.line("second", b"2", n=1)
        )
        attach(app, content=b"old", data={"title": "old"})
        put(app, f"{COLLECTION}/records/mine", data={"n": 1})
        before = records(app), stored_files(app)
        report = bring(app, tmp_path / "one")
        assert [str(each) for each in report.refused] == [
            f"{RECORD}: it exists with other content; --replace replaces it"
        ]
        assert (records(app), stored_files(app)) == before
        report = bring(app, tmp_path / "one", replace=True)
        assert (report.replaced, report.created, report.files) == (1, 1, 2)
        assert read(app) == b"new"
        assert records(app)[f"{COLLECTION}/records/mine"]["n"] == 1
        assert "title" not in records(app)[RECORD]
        assert len(stored_files(app)) == 2
        again = bring(app, tmp_path / "one", replace=True)
        assert (again.same, again.replaced, again.files) == (2, 0, 0)

    def test_versions(self, build: Build, tmp_path: Path) -> None:
        app = build(keep_old_files=True)
        attach(app, content=b"old")
        exports.write(tmp_path / "one", exports.line("r", b"new"))
        bring(app, tmp_path / "one", replace=True)
        versions = app.get(f"{RECORD}/attachment/versions", headers=ALICE).json["data"]
        assert [each["state"] for each in versions] == ["current", "kept"]

    def test_the_file_stays_if_only_the_record_differs(self, app: Any, tmp_path: Path) -> None:
        attach(app, content=b"same", data={"n": 1})
        before = stored_files(app)
        exports.write(tmp_path / "one", exports.line("r", b"same", n=2))
        report = bring(app, tmp_path / "one", replace=True)
        assert (report.replaced, report.files, stored_files(app)) == (1, 0, before)
        assert records(app)[RECORD]["n"] == 2

    def test_a_file_is_dropped(self, app: Any, tmp_path: Path) -> None:
        attach(app)
        exports.write(tmp_path / "one", exports.line("r", n=1))
        assert bring(app, tmp_path / "one", replace=True).replaced == 1
        assert not stored_files(app)

    def test_permissions_differ(self, app: Any, tmp_path: Path) -> None:
        record, content = exports.line("r", b"same")
        record["permissions"] = {"read": ["system.Everyone"]}
        exports.write(tmp_path / "one", (record, content), has_permissions=True)
        assert bring(app, tmp_path / "one").created == 1
        assert app.get(f"{RECORD}/attachment", headers=BOB, status=403)
        assert len(bring(app, tmp_path / "one", permissions=True).refused) == 1
        assert bring(app, tmp_path / "one", permissions=True, replace=True).replaced == 1
        assert read(app, headers=BOB) == b"same"
        assert bring(app, tmp_path / "one").same == 1

    def test_clients_that_synchronize_notice(self, app: Any, tmp_path: Path) -> None:
        put(app, f"{COLLECTION}/records/newest", data={})
        known = app.get(f"{COLLECTION}/records", headers=ALICE).headers["ETag"]
        exports.write(tmp_path / "one", exports.line("r", b"1"))
        bring(app, tmp_path / "one")
        answer = app.get(f"{COLLECTION}/records?_since={known}", headers=ALICE)
        assert [each["id"] for each in answer.json["data"]] == ["r"]
        assert answer.json["data"][0]["last_modified"] > exports.TIMESTAMP

    def test_a_collection_with_other_data_stays(self, app: Any, tmp_path: Path) -> None:
        put_collection(app, data={"title": "mine"})
        exports.write(tmp_path / "one", exports.line("r", b"1"))
        assert bring(app, tmp_path / "one").left == [COLLECTION]
        assert app.get(COLLECTION, headers=ALICE).json["data"]["title"] == "mine"

    def test_a_collection_that_is_locked(self, app: Any, tmp_path: Path) -> None:
        """The collection is locked only after it is complete, also if the import is repeated."""
        data = {"id": "new", "last_modified": 5, "attachment": {"locked": True}, "title": "x"}
        exports.write(tmp_path / "one", exports.line("r", b"1"), collection={"data": data})
        uri = "/buckets/b/collections/new"
        put_collection(app, uri, data={"title": "x"})  # As if left by a killed import.
        assert bring(app, tmp_path / "one").created == 1
        stored = app.get(uri, headers=ALICE).json["data"]
        assert stored["attachment"] == {"locked": True}
        assert bring(app, tmp_path / "one").same == 1


@ON_DATABASES
class TestSelection:
    def test_one_of_several(self, app: Any, tmp_path: Path) -> None:
        attach(app, content=b"b")
        put_collection(app, "/buckets/x/collections/y")
        attach(app, "/buckets/x/collections/y/records/r", b"x")
        export(app.app.registry, str(tmp_path / "site.zip"))
        clear(app)
        report = bring(app, tmp_path / "site.zip", selection=Selection(bucket="x"))
        assert (report.collections, report.created) == (1, 1)
        assert records(app).keys() == {"/buckets/x/collections/y/records/r"}
        with pytest.raises(CommandError, match="no such collection"):
            bring(app, tmp_path / "site.zip", selection=Selection(collection="z"))
        with pytest.raises(CommandError, match="no permissions"):
            bring(app, tmp_path / "site.zip", permissions=True)

    def test_a_dry_run(self, app: Any, tmp_path: Path) -> None:
        clear(app)
        exports.write(tmp_path / "one", exports.line("r", b"1"), exports.line("other"))
        report = bring(app, tmp_path / "one", dry_run=True)
        assert report == ImportReport(collections=1, created=2, files=1, bytes=1)
        assert not records(app)
        assert not stored_files(app)

    def test_listeners_are_told(self, app: Any, tmp_path: Path) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"1"))
        bring(app, tmp_path / "one")
        kinds = [type(event).__name__ for event in app.app.registry.seen]
        assert kinds == [
            "AttachmentReceiving",
            "ResourceChanged",
            "AttachmentAdded",
            "AfterResourceChanged",
        ]
        (entry,) = app.get("/buckets/b/history?resource_name=record", headers=ALICE).json["data"]
        assert (entry["uri"], entry["action"]) == (RECORD, "create")


@ON_MEMORY
class TestAddress:
    @pytest.mark.parametrize(
        ("server", "location"),
        [
            ("https://k.test", "https://k.test/v1/attachments/"),
            ("https://k.test/v1", "https://k.test/v1/attachments/"),
            ("http://k.test:8888/v1/", "http://k.test:8888/v1/attachments/"),
        ],
    )
    def test_server(self, app: Any, tmp_path: Path, server: str, location: str) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"1"))
        bring(app, tmp_path / "one", server=server)
        assert attachment_of(app)["location"].startswith(location)

    def test_settings(self, build: Build, tmp_path: Path) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"1"))
        app = build({"http_host": "own.test", "http_scheme": "https"})
        bring(app, tmp_path / "one", server=None)
        stored = records(app)[RECORD]["attachment"]
        assert stored["location"].startswith("https://own.test/v1/attachments/")
        clear(app)
        app = build(base_url="https://cdn.test/files")
        bring(app, tmp_path / "one", server=None)
        assert attachment_of(app)["location"].startswith("https://cdn.test/files/")

    @pytest.mark.parametrize(
        "server", [None, "k.test", "ftp://k.test", "http://a b", "http://k/x/v1"]
    )
    def test_none(self, app: Any, tmp_path: Path, server: str | None) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"1"))
        with pytest.raises(CommandError, match="--server"):
            bring(app, tmp_path / "one", server=server)
        assert not records(app)


@ON_MEMORY
def test_memory_is_refused(
    app: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(application, "open_application", lambda ini: app.app.registry)
    assert cli.main(["import", "--ini", "kinto.ini", "--from", "export"]) == 2
    assert "in memory" in capsys.readouterr().err


@ON_POSTGRESQL
class TestCommand:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        return build(**{"resources.b.quota_bytes": "150"})

    @pytest.fixture
    def run(
        self, app: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Any:
        """Run the command; returns its exit code, report and messages."""
        monkeypatch.setattr(application, "open_application", lambda ini: app.app.registry)

        def run(path: Path, *more: str) -> tuple[int, Any, str]:
            command = ["import", "--ini", "kinto.ini", "--from", str(path), *more]
            code = cli.main(command)
            answer = capsys.readouterr()
            is_json = "--json" in more and answer.out
            return code, json.loads(answer.out) if is_json else answer.out, answer.err

        return run

    def test_exit_codes(self, app: Any, run: Any, tmp_path: Path) -> None:
        one = tmp_path / "one"
        exports.write(one, exports.line("r", b"new"), exports.line("other"))
        attach(app, content=b"old")
        code, _, told = run(one)
        assert (code, "--server URL" in told) == (2, True)
        server = ("--server", "https://k.test")
        code, report, _ = run(one, *server, "--json")
        assert (code, report["refused"][0]["record"], report["created"]) == (1, RECORD, 0)
        assert not app.get(OTHER, headers=ALICE, status=404).json.get("data")
        code, report, _ = run(one, *server, "--replace", "--dry-run", "--json")
        assert (code, report["replaced"], report["created"]) == (0, 1, 1)
        assert read(app) == b"old"
        assert run(one, *server, "--replace", "--quiet") == (0, "", "")
        assert read(app) == b"new"
        (one / "files" / sha256(b"new")).write_bytes(b"bad")
        app.delete(RECORD, headers=ALICE)
        code, told, _ = run(one, *server, "--debug")
        assert (code, "another SHA-256" in told) == (2, True)
        assert run(tmp_path / "none", *server)[0] == 2

    def test_a_wrong_database(self, app: Any, run: Any, tmp_path: Path) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"new"))
        attach(app, OTHER)
        wrong = 'UPDATE objects SET data = data || \'{"database": "other"}\''
        with transaction.manager, app.app.registry.storage.client.connect() as database:
            database.execute(text(f"{wrong} WHERE resource_name = 'attachment-site'"))
        code, _, told = run(tmp_path / "one", "--server", "https://k.test")
        assert (code, "--claim" in told) == (2, True), told
        app.get(RECORD, headers=ALICE, status=404)

    def test_what_the_last_file_has_left_can_be_used(
        self, app: Any, run: Any, tmp_path: Path
    ) -> None:
        exports.write(tmp_path / "one", exports.line("r"), exports.line("other", b"n" * 150))
        attach(app, content=b"o" * 100)
        code, _, _ = run(tmp_path / "one", "--replace", "--server", "https://k.test")
        assert (code, read(app, f"{OTHER}/attachment")) == (0, b"n" * 150)

    @pytest.mark.parametrize("limit", sorted(LIMITS))
    def test_what_limits_say(self, app: Any, run: Any, tmp_path: Path, limit: str) -> None:
        exports.write(tmp_path / "one", exports.line("r", b"n" * 100, "new.png"))
        attach(app, content=b"old", filename="old.txt")
        change, told = LIMITS[limit]
        with change(app):
            before = records(app), stored_files(app)
            code, out, _ = run(tmp_path / "one", "--replace", "--server", "https://k.test")
            assert (records(app), stored_files(app)) == before
        assert code == 1
        assert f"{RECORD}: {told}" in out
