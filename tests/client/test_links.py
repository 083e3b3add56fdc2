"""Links by the client and by ``kinto-attachment url``."""

from __future__ import annotations

import io
import json
import time

import pytest
import requests

from kinto_attachment import cli
from kinto_attachment.client import (
    AttachmentClient,
    FileStore,
    NotAllowedError,
    NotFoundError,
    RejectedError,
)
from tests.support import live
from tests.support.scripts import AUTH

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def keeping(embedded: live.Server, collection: str) -> AttachmentClient:
    """The client of a collection with the record ``r``, which has had two files."""
    client = AttachmentClient(embedded.url, "keeping", collection, AUTH, retries=0)
    client.kinto.create_bucket(if_not_exists=True)
    client.kinto.create_collection()
    for name in ("one.txt", "two.txt"):
        client.upload("r", io.BytesIO(name.encode()), filename=name)
    return client


class TestClient:
    def test_needs_no_credentials(self, client: AttachmentClient) -> None:
        client.upload("r", io.BytesIO(b"Hello!"), filename="a.txt")
        options = {"disposition": "attachment", "filename": "b & c.txt"}
        before = time.time()
        made = client.link("r", expires_in="1h", **options)
        assert made.expires_at / 1000 - before >= 3599
        answer = requests.get(made.url, timeout=90)
        assert answer.content == b"Hello!"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="b & c.txt"'
        record = client.kinto.get_record(id="r")["data"]
        assert requests.get(client.url(record), timeout=90).content == b"Hello!"

    def test_to_a_version(self, keeping: AttachmentClient) -> None:
        _, oldest = keeping.versions("r")
        url = keeping.url("r", version=oldest["id"])
        assert requests.get(url, timeout=90).content == b"one.txt"

    def test_refusals(self, keeping: AttachmentClient, embedded: live.Server) -> None:
        for unknown in (("none", None), ("r", "none"), ("r", "a/b")):
            record, version = unknown
            with pytest.raises(NotFoundError):
                keeping.url(record, version=version)
        for wrong in ({"expires_in": "8d"}, {"disposition": "x"}, {"filename": "\r\n"}):
            with pytest.raises(RejectedError):
                keeping.url("r", **wrong)
        collection = keeping.kinto.collection_name
        stranger = AttachmentClient(embedded.url, "keeping", collection, ("bob", "s"), retries=0)
        with pytest.raises(NotAllowedError):
            stranger.url("r")


class TestFileStore:
    def test_has_links_to_keys(self, client: AttachmentClient) -> None:
        store = FileStore(client)
        store.set("pictures/cat.txt", b"Meow")
        url = store.signed_url("pictures/cat.txt", expires_in=60, disposition="attachment")
        answer = requests.get(url, timeout=90)
        assert answer.content == b"Meow"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="cat.txt"'
        url = store.signed_url("pictures/cat.txt", disposition="attachment", filename="dog.txt")
        answer = requests.get(url, timeout=30)
        assert answer.headers["Content-Disposition"] == 'attachment; filename="dog.txt"'
        with pytest.raises(NotFoundError, match="No file has the key 'dog'"):
            store.signed_url("dog")


class TestCommand:
    @pytest.fixture
    def options(self, keeping: AttachmentClient, collection: str) -> list[str]:
        server = ["--server", str(keeping.session.server_url), "--auth", "alice:secret"]
        return [*server, "--bucket", "keeping", "--collection", collection]

    def test_prints_a_link(
        self, options: list[str], keeping: AttachmentClient, capsys: Captured
    ) -> None:
        assert cli.main(["url", *options, "r"]) == 0
        url = capsys.readouterr().out.rstrip("\n")
        assert requests.get(url, timeout=90).content == b"two.txt"
        _, oldest = keeping.versions("r")
        chosen = ["--version", oldest["id"], "--disposition", "attachment", "--filename", "x.txt"]
        assert cli.main(["url", *options, *chosen, "--expires-in", "1h", "--json", "r"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["expires_at"] / 1000 - time.time() > 3500
        answer = requests.get(printed["url"], timeout=90)
        assert answer.content == b"one.txt"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="x.txt"'

    def test_errors(self, options: list[str], capsys: Captured) -> None:
        for wrong, told in (
            (["none"], "404"),
            (["--version", "x", "r"], "404"),
            (["--expires-in", "8d", "r"], "expires_in"),
            (["--auth", "bob:secret", "r"], "403"),
        ):
            assert cli.main(["url", *options, *wrong]) == 2
            assert told in capsys.readouterr().err
