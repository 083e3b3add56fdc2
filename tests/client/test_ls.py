"""``kinto-attachment ls`` and ``client.files()``: the server's list of files."""

from __future__ import annotations

import io
import json

import pytest

from kinto_attachment import cli
from kinto_attachment.client import AttachmentClient, NotAllowedError, RejectedError, lists
from tests.support import live


@pytest.fixture
def filled(local: AttachmentClient) -> AttachmentClient:
    for size, name in enumerate(("a.txt", "b.png", "c.txt"), 1):
        local.upload(name[0], io.BytesIO(b"x" * size), filename=name)
    return local


def names(client: AttachmentClient, **filters: object) -> list[str]:
    return [item["filename"] for item in client.files(**filters)]


class TestFiles:
    def test_the_newest_first(self, filled: AttachmentClient) -> None:
        assert names(filled) == ["c.txt", "b.png", "a.txt"]
        (item,) = filled.files(id="a")
        assert (item["id"], item["size"], item["state"]) == ("a", 1, "current")

    def test_page_by_page(self, filled: AttachmentClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lists, "PAGE", 1)
        assert names(filled) == ["c.txt", "b.png", "a.txt"]
        assert names(filled, like_filename="*.txt", max_size=2) == ["a.txt"]

    def test_filters_of_a_name_several_times(self, filled: AttachmentClient) -> None:
        assert names(filled, not_filename=["a.txt", "b.png"]) == ["c.txt"]
        assert names(filled, in_id="a,b", _limit=1) == ["b.png", "a.txt"]

    def test_refusals(self, filled: AttachmentClient) -> None:
        with pytest.raises(RejectedError, match="unknown"):
            names(filled, unknown=1)
        stranger = AttachmentClient(str(filled.session.server_url), "b", "c", retries=0)
        with pytest.raises(NotAllowedError):
            names(stranger)


class TestCommand:
    @pytest.fixture
    def options(self, embedded: live.Server, collection: str, filled: object) -> list[str]:
        auth = ["--server", embedded.url, "--auth", "alice:secret"]
        return ["ls", *auth, "--collection", collection]

    def test_a_collection_that_does_not_exist_is_named(
        self, options: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main([*options[:-1], "nowhere"]) == 2
        said = "404 Not Found: there is no collection 'nowhere'\n"
        assert capsys.readouterr().err == said

    def test_a_line_for_each(self, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(options) == 0
        printed = capsys.readouterr()
        assert printed.out == "c  3  c.txt\nb  2  b.png\na  1  a.txt\n"
        assert printed.err == "3 files, 6 bytes\n"

    def test_filters(self, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main([*options, "like_filename=*.txt", "gt_size=1", "gt_size=2"]) == 0
        assert capsys.readouterr() == ("c  3  c.txt\n", "1 file, 3 bytes\n")

    def test_json(self, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main([*options, "--json", "id=a"]) == 0
        printed = capsys.readouterr()
        item = json.loads(printed.out)
        assert (item["id"], item["filename"], printed.err) == ("a", "a.txt", "")

    def test_kept_files(self, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main([*options, "--kept"]) == 0
        assert capsys.readouterr().err == "0 files, 0 bytes\n"

    def test_errors(self, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main([*options, "colour=red"]) == 2
        assert "colour" in capsys.readouterr().err
        assert cli.main([*options, "--auth", "bob:secret", "--bucket", "none"]) == 2
        assert "403" in capsys.readouterr().err
        for wrong in ("name", "=1", "_limit=1"):
            with pytest.raises(SystemExit):
                cli.main([*options, wrong])
            assert "NAME=VALUE" in capsys.readouterr().err
