from __future__ import annotations

import re

import pytest

from kinto_attachment.errors import FileNotFound, InvalidKey
from kinto_attachment.names import check_key, key_from_url, public_url
from kinto_attachment.storage.samples import HOSTILE_KEYS, UNUSUAL_KEYS


class TestCheckKey:
    @pytest.mark.parametrize("key", UNUSUAL_KEYS)
    def test_a_valid_key_is_returned(self, key: str) -> None:
        assert check_key(key) == key

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    def test_a_hostile_key_is_invalid(self, key: str) -> None:
        with pytest.raises(InvalidKey):
            check_key(key)

    def test_an_invalid_key_is_never_found(self) -> None:
        assert issubclass(InvalidKey, FileNotFound)

    def test_lengths_are_bytes_of_utf8(self) -> None:
        segment = "é" * 127 + "x"
        key = "/".join([segment] * 4)
        assert (len(segment.encode()), len(key.encode())) == (255, 1023)
        assert check_key(key) == key
        for longer in (segment + "x", f"{key}/x"):
            with pytest.raises(InvalidKey):
                check_key(longer)


class TestUrls:
    @pytest.mark.parametrize("base", ["", "https://cdn.example/files/", "/files", "https://x"])
    @pytest.mark.parametrize("key", ["a", "b/c/тест.jpg", "c++/a b&?#%2F:;=.txt", "a:b", "é" * 90])
    def test_there_and_back(self, base: str, key: str) -> None:
        url = public_url(base, key)
        assert url.startswith(base)
        assert re.fullmatch(r"[A-Za-z0-9/:.%_~-]+", url)
        assert key_from_url(base, url) == key

    def test_the_last_segment_of_the_base_is_kept(self) -> None:
        assert public_url("https://x/files", "a b/c+d") == "https://x/files/a%20b/c%2Bd"
        assert public_url("https://x/files/", "a") == "https://x/files/a"
        assert public_url("", "a/b") == "a/b"

    @pytest.mark.parametrize(
        ("base", "url"),
        [
            ("https://x/files", "https://x/filesystem/a"),
            ("https://x/files", "https://x/files"),
            ("https://x/files", "https://x/files/"),
            ("https://x/files", "https://x/files//a"),
            ("https://x/files", "https://y/files/a"),
            ("https://x/files", "https://x/files/a?b"),
            ("https://x/files", "https://x/files/a#b"),
            ("https://x/files", "https://x/files/%FF"),
            ("https://x/files", ""),
            ("", ""),
            ("", "/a"),
            ("", "https://x/a"),
        ],
    )
    def test_urls_that_are_not_ours(self, base: str, url: str) -> None:
        assert key_from_url(base, url) is None

    def test_unquoted_urls_are_read_too(self) -> None:
        assert key_from_url("https://x", "https://x/d/тест+1.jpg") == "d/тест+1.jpg"
