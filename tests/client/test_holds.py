"""Holds in the Python client, and the command ``kinto-attachment hold``."""

from __future__ import annotations

import io
import json
import time

import pytest

from kinto_attachment import cli
from kinto_attachment.client import AttachmentClient, NotFoundError, RejectedError

Captured = pytest.CaptureFixture[str]
FAR = 4_102_444_800_000  # The year 2100.


@pytest.fixture
def client(local: AttachmentClient) -> AttachmentClient:
    """The client of a collection with the record ``r``, which has a file."""
    local.upload("r", io.BytesIO(b"Hello!"), filename="hello.txt")
    return local


class TestClient:
    def test_open_ended(self, client: AttachmentClient) -> None:
        held = client.hold("r", reason="An audit")
        assert (held["until"], held["reason"]) == (None, "An audit")
        assert client.get_hold("r") == held
        with pytest.raises(RejectedError, match="423 Locked: The file is held"):
            client.remove("r")
        client.release_hold("r")
        assert client.get_hold("r") is None
        client.remove("r")

    def test_with_a_date(self, client: AttachmentClient) -> None:
        assert client.hold("r", until=FAR)["until"] == FAR
        with pytest.raises(RejectedError, match="only be moved later"):
            client.hold("r", until=FAR - 1)
        with pytest.raises(RejectedError, match="ends by itself"):
            client.release_hold("r")

    def test_of_nothing(self, client: AttachmentClient) -> None:
        assert client.get_hold("none") is None
        for wrong in (client.hold, client.release_hold):
            with pytest.raises(NotFoundError):
                wrong("none")


class TestCommand:
    @pytest.fixture
    def options(self, client: AttachmentClient, collection: str) -> list[str]:
        server = ["--server", str(client.session.server_url), "--auth", "alice:secret"]
        return [*server, "--collection", collection]

    def test_sets_shows_and_ends(
        self, options: list[str], client: AttachmentClient, capsys: Captured
    ) -> None:
        assert cli.main(["hold", *options, "--reason", "An audit", "r"]) == 0
        assert json.loads(capsys.readouterr().out) == client.get_hold("r")
        assert cli.main(["hold", *options, "--show", "r"]) == 0
        assert json.loads(capsys.readouterr().out)["reason"] == "An audit"
        assert cli.main(["hold", *options, "--release", "r"]) == 0
        capsys.readouterr()
        assert cli.main(["hold", *options, "--show", "r"]) == 0
        assert capsys.readouterr().out == "null\n"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2100-01-01", FAR),
            ("2100-01-01T00:00:00Z", FAR),
            ("2100-01-01T01:00:00+01:00", FAR),
        ],
    )
    def test_until(
        self, options: list[str], client: AttachmentClient, text: str, expected: int
    ) -> None:
        assert cli.main(["hold", *options, "--until", text, "r"]) == 0
        assert (client.get_hold("r") or {})["until"] == expected

    def test_from_now_on(self, options: list[str], client: AttachmentClient) -> None:
        assert cli.main(["hold", *options, "--until", "30d", "r"]) == 0
        until = (client.get_hold("r") or {})["until"]
        assert abs(until / 1000 - time.time() - 30 * 86400) < 60

    def test_errors(self, options: list[str], capsys: Captured) -> None:
        for wrong, told in (
            (["none"], "404"),
            (["--until", "2000-01-01", "r"], "in the future"),
            (["--show", "--reason", "x", "r"], "for a hold that is set"),
            (["--auth", "bob:secret", "r"], "404"),  # In bob's own bucket.
        ):
            assert cli.main(["hold", *options, *wrong]) == 2
            assert told in capsys.readouterr().err
        with pytest.raises(SystemExit):
            cli.main(["hold", *options, "--until", "soon", "r"])
        assert "neither a date nor a time" in capsys.readouterr().err
