from __future__ import annotations

import base64
import gzip
import hashlib
import io
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser
from webob import BaseRequest

from kinto_attachment.errors import DigestMismatch, InvalidBody, TooLarge
from kinto_attachment.http.streams import (
    CHUNK_SIZE,
    BaseReader,
    ClaimedDigests,
    GzipReader,
    HashingReader,
    LimitedReader,
    Reader,
)
from kinto_attachment.wsgi.body_reader import BodyReader

CONTENT = random.Random(1).randbytes(3000)


class Stream:
    """A WSGI input that returns given chunks, and records the sizes of reads."""

    def __init__(self, *steps: bytes | Exception) -> None:
        self.steps = list(steps)
        self.asked: list[int] = []

    def read(self, size: int = -1, /) -> bytes:
        self.asked.append(size)
        step = self.steps.pop(0) if self.steps else b""
        if isinstance(step, Exception):
            raise step
        assert size < 0 or len(step) <= size
        return step


class ShortReader(BaseReader):
    """Returns ``data`` in pieces of random sizes."""

    def __init__(self, data: bytes, seed: int) -> None:
        self.source = io.BytesIO(data)
        self.random = random.Random(seed)

    def _read(self, size: int) -> bytes:
        return self.source.read(self.random.randint(1, size))


def read_in_pieces(reader: Reader, size: int) -> bytes:
    data = b""
    while piece := reader.read(size):
        assert len(piece) <= size
        data += piece
    assert reader.read(size) == b""
    return data


WRAPPERS: list[Callable[[Reader], Reader]] = [
    lambda reader: BodyReader(reader, len(CONTENT)),
    lambda reader: BodyReader(reader, None),
    HashingReader,
    lambda reader: LimitedReader(reader, 0),
    lambda reader: LimitedReader(reader, len(CONTENT)),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
class TestEveryReader:
    @pytest.mark.parametrize("size", [1, 7, 2999, 3000, 3001, CHUNK_SIZE])
    def test_gives_the_bytes_of_the_inner_one(
        self, wrap: Callable[[Reader], Reader], size: int
    ) -> None:
        assert read_in_pieces(wrap(ShortReader(CONTENT, size)), size) == CONTENT

    def test_reads_all_for_a_negative_size(self, wrap: Callable[[Reader], Reader]) -> None:
        reader = wrap(ShortReader(CONTENT, 3))
        first = reader.read(10)
        assert first + reader.read() == CONTENT
        assert reader.read(-1) == b""

    def test_nothing_asked_is_not_the_end(self, wrap: Callable[[Reader], Reader]) -> None:
        reader = wrap(io.BytesIO(CONTENT))
        assert reader.read(0) == b""
        assert reader.read() == CONTENT


class TestBodyReader:
    def test_never_asks_for_more_than_the_body(self) -> None:
        stream = Stream(b"abc", b"de")
        body = BodyReader(stream, 5)
        assert not body.finished
        assert body.read(100) == b"abc"
        assert not body.finished
        assert body.read(100) == b"de"
        assert body.finished
        assert body.read(100) == b""
        assert stream.asked == [5, 2]

    def test_an_empty_body_asks_for_nothing(self) -> None:
        stream = Stream(b"the next request")
        body = BodyReader(stream, 0)
        assert body.finished
        assert body.read() == b""
        assert stream.asked == []

    def test_of_unknown_length_is_read_to_the_end_once(self) -> None:
        stream = Stream(b"abc", b"", b"the next request")
        body = BodyReader(stream, None)
        assert body.read(100) == b"abc"
        assert not body.finished
        assert body.read(100) == b""
        assert body.finished
        assert body.read(100) == b""

    @pytest.mark.parametrize("sent", [b"", b"abcd"])
    def test_a_body_shorter_than_its_content_length(self, sent: bytes) -> None:
        body = BodyReader(io.BytesIO(sent), 5)
        message = r"^Request body is shorter than its Content-Length\.$"
        with pytest.raises(InvalidBody, match=message):
            body.read()
        with pytest.raises(InvalidBody, match=message):
            body.read(1)
        assert not body.finished

    @pytest.mark.parametrize(
        "error", [ConnectionResetError(), TimeoutError(), ValueError("x"), EOFError(), TypeError()]
    )
    def test_whatever_the_server_raises_is_the_cause(self, error: Exception) -> None:
        body = BodyReader(Stream(b"abc", error), 5)
        assert body.read(3) == b"abc"
        with pytest.raises(InvalidBody, match="cannot be read") as info:
            body.read(3)
        assert info.value.__cause__ is error

    def test_our_own_errors_pass(self) -> None:
        with pytest.raises(TooLarge):
            BodyReader(LimitedReader(io.BytesIO(CONTENT), 1), 5).read()

    def test_webob_disconnect(self) -> None:
        request = BaseRequest.blank("/", body=b"abc", headers={"Content-Length": "5"})
        with pytest.raises(InvalidBody):
            BodyReader(request.body_file, 5).read()


def gunicorn_body(*received: bytes) -> Any:
    """The ``wsgi.input`` that gunicorn makes of these packets."""
    return next(RequestParser(Config(), iter(received), ("127.0.0.1", 1))).body


class TestGunicorn:
    CHUNKED = b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    def test_chunked(self) -> None:
        stream = gunicorn_body(self.CHUNKED, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\nGET /")
        assert BodyReader(stream, None).read() == b"abcde"

    @pytest.mark.parametrize("rest", [b"3\r\nabc\r\nzz\r\n", b"5\r\nabc", b"3\r\nabc--2\r\n", b""])
    def test_bad_and_broken_chunks(self, rest: bytes) -> None:
        body = BodyReader(gunicorn_body(self.CHUNKED, rest), None)
        with pytest.raises(InvalidBody) as info:
            body.read()
        assert info.value.__cause__ is not None

    def test_disconnect(self) -> None:
        stream = gunicorn_body(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", b"abc")
        with pytest.raises(InvalidBody):
            BodyReader(stream, 5).read()


class TestFromEnviron:
    @pytest.mark.parametrize(
        ("environ", "expected"),
        [
            ({}, b""),
            ({"CONTENT_LENGTH": ""}, b""),
            ({"CONTENT_LENGTH": "0"}, b""),
            ({"CONTENT_LENGTH": " 3 "}, b"abc"),
            ({"CONTENT_LENGTH": "3", "wsgi.input_terminated": True}, b"abc"),
            ({"wsgi.input_terminated": True}, b"abcdef"),
            ({"CONTENT_LENGTH": "", "wsgi.input_terminated": True}, b"abcdef"),
            ({"wsgi.input_terminated": False}, b""),
            ({"HTTP_TRANSFER_ENCODING": "Chunked"}, b"abcdef"),
            ({"HTTP_TRANSFER_ENCODING": "gzip, chunked", "CONTENT_LENGTH": "3"}, b"abcdef"),
            ({"HTTP_TRANSFER_ENCODING": "identity", "CONTENT_LENGTH": "3"}, b"abc"),
        ],
    )
    def test_how_much_is_read(self, environ: dict[str, Any], expected: bytes) -> None:
        environ = {**environ, "wsgi.input": io.BytesIO(b"abcdef")}
        assert BodyReader.from_environ(environ).read() == expected

    @pytest.mark.parametrize("length", ["-1", "+1", "1.0", "1_0", "x", "٣", "9" * 19, "9" * 5000])
    def test_refuses_what_is_not_a_length(self, length: str) -> None:
        environ = {"CONTENT_LENGTH": length, "wsgi.input": io.BytesIO(b"abc")}
        with pytest.raises(InvalidBody, match="Content-Length"):
            BodyReader.from_environ(environ)


class TestDrain:
    def test_to_the_end(self) -> None:
        source = io.BytesIO(CONTENT + b"next")
        body = BodyReader(source, len(CONTENT))
        assert body.drain(1_000_000, 10)
        assert body.finished
        assert source.read() == b"next"
        assert body.drain(0, 0)

    def test_no_further_than_the_limit(self) -> None:
        source = io.BytesIO(CONTENT)
        clock = iter(range(10)).__next__  # The time passes without waiting.
        assert not BodyReader(source, len(CONTENT)).drain(2500, 100, clock)
        assert source.tell() == 2500

    def test_exactly_the_limit_is_enough(self) -> None:
        assert BodyReader(io.BytesIO(CONTENT), len(CONTENT)).drain(len(CONTENT), 10)

    def test_no_longer_than_the_time(self) -> None:
        source = io.BytesIO(bytes(100_000))
        ticks = iter(range(100))
        assert not BodyReader(source, 100_000).drain(100_000, 5, clock=lambda: next(ticks))
        assert source.tell() == 4 * 1024  # Ticks 1 to 4 are before the deadline.

    @pytest.mark.parametrize("steps", [[b"abc", OSError()], [b"abc"], [RuntimeError()]])
    def test_never_raises(self, steps: list[bytes | Exception]) -> None:
        assert not BodyReader(Stream(*steps), 5).drain(100, 10)


class TestHashingReader:
    def test_counts_and_hashes(self) -> None:
        reader = HashingReader(ShortReader(CONTENT, 5), ["sha512", "md5", "sha256"])
        assert reader.sha256 == hashlib.sha256().hexdigest()
        assert reader.size == 0
        reader.read(100)
        reader.read()
        assert reader.size == len(CONTENT)
        assert reader.sha256 == hashlib.sha256(CONTENT).hexdigest()
        for name in ("sha256", "sha512", "md5"):
            assert reader.digest(name) == hashlib.new(name, CONTENT).digest()

    def test_does_not_copy(self) -> None:
        stream = Stream(CONTENT)
        assert HashingReader(stream).read(5000) is CONTENT


class TestLimitedReader:
    def test_raises_as_soon_as_more_came(self) -> None:
        reader = LimitedReader(Stream(b"abc", b"de", b"f", b"never"), 5)
        assert reader.read(9) + reader.read(9) == b"abcde"
        for _ in range(2):
            message = r"^body: File size exceeds the limit of 5 bytes\.$"
            with pytest.raises(TooLarge, match=message):
                reader.read(9)

    def test_exactly_the_limit_passes(self) -> None:
        assert LimitedReader(io.BytesIO(b"abcde"), 5).read() == b"abcde"


class TestGzipReader:
    @pytest.mark.parametrize("size", [1, 10, 333, CHUNK_SIZE])
    @pytest.mark.parametrize(
        "content", [b"", b"a", CONTENT, bytes(3 * CHUNK_SIZE + 1)], ids=["0", "1", "3000", "3+"]
    )
    def test_is_gzip_and_always_the_same(self, content: bytes, size: int) -> None:
        packed = read_in_pieces(GzipReader(ShortReader(content, size)), size)
        assert gzip.decompress(packed) == content
        assert packed == GzipReader(io.BytesIO(content)).read()

    def test_says_no_time_and_no_name(self) -> None:
        header = GzipReader(io.BytesIO(b"a")).read(10)
        assert header[:4] == b"\x1f\x8b\x08\x00"
        assert header[4:8] == bytes(4)

    def test_level(self) -> None:
        text = b"some text, " * 10_000
        small, large = (len(GzipReader(io.BytesIO(text), level).read()) for level in (9, 1))
        assert small < large

    def test_memory_is_flat(self) -> None:
        noise = random.Random(2).randbytes(CHUNK_SIZE)

        class Endless(BaseReader):
            left = 24 * 1024 * 1024

            def _read(self, size: int) -> bytes:
                self.left -= min(size, self.left)
                return noise[:size] if self.left else b""

        tracemalloc.start()
        reader = GzipReader(Endless(), 1)
        total = sum(map(len, iter(lambda: reader.read(CHUNK_SIZE), b"")))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total > 20 * 1024 * 1024
        assert peak < 8 * CHUNK_SIZE


def field(algorithm: str, content: bytes) -> str:
    digest = hashlib.new(algorithm.replace("-", ""), content).digest()
    return f"{algorithm}=:{base64.b64encode(digest).decode()}:"


def read_with(claims: ClaimedDigests, content: bytes = CONTENT) -> HashingReader:
    reader = HashingReader(io.BytesIO(content), claims.algorithms)
    reader.read()
    return reader


SHA256 = field("sha-256", CONTENT)
SHA512 = field("sha-512", CONTENT)
MD5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()


class TestClaimedDigests:
    @pytest.mark.parametrize(
        ("headers", "algorithms"),
        [
            ({}, []),
            ({"Content-Type": "text/plain", "Digest": "SHA-256=x"}, []),
            ({"Content-Digest": ""}, []),
            ({"Content-Digest": SHA256}, ["sha256"]),
            ({"REPR-DIGEST": SHA512}, ["sha512"]),
            ({"content-digest": f" {SHA256} ,\t{SHA512}, "}, ["sha256", "sha512"]),
            ({"Content-Digest": SHA256, "Repr-Digest": SHA256}, ["sha256"]),
            ({"Content-Digest": f"md5=:{MD5}:"}, ["md5"]),
            ({"Content-Md5": MD5}, ["md5"]),
            ({"Content-Digest": f"unixsum=:AAA=:, {SHA256}"}, ["sha256"]),
            ({"Content-Digest": "sha=:AAAA:, *x.y-z_1=:AA==:"}, []),
            ({"Content-Digest": SHA256 + "; a=1;b"}, ["sha256"]),
            ({"Content-Digest": SHA256.rstrip("=:") + ":"}, ["sha256"]),
        ],
    )
    def test_that_match(self, headers: dict[str, str], algorithms: list[str]) -> None:
        claims = ClaimedDigests.parse(headers)
        assert list(claims.algorithms) == algorithms
        assert bool(claims) == bool(algorithms)
        claims.check(read_with(claims))

    @pytest.mark.parametrize(
        "headers",
        [
            {"Content-Digest": SHA256},
            {"Repr-Digest": SHA512},
            {"Content-MD5": MD5},
            {"Repr-Digest": SHA512, "Content-Digest": field("sha-256", CONTENT + b"x")},
            {"Content-Digest": f"{field('sha-512', b'other')}, {SHA256}"},
        ],
    )
    def test_that_do_not_match(self, headers: dict[str, str]) -> None:
        claims = ClaimedDigests.parse(headers)
        with pytest.raises(DigestMismatch, match="does not match") as info:
            claims.check(read_with(claims, CONTENT + b"x"))
        assert next(iter(headers)) in str(info.value)

    def test_one_of_two_headers_is_wrong(self) -> None:
        claims = ClaimedDigests.parse({"Content-Digest": SHA256, "Content-MD5": "A" * 22 + "=="})
        with pytest.raises(DigestMismatch, match="Content-MD5"):
            claims.check(read_with(claims))

    def test_the_example_of_rfc_9530(self) -> None:
        value = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
        claims = ClaimedDigests.parse({"Content-Digest": value})
        claims.check(read_with(claims, b'{"hello": "world"}\n'))

    @pytest.mark.parametrize(
        "headers",
        [
            {"Content-Digest": "sha-256"},
            {"Content-Digest": "sha-256=abc"},
            {"Content-Digest": SHA256[:-1]},
            {"Content-Digest": SHA256.upper()},
            {"Content-Digest": "sha-256=:AAAA:"},
            {"Content-Digest": "sha-256=::"},
            {"Content-Digest": "sha-256=:A:"},
            {"Repr-Digest": "sha-512=:=AAA:"},
            {"Repr-Digest": SHA256 + " " + SHA512},
            {"Content-MD5": ""},
            {"Content-MD5": "not base64"},
            {"Content-MD5": hashlib.md5(CONTENT).hexdigest()},
            {"Content-MD5": MD5.rstrip("=")},
            {"Content-MD5": "é"},
        ],
    )
    def test_that_are_malformed(self, headers: dict[str, str]) -> None:
        with pytest.raises(InvalidBody, match=next(iter(headers))) as info:
            ClaimedDigests.parse(headers)
        assert not isinstance(info.value, DigestMismatch)


def test_readers_stack() -> None:
    sent = HashingReader(LimitedReader(BodyReader(io.BytesIO(CONTENT), len(CONTENT)), 3000))
    stored = HashingReader(GzipReader(sent))
    packed = stored.read()
    assert sent.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert stored.sha256 == hashlib.sha256(packed).hexdigest()
    assert (sent.size, stored.size) == (len(CONTENT), len(packed))
