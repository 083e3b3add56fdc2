"""Files by key."""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path

import pytest

from kinto_attachment.client import AttachmentClient, FileStore, NotFoundError, file_store
from kinto_attachment.client.file_store import key_of, record_id

KEYS = [
    "a",
    "a/b/c.txt",
    "a b",
    "/absolute",
    "../../etc/passwd",
    "trailing/",
    ".hidden",
    "new\nline\x7f",
    "nul\0",
    "quote\"'`",
    "100%_*?#&=;,",
    "back\\slash",
    "Ünï/сөд/日本.txt",
    "\N{PILE OF POO}",
    "UPPER",
    "upper",
    "z" * 1024,
]


@pytest.fixture
def store(client: AttachmentClient) -> FileStore:
    return FileStore(client)


@pytest.fixture
def simple(local: AttachmentClient) -> FileStore:
    """On the embedded server only."""
    return FileStore(local)


def test_keys_have_any_characters(store: FileStore) -> None:
    for number, key in enumerate(KEYS):
        assert not store.exists(key)
        store.set(key, f"{number}".encode())
    for number, key in enumerate(KEYS):
        assert store.exists(key)
        assert store.get(key) == f"{number}".encode()
    assert store.list() == sorted(KEYS, key=str.encode)
    assert list(store.iter_list()) == store.list()


@pytest.mark.parametrize("key", ["", "z" * 1025, "ü" * 513])
def test_other_keys_are_refused(key: str) -> None:
    store = FileStore(AttachmentClient("http://127.0.0.1:9/v1", "b", "c"))
    for method in (store.get, store.exists, store.delete, lambda key: store.set(key, b"")):
        with pytest.raises(ValueError, match="1 to 1024 bytes"):
            method(key)


def test_a_missing_key_is_an_error_that_names_it(store: FileStore, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    for missing in (
        lambda: store.get("no/such"),
        lambda: store.get_file("no/such", target),
        lambda: store.delete("no/such"),
    ):
        with pytest.raises(NotFoundError, match="'no/such'"):
            missing()
    assert not target.exists()


def test_set_replaces(store: FileStore) -> None:
    store.set("k", b"first")
    store.set("k", b"second")
    assert store.get("k") == b"second"
    assert store.list() == ["k"]


def test_files_by_path_and_open(store: FileStore, tmp_path: Path) -> None:
    content = random.Random(3).randbytes(1_000_000)
    (tmp_path / "in").write_bytes(content)
    store.set_file("by/path", tmp_path / "in")
    store.set_file("open", io.BytesIO(content), mimetype="text/x-notes")
    store.get_file("by/path", tmp_path / "out")
    opened = io.BytesIO()
    store.get_file("open", opened)
    assert (tmp_path / "out").read_bytes() == opened.getvalue() == content
    assert store.client.stat(record_id("open")).mimetype == "text/x-notes"


def test_delete_deletes_the_record(store: FileStore) -> None:
    store.set("k", b"x")
    store.delete("k")
    assert not store.exists("k")
    assert store.list() == []
    assert list(store.client.records()) == []


def test_list_takes_a_prefix(store: FileStore) -> None:
    keys = ["a", "a/1", "a/2", "aa", "b", "a%", "aÿ", "aĀ", "A/1"]
    for key in keys:
        store.set(key, b"x")
    for prefix in ("", "a", "a/", "a/1", "a%", "aÿ", "b", "c", "A"):
        expected = sorted((key for key in keys if key.startswith(prefix)), key=str.encode)
        assert store.list(prefix) == expected, prefix
        assert list(store.iter_list(prefix)) == expected, prefix


def test_a_list_is_limited_and_an_iteration_is_not(
    simple: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert file_store.LIST_LIMIT == 1000
    monkeypatch.setattr(file_store, "LIST_LIMIT", 3)
    keys = [f"{number:02}" for number in range(10)]
    for key in keys:
        simple.set(key, b"x")
    assert simple.list() == keys[:3]
    assert list(simple.iter_list()) == keys
    assert list(itertools.islice(simple.iter_list("0"), 5)) == keys[:5]


def test_what_others_put_into_the_collection_is_no_key(simple: FileStore) -> None:
    client = simple.client
    simple.set("k", b"x")
    client.upload("other", io.BytesIO(b"x"), filename="f")
    client.upload("key-6b6", io.BytesIO(b"x"), filename="f")  # Half a byte.
    client.upload("key-ff", io.BytesIO(b"x"), filename="f")  # No UTF-8.
    client.kinto.create_record(id=record_id("no file"), data={})
    assert simple.list() == ["k"]
    assert not simple.exists("no file")


def test_people_can_read_the_key_in_the_record(simple: FileStore) -> None:
    simple.set("folder/f.txt", b"x")
    record = simple.client.kinto.get_record(id=record_id("folder/f.txt"))["data"]
    assert record["key"] == "folder/f.txt"
    assert record["attachment"]["filename"] == "f.txt"
    assert record["attachment"]["mimetype"] == "text/plain"


def test_ids_keep_prefixes_and_order() -> None:
    ids = sorted(record_id(key) for key in KEYS)
    assert [key_of(id) for id in ids] == sorted(KEYS, key=str.encode)
    assert record_id("abc").startswith(record_id("ab"))
    assert key_of("5ba0759d-e68e-d508-4204-65f67e1de31f") is None
