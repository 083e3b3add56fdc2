"""Google Cloud Storage behind a network that breaks, and failures of Google itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import product

import pytest

from kinto_attachment.errors import FileNotFound, KeyTaken, StorageFull, StorageUnavailable
from kinto_attachment.storage import gcloud_bucket
from kinto_attachment.storage.gcloud import GoogleStorage
from kinto_attachment.storage.samples import BINARY, MIB, Source, contents, keys
from tests.support import waiting
from tests.support.faults import Answer, FaultProxy, answering
from tests.support.objects import THREE_BLOCKS, calls, google_storage, impatient
from tests.support.sampling import every_case
from tests.support.services import GoogleEmulator

PATIENCE = 18  # Seconds, for storages with a timeout of one: less than without `timeout`.
METHODS = list(calls(None))


@pytest.fixture
def proxy(gcs: GoogleEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(gcs.address) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


@pytest.fixture
def storage(gcs: GoogleEmulator, proxy: FaultProxy) -> Iterator[GoogleStorage]:
    """A storage in a separate bucket, behind the proxy."""
    with google_storage(gcs) as storage:
        storage.write("warm", Source(b"x"), BINARY)
        storage.delete("warm")
        yield storage


@contextmanager
def unavailable(within: float = PATIENCE) -> Iterator[None]:
    started = time.monotonic()
    with pytest.raises(StorageUnavailable) as caught:
        yield
    assert caught.value.__cause__ is not None
    assert time.monotonic() - started < within


@pytest.mark.parametrize("method", METHODS)
def test_a_server_that_refuses_is_given_up(
    gcs: GoogleEmulator, proxy: FaultProxy, method: str
) -> None:
    proxy.refuse()
    with google_storage(gcs, "bucket", last_try=0.2) as storage, unavailable():
        calls(storage)[method]()


def test_a_slow_answer_is_waited_for(
    storage: GoogleStorage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only calls that clean up have a shorter timeout."""
    monkeypatch.setattr(gcloud_bucket, "CLEANUP_TIMEOUT", 0.05)
    storage.write("a", Source(b"x"), BINARY)
    proxy.slow(4_000)
    assert storage.stat("a").size == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_server_that_hangs_is_given_up(
    gcs: GoogleEmulator, proxy: FaultProxy, method: str
) -> None:
    proxy.hang()
    options = {"timeout": 0.2, "last_try": 0.1}
    with google_storage(gcs, "bucket", **options) as storage, unavailable():
        calls(storage)[method]()
    assert proxy.connections >= 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, StorageUnavailable),
        (503, StorageUnavailable),
        (429, StorageUnavailable),
        (403, StorageUnavailable),
        (401, StorageUnavailable),
        (507, StorageFull),
    ],
)
def test_an_error_of_the_server_is_told_as_ours(
    gcs: GoogleEmulator,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    status: int,
    expected: type[Exception],
) -> None:
    if (method, status) == ("list_unfinished", 403):
        return  # The right to use objects does not include reading the bucket.
    body = b'{"error": {"code": 0, "message": "Not now."}}'
    with answering(Answer(status, body, {"Content-Type": "application/json"})) as (url, _):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        with (
            google_storage(gcs, "bucket", last_try=0.1) as storage,
            pytest.raises(expected) as caught,
        ):
            calls(storage)[method]()
    assert caught.value.__cause__ is not None


def test_what_is_no_answer_of_google_is_an_outage(
    gcs: GoogleEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(Answer(200, b"<html>Welcome")) as (url, _):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        with google_storage(gcs, "bucket", last_try=0.1) as storage:
            for name in ("delete two", "list", "stat", "write", "copy"):
                with unavailable():
                    calls(storage)[name]()


# A server that dies during a transfer.

BREAKS: dict[str, Callable[[FaultProxy], None]] = {
    "refuse": lambda proxy: proxy.refuse(),
    "hang": lambda proxy: proxy.hang(),
    "cut": lambda proxy: proxy.cut(),
}


MOMENTS = [("cut", 30 * MIB), ("refuse", 9 * MIB), ("hang", MIB)]
OTHERS = [pair for pair in product(BREAKS, (MIB, 9 * MIB, 30 * MIB)) if pair not in MOMENTS]


@pytest.mark.parametrize(("broken", "position"), [*MOMENTS, *(OTHERS if every_case() else ())])
def test_an_upload_that_breaks_off_leaves_nothing(
    storage: GoogleStorage, proxy: FaultProxy, broken: str, position: int
) -> None:
    def fail(reached: int) -> None:
        if reached >= position and not failing:
            failing.append(reached)
            BREAKS[broken](proxy)

    failing: list[int] = []
    # Before that, the storage has to wait for a busy server; nothing is sent before 5 MiB.
    patience = 10 if broken == "hang" else waiting.SECONDS
    with impatient(storage, 1 if position == MIB else patience), unavailable(waiting.SECONDS):
        storage.write("a", Source(bytes(40 * MIB), on_read=fail), BINARY)
    assert failing
    proxy.work()
    assert keys(storage, "") == []
    storage.write("a", Source(b"a"), BINARY)


@pytest.mark.parametrize("sent", [100_000, 9 * MIB, 16 * MIB])
def test_an_upload_that_is_cut_once_goes_on(
    storage: GoogleStorage, proxy: FaultProxy, sent: int
) -> None:
    content = bytes(range(256)) * (THREE_BLOCKS // 256)
    proxy.cut(sent=sent, once=True)
    storage.write("a", Source(content), BINARY)
    assert proxy.broken.is_set()
    assert contents(storage, "a") == content


@pytest.mark.parametrize("last_try", [0, waiting.SECONDS])
@pytest.mark.parametrize("size", [10, THREE_BLOCKS])
def test_a_file_whose_answer_is_lost_is_there(
    gcs: GoogleEmulator, proxy: FaultProxy, size: int, last_try: float
) -> None:
    def lose(position: int) -> None:
        if position >= size:  # At the end: later responses are for the last block.
            proxy.cut(received=50, once=True)

    content = b"x" * size
    with google_storage(gcs, last_try=last_try) as storage:
        storage.write("warm", Source(b"x"), BINARY)
        assert storage.write("a", Source(content, on_read=lose), BINARY).size == size
        assert proxy.broken.is_set()
        assert contents(storage, "a") == content


def test_a_key_that_is_taken_stays_so_when_an_answer_is_lost(
    storage: GoogleStorage, proxy: FaultProxy
) -> None:
    storage.write("a", Source(b"first"), BINARY)
    proxy.cut(received=50, once=True)
    with pytest.raises(KeyTaken):
        storage.write("a", Source(b"other"), BINARY)
    assert contents(storage, "a") == b"first"


@pytest.mark.parametrize("broken", ["cut", "hang"])
def test_a_download_that_breaks_off_is_an_outage(
    storage: GoogleStorage, proxy: FaultProxy, broken: str
) -> None:
    storage.write("a", Source(bytes(THREE_BLOCKS)), BINARY)
    getattr(proxy, broken)(received=12 * MIB)
    with impatient(storage, 2), closing(storage.open("a")) as reader:
        pieces: list[bytes] = []
        with unavailable():
            pieces.extend(iter(lambda: reader.read(MIB), b""))
    assert proxy.broken.is_set()
    assert sum(map(len, pieces)) <= 12 * MIB
    proxy.work()
    assert contents(storage, "a") == bytes(THREE_BLOCKS), "later downloads are not disturbed"


def test_a_download_that_ends_early_is_an_outage(
    gcs: GoogleEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Content-Length": "100", "Connection": "close"}
    with answering(Answer(200, b"x" * 10, headers)) as (url, _):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        with google_storage(gcs, "bucket") as storage, unavailable():
            contents(storage, "a")


@pytest.mark.parametrize("number", [1, 3])
def test_a_deletion_that_breaks_off_can_be_done_again(
    storage: GoogleStorage, proxy: FaultProxy, number: int
) -> None:
    names = list("abc")[:number]
    for name in names:
        storage.write(name, Source(b"x"), BINARY)
    proxy.cut(sent=0)
    with impatient(storage, 1), unavailable():
        storage.delete(*names)
    proxy.work()
    assert storage.delete(*names) is True
    assert keys(storage, "") == []
    with pytest.raises(FileNotFound):
        storage.stat("a")
