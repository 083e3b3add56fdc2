"""The Host header selects neither a file nor where other clients are redirected to."""

from __future__ import annotations

import logging
from io import BytesIO
from typing import Any

import pytest
import transaction

from kinto_attachment.maintenance.reindex import reindex
from kinto_attachment.metadata import FIELD
from tests.support.application import (
    ALICE,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    Headers,
    attach,
    error,
    key_of,
    put,
    put_raw,
    read,
    stored_files,
    stored_links,
    userid,
    write_behind,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, Build

BOBS = "/buckets/bob/collections/c/records/r"
# Hosts that would make a URL that starts with them lead elsewhere.
HOSTILE = [
    "x/v1/attachments/{key}?",
    "x/v1/attachments/{key}#",
    "x/v1/attachments/{key}/",
    "evil.example?",
    "evil.example#",
    "evil.example/",
    "evil.example\\",
    "user@evil.example",
    "evil.example:80:80",
    "evil.example:x",
    "[::1",
    "e vil.example",
]


@pytest.fixture
def victim(app: Any) -> str:
    """The key of a file of alice's, which bob cannot read."""
    put(app, "/buckets/bob", BOB)
    put(app, "/buckets/bob/collections/c", BOB)
    return key_of(attach(app).json)


def batch(app: Any, *requests: dict[str, Any], headers: Headers = BOB) -> list[dict[str, Any]]:
    answer = app.post_json("/batch", {"requests": list(requests)}, headers=headers)
    responses: list[dict[str, Any]] = answer.json["responses"]
    return responses


@ON_DATABASES
class TestHost:
    @pytest.mark.parametrize("host", HOSTILE)
    def test_that_is_no_host_is_refused(self, app: Any, victim: str, host: str) -> None:
        headers = {**BOB, "Host": host.format(key=victim)}
        for refusal in (
            put_raw(app, BOBS, b"bob's", headers=headers, status=400),
            attach(app, BOBS, b"bob's", headers=headers, status=400),
            app.get(f"{BOBS}/attachment", headers=headers, status=400),
            app.delete(f"{BOBS}/attachment", headers=headers, status=400),
            app.get(f"/attachments/{victim}", headers=headers, status=400),
        ):
            assert error(refusal) == (107, "Host in header: Invalid host.")
        assert stored_files(app) == {victim}
        assert {record for record, _, _ in stored_links(app)} == {RECORD}

    @pytest.mark.parametrize("host", HOSTILE)
    def test_of_a_part_of_a_batch(self, app: Any, victim: str, host: str) -> None:
        (part,) = batch(
            app,
            {
                "method": "PUT",
                "path": f"/v1{BOBS}/attachment?filename=a.txt",
                "headers": {"Host": host.format(key=victim)},
                "body": {"any": "JSON"},
            },
        )
        assert part["status"] == 400
        assert stored_files(app) == {victim}
        assert read(app) == CONTENT

    @pytest.mark.parametrize("host", HOSTILE)
    def test_of_a_batch_whose_part_has_a_good_one(self, app: Any, victim: str, host: str) -> None:
        (part,) = batch(
            app,
            {
                "method": "PUT",
                "path": f"/v1{BOBS}/attachment?filename=a.txt",
                "headers": {"Host": "good.example"},
                "body": {"any": "JSON"},
            },
            headers={**BOB, "Host": host.format(key=victim)},
        )
        assert part["status"] == 400
        assert stored_files(app) == {victim}

    def test_of_a_part_is_not_in_the_location(self, app: Any, victim: str) -> None:
        (part,) = batch(
            app,
            {
                "method": "PUT",
                "path": f"/v1{BOBS}/attachment?filename=a.txt",
                "headers": {"Host": "evil.example"},
                "body": {"any": "JSON"},
            },
        )
        assert part["status"] == 201
        assert part["body"]["location"].startswith("http://localhost/v1/attachments/")

    @pytest.mark.parametrize("path", ["/buckets/default/collections/c/records/r/attachment"])
    def test_in_the_default_bucket(self, app: Any, path: str) -> None:
        headers = {**ALICE, "Host": "evil.example?"}
        app.put(f"{path}?filename=a.txt", b"x", headers=headers, status=400)
        assert not stored_files(app)

    @pytest.mark.parametrize("host", ["kinto.example.com", "[::1]:8888", "127.0.0.1:80"])
    def test_that_is_one_is_fine(self, app: Any, host: str) -> None:
        answer = put_raw(app, headers={**ALICE, "Host": host})
        assert answer.json["location"].startswith(f"http://{host.removesuffix(':80')}/v1/")
        assert read(app) == CONTENT


@ON_MEMORY
def test_the_server_s_own_name_wins(build: Build) -> None:
    app = build({"http_host": "kinto.example.com", "http_scheme": "https"})
    location = attach(app, headers={**ALICE, "Host": "evil.example"}).json["location"]
    assert location.startswith("https://kinto.example.com/v1/attachments/")


@ON_MEMORY
@pytest.mark.parametrize(
    ("kinto", "attachment", "warned"),
    [
        ({}, {}, True),
        ({"http_host": "kinto.example.com"}, {}, False),
        ({}, {"base_url": "https://files.example.com"}, False),
        ({}, {"base_url": ""}, False),
    ],
)
def test_a_server_without_a_name_says_so_at_its_start(
    backends: list[dict[str, str]],
    caplog: pytest.LogCaptureFixture,
    kinto: dict[str, str],
    attachment: dict[str, str],
    warned: bool,
) -> None:
    from tests.support.application import make_app

    with caplog.at_level(logging.WARNING, "kinto_attachment"):
        make_app({**backends[0], **attachment}, backends[1], **kinto)
    said = [record.message for record in caplog.records if "http_host" in record.message]
    assert len(said) == warned


def write(app: Any, request_uri: str, attachment: Any, status: int = 200) -> Any:
    """Let code on the server give a record an attachment, like a publishing plugin."""
    source = f"{BUCKET}/collections/source/records/r"
    put(app, f"{BUCKET}/collections/source")
    write_behind(app, source, {FIELD: attachment})
    return app.post_json("/publish", {"copies": {source: request_uri}}, status=status)


@ON_DATABASES
class TestCopiedMetadata:
    """Code on the server gives a record the attachment of another one."""

    @pytest.fixture
    def publisher(self, build: Build) -> Any:
        return build({"includes": "tests.support.publishing"})

    def test_shares_a_file_that_the_index_knows(self, publisher: Any) -> None:
        attachment = attach(publisher).json
        write(publisher, OTHER, attachment)
        publisher.delete(RECORD, headers=ALICE)
        assert read(publisher, f"{OTHER}/attachment") == CONTENT
        publisher.delete(f"{BUCKET}/collections/source", headers=ALICE)

    @pytest.mark.parametrize(
        "forged", [{"hash": "0" * 64}, {"size": 1}, {"size": 21.0}], ids=["hash", "size", "type"]
    )
    def test_of_other_content_shares_nothing(self, publisher: Any, forged: Any) -> None:
        attachment = attach(publisher).json
        write(publisher, OTHER, {**attachment, **forged}, status=409)
        assert {record for record, _, _ in stored_links(publisher)} == {RECORD}
        publisher.delete(f"{BUCKET}/collections/source", headers=ALICE)
        # A memory backend rolls nothing back, and the copy has no file there.
        if publisher.get(OTHER, headers=ALICE, status="*").status_int == 200:
            write_behind(publisher, OTHER, {})

    def test_whatever_the_server_was_called_then(self, publisher: Any) -> None:
        headers = {**ALICE, "Host": "former.example.com"}
        attachment = attach(publisher, headers=headers).json
        write(publisher, OTHER, attachment)
        assert {record for record, _, _ in stored_links(publisher)} == {RECORD, OTHER}
        publisher.delete(f"{BUCKET}/collections/source", headers=ALICE)


@ON_MEMORY
class TestFilesOfOthers:
    """Files in the storage that the plugin did not store."""

    @pytest.fixture
    def foreign(self, app: Any) -> Any:
        storage = app.app.registry.attachment_storages.default.files
        storage.write("backup.tar", BytesIO(b"secret"), "application/x-tar")
        yield "backup.tar"
        storage.delete("backup.tar")

    def test_are_not_served(self, app: Any, foreign: str) -> None:
        app.get(f"/attachments/{foreign}", headers=ALICE, status=404)

    def test_do_not_become_somebody_s(self, app: Any, foreign: str) -> None:
        attachment = attach(app).json
        put(app, OTHER, headers=ALICE)
        location = attachment["location"].replace(key_of(attachment), foreign)
        for body in ({"data": {FIELD: {**attachment, "location": location}}},):
            app.put_json(OTHER, body, headers=ALICE, status=400)
            app.patch_json(RECORD, body, headers=ALICE, status=400)
        assert foreign not in {key for _, key, _ in stored_links(app)}


@ON_DATABASES
class TestBeforeTheIndex:
    """Records whose file the index does not know: they have only their location."""

    def unlinked(self, app: Any, **changed: Any) -> dict[str, Any]:
        attachment = {**attach(app).json, **changed}
        links = app.app.registry.attachment_links
        with transaction.manager:
            links.drop(links.of_record(RECORD))
        write_behind(app, RECORD, {FIELD: attachment})
        return attachment

    def test_are_read_at_the_server_s_own_address(self, build: Build) -> None:
        app = build({"http_host": "localhost:80"})
        self.unlinked(app)
        assert read(app) == CONTENT
        assert reindex(app.app.registry).linked == 1

    def test_are_not_read_elsewhere(self, build: Build) -> None:
        app = build({"http_host": "kinto.example.com"})
        attachment = self.unlinked(app)
        location = attachment["location"]
        elsewhere = location.replace("kinto.example.com", "former.example.com")
        write_behind(app, RECORD, {FIELD: {**attachment, "location": elsewhere}})
        app.get(f"{RECORD}/attachment", headers=ALICE, status=404)
        assert reindex(app.app.registry).foreign == [RECORD]
        write_behind(app, RECORD, {FIELD: {**attachment, "location": location}})
        assert reindex(app.app.registry).linked == 1

    def test_are_found_at_former_addresses(self, build: Build) -> None:
        former = "https://former.example.com/v1/attachments/"
        app = build({"http_host": "kinto.example.com"}, former_base_urls=former)
        attachment = self.unlinked(app)
        location = former + key_of(attachment)
        write_behind(app, RECORD, {FIELD: {**attachment, "location": location}})
        assert read(app) == CONTENT
        assert reindex(app.app.registry).linked == 1


@ON_MEMORY
def test_who_may_write_may_not_thereby_read_others(app: Any, victim: str) -> None:
    app.put_json(
        COLLECTION,
        {"permissions": {"record:create": [userid(app, BOB)]}},
        headers=ALICE,
    )
    app.get(f"/attachments/{victim}", headers=BOB, status=404)
