"""What a storage must do, as tests that every backend passes whole.

Subclass :class:`StorageContract` in the tests of a backend and give it two fixtures::

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self):
            return MyStorage(...)

        @pytest.fixture
        def broken_storage(self):
            return MyStorage(...)  # Its disk fails, or its server cannot be reached.

No rule can be left out. Listing, copying and telling what is unfinished are among them, since
garbage collection and publishing cannot do without.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from kinto_attachment.errors import FileNotFound, InvalidKey, KeyTaken, StorageError, TooLarge

from . import CHUNK_SIZE, Unfinished
from .samples import (
    BINARY,
    HOSTILE_KEYS,
    LOOKALIKE_KEYS,
    MIB,
    RANGES,
    TIMEOUT,
    UNUSUAL_KEYS,
    Source,
    contents,
    in_threads,
    keys,
    read_all,
    write_many,
)


class StorageContract:
    """One test per rule. Files of other tests may be in the storage: each has its own folder."""

    @pytest.fixture
    def storage(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def broken_storage(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def folder(self) -> str:
        return f"contract-{uuid4().hex}"

    # Writing.

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
        assert contents(storage, written.key) == content

    def test_memory_does_not_grow_with_the_file(self, storage: Any, folder: str) -> None:
        content = os.urandom(40 * MIB)
        storage.write(f"{folder}/a", Source(content), BINARY)  # It looks at the sizes asked for.
        with closing(storage.open(f"{folder}/a")) as reader:
            pieces = list(iter(lambda: reader.read(MIB), b""))
            assert reader.read(MIB) == b"", "the end stays the end"
        assert max(map(len, pieces)) <= MIB
        assert b"".join(pieces) == content

    def test_a_short_read_is_not_the_end(self, storage: Any, folder: str) -> None:
        content = os.urandom(100_000)
        storage.write(f"{folder}/a", Source(content, step=777), BINARY)
        assert contents(storage, f"{folder}/a") == content

    @pytest.mark.parametrize("position", [0, CHUNK_SIZE, 24 * MIB])
    @pytest.mark.parametrize("error", [ConnectionResetError("gone"), TooLarge()])
    def test_a_failing_reader_leaves_nothing(
        self, storage: Any, folder: str, position: int, error: Exception
    ) -> None:
        def fail(reached: int) -> None:
            if reached >= position:
                raise error

        with pytest.raises(type(error)) as caught:
            storage.write(f"{folder}/a", Source(bytes(32 * MIB), on_read=fail), BINARY)
        assert caught.value is error, "what the reader raises is not the storage's to change"
        self.assert_absent(storage, f"{folder}/a")
        storage.write(f"{folder}/a", Source(b"retry"), BINARY)
        assert contents(storage, f"{folder}/a") == b"retry"

    def test_a_file_appears_whole(self, storage: Any, folder: str) -> None:
        def look(position: int) -> None:
            if position >= 9 * MIB:
                assert not storage.exists(f"{folder}/a")
                assert keys(storage, folder) == []

        storage.write(f"{folder}/a", Source(bytes(10 * MIB), MIB, on_read=look), BINARY)
        assert keys(storage, folder) == [f"{folder}/a"]

    def test_a_taken_key_is_never_overwritten(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a.txt", Source(b"first"), "text/plain")
        for content in (b"second", b"", b"first", bytes(9 * MIB)):
            with pytest.raises(KeyTaken):
                storage.write(f"{folder}/a.txt", Source(content), "text/html")
        assert contents(storage, f"{folder}/a.txt") == b"first"
        assert storage.stat(f"{folder}/a.txt").content_type == "text/plain"
        self.assert_nothing_unfinished(storage, f"{folder}/a.txt")

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
        assert contents(storage, f"{folder}/a") == winners[0] * size
        self.assert_nothing_unfinished(storage, f"{folder}/a")

    def test_a_key_below_another_is_taken_or_free(self, storage: Any, folder: str) -> None:
        for first, second in [("a", "a/b"), ("c/d", "c")]:
            storage.write(f"{folder}/{first}", Source(b"first"), BINARY)
            try:
                storage.write(f"{folder}/{second}", Source(b"second"), BINARY)
            except KeyTaken:
                self.assert_absent(storage, f"{folder}/{second}")
            else:
                assert contents(storage, f"{folder}/{second}") == b"second"
            assert contents(storage, f"{folder}/{first}") == b"first"

    # Reading.

    @pytest.mark.parametrize(("start", "end"), RANGES)
    def test_open_gives_the_range_and_no_more(
        self, storage: Any, folder: str, start: int, end: int | None
    ) -> None:
        content = os.urandom(3 * CHUNK_SIZE)
        storage.write(f"{folder}/a", Source(content), BINARY)
        with closing(storage.open(f"{folder}/a", start, end)) as reader:
            assert read_all(reader, 100_000) == content[start:end]

    def test_a_missing_file_is_not_found(self, storage: Any, folder: str) -> None:
        for read in (storage.stat, storage.open):
            with pytest.raises(FileNotFound) as caught:
                read(f"{folder}/ghost")
            assert caught.value.__cause__ is not None
        assert not storage.exists(f"{folder}/ghost")

    def test_a_folder_is_not_a_file(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a/b", Source(b"b"), BINARY)
        self.assert_absent(storage, f"{folder}/a")
        storage.delete(f"{folder}/a")
        assert contents(storage, f"{folder}/a/b") == b"b"

    @pytest.mark.parametrize(
        ("name", "content_type"),
        [("a.png", "image/png"), ("a.TXT", "text/plain"), ("a.pdf", "application/pdf")],
    )
    def test_the_content_type_is_kept(
        self, storage: Any, folder: str, name: str, content_type: str
    ) -> None:
        written = storage.write(f"{folder}/{name}", Source(b"x"), content_type)
        found = storage.stat(f"{folder}/{name}")
        assert (written.content_type, found.content_type) == (content_type, content_type)

    def test_no_content_type_is_invented(self, storage: Any, folder: str) -> None:
        # A disk keeps none, and this name tells nothing.
        storage.write(f"{folder}/a", Source(b"x"), "image/png")
        assert storage.stat(f"{folder}/a").content_type in ("image/png", BINARY)

    def test_modified_is_the_time_of_writing_in_utc(self, storage: Any, folder: str) -> None:
        written = storage.write(f"{folder}/a", Source(b"x"), BINARY)
        for modified in (written.modified, storage.stat(f"{folder}/a").modified):
            assert modified.utcoffset() == timedelta(0)
            assert abs(datetime.now(timezone.utc) - modified) < timedelta(minutes=1)

    def test_the_url_is_made_of_the_quoted_key(self, storage: Any, folder: str) -> None:
        assert storage.url("a b/é+%?#.txt").endswith("a%20b/%C3%A9%2B%25%3F%23.txt")
        assert storage.url(folder).startswith(storage.base_url)

    # Deleting.

    def test_deleting_twice_is_fine(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a", Source(b"x"), BINARY)
        storage.write(f"{folder}/b", Source(b"x"), BINARY)
        assert storage.delete(f"{folder}/a") is True
        self.assert_absent(storage, f"{folder}/a")
        assert storage.delete(f"{folder}/a", f"{folder}/ghost") in (True, False)
        storage.delete()
        assert contents(storage, f"{folder}/b") == b"x"

    def test_thousands_are_deleted_at_once(self, storage: Any, folder: str) -> None:
        written = write_many(storage, folder, 1_100)
        storage.write(f"{folder}/z", Source(b"x"), BINARY)
        assert storage.delete(*written) is True
        assert keys(storage, folder) == [f"{folder}/z"]
        assert not any(map(storage.exists, (written[0], written[999], written[1000], written[-1])))

    # Keys.

    @pytest.mark.parametrize("name", UNUSUAL_KEYS)
    def test_unusual_keys_are_keys_like_others(self, storage: Any, folder: str, name: str) -> None:
        key = f"{folder}/{name}"
        assert storage.write(key, Source(name.encode()), BINARY).key == key
        assert contents(storage, key) == name.encode()
        assert storage.stat(key).key == key
        assert keys(storage, folder) == [key]
        assert storage.url(key).endswith(quote(key))
        storage.delete(key)
        self.assert_absent(storage, key)

    def test_keys_that_look_alike_are_different(self, storage: Any, folder: str) -> None:
        written = [f"{folder}/{name}" for name in LOOKALIKE_KEYS]
        for key in written:
            storage.write(key, Source(key.encode()), BINARY)
        assert [contents(storage, key) for key in written] == [key.encode() for key in written]
        assert keys(storage, folder) == sorted(written)

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    def test_a_hostile_key_is_invalid_in_every_method(
        self, storage: Any, folder: str, key: str
    ) -> None:
        storage.write(f"{folder}/a", Source(b"x"), BINARY)
        with pytest.raises(InvalidKey):
            storage.write(key, Source(b"x"), BINARY)
        for method in (storage.stat, storage.open, storage.delete):
            with pytest.raises(InvalidKey):
                method(key)
        with pytest.raises(InvalidKey):
            storage.delete(f"{folder}/a", key)
        assert not storage.exists(key)
        assert storage.exists(f"{folder}/a"), "nothing is deleted when a key is invalid"

    # Listing, copying, cleaning up.

    def test_a_listing_is_complete(self, storage: Any, folder: str) -> None:
        written = write_many(storage, f"{folder}/many", 1_050)
        listed = list(storage.list(f"{folder}/many/"))
        assert sorted(file.key for file in listed) == written
        assert {file.size for file in listed} == {1}
        assert {file.modified.utcoffset() for file in listed} == {timedelta(0)}

    def test_a_listing_is_by_prefix(self, storage: Any, folder: str) -> None:
        for name in ("a/1", "a/b/2", "ab/3", "abc", "b/a"):
            storage.write(f"{folder}/{name}", Source(b"x"), BINARY)
        expected = {
            "/": ["a/1", "a/b/2", "ab/3", "abc", "b/a"],
            "/a": ["a/1", "a/b/2", "ab/3", "abc"],
            "/a/": ["a/1", "a/b/2"],
            "/ab": ["ab/3", "abc"],
            "/abc": ["abc"],
            "/abc/": [],
            "/a/b/2": ["a/b/2"],
            "/c": [],
            "/../": [],
            "/a/../../": [],
        }
        for prefix, names in expected.items():
            assert keys(storage, folder + prefix) == [f"{folder}/{name}" for name in names]
        assert {f"{folder}/{name}" for name in expected["/"]} <= set(keys(storage, ""))

    @pytest.mark.parametrize("size", [0, 10, 9 * MIB])
    def test_a_copy_is_a_new_file(self, storage: Any, folder: str, size: int) -> None:
        content = os.urandom(size)
        storage.write(f"{folder}/a.txt", Source(content), "text/plain")
        started = datetime.now(timezone.utc) - timedelta(seconds=2)  # Clocks differ.
        copied = storage.copy(f"{folder}/a.txt", f"{folder}/b/b.txt")
        assert (copied.key, copied.size) == (f"{folder}/b/b.txt", size)
        storage.delete(f"{folder}/a.txt")
        assert contents(storage, f"{folder}/b/b.txt") == content
        found = storage.stat(f"{folder}/b/b.txt")
        assert found.content_type == copied.content_type == "text/plain"
        assert found.modified >= started, "or gc would think it is a leftover"

    def test_a_copy_never_overwrites(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a", Source(b"a"), BINARY)
        storage.write(f"{folder}/b", Source(b"b"), BINARY)
        for target in (f"{folder}/b", f"{folder}/a"):
            with pytest.raises(KeyTaken):
                storage.copy(f"{folder}/a", target)
        assert contents(storage, f"{folder}/a") == b"a"
        assert contents(storage, f"{folder}/b") == b"b"

    def test_a_copy_needs_a_source_and_valid_keys(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a", Source(b"a"), BINARY)
        with pytest.raises(FileNotFound):
            storage.copy(f"{folder}/ghost", f"{folder}/b")
        for hostile in HOSTILE_KEYS:
            for source, target in [(hostile, f"{folder}/b"), (f"{folder}/a", hostile)]:
                with pytest.raises(InvalidKey):
                    storage.copy(source, target)
        self.assert_absent(storage, f"{folder}/b")

    def test_discarding_what_is_gone_is_fine(self, storage: Any, folder: str) -> None:
        storage.discard_unfinished(
            Unfinished("gone", f"{folder}/a", 0, datetime.now(timezone.utc))
        )

    # Failures and threads.

    def test_an_outage_is_told_with_its_cause(self, broken_storage: Any, folder: str) -> None:
        key = f"{folder}/a"
        calls: dict[str, Callable[[], object]] = {
            "write": lambda: broken_storage.write(key, Source(b"x"), BINARY),
            "open": lambda: contents(broken_storage, key),
            "stat": lambda: broken_storage.stat(key),
            "exists": lambda: broken_storage.exists(key),
            "delete": lambda: broken_storage.delete(key),
            "list": lambda: keys(broken_storage, folder),
            "copy": lambda: broken_storage.copy(key, f"{folder}/b"),
            "list_unfinished": lambda: list(broken_storage.list_unfinished()),
        }
        for name, call in calls.items():
            with pytest.raises(StorageError) as caught:
                call()
            assert caught.value.__cause__ is not None, name

    def test_eight_threads_do_not_disturb_each_other(self, storage: Any, folder: str) -> None:
        all_read = threading.Barrier(8, timeout=TIMEOUT)

        def meet(position: int) -> None:
            if position == 0:
                all_read.wait()

        def live(number: int) -> bool:
            for turn in range(5):
                key, content = f"{folder}/{number}/{turn}", os.urandom(100_000 + number)
                # Once is enough; later they would wait for those that have failed.
                storage.write(key, Source(content, 50_000, bool if turn else meet), BINARY)
                assert storage.stat(key).size == len(content)
                assert contents(storage, key) == content
                assert keys(storage, f"{folder}/{number}/") == [key]
                storage.delete(key)
            return True

        assert in_threads(8, live, range(8)) == [True] * 8
        assert keys(storage, folder) == []

    def assert_absent(self, storage: Any, key: str) -> None:
        for read in (storage.stat, storage.open):
            with pytest.raises(FileNotFound):
                read(key)
        assert not storage.exists(key)
        assert key not in keys(storage, key)
        self.assert_nothing_unfinished(storage, key)

    def assert_nothing_unfinished(self, storage: Any, key: str) -> None:
        assert [draft for draft in storage.list_unfinished() if draft.key == key] == []
