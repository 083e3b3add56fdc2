from __future__ import annotations

import re

import pytest
from werkzeug.http import parse_options_header

from kinto_attachment.errors import InvalidBody
from kinto_attachment.names import (
    content_disposition,
    disposition_filename,
    printable,
    shortened,
)
from tests.support.filenames import HOSTILE


class TestContentDisposition:
    @pytest.mark.parametrize(
        ("filename", "header"),
        [
            ("a b.txt", 'attachment; filename="a b.txt"'),
            ("", "attachment"),
            ("\r\n\0", "attachment"),
            ("café.txt", "attachment; filename=\"cafe.txt\"; filename*=UTF-8''caf%C3%A9.txt"),
            ('a"b\\', "attachment; filename=\"a_b_\"; filename*=UTF-8''a%22b%5C"),
            ("50%.txt", "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt"),
        ],
    )
    def test_examples(self, filename: str, header: str) -> None:
        assert content_disposition(filename) == header

    def test_kinds(self) -> None:
        assert content_disposition("a", "inline") == 'inline; filename="a"'
        with pytest.raises(ValueError, match="form-data"):
            content_disposition("a", "form-data")

    @pytest.mark.parametrize("filename", HOSTILE)
    def test_says_the_name_and_nothing_else(self, filename: str) -> None:
        header = content_disposition(filename)
        assert re.fullmatch(r"[ -~]+", header)
        assert len(header) < 1200
        expected = shortened(printable(filename))
        # Our own parser and another one read it back.
        assert (disposition_filename(header) or "") == expected
        kind, parameters = parse_options_header(header)
        assert kind == "attachment"
        assert set(parameters) <= {"filename"}
        assert parameters.get("filename", "") == expected

    @pytest.mark.parametrize("character", "x 'é\ufdfa㏒%;\u202e")
    def test_is_short_whatever_the_name(self, character: str) -> None:
        assert len(content_disposition(character * 1000 + ".txt")) < 1200
        assert "%E2%80%AE" not in content_disposition(f"{character}é.txt")


class TestDispositionFilename:
    @pytest.mark.parametrize(
        ("header", "filename"),
        [
            ("attachment", None),
            ("attachment; size=3", None),
            ("attachment; filename=a.txt", "a.txt"),
            ('attachment;FileName="a;b, c.txt" ; x=y', "a;b, c.txt"),
            (r'attachment; filename="a\"b\\c"', 'a"b\\c'),
            (r'attachment; filename="C:\dir\b.txt"', r"C:\dir\b.txt"),
            ('attachment; filename=""', ""),
            ("inline; filename=a.txt;", "a.txt"),
            ("attachment; filename=\"x\"; filename*=UTF-8''%D1%82.txt", "т.txt"),
            ("attachment; filename*=utf-8'ru'%d1%82; filename=x", "т"),
            ("attachment; filename*=ISO-8859-1''%E9.txt", "é.txt"),
            ('attachment; filename="тест à.jpg"'.encode().decode("latin-1"), "тест à.jpg"),
            ("attachment; filename=à.jpg".encode().decode("latin-1"), "à.jpg"),
            ('attachment; filename="\xe9.txt"', "é.txt"),
            ('attachment; filename="тест.jpg"', "тест.jpg"),
            ('attachment; filename="a%20b"', "a%20b"),
        ],
    )
    def test_examples(self, header: str, filename: str | None) -> None:
        assert disposition_filename(header) == filename

    @pytest.mark.parametrize(
        "header",
        [
            "",
            ";",
            "filename=a.txt",
            "attachment filename=a",
            "attachment; filename",
            "attachment; filename=",
            'attachment; filename="open',
            'attachment; filename="a"b',
            "attachment; filename=a b",
            "attachment; filename=a; filename=b",
            "attachment; filename*=a.txt",
            "attachment; filename*=utf-16''a",
            "attachment; filename*=UTF-8''%D1",
            "attachment; filename*=UTF-8''%zz",
            "attachment; filename*=UTF-8''a b",
            "attachment; filename*=\"UTF-8''a\"",
        ],
    )
    def test_refuses_what_is_malformed(self, header: str) -> None:
        with pytest.raises(InvalidBody, match="Content-Disposition"):
            disposition_filename(header)
