"""Sample keys and contents, and helpers, for :mod:`kinto_attachment.storage.testing`."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from typing import Any

from . import CHUNK_SIZE, Reader

MIB = 1024 * 1024
MAX_READ = 8 * MIB
TIMEOUT = 120  # Seconds until a test whose threads wait for each other gives up.
BINARY = "application/octet-stream"

UNUSUAL_KEYS = [
    "тест.jpg",
    "日本語/画像 😀.png",
    "שלום.txt",
    "with spaces .txt",
    "a+b%2Fc%.txt",
    "'single' \"double\" `back`.txt",
    "?query=1&b#fragment;c,d=e@f:g*h|i<j>k~l$m!n^o(p)[q]{r}",
    "-rf",
    "dots..in...the.name.",
    "x" * 255,
    "é" * 127,
    "/".join(["s" * 99] * 9 + ["t" * 61]),
]
LOOKALIKE_KEYS = [
    *("a b", "a+b", "a%20b", "a%2520b", "a/b", "a%2Fb", "A b", "ab"),
    *(unicodedata.normalize(form, "é") for form in ("NFC", "NFD")),
]
HOSTILE_KEYS = [
    *("", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/./b", "a//b", "a/", "~/../.."),
    *(".hidden", "a/.hidden/b", "a\\b", "a\0b", "a\nb", "a\rb", "\x7f", "\ud800"),
    *("x" * 256, "é" * 128, "/".join(["s" * 99] * 11)),
]
RANGES = [
    *((0, None), (0, 1), (0, 3 * CHUNK_SIZE), (7, 7), (7, 6), (100, 200)),
    *((CHUNK_SIZE - 1, CHUNK_SIZE + 1), (3 * CHUNK_SIZE - 1, None), (3 * CHUNK_SIZE - 9, None)),
    *((100, 4 * CHUNK_SIZE), (3 * CHUNK_SIZE, None), (4 * CHUNK_SIZE, 5 * CHUNK_SIZE)),
]


class Source:
    """A reader that only has ``read``; each read first calls ``on_read`` with the position."""

    def __init__(
        self, content: bytes, step: int = MAX_READ, on_read: Callable[[int], object] = bool
    ) -> None:
        self.content = content
        self.step = step
        self.on_read = on_read
        self.position = 0

    def read(self, size: int = -1, /) -> bytes:
        assert 0 < size <= MAX_READ, "a reader is asked for no more than fits into memory"
        self.on_read(self.position)
        start, self.position = self.position, self.position + min(size, self.step)
        return self.content[start : self.position]

    @property
    def given(self) -> int:
        """The number of bytes that were read."""
        return min(self.position, len(self.content))


def contents(storage: Any, key: str) -> bytes:
    with closing(storage.open(key)) as reader:
        return read_all(reader, MIB)


def assert_contents(storage: Any, key: str, expected: bytes) -> None:
    """This avoids pytest's comparison, which takes hours for megabytes if ``CI`` is set."""
    found = contents(storage, key)
    if found != expected:
        raise AssertionError(f"{key} contains {_told(found)} instead of {_told(expected)}")


def _told(content: bytes) -> str:
    return f"{content[:20]!r}... ({len(content)} bytes, SHA-256 {sha256(content).hexdigest()})"


def read_all(reader: Reader, size: int) -> bytes:
    return b"".join(iter(lambda: reader.read(size), b""))


def keys(storage: Any, prefix: str) -> list[str]:
    return sorted(file.key for file in storage.list(prefix))


def in_threads(number: int, function: Callable[[Any], Any], arguments: Any) -> list[Any]:
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(function, arguments))


def write_many(storage: Any, folder: str, number: int) -> list[str]:
    written = [f"{folder}/{index:04}" for index in range(number)]
    in_threads(8, lambda key: storage.write(key, Source(b"x"), BINARY), written)
    return written
