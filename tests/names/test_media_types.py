from __future__ import annotations

import pytest

from kinto_attachment.names import (
    mimetype,
)


class TestMimetype:
    def test_the_setting_wins(self) -> None:
        assert mimetype("A.TXT", "image/png", {".txt": "text/x-ours"}) == "text/x-ours"
        assert mimetype("a", "image/png", {".txt": "text/x-ours"}) == "image/png"

    @pytest.mark.parametrize(
        ("declared", "expected"),
        [
            ("text/plain", "text/plain"),
            ("Text/HTML", "text/html"),
            ("text/plain; charset=UTF-8", "text/plain; charset=UTF-8"),
            ('text/plain;charset="utf-8" ;x=y;', 'text/plain; charset="utf-8"; x=y'),
            (r'text/plain; a="x\"; y"', r'text/plain; a="x\"; y"'),
            ("application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
            ("application/octet-stream", "application/json"),
            (" image/svg+xml ", "image/svg+xml"),
            ("text/plain; charset", "text/plain"),
            ('text/plain; a="open', "text/plain"),
            ("text/plain; a=b\r\nX-Evil: 1", "text/plain"),
            ('text/plain; a="é"', "text/plain"),
        ],
    )
    def test_then_what_the_client_declares(self, declared: str, expected: str) -> None:
        assert mimetype("a.json", declared, {}) == expected

    @pytest.mark.parametrize(
        "declared",
        [
            None,
            "",
            " ",
            "text",
            "/",
            "text/",
            "/plain",
            "*/*",
            "text/*",
            "text/plain text/html",
            "text/plain\r\nX-Evil: 1",
            "text/\0plain",
            "tëxt/plain",
            "text/" + "x" * 300,
        ],
    )
    def test_then_a_guess(self, declared: str | None) -> None:
        assert mimetype("a.JSON", declared, {}) == "application/json"

    @pytest.mark.parametrize(
        ("filename", "expected"),
        [
            ("a.tar.gz", "application/gzip"),
            ("a.json.bz2", "application/x-bzip2"),
            ("a.xz", "application/x-xz"),
            ("a.txt.Z", "application/x-compress"),
            ("data:text/html,<script>", "application/octet-stream"),
            ("a.unheardof", "application/octet-stream"),
            ("README", "application/octet-stream"),
            ("dir.json/README", "application/octet-stream"),
        ],
    )
    def test_guesses_the_type_of_the_bytes(self, filename: str, expected: str) -> None:
        assert mimetype(filename, None, {}) == expected
