"""The tests that every storage has to pass."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar
from urllib.parse import quote
from uuid import uuid4

import pytest

from kinto_attachment.errors import FileNotFound, InvalidKey, KeyTaken, StorageError, TooLarge
from kinto_attachment.storage import CAPABILITIES, CHUNK_SIZE, ListsFiles, ListsUnfinished
from kinto_attachment.storage.samples import (
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
    """One test per rule. Each test has its own folder, so that tests may share a storage."""

    # Set by the contract of a capability, which is a subclass.
    capability: ClassVar[type | None] = None

    @pytest.fixture
    def storage(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def broken_storage(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def folder(self) -> str:
        return f"contract-{uuid4().hex}"

    def test_each_capability_has_its_contract(self, storage: Any) -> None:
        """The server advertises and uses whatever a storage implements."""
        checked = {base.__dict__.get("capability") for base in type(self).__mro__}
        for capability in CAPABILITIES:
            implemented, name = isinstance(storage, capability), capability.__name__
            assert implemented or capability not in checked, f"the storage lacks {name}"
            assert not implemented or capability in checked, f"run {name}Contract, too"

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
        storage.write(f"{folder}/a", Source(content), BINARY)  # Source checks the sizes of reads.
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
                self.assert_listed(storage, folder, [])

        storage.write(f"{folder}/a", Source(bytes(10 * MIB), MIB, on_read=look), BINARY)
        assert storage.exists(f"{folder}/a")
        self.assert_listed(storage, folder, [f"{folder}/a"])

    def test_a_taken_key_is_never_overwritten(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a.txt", Source(b"first"), "text/plain")
        for content in (b"second", b"", b"first", bytes(9 * MIB)):
            with pytest.raises(KeyTaken):
                storage.write(f"{folder}/a.txt", Source(content), "text/html")
        assert contents(storage, f"{folder}/a.txt") == b"first"
        assert storage.stat(f"{folder}/a.txt").content_type == "text/plain"
        self.assert_nothing_unfinished(storage, f"{folder}/a.txt")

    def test_a_disposition_can_be_given(self, storage: Any, folder: str) -> None:
        disposition = "attachment; filename*=UTF-8''r%C3%A9sum%C3%A9.txt"
        storage.write(f"{folder}/a", Source(b"x"), BINARY, disposition=disposition)
        assert contents(storage, f"{folder}/a") == b"x"

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
        self.assert_listed(storage, folder, [f"{folder}/z"])
        assert not any(map(storage.exists, (written[0], written[999], written[1000], written[-1])))
        assert storage.exists(f"{folder}/z")

    # Keys.

    @pytest.mark.parametrize("name", UNUSUAL_KEYS)
    def test_unusual_keys_are_keys_like_others(self, storage: Any, folder: str, name: str) -> None:
        key = f"{folder}/{name}"
        assert storage.write(key, Source(name.encode()), BINARY).key == key
        assert contents(storage, key) == name.encode()
        assert storage.stat(key).key == key
        self.assert_listed(storage, folder, [key])
        assert storage.url(key).endswith(quote(key))
        storage.delete(key)
        self.assert_absent(storage, key)

    def test_keys_that_look_alike_are_different(self, storage: Any, folder: str) -> None:
        written = [f"{folder}/{name}" for name in LOOKALIKE_KEYS]
        for key in written:
            storage.write(key, Source(key.encode()), BINARY)
        assert [contents(storage, key) for key in written] == [key.encode() for key in written]
        self.assert_listed(storage, folder, sorted(written))

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

    # Failures and threads.

    def test_an_outage_is_told_with_its_cause(self, broken_storage: Any, folder: str) -> None:
        key = f"{folder}/a"
        calls: dict[str, Callable[[], object]] = {
            "write": lambda: broken_storage.write(key, Source(b"x"), BINARY),
            "open": lambda: contents(broken_storage, key),
            "stat": lambda: broken_storage.stat(key),
            "exists": lambda: broken_storage.exists(key),
            "delete": lambda: broken_storage.delete(key),
        }
        for name, call in calls.items():
            self.assert_tells_of_an_outage(name, call)

    def test_eight_threads_do_not_disturb_each_other(self, storage: Any, folder: str) -> None:
        all_read = threading.Barrier(8, timeout=TIMEOUT)

        def meet(position: int) -> None:
            if position == 0:
                all_read.wait()

        def live(number: int) -> bool:
            for turn in range(5):
                key, content = f"{folder}/{number}/{turn}", os.urandom(100_000 + number)
                # Only in the first turn: later, threads would wait for those that have failed.
                storage.write(key, Source(content, 50_000, bool if turn else meet), BINARY)
                assert storage.stat(key).size == len(content)
                assert contents(storage, key) == content
                self.assert_listed(storage, f"{folder}/{number}/", [key])
                storage.delete(key)
            return True

        assert in_threads(8, live, range(8)) == [True] * 8
        self.assert_listed(storage, folder, [])

    def assert_tells_of_an_outage(self, name: str, call: Callable[[], object]) -> None:
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.__cause__ is not None, name

    def assert_absent(self, storage: Any, key: str) -> None:
        for read in (storage.stat, storage.open):
            with pytest.raises(FileNotFound):
                read(key)
        assert not storage.exists(key)
        if isinstance(storage, ListsFiles):
            assert key not in keys(storage, key)
        self.assert_nothing_unfinished(storage, key)

    def assert_listed(self, storage: Any, prefix: str, expected: list[str]) -> None:
        if isinstance(storage, ListsFiles):
            assert keys(storage, prefix) == expected

    def assert_nothing_unfinished(self, storage: Any, key: str) -> None:
        if isinstance(storage, ListsUnfinished):
            assert [draft for draft in storage.list_unfinished() if draft.key == key] == []
