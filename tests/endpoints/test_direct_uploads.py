"""Direct uploads: the checks at the creation, and again when the bytes have arrived."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kinto.core.storage.exceptions import BackendError

from kinto_attachment import AttachmentAdded
from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.files import direct_completion
from kinto_attachment.files.signatures import Signatures
from kinto_attachment.http import saved_hashes
from tests.support import direct, waiting
from tests.support.application import (
    ALICE,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    DEFAULT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    error,
    put,
    read,
    seen,
    send,
    sha256,
    stored_files,
    userid,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, ON_POSTGRESQL, Build, runs_on
from tests.support.direct import (
    MIB,
    begin,
    complete,
    create,
    path_of,
    put_own,
    send_all,
    state,
)
from tests.support.links import KEYS, forged

ON_S3 = runs_on("moto", "seaweedfs")


@ON_S3
class TestToTheStorage:
    def test_a_file_of_one_part(self, app: Any) -> None:
        upload = begin(app, data={"title": "t"}, permissions={"read": ["system.Everyone"]})
        assert (upload["state"], upload["via"], upload["offset"]) == ("open", "storage", 0)
        (part,) = upload["parts"]
        assert (part["number"], part["offset"], part["size"]) == (1, 0, len(CONTENT))
        assert (part["method"], part["headers"], part["done"]) == ("PUT", {}, False)
        send_all(upload, CONTENT)
        told = state(app, upload)
        assert (told["offset"], told["parts"][0]["done"]) == (len(CONTENT), True)
        done = complete(app, upload, status=201)
        assert done.json == attachment_of(app)
        assert done.json["hash"] == sha256(CONTENT)
        assert done.headers["ETag"] == app.get(RECORD, headers=ALICE).headers["ETag"]
        assert done.headers["Location"].endswith(f"/v1{RECORD}")
        record = app.get(RECORD, headers=ALICE).json
        assert record["data"]["title"] == "t"
        assert "system.Everyone" in record["permissions"]["read"]
        assert read(app) == CONTENT
        assert state(app, upload)["state"] == "done"
        again = complete(app, upload, status=201)
        assert (again.json, again.headers["ETag"]) == (done.json, done.headers["ETag"])
        assert again.headers["Attachment-Version"] == done.headers["Attachment-Version"]


@ON_DATABASES
class TestToTheServer:
    def test_the_put_attaches_the_file(self, app: Any) -> None:
        upload = begin(app, via="kinto", data={"title": "t"})
        done = put_own(app, upload, CONTENT, status=201)
        assert done.json == attachment_of(app)
        assert read(app) == CONTENT
        assert app.get(RECORD, headers=ALICE).json["data"]["title"] == "t"
        assert complete(app, upload, status=201).json == done.json
        assert complete(app, upload).headers["ETag"] == done.headers["ETag"]
        assert state(app, upload)["state"] == "done"
        assert put_own(app, upload, b"x" * len(CONTENT), status=201).json == done.json
        assert read(app) == CONTENT

    def test_a_repeated_put_that_was_faster_changes_nothing(self, app: Any) -> None:
        attach(app, content=b"old")
        upload = begin(app, via="kinto")
        assert put_own(app, upload, CONTENT).status_code == 200
        assert complete(app, upload, status=200).json == attachment_of(app)

    def test_of_no_bytes(self, app: Any) -> None:
        upload = begin(app, 0, via="kinto")
        assert put_own(app, upload, b"", status=201).json["size"] == 0

    def test_another_length_is_refused_and_the_upload_goes_on(self, app: Any) -> None:
        upload = begin(app, via="kinto")
        for content in (CONTENT[:-1], CONTENT + b"x", b""):
            assert error(put_own(app, upload, content, status=400))[0] == 107
        assert state(app, upload)["state"] == "open"
        put_own(app, upload, CONTENT, status=201)

    def test_an_encoding_is_refused(self, app: Any) -> None:
        upload = begin(app, via="kinto")
        put_own(app, upload, CONTENT, status=415, **{"Content-Encoding": "gzip"})

    def test_another_hash_fails(self, app: Any) -> None:
        upload = begin(app, via="kinto", attachment={"hash": sha256(CONTENT)})
        wrong = b"x" * len(CONTENT)
        assert "hash does not match" in error(put_own(app, upload, wrong, status=400))[1]
        assert state(app, upload)["state"] == "failed"
        put_own(app, upload, CONTENT, status=410)
        complete(app, upload, status=410)
        app.get(RECORD, headers=ALICE, status=404)
        assert stored_files(app) == set()

    def test_it_is_incomplete_before_the_put(self, app: Any) -> None:
        upload = begin(app, via="kinto")
        refused = complete(app, upload, status=409)
        assert error(refused)[0] == 122
        assert "Retry-After" not in refused.headers
        put_own(app, upload, CONTENT, status=201)

    def test_in_a_default_bucket(self, app: Any) -> None:
        """The URL names the real bucket, because it is used without credentials."""
        upload = begin(app, record=DEFAULT, via="kinto")
        done = put_own(app, upload, CONTENT, status=201)
        assert attachment_of(app, DEFAULT) == done.json
        assert complete(app, upload).json == done.json

    def test_a_gzipped_file(self, build: Build) -> None:
        app = build(gzipped=True)
        upload = begin(app)
        assert upload["via"] == "kinto"
        done = put_own(app, upload, CONTENT, status=201).json
        assert done["original"]["size"] == len(CONTENT)
        assert complete(app, upload).json == done


@ON_MEMORY
class TestRefusesToBegin:
    """For reasons that also apply to forms, and for JSON that is not a direct upload."""

    @pytest.mark.parametrize(
        "members",
        [
            *({"attachment": {"size": -1}}, {"attachment": {"size": "1"}}),
            *({"attachment": {"size": True}}, {"attachment": {"size": 1.5}}),
            *({"attachment": {"size": 1 << 63}}, {"attachment": {"size": None}}),
            *({"attachment": {"filename": ""}}, {"attachment": {"filename": 3}}),
            *({"attachment": {"hash": "x"}}, {"attachment": {"hash": sha256(b"").upper()}}),
            *({"attachment": {"mimetype": []}}, {"attachment": {"other": 1}}),
            *({"via": "mail"}, {"via": 1}, {"other": 1}, {"data": []}, {"permissions": 1}),
            *({"expires_in": 0}, {"expires_in": 604801}, {"expires_in": "x"}),
            *({"expires_in": None}, {"expires_in": True}, {"data": {"id": "other"}}),
        ],
        ids=str,
    )
    def test_json(self, app: Any, members: dict[str, Any]) -> None:
        error(create(app, status=400, **members))

    def test_no_json(self, app: Any) -> None:
        url, headers = f"{RECORD}/attachment/uploads", {"Content-Type": "application/json"}
        for body in (b"", b"[]", b"{", b'{"attachment": []}'):
            error(app.post(url, body, headers={**ALICE, **headers}, status=400))
        app.post(url, b"x", headers={**ALICE, "Content-Type": "text/plain"}, status=415)

    def test_sizes_extensions_and_settings(self, build: Build) -> None:
        app = build(max_size=8, min_size=2)
        create(app, 9, status=413)
        create(app, 1, status=400)
        create(app, 8)
        assert "extension" in error(create(build(extensions="pdf"), status=400))[1]
        off = build(direct="false")
        assert "kinto.attachment.direct is off" in error(create(off, status=400))[1]
        assert "via in body" in error(create(app, 8, via="storage", status=400))[1]

    def test_schema(self, app: Any) -> None:
        schema = {"type": "object", "required": ["title"]}
        put(app, COLLECTION, data={"schema": schema})
        assert "title" in error(create(app, status=400))[1]
        create(app, data={"title": "t"})

    def test_strangers_preconditions_and_batches(self, app: Any) -> None:
        create(app, headers=BOB, status=403)
        create(app, headers={}, status=401)
        create(app, headers={**ALICE, "If-Match": '"1"'}, status=412)
        create(app, record=f"{COLLECTION}x/records/r", status=404)
        part = {
            "method": "POST",
            "path": f"{RECORD}/attachment/uploads",
            "body": {"attachment": {"filename": "a.txt", "size": 1}},
        }
        batch = app.post_json("/batch", {"requests": [part]}, headers=ALICE).json["responses"]
        assert batch[0]["status"] == 400

    def test_too_many(self, build: Build) -> None:
        app = build(**{"uploads.max_unfinished": 1})
        upload = begin(app)
        create(app, status=429)
        app.delete(upload["path"], headers=ALICE, status=204)
        begin(app)

    def test_a_server_without_a_key(self, build: Build) -> None:
        app = build({"userid_hmac_secret": ""}, **{"signing_keys": ""})
        create(app, status=501)

    def test_where_it_is_possible_is_told(self, build: Build) -> None:
        for app, expected in ((build(), True), (build(direct="false"), False)):
            capability = app.get("/").json["capabilities"]["attachments"]
            rules = app.get(f"{COLLECTION}/attachments/rules", headers=ALICE).json["data"]
            assert (capability["direct"], rules["direct"]) == (expected, expected)


@ON_MEMORY
class TestTokens:
    """The server's own URL, which needs no other credentials."""

    def test_it_is_for_one_upload_of_one_record(self, app: Any) -> None:
        upload, other = begin(app, via="kinto"), begin(app, via="kinto")
        elsewhere = begin(app, record=OTHER, via="kinto")
        token = upload["parts"][0]["url"].partition("token=")[2]
        for each in (other, elsewhere):
            app.put(f"{each['path']}?token={token}", CONTENT, status=404)
        for changed in ("", token[:-1], "x" + token[1:], f"{token}x"):
            app.put(f"{upload['path']}?token={changed}", CONTENT, status=404)
        app.put(upload["path"], CONTENT, headers=ALICE, status=404)
        put_own(app, upload, CONTENT, status=201)

    def test_it_is_no_link_and_a_link_is_none(self, app: Any) -> None:
        attach(app)
        link = app.get(f"{RECORD}/attachment/url", headers=ALICE).json["data"]["url"]
        upload = begin(app, via="kinto")
        token = upload["parts"][0]["url"].partition("token=")[2]
        path, _, linked = link.partition("?token=")
        app.put(f"{upload['path']}?token={linked}", CONTENT, status=404)
        app.get(f"{path}?token={token}", status=401)

    def test_it_expires(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        upload = begin(app, via="kinto", expires_in=60)
        with monkeypatch.context() as later:
            later.setattr(time, "time", lambda now=time.time: now() + 61)
            assert "expired" in error(put_own(app, upload, CONTENT, status=404))[1]
        put_own(app, {**upload, **state(app, upload)}, CONTENT, status=201)

    @pytest.mark.parametrize("name", ["upload", "record", "expires"])
    def test_no_field_can_be_changed(self, app: Any, name: str) -> None:
        upload = begin(app, via="kinto")
        token = upload["parts"][0]["url"].partition("token=")[2]
        app.put(f"{upload['path']}?token={forged(token, name)}", CONTENT, status=404)
        put_own(app, upload, CONTENT, status=201)

    @pytest.mark.parametrize(
        "changes",
        [
            *({"upload": "0" * 32}, {"record": OTHER}, {"expires": 0}),
            *({"upload": None}, {"record": None}, {"expires": None}, {"expires": "never"}),
        ],
        ids=lambda changes: "-".join(map(str, *changes.items())),
    )
    def test_each_field_counts(self, build: Build, changes: dict[str, Any]) -> None:
        """Even in a token that the server has signed."""
        app = build(signing_keys=KEYS[0])
        upload = begin(app, via="kinto")
        claims = {"upload": upload["id"], "record": RECORD, "expires": int(time.time()) + 60}
        signatures = Signatures([KEYS[0].encode()])
        token = signatures.sign("upload", {**claims, **changes})
        app.put(f"{upload['path']}?token={token}", CONTENT, status=404)
        for purpose, key in (("read", KEYS[0]), ("upload", KEYS[1])):
            token = Signatures([key.encode()]).sign(purpose, claims)
            app.put(f"{upload['path']}?token={token}", CONTENT, status=404)
        token = signatures.sign("upload", claims)
        app.put(f"{upload['path']}?token={token}", CONTENT, status=201)

    def test_each_key_verifies_and_the_first_signs(self, build: Build) -> None:
        app = build(signing_keys=KEYS[1])
        registry = app.app.registry
        upload, second = begin(app, via="kinto"), begin(app, via="kinto")
        before = registry.attachment_signatures
        registry.attachment_signatures = Signatures([key.encode() for key in KEYS])
        try:
            put_own(app, upload, CONTENT, status=201)
            fresh = {**second, **state(app, second)}
            registry.attachment_signatures = Signatures([KEYS[0].encode()])
            put_own(app, second, CONTENT, status=404)
            put_own(app, fresh, CONTENT, status=200)
        finally:
            registry.attachment_signatures = before

    def test_who_sends_the_bytes_does_not_matter(self, app: Any) -> None:
        """Neither the rights nor the name of the other user are used."""
        put(app, COLLECTION, data={}, permissions={"record:create": [userid(app, BOB)]})
        upload = begin(app, headers=BOB, via="kinto")
        put_own(app, upload, CONTENT, status=201, **ALICE)
        record = app.get(RECORD, headers=BOB).json
        assert record["permissions"]["write"] == [userid(app, BOB)]
        (entry,) = app.get(f"{BUCKET}/history?record_id=r", headers=ALICE).json["data"]
        assert entry["user_id"] == userid(app, BOB)

    def test_of_an_anonymous_writer(self, app: Any) -> None:
        put(app, COLLECTION, data={}, permissions={"record:create": ["system.Everyone"]})
        upload = begin(app, headers={}, via="kinto")
        put_own(app, upload, CONTENT, status=201, **ALICE)
        (entry,) = app.get(f"{BUCKET}/history?record_id=r", headers=ALICE).json["data"]
        assert entry["user_id"] is None

    def test_the_groups_of_the_moment_count(self, app: Any) -> None:
        group = f"{BUCKET}/groups/g"
        put(app, group, data={"members": [userid(app, BOB)]})
        put(app, COLLECTION, data={}, permissions={"record:create": [group]})
        first, second = (begin(app, headers=BOB, via="kinto") for _ in range(2))
        put_own(app, first, CONTENT, status=201)
        app.delete(RECORD, headers=ALICE)
        put(app, group, data={"members": []})
        put_own(app, second, CONTENT, status=403)
        app.get(RECORD, headers=ALICE, status=404)
        assert stored_files(app) == set()

    def test_rights_are_asked_again_when_the_bytes_are_there(self, app: Any) -> None:
        put(app, COLLECTION, data={}, permissions={"record:create": [userid(app, BOB)]})
        upload = begin(app, headers=BOB, via="kinto")

        class Body(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                put(app, COLLECTION, data={}, permissions={"record:create": []})
                return super().read(size)

        url, size = path_of(upload["parts"][0]["url"]), len(CONTENT)
        send(app, "PUT", url, Body(CONTENT), length=size, headers={}, status=403)
        app.get(RECORD, headers=ALICE, status=404)
        assert state(app, upload, BOB)["state"] == "failed"
        assert stored_files(app) == set()

    def test_a_body_that_breaks_off_can_be_sent_again(self, app: Any) -> None:
        upload = begin(app, via="kinto")
        url, size = path_of(upload["parts"][0]["url"]), len(CONTENT)
        send(app, "PUT", url, io.BytesIO(CONTENT[:5]), length=size, headers={}, status=400)
        assert state(app, upload)["state"] == "open"
        put_own(app, upload, CONTENT, status=201)


@ON_POSTGRESQL
def test_two_puts_at_once_attach_one_file(app: Any) -> None:
    upload = begin(app, via="kinto")
    with ThreadPoolExecutor(4) as pool:
        puts = [pool.submit(put_own, app, upload, CONTENT) for _ in range(4)]
        answers = [each.result(waiting.SECONDS) for each in puts]
    assert [each.status_code for each in answers] == [201] * 4
    assert all(each.json == answers[0].json for each in answers)
    assert len(stored_files(app)) == 1
    assert len(seen(app, AttachmentAdded)) == 1


@ON_MEMORY
class TestOwners:
    def test_strangers_see_nothing(self, app: Any) -> None:
        upload = begin(app, via="kinto")
        assert state(app, upload, BOB, status=404) is None
        complete(app, upload, BOB, status=404)
        app.delete(upload["path"], headers=BOB, status=404)

    def test_it_is_listed_and_cancelled_by_writers_of_the_collection(self, app: Any) -> None:
        put(app, COLLECTION, data={}, permissions={"record:create": [userid(app, BOB)]})
        upload = begin(app, headers=BOB, via="kinto")
        (listed,) = app.get(f"{COLLECTION}/attachments/uploads", headers=ALICE).json["data"]
        assert (listed["id"], listed["record"]) == (upload["id"], RECORD)
        assert "parts" not in listed
        app.delete(upload["path"], headers=ALICE, status=204)
        put_own(app, upload, CONTENT, status=410)

    def test_it_expires(self, build: Build) -> None:
        app = build(**{"uploads.max_age": "0.000001s"})
        upload = begin(app, via="kinto")
        assert state(app, upload)["state"] == "expired"
        put_own(app, upload, CONTENT, status=404)

    def test_it_lives_as_long_as_its_urls(self, build: Build) -> None:
        app = build(**{"uploads.idle_age": "60s"})
        upload = begin(app, via="kinto", expires_in=600)
        assert upload["url_expires_at"] <= upload["expires_at"] <= time.time() * 1000 + 600_000
        other = begin(app, via="kinto", expires_in=5)
        assert other["url_expires_at"] < time.time() * 1000 + 6000 < other["expires_at"]

    def test_pages_of_other_origins(self, app: Any) -> None:
        upload = begin(app, via="kinto")
        origin = {"Origin": "https://app.example"}
        asked = {**origin, "Access-Control-Request-Method": "PUT"}
        url = path_of(upload["parts"][0]["url"])
        preflight = app.options(url, headers=asked, status=200)
        assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
        asked["Access-Control-Request-Method"] = "POST"
        app.options(f"{upload['path']}/complete", headers=asked, status=200)
        early = complete(app, upload, {**ALICE, **origin}, status=409)
        done = put_own(app, upload, CONTENT, status=201, **origin)
        for answer in (early, done):
            assert answer.headers["Access-Control-Allow-Origin"]
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
        allowed = app.options(f"{upload['path']}/complete", headers=ALICE).headers["Allow"]
        assert allowed == "POST, OPTIONS"


class Reads:
    """Counts the bytes that the server reads from files, and fails on demand."""

    def __init__(self, files: Any) -> None:
        self.files, self.open = files, files.open
        self.given: list[tuple[int, int]] = []  # Start and size of each read.
        self.left = 1 << 60
        self.on_read: Any = lambda: None

    def opened(self, key: str, start: int = 0, end: int | None = None) -> Any:
        reader, reads = self.open(key, start, end), self

        class Counted:
            position = start

            def read(self, size: int = -1) -> bytes:
                reads.on_read()
                if reads.left == 0:
                    raise StorageUnavailable() from ConnectionResetError("played")
                reads.left -= 1
                data: bytes = reader.read(size)
                reads.given.append((self.position, len(data)))
                self.position += len(data)
                return data

            def close(self) -> None:
                reader.close()

        return Counted()

    @property
    def twice(self) -> bool:
        """Whether any byte was read twice."""
        ends = [start + size for start, size in self.given]
        return any(start < end for (start, _), end in zip(self.given[1:], ends, strict=False))


@pytest.fixture
def reads(app: Any, monkeypatch: pytest.MonkeyPatch) -> Reads:
    files = app.app.registry.attachment_storages.default.files
    reads = Reads(files)
    monkeypatch.setattr(files, "open", reads.opened)
    return reads


@runs_on("moto")
class TestLongFiles:
    """Files whose hash takes longer than one request may take."""

    CONTENT = b"".join(bytes([number]) * MIB for number in range(4)) + b"end"

    @pytest.fixture
    def upload(self, app: Any) -> Any:
        upload = begin(app, len(self.CONTENT))
        send_all(upload, self.CONTENT)
        return upload

    def test_it_goes_on_where_it_has_stopped(
        self, app: Any, upload: Any, reads: Reads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(direct_completion, "SECONDS", 0.0)
        offsets = []
        while (answer := complete(app, upload)).status_code == 202:
            assert answer.headers["Retry-After"] == "1"
            told = answer.json["data"]
            assert (told["state"], told["id"]) == ("finishing", upload["id"])
            assert state(app, upload)["offset"] == told["offset"]
            offsets.append(told["offset"])
        assert offsets == sorted({*offsets})
        assert len(offsets) >= 4
        assert answer.json["hash"] == sha256(self.CONTENT)
        assert sum(size for _, size in reads.given) == len(self.CONTENT)
        assert not reads.twice

    def test_a_failing_storage_costs_nothing_that_was_read(
        self, app: Any, upload: Any, reads: Reads
    ) -> None:
        reads.left = 2
        assert complete(app, upload, status=503).headers["Retry-After"]
        told = state(app, upload)
        assert (told["state"], told["offset"]) == ("finishing", 2 * MIB)
        reads.left = 100
        assert complete(app, upload, status=201).json["hash"] == sha256(self.CONTENT)
        assert not reads.twice

    def test_a_second_request_waits_for_the_first(
        self, app: Any, upload: Any, reads: Reads
    ) -> None:
        answers = []

        def ask_too() -> None:
            if len(answers) < 2:
                with ThreadPoolExecutor(1) as other:
                    asked = other.submit(complete, app, upload)
                    answers.append(asked.result(waiting.SECONDS))

        reads.on_read = ask_too
        complete(app, upload, status=201)
        assert [answer.status_code for answer in answers] == [202, 202]
        assert not reads.twice

    def test_one_that_has_died_is_taken_over(
        self, app: Any, upload: Any, reads: Reads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first one wakes up again, and is refused."""
        monkeypatch.setattr(direct_completion, "LEASE", -1.0)
        answers: list[Any] = []

        def ask_too() -> None:
            if not answers:
                answers.append(None)
                with ThreadPoolExecutor(1) as other:
                    asked = other.submit(complete, app, upload)
                    answers.append(asked.result(waiting.SECONDS))

        reads.on_read = ask_too
        complete(app, upload, status=423)
        assert answers[1].status_code == 201
        assert answers[1].json == complete(app, upload, status=201).json

    def test_a_hash_that_cannot_be_continued_is_made_at_once(
        self, app: Any, upload: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(saved_hashes, "libcrypto", lambda: None)
        monkeypatch.setattr(saved_hashes, "resumablesha256", lambda: None)
        monkeypatch.setattr(direct_completion, "SECONDS", 0.0)
        assert complete(app, upload, status=201).json["hash"] == sha256(self.CONTENT)

    def test_a_record_that_cannot_be_written_yet_has_nothing_read_again(
        self, app: Any, upload: Any, reads: Reads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise BackendError()

        with monkeypatch.context() as broken:
            broken.setattr(app.app.registry.storage, "create", fail)
            complete(app, upload, status=503)
        before = len(reads.given)
        assert state(app, upload)["state"] == "finishing"
        complete(app, upload, status=201)
        assert len(reads.given) == before


@runs_on("moto")
class TestTrustsNobody:
    """moto accepts lengths and bytes that its URLs do not sign, as a careless storage would."""

    @pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1]])
    def test_another_length_fails(self, app: Any, content: bytes) -> None:
        upload = begin(app)
        assert direct.send(upload["parts"][0], content).status_code == 200
        assert not state(app, upload)["parts"][0]["done"]
        assert error(complete(app, upload, status=400))[0] == 107
        assert state(app, upload)["state"] == "failed"
        assert stored_files(app) == set()
        complete(app, upload, status=410)

    def test_a_part_too_many_fails(self, app: Any) -> None:
        upload = begin(app)
        (part,) = upload["parts"]
        send_all(upload, CONTENT)
        url = part["url"].replace("partNumber=1", "partNumber=2")
        assert direct.send(part, b"x", url=url).status_code == 200
        complete(app, upload, status=400)
        assert stored_files(app) == set()

    def test_another_hash_fails(self, app: Any) -> None:
        upload = begin(app, attachment={"hash": sha256(CONTENT)})
        send_all(upload, b"x" * len(CONTENT))
        assert "hash does not match" in error(complete(app, upload, status=400))[1]
        assert stored_files(app) == set()


@ON_S3
def test_an_anonymous_upload_with_bytes_does_not_give_way(build: Build) -> None:
    app = build(**{"uploads.max_unfinished": 2})
    put(app, COLLECTION, data={}, permissions={"record:create": ["system.Everyone"]})
    first, second = (begin(app, headers={}) for _ in range(2))
    send_all(first, CONTENT)
    begin(app, headers={})
    assert state(app, second, {})["state"] == "failed"
    assert complete(app, first, {}, status=201).json["hash"] == sha256(CONTENT)
