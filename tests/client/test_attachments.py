"""The client, on live servers."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import random
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from kinto_attachment.client import (
    AttachmentClient,
    ClientError,
    ConflictError,
    MismatchError,
    NotAllowedError,
    NotFoundError,
    QuotaError,
    RejectedError,
    Retries,
    UnavailableError,
)
from tests.support import live
from tests.support.faults import HOST, Answer, FaultProxy, answering
from tests.support.scripts import AUTH
from tests.support.stubs import Request, ranges_of, stub

CONTENT = b"What is in the file.\n"
MIB = 1024 * 1024
LARGE = random.Random(1).randbytes(3_000_000)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read(client: AttachmentClient, record: Any) -> bytes:
    file = io.BytesIO()
    client.download(record, file)
    return file.getvalue()


def through(proxy: FaultProxy, client: AttachmentClient, retries: Retries) -> AttachmentClient:
    """The same client, behind a proxy."""
    return AttachmentClient(
        f"http://{HOST}:{proxy.port}/v1",
        "default",
        client.kinto.collection_name,
        AUTH,
        retries=retries,
    )


def stored_record(content: bytes) -> dict[str, Any]:
    attachment = {
        "filename": "f",
        "hash": sha256(content),
        "location": "x",
        "mimetype": "text/plain",
        "size": len(content),
    }
    return {"id": "r", "attachment": attachment}


def record_of(client: AttachmentClient, record_id: str) -> dict[str, Any]:
    record: dict[str, Any] = client.kinto.get_record(id=record_id)["data"]
    return record


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make the system refuse to write larger files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def connections_to(url: str) -> list[Any]:
    """The client's ends of the connections to a server."""
    port = urlsplit(url).port
    connections = psutil.Process().net_connections("tcp")
    return [one for one in connections if one.raddr and one.raddr.port == port]


# Uploads.


@pytest.mark.parametrize("content", [b"", b"x", CONTENT, LARGE], ids=len)
def test_a_file_goes_up_and_comes_down(
    client: AttachmentClient, tmp_path: Path, content: bytes
) -> None:
    source, target = tmp_path / "notes.txt", tmp_path / "copy.txt"
    source.write_bytes(content)
    attachment = client.upload("r", source)
    assert attachment.filename == "notes.txt"
    assert attachment.mimetype == "text/plain"
    assert (attachment.hash, attachment.size) == (sha256(content), len(content))
    assert client.download("r", target) == attachment
    assert target.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["copy.txt", "notes.txt"]


def test_an_open_file_is_sent_from_where_it_stands(local: AttachmentClient) -> None:
    file = io.BytesIO(CONTENT)
    file.seek(5)
    local.upload("r", file, filename="notes.txt")
    assert read(local, "r") == CONTENT[5:]


def test_a_pipe_is_sent_to_its_end(local: AttachmentClient) -> None:
    reading, writing = os.pipe()
    os.write(writing, CONTENT)
    os.close(writing)
    with open(reading, "rb") as pipe:
        local.upload("r", pipe, filename="notes.txt")
    assert read(local, "r") == CONTENT


def test_a_file_needs_a_name_from_somewhere(local: AttachmentClient) -> None:
    with pytest.raises(ValueError, match="set filename"):
        local.upload("r", io.BytesIO(CONTENT))
    assert not local.exists("r")


@pytest.mark.parametrize(
    "name",
    [
        "plain.txt",
        "zwei Wörter.txt",
        "тест.txt",
        "日本.txt",
        'quo"ted.txt',
        "100%.txt",
        "a;b='c'.txt",
    ],
)
def test_names_arrive_as_they_are(local: AttachmentClient, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTENT)
    assert local.upload("r", tmp_path / name).filename == name


def test_attributes_and_permissions_come_along(local: AttachmentClient) -> None:
    local.upload(
        "r", io.BytesIO(CONTENT), {"a": "ä", "b": [1]}, {"read": ["system.Everyone"]}, filename="f"
    )
    local.upload("r", io.BytesIO(CONTENT), {"b": [2]}, filename="f")
    answer = local.kinto.get_record(id="r")
    assert (answer["data"]["a"], answer["data"]["b"]) == ("ä", [2])
    assert answer["permissions"]["read"] == ["system.Everyone"]


def test_the_mimetype_is_the_callers(local: AttachmentClient) -> None:
    attachment = local.upload("r", io.BytesIO(b"1"), filename="a.txt", mimetype="text/x-notes")
    assert attachment.mimetype == "text/x-notes"
    assert local.upload("r", io.BytesIO(b"1"), filename="a.txt.gz").mimetype == "application/gzip"


def test_progress_is_told(client: AttachmentClient) -> None:
    up: list[tuple[int, int]] = []
    down: list[tuple[int, int]] = []
    client.upload("r", io.BytesIO(LARGE), filename="f", progress=lambda *n: up.append(n))
    client.download("r", io.BytesIO(), lambda *n: down.append(n))
    for told in (up, down):
        assert len(told) > 5
        assert told == sorted(told)
        assert told[-1] == (len(LARGE), len(LARGE))


def test_what_progress_raises_ends_the_transfer(local: AttachmentClient, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise InterruptedError(f"{done} of {total}")

    local.upload("r", io.BytesIO(CONTENT), filename="f")
    with pytest.raises(InterruptedError):
        local.upload("r", io.BytesIO(LARGE), filename="f", progress=stop)
    assert read(local, "r") == CONTENT
    with pytest.raises(InterruptedError):
        local.download("r", tmp_path / "copy", stop)
    assert os.listdir(tmp_path) == []


def test_safe_does_not_replace(client: AttachmentClient) -> None:
    client.upload("r", io.BytesIO(CONTENT), filename="f", safe=True)
    with pytest.raises(ConflictError):
        client.upload("r", io.BytesIO(b"other"), filename="f", safe=True)
    assert read(client, "r") == CONTENT


@pytest.mark.parametrize("resumable", [False, True])
def test_a_quota(embedded: live.Server, collection: str, resumable: bool) -> None:
    """The upload is not retried, and the previous file stays."""
    client = AttachmentClient(embedded.url, "limited", collection, AUTH, retries=5)
    client.kinto.create_bucket(if_not_exists=True)
    client.kinto.create_collection()
    client.upload("r", io.BytesIO(CONTENT), filename="f")
    with pytest.raises(QuotaError, match="leaves") as caught:
        client.upload("r", io.BytesIO(b"x" * 1001), filename="f", resumable=resumable)
    assert caught.value.attempts == 1
    left = 1000 - len(CONTENT)
    assert (caught.value.details["limit"], caught.value.details["left"]) == ("quota_bytes", left)
    assert read(client, "r") == CONTENT
    client.remove("r")


def test_if_match_replaces_what_is_known(client: AttachmentClient) -> None:
    client.upload("r", io.BytesIO(CONTENT), filename="f")
    known = record_of(client, "r")["last_modified"]
    client.upload("r", io.BytesIO(b"second"), filename="f", if_match=known)
    with pytest.raises(ConflictError):
        client.upload("r", io.BytesIO(b"third"), filename="f", if_match=known)
    assert read(client, "r") == b"second"


def test_refusals_say_why(embedded: live.Server, local: AttachmentClient) -> None:
    small = AttachmentClient(embedded.url, "small", "c", AUTH)
    small.kinto.create_bucket(id="small", if_not_exists=True)
    small.kinto.create_collection(id="c", if_not_exists=True)
    with pytest.raises(RejectedError, match=r"413.* limit of 1000 bytes") as caught:
        small.upload("r", io.BytesIO(LARGE), filename="f")
    assert caught.value.response.status_code == 413
    nobody = AttachmentClient(embedded.url, "small", "c")
    with pytest.raises(NotAllowedError, match="401"):
        nobody.upload("r", io.BytesIO(LARGE), filename="f")
    stranger = AttachmentClient(embedded.url, "small", "c", ("bob", "secret"))
    with pytest.raises(NotAllowedError, match="403"):
        stranger.upload("r", io.BytesIO(LARGE), filename="f")
    with pytest.raises(NotFoundError):
        local.stat("ghost")
    with pytest.raises(RejectedError, match="is `/v1` missing"):
        AttachmentClient(embedded.url[:-3], "small", "c", AUTH).upload(
            "r", io.BytesIO(CONTENT), filename="f"
        )
    with pytest.raises(UnavailableError, match="Connection refused"):
        AttachmentClient("http://127.0.0.1:9/v1", "b", "c", retries=0).stat("r")


def test_a_file_that_changes_while_it_is_sent_replaces_nothing(
    local: AttachmentClient, tmp_path: Path
) -> None:
    path = tmp_path / "changing"

    def overwrite(done: int, total: int) -> None:
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")

    def truncate(done: int, total: int) -> None:
        os.truncate(path, done)

    local.upload("r", io.BytesIO(CONTENT), filename="f")
    path.write_bytes(LARGE)
    with pytest.raises(RejectedError, match="repr-digest does not match"):
        local.upload("r", path, progress=overwrite)
    path.write_bytes(LARGE)
    with pytest.raises(MismatchError, match="changing changed while it was sent"):
        local.upload("r", path, progress=truncate)
    assert read(local, "r") == CONTENT


def test_an_upload_that_breaks_off_is_sent_again_from_its_start(
    server: live.Server, client: AttachmentClient
) -> None:
    told: list[int] = []
    with FaultProxy(server.address) as proxy:
        flaky = through(proxy, client, Retries(2, pause=0, sleep=lambda _: None))
        proxy.cut(sent=1_000_000, once=True)
        flaky.upload(
            "r", io.BytesIO(LARGE), filename="f", progress=lambda done, _: told.append(done)
        )
    assert told != sorted(told), "nothing broke off"
    assert read(client, "r") == LARGE


@pytest.mark.parametrize("known", [True, False], ids=["if_match", "safe"])
def test_an_upload_whose_answer_is_lost_has_succeeded(
    client: AttachmentClient, server: live.Server, known: bool
) -> None:
    conditions: dict[str, Any] = {"safe": True}
    if known:
        client.upload("r", io.BytesIO(b"first"), filename="f")
        conditions = {"if_match": record_of(client, "r")["last_modified"]}
    with FaultProxy(server.address) as proxy:
        flaky = through(proxy, client, Retries(2, pause=0))
        proxy.cut(received=0, once=True)
        attachment = flaky.upload("r", io.BytesIO(CONTENT), filename="f", **conditions)
        assert proxy.connections > 1
    assert attachment == client.stat("r")
    assert read(client, "r") == CONTENT


@pytest.mark.parametrize("removed", [True, False])
def test_a_lost_answer_does_not_make_up_for_what_came_after(
    local: AttachmentClient, embedded: live.Server, removed: bool
) -> None:
    def come_between(seconds: float) -> None:
        local.upload("r", io.BytesIO(b"another's"), filename="f")
        if removed:
            local.remove("r")

    with FaultProxy(embedded.address) as proxy:
        flaky = through(proxy, local, Retries(2, pause=0, sleep=come_between))
        proxy.cut(received=0, once=True)
        with pytest.raises(ConflictError):
            flaky.upload("r", io.BytesIO(CONTENT), filename="f", safe=True)
    assert local.exists("r") != removed


def test_a_server_that_stores_something_else_is_found_out() -> None:
    stored = json.dumps(stored_record(b"something else")["attachment"]).encode()
    with answering(Answer(201, stored)) as (url, _):
        client = AttachmentClient(url, "b", "c", retries=0)
        with pytest.raises(MismatchError, match="other bytes than those sent"):
            client.upload("r", io.BytesIO(CONTENT), filename="f")


def test_a_busy_server_is_waited_for(local: AttachmentClient, embedded: live.Server) -> None:
    waited: list[float] = []
    busy = Answer(503, b'{"error": "Busy", "message": "later"}', {"Retry-After": "7"})
    with answering(busy) as (url, seen):
        patient = AttachmentClient(
            f"{url}/v1", "b", "c", AUTH, retries=Retries(2, sleep=waited.append)
        )
        with pytest.raises(UnavailableError, match="503 Busy: later") as caught:
            patient.upload("r", io.BytesIO(LARGE), filename="f")
    assert caught.value.attempts == len(seen) == 3
    assert [int(seconds) for seconds in waited] == [7, 7]


def test_a_server_that_asks_for_a_pause_gets_it(local: AttachmentClient) -> None:
    waited: list[float] = []
    with answering(Answer(200, b"{}", {"Backoff": "5"})) as (url, _):
        polite = AttachmentClient(f"{url}/v1", "b", "c", retries=Retries(0, sleep=waited.append))

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            polite.session.backoff = None  # The wait is over.

        polite.session.retries = Retries(0, sleep=sleep)
        polite.session.request("get", "/")
        assert waited == []
        polite.session.request("get", "/")
    (seconds,) = waited
    assert 0 < seconds <= 5


# DownloadMode.


@pytest.mark.parametrize("bucket", ["default", "gzipped"])
def test_a_target_gets_nothing_that_has_another_hash(
    embedded: live.Server, collection: str, files: Path, tmp_path: Path, bucket: str
) -> None:
    client = AttachmentClient(embedded.url, bucket, collection, AUTH, retries=0)
    client.kinto.create_bucket(id=bucket, if_not_exists=True)
    client.kinto.create_collection(id=collection)
    attachment = client.upload("r", io.BytesIO(LARGE), filename="f.bin")
    (stored,) = files.glob(f"**/{attachment.location.rpartition('/')[2]}")
    good = stored.read_bytes()
    target, opened = tmp_path / "copy", io.BytesIO()
    target.write_bytes(b"as it was")
    for bad in (b"X" + good[1:], good[:-1] + b"X", good[:-1], b""):
        stored.write_bytes(bad)
        for place in (target, opened):
            with pytest.raises(ClientError):
                client.download("r", place)
        with pytest.raises(ClientError):
            client.download("r", target, partial_file=tmp_path / "part")
        assert target.read_bytes() == b"as it was"
        assert opened.getvalue() == b""
        (tmp_path / "part").unlink(missing_ok=True)
        assert os.listdir(tmp_path) == ["copy"]
    stored.write_bytes(good)
    client.download("r", target)
    assert target.read_bytes() == LARGE


def test_a_wrong_hash_raises_and_keeps_no_partial_file(
    local: AttachmentClient, tmp_path: Path
) -> None:
    local.upload("r", io.BytesIO(CONTENT), filename="f")
    record = record_of(local, "r")
    # The record does not match the file, which the file's entity tag shows first.
    with pytest.raises(ConflictError):
        local.download(
            {**record, "attachment": {**record["attachment"], "hash": "0" * 64}}, io.BytesIO()
        )
    wrong = {**record["attachment"], "size": len(CONTENT) - 1}
    with pytest.raises(MismatchError):
        local.download(
            {**record, "attachment": wrong}, tmp_path / "copy", partial_file=tmp_path / "part"
        )
    assert os.listdir(tmp_path) == []


def test_a_gzip_bomb_is_not_unpacked(local: AttachmentClient, tmp_path: Path) -> None:
    """At most the announced size is decompressed and written."""
    bomb, harmless = gzip.compress(bytes(64 * MIB)), bytes(1000)
    assert len(bomb) < MIB
    original = {**stored_record(harmless)["attachment"], "filename": "f"}
    local.upload("r", io.BytesIO(bomb), {"original": original}, filename="f.gz")
    with largest_file(MIB):  # A longer write would cause another error.
        for target in (tmp_path / "copy", io.BytesIO()):
            with pytest.raises(MismatchError, match="another size or hash than announced, after"):
                local.download("r", target)
    assert os.listdir(tmp_path) == []


def test_a_download_that_breaks_off_goes_on_where_it_was(
    server: live.Server, client: AttachmentClient, tmp_path: Path
) -> None:
    told: list[int] = []
    client.upload("r", io.BytesIO(LARGE), filename="f")
    record = record_of(client, "r")
    # From S3, the bytes do not pass through the server, so nothing breaks here.
    with FaultProxy(server.address) as proxy:
        flaky = through(proxy, client, Retries(2, pause=0))
        proxy.cut(received=1_000_000, once=True)
        flaky.download(record, tmp_path / "copy", lambda done, _: told.append(done))
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert told == sorted(told)


def test_a_download_gives_up_in_the_end(
    local: AttachmentClient, embedded: live.Server, tmp_path: Path
) -> None:
    waited: list[float] = []
    local.upload("r", io.BytesIO(LARGE), filename="f")
    record = record_of(local, "r")
    with FaultProxy(embedded.address) as proxy:
        flaky = through(proxy, local, Retries(3, sleep=waited.append))
        proxy.cut(received=1_000_000)
        with pytest.raises(UnavailableError):
            flaky.download(record, tmp_path / "copy", partial_file=tmp_path / "part")
    assert len(waited) >= 3
    assert 0 < (tmp_path / "part").stat().st_size < len(LARGE)
    assert LARGE.startswith((tmp_path / "part").read_bytes())


def test_every_byte_that_comes_is_progress(tmp_path: Path) -> None:
    """Many short connections suffice for a download."""

    def break_off(request: Request) -> Answer:
        whole = ranges_of(LARGE)(request)
        length = {"Content-Length": str(len(whole.body))}
        return Answer(whole.status, whole.body[:50_000], {**whole.headers, **length})

    with stub(break_off) as server:
        client = AttachmentClient(server.url, "b", "c", retries=Retries(1, pause=0))
        client.download(stored_record(LARGE), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert len(server.seen) == len(LARGE) / 50_000


def test_what_has_come_is_taken_at_once(local: AttachmentClient, embedded: live.Server) -> None:
    """Otherwise, a reset connection would lose bytes that have already arrived."""
    local.upload("r", io.BytesIO(LARGE), filename="f")
    told: list[int] = []
    with FaultProxy(embedded.address) as proxy:
        client = through(proxy, local, Retries(2, pause=0))
        client.session.timeout = 5
        proxy.hang(received=100_000)

        def progress(done: int, total: int) -> None:
            told.append(done)
            proxy.work()

        client.download(record_of(local, "r"), io.BytesIO(), progress)
    assert told[0] < 100_000


def test_a_partial_file_is_gone_on_with(client: AttachmentClient, tmp_path: Path) -> None:
    told: list[int] = []
    client.upload("r", io.BytesIO(LARGE), filename="f")
    part = tmp_path / "part"
    part.write_bytes(LARGE[:2_000_000])
    client.download("r", tmp_path / "copy", lambda done, _: told.append(done), partial_file=part)
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert told[0] > 2_000_000
    assert os.listdir(tmp_path) == ["copy"]


@pytest.mark.parametrize(
    "left", [b"something else", b"\0" * len(LARGE), LARGE + b"!", LARGE], ids=len
)
def test_a_partial_file_is_not_trusted(
    local: AttachmentClient, tmp_path: Path, left: bytes
) -> None:
    local.upload("r", io.BytesIO(LARGE), filename="f")
    (tmp_path / "part").write_bytes(left)
    local.download("r", tmp_path / "copy", partial_file=tmp_path / "part")
    assert (tmp_path / "copy").read_bytes() == LARGE


def test_two_downloads_do_not_share_a_partial_file(
    local: AttachmentClient, tmp_path: Path
) -> None:
    local.upload("r", io.BytesIO(LARGE), filename="f")
    part = tmp_path / "part"

    def come_between(done: int, total: int) -> None:
        if done < total:
            with pytest.raises(BlockingIOError):
                local.download("r", tmp_path / "other", partial_file=part)

    local.download("r", tmp_path / "copy", come_between, partial_file=part)
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert not (tmp_path / "other").exists()


def test_an_empty_partial_file_of_another_process_is_left_to_it(
    local: AttachmentClient, tmp_path: Path
) -> None:
    local.upload("r", io.BytesIO(CONTENT), filename="f")
    with (tmp_path / "part").open("wb") as others:
        fcntl.flock(others, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            local.download("r", tmp_path / "copy", partial_file=tmp_path / "part")
    assert os.listdir(tmp_path) == ["part"]


def test_a_folder_is_no_target(local: AttachmentClient, tmp_path: Path) -> None:
    local.upload("r", io.BytesIO(CONTENT), filename="f")
    with pytest.raises(IsADirectoryError):
        local.download("r", tmp_path)


def test_a_file_that_is_replaced_after_the_look_at_its_record(
    client: AttachmentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.upload("r", io.BytesIO(CONTENT), filename="f")
    stale = record_of(client, "r")
    look = client.content
    looks: list[Any] = []

    def look_and_replace(record: Any) -> Any:
        content = look(record)
        if not looks:
            client.upload("r", io.BytesIO(b"second"), filename="f")
        looks.append(content)
        return content

    monkeypatch.setattr(client, "content", look_and_replace)
    assert read(client, "r") == b"second"
    assert len(looks) == 2
    with pytest.raises(ConflictError):
        read(client, stale)


@pytest.mark.parametrize("answer", [b"not json", b'{"message": "odd"}', b"[]"])
def test_errors_of_others_than_kinto(answer: bytes) -> None:
    with answering(Answer(418, answer)) as (url, _):
        client = AttachmentClient(url, "b", "c", retries=0)
        with pytest.raises(RejectedError, match="418"):
            client.stat("r")


# Reading at any position.


@pytest.mark.parametrize("bucket", ["default", "gzipped"])
def test_open_reads_as_a_local_file_does(
    server: live.Server, collection: str, bucket: str
) -> None:
    client = AttachmentClient(server.url, bucket, collection, AUTH)
    if bucket != "default":
        client.kinto.create_bucket(id=bucket, if_not_exists=True)
        client.kinto.create_collection(id=collection)
    client.upload("r", io.BytesIO(LARGE), filename="f")
    chance = random.Random(7)
    with client.open("r") as remote, io.BytesIO(LARGE) as ours:
        assert remote.seekable()
        for _ in range(30):
            offset, whence = chance.choice(
                [(chance.randrange(len(LARGE) + 10), 0), (chance.randrange(99), 1), (0, 2)]
            )
            if bucket == "gzipped" and whence == 2:
                continue  # The end of a compressed file is only known after reading it.
            assert remote.seek(offset, whence) == ours.seek(offset, whence)
            size = chance.choice([0, 1, 100, 700_000])
            assert remote.read(size) == ours.read(size)
            assert remote.tell() == ours.tell()
        remote.seek(0)
        assert remote.read() == LARGE
        assert remote.read() == b""


def test_closing_what_was_compressed_closes_the_connection() -> None:
    packed = gzip.compress(LARGE)
    original = {**stored_record(LARGE)["attachment"], "filename": "f"}
    record = {**stored_record(packed), "original": original}
    record["attachment"]["filename"] = "f.gz"
    with stub(ranges_of(packed)) as server:
        client = AttachmentClient(server.url, "b", "c", retries=0)
        file = client.open(record)
        assert file.read(10) == LARGE[:10]
        assert connections_to(server.url), "the rest of the file is not on its way"
        file.close()
        assert not connections_to(server.url)


def test_an_empty_file_can_be_opened(local: AttachmentClient) -> None:
    local.upload("r", io.BytesIO(b""), filename="f")
    with local.open("r") as file:
        assert file.read() == b""
        with pytest.raises(ValueError, match=r"seek|egative"):
            file.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_open_goes_on_when_the_connection_breaks(
    local: AttachmentClient, embedded: live.Server
) -> None:
    local.upload("r", io.BytesIO(LARGE), filename="f")
    with FaultProxy(embedded.address) as proxy:
        flaky = through(proxy, local, Retries(2, pause=0))
        with flaky.open(record_of(local, "r")) as file:
            proxy.cut(received=1_500_000, once=True)
            assert file.read() == LARGE
            assert proxy.broken.is_set()


def test_open_asks_for_more_the_longer_one_reads_on() -> None:
    with stub(ranges_of(LARGE)) as server:
        client = AttachmentClient(server.url, "b", "c", retries=0)
        with client.open(stored_record(LARGE)) as file:
            file.seek(2_000_000)
            assert file.read(10) == LARGE[2_000_000:2_000_010]
            file.seek(0)
            assert file.read() == LARGE
    ranges = [request.headers["Range"].removeprefix("bytes=") for request in server.seen]
    starts, ends = zip(*((int(n) for n in r.split("-")) for r in ranges), strict=True)
    sizes = [end + 1 - start for start, end in zip(starts, ends, strict=True)]
    first = 256 * 1024
    assert starts == (2_000_000, 0, first, 5 * first)
    assert sizes == [first, first, 4 * first, len(LARGE) - 5 * first]


def test_credentials_stay_with_the_server() -> None:
    """A storage to which the server redirects gets only the range."""
    with stub(ranges_of(LARGE)) as storage:

        def redirect(request: Request) -> Answer:
            return Answer(302, b"", {"Location": f"{storage.url}/file?signature=x"})

        with stub(redirect) as server:
            client = AttachmentClient(server.url, "b", "c", AUTH, retries=0)
            with client.open(stored_record(LARGE)) as file:
                file.seek(1_000_000)
                assert file.read(10) == LARGE[1_000_000:1_000_010]
    assert "Authorization" in server.seen[0].headers
    assert "If-Match" in server.seen[0].headers
    (request,) = storage.seen
    assert request.path == "/v1/file?signature=x"
    assert "Range" in request.headers
    assert "Authorization" not in request.headers
    assert "If-Match" not in request.headers


def test_a_server_that_knows_no_ranges_is_read_all_the_same() -> None:
    with answering(Answer(200, LARGE)) as (url, _):
        client = AttachmentClient(url, "b", "c", retries=0)
        with client.open(stored_record(LARGE)) as file:
            file.seek(1_234_567)
            assert file.read(100) == LARGE[1_234_567:1_234_667]
    wrong = Answer(206, b"abc", {"Content-Range": "bytes 0-2/3"})
    with answering(wrong) as (url, _):
        client = AttachmentClient(url, "b", "c", retries=0)
        with client.open(stored_record(LARGE)) as file:
            file.seek(1_234_567)
            with pytest.raises(MismatchError, match="another range"):
                file.read(100)


def test_a_storage_that_decompresses_is_asked_not_to() -> None:
    """Google decompresses for clients that do not accept gzip."""
    packed = gzip.compress(CONTENT)

    def decompress(request: Request) -> Answer:
        accepted = "gzip" in request.headers.get("Accept-Encoding", "")
        return ranges_of(packed if accepted else CONTENT)(request)

    record = stored_record(packed)
    record["attachment"]["encoding"] = "gzip"
    with stub(decompress) as server:
        client = AttachmentClient(server.url, "b", "c", retries=0)
        assert read(client, record) == CONTENT
        with client.open(record) as file:
            assert file.read() == CONTENT


def test_a_proxy_that_compresses_is_asked_not_to(tmp_path: Path) -> None:
    def compress(request: Request) -> Answer:
        answer = ranges_of(LARGE)(request)
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return answer
        encoding = {"Content-Encoding": "gzip"}
        return Answer(answer.status, gzip.compress(answer.body), {**answer.headers, **encoding})

    with stub(compress) as server:
        client = AttachmentClient(server.url, "b", "c", retries=0)
        client.download(stored_record(LARGE), tmp_path / "copy")
        with client.open(stored_record(LARGE)) as file:
            file.seek(1_000_000)
            assert file.read(10) == LARGE[1_000_000:1_000_010]
    assert (tmp_path / "copy").read_bytes() == LARGE


def test_an_answer_that_is_no_file_is_none() -> None:
    for status in (204, 304, 307):
        with stub(lambda _, status=status: Answer(status, b"")) as server:
            client = AttachmentClient(server.url, "b", "c", retries=0)
            with client.open(stored_record(LARGE)) as file, pytest.raises(ClientError):
                file.read()


# Other methods.


def test_stat_exists_and_remove(client: AttachmentClient) -> None:
    assert not client.exists("r")
    attachment = client.upload("r", io.BytesIO(CONTENT), {"title": "kept"}, filename="f.txt")
    assert client.exists("r")
    assert client.stat("r") == attachment == client.stat(record_of(client, "r"))
    client.remove("r")
    assert not client.exists("r")
    assert record_of(client, "r")["title"] == "kept"
    with pytest.raises(NotFoundError, match="r has no attachment"):
        client.stat("r")
    with pytest.raises(NotFoundError):
        read(client, "r")
    with pytest.raises(NotFoundError):
        client.remove("ghost")


@pytest.mark.parametrize("bucket", ["default", "gzipped"])
def test_copy(server: live.Server, collection: str, bucket: str) -> None:
    client = AttachmentClient(server.url, bucket, collection, AUTH)
    if bucket != "default":
        client.kinto.create_bucket(id=bucket, if_not_exists=True)
        client.kinto.create_collection(id=collection)
    first = client.upload("r", io.BytesIO(LARGE), filename="f.txt", mimetype="text/x-notes")
    copy = client.copy("r", "s", {"title": "copied"})
    assert (copy.filename, copy.mimetype, copy.hash) == (
        first.filename,
        first.mimetype,
        first.hash,
    )
    assert copy.location == first.location
    client.remove("r")
    assert read(client, "s") == LARGE
    assert record_of(client, "s")["title"] == "copied"
    with pytest.raises(ConflictError):
        client.copy("s", "s", safe=True)


def test_what_was_compressed_is_decompressed(
    server: live.Server, collection: str, tmp_path: Path
) -> None:
    client = AttachmentClient(server.url, "gzipped", collection, AUTH)
    client.kinto.create_bucket(id="gzipped", if_not_exists=True)
    client.kinto.create_collection(id=collection)
    attachment = client.upload("r", io.BytesIO(b"a" * 5_000_000), filename="f.txt")
    assert attachment.size < 50_000
    assert attachment.original is not None
    assert attachment.original.size == 5_000_000
    client.download("r", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"a" * 5_000_000
    assert os.listdir(tmp_path) == ["copy"]


def test_threads_share_a_client(client: AttachmentClient) -> None:
    contents = {f"r{number}": LARGE[number : number + 200_000] for number in range(24)}

    def there_and_back(record_id: str) -> bytes:
        client.upload(record_id, io.BytesIO(contents[record_id]), filename="f")
        return read(client, record_id)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(there_and_back, contents)) == list(contents.values())


def test_records_come_page_by_page(local: AttachmentClient) -> None:
    for number in range(7):
        local.upload(f"r{number}", io.BytesIO(b"1"), {"even": number % 2 == 0}, filename="f")
    assert {record["id"] for record in local.records(_limit=2)} == {f"r{n}" for n in range(7)}
    found = [record["id"] for record in local.records(_limit=2, even=True, _sort="id")]
    assert found == ["r0", "r2", "r4", "r6"]


@pytest.mark.parametrize(
    "change", [{"size": -1}, {"size": "1"}, {"size": True}, {"hash": 5}, {"filename": None}]
)
def test_metadata_that_is_none_is_an_error(change: dict[str, Any]) -> None:
    good = {"filename": "f", "hash": "0", "location": "x", "mimetype": "t/p", "size": 1}
    client = AttachmentClient("http://127.0.0.1:9/v1", "b", "c")
    assert client.stat({"id": "r", "attachment": good}).size == 1
    with pytest.raises(ClientError, match="The attachment has no"):
        client.stat({"id": "r", "attachment": {**good, **change}})


def test_files_with_a_content_encoding(
    server: live.Server, collection: str, tmp_path: Path
) -> None:
    """Another client compressed them, and the record does not describe the original."""
    client = AttachmentClient(server.url, "encoded", collection, AUTH)
    client.kinto.create_bucket(if_not_exists=True)
    client.kinto.create_collection(if_not_exists=True)
    packed = gzip.compress(LARGE, compresslevel=1)
    url = f"{server.url}/buckets/encoded/collections/{collection}/records/r/attachment"
    headers = {"Content-Encoding": "gzip"}
    answer = requests.put(
        f"{url}?filename=a.bin", packed, auth=("alice", "secret"), headers=headers, timeout=90
    )
    assert answer.status_code == 201

    assert client.stat("r").encoding == "gzip"
    assert client.stat("r").size == len(packed)
    assert read(client, "r") == LARGE
    client.download("r", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == LARGE
    with client.open("r") as file:
        file.seek(1_000_000)
        assert file.read(10) == LARGE[1_000_000:1_000_010]
    copied = client.copy("r", "other")
    assert (copied.encoding, copied.hash, copied.filename) == ("gzip", sha256(packed), "a.bin")
    copied = client.copy("r", "other", filename="b.bin")
    assert (copied.encoding, copied.hash, copied.filename) == (None, sha256(LARGE), "b.bin")
