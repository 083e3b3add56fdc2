"""The tests of ``open``, ``stat``, ``exists`` and ``url``."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from kinto_attachment.errors import FileNotFound
from kinto_attachment.storage import CHUNK_SIZE
from kinto_attachment.storage.samples import (
    BINARY,
    RANGES,
    Source,
    assert_contents,
    read_all,
)

from .base import StorageTests


class ReadingTests(StorageTests):
    """The bytes that are read are those that were written."""

    @pytest.mark.parametrize("first", [0, 1])
    def test_open_gives_the_range_and_no_more(self, storage: Any, folder: str, first: int) -> None:
        content = os.urandom(3 * CHUNK_SIZE)
        storage.write(f"{folder}/a", Source(content), BINARY)
        for start, end in RANGES[first::2]:
            with closing(storage.open(f"{folder}/a", start, end)) as reader:
                assert read_all(reader, 100_000) == content[start:end], (start, end)

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
        assert_contents(storage, f"{folder}/a/b", b"b")

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
        # A disk does not store it, and this name does not reveal it.
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
