"""The file that a location identifies: only this server's exact form is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from kinto_attachment.files.locations import is_host, own_files, possible_keys
from kinto_attachment.settings import Settings

CDN = "https://cdn.example.com/files/"
FORMER = "https://old.example.com/"
OWN = "https://kinto.example.com/v1/attachments/"


def settings(**options: Any) -> Settings:
    kinto = {name: options.pop(name) for name in ("http_host", "http_scheme") if name in options}
    given = {"base_path": "/tmp/files", **options}
    return Settings.parse({**kinto, **{f"attachment.{name}": v for name, v in given.items()}})


STRICT = settings(
    base_url=CDN,
    former_base_urls=f"{FORMER} http://former.example.com/v1/attachments",
    http_host="kinto.example.com",
    http_scheme="https",
)


def own_key(settings: Settings, route_prefix: str, attachment: object) -> str | None:
    """The key of the only file that a location may identify, with one storage."""
    files = own_files(settings, route_prefix, attachment)
    assert len(files) <= 1
    assert all(storage == "" for storage, _ in files)
    return files[0][1] if files else None


class TestOwnKey:
    @pytest.mark.parametrize(
        ("location", "key"),
        [
            (f"{CDN}a/b.txt", "a/b.txt"),
            (f"{CDN}%D1%82.txt", "т.txt"),
            (f"{CDN}a%20b%2By.txt", "a b+y.txt"),
            (f"{CDN}a%3Fb%23c.txt", "a?b#c.txt"),
            (f"{FORMER}a.txt", "a.txt"),
            ("http://former.example.com/v1/attachments/a.txt", "a.txt"),
            (f"{OWN}a/b.txt", "a/b.txt"),
        ],
    )
    def test_of_this_server(self, location: str, key: str) -> None:
        assert own_key(STRICT, "v1", {"location": location}) == key

    @pytest.mark.parametrize(
        "location",
        [
            # Another scheme or authority.
            "http://kinto.example.com/v1/attachments/a.txt",
            "http://cdn.example.com/files/a.txt",
            "https://elsewhere.example.com/v1/attachments/a.txt",
            "https://kinto.example.com:443/v1/attachments/a.txt",
            "https://kinto.example.com:8443/v1/attachments/a.txt",
            "https://user@kinto.example.com/v1/attachments/a.txt",
            "https://kinto.example.com@evil.example/v1/attachments/a.txt",
            "https://user:kinto.example.com@evil.example/v1/attachments/a.txt",
            "https://kinto.example.com.evil.example/v1/attachments/a.txt",
            "https://cdn.example.com@evil.example/files/a.txt",
            "https://cdn.example.com.evil.example/files/a.txt",
            "HTTPS://kinto.example.com/v1/attachments/a.txt",
            "//kinto.example.com/v1/attachments/a.txt",
            "/v1/attachments/a.txt",
            "a.txt",
            "ftp://kinto.example.com/v1/attachments/a.txt",
            "javascript:https://kinto.example.com/v1/attachments/a.txt",
            # Something before, between or after.
            "https://kinto.example.com/x/v1/attachments/a.txt",
            "https://kinto.example.com//v1/attachments/a.txt",
            "https://kinto.example.com/v1//attachments/a.txt",
            "https://kinto.example.com/v1/attachments//a.txt",
            "https://kinto.example.com/v2/attachments/a.txt",
            f"{OWN}a.txt?x=/v1/attachments/b.txt",
            f"{OWN}a.txt#b.txt",
            f"{OWN}a.txt?",
            f"{OWN}a.txt#",
            f"https://x/v1/attachments/KEY?{OWN}a.txt",
            f"{CDN}a.txt?x",
            "https://cdn.example.com/other/a.txt",
            "https://cdn.example.com/files",
            # No key.
            OWN,
            CDN,
            f"{CDN}../secret",
            f"{CDN}a/../../secret",
            f"{CDN}%2e%2e/secret",
            f"{CDN}.hidden",
            f"{CDN}a//b",
            f"{CDN}a/",
            f"{CDN}a%2Fb",
            f"{CDN}a%2fb",
            f"{CDN}a%5Cb",
            f"{CDN}a\\b",
            f"{CDN}a%00b",
            f"{CDN}%FF",
            f"{OWN}../a.txt",
            f"{OWN}%2e%2e%2fa.txt",
            f"{OWN}{'a' * 300}",
            "https://[::1/v1/attachments/a",
            "",
            None,
            1,
            ["a"],
        ],
    )
    def test_of_no_other(self, location: Any) -> None:
        assert own_key(STRICT, "v1", {"location": location}) is None

    @pytest.mark.parametrize("attachment", [None, {}, "text", 1, [], [{"location": f"{CDN}a"}]])
    def test_of_what_is_no_attachment(self, attachment: Any) -> None:
        assert own_key(STRICT, "v1", attachment) is None
        assert possible_keys(STRICT, "v1", attachment) == set()

    def test_a_doubled_prefix_is_not_another_file_s(self) -> None:
        attachment = {"location": f"{OWN}v1/attachments/a.txt"}
        assert own_key(STRICT, "v1", attachment) == "v1/attachments/a.txt"

    @pytest.mark.parametrize(
        ("location", "key"),
        [
            ("http://localhost/v1/attachments/a/b.txt", "a/b.txt"),
            ("https://other.example.com:8443/v1/attachments/b.txt", "b.txt"),
            ("http://[::1]:8888/v1/attachments/b.txt", "b.txt"),
            ("http://user@localhost/v1/attachments/b.txt", None),
            ("http://x?/v1/attachments/b.txt", None),
            ("http:///v1/attachments/b.txt", None),
            ("/v1/attachments/b.txt", None),
        ],
    )
    def test_a_server_without_a_name_answers_to_any(self, location: str, key: str | None) -> None:
        assert own_key(settings(), "v1", {"location": location}) == key

    def test_relative_locations(self) -> None:
        relative = settings(base_url="")
        assert own_key(relative, "v1", {"location": "a/b.txt"}) == "a/b.txt"
        assert own_key(relative, "v1", {"location": "/a/b.txt"}) is None
        assert own_key(relative, "v1", {"location": "https://elsewhere/a.txt"}) is None


class TestPossibleKeys:
    @pytest.mark.parametrize(
        ("location", "keys"),
        [
            (f"{CDN}a/b.txt", {"a/b.txt"}),
            # Whatever the server's name was, and wherever it is mounted.
            ("http://other.example.com/v1/attachments/b.txt", {"b.txt"}),
            ("http://other.example.com/kinto/v1/attachments/b.txt", {"b.txt"}),
            ("https://elsewhere.example.com/b.txt", set()),
            ("http://x/v1/attachments/KEY?/v1/attachments/b.txt", set()),
            ("http://x/v1/attachments/../b.txt", set()),
        ],
    )
    def test_to_ask_the_index_about(self, location: str, keys: set[str]) -> None:
        assert possible_keys(STRICT, "v1", {"location": location}) == keys


class TestIsHost:
    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "localhost:8888",
            "kinto.example.com",
            "127.0.0.1:80",
            "[::1]",
            "[2001:db8::7]:8888",
            "a_b.example",
            "xn--bcher-kva.example",
            "kinto.example.com:",
            "%C3%A9.example",
        ],
    )
    def test_is_one(self, host: str) -> None:
        assert is_host(host)

    @pytest.mark.parametrize(
        "host",
        [
            "",
            ":80",
            "a b",
            "x/v1/attachments/KEY",
            "x?",
            "x#",
            "x\\y",
            "user@x",
            "x:y",
            "x:80:80",
            "x:1234567",
            "[::1",
            "::1",
            "[]",
            "[::g]",
            "[1.2.3.4]",
            "[::1]x",
            "é.example",
            "x\ny",
            "x%",
            "<x>",
            'x"',
        ],
    )
    def test_is_none(self, host: str) -> None:
        assert not is_host(host)
