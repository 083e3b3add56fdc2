"""The tests for storages with a capability: one class for each, in addition to the core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import pytest

from kinto_attachment.errors import FileNotFound, InvalidKey, KeyTaken
from kinto_attachment.storage import (
    SITE_KEY,
    CopiesFiles,
    HasPaths,
    KeepsSite,
    ListsFiles,
    ListsUnfinished,
    SignsUrls,
    Unfinished,
)
from kinto_attachment.storage.samples import (
    BINARY,
    HOSTILE_KEYS,
    LOOKALIKE_KEYS,
    MIB,
    TIMEOUT,
    UNUSUAL_KEYS,
    Source,
    assert_contents,
    keys,
    write_many,
)

from .core import StorageContract


class ListsFilesContract(StorageContract):
    capability = ListsFiles

    def test_a_listing_is_complete(self, storage: Any, folder: str) -> None:
        written = write_many(storage, f"{folder}/many", 20)
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

    def test_an_outage_is_told_by_a_listing(self, broken_storage: Any, folder: str) -> None:
        self.assert_tells_of_an_outage("list", lambda: keys(broken_storage, folder))


class CopiesFilesContract(StorageContract):
    capability = CopiesFiles

    @pytest.mark.parametrize("size", [0, 10, 9 * MIB])
    def test_a_copy_is_a_new_file(self, storage: Any, folder: str, size: int) -> None:
        content = os.urandom(size)
        storage.write(f"{folder}/a.txt", Source(content), "text/plain")
        started = datetime.now(timezone.utc) - timedelta(seconds=2)  # Clocks differ.
        copied = storage.copy(f"{folder}/a.txt", f"{folder}/b/b.txt")
        assert (copied.key, copied.size) == (f"{folder}/b/b.txt", size)
        storage.delete(f"{folder}/a.txt")
        assert_contents(storage, f"{folder}/b/b.txt", content)
        found = storage.stat(f"{folder}/b/b.txt")
        assert found.content_type == copied.content_type == "text/plain"
        assert found.modified >= started, "or gc would think it is a leftover"

    def test_a_copy_never_overwrites(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a", Source(b"a"), BINARY)
        storage.write(f"{folder}/b", Source(b"b"), BINARY)
        for target in (f"{folder}/b", f"{folder}/a"):
            with pytest.raises(KeyTaken):
                storage.copy(f"{folder}/a", target)
        assert_contents(storage, f"{folder}/a", b"a")
        assert_contents(storage, f"{folder}/b", b"b")

    def test_a_copy_needs_a_source_and_valid_keys(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a", Source(b"a"), BINARY)
        with pytest.raises(FileNotFound):
            storage.copy(f"{folder}/ghost", f"{folder}/b")
        for hostile in HOSTILE_KEYS:
            for source, target in [(hostile, f"{folder}/b"), (f"{folder}/a", hostile)]:
                with pytest.raises(InvalidKey):
                    storage.copy(source, target)
        self.assert_absent(storage, f"{folder}/b")

    def test_an_outage_is_told_by_a_copy(self, broken_storage: Any, folder: str) -> None:
        self.assert_tells_of_an_outage(
            "copy", lambda: broken_storage.copy(f"{folder}/a", f"{folder}/b")
        )


class ListsUnfinishedContract(StorageContract):
    capability = ListsUnfinished

    def test_discarding_what_is_gone_is_fine(self, storage: Any, folder: str) -> None:
        storage.discard_unfinished(
            Unfinished("gone", f"{folder}/a", 0, datetime.now(timezone.utc))
        )

    def test_an_outage_is_told_when_looking_for_remains(self, broken_storage: Any) -> None:
        self.assert_tells_of_an_outage(
            "list_unfinished", lambda: list(broken_storage.list_unfinished())
        )


class KeepsSiteContract(StorageContract):
    """Tests may share a storage, which has one such object, so each test writes it first."""

    capability = KeepsSite

    def test_the_site_is_kept_as_it_was_written(self, storage: Any) -> None:
        for content in (b'{"site": "a"}', b"", os.urandom(3000)):
            assert storage.write_site(content, replace=True) is True
            assert storage.read_site() == content

    def test_the_site_is_replaced_only_on_purpose(self, storage: Any) -> None:
        storage.write_site(b"first", replace=True)
        assert storage.write_site(b"second", replace=False) is False
        assert storage.read_site() == b"first"

    def test_the_site_is_none_of_the_files(self, storage: Any, folder: str) -> None:
        storage.write_site(b"site", replace=True)
        storage.write(f"{folder}/a", Source(b"a"), BINARY)
        for key in (SITE_KEY, SITE_KEY.partition("/")[0]):
            for call in (storage.stat, storage.open, storage.delete):
                with pytest.raises(InvalidKey):
                    call(key)
        if isinstance(storage, ListsFiles):
            assert not [key for key in keys(storage, "") if key.startswith(".")]
            assert not keys(storage, SITE_KEY)
        self.assert_nothing_unfinished(storage, SITE_KEY)
        storage.delete(f"{folder}/a")
        assert storage.read_site() == b"site"

    def test_an_outage_is_told_by_the_site(self, broken_storage: Any) -> None:
        self.assert_tells_of_an_outage("read_site", broken_storage.read_site)
        for replace in (True, False):
            write = partial(broken_storage.write_site, b"", replace=replace)
            self.assert_tells_of_an_outage("write_site", write)


class SignsUrlsContract(StorageContract):
    """Tests of signed URLs, except their expiry and forgery, which only real servers check."""

    capability = SignsUrls

    @pytest.mark.parametrize("disposition", ["attachment", "inline"])
    def test_a_signed_url_serves_the_file(
        self, storage: Any, folder: str, disposition: str
    ) -> None:
        content = os.urandom(100_000)
        storage.write(f"{folder}/a.bin", Source(content), "text/plain")
        url = storage.signed_url(f"{folder}/a.bin", 60, "résumé.txt", disposition, "text/plain")
        with answer_of(url) as answer:
            assert answer.read() == content
            assert answer.headers["Content-Type"].partition(";")[0] == "text/plain"
            kind, _, name = answer.headers["Content-Disposition"].partition(";")
        assert kind == disposition
        assert "filename*=UTF-8''r%C3%A9sum%C3%A9.txt" in name

    @pytest.mark.parametrize("name", UNUSUAL_KEYS)
    def test_unusual_keys_can_be_signed(self, storage: Any, folder: str, name: str) -> None:
        storage.write(f"{folder}/{name}", Source(name.encode()), BINARY)
        url = storage.signed_url(f"{folder}/{name}", 60, "a", "attachment", BINARY)
        with answer_of(url) as answer:
            assert answer.read() == name.encode()

    def test_a_signed_url_of_no_file_is_an_error(self, storage: Any, folder: str) -> None:
        url = storage.signed_url(f"{folder}/ghost", 60, "a", "attachment", BINARY)
        with pytest.raises(HTTPError) as caught, answer_of(url):
            pass
        caught.value.close()
        assert 400 <= caught.value.code < 500

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    def test_a_hostile_key_is_not_signed(self, storage: Any, key: str) -> None:
        with pytest.raises(InvalidKey):
            storage.signed_url(key, 60, "a", "attachment", BINARY)


class HasPathsContract(StorageContract):
    capability = HasPaths

    @pytest.mark.parametrize("name", [*UNUSUAL_KEYS, *LOOKALIKE_KEYS])
    def test_the_path_leads_to_the_file(self, storage: Any, folder: str, name: str) -> None:
        key = f"{folder}/{name}"
        storage.write(key, Source(name.encode()), BINARY)
        path = storage.path(key)
        assert os.path.isabs(path)
        assert Path(path).read_bytes() == name.encode()
        storage.delete(key)
        assert not os.path.exists(path)

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    def test_a_hostile_key_has_no_path(self, storage: Any, key: str) -> None:
        with pytest.raises(InvalidKey):
            storage.path(key)


@contextmanager
def answer_of(url: str) -> Iterator[Any]:
    """The response of a server to a client without credentials, proxies and cookies."""
    with closing(build_opener(ProxyHandler({})).open(url, timeout=TIMEOUT)) as answer:
        yield answer
