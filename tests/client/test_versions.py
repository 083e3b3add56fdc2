"""``kinto-attachment versions``, ``restore`` and ``cp``, and their methods of the client."""

from __future__ import annotations

import io
import json

import pytest

from kinto_attachment import cli
from kinto_attachment.client import AttachmentClient, ConflictError, NotFoundError
from tests.support import live
from tests.support.scripts import AUTH

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def keeping(embedded: live.Server, collection: str) -> AttachmentClient:
    """The client of a collection with the record ``r``, which has had three files."""
    client = AttachmentClient(embedded.url, "keeping", collection, AUTH, retries=0)
    client.kinto.create_bucket(if_not_exists=True)
    client.kinto.create_collection()
    for name in ("one.txt", "two.txt", "three.txt"):
        client.upload("r", io.BytesIO(name.encode()), filename=name)
    return client


def names(client: AttachmentClient, record: str = "r") -> list[str]:
    return [version["filename"] for version in client.versions(record)]


def read(client: AttachmentClient, record: str) -> bytes:
    with client.open(record) as file:
        return file.read()


class TestClient:
    def test_lists_versions(self, keeping: AttachmentClient) -> None:
        assert names(keeping) == ["three.txt", "two.txt", "one.txt"]
        with pytest.raises(NotFoundError):
            names(keeping, "none")

    def test_restores(self, keeping: AttachmentClient) -> None:
        oldest = [*keeping.versions("r")][-1]
        assert keeping.restore("r", oldest["id"]).filename == "one.txt"
        assert read(keeping, "r") == b"one.txt"
        assert names(keeping) == ["one.txt", "three.txt", "two.txt"]

    def test_restores_a_deleted_record(self, keeping: AttachmentClient) -> None:
        keeping.kinto.delete_record(id="r")
        newest = next(keeping.versions("r"))
        keeping.restore("r", newest["id"])
        assert read(keeping, "r") == b"three.txt"

    def test_deletes(self, keeping: AttachmentClient) -> None:
        current, _, oldest = keeping.versions("r")
        keeping.delete_version("r", oldest["id"])
        assert names(keeping) == ["three.txt", "two.txt"]
        with pytest.raises(Exception, match="current file"):
            keeping.delete_version("r", current["id"])
        with pytest.raises(NotFoundError):
            keeping.delete_version("r", oldest["id"])

    def test_copies_without_sending(self, keeping: AttachmentClient) -> None:
        copied = keeping.copy("r", "s", {"title": "A"}, safe=True)
        assert copied == keeping.stat("r") == keeping.stat("s")
        assert keeping.kinto.get_record(id="s")["data"]["title"] == "A"
        with pytest.raises(ConflictError):
            keeping.copy("r", "s", safe=True)
        renamed = keeping.copy("r", "t", filename="other.txt")
        assert (renamed.filename, renamed.hash) == ("other.txt", copied.hash)
        assert renamed.location != copied.location

    def test_copies_versions_and_from_elsewhere(
        self, keeping: AttachmentClient, local: AttachmentClient
    ) -> None:
        oldest = [*keeping.versions("r")][-1]
        uri = keeping.kinto.get_endpoint("record", id="r")
        assert local.copy_from(uri, "s", version=oldest["id"]).filename == "one.txt"
        assert read(local, "s") == b"one.txt"
        with pytest.raises(NotFoundError):
            local.copy_from(uri, "s", version="none")


class TestCommands:
    @pytest.fixture
    def options(self, keeping: AttachmentClient, collection: str) -> list[str]:
        server = ["--server", str(keeping.session.server_url), "--auth", "alice:secret"]
        return [*server, "--bucket", "keeping", "--collection", collection]

    def test_versions(
        self, options: list[str], keeping: AttachmentClient, capsys: Captured
    ) -> None:
        assert cli.main(["versions", *options, "r"]) == 0
        lines = capsys.readouterr().out.splitlines()
        newest = next(keeping.versions("r"))
        assert len(lines) == 3
        assert lines[0].startswith(f"{newest['id']}  20")
        assert lines[0].endswith("Z  9  current  three.txt")
        assert lines[2].endswith("  7  kept  one.txt")
        assert cli.main(["versions", *options, "--json", "r"]) == 0
        printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert printed == [*keeping.versions("r")]

    def test_restore(
        self, options: list[str], keeping: AttachmentClient, capsys: Captured
    ) -> None:
        assert cli.main(["restore", *options, "r"]) == 0
        assert capsys.readouterr().out == "r  7  two.txt\n"
        oldest = [*keeping.versions("r")][-1]
        assert cli.main(["restore", *options, "r", oldest["id"][:20]]) == 0
        assert names(keeping) == ["one.txt", "two.txt", "three.txt"]
        keeping.kinto.delete_record(id="r")
        assert cli.main(["restore", *options, "r"]) == 0
        assert read(keeping, "r") == b"one.txt"

    def test_cp(self, options: list[str], keeping: AttachmentClient, capsys: Captured) -> None:
        assert cli.main(["cp", *options, "r", "s"]) == 0
        assert capsys.readouterr().out == "s  9  three.txt\n"
        oldest = [*keeping.versions("r")][-1]
        uri = keeping.kinto.get_endpoint("record", id="r")
        assert cli.main(["cp", *options, "--version", oldest["id"], uri, "t"]) == 0
        assert read(keeping, "t") == b"one.txt"
        assert cli.main(["cp", *options, "--safe", "r", "t"]) == 2
        assert read(keeping, "t") == b"one.txt"

    def test_errors(self, options: list[str], capsys: Captured) -> None:
        for wrong, told in (
            (["versions", *options, "none"], "404"),
            (["restore", *options, "none"], "404"),
            (["restore", *options, "r", "x"], "begins with x"),
            (["restore", *options, "r", ""], "3 versions begin with"),
            (["cp", *options, "none", "s"], "404"),
            (["cp", *options, "--version", "x", "r", "s"], "404"),
            (["versions", *options, "--auth", "bob:secret", "r"], "403"),
        ):
            assert cli.main(wrong) == 2
            assert told in capsys.readouterr().err

    def test_restore_without_an_earlier_file(
        self, options: list[str], keeping: AttachmentClient, capsys: Captured
    ) -> None:
        keeping.upload("fresh", io.BytesIO(b"x"), filename="x.txt")
        assert cli.main(["restore", *options, "fresh"]) == 2
        assert "no earlier file" in capsys.readouterr().err
