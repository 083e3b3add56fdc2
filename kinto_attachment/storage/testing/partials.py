"""The tests for storages that continue writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from kinto_attachment.errors import InvalidKey, KeyTaken
from kinto_attachment.storage import (
    CHUNK_SIZE,
    ContinuesWrites,
    ListsFiles,
    ListsUnfinished,
)
from kinto_attachment.storage.samples import (
    BINARY,
    HOSTILE_KEYS,
    MIB,
    Source,
    assert_contents,
    keys,
)

from .partial_upload import Upload
from .takeovers import TakeoversContract

# Chunks of a file that is long enough for several checkpoints.
LONG = 80


class ContinuesWritesContract(TakeoversContract):
    """Files that arrive in chunks, from writers that are interrupted, or hang and continue."""

    capability = ContinuesWrites

    @pytest.mark.parametrize(
        "sizes",
        [
            *([], [0], [3], [3, 0, 4], [1] * 40, [CHUNK_SIZE + 1, 1, 5 * MIB]),
            *([8 * MIB, 8 * MIB], [9 * MIB, 3, 8 * MIB + 1, 3], [3 * MIB] * 4),
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
        upload.assert_nothing_is_left()

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
        """Each of them includes all bytes that were read, because a hash belongs to it."""
        content = os.urandom(CHUNK_SIZE) * LONG
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
        upload.assert_nothing_is_left()

    @pytest.mark.parametrize("length", [0, 3 * MIB, 100 * MIB])
    def test_what_arrives_counts_and_not_the_length(
        self, storage: Any, folder: str, length: int
    ) -> None:
        """Most of the announced bytes, or more than that."""
        content = os.urandom(14 * MIB)
        upload = Upload(storage, f"{folder}/a")
        for end in (4 * MIB, 13 * MIB):
            upload.append(content[upload.partial.size : end], length=length)
            assert upload.partial.size == end
        upload.append(content[13 * MIB :], length=0)
        upload.finish()
        assert_contents(storage, f"{folder}/a", content)
        upload.assert_nothing_is_left()

    def test_an_append_that_is_not_kept_was_none(self, storage: Any, folder: str) -> None:
        """For example, one with a wrong digest."""
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
        upload.discard_what_is_left()
        assert_contents(storage, f"{folder}/a", b"abcdef")

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
        # The size is the same, so only the content shows which file it is.
        storage.write(f"{folder}/a", Source(b"x" * size), BINARY)
        for _ in range(2):
            with pytest.raises(KeyTaken):
                upload.finish()
        assert_contents(storage, f"{folder}/a", b"x" * size)
        with pytest.raises(KeyTaken):
            Upload(storage, f"{folder}/a")
        storage.discard(upload.partial)
        assert_contents(storage, f"{folder}/a", b"x" * size)
        upload.assert_nothing_is_left()

    @pytest.mark.parametrize("size", [0, 10, 9 * MIB])
    def test_what_is_discarded_is_gone(self, storage: Any, folder: str, size: int) -> None:
        upload = Upload(storage, f"{folder}/a")
        upload.append(b"x" * size)
        for _ in range(2):
            storage.discard(upload.partial)
            self.assert_absent(storage, f"{folder}/a")
            upload.assert_nothing_is_left()
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
            assert sum(found.size for found in upload.left()) >= 9 * MIB
            assert not {*upload.left()} & {*other.left()}
        first, second = uploads
        for found in first.left():
            storage.discard_unfinished(found)
            storage.discard_unfinished(found)
        first.assert_nothing_is_left()
        second.finish()
        assert_contents(storage, f"{folder}/b", b"x" * (9 * MIB + 10))
        second.assert_nothing_is_left()

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
        upload.assert_nothing_is_left()
