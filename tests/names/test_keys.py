from __future__ import annotations

import re

import pytest

from kinto_attachment.names import (
    key_from_url,
    public_url,
)


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
