"""Large files are uploaded in several requests, and continue where they were interrupted."""

from __future__ import annotations

import io
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from kinto_attachment.client import (
    AttachmentClient,
    ConflictError,
    RejectedError,
    Retries,
    lookup,
    resumable as resuming,
    unfinished,
    upload_command,
)
from kinto_attachment.client.errors import UnavailableError
from tests.support import live
from tests.support.faults import FaultProxy
from tests.support.scripts import AUTH

CONTENT = bytes(range(256)) * 4096  # 1 MiB, in chunks of 64 KiB.
CHUNK = 64 * 1024


@pytest.fixture(autouse=True)
def in_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "CHUNK", CHUNK)
    monkeypatch.setattr(resuming, "BLOCK", CHUNK // 4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def file_of(content: bytes = CONTENT) -> io.BytesIO:
    file = io.BytesIO(content)
    file.name = "film.bin"
    return file


def kept() -> list[Path]:
    """The files that record unfinished uploads."""
    return list(unfinished.folder().glob("*")) if unfinished.folder().exists() else []


def interrupted(client: AttachmentClient, after: int, record: str = "r", **options: Any) -> None:
    """Start an upload that its user interrupts after so many bytes."""

    def stop(done: int, total: int) -> None:
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.upload(record, file_of(), resumable=True, progress=stop, **options)


def continued(client: AttachmentClient, record: str = "r", **options: Any) -> int:
    """Upload the same again; returns the position where it continued."""
    seen: list[int] = []
    client.upload(
        record, file_of(), resumable=True, progress=lambda done, _: seen.append(done), **options
    )
    return seen[0]


def test_arrives_with_its_attributes(client: AttachmentClient) -> None:
    done: list[int] = []
    attachment = client.upload(
        "r",
        file_of(),
        {"title": "Ein Film"},
        {"read": ["system.Everyone"]},
        filename="filmé.mp4",
        mimetype="video/mp4",
        resumable=True,
        progress=lambda sent, total: done.append(sent),
    )
    assert (attachment.filename, attachment.mimetype) == ("filmé.mp4", "video/mp4")
    with client.open("r") as file:
        assert file.read() == CONTENT
    record = client.kinto.get_record(id="r")
    assert record["data"]["title"] == "Ein Film"
    assert record["permissions"]["read"] == ["system.Everyone"]
    assert done == list(range(0, len(CONTENT) + 1, CHUNK // 4))
    assert kept() == []


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1])
def test_any_size(local: AttachmentClient, size: int) -> None:
    local.upload("r", file_of(CONTENT[:size]), resumable=True)
    with local.open("r") as file:
        assert file.read() == CONTENT[:size]


def test_goes_on_after_it_was_interrupted(client: AttachmentClient) -> None:
    interrupted(client, 5 * CHUNK + 1)
    (file,) = kept()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # A part of the interrupted chunk may have arrived.
    assert 5 * CHUNK <= continued(client) < 6 * CHUNK
    with client.open("r") as stored:
        assert stored.read() == CONTENT
    assert kept() == []


def test_begins_again_for_another_file_record_or_description(local: AttachmentClient) -> None:
    interrupted(local, 5 * CHUNK)
    assert continued(local, "other") == 0
    assert continued(local, data={"title": "T"}) == 0
    assert len(kept()) == 1
    assert continued(local) >= 4 * CHUNK


def test_begins_again_when_the_server_has_forgotten(local: AttachmentClient) -> None:
    interrupted(local, 5 * CHUNK)
    (file,) = kept()
    url = file.read_text()
    assert requests.delete(url, headers=resuming.TUS, auth=AUTH, timeout=10).status_code == 204
    assert continued(local) == 0
    assert local.stat("r").size == len(CONTENT)


def test_uploads_that_have_expired_are_forgotten(local: AttachmentClient) -> None:
    """Otherwise, URLs of files that are never uploaded again would stay."""
    interrupted(local, 5 * CHUNK)
    (expired,) = kept()
    idle = 24 * 3600  # The server's default.
    assert abs(expired.stat().st_mtime - time.time() - idle) < 60
    left = expired.with_name(".of-a-process-that-died")
    left.touch()
    for path in (expired, left):
        os.utime(path, (1, time.time() - unfinished.SLACK - 1))
    interrupted(local, 5 * CHUNK, "other")
    (going_on,) = [*unfinished.folder().iterdir()]
    assert going_on.name not in (expired.name, left.name)
    assert continued(local, "other") >= 4 * CHUNK


def test_without_a_cache_it_begins_again(
    local: AttachmentClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    interrupted(local, 5 * CHUNK)
    assert continued(local) == 0


@pytest.fixture
def behind(
    embedded: live.Server, collection: str
) -> Iterator[tuple[FaultProxy, AttachmentClient]]:
    """A client of a server whose connections break."""
    with FaultProxy(embedded.address) as proxy:
        client = AttachmentClient(
            f"{proxy.url}/v1", "default", collection, AUTH, retries=Retries(count=5, pause=0.01)
        )
        yield proxy, client


def test_goes_on_after_the_connection_broke(
    behind: tuple[FaultProxy, AttachmentClient],
) -> None:
    proxy, client = behind
    sent: list[int] = []

    def cut(done: int, total: int) -> None:
        sent.append(done)
        if done in (3 * CHUNK + CHUNK // 2, 9 * CHUNK + CHUNK // 2) and sent.count(done) == 1:
            proxy.cut(sent=CHUNK // 4, once=True)

    attachment = client.upload("r", file_of(), resumable=True, progress=cut)
    assert attachment.size == len(CONTENT)
    with client.open("r") as stored:
        assert stored.read() == CONTENT
    assert sum(0 < done <= 3 * CHUNK for done in sent) == 12, (
        "nothing was sent twice before the cut"
    )


def test_goes_on_after_another_request_has_taken_over(local: AttachmentClient) -> None:
    """This may be a request whose connection broke, if the server begins it only then."""
    taken: list[int] = []

    def take_over(done: int, total: int) -> None:
        if done == 3 * CHUNK + CHUNK // 2 and not taken:
            url = kept()[0].read_text()
            headers = {**resuming.TUS, "Content-Type": "application/offset+octet-stream"}
            headers["Upload-Offset"] = str(3 * CHUNK)
            other = requests.patch(url, CONTENT[:1], headers=headers, auth=AUTH, timeout=10)
            taken.append(other.status_code)

    local.upload("r", file_of(), resumable=True, progress=take_over)
    assert taken == [204]


def test_a_lost_last_answer_costs_nothing(behind: tuple[FaultProxy, AttachmentClient]) -> None:
    proxy, client = behind
    sent: list[int] = []

    def cut(done: int, total: int) -> None:
        sent.append(done)
        if done == total:
            proxy.cut(received=0, once=True)

    client.upload("r", file_of(), resumable=True, progress=cut)
    assert sent.count(len(CONTENT)) == 1
    assert client.stat("r").size == len(CONTENT)


def test_a_server_that_stays_away_is_told(behind: tuple[FaultProxy, AttachmentClient]) -> None:
    proxy, client = behind

    def away(done: int, total: int) -> None:
        if done > 5 * CHUNK:
            proxy.refuse()

    with pytest.raises(UnavailableError):
        client.upload("r", file_of(), resumable=True, progress=away)
    proxy.work()
    assert continued(client) >= 4 * CHUNK


def test_preconditions_hold(local: AttachmentClient) -> None:
    local.upload("r", file_of(b"before"))
    with pytest.raises(ConflictError):
        local.upload("r", file_of(), resumable=True, safe=True)
    version = local.kinto.get_record(id="r")["data"]["last_modified"]
    local.upload("r", file_of(), resumable=True, if_match=version)
    with pytest.raises(ConflictError):
        local.upload("r", file_of(b"after"), resumable=True, if_match=version)
    assert local.stat("r").size == len(CONTENT)
    assert kept() == []


class TestByDefault:
    @pytest.fixture(autouse=True)
    def small_is_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resuming, "LARGE", CHUNK)

    def sessions(self, client: AttachmentClient, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The requests of a client."""
        made: list[str] = []
        send = client.session._send

        def noting(method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            made.append(method)
            return send(method, url, *args, **kwargs)

        monkeypatch.setattr(client.session, "_send", noting)
        return made

    def test_large_files_are(
        self, local: AttachmentClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = self.sessions(local, monkeypatch)
        local.upload("r", file_of())
        assert made == ["POST", *["PATCH"] * (len(CONTENT) // CHUNK)]

    def test_small_files_are_not(
        self, local: AttachmentClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = self.sessions(local, monkeypatch)
        local.upload("r", file_of(CONTENT[:CHUNK]))
        local.upload("r", file_of(), resumable=False)
        assert made == ["POST", "POST"]

    def test_the_command_counts_what_it_sent_itself(
        self,
        local: AttachmentClient,
        collection: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        path = tmp_path / "film.bin"
        path.write_bytes(CONTENT)
        interrupted(local, 5 * CHUNK + 1, lookup.record_id(path.name), data={})
        options = ["--server", local.session.server_url, "--auth", ":".join(AUTH), "--json"]
        place = ["--bucket", "default", "--collection", collection]
        assert upload_command.main([*options, *place, str(path)]) == 0
        uploaded, summary = map(json.loads, capsys.readouterr().out.splitlines())
        assert uploaded["size"] == len(CONTENT)
        assert len(CONTENT) - 6 * CHUNK < uploaded["sent"] <= len(CONTENT) - 5 * CHUNK
        assert uploaded["why"].startswith("continued after ")
        assert summary["summary"]["sent"] == uploaded["sent"]

    def test_not_with_more_attributes_than_fit(
        self, local: AttachmentClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = self.sessions(local, monkeypatch)
        local.upload("r", file_of(), {"text": "x" * 5000})
        assert made == ["POST"]

    def test_what_is_refused_at_the_end_is_not_sent_again(
        self, local: AttachmentClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = self.sessions(local, monkeypatch)

        def change_schema(done: int, total: int) -> None:
            if done == total // 2:  # Before the server has received all bytes.
                schema = {"type": "object", "required": ["title"]}
                local.kinto.patch_collection(data={"schema": schema})

        with pytest.raises(RejectedError, match="title"):
            local.upload("r", file_of(), progress=change_schema)
        assert made == ["POST", *["PATCH"] * (len(CONTENT) // CHUNK)]
        assert not local.exists("r")

    def test_not_where_files_are_compressed(self, embedded: live.Server, collection: str) -> None:
        client = AttachmentClient(embedded.url, "gzipped", collection, AUTH)
        client.kinto.create_bucket(id="gzipped", if_not_exists=True)
        client.kinto.create_collection(if_not_exists=True)
        assert client.upload("r", file_of()).original is not None
        with pytest.raises(RejectedError):
            client.upload("r", file_of(), resumable=True)
