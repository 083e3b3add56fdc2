"""The tests of ``write``."""

from __future__ import annotations

import gzip
import os
import threading
from contextlib import closing
from hashlib import sha256
from typing import Any

import pytest

from kinto_attachment.errors import KeyTaken, TooLarge
from kinto_attachment.storage import CHUNK_SIZE
from kinto_attachment.storage.samples import (
    BINARY,
    MIB,
    TIMEOUT,
    Source,
    assert_contents,
    in_threads,
)

from .base import StorageTests


class WritingTests(StorageTests):
    """Files are stored completely or not at all, and never overwritten."""

    @pytest.mark.parametrize(
        "size",
        [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE, 8 * MIB, 8 * MIB + 1],
    )
    def test_what_is_written_is_read_back(self, storage: Any, folder: str, size: int) -> None:
        content = os.urandom(size)
        written = storage.write(f"{folder}/a.bin", Source(content), BINARY)
        assert (written.key, written.size) == (f"{folder}/a.bin", size)
        assert storage.stat(written.key).size == size
        assert storage.exists(written.key)
        assert_contents(storage, written.key, content)

    def test_memory_does_not_grow_with_the_file(self, storage: Any, folder: str) -> None:
        content = os.urandom(20 * MIB)
        storage.write(f"{folder}/a", Source(content), BINARY)  # Source checks the sizes of reads.
        with closing(storage.open(f"{folder}/a")) as reader:
            pieces = list(iter(lambda: reader.read(MIB), b""))
            assert reader.read(MIB) == b"", "the end stays the end"
        assert max(map(len, pieces)) <= MIB
        assert sha256(b"".join(pieces)).digest() == sha256(content).digest()

    def test_a_short_read_is_not_the_end(self, storage: Any, folder: str) -> None:
        content = os.urandom(100_000)
        storage.write(f"{folder}/a", Source(content, step=777), BINARY)
        assert_contents(storage, f"{folder}/a", content)

    @pytest.mark.parametrize("position", [0, CHUNK_SIZE, 17 * MIB])
    @pytest.mark.parametrize("error", [ConnectionResetError("gone"), TooLarge()])
    def test_a_failing_reader_leaves_nothing(
        self, storage: Any, folder: str, position: int, error: Exception
    ) -> None:
        def fail(reached: int) -> None:
            if reached >= position:
                raise error

        with pytest.raises(type(error)) as caught:
            storage.write(f"{folder}/a", Source(bytes(18 * MIB), on_read=fail), BINARY)
        assert caught.value is error, "what the reader raises is not the storage's to change"
        self.assert_absent(storage, f"{folder}/a")
        storage.write(f"{folder}/a", Source(b"retry"), BINARY)
        assert_contents(storage, f"{folder}/a", b"retry")

    def test_a_file_appears_whole(self, storage: Any, folder: str) -> None:
        def look(position: int) -> None:
            if position >= 9 * MIB:
                assert not storage.exists(f"{folder}/a")
                self.assert_listed(storage, folder, [])

        storage.write(f"{folder}/a", Source(bytes(10 * MIB), MIB, on_read=look), BINARY)
        assert storage.exists(f"{folder}/a")
        self.assert_listed(storage, folder, [f"{folder}/a"])

    def test_a_taken_key_is_never_overwritten(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a.txt", Source(b"first"), "text/plain")
        for content in (b"second", b"", b"first", bytes(9 * MIB)):
            with pytest.raises(KeyTaken):
                storage.write(f"{folder}/a.txt", Source(content), "text/html")
        assert_contents(storage, f"{folder}/a.txt", b"first")
        assert storage.stat(f"{folder}/a.txt").content_type == "text/plain"
        self.assert_nothing_unfinished(storage, f"{folder}/a.txt")

    def test_a_disposition_can_be_given(self, storage: Any, folder: str) -> None:
        disposition = "attachment; filename*=UTF-8''r%C3%A9sum%C3%A9.txt"
        storage.write(f"{folder}/a", Source(b"x"), BINARY, disposition=disposition)
        assert_contents(storage, f"{folder}/a", b"x")

    def test_an_encoding_can_be_given(self, storage: Any, folder: str) -> None:
        """It only matters when the storage serves the file itself."""
        content = gzip.compress(b"x" * 100_000)
        storage.write(f"{folder}/a", Source(content), "text/plain", encoding="gzip")
        assert storage.stat(f"{folder}/a").size == len(content)
        assert_contents(storage, f"{folder}/a", content)
        with closing(storage.open(f"{folder}/a", 10, 20)) as reader:
            assert reader.read(MIB) == content[10:20]

    @pytest.mark.parametrize("size", [10, 9 * MIB])
    def test_one_of_two_racing_writers_wins(self, storage: Any, folder: str, size: int) -> None:
        both_read = threading.Barrier(2, timeout=TIMEOUT)

        def meet(position: int) -> None:
            if position == 0:
                both_read.wait()

        def write(letter: bytes) -> bytes | None:
            try:
                storage.write(f"{folder}/a", Source(letter * size, on_read=meet), BINARY)
            except KeyTaken:
                return None
            return letter

        winners = [letter for letter in in_threads(2, write, [b"x", b"y"]) if letter]
        assert len(winners) == 1
        assert_contents(storage, f"{folder}/a", winners[0] * size)
        self.assert_nothing_unfinished(storage, f"{folder}/a")

    def test_a_key_below_another_is_taken_or_free(self, storage: Any, folder: str) -> None:
        for first, second in [("a", "a/b"), ("c/d", "c")]:
            storage.write(f"{folder}/{first}", Source(b"first"), BINARY)
            try:
                storage.write(f"{folder}/{second}", Source(b"second"), BINARY)
            except KeyTaken:
                self.assert_absent(storage, f"{folder}/{second}")
            else:
                assert_contents(storage, f"{folder}/{second}", b"second")
            assert_contents(storage, f"{folder}/{first}", b"first")
