from __future__ import annotations

import re
import unicodedata
from itertools import islice
from uuid import UUID

import pytest

from kinto_attachment.errors import InvalidForm
from kinto_attachment.names import (
    clean_filename,
    extension,
    numbered,
    random_name,
    safe_name,
    shortened,
)
from kinto_attachment.storage import check_key
from tests.support.filenames import EMOJI, HEBREW, HOSTILE


class TestCleanFilename:
    @pytest.mark.parametrize(
        ("raw", "cleaned"),
        [
            ("a.txt", "a.txt"),
            ("  my file.txt ", "my file.txt"),
            ("C:\\dir\\b.txt", "b.txt"),
            ("../../etc/passwd", "passwd"),
            ("mixed\\and/slashed.txt", "slashed.txt"),
            (".hidden", ".hidden"),
            (HEBREW, HEBREW),
            (EMOJI, EMOJI),
            ("e\u0301.txt", "e\u0301.txt"),
            ("\u202egnp.exe", "gnp.exe"),
            ("a\u2066b\u2069.t\u202ax\u202ct", "ab.txt"),
            ("\u202d.hidden", ".hidden"),
            ("a/\u202eb.txt\u202c", "b.txt"),
            ("\u200fשלום\u200e.txt", "\u200fשלום\u200e.txt"),
        ],
    )
    def test_keeps_the_name_and_drops_the_path(self, raw: str, cleaned: str) -> None:
        assert clean_filename(raw) == cleaned

    @pytest.mark.parametrize(
        "raw", ["", " ", ".", "..", "a/", "a\\", "a/..", "/ . ", "\u202e", "\u2066.\u2069."]
    )
    def test_requires_a_name(self, raw: str) -> None:
        with pytest.raises(InvalidForm, match=r"^body: Filename is required\.$"):
            clean_filename(raw)

    @pytest.mark.parametrize(
        "raw", ["a\0.txt", "a\n", "\ta", "a\x7f", "a\x85", "a\x9f", "\ud800", "x\0/a.txt"]
    )
    def test_refuses_control_characters_and_lone_surrogates(self, raw: str) -> None:
        with pytest.raises(InvalidForm, match=r"^body: Filename has control characters\.$"):
            clean_filename(raw)

    def test_limits_the_length_in_bytes(self) -> None:
        assert clean_filename("é" * 127 + "x") == "é" * 127 + "x"
        assert clean_filename("d" * 5000 + "/" + "x" * 255) == "x" * 255
        assert clean_filename("x" * 255 + "\u202e" * 100) == "x" * 255
        for raw in ("é" * 128, "x" * 256, "x" * 10_000):
            with pytest.raises(InvalidForm, match=r"^body: Filename is longer than 255 bytes\.$"):
                clean_filename(raw)


class TestFitting:
    @pytest.mark.parametrize(
        ("name", "suffix", "fitted"),
        [
            ("a.txt", "", "a.txt"),
            ("a.txt", ".gz", "a.txt.gz"),
            ("x" * 251 + ".txt", "", "x" * 251 + ".txt"),
            ("x" * 251 + ".txt", ".gz", "x" * 248 + ".txt.gz"),
            ("x" * 1000 + ".txt", "", "x" * 251 + ".txt"),
            ("é" * 500 + ".txt", "", "é" * 125 + ".txt"),
            ("a." + "x" * 300, ".gz", "a." + "x" * 250 + ".gz"),
            ("é" * 127, ".gz", "é" * 126 + ".gz"),
            (".hidden", ".gz", ".hidden.gz"),
        ],
    )
    def test_keeps_the_extension(self, name: str, suffix: str, fitted: str) -> None:
        assert shortened(name, suffix) == fitted
        assert len(fitted.encode()) <= 255


class TestSafeName:
    @pytest.mark.parametrize(
        ("filename", "safe"),
        [
            ("тест.jpg", "тест.jpg"),
            ("C:\\dir\\b.txt", "b.txt"),
            ("my file.txt", "my_file.txt"),
            ("my\t\n file.txt", "my_file.txt"),
            ("a\tb.txt", "a_b.txt"),
            ("a&b.txt", "a_b.txt"),
            ("zero\u200bwidth.txt", "zerowidth.txt"),
            ("report (1).PDF", "report_1.PDF"),
            ("c++-1_2.tar.gz", "c++-1_2.tar.gz"),
            ("__init__.py", "__init__.py"),
            ("e\u0301.txt", "é.txt"),
            ("हिन्दी.txt", "हिन्दी.txt"),
            ("🎉.png", "file.png"),
            ("❤️.png", "file.png"),
            (".htaccess", "htaccess"),
            ("-rf", "rf"),
            ("...", "file"),
            ("", "file"),
            ("name.", "name"),
            ("a..txt", "a.txt"),
            ("a?\u0301b.txt", "a_b.txt"),
            ("\u202egnp.exe", "gnp.exe"),
            ("$(reboot).sh", "reboot.sh"),
        ],
    )
    def test_examples(self, filename: str, safe: str) -> None:
        assert safe_name(filename) == safe

    @pytest.mark.parametrize("filename", HOSTILE)
    def test_is_harmless_everywhere(self, filename: str) -> None:
        safe = safe_name(filename)
        assert check_key(safe) == safe
        assert "/" not in safe
        assert 0 < len(safe.encode()) <= 200
        assert safe[0] not in ".-"
        assert unicodedata.is_normalized("NFC", safe)
        assert {unicodedata.category(c)[0] for c in safe if c not in "._-+"} <= set("LMN")

    @pytest.mark.parametrize("filename", HOSTILE)
    def test_of_a_safe_name_is_itself(self, filename: str) -> None:
        assert safe_name(safe_name(filename)) == safe_name(filename)

    def test_every_character_of_the_first_plane_is_harmless(self) -> None:
        for code in range(0x10000):
            safe = safe_name(f"{chr(code)}{chr(code)}a{chr(code)}.t{chr(code)}t")
            assert re.fullmatch(r"[^\s/\\\"'`$;&|<>*?!#%~(){}\[\]\x00-\x1f\x7f-\x9f]+", safe), code
            assert check_key(safe)

    def test_keeps_the_extension_of_a_long_name(self) -> None:
        assert safe_name("x" * 300 + ".txt") == "x" * 196 + ".txt"
        assert safe_name("é" * 300 + ".jpg") == "é" * 98 + ".jpg"

    def test_a_very_long_extension_is_none(self) -> None:
        assert extension(safe_name("a." + "b" * 300)) == ""


class TestRandomName:
    def test_is_a_uuid4_and_the_extension(self) -> None:
        name = random_name("Photo.JPG")
        assert UUID(name.removesuffix(".jpg")).version == 4
        assert name.endswith(".jpg")
        assert random_name("Photo.JPG") != name

    @pytest.mark.parametrize("filename", HOSTILE)
    def test_is_short_whatever_the_name(self, filename: str) -> None:
        name = random_name(filename)
        assert check_key(name) == name
        assert len(name.encode()) <= 36 + 1 + 48

    def test_without_an_extension(self) -> None:
        assert len(random_name("README")) == 36


def test_numbered_counts_before_the_extension_and_ends() -> None:
    assert list(islice(numbered("a.b.txt"), 3)) == ["a.b.txt", "a.b-1.txt", "a.b-2.txt"]
    assert list(islice(numbered("name"), 2)) == ["name", "name-1"]
    assert len(set(numbered("a.txt"))) == 10_000
    assert all(check_key(name) for name in numbered(safe_name("x" * 500 + ".txt")))


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("a.TXT", "txt"),
        ("a.tar.gz", "gz"),
        ("a", ""),
        ("a.", ""),
        (".bashrc", ""),
        ("a.b/c", ""),
        ("C:\\x.y\\z.ДОК ", "док"),
    ],
)
def test_extension(filename: str, expected: str) -> None:
    assert extension(filename) == expected
