from __future__ import annotations

import re
import unicodedata
from itertools import islice
from uuid import UUID

import pytest
from werkzeug.http import parse_options_header

from kinto_attachment.errors import InvalidBody, InvalidForm
from kinto_attachment.names import (
    Pattern,
    clean_filename,
    content_disposition,
    disposition_filename,
    extension,
    key_from_url,
    mimetype,
    numbered,
    printable,
    public_url,
    random_name,
    safe_name,
    shortened,
)
from kinto_attachment.storage import check_key

HEBREW = "מסמך סופי.pdf"
EMOJI = "🎉 party 👩‍👩‍👧.png"
HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "....txt",
    ".htaccess",
    "-rf.txt",
    "-.-.-.x",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\dir\\b.txt",
    "\\\\host\\share\\b.txt",
    "a/b/",
    "nul\0.txt",
    "a\r\nSet-Cookie: x=y.txt",
    "tab\there.txt",
    "x\ud800y.txt",
    "\u202egnp.exe",
    "zero\u200bwidth\ufeff.txt",
    'quote".txt',
    "back\\slash",
    "$(reboot).sh",
    "`id`;|&<>*?[]{}!#~'.txt",
    "per%2Fcent%00.txt",
    "a?b#c.txt",
    "\u0301.txt",
    "❤️.png",
    EMOJI,
    HEBREW,
    "тест.jpg",
    "हिन्दी.txt",
    "e\u0301\u200d\u0301.txt",
    "x" * 10_000,
    "x" * 10_000 + ".txt",
    "é" * 300 + ".tar.gz",
    "🎉" * 300 + ".png",
    "a." + "b" * 300,
    "a." + "İ" * 15,
    "\u0958" * 300 + ".txt",
]


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
            ("application/octet-stream", "application/octet-stream"),
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
        # Read back by us, and by a parser that is not ours.
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


class TestPattern:
    FIELDS = frozenset({"bucket_id", "collection_id"})

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", ""),
            ("plain", "plain"),
            ("{bucket_id}/{collection_id}", "b/{c}"),
            ("{{x}}-{bucket_id}{bucket_id}", "{x}-bb"),
        ],
    )
    def test_puts_values_in_as_they_are(self, text: str, expected: str) -> None:
        pattern = Pattern.parse(text, self.FIELDS)
        assert pattern.format(bucket_id="b", collection_id="{c}") == expected

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("{bucket}", "{bucket}"),
            ("{}", "{}"),
            ("{0}", "{0}"),
            ("{ bucket_id }", "{ bucket_id }"),
            ("{bucket_id.__class__}", "{bucket_id.__class__}"),
            ("{bucket_id[0]}", "{bucket_id[0]}"),
            ("{bucket_id!r}", "{bucket_id}"),
            ("{bucket_id:>10}", "{bucket_id}"),
        ],
    )
    def test_names_a_placeholder_it_does_not_know(self, text: str, named: str) -> None:
        with pytest.raises(ValueError, match=re.escape(f"unknown placeholder {named} in")) as info:
            Pattern.parse(text, self.FIELDS)
        assert "known: {bucket_id}, {collection_id}" in str(info.value)

    @pytest.mark.parametrize("text", ["{", "}", "{bucket_id", "a}b", "{bucket_id!}", "{a{b}"])
    def test_refuses_a_brace_without_its_other_half(self, text: str) -> None:
        with pytest.raises(ValueError, match=re.escape(repr(text))):
            Pattern.parse(text, self.FIELDS)
