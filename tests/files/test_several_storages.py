"""Several storages in one server: each file is stored in the chosen one, and found there later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy
import transaction

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.index.link import Link
from kinto_attachment.maintenance.collection import GcReport
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.reindex import reindex
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    check_invariant,
    clear,
    empty_outbox,
    error,
    key_of,
    links_of,
    outbox,
    placed_files,
    put,
    put_collection,
    put_raw,
    read,
    write_behind,
)
from tests.support.backends import (
    ON_DATABASES,
    ON_MEMORY,
    ON_POSTGRESQL,
    Applications,
    Build,
)
from tests.support.interruptions import failing_deletes
from tests.support.owned import STRAY, own

URL = f"{RECORD}/attachment"
BACKEND = 201  # Kinto's errno.

NOT_CONFIGURED = "The storage 'cold' is not configured: its files are left as they are."

Start = Callable[..., Any]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cold"))


@pytest.fixture
def several(build: Build, folder: str) -> Start:
    """``several(storage="cold")`` is a server with a second folder for all or some files."""

    def start(settings: dict[str, Any] | None = None, /, **options: str) -> Any:
        return build(settings or {}, **{"storages.cold.base_path": folder}, **options)

    return start


def storages_of(app: Any) -> list[str]:
    """The storages of all files, in order."""
    return sorted(storage for storage, _ in placed_files(app))


def store(app: Any, storage: str, key: str, content: bytes = b"stray") -> None:
    """Store a file that belongs to no request."""
    files = app.app.registry.attachment_storages[storage].files
    files.write(key, BytesIO(content), "text/plain")


def statements(app: Any, action: Callable[[], object]) -> int:
    """The number of statements that the database executes."""
    executed: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        executed.append(statement)

    engine = app.app.registry.storage.client.session_factory.session_factory.kw["bind"]
    sqlalchemy.event.listen(engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", note)
    return len(executed)


def collect(app: Any, **options: Any) -> GcReport:
    """Run gc as if everything were old."""
    return gc(
        app.app.registry,
        grace=timedelta(seconds=-1),
        orphan_age=timedelta(0),
        pause=timedelta(0),
        **options,
    )


@ON_DATABASES
class TestTheChoice:
    @pytest.mark.parametrize(
        ("options", "chosen"),
        [
            ({}, ""),
            ({"storage": "cold"}, "cold"),
            ({"resources.b.storage": "cold"}, "cold"),
            ({"resources.b.c.storage": "cold"}, "cold"),
            ({"resources.other.storage": "cold"}, ""),
            ({"resources.b.storage": "cold", "resources.b.c.storage": "default"}, ""),
        ],
        ids=str,
    )
    def test_is_by_the_narrowest_setting(
        self, several: Start, options: dict[str, str], chosen: str
    ) -> None:
        app = several(**options)
        attach(app)
        put_raw(app, OTHER)
        assert storages_of(app) == [chosen, chosen]
        assert read(app) == read(app, f"{OTHER}/attachment") == CONTENT
        assert read(app, urlsplit(attachment_of(app)["location"]).path) == CONTENT

    def test_holds_for_compressed_and_for_named_files(self, several: Start) -> None:
        app = several(storage="cold", gzipped="true", randomize="false")
        assert key_of(attach(app).json) == "notes.txt.gz"
        assert placed_files(app) == {("cold", "notes.txt.gz")}

    def test_holds_in_the_default_bucket(self, several: Start) -> None:
        app = several(**{"resources.default.storage": "cold"})
        attach(app, "/buckets/default/collections/c/records/r")
        assert storages_of(app) == ["cold"]


@ON_POSTGRESQL
class TestAChangedSetting:
    """Files stay where they are; new ones are stored where the setting says."""

    @pytest.fixture
    def app(self, several: Start) -> Any:
        """A server that stored a file and was restarted with another setting."""
        attach(several(), content=b"old")
        return several(storage="cold")

    def test_the_old_file_is_read_from_where_it_is(self, app: Any) -> None:
        assert storages_of(app) == [""]
        assert read(app) == b"old"
        assert read(app, urlsplit(attachment_of(app)["location"]).path) == b"old"
        assert app.head(URL, headers=ALICE).content_length == 3

    def test_a_new_one_replaces_it(self, app: Any) -> None:
        assert attach(app, content=b"new", status=200)
        assert storages_of(app) == ["cold"]
        assert read(app) == b"new"

    def test_it_can_be_renamed_where_it_is(self, app: Any) -> None:
        app.patch_json(URL, {"data": {"filename": "other.txt"}}, headers=ALICE)
        assert attachment_of(app)["filename"] == "other.txt"
        assert storages_of(app) == [""]
        assert read(app) == b"old"

    @pytest.mark.parametrize("uri", [URL, RECORD, COLLECTION, BUCKET])
    def test_files_of_both_are_deleted_together(self, app: Any, uri: str) -> None:
        attach(app, OTHER)
        assert storages_of(app) == ["", "cold"]
        app.delete(uri, headers=ALICE)
        left = ["cold"] if uri in (URL, RECORD) else []
        assert storages_of(app) == left

    def test_a_batch_and_a_flush_delete_those_of_both(self, several: Start) -> None:
        attach(several({"includes": "kinto.plugins.flush"}))
        app = several({"includes": "kinto.plugins.flush"}, storage="cold")
        attach(app, OTHER)
        paths = (f"{RECORD}/attachment", OTHER)
        calls = [{"method": "DELETE", "path": path} for path in paths]
        answers = app.post_json("/batch", {"requests": calls}, headers=ALICE).json["responses"]
        assert [answer["status"] for answer in answers] == [204, 200]
        assert storages_of(app) == []
        for server, record in ((several(), RECORD), (app, OTHER)):
            put_collection(server)
            attach(server, record)
        app.post("/__flush__", headers=ALICE)
        assert storages_of(app) == []

    def test_kept_and_lingering_files_stay_where_they_are(self, several: Start) -> None:
        for options in ({"keep_old_files": "true"}, {"linger": "1h"}):
            attach(several(**options), content=b"old")
            old = urlsplit(attachment_of(several(**options))["location"]).path
            app = several(storage="cold", **options)
            attach(app, content=b"new")
            assert storages_of(app) == ["", "cold"]
            assert read(app, old) == b"old"
            with transaction.manager:
                entries = app.app.registry.attachment_links.outbox.entries()
                for entry in entries:
                    assert entry.storage == ""
                    app.app.registry.attachment_links.outbox.take(entry)
            clear(app)
            put_collection(app)

    def test_an_upload_that_fails_leaves_nothing_in_either(self, app: Any) -> None:
        attach(app, data="[]", status=400)
        attach(app, headers={**ALICE, "If-Match": '"1"'}, status=412)
        put_raw(app, headers={**ALICE, "Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, status=400)
        assert storages_of(app) == [""]
        assert read(app) == b"old"

    def test_what_cannot_be_deleted_waits_in_an_entry_of_its_storage(self, app: Any) -> None:
        with failing_deletes(app):
            attach(app, content=b"new")
        (entry,) = outbox(app)
        assert entry.storage == ""
        assert storages_of(app) == ["", "cold"]
        with failing_deletes(app, storage="cold"):
            app.delete(RECORD, headers=ALICE)
        assert sorted(entry.storage for entry in outbox(app)) == ["", "cold"]
        empty_outbox(app)
        assert storages_of(app) == []


@ON_DATABASES
class TestNames:
    """A key names one file across all storages."""

    OPTIONS = {"randomize": "false", "resources.b.other.storage": "cold"}

    @pytest.fixture
    def app(self, several: Start) -> Any:
        app = several(**self.OPTIONS)
        put_collection(app, f"{BUCKET}/collections/other")
        return app

    def test_are_not_given_twice(self, app: Any) -> None:
        keys = [
            key_of(attach(app, f"{BUCKET}/collections/{name}", content=name.encode()).json)
            for name in ("c/records/1", "other/records/1", "other/records/2", "c/records/2")
        ]
        assert keys == ["notes.txt", "notes-1.txt", "notes-2.txt", "notes-3.txt"]
        assert {key for _, key in placed_files(app)} == set(keys)

    def test_are_free_when_the_file_of_the_other_storage_is_gone(self, app: Any) -> None:
        attach(app)
        app.delete(RECORD, headers=ALICE)
        there = f"{BUCKET}/collections/other/records/1"
        assert key_of(attach(app, there).json) == "notes.txt"
        assert placed_files(app) == {("cold", "notes.txt")}

    def test_are_not_free_while_the_other_file_waits_to_be_deleted(self, app: Any) -> None:
        attach(app)
        with failing_deletes(app):
            app.delete(RECORD, headers=ALICE)
        there = f"{BUCKET}/collections/other/records/1"
        assert key_of(attach(app, there).json) == "notes-1.txt"
        empty_outbox(app)
        assert placed_files(app) == {("cold", "notes-1.txt")}

    def test_what_nobody_knows_in_the_other_storage_is_not_served(self, app: Any) -> None:
        """For a key that exists in both, the link says which storage has the file."""
        registry = app.app.registry
        path = Path(registry.attachment_storages["cold"].files.path("notes.txt"))
        path.write_bytes(b"forged")
        attach(app)
        assert key_of(attachment_of(app)) == "notes.txt"
        assert read(app) == CONTENT
        assert read(app, "/attachments/notes.txt") == CONTENT
        app.delete(RECORD, headers=ALICE)
        assert path.read_bytes() == b"forged"
        path.unlink()


@ON_POSTGRESQL
class TestSideBySide:
    """A folder, S3 and Google in one server, by collection and bucket."""

    @pytest.fixture
    def app(
        self,
        several: Start,
        seaweedfs_storage: dict[str, str],
        gcs_storage: dict[str, str],
    ) -> Any:
        options = {f"storages.s3.{name}": value for name, value in seaweedfs_storage.items()}
        options |= {f"storages.google.{name}": value for name, value in gcs_storage.items()}
        options |= {"storages.google.downloads": "proxy", "storages.s3.signed_url_ttl": "60"}
        chosen = {"b.s3": "s3", "b.google": "google", "elsewhere": "cold"}
        options |= {f"resources.{name}.storage": storage for name, storage in chosen.items()}
        app = several(**options)
        for name in ("s3", "google"):
            put_collection(app, f"{BUCKET}/collections/{name}")
        put_collection(app, "/buckets/elsewhere/collections/c")
        return app

    PLACES = {
        "": f"{RECORD}",
        "s3": f"{BUCKET}/collections/s3/records/r",
        "google": f"{BUCKET}/collections/google/records/r",
        "cold": "/buckets/elsewhere/collections/c/records/r",
    }

    def test_every_verb_finds_the_file(self, app: Any) -> None:
        for storage, record in self.PLACES.items():
            content = f"in {storage}".encode()
            attach(app, record, content=b"first", status=201)
            put_raw(app, record, content=content, status=200)
            assert [name for name, _ in placed_files(app) if name == storage] == [storage]
            url = f"{record}/attachment"
            assert read(app, url) == content
            assert read(app, urlsplit(attachment_of(app, record)["location"]).path) == content
            assert app.head(url, headers=ALICE).content_length == len(content)
            app.patch_json(url, {"data": {"filename": "x.txt"}}, headers=ALICE)
            answer = app.get(url, headers={**ALICE, "Range": "bytes=1-2"}, status="*")
            assert answer.status_code == (302 if storage == "s3" else 206)
            etag = app.head(url, headers=ALICE).headers["ETag"]
            app.get(url, headers={**ALICE, "If-None-Match": etag}, status=304)
        assert len(placed_files(app)) == len(self.PLACES)
        app.delete(f"{self.PLACES['s3']}/attachment", headers=ALICE)
        app.delete(self.PLACES["google"], headers=ALICE)
        assert storages_of(app) == ["", "cold"]
        app.delete(f"{BUCKET}", headers=ALICE)
        assert storages_of(app) == ["cold"]

    def test_the_heartbeat_tells_of_each(self, app: Any) -> None:
        status = app.get("/__heartbeat__").json
        ours = {name: value for name, value in status.items() if name.startswith("attachments")}
        assert ours == {
            "attachments": True,
            "attachments.cold": True,
            "attachments.google": True,
            "attachments.s3": True,
            "attachments.storages": True,
        }
        assert not placed_files(app)

    def test_a_publisher_s_copy_is_a_link_to_the_file_where_it_is(self, app: Any) -> None:
        record = self.PLACES["s3"]
        attachment = attach(app, record).json
        with transaction.manager:
            write_behind(app, RECORD, {"attachment": attachment})
            key = key_of(attachment)
            app.app.registry.attachment_links.share(Link.to(RECORD, key, attachment))
        assert {link.storage for link in links_of(app)} == {"s3"}
        assert read(app) == CONTENT
        app.delete(record, headers=ALICE)
        assert read(app) == CONTENT
        attach(app, content=b"new")
        assert storages_of(app) == [""]


@ON_MEMORY
def test_each_can_fail_by_itself(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "cold"
    folder.write_text("not a folder")
    cold = {"storages.cold.base_path": str(folder), "resources.b.other.storage": "cold"}
    app = build(**cold)
    put_collection(app, f"{BUCKET}/collections/other")
    status = app.get("/__heartbeat__", status=503).json
    assert (status["attachments"], status["attachments.cold"]) == (True, False)
    attach(app, f"{BUCKET}/collections/other/records/r", status=503)
    attach(app)
    assert read(app) == CONTENT
    folder.unlink()
    assert app.get("/__heartbeat__").json["attachments.cold"] is True


class TestDownloads:
    """Each storage serves downloads in its own way, independently of the others."""

    @pytest.fixture
    def app(self, build: Build, tmp_path: Path, moto_storage: dict[str, str]) -> Any:
        modes = {
            "accel": "x-accel-redirect:/accel/",
            "accel2": "x-accel-redirect:/accel2/",
            "send": "x-sendfile",
        }
        options = {f"storages.s3.{name}": value for name, value in moto_storage.items()}
        options["storages.s3.signed_url_ttl"] = "77"
        for name, mode in modes.items():
            options[f"storages.{name}.base_path"] = str(tmp_path / name)
            options[f"storages.{name}.downloads"] = mode
        for name in ("s3", *modes):
            options[f"resources.b.{name}.storage"] = name
        app = build(downloads="stream", **options)
        for name in ("s3", *modes):
            put_collection(app, f"{BUCKET}/collections/{name}")
        return app

    @ON_MEMORY
    @pytest.mark.parametrize("by_location", [False, True], ids=["record", "location"])
    def test_are_sent_as_the_storage_of_the_file_says(
        self, app: Any, tmp_path: Path, by_location: bool
    ) -> None:
        def answer(name: str) -> tuple[Any, str]:
            record = f"{BUCKET}/collections/{name}/records/r"
            attachment = attach(app, record).json
            url = urlsplit(attachment["location"]).path if by_location else f"{record}/attachment"
            return app.get(url, headers=ALICE), key_of(attachment)

        response, _ = answer("c")
        assert (response.status_code, response.body) == (200, CONTENT)
        for name in ("accel", "accel2"):
            response, key = answer(name)
            assert response.headers["X-Accel-Redirect"] == f"/{name}/{key}"
        response, key = answer("send")
        assert response.headers["X-Sendfile"] == str(tmp_path / "send" / key)
        response, key = answer("s3")
        assert response.status_code == 302
        assert key in response.location
        assert "X-Amz-Expires=77" in response.location


class TestPublic:
    """A public storage beside a private one."""

    @pytest.fixture
    def app(self, several: Start) -> Any:
        app = several(**{"storages.cold.public": "true", "resources.b.open.storage": "cold"})
        put_collection(app, f"{BUCKET}/collections/open")
        return app

    OPEN = f"{BUCKET}/collections/open/records/r"

    @ON_DATABASES
    def test_only_its_own_files_are_public(self, app: Any) -> None:
        public = urlsplit(attach(app, self.OPEN).json["location"]).path
        private = urlsplit(attach(app).json["location"]).path
        answer = app.get(public, headers=ANONYMOUS)
        assert answer.body == CONTENT
        assert "public" in answer.headers["Cache-Control"]
        assert "private" in app.get(private, headers=ALICE).headers["Cache-Control"]
        refusals = [
            app.get(path, headers=headers, status=status)
            for path in (private, "/attachments/nothing.txt")
            for headers, status in ((ANONYMOUS, 401), (BOB, 404))
        ]
        assert [error(each) for each in refusals[:2]] == [error(each) for each in refusals[2:]]
        # By the record's URL, a public file also needs the permission.
        app.get(f"{self.OPEN}/attachment", headers=BOB, status=403)

    @ON_DATABASES
    def test_a_private_file_stays_private_in_a_record_of_a_public_collection(
        self, app: Any
    ) -> None:
        """The file's storage decides, not the current setting of its collection."""
        attachment = attach(app).json
        with transaction.manager:
            write_behind(app, self.OPEN, {"attachment": attachment})
            link = Link.to(self.OPEN, key_of(attachment), attachment)
            app.app.registry.attachment_links.share(link)
        path = urlsplit(attachment["location"]).path
        app.get(path, headers=ANONYMOUS, status=401)
        assert app.get(path, headers=ALICE).body == CONTENT
        app.delete(self.OPEN, headers=ALICE)


class TestForgedLocations:
    """A location cannot select a file of another storage."""

    CDN, COLD = "https://cdn.example.com/", "https://cdn.example.com/cold/"

    @pytest.fixture
    def app(self, several: Start) -> Any:
        urls = {"base_url": self.CDN, "storages.cold.base_url": self.COLD}
        app = several(**urls, **{"resources.b.closed.storage": "cold"})
        put_collection(app, f"{BUCKET}/collections/closed")
        return app

    @ON_DATABASES
    def test_of_a_client_are_refused(self, app: Any) -> None:
        closed = attach(app, f"{BUCKET}/collections/closed/records/r").json
        assert closed["location"].startswith(self.COLD)
        for location in (closed["location"], closed["location"].replace(self.COLD, self.CDN)):
            forged = {"data": {"attachment": {**closed, "location": location}}}
            app.put_json(RECORD, forged, headers=ALICE, status=400)
        attach(app, content=b"own")
        app.patch_json(RECORD, forged, headers=ALICE, status=400)
        assert read(app) == b"own"

    @ON_POSTGRESQL
    def test_of_a_careless_plugin_link_no_file_but_the_one_that_is_described(
        self, several: Start
    ) -> None:
        """A key below one storage's URL is the location of a file in the other one."""
        app = several(
            {"includes": "tests.support.publishing"},
            **{"base_url": self.CDN, "storages.cold.base_url": self.COLD},
            **{"resources.b.closed.storage": "cold", "randomize": "false"},
        )
        put_collection(app, f"{BUCKET}/collections/closed")
        secret = f"{BUCKET}/collections/closed/records/r"
        closed = attach(app, secret, content=b"closed").json
        other = attach(app, content=b"public", filename="p.txt").json
        forged = {**other, "location": closed["location"]}
        write_behind(app, OTHER, {"attachment": forged})
        copies = {"copies": {OTHER: f"{COLLECTION}/records/copy"}}
        app.post_json("/publish", copies, headers=ALICE, status=409)
        assert {link.record for link in links_of(app)} == {RECORD, secret}
        write_behind(app, OTHER, {})


@ON_DATABASES
class TestMaintenance:
    CLOSED = f"{BUCKET}/collections/closed/records/r"

    def start(self, several: Start, **options: str) -> Any:
        app = several(**{"resources.b.closed.storage": "cold", **options})
        put_collection(app, f"{BUCKET}/collections/closed")
        return app

    @pytest.mark.parametrize("storage", ["", "cold"])
    def test_gc_takes_what_is_without_a_link_in_each(self, several: Start, storage: str) -> None:
        app = self.start(several)
        attach(app)
        attach(app, self.CLOSED)
        before = placed_files(app)
        for name in ("", "cold"):
            store(app, name, STRAY)
        assert collect(app, storage=storage).unlinked == [STRAY]
        assert placed_files(app) - before == {("" if storage else "cold", STRAY)}
        assert collect(app).unlinked == [STRAY]
        assert placed_files(app) == before
        assert not collect(app).found

    def test_gc_spares_a_name_that_a_file_of_the_other_storage_has(self, several: Start) -> None:
        """It may be a copy that will be needed soon."""
        app = self.start(several, randomize="false")
        key = key_of(attach(app, self.CLOSED).json)
        store(app, "", key)
        assert not collect(app).found
        assert placed_files(app) == {("", key), ("cold", key)}
        app.delete(self.CLOSED, headers=ALICE)
        assert placed_files(app) == {("", key)}
        # Its name does not show that the plugin generated it.
        assert not collect(app).found
        app.app.registry.attachment_storages.default.files.delete(key)

    def test_gc_misses_a_file_only_where_its_link_says_it_is(self, several: Start) -> None:
        app = self.start(several)
        key = key_of(attach(app, self.CLOSED).json)
        store(app, "", key)
        cold = app.app.registry.attachment_storages["cold"].files
        cold.delete(key)
        assert collect(app).missing == [self.CLOSED]
        app.get(f"{self.CLOSED}/attachment", headers=ALICE, status=404)
        store(app, "cold", key, CONTENT)
        assert not collect(app).missing
        assert read(app, f"{self.CLOSED}/attachment") == CONTENT
        app.app.registry.attachment_storages.default.files.delete(key)

    def test_gc_goes_on_with_the_others_when_one_fails(
        self, several: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = self.start(several)
        store(app, "cold", STRAY)

        def fail(*_: object) -> Iterator[Any]:
            raise StorageUnavailable()

        default = app.app.registry.attachment_storages.default.files
        with monkeypatch.context() as patch:
            patch.setattr(default, "list", fail)
            report = collect(app)
        assert [error.partition(":")[0] for error in report.errors] == ["find_unlinked"]
        assert report.unlinked == [STRAY]

    @pytest.mark.parametrize(
        "urls",
        [
            {},
            {
                "base_url": "https://cdn.example.com",
                "storages.cold.base_url": "https://cdn.example.com",
            },
            {
                "base_url": "https://a.example.com",
                "storages.cold.base_url": "https://b.example.com",
            },
            # Below one, a key with a folder; below the other, one without.
            {
                "base_url": "https://a.example.com",
                "storages.cold.base_url": "https://a.example.com/x",
            },
        ],
        ids=["server", "same", "different", "nested"],
    )
    def test_reindex_finds_the_storage_that_has_the_file(
        self, several: Start, urls: dict[str, str]
    ) -> None:
        app = self.start(several, **urls)
        attach(app)
        attach(app, self.CLOSED, content=b"closed")
        before = {(link.record, link.storage, link.key) for link in links_of(app)}
        with transaction.manager:
            app.app.registry.storage.delete_all("attachment", "attachments:*", with_deleted=False)
        # They can be read meanwhile, like records from before the index.
        assert read(app) == CONTENT
        assert read(app, f"{self.CLOSED}/attachment") == b"closed"
        report = reindex(app.app.registry)
        assert (report.linked, report.foreign, report.missing) == (2, [], [])
        assert {(link.record, link.storage, link.key) for link in links_of(app)} == before

    def test_reindex_names_the_records_whose_file_none_has(self, several: Start) -> None:
        app = self.start(several)
        attachment = attach(app, self.CLOSED).json
        with transaction.manager:
            app.app.registry.storage.delete_all("attachment", "attachments:*", with_deleted=False)
        app.app.registry.attachment_storages["cold"].files.delete(key_of(attachment))
        assert reindex(app.app.registry).missing == [self.CLOSED]
        app.get(f"{self.CLOSED}/attachment", headers=ALICE, status=404)
        app.delete(self.CLOSED, headers=ALICE)


@ON_POSTGRESQL
class TestCost:
    """The statements on a server with two storages, compared with one."""

    @pytest.fixture
    def counts(self) -> Callable[[Any], list[int]]:
        def count(app: Any) -> list[int]:
            """The statements of an upload, a replacement, two downloads and two deletions."""
            attach(app, OTHER)  # A process executes some statements only once.

            def read_location() -> None:
                read(app, urlsplit(attachment_of(app)["location"]).path)

            found = [
                statements(app, action)
                for action in (
                    lambda: attach(app, filename="new.txt", status=201),
                    lambda: put_raw(app, filename="other.txt", status=200),
                    lambda: read(app),
                    read_location,
                    lambda: app.delete(URL, headers=ALICE),
                    lambda: app.delete(OTHER, headers=ALICE),
                )
            ]
            app.delete(RECORD, headers=ALICE)
            return found

        return count

    def test_random_names_cost_nothing_more(
        self, build: Build, several: Start, counts: Callable[[Any], list[int]]
    ) -> None:
        alone = counts(build())
        assert all(alone)
        assert counts(several()) == alone
        assert counts(several(storage="cold")) == alone

    def test_other_names_are_compared_with_the_links(
        self, build: Build, several: Start, counts: Callable[[Any], list[int]]
    ) -> None:
        alone = counts(build(randomize="false"))
        for app in (several(randomize="false"), several(storage="cold", randomize="false")):
            more = [two - one for two, one in zip(counts(app), alone, strict=True)]
            # The links before and after the reservation, and a lock between.
            assert more == [4, 4, 0, 0, 0, 0]


@ON_POSTGRESQL
class TestNotConfigured:
    """A storage whose settings were removed: no file is lost, and errors say so."""

    @pytest.fixture
    def servers(
        self, backends: list[dict[str, str]], applications: Applications, folder: str
    ) -> Iterator[Start]:
        """Servers on one database and one folder; the first one is checked at the end."""
        storage, database = backends
        started = []

        def start(*, cold: bool = True, **options: str) -> Any:
            second = {"storages.cold.base_path": folder} if cold else {}
            app = applications.get({**storage, **second, **options}, database, {})
            own(app.app.registry)
            started.append(app)
            return app

        yield start
        try:
            check_invariant(started[0])
        finally:
            for app in started:
                clear(app)

    @pytest.fixture
    def app(self, servers: Start) -> Any:
        """A server without the storage that has the file of a record."""
        before = servers(storage="cold")
        put_collection(before)
        attach(before, content=b"old")
        return servers(cold=False)

    def test_reading_a_file_of_it_says_so(self, app: Any) -> None:
        location = urlsplit(attachment_of(app)["location"]).path
        for path in (URL, location):
            answer = app.get(path, headers=ALICE, status=503)
            errno, message = error(answer)
            assert errno == BACKEND
            assert message == "The file is in the storage 'cold', which is not configured."
            assert answer.headers["Retry-After"]
            app.head(path, headers=ALICE, status=503)
        # Only users who may read the record are told.
        app.get(URL, headers=BOB, status=403)
        app.get(location, headers=BOB, status=404)
        app.get(location, headers=ANONYMOUS, status=401)

    def test_other_files_come_and_go(self, app: Any) -> None:
        attach(app, OTHER)
        assert read(app, f"{OTHER}/attachment") == CONTENT
        app.delete(OTHER, headers=ALICE)
        put(app, f"{COLLECTION}/records/plain")
        app.patch_json(URL, {"data": {"filename": "x.txt"}}, headers=ALICE)
        assert attachment_of(app)["filename"] == "x.txt"

    @pytest.mark.parametrize("how", ["replaced", "detached", "deleted", "with its bucket"])
    def test_a_file_that_is_let_go_is_deleted_when_it_is_back(
        self, app: Any, servers: Start, how: str
    ) -> None:
        if how == "replaced":
            attach(app, content=b"new", status=200)
            assert read(app) == b"new"
        else:
            path = {"detached": URL, "deleted": RECORD, "with its bucket": BUCKET}[how]
            app.delete(path, headers=ALICE)
        (entry,) = outbox(app)
        assert entry.storage == "cold"
        report = collect(app)
        assert report.errors == [NOT_CONFIGURED]
        assert outbox(app) == [entry]
        back = servers()
        assert storages_of(back) == (["", "cold"] if how == "replaced" else ["cold"])
        assert collect(back).finished == entry.keys
        assert storages_of(back) == ([""] if how == "replaced" else [])

    def test_gc_reports_it_and_takes_nothing_for_garbage(self, app: Any, servers: Start) -> None:
        # The link's record was also deleted, by a plugin without Kinto.
        with transaction.manager:
            app.app.registry.storage.delete("record", COLLECTION, "r")
        for _ in range(2):
            report = collect(app)
            assert report.errors == [NOT_CONFIGURED]
            assert [*report.dangling, *report.missing, *report.unlinked] == []
        back = servers()
        assert len(links_of(back)) == 1
        assert storages_of(back) == ["cold"]
        report = collect(back)
        assert (report.errors, report.dangling) == ([], [RECORD])
        assert storages_of(back) == []

    def test_the_heartbeat_names_it_until_nothing_is_left_there(
        self, app: Any, servers: Start, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR):
            status = app.get("/__heartbeat__", status=503).json
        assert status["attachments"] is True
        assert status["attachments.storages"] == {"not_configured": ["cold"]}
        assert "['cold']" in caplog.text
        back = servers()
        assert back.get("/__heartbeat__").json["attachments.storages"] is True
        back.delete(RECORD, headers=ALICE)
        assert app.get("/__heartbeat__", status=503).json["attachments.storages"]
        assert collect(app, dry_run=True).errors == []
        app.get("/__heartbeat__", status=503)
        assert collect(app).errors == []
        assert app.get("/__heartbeat__").json["attachments.storages"] is True

    def test_gc_notes_a_storage_that_the_index_had_forgotten(self, app: Any) -> None:
        with transaction.manager:
            app.app.registry.attachment_links.used_storages.forget("cold")
        assert app.get("/__heartbeat__").json["attachments.storages"] is True
        assert collect(app).errors == [NOT_CONFIGURED]
        app.get("/__heartbeat__", status=503)

    def test_its_names_stay_taken(self, servers: Start) -> None:
        before = servers(storage="cold", randomize="false")
        put_collection(before)
        assert key_of(attach(before).json) == "notes.txt"
        app = servers(cold=False, randomize="false")
        assert key_of(attach(app, OTHER).json) == "notes-1.txt"
        assert read(app, f"{OTHER}/attachment") == CONTENT

    def test_a_flush_does_not_forget_it(self, app: Any, servers: Start) -> None:
        app.post("/__flush__", headers=ALICE)
        app.get("/__heartbeat__", status=503)
        (entry,) = outbox(app)
        assert entry.storage == "cold"
        back = servers()
        assert collect(back).finished == entry.keys
        assert storages_of(back) == []
