from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from multipart import MultipartError

from kinto_attachment.errors import AttachmentError, InvalidBody, InvalidForm, TooLarge
from kinto_attachment.files.forms import FilePart, Form, read_form
from kinto_attachment.http.streams import (
    CHUNK_SIZE,
    BaseReader,
    ClaimedDigests,
    HashingReader,
    LimitedReader,
)
from kinto_attachment.wsgi.body_reader import BodyReader

BOUNDARY = "----WebKitFormBoundaryPfE1"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
FILE = 'name="attachment"; filename="a.txt"'
DATA = ('name="data"', b'{"a": 1}')
PERMISSIONS = ('name="permissions"', b'{"read": ["system.Everyone"]}')
CONTENT = b"some\r\n--bytes\r\n----WebKit\r" * 50
ATTACHMENT = (FILE, CONTENT)

Part = tuple[str, bytes] | tuple[str, bytes, str]


def encode(*parts: Part, preamble: bytes = b"", epilogue: bytes = b"\r\n") -> bytes:
    body = preamble
    for disposition, content, *headers in parts:
        lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data; {disposition}", *headers]
        body += "\r\n".join([*lines, "", ""]).encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--".encode() + epilogue


def opened(part: Part) -> bytes:
    """The start of a body, up to the middle of the part's content."""
    return encode(part).removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode())


def read_file(part: FilePart) -> tuple[str, bytes]:
    return part.filename, part.reader.read()


def parse(
    body: bytes,
    content_type: str = TYPE,
    on_file: Callable[[FilePart], Any] = read_file,
    **options: Any,
) -> Form[Any]:
    return read_form(BodyReader(io.BytesIO(body), len(body)), content_type, on_file, **options)


def file_part(*part: Any) -> FilePart:
    return parse(encode(part), on_file=lambda part: part).file


class TestForms:
    EXPECTED = Form(("a.txt", CONTENT), {"a": 1}, {"read": ["system.Everyone"]})

    @pytest.mark.parametrize(
        "parts",
        [
            [DATA, PERMISSIONS, ATTACHMENT],
            [ATTACHMENT, DATA, PERMISSIONS],
            [PERMISSIONS, ATTACHMENT, DATA],
        ],
    )
    def test_parts_in_any_order(self, parts: list[Part]) -> None:
        assert parse(encode(*parts)) == self.EXPECTED

    def test_the_file_alone(self) -> None:
        assert parse(encode(ATTACHMENT)) == Form(("a.txt", CONTENT), None, None)

    def test_an_empty_file(self) -> None:
        assert parse(encode((FILE, b""), DATA)) == Form(("a.txt", b""), {"a": 1}, None)

    def test_empty_objects_are_not_missing(self) -> None:
        form = parse(encode(('name="data"', b"{}"), ATTACHMENT))
        assert (form.data, form.permissions) == ({}, None)

    @pytest.mark.parametrize("chunk_size", range(1, 60))
    def test_however_the_body_is_cut(self, chunk_size: int) -> None:
        body = encode(DATA, ATTACHMENT, PERMISSIONS, preamble=b"\r\n", epilogue=b"\r\n")
        assert parse(body, chunk_size=chunk_size) == self.EXPECTED

    def test_the_library_most_python_clients_use(self) -> None:
        prepared = requests.Request(
            "POST",
            "http://x/",
            data={"data": '{"a": 1}', "permissions": '{"read": ["system.Everyone"]}'},
            files={"attachment": ("тест.txt", CONTENT, "text/plain")},
        ).prepare()
        form = parse(prepared.body, prepared.headers["Content-Type"])
        assert form == Form(("тест.txt", CONTENT), self.EXPECTED.data, self.EXPECTED.permissions)

    @pytest.mark.parametrize("epilogue", [b"", b"\r\n", b"\r\nsome old mailer's text"])
    @pytest.mark.parametrize("preamble", [b"", b"\r\n", b"some old mailer's text\r\n"])
    def test_text_around_the_form_is_passed_over(self, preamble: bytes, epilogue: bytes) -> None:
        body = encode(ATTACHMENT, DATA, preamble=preamble, epilogue=epilogue)
        for chunk_size in (len(body), 40, 1):
            assert parse(body, chunk_size=chunk_size).data == {"a": 1}

    def test_the_body_is_read_to_its_end(self) -> None:
        content = encode(ATTACHMENT, epilogue=b"\r\n" + b"x" * 1000)
        body = BodyReader(io.BytesIO(content), len(content))
        read_form(body, TYPE, read_file, chunk_size=100)
        assert body.finished


class TestFile:
    @pytest.mark.parametrize("size", [1, 10, 64, 1000])
    def test_short_reads(self, size: int) -> None:
        def read(part: FilePart) -> bytes:
            pieces = list(iter(lambda: part.reader.read(size), b""))
            assert max(map(len, pieces)) <= size
            assert part.reader.read(size) == part.reader.read() == b""
            return b"".join(pieces)

        body = encode(ATTACHMENT, DATA)
        for chunk_size in (7, 100, 100_000):
            assert parse(body, on_file=read, chunk_size=chunk_size).file == CONTENT

    def test_is_consumed_where_it_stands(self) -> None:
        """The bytes are available before the rest of the body has been sent."""
        body = encode((FILE, bytes(1000)), DATA)
        read = 0

        class Slow(BaseReader):
            def _read(self, size: int) -> bytes:
                nonlocal read
                read += 100
                return body[read - 100 : read]

        def on_file(part: FilePart) -> int:
            assert part.reader.read(10) == bytes(10)
            return read

        assert 0 < read_form(Slow(), TYPE, on_file).file <= 300
        assert read > len(body)

    @pytest.mark.parametrize("size", [0, 1, 100])
    def test_what_is_left_unread_does_no_harm(self, size: int) -> None:
        def read_some(part: FilePart) -> bytes:
            return part.reader.read(size)

        form = parse(encode(ATTACHMENT, DATA), on_file=read_some, chunk_size=64)
        assert form.data == {"a": 1}

    def test_chunks_of_the_body_are_not_copied(self) -> None:
        chunks = [opened((FILE, b"")), bytes(100_000), bytes(100_000)]
        given: list[bytes] = []

        class Chunks(BaseReader):
            left = [*chunks, f"\r\n--{BOUNDARY}--".encode()]

            def _read(self, size: int) -> bytes:
                return self.left.pop(0) if self.left else b""

        def on_file(part: FilePart) -> None:
            given.extend(iter(lambda: part.reader.read(100_000), b""))

        read_form(Chunks(), TYPE, on_file)
        assert [id(chunk) for chunk in given] == [id(chunk) for chunk in chunks[1:]]

    def test_memory_is_flat(self) -> None:
        start, end = opened((FILE, b"")), f"\r\n--{BOUNDARY}--".encode()

        class Large(BaseReader):
            pieces = itertools.chain([start], itertools.repeat(CHUNK_SIZE, 256), [end, b""])

            def _read(self, size: int) -> bytes:
                piece = next(self.pieces)
                return piece if isinstance(piece, bytes) else bytes(piece)

        def on_file(part: FilePart) -> int:
            return sum(map(len, iter(lambda: part.reader.read(CHUNK_SIZE), b"")))

        tracemalloc.start()
        size = read_form(Large(), TYPE, on_file).file
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert size == 256 * CHUNK_SIZE
        assert peak < 4 * CHUNK_SIZE

    @pytest.mark.parametrize(
        ("disposition", "filename"),
        [
            ('name="attachment"; filename="a b.txt"', "a b.txt"),
            ('filename="a.txt"; name="attachment"', "a.txt"),
            ("name=attachment; filename=a.txt", "a.txt"),
            ('name="attachment"; filename="../../etc/passwd"', "../../etc/passwd"),
            ('name="attachment"; filename="quote%22d.txt"', 'quote"d.txt'),
            ('name="attachment"; filename="nul\0.txt"', "nul\0.txt"),
            ('name="attachment"; filename="тест 🎉.jpg"', "тест 🎉.jpg"),
            ('name="attachment"; filename="x%0D%0AX-Evil: 1"', "x\r\nX-Evil: 1"),
            ("name=\"attachment\"; filename*=UTF-8''%D1%82.txt", "т.txt"),
            ('name="attachment"; filename="=?x?="; filename*=utf-8\'\'%D1%82.txt', "т.txt"),
        ],
    )
    def test_the_filename_as_it_was_sent(self, disposition: str, filename: str) -> None:
        assert file_part(disposition, b"").filename == filename

    def test_type_and_headers(self) -> None:
        part = file_part(FILE, b"", "content-TYPE: text/plain; charset=utf-8\r\nX-A: 1\r\nx-a: 2")
        assert part.content_type == "text/plain; charset=utf-8"
        assert part.headers["x-a"] == "1, 2"
        assert file_part(FILE, b"").content_type is None

    @pytest.mark.parametrize("end", ["", " \t"])
    def test_claimed_digests_of_the_file(self, end: str) -> None:
        def on_file(part: FilePart) -> None:
            claims = ClaimedDigests.parse(part.headers)
            assert claims.algorithms == ("md5",)
            file = HashingReader(part.reader, claims.algorithms)
            file.read()
            claims.check(file)

        claim = f"Content-MD5: kAFQmDzST7DWlj99KOF/cg=={end}"
        parse(encode((FILE, b"abc", claim)), on_file=on_file)
        with pytest.raises(InvalidBody):
            parse(encode((FILE, b"abd", claim)), on_file=on_file)

    def test_its_own_length_is_checked(self) -> None:
        parse(encode((FILE, b"abc", "Content-Length: 3")))
        for length in ("2", "4", "x"):
            with pytest.raises(InvalidBody):
                parse(encode((FILE, b"abc", f"Content-Length: {length}")))

    @pytest.mark.parametrize("encoding", ["binary", "8bit", "7BIT"])
    def test_harmless_transfer_encodings(self, encoding: str) -> None:
        header = f"Content-Transfer-Encoding: {encoding}"
        assert parse(encode((FILE, b"abc", header))).file[1] == b"abc"


class TestErrorsOfTheCaller:
    def test_pass_as_they_are(self) -> None:
        def on_file(part: FilePart) -> None:
            LimitedReader(part.reader, 10).read()

        with pytest.raises(TooLarge, match="limit of 10 bytes"):
            parse(encode(ATTACHMENT), on_file=on_file)

    def test_a_file_that_broke_never_looks_whole(self) -> None:
        def on_file(part: FilePart) -> bytes:
            with pytest.raises(InvalidBody):
                part.reader.read()
            return part.reader.read()

        with pytest.raises(InvalidBody):
            parse(encode(ATTACHMENT)[:500], on_file=on_file)


class TestRefusals:
    @pytest.mark.parametrize(
        "content_type",
        [
            "",
            "application/json",
            "multipart/mixed; boundary=x",
            "multipart/form-data",
            "multipart/form-data; boundary",
            "multipart/form-data; boundary=",
            'multipart/form-data; boundary=""',
            'multipart/form-data; boundary="x',
            "multipart/form-data; boundary=a b",
            "multipart/form-data; boundary=é",
            "multipart/form-data; boundary=" + "x" * 201,
            "multipart/form-data; xboundary=x",
        ],
    )
    def test_content_types(self, content_type: str) -> None:
        with pytest.raises(InvalidBody, match=r"^Content-Type should be multipart/form-data"):
            parse(encode(ATTACHMENT), content_type)

    @pytest.mark.parametrize(
        "content_type",
        [
            f'Multipart/Form-Data; charset=utf-8; Boundary="{BOUNDARY}"',
            f"multipart/form-data;boundary={BOUNDARY} ; charset=utf-8",
        ],
    )
    def test_but_not_these_content_types(self, content_type: str) -> None:
        assert parse(encode(ATTACHMENT), content_type).file[0] == "a.txt"

    def test_boundaries_that_clients_forget_to_quote(self) -> None:
        body = encode(ATTACHMENT).replace(BOUNDARY.encode(), b"----=_Part_1:(2)")
        assert parse(body, "multipart/form-data; boundary=----=_Part_1:(2)").file[1]

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ([DATA], "Attachment missing."),
            ([], "Attachment missing."),
            ([ATTACHMENT, ATTACHMENT], "body: 'attachment' field should be sent only once."),
            ([DATA, DATA, ATTACHMENT], "body: 'data' field should be sent only once."),
            (
                [ATTACHMENT, PERMISSIONS, PERMISSIONS],
                "body: 'permissions' field should be sent only once.",
            ),
            ([('name="attachment"', b"x")], "body: Filename is required."),
            ([('name="attachment"; filename=""', b"x")], "body: Filename is required."),
            ([("name=\"attachment\"; filename*=UTF-8''", b"x")], "body: Filename is required."),
            ([('name="x"', b"y")], "body: 'x' not in ('data', 'permissions')"),
            (
                [('name="x"; filename="y"', b"")],
                "body: the file should be in the field 'attachment', not 'x'",
            ),
            ([('name="Data"', b"{}")], "body: 'Data' not in ('data', 'permissions')"),
            ([('name="\0\x1b"', b"y")], r"body: '\x00\x1b' not in ('data', 'permissions')"),
            ([('filename="a.txt"', b"x")], "body: A form field has no name."),
            ([('name=""', b"x")], "body: A form field has no name."),
            (
                [('name="data"; filename="data.json"', b"{}")],
                "body: 'data' field should be passed as form data, not files",
            ),
            (
                [('name="permissions"; filename=""', b"{}")],
                "body: 'permissions' field should be passed as form data, not files",
            ),
            (
                [(FILE, b"YWJj", "Content-Transfer-Encoding: base64")],
                "body: 'attachment' field has a Content-Transfer-Encoding.",
            ),
        ],
    )
    def test_forms(self, parts: list[Part], message: str) -> None:
        with pytest.raises(InvalidForm) as info:
            parse(encode(*parts))
        assert str(info.value) == message

    @pytest.mark.parametrize("name", ["data", "permissions"])
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (b"", "is not valid JSON ("),
            (b"{", "is not valid JSON ("),
            (b"{'a': 1}", "is not valid JSON ("),
            (b'{"a": NaN}', "is not valid JSON ("),
            (b'{"a": -Infinity}', "is not valid JSON ("),
            (b'{"a": 1e999}', "is not valid JSON ("),
            (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON ("),
            (b'{"a": "\\ud800"}', "is not valid JSON ("),
            (b'{"a": "\x00"}', "is not valid JSON ("),
            (b'{"a": "\xe9"}', "is not valid JSON (not UTF-8)"),
            ('{"a": 1}'.encode("utf-16"), "is not valid JSON (not UTF-8)"),
            (b"[" * 500_000, "is not valid JSON ("),
            (b'{"a":' * 200_000, "is not valid JSON ("),
            (b"null", "is not a JSON object"),
            (b"[]", "is not a JSON object"),
            (b"42", "is not a JSON object"),
            (b'"text"', "is not a JSON object"),
            (b"true", "is not a JSON object"),
            (b'{"a": ["\\u0000"]}', "has an invalid character 0x00"),
            (b'{"a":' * 101 + b"1" + b"}" * 101, "is nested more than 100 levels deep"),
            (b'{"a":' + b"[" * 700 + b"]" * 700 + b"}", "is nested more than 100 levels deep"),
        ],
    )
    def test_json_fields(self, name: str, text: bytes, problem: str) -> None:
        for parts in (
            [(f'name="{name}"', text), ATTACHMENT],
            [ATTACHMENT, (f'name="{name}"', text)],
        ):
            with pytest.raises(InvalidForm) as info:
                parse(encode(*parts))
            assert str(info.value).startswith(f"body: {name} {problem}")

    def test_but_not_these_json_fields(self) -> None:
        deep = b'{"a":' * 99 + b"{}" + b"}" * 99
        assert parse(encode(('name="data"', deep), ATTACHMENT)).data
        broad = json.dumps({"[" * 200: ["{[" * 200, *range(1000)]}).encode()
        assert parse(encode(('name="data"', broad), ATTACHMENT)).data
        odd = '{"a": "é\\ud83c\\udf89", "a": 2}'.encode()
        assert parse(encode(('name="data"', odd), ATTACHMENT)).data == {"a": 2}

    def test_are_raised_before_the_file_is_asked_for(self) -> None:
        def on_file(part: FilePart) -> None:
            raise AssertionError("not to be called")

        for part in (("name=x", b""), ('name="data"', b"[]"), ('name="attachment"', b"x")):
            with pytest.raises(InvalidForm):
                parse(encode(part, ATTACHMENT), on_file=on_file)


class TestMalformedBodies:
    def test_every_truncation(self) -> None:
        body = encode(DATA, (FILE, b"abc\r\n-"), PERMISSIONS, epilogue=b"")
        for length in range(len(body)):
            for declared in (len(body), None):
                with pytest.raises(InvalidBody) as info:
                    read_form(BodyReader(io.BytesIO(body[:length]), declared), TYPE, read_file)
                assert declared or isinstance(info.value.__cause__, MultipartError)
        assert parse(body).file == ("a.txt", b"abc\r\n-")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"no form at all",
            encode(ATTACHMENT).replace(b"\r\n", b"\n"),
            encode(ATTACHMENT).replace(BOUNDARY.encode(), b"another"),
            encode(ATTACHMENT).replace(b"form-data", b"attachment"),
            encode(ATTACHMENT).replace(b"Content-Disposition", b"X-Other"),
            encode(ATTACHMENT).replace(b"Content-Disposition:", b"Content-Disposition"),
            encode(ATTACHMENT).replace(b"a.txt", b"\xe9.txt"),
            encode(("name=\"attachment\"; filename*=UTF-8''%zz", b"")),
        ],
    )
    def test_are_bad_requests_with_their_cause(self, body: bytes) -> None:
        with pytest.raises(InvalidBody) as info:
            parse(body)
        assert str(info.value)
        assert info.value.status == 400

    def test_the_cause_is_kept(self) -> None:
        with pytest.raises(InvalidBody) as info:
            parse(b"no form at all")
        assert isinstance(info.value.__cause__, MultipartError)


def endless(*start: bytes) -> Iterator[bytes]:
    yield from start
    while True:
        yield b"x" * 100_000


class TestLimits:
    """Each body is endless: without a limit, the test does not end."""

    def refuse(self, *start: bytes) -> AttachmentError:
        pieces = endless(*start)
        read = 0

        class Endless(BaseReader):
            def _read(self, size: int) -> bytes:
                nonlocal read
                piece = next(pieces)
                read += len(piece)
                assert read < 3_000_000
                return piece

        with pytest.raises(AttachmentError) as info:
            read_form(Endless(), TYPE, read_file)
        return info.value

    def test_preamble(self) -> None:
        assert isinstance(self.refuse(), InvalidBody)

    def test_epilogue(self) -> None:
        error = self.refuse(encode(ATTACHMENT))
        assert isinstance(error, InvalidBody)
        assert "outside the form's parts" in str(error)

    def test_text_field(self) -> None:
        error = self.refuse(opened(('name="data"', b'{"a": "')))
        assert isinstance(error, TooLarge)
        assert str(error) == "body: 'data' field exceeds the limit of 1048576 bytes."

    def test_header(self) -> None:
        start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="attachment"; filename="'
        error = self.refuse(start.encode())
        assert isinstance(error, TooLarge)
        assert "header" in str(error)

    def test_filename_of_10_000_characters(self) -> None:
        with pytest.raises(TooLarge, match="header length"):
            parse(encode((f'name="attachment"; filename="{"x" * 10_000}"', b"")))

    def test_number_of_headers(self) -> None:
        parse(encode((FILE, b"", "\r\n".join(f"X-{n}: 1" for n in range(15)))))
        with pytest.raises(TooLarge, match="header count"):
            parse(encode((FILE, b"", "\r\n".join(f"X-{n}: 1" for n in range(16)))))

    def test_text_field_of_exactly_the_limit(self) -> None:
        text = b'{"a": "' + b"x" * (1024 * 1024 - 9) + b'"}'
        assert len(text) == 1024 * 1024
        assert parse(encode(('name="data"', text), ATTACHMENT)).data
        with pytest.raises(TooLarge):
            parse(encode(('name="data"', text + b" "), ATTACHMENT))
