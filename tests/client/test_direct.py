"""Files that the client sends to the server's storage, in parallel parts."""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from kinto_attachment.client import (
    AttachmentClient,
    ConflictError,
    FileStore,
    RejectedError,
    Retries,
    direct as sending,
    lookup,
    unfinished,
    upload_command,
)
from tests.support import live, waiting
from tests.support.faults import FaultProxy
from tests.support.scripts import AUTH
from tests.support.services import S3

MIB = 1024 * 1024
CONTENT = hashlib.shake_256(b"film").digest(11 * MIB)  # Three parts.


@pytest.fixture(scope="module")
def storage(seaweedfs: S3) -> Iterator[FaultProxy]:
    """A proxy in front of SeaweedFS."""
    with FaultProxy(seaweedfs.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def server(seaweedfs: S3, storage: FaultProxy) -> Iterator[live.Server]:
    options = seaweedfs.options(seaweedfs.create_bucket())
    settings = {
        **options,
        "aws.endpoint_url": storage.url,
        "direct.part_size": "5M",
        "resources.small.max_size": "1000",
    }
    with live.kinto(settings) as server:
        yield server


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def file_of(content: bytes = CONTENT) -> io.BytesIO:
    file = io.BytesIO(content)
    file.name = "film.bin"
    return file


def kept() -> list[Path]:
    return list(unfinished.folder().glob("*")) if unfinished.folder().exists() else []


def content_of(client: AttachmentClient, record: str = "r") -> bytes:
    with client.open(record) as file:
        return file.read()


@pytest.mark.parametrize("size", [0, 10, len(CONTENT)])
def test_a_file_arrives(client: AttachmentClient, size: int) -> None:
    done: list[int] = []
    attachment = client.upload(
        "r",
        file_of(CONTENT[:size]),
        {"title": "Ein Film"},
        {"read": ["system.Everyone"]},
        mimetype="video/mp4",
        progress=lambda now, total: done.append(now),
        direct=True,
    )
    assert (attachment.size, attachment.mimetype) == (size, "video/mp4")
    assert done == sorted(done)
    assert done[-1] == size
    record = client.kinto.get_record(id="r")
    assert record["data"]["title"] == "Ein Film"
    assert record["permissions"]["read"] == ["system.Everyone"]
    assert content_of(client) == CONTENT[:size]
    assert kept() == []


def test_parts_go_side_by_side(client: AttachmentClient, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=waiting.SECONDS)
    send = sending.DirectUpload._send_once

    def meet(self: Any, part: Any) -> None:
        together.wait()
        send(self, part)

    monkeypatch.setattr(sending.DirectUpload, "_send_once", meet)
    client.upload("r", file_of(), direct=True)
    assert content_of(client) == CONTENT


def test_credentials_stay_with_the_server(
    client: AttachmentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    send = requests.Session.send

    def note(self: Any, request: Any, **options: Any) -> Any:
        seen.append(request)
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", note)
    client.session.headers["X-Secret"] = "x"
    client.upload("r", file_of(), direct=True)
    server = str(client.session.server_url)
    elsewhere = [request for request in seen if not request.url.startswith(server)]
    assert len(elsewhere) == 3
    for request in elsewhere:
        assert not {"Authorization", "X-Secret", "Cookie"} & {*request.headers}


def interrupted(client: AttachmentClient, after: int) -> None:
    def stop(done: int, total: int) -> None:
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.upload("r", file_of(), progress=stop, direct=True)


def test_it_goes_on_after_an_interruption(
    client: AttachmentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PARALLEL", 1)
    interrupted(client, 6 * MIB)
    assert len(kept()) == 1
    seen: list[int] = []
    client.upload("r", file_of(), progress=lambda done, _: seen.append(done), direct=True)
    assert seen[0] == 5 * MIB
    assert content_of(client) == CONTENT
    assert kept() == []


def test_other_bytes_or_conditions_begin_again(
    client: AttachmentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PARALLEL", 1)
    interrupted(client, 6 * MIB)
    seen: list[int] = []
    other = file_of(CONTENT[::-1])
    client.upload("r", other, progress=lambda done, _: seen.append(done), direct=True)
    assert seen[0] == 0
    assert content_of(client) == CONTENT[::-1]


def test_an_upload_that_was_cancelled_begins_again(
    client: AttachmentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PARALLEL", 1)
    interrupted(client, 6 * MIB)
    (path,) = kept()
    client.session.send("DELETE", path.read_text(), {}, b"")
    client.upload("r", file_of(), direct=True)
    assert content_of(client) == CONTENT


def test_broken_connections_are_retried(client: AttachmentClient, storage: FaultProxy) -> None:
    """The connection of the first part that reaches the limit is cut."""
    storage.cut(sent=2 * MIB, once=True)
    try:
        client.upload("r", file_of(), direct=True)
    finally:
        storage.work()
    assert content_of(client) == CONTENT


def test_urls_that_are_refused_are_renewed(
    client: AttachmentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like expired URLs after a machine has slept: storages refuse both in the same way."""
    create = sending.DirectUpload._create

    def damaged(self: Any) -> Any:
        url, state = create(self)
        for part in state["parts"]:
            part["url"] = re.sub("(X-Amz-Signature=)....", r"\g<1>0000", part["url"])
        return url, state

    monkeypatch.setattr(sending.DirectUpload, "_create", damaged)
    client.upload("r", file_of(), direct=True)
    assert content_of(client) == CONTENT


def test_refusals(server: live.Server, client: AttachmentClient) -> None:
    small = AttachmentClient(server.url, "small", "c", AUTH, retries=Retries(0))
    small.kinto.create_bucket(if_not_exists=True)
    small.kinto.create_collection(if_not_exists=True)
    with pytest.raises(RejectedError, match="1000"):
        small.upload("r", file_of(), direct=True)
    client.upload("r", file_of(b"old"))
    with pytest.raises(ConflictError):
        client.upload("r", file_of(), safe=True, direct=True)
    with pytest.raises(ValueError, match="direct"):
        client.upload("r", file_of(), direct=True, resumable=True)
    assert kept() == []


def test_a_url_for_somebody_else(client: AttachmentClient) -> None:
    store = FileStore(client)
    url = store.upload_url("letters/june.txt", size=5, mimetype="text/x-letter", expires_in=60)
    assert requests.put(url, data=b"Dear", timeout=90).status_code == 400
    assert requests.put(url, data=b"Dear!", timeout=90).status_code == 201
    assert requests.put(url, data=b"Fear!", timeout=90).status_code == 201
    assert store.get("letters/june.txt") == b"Dear!"
    assert store.list("letters/") == ["letters/june.txt"]
    assert store.stat("letters/june.txt").mimetype == "text/x-letter"
    with pytest.raises(RejectedError):
        store.upload_url("letters/july.txt", size=5, expires_in=0)
    for key in ("new\nline\x7f", "z" * 1024):  # The server accepts neither as a filename.
        url = store.upload_url(key, size=1)
        assert requests.put(url, data=b"x", timeout=90).status_code == 201
        assert store.get(key) == b"x"


def test_the_command(
    server: live.Server, client: AttachmentClient, collection: str, tmp_path: Path
) -> None:
    path = tmp_path / "film.bin"
    path.write_bytes(CONTENT)
    options = ["-s", server.url, "-a", ":".join(AUTH), "-c", collection, "--quiet"]
    assert upload_command.main([*options, "--direct", str(path)]) == 0
    assert content_of(client, lookup.record_id("film.bin")) == CONTENT
