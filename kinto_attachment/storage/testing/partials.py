"""The tests for storages that continue writes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any
from uuid import uuid4

import pytest

from kinto_attachment.errors import InvalidKey, KeyTaken, StorageUnavailable
from kinto_attachment.storage import (
    CHUNK_SIZE,
    ContinuesWrites,
    ListsFiles,
    ListsUnfinished,
    Partial,
)
from kinto_attachment.storage.samples import (
    BINARY,
    HOSTILE_KEYS,
    MIB,
    TIMEOUT,
    Source,
    assert_contents,
    contents,
    in_threads,
    keys,
)

from .core import StorageContract


class TakenOver(Exception):
    """The caller's, for a writer that may not write any more."""


# What a writer gets that was taken over: what it goes on with may be gone.
LATE = (TakenOver, StorageUnavailable)


class Upload:
    """What a caller keeps of a file: as JSON, and from the writer that may write, only."""

    def __init__(self, storage: Any, key: str, content_type: str = BINARY, **options: Any) -> None:
        self.storage = storage
        self.lock = threading.Lock()
        self.writer: object = None
        self.checkpoints = 0
        self.keep(storage.begin(uuid4().hex, key, content_type, **options))

    @property
    def partial(self) -> Partial:
        return Partial(**json.loads(self.kept))

    def keep(self, partial: Partial) -> None:
        self.kept = json.dumps(asdict(partial))

    def take_over(self) -> None:
        """Whoever writes now may not write any more."""
        self.keep(self.storage.take_over(self.partial))
        self.writer = None

    def append(
        self,
        source: bytes | Source,
        at_checkpoint: Callable[[], object] = lambda: None,
        length: int | None = None,
    ) -> None:
        """What one request does; it tells the ``length`` that it expects, which may be wrong.

        :raises TakenOver: by another one in the meantime.
        """
        source = source if isinstance(source, Source) else Source(source)
        length = len(source.content) if length is None else length
        with self.lock:
            if self.writer:
                self.take_over()
            begun, self.writer = self.partial, uuid4()
            writer = self.writer

        def checkpoint(partial: Partial) -> None:
            at_checkpoint()
            with self.lock:
                if self.writer != writer:
                    raise TakenOver
                assert (partial.id, partial.key) == (begun.id, begun.key)
                assert partial.size - begun.size == source.given, "all that was read is durable"
                self.checkpoints += 1
                self.keep(partial)

        ended = self.storage.append(begun, source, checkpoint, length=length)
        checkpoint(ended)
        self.writer = None

    def finish(self) -> Any:
        return self.storage.finish(self.partial)


class ContinuesWritesContract(StorageContract):
    """Files that arrive in chunks, from writers that are interrupted, or hang and wake up."""

    capability = ContinuesWrites

    @pytest.mark.parametrize(
        "sizes",
        [
            *([], [0], [3], [3, 0, 4], [1] * 40, [CHUNK_SIZE + 1, 1, 5 * MIB]),
            *([8 * MIB, 8 * MIB], [9 * MIB, 3, 16 * MIB + 1, 3], [5 * MIB] * 5),
        ],
        ids=str,
    )
    def test_a_file_arrives_in_chunks(self, storage: Any, folder: str, sizes: list[int]) -> None:
        content, position = os.urandom(sum(sizes)), 0
        upload = Upload(storage, f"{folder}/a.txt", "text/plain", length=len(content))
        for size in sizes:
            upload.append(content[position : position + size])
            position += size
            assert upload.partial.size == position
        stored = upload.finish()
        assert (stored.key, stored.size) == (f"{folder}/a.txt", len(content))
        assert_contents(storage, stored.key, content)
        found = storage.stat(stored.key)
        assert (found.size, found.content_type) == (len(content), "text/plain")
        self.assert_nothing_of(storage, upload)

    def test_there_is_no_file_before_the_finish(self, storage: Any, folder: str) -> None:
        upload = Upload(storage, f"{folder}/a")
        for content in (b"x" * 9 * MIB, b"y"):
            upload.append(content)
            assert not storage.exists(f"{folder}/a")
            self.assert_listed(storage, folder, [])
            if isinstance(storage, ListsFiles):
                assert not [key for key in keys(storage, "") if upload.partial.id in key]
        upload.finish()
        self.assert_listed(storage, folder, [f"{folder}/a"])

    def test_what_is_kept_stays_small(self, storage: Any, folder: str) -> None:
        content = os.urandom(100)
        upload = Upload(storage, f"{folder}/a")
        for number in range(len(content)):
            upload.append(content[number : number + 1])
            assert len(upload.kept) < 4096
        upload.finish()
        assert_contents(storage, f"{folder}/a", content)

    def test_checkpoints_come_from_time_to_time(self, storage: Any, folder: str) -> None:
        """Each of them tells what has been read by then: a hash goes with it."""
        content = os.urandom(CHUNK_SIZE) * 80
        upload = Upload(storage, f"{folder}/a", length=len(content) + 3)
        upload.append(b"abc")
        before = upload.checkpoints
        upload.append(Source(content))
        assert upload.checkpoints - before >= 2
        assert upload.partial.size == len(content) + 3
        upload.finish()
        assert_contents(storage, f"{folder}/a", b"abc" + content)

    @pytest.mark.parametrize("position", [0, 3, 40 * MIB])
    @pytest.mark.parametrize("error", [ConnectionResetError("gone")])
    def test_a_failing_reader_costs_what_no_checkpoint_has_told(
        self, storage: Any, folder: str, position: int, error: Exception
    ) -> None:
        def fail(reached: int) -> None:
            if reached >= position:
                raise error

        content = os.urandom(position + 1000)
        upload = Upload(storage, f"{folder}/a")
        upload.append(content[:2])
        with pytest.raises(type(error)) as caught:
            upload.append(Source(content[2:], on_read=fail))
        assert caught.value is error, "what the reader raises is not the storage's to change"
        assert 2 <= upload.partial.size <= position + MIB
        upload.append(content[upload.partial.size :])
        upload.finish()
        assert_contents(storage, f"{folder}/a", content)
        self.assert_nothing_of(storage, upload)

    @pytest.mark.parametrize("length", [0, 3 * MIB, 100 * MIB])
    def test_what_arrives_counts_and_not_the_length(
        self, storage: Any, folder: str, length: int
    ) -> None:
        """Most of what was promised, or all of it and more."""
        content = os.urandom(21 * MIB)
        upload = Upload(storage, f"{folder}/a")
        for end in (7 * MIB, 20 * MIB):
            upload.append(content[upload.partial.size : end], length=length)
            assert upload.partial.size == end
        upload.append(content[20 * MIB :], length=0)
        upload.finish()
        assert_contents(storage, f"{folder}/a", content)
        self.assert_nothing_of(storage, upload)

    def test_an_append_that_is_not_kept_was_none(self, storage: Any, folder: str) -> None:
        """As one whose digest is wrong."""
        upload = Upload(storage, f"{folder}/a")
        upload.append(b"abc")
        for size in (2, 9 * MIB):
            kept = upload.partial
            storage.append(kept, Source(b"x" * size), lambda partial: None)
            upload.take_over()
            assert upload.partial.size == 3
            upload.append(b"")
        upload.append(b"def")
        upload.finish()
        assert_contents(storage, f"{folder}/a", b"abcdef")
        self.discard_what_is_left(storage, upload)

    @pytest.mark.parametrize("wakes", ["before the end", "after the end", "after the finish"])
    @pytest.mark.parametrize("hangs_at", range(4))
    @pytest.mark.parametrize("size", [3, 3 * MIB])
    def test_a_writer_that_was_taken_over_changes_nothing(
        self, storage: Any, folder: str, size: int, hangs_at: int, wakes: str
    ) -> None:
        """It hangs before one of its reads or in a checkpoint, and goes on when others have
        written, or even finished the file.
        """
        others = b"def" * size + b"ghi" * size

        def hang(_: int = 0) -> None:
            moments.append(upload.partial.size)
            if len(moments) == hangs_at + 1:
                upload.append(others[: 3 * size])
                if wakes != "before the end":
                    upload.append(others[3 * size :])
                if wakes == "after the finish":
                    upload.finish()

        moments: list[int] = []
        upload = Upload(storage, f"{folder}/a")
        upload.append(b"abc" * size)
        with pytest.raises(LATE):
            upload.append(Source(b"x" * 4 * size, size, on_read=hang), lambda: hang())
        if wakes == "before the end":
            upload.append(others[3 * size :])
        upload.finish()
        kept = moments[hangs_at] - 3 * size
        assert_contents(storage, f"{folder}/a", b"abc" * size + b"x" * kept + others)
        self.discard_what_is_left(storage, upload)

    @pytest.mark.parametrize("begins", ["after another", "after the finish"])
    @pytest.mark.parametrize("size", [3, 6 * MIB])
    def test_a_writer_that_begins_late_changes_nothing(
        self, storage: Any, folder: str, size: int, begins: str
    ) -> None:
        """It was given what it goes on with, and hung before it did anything."""

        def refuse(_: Partial) -> None:
            raise TakenOver

        upload = Upload(storage, f"{folder}/a")
        upload.append(b"abc" * size)
        late = upload.partial
        upload.take_over()
        upload.append(b"def" * size)
        if begins == "after the finish":
            upload.finish()
        with suppress(*LATE):
            storage.append(late, Source(b"x" * size), refuse)
        upload.finish()
        assert_contents(storage, f"{folder}/a", b"abc" * size + b"def" * size)
        self.discard_what_is_left(storage, upload)

    def test_two_writers_at_once_are_not_mixed(self, storage: Any, folder: str) -> None:
        """The one that came first still writes, while the one that has taken over does."""
        upload, expected = Upload(storage, f"{folder}/a"), b""
        for _ in range(5):
            both = threading.Barrier(2, timeout=TIMEOUT)

            def meet(_: int, both: threading.Barrier = both) -> None:
                with suppress(threading.BrokenBarrierError):
                    both.wait()

            def write(letter: bytes, both: threading.Barrier = both) -> bytes:
                try:
                    upload.append(Source(letter * 4000, 1000, on_read=meet))
                except LATE:
                    return b""
                finally:
                    both.abort()
                return letter

            written = b"".join(in_threads(2, write, [b"x", b"y"]))
            assert len(written) == 1
            expected += written * 4000
        upload.finish()
        assert_contents(storage, f"{folder}/a", expected)
        self.discard_what_is_left(storage, upload)

    def test_a_writer_may_be_taken_over_again_and_again(self, storage: Any, folder: str) -> None:
        upload = Upload(storage, f"{folder}/a")
        for letter in (b"a", b"b", b"c"):
            for _ in range(20):
                upload.take_over()
            upload.append(letter * MIB)
        upload.finish()
        assert_contents(storage, f"{folder}/a", b"a" * MIB + b"b" * MIB + b"c" * MIB)

    @pytest.mark.parametrize("size", [0, 10, 9 * MIB])
    def test_a_finish_can_be_repeated(self, storage: Any, folder: str, size: int) -> None:
        content = os.urandom(size)
        upload = Upload(storage, f"{folder}/a", length=size)
        upload.append(content)
        for _ in range(3):
            stored = upload.finish()
            assert (stored.key, stored.size) == (f"{folder}/a", size)
        assert_contents(storage, f"{folder}/a", content)

    @pytest.mark.parametrize("size", [10, 9 * MIB])
    def test_a_taken_key_is_not_overwritten_by_a_finish(
        self, storage: Any, folder: str, size: int
    ) -> None:
        upload = Upload(storage, f"{folder}/a")
        upload.append(b"y" * size)
        # The size is the same, so that it shows whose file it is.
        storage.write(f"{folder}/a", Source(b"x" * size), BINARY)
        for _ in range(2):
            with pytest.raises(KeyTaken):
                upload.finish()
        assert_contents(storage, f"{folder}/a", b"x" * size)
        with pytest.raises(KeyTaken):
            Upload(storage, f"{folder}/a")
        storage.discard(upload.partial)
        assert_contents(storage, f"{folder}/a", b"x" * size)
        self.assert_nothing_of(storage, upload)

    @pytest.mark.parametrize("size", [0, 10, 9 * MIB])
    def test_what_is_discarded_is_gone(self, storage: Any, folder: str, size: int) -> None:
        upload = Upload(storage, f"{folder}/a")
        upload.append(b"x" * size)
        for _ in range(2):
            storage.discard(upload.partial)
            self.assert_absent(storage, f"{folder}/a")
            self.assert_nothing_of(storage, upload)
        again = Upload(storage, f"{folder}/a")
        again.append(b"again")
        again.finish()
        storage.discard(again.partial)
        assert_contents(storage, f"{folder}/a", b"again")

    def test_what_is_unfinished_tells_what_it_belongs_to(self, storage: Any, folder: str) -> None:
        uploads = [Upload(storage, f"{folder}/{name}") for name in "ab"]
        for upload in uploads:
            upload.append(b"x" * (9 * MIB))
            upload.append(b"x" * 10)
        if not isinstance(storage, ListsUnfinished):
            return
        for upload, other in (uploads, uploads[::-1]):
            assert sum(found.size for found in self.left_of(storage, upload)) >= 9 * MIB
            assert not {*self.left_of(storage, upload)} & {*self.left_of(storage, other)}
        first, second = uploads
        for found in self.left_of(storage, first):
            storage.discard_unfinished(found)
            storage.discard_unfinished(found)
        self.assert_nothing_of(storage, first)
        second.finish()
        assert_contents(storage, f"{folder}/b", b"x" * (9 * MIB + 10))
        self.assert_nothing_of(storage, second)

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    def test_a_hostile_key_is_not_begun(self, storage: Any, key: str) -> None:
        with pytest.raises(InvalidKey):
            storage.begin(uuid4().hex, key, BINARY)

    def test_an_outage_is_told_by_each_step(
        self, storage: Any, broken_storage: Any, folder: str
    ) -> None:
        upload = Upload(storage, f"{folder}/a")
        upload.append(b"x" * (9 * MIB))
        upload.append(b"x")
        partial = broken_storage.take_over(upload.partial)  # Without I/O.
        steps: dict[str, Callable[[], object]] = {
            "begin": lambda: broken_storage.begin(uuid4().hex, f"{folder}/b", BINARY),
            "append": lambda: broken_storage.append(partial, Source(b"x"), lambda _: None),
            "finish": lambda: broken_storage.finish(partial),
            "discard": lambda: broken_storage.discard(partial),
        }
        for name, step in steps.items():
            self.assert_tells_of_an_outage(name, step)
        storage.discard(upload.partial)
        self.assert_nothing_of(storage, upload)

    def left_of(self, storage: Any, upload: Upload) -> list[Any]:
        """Where only the key tells, it has to be a key that nobody else has."""
        partial = upload.partial
        return [
            found
            for found in storage.list_unfinished()
            if found.partial_id == partial.id
            or (not found.partial_id and found.key == partial.key)
        ]

    def assert_nothing_of(self, storage: Any, upload: Upload) -> None:
        if isinstance(storage, ListsUnfinished):
            assert self.left_of(storage, upload) == []

    def discard_what_is_left(self, storage: Any, upload: Upload) -> None:
        """What hung writers have stored for nothing can be found, and harms nobody."""
        content = contents(storage, upload.partial.key)
        if isinstance(storage, ListsUnfinished):
            for found in self.left_of(storage, upload):
                storage.discard_unfinished(found)
            assert self.left_of(storage, upload) == []
        assert_contents(storage, upload.partial.key, content)
