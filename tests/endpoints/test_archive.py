"""``GET C/attachments.zip``: the files of a collection in one archive."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import requests
import transaction

from kinto_attachment import AttachmentRead
from kinto_attachment.endpoints import collection_archive
from kinto_attachment.files import archiving
from kinto_attachment.http import archives
from tests.support import live
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    CONTENT,
    RECORD,
    attach,
    links_of,
    on_event,
    put,
    seen,
    stored_files,
    write_behind,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build
from tests.support.sampling import one_value
from tests.support.services import PostgreSQL

URL = f"{COLLECTION}/attachments.zip"
DEFAULT = "/buckets/default/collections/c"
MIB = 1024 * 1024


def record(name: str) -> str:
    return f"{COLLECTION}/records/{name}"


def archive(app: Any, query: str = "", url: str = URL) -> zipfile.ZipFile:
    response = app.get(f"{url}?{query}", headers=ALICE)
    found = zipfile.ZipFile(io.BytesIO(b"".join(response.app_iter)))
    assert found.testzip() is None
    return found


def files_of(found: zipfile.ZipFile) -> dict[str, bytes]:
    return {name: found.read(name) for name in found.namelist()}


@EVERYWHERE
class TestContains:
    def test_files_records_and_a_list(self, app: Any) -> None:
        contents = {"a": b"first", "b": b"", "c": random.Random(1).randbytes(300_000)}
        for name, content in contents.items():
            attach(app, record(name), content, f"{name}.txt", data={"title": name})
        put(app, record("bare"))
        found = files_of(archive(app))
        assert set(found) == {"index.json", *contents, *(f"{name}.meta.json" for name in contents)}
        for name, content in contents.items():
            assert found[name] == content
            assert (
                json.loads(found[f"{name}.meta.json"])
                == app.get(record(name), headers=ALICE).json["data"]
            )
        listing = app.get(f"{COLLECTION}/attachments", headers=ALICE).json
        assert json.loads(found["index.json"]) == listing

    def test_more_than_a_page(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archiving, "RECORDS_AT_ONCE", 2)
        for number in range(5):
            attach(app, record(f"r{number}"), b"x" * number)
        found = archive(app)
        assert [name for name in found.namelist() if "." not in name] == [
            f"r{number}" for number in (4, 3, 2, 1, 0)
        ]


@ON_DATABASES
class TestAnswers:
    def test_what_filters_select(self, app: Any) -> None:
        for number in range(4):
            attach(app, record(f"r{number}"), b"x" * number, f"doc{number}.txt")
        found = archive(app, "gt_size=1&like_filename=doc*")
        assert set(found.namelist()) >= {"r2", "r3"}
        assert not {"r0", "r1"} & set(found.namelist())
        assert len(json.loads(found.read("index.json"))["data"]) == 2

    def test_nothing(self, app: Any) -> None:
        assert json.loads(archive(app).read("index.json")) == {"data": []}

    def test_is_not_compressed(self, app: Any) -> None:
        attach(app, content=b"a" * 10_000)
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive(app).infolist())

    def test_the_bytes_that_are_stored(self, build: Build) -> None:
        app = build(gzipped="true")
        attach(app, content=b"a" * 10_000)
        found = files_of(archive(app))
        described = json.loads(found["r.meta.json"])["attachment"]
        assert len(found["r"]) == described["size"] < described["original"]["size"]

    def test_records_of_before_the_index(self, app: Any) -> None:
        attach(app)
        (link,) = links_of(app)
        with transaction.manager:
            app.app.registry.attachment_links._rows.delete(link.parent, link.id)
        assert archive(app).read("r") == CONTENT
        with transaction.manager:
            app.app.registry.attachment_links._put(link)

    def test_headers(self, app: Any) -> None:
        attach(app)
        for response in (app.get(URL, headers=ALICE), app.head(URL, headers=ALICE)):
            assert response.headers["Content-Type"] == "application/zip"
            assert 'filename="c.zip"' in response.headers["Content-Disposition"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "private" in response.headers["Cache-Control"]
            assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert app.head(URL, headers=ALICE).body == b""

    def test_in_the_default_bucket(self, app: Any) -> None:
        attach(app, f"{DEFAULT}/records/mine")
        assert archive(app, url=f"{DEFAULT}/attachments.zip").read("mine") == CONTENT

    def test_not_in_a_batch(self, app: Any) -> None:
        body = {"requests": [{"method": "GET", "path": f"/v1{URL}"}]}
        (answer,) = app.post_json("/batch", body, headers=ALICE).json["responses"]
        assert (answer["status"], answer["body"]["errno"]) == (400, 107)

    @pytest.mark.parametrize("query", ["_limit=1", "_token=1", "state=kept", "state=current"])
    def test_no_pages(self, app: Any, query: str) -> None:
        app.get(f"{URL}?{query}", headers=ALICE, status=400)

    def test_not_more_files_than_memory_is_there_for(
        self, app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(collection_archive, "MAX_FILES", 2)
        for number in range(3):
            attach(app, record(f"r{number}"), b"x" * number)
        response = app.get(URL, headers=ALICE, status=413)
        assert response.json["errno"] == 113
        assert "filters" in response.json["message"]
        archive(app, "gt_size=0")

    def test_tells_other_plugins(self, app: Any) -> None:
        attach(app)
        attach(app, record("other"))
        app.head(URL, headers=ALICE)
        assert not seen(app, AttachmentRead)
        archive(app)
        read = {event.record_uri: event.attachment for event in seen(app, AttachmentRead)}
        assert set(read) == {RECORD, record("other")}
        assert read[RECORD] == app.get(RECORD, headers=ALICE).json["data"]["attachment"]

    def test_a_plugin_that_fails_costs_nothing(self, app: Any) -> None:
        attach(app)

        def fail(event: Any) -> None:
            raise RuntimeError("a careless plugin")

        on_event(app, AttachmentRead, fail)
        assert archive(app).read("r") == CONTENT


@ON_DATABASES
class TestChanges:
    """What happens between the reading of a record and the sending of its file."""

    @pytest.fixture(autouse=True)
    def files(self, app: Any) -> None:
        for name in ("a", "b", "c"):
            attach(app, record(name), name.encode())

    def while_sending(self, app: Any, action: Any) -> dict[str, bytes]:
        """The archive when something happens after the first file, that of ``c``, was opened."""
        done: list[Any] = []

        def once(event: Any) -> None:
            if not done:
                done.append(event)
                app.app.registry.on_event = None
                action()

        on_event(app, AttachmentRead, once)
        return files_of(archive(app))

    def test_a_replaced_file(self, app: Any) -> None:
        found = self.while_sending(app, lambda: attach(app, record("b"), b"newer"))
        assert found["b"] == b"newer"
        assert json.loads(found["b.meta.json"])["attachment"]["size"] == 5
        assert {item["id"] for item in json.loads(found["index.json"])["data"]} == {"a", "b", "c"}

    def test_a_deleted_file(self, app: Any) -> None:
        found = self.while_sending(
            app, lambda: app.delete(f"{record('b')}/attachment", headers=ALICE)
        )
        assert set(found) == {"a", "a.meta.json", "c", "c.meta.json", "index.json"}

    def test_a_deleted_record(self, app: Any) -> None:
        found = self.while_sending(app, lambda: app.delete(record("b"), headers=ALICE))
        assert "b" not in found

    def test_a_deleted_collection(self, app: Any) -> None:
        found = self.while_sending(app, lambda: app.delete(COLLECTION, headers=ALICE))
        assert set(found) == {"c", "c.meta.json", "index.json"}


@ON_MEMORY
class TestFails:
    def test_if_a_file_is_missing(self, app: Any) -> None:
        attach(app)
        app.app.registry.attachment_storages.default.files.delete(*stored_files(app))
        attach(app, record("newer"))
        with pytest.raises(Exception, match=f"The file of {RECORD} is missing"):
            archive(app)
        app.delete(RECORD, headers=ALICE)

    def test_with_an_answer_if_it_is_the_first_one(self, app: Any) -> None:
        attach(app)
        app.app.registry.attachment_storages.default.files.delete(*stored_files(app))
        answer = app.get(URL, headers=ALICE, status=500).json
        assert (answer["errno"], answer["error"]) == (999, "Internal Server Error")
        assert answer["message"] == f"The file of {RECORD} is missing."
        app.delete(RECORD, headers=ALICE)

    def test_if_a_file_is_elsewhere(self, app: Any) -> None:
        location = "https://elsewhere.example.com/a.txt"
        metadata = {"location": location, "size": 1, "hash": "0" * 64, "filename": "a.txt"}
        write_behind(app, RECORD, {"attachment": metadata})
        assert "is missing" in app.get(URL, headers=ALICE, status=500).json["message"]
        write_behind(app, RECORD, {})

    def test_if_a_file_has_another_size(self, app: Any) -> None:
        attach(app)
        (key,) = stored_files(app)
        files = app.app.registry.attachment_storages.default.files
        for content in (CONTENT[:-1], CONTENT + b"!"):
            files.delete(key)
            files.write(key, io.BytesIO(content), "text/plain")
            with pytest.raises(archives.WrongSize):
                archive(app)
        app.delete(RECORD, headers=ALICE)


def test_names_lead_nowhere() -> None:
    for name in ("..", "../../etc/passwd", "/etc", "a.meta.json", "index.json"):
        found = archiving.name_of(name)
        assert "/" not in found
        assert "." not in found
    assert archiving.name_of("a-B_9") == "a-B_9"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 48 MiB, 1.5 times the memory that a server may use for it."""
    path = tmp_path_factory.mktemp("large") / "file"
    path.write_bytes(random.Random(7).randbytes(MIB) * 48)
    return path


class TestOverTheWire:
    """On real servers, with real sockets."""

    @one_value("engine")
    @pytest.mark.parametrize("engine", ["gunicorn", "waitress"])
    def test_memory_is_flat(self, tmp_path: Path, large: Path, engine: live.Engine) -> None:
        with live.kinto({"base_path": str(tmp_path)}, engine=engine) as server:
            with live.Client(server) as client:
                make_collection(client)
                with large.open("rb") as file:
                    headers = {"Content-Length": str(large.stat().st_size)}
                    url = f"{RECORD}/attachment?filename=large.bin"
                    assert client.request("PUT", url, file, headers)[0] == 201
            idle = live.idle_memory(server)
            target = tmp_path / "archive.zip"
            with (
                requests.get(server.url + URL, headers=ALICE, stream=True, timeout=90) as response,
                target.open("wb") as file,
            ):
                for chunk in response.iter_content(MIB):
                    file.write(chunk)
            assert live.peak_over_idle(server, idle) < 32 * MIB
        with zipfile.ZipFile(target) as found, found.open("r") as one, large.open("rb") as other:
            while chunk := other.read(MIB):
                assert one.read(MIB) == chunk
            assert one.read() == b""

    @one_value("engine")
    @pytest.mark.parametrize("engine", ["gunicorn", "waitress"])
    def test_a_missing_file_breaks_the_response_off(
        self, tmp_path: Path, engine: live.Engine
    ) -> None:
        with live.kinto({"base_path": str(tmp_path)}, engine=engine) as server:
            with live.Client(server) as client:
                make_collection(client)
                for name in ("a", "b", "c"):
                    assert client.attach(record(name), name.encode() * 100, "a.txt")[0] == 201
            (path,) = [path for path in tmp_path.rglob("*.txt") if path.read_bytes()[:1] == b"b"]
            path.unlink()
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                _ = requests.get(server.url + URL, headers=ALICE, timeout=90).content
            assert "is missing" in server.log()
            # The next request is answered.
            query = "?in_id=a,c"
            whole = requests.get(server.url + URL + query, headers=ALICE, timeout=90).content
            with zipfile.ZipFile(io.BytesIO(whole)) as found:
                assert found.read("a") == b"a" * 100

    @pytest.mark.postgresql
    def test_no_connection_to_the_database_is_held(
        self, tmp_path: Path, postgresql: PostgreSQL, large: Path
    ) -> None:
        """With a pool of one connection, other requests are answered during the transfer."""
        database = postgresql.create_database()
        names = ("storage", "permission", "cache")
        pool = {f"kinto.{name}_{key}": "1" for name in names for key in ("pool_size",)}
        pool |= {f"kinto.{name}_max_overflow": "0" for name in names}
        pool |= {f"kinto.{name}_pool_timeout": "20" for name in names}
        settings = {"base_path": str(tmp_path)}
        try:
            with live.kinto(settings, database=database, settings=pool) as server:
                with live.Client(server) as client:
                    make_collection(client)
                    with large.open("rb") as file:
                        headers = {"Content-Length": str(large.stat().st_size)}
                        url = f"{RECORD}/attachment?filename=large.bin"
                        assert client.request("PUT", url, file, headers)[0] == 201
                with (
                    requests.get(server.url + URL, headers=ALICE, stream=True, timeout=90) as slow,
                    live.Client(server) as client,
                ):
                    assert slow.raw.read(MIB)
                    for _ in range(3):
                        assert client.request("GET", RECORD)[0] == 200
                        assert client.put(f"{COLLECTION}/records/other") in (200, 201)
        finally:
            postgresql.drop_database(database)


def make_collection(client: live.Client) -> None:
    for uri in (BUCKET, COLLECTION):
        assert client.put(uri) == 201
