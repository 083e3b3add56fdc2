"""Uploads in several requests by HTTP's draft, to real servers, with a generic client."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kinto_attachment.storage import CHUNK_SIZE, partials
from tests.support import ietf_client, live, waiting
from tests.support.application import ALICE, RECORD, Part, form, send
from tests.support.backends import ON_MEMORY
from tests.support.connections import MIB
from tests.support.faults import HOST
from tests.support.ietf_cases import CASES, FILE, SIZE, Case, run
from tests.support.ietf_client import Client, Response, Target, append_headers

COLLECTION = "/buckets/b/collections/c"
KINTO = {"code", "errno", "error", "message"}


@pytest.fixture(scope="module", params=["gunicorn", "waitress"])
def engine(request: pytest.FixtureRequest) -> live.Engine:
    engine: live.Engine = request.param
    return engine


@pytest.fixture(scope="module")
def server(engine: live.Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    folder: Path = tmp_path_factory.mktemp("files")
    storage = {"base_path": str(folder), "max_size": str(16 * MIB)}
    with live.kinto(storage, engine=engine) as server:
        with live.Client(server) as alice:
            assert alice.put("/buckets/b") == 201
            assert alice.put(COLLECTION) == 201
        yield server


@pytest.fixture
def client(server: live.Server) -> Client:
    """A client of alice's, for a record that does not exist yet."""
    path = f"/v1{COLLECTION}/records/{uuid4()}/attachment?filename=notes.txt"
    return Client(Target(HOST, server.port, path, ALICE))


def content_of(client: Client) -> bytes:
    answer = client.ask("GET", client.target.path.partition("?")[0])
    assert answer.status == 200
    return answer.content


def version_of(client: Client) -> str:
    """The id of the current version, according to the list."""
    answer = client.ask("GET", f"{client.target.path.partition('?')[0]}/versions")
    current = json.loads(answer.content)["data"][0]
    assert current["state"] == "current"
    return str(current["id"])


def state_of(client: Client, url: str) -> str:
    """The state of the upload in its JSON."""
    return str(json.loads(client.ask("GET", url).content)["data"]["state"])


def problem_of(answer: Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = json.loads(answer.content)
    assert problem.keys() >= KINTO | {"type", "title", "status", "detail"}
    return problem


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_the_draft_requires(client: Client, case: Case) -> None:
    run(client, case)
    if case.whole:
        assert content_of(client) == FILE


class TestTheLastAnswer:
    def test_it_is_the_one_of_a_plain_put(self, client: Client) -> None:
        plain = Client(client.target, version=None)
        first = plain.ask("PUT", client.target.path, content=FILE)
        last = client.upload(FILE, 5)
        assert (first.status, last.status) == (201, 200)
        ours, theirs = json.loads(last.content), json.loads(first.content)
        for name in ("location", "last_modified"):
            ours.pop(name, None), theirs.pop(name, None)
        assert ours == theirs
        assert last.headers["location"] == first.headers["location"]
        record = client.ask("GET", last.headers["location"])
        assert last.headers["etag"] == record.headers["etag"]
        assert last.headers["last-modified"] == record.headers["last-modified"]
        assert last.headers["attachment-version"] == version_of(client)
        assert json.loads(record.content)["data"]["attachment"] == json.loads(last.content)

    @pytest.mark.parametrize("version", [None, 6, 8])
    def test_whole_files_are_plain_puts(self, client: Client, version: int | None) -> None:
        """Some clients send ?1 to every server, whichever version of the draft they know."""
        answer = Client(client.target, version).create(FILE, complete=True)
        assert answer.status == 201
        assert json.loads(answer.content)["size"] == SIZE
        assert answer.headers["attachment-version"] == version_of(client)
        assert content_of(client) == FILE

    def test_it_is_told_again_if_it_was_lost(self, client: Client) -> None:
        url = client.create().url
        client.break_off("PATCH", url, append_headers(0, complete=True), FILE, SIZE)
        # A HEAD would cancel the request if that were still running: in memory, the file exists
        # before the upload has ended.
        waiting.until(lambda: state_of(client, url) == "done")
        state = client.retrieve_offset(url)
        assert (state.offset, state.length) == (SIZE, SIZE)
        assert state.headers["content-location"] == client.target.path.partition("?")[0]
        again = client.append(url, 0, FILE, complete=True)
        assert (again.status, again.complete) == (201, True)
        assert again.headers["etag"] == state.headers["etag"]
        assert again.headers["attachment-version"] == state.headers["attachment-version"]
        assert content_of(client) == FILE


class TestVersions:
    def test_parts_of_other_versions_are_refused(self, client: Client) -> None:
        other = Client(client.target, version=7)
        answer = other.create(FILE[:5])
        assert answer.status == 400
        assert answer.headers["upload-draft-interop-version"] == "8"
        assert "should be 8" in problem_of(answer)["message"]
        assert client.ask("GET", client.target.path).status == 404
        url = client.create(FILE[:5]).url
        assert other.append(url, 5, FILE[5:], complete=True).status == 400
        assert other.retrieve_offset(url).status == 400
        assert client.retrieve_offset(url).offset == 5
        assert other.cancel(url).status == 204

    def test_none_is_needed(self, client: Client) -> None:
        assert Client(client.target, version=None).upload(FILE, 5).complete is True
        assert content_of(client) == FILE

    def test_a_part_whose_header_is_wrong_is_not_taken_for_a_file(self, client: Client) -> None:
        answer = client.create(FILE[:5], headers={"Upload-Complete": "0"})
        assert answer.status == 400
        assert client.ask("GET", client.target.path).status == 404


class TestForms:
    def post(self, client: Client, complete: str) -> Response:
        body, content_type = form(Part("attachment", FILE, "notes.txt"))
        headers = {"Content-Type": content_type, "Upload-Complete": complete}
        return client.ask("POST", client.target.path, headers, body)

    def test_whole_ones(self, client: Client) -> None:
        assert self.post(client, "?1").status == 201
        assert content_of(client) == FILE

    def test_parts(self, client: Client) -> None:
        answer = self.post(client, "?0")
        assert (answer.status, problem_of(answer)["errno"]) == (400, 107)
        assert client.ask("GET", client.target.path).status == 404


class TestProblems:
    def test_mismatching_offset(self, client: Client) -> None:
        url = client.create(FILE[:5]).url
        problem = problem_of(client.append(url, 7, FILE[7:]))
        assert (problem["code"], problem["errno"]) == (409, 122)
        assert (problem["expected-offset"], problem["provided-offset"]) == (5, 7)

    def test_the_limit(self, client: Client) -> None:
        created = client.create()
        assert created.limits is not None
        assert created.limits["max-size"] == 16 * MIB
        assert 0 < created.limits["max-age"] <= 24 * 60 * 60
        answer = client.create(length=16 * MIB + 1)
        assert (answer.status, problem_of(answer)["errno"]) == (413, 113)
        assert answer.limits is not None
        assert answer.limits["max-size"] == 16 * MIB

    def test_other_media_types(self, client: Client) -> None:
        url = client.create().url
        headers = {"Content-Type": "application/octet-stream"}
        answer = client.append(url, 0, FILE, headers=headers)
        assert answer.status == 415
        assert answer.headers["accept-patch"] == "application/partial-upload"

    def test_strangers(self, client: Client) -> None:
        url = client.create(FILE[:5]).url
        anybody = Client(Target(HOST, client.target.port, client.target.path))
        for answer in (
            anybody.retrieve_offset(url),
            anybody.append(url, 5, FILE[5:], complete=True),
            anybody.cancel(url),
        ):
            assert answer.status == 404
            assert answer.offset is None
        assert client.append(url, 5, FILE[5:], complete=True).complete is True

    def test_a_wrong_digest_of_the_whole_file_is_for_good(self, client: Client) -> None:
        digest = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
        url = client.create(headers={"Repr-Digest": digest}).url
        answer = client.append(url, 0, FILE, complete=True)
        assert (answer.status, answer.complete) == (400, True)
        assert client.retrieve_offset(url).status == 410
        assert client.ask("GET", client.target.path).status == 404


class TestBrokenRequests:
    def test_a_whole_upload_that_breaks_off_again_and_again(self, client: Client) -> None:
        content = bytes(range(256)) * (3 * 4096)
        url = client.create(length=len(content)).url
        for _ in range(3):
            offset = client.retrieve_offset(url).offset
            assert offset is not None
            rest = content[offset:]
            headers = append_headers(offset, complete=True)
            client.break_off("PATCH", url, headers, rest[:MIB], len(rest))
        assert client.go_on(url, content).status == 201
        assert content_of(client) == content

    def test_a_client_that_goes_on_leaves_the_server_time(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A request that locks the upload ends only while the client pauses."""
        answers = [Response(status, {}) for status in (409, 423)]
        append, pauses = client.append, list[float]()

        def refuse_until_the_pause(*args: Any, **options: Any) -> Response:
            if len(pauses) < len(answers):
                return answers[len(pauses)]
            return append(*args, **options)

        monkeypatch.setattr(client, "append", refuse_until_the_pause)
        monkeypatch.setattr(ietf_client, "TIMEOUT", 1)
        monkeypatch.setattr(time, "sleep", pauses.append)
        url = client.create(length=SIZE).url
        assert client.go_on(url, FILE).status == 201
        assert len(pauses) == 2
        assert min(pauses) > 0

    def test_a_request_that_hangs_while_the_client_goes_on(
        self, engine: live.Engine, client: Client
    ) -> None:
        url = client.create(length=SIZE).url
        with client.begin("PATCH", url, append_headers(0, complete=True), SIZE) as hung:
            hung.send(FILE[:5])
            assert client.retrieve_offset(url).offset in range(6)
            answer = client.go_on(url, FILE)
            assert (answer.status, answer.complete) == (201, True)
            hung.send(b"x" * (SIZE - 5))
            late = hung.response()
        # Waitress waits for the whole request, which is then the last one and repeats the end. The
        # same can happen on gunicorn, if its thread had no time to begin.
        assert late.status in ((423, 201) if engine == "gunicorn" else (201,))
        assert content_of(client) == FILE


@ON_MEMORY
def test_errors_tell_what_is_durable_by_then(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes bytes of the same request."""
    monkeypatch.setattr(partials, "CHECKPOINT_BYTES", 1)
    created = {**ALICE, "Upload-Complete": "?0", "Upload-Length": str(CHUNK_SIZE + 5)}
    path = f"{RECORD}/attachment?filename=notes.txt"
    url = app.put(path, b"", headers=created, status=201).headers["Location"]
    headers = {**ALICE, "Transfer-Encoding": "chunked", **append_headers(0, complete=True)}
    body = io.BytesIO(bytes(CHUNK_SIZE + 6))
    refused = send(app, "PATCH", url, body, headers=headers, status=413)
    inspected = app.head(url, headers=ALICE)
    assert refused.headers["Upload-Offset"] == inspected.headers["Upload-Offset"] != "0"
