"""Files by key."""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path

import pytest

from kinto_attachment.client import AttachmentClient, FileStore, NotFoundError, file_store
from kinto_attachment.client.file_store import key_of, record_id
from tests.support import live
from tests.support.sampling import sampled
from tests.support.scripts import AUTH

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
    "ends\\",
    "folder/.",
    "..",
    " ",
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
    """A store on the embedded server only."""
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


def test_progress_is_told(simple: FileStore) -> None:
    up: list[int] = []
    down: list[tuple[int, int]] = []
    simple.set("k", b"content", progress=lambda done, total: up.append(total - done))
    assert up[-1] == 0
    simple.get_file("k", io.BytesIO(), progress=lambda *told: down.append(told))
    assert down[-1] == (7, 7)


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


class Body:
    """An object with only ``read``, which returns less than requested."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._content.read(min(size, 1000))


def test_values_of_all_kinds(store: FileStore, tmp_path: Path) -> None:
    content = random.Random(5).randbytes(300_000)
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as opened:
        opened.seek(10)
        for value, expected in (
            (content, content),
            (bytearray(content), content),
            (memoryview(content), content),
            ("Grüße", "Grüße".encode()),
            ("", b""),
            (path, content),
            (opened, content[10:]),
            (Body(content), content),
            (io.BytesIO(content), content),
        ):
            store.set("k", value)
            assert store.get("k") == expected, type(value)
    store.set("k", "a;b", mimetype="text/x-notes")
    assert store.stat("k").mimetype == "text/x-notes"
    with pytest.raises(TypeError):
        store.set("k", 7)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        store.set("k", io.StringIO("a text"))  # type: ignore[arg-type]
    assert store.get("k") == b"a;b"


def test_stat(simple: FileStore) -> None:
    simple.set("folder/f.txt", b"content")
    found = simple.stat("folder/f.txt")
    assert (found.size, found.filename, found.mimetype) == (7, "f.txt", "text/plain")
    with pytest.raises(NotFoundError, match="'none'"):
        simple.stat("none")


def test_copy(store: FileStore) -> None:
    content = random.Random(6).randbytes(300_000)
    store.set("a/one.txt", content)
    store.set("b/two.txt", b"before")
    store.copy("a/one.txt", "b/two.txt")
    assert store.get("a/one.txt") == store.get("b/two.txt") == content
    record = store.client.kinto.get_record(id=record_id("b/two.txt"))["data"]
    assert record["key"] == "b/two.txt"
    assert record["attachment"]["filename"] == "two.txt"
    assert record["attachment"]["mimetype"] == "text/plain"
    with pytest.raises(NotFoundError, match="'none'"):
        store.copy("none", "b/two.txt")
    assert store.list() == ["a/one.txt", "b/two.txt"]


def test_copies_of_the_same_name_share_the_file(simple: FileStore) -> None:
    simple.set("a/one.txt", b"content")
    simple.copy("a/one.txt", "b/one.txt")
    simple.copy("a/one.txt", "b/two.txt")
    records = [
        simple.client.kinto.get_record(id=record_id(key))["data"]
        for key in ("a/one.txt", "b/one.txt", "b/two.txt")
    ]
    source, same, other = (record["attachment"]["location"] for record in records)
    assert source == same != other
    assert records[1]["key"] == "b/one.txt"
    assert simple.get("b/one.txt") == b"content"


NESTED = ["a", "a/", "a/1", "a/2/x", "a/2/y", "a/3", "a0", "b//c", "b/d", "ä/1", "z"]


def entries(prefix: str, *, recursive: bool) -> list[str]:
    """The entries of a folder, by the definition."""
    found = set()
    for key in NESTED:
        if key.startswith(prefix):
            name, slash, _ = key[len(prefix) :].partition("/")
            found.add(f"{prefix}{name}{slash}" if not recursive else key)
    return sorted(found, key=str.encode)


@pytest.fixture(scope="module")
def nested(embedded: live.Server) -> FileStore:
    """A store with keys in folders; tests do not write to it."""
    store = FileStore(AttachmentClient(embedded.url, "default", "nested", AUTH))
    for key in NESTED:
        store.set(key, b"x")
    return store


@sampled(2, "size", "prefix", "recursive")
@pytest.mark.parametrize("recursive", [True, False])
@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/2", "a/2/", "b/", "ä/", "c", "z"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_folders(
    nested: FileStore, monkeypatch: pytest.MonkeyPatch, size: int, prefix: str, recursive: bool
) -> None:
    monkeypatch.setattr(file_store, "LIST_LIMIT", size)
    expected = entries(prefix, recursive=recursive)
    assert list(nested.iter_list(prefix, recursive)) == expected
    assert nested.list(prefix, recursive) == expected[:size]
    for number, entry in enumerate(expected, 1):
        rest = list(nested.iter_list(prefix, recursive, entry))
        assert rest == expected[number:], entry


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_start_that_is_no_entry(
    nested: FileStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(file_store, "LIST_LIMIT", size)
    assert nested.list(start_after="ä/2") == []
    assert nested.list("b", start_after="a")[:1] == ["b//c"]


def test_a_folder_with_many_files_is_one_entry_and_few_requests(
    simple: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_store, "LIST_LIMIT", 4)
    for number in range(12):
        simple.set(f"many/{number:02}", b"x")
    simple.set("other", b"x")
    asked = []
    request = simple.client.session.request

    def count(method: str, *args: object, **options: object) -> object:
        asked.append(method)
        return request(method, *args, **options)

    monkeypatch.setattr(simple.client.session, "request", count)
    assert simple.list(recursive=False) == ["many/", "other"]
    assert len(asked) == 2


def test_what_others_put_into_the_collection_is_no_key(simple: FileStore) -> None:
    client = simple.client
    simple.set("k", b"x")
    client.upload("other", io.BytesIO(b"x"), filename="f")
    client.upload("key-6b6", io.BytesIO(b"x"), filename="f")  # Half a byte.
    client.upload("key-ff", io.BytesIO(b"x"), filename="f")  # Not UTF-8.
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
