"""S3 behind a network that breaks, and failures of S3 itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import product
from typing import Any

import pytest

from kinto_attachment.errors import FileNotFound, StorageFull, StorageUnavailable
from kinto_attachment.storage import s3_clients
from kinto_attachment.storage.s3 import S3Storage
from kinto_attachment.storage.samples import BINARY, MIB, Source, contents, keys
from tests.support import waiting
from tests.support.faults import Answer, FaultProxy, answering
from tests.support.objects import (
    THREE_PARTS,
    answer,
    calls,
    hooked,
    impatient,
    recorded,
    s3_storage,
)
from tests.support.sampling import every_case
from tests.support.services import S3

TIMEOUT = 0.2
PATIENCE = 25  # Seconds for a few attempts and the cleanup: less than without `timeout`.
METHODS = list(calls(None))


@pytest.fixture
def proxy(seaweedfs: S3) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def bucket(seaweedfs: S3) -> str:
    """A bucket with only a small file ``a``, as long as tests succeed."""
    with s3_storage(seaweedfs) as storage:
        storage.write("z", Source(b"x"), BINARY)
        return storage.bucket_name


@pytest.fixture
def storage(seaweedfs: S3, proxy: FaultProxy) -> Iterator[S3Storage]:
    """A storage in a separate bucket, behind the proxy, which already knows the server."""
    with s3_storage(seaweedfs, endpoint_url=proxy.url, timeout=20) as storage:
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


# A server that does not work.


@pytest.mark.parametrize("method", METHODS)
def test_a_server_that_refuses_is_given_up(proxy: FaultProxy, bucket: str, method: str) -> None:
    proxy.refuse()
    options = {"num_retries": 2}
    with s3_storage(S3(proxy.url, "key", "secret"), bucket, **options) as storage, unavailable():
        calls(storage)[method]()


@pytest.mark.parametrize("method", METHODS)
def test_a_server_that_hangs_is_given_up(proxy: FaultProxy, bucket: str, method: str) -> None:
    proxy.hang()
    options = {"timeout": TIMEOUT, "num_retries": 2}
    with s3_storage(S3(proxy.url, "key", "secret"), bucket, **options) as storage, unavailable():
        calls(storage)[method]()
    assert proxy.connections >= 2, "it tries more than once"


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>Not now.</Message></Error>".encode()


@pytest.fixture(scope="module")
def failing() -> Iterator[tuple[Answer, list[str], S3Storage]]:
    """The response of a server, its requests, and a storage on it."""
    told = Answer(500)
    with (
        answering(told) as (url, requests),
        s3_storage(S3(url, "key", "secret"), "bucket", num_retries=1) as storage,
    ):
        yield told, requests, storage


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (500, "InternalError", StorageUnavailable),
        (503, "SlowDown", StorageUnavailable),
        (403, "AccessDenied", StorageUnavailable),
        (403, "InvalidAccessKeyId", StorageUnavailable),
        (400, "ExpiredToken", StorageUnavailable),
        (507, "InsufficientStorage", StorageFull),
        (507, "XMinioStorageFull", StorageFull),
        (403, "QuotaExceeded", StorageFull),
    ],
)
def test_an_error_of_the_server_is_told_as_ours(
    failing: tuple[Answer, list[str], S3Storage],
    method: str,
    status: int,
    code: str,
    expected: type[Exception],
) -> None:
    if code == "QuotaExceeded" and method in ("stat", "copy", "write"):
        expected = StorageUnavailable  # They begin with HEAD, whose response has no code.
    told, requests, storage = failing
    told.status, told.body = status, error(code)
    requests.clear()
    with pytest.raises(expected) as caught:
        calls(storage)[method]()
    assert caught.value.__cause__ is not None
    assert requests


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>Welcome"), (502, b"<html>Bad")])
def test_what_is_no_answer_of_s3_is_an_outage(status: int, body: bytes) -> None:
    with (
        answering(Answer(status, body)) as (url, _),
        s3_storage(S3(url, "key", "secret"), "bucket", num_retries=1) as storage,
        unavailable(),
    ):
        list(storage.list())


@pytest.mark.parametrize("num_retries", [1, 3])
def test_a_call_is_made_as_often_as_set(num_retries: int) -> None:
    with (
        answering(Answer(503, error("ServiceUnavailable"))) as (url, requests),
        s3_storage(S3(url, "key", "secret"), "bucket", num_retries=num_retries) as storage,
        unavailable(),
    ):
        storage.stat("a")
    assert requests == ["HEAD /bucket/a"] * num_retries


# A server that dies during a transfer.

BREAKS: dict[str, Callable[[FaultProxy], None]] = {
    "refuse": lambda proxy: proxy.refuse(),
    "hang": lambda proxy: proxy.hang(),
    "cut": lambda proxy: proxy.cut(),
}


# Before the first part, in the middle, and near the end; a hanging server takes long.
MOMENTS = [("cut", 30 * MIB), ("refuse", 9 * MIB), ("hang", MIB)]
OTHERS = [pair for pair in product(BREAKS, (MIB, 9 * MIB, 30 * MIB)) if pair not in MOMENTS]


@pytest.mark.parametrize(("broken", "position"), [*MOMENTS, *(OTHERS if every_case() else ())])
def test_an_upload_that_breaks_off_leaves_nothing(
    storage: S3Storage, proxy: FaultProxy, seaweedfs: S3, broken: str, position: int
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
    # The next successful upload also removes what could not be removed in time.
    storage.write("b", Source(b"b"), BINARY)
    with s3_storage(seaweedfs, storage.bucket_name) as direct:
        assert keys(direct, "") == ["b"]
        assert list(direct.list_unfinished()) == []


@pytest.mark.parametrize("sent", [100_000, 6 * MIB, 10 * MIB])
def test_an_upload_that_is_cut_once_goes_on(
    storage: S3Storage, proxy: FaultProxy, sent: int
) -> None:
    content = bytes(range(256)) * (THREE_PARTS // 256)
    proxy.cut(sent=sent, once=True)
    storage.write("a", Source(content), BINARY)
    assert proxy.broken.is_set()
    assert contents(storage, "a") == content
    assert list(storage.list_unfinished()) == []


def test_a_failing_reader_leaves_no_upload_even_as_the_server_dies(
    storage: S3Storage, proxy: FaultProxy, seaweedfs: S3
) -> None:
    def fail(reached: int) -> None:
        if reached >= 12 * MIB:
            proxy.refuse()
            raise ValueError("the client is gone")

    with pytest.raises(ValueError, match="the client is gone"):
        storage.write("a", Source(bytes(16 * MIB), on_read=fail), BINARY)
    with s3_storage(seaweedfs, storage.bucket_name) as direct:
        assert len(list(direct.list_unfinished())) == 1
        proxy.work()
        storage.write("b", Source(b"b"), BINARY)
        assert list(direct.list_unfinished()) == []


def test_an_upload_is_aborted_only_once_its_parts_are_answered(storage: S3Storage) -> None:
    """Otherwise, a part that arrives later may stay without an upload, and cost money."""

    def fail(reached: int) -> None:
        if reached >= 12 * MIB:
            assert all(in_flight.acquire(timeout=PATIENCE) for _ in range(2))
            raise ValueError("the client is gone")

    def hold(**_: Any) -> None:
        in_flight.release()
        aborted.wait(0.5)  # Nothing happens meanwhile, unless the upload is aborted too early.

    def abort(**_: Any) -> None:
        order.append("abort")
        aborted.set()

    in_flight = threading.Semaphore(0)
    aborted = threading.Event()
    order: list[str] = []
    # The cleanup has its own boto3 client.
    cleaner = storage._bucket.client(cleanup=True).meta.events
    cleaner.register("before-send.s3.AbortMultipartUpload", abort)
    with (
        hooked(storage, "before-send.s3.UploadPart", hold),
        hooked(storage, "after-call.s3.UploadPart", lambda **_: order.append("part")),
        pytest.raises(ValueError, match="the client is gone"),
    ):
        storage.write("a", Source(bytes(16 * MIB), on_read=fail), BINARY)
    assert order == ["part", "part", "abort"]
    assert list(storage.list_unfinished()) == []


# Lost responses do not lose files.


def lose_answer(proxy: FaultProxy, operation: str) -> Callable[..., None]:
    def hook(event_name: str, **_: Any) -> None:
        if event_name.endswith(f".{operation}") and not lost:
            lost.append(operation)
            # Not the interim answer to "Expect: 100-continue", which is shorter.
            proxy.cut(received=50, once=True)

    lost: list[str] = []
    return hook


@pytest.mark.parametrize("num_retries", [1, 3])
@pytest.mark.parametrize(
    ("size", "operation"),
    [
        (10, "PutObject"),
        (2 * MIB, "PutObject"),
        (THREE_PARTS, "PutObject"),  # The request that claims the key.
        (THREE_PARTS, "CompleteMultipartUpload"),
    ],
)
def test_a_file_whose_answer_is_lost_is_there(
    seaweedfs: S3, proxy: FaultProxy, size: int, operation: str, num_retries: int
) -> None:
    options = {"endpoint_url": proxy.url, "num_retries": num_retries}
    with s3_storage(seaweedfs, **options) as storage:
        storage.write("warm", Source(b"x"), BINARY)
        events = storage.s3_client.meta.events
        events.register("before-send.s3", lose_answer(proxy, operation))
        content = bytes(range(250)) * (size // 250 + 1)
        assert storage.write("a", Source(content), BINARY).size == len(content)
        assert contents(storage, "a") == content
        assert proxy.broken.is_set()
        assert list(storage.list_unfinished()) == []


def test_a_copy_whose_answer_is_lost_is_there(storage: S3Storage, proxy: FaultProxy) -> None:
    storage.write("a", Source(b"content"), "text/plain")
    events = storage.s3_client.meta.events
    events.register("before-send.s3", lose_answer(proxy, "CopyObject"))
    assert storage.copy("a", "b").size == 7
    assert proxy.broken.is_set()
    assert contents(storage, "b") == b"content"


def test_a_claim_does_not_outlive_its_upload(storage: S3Storage) -> None:
    fail = answer(500, "InternalError")
    with (
        recorded(storage) as requests,
        hooked(storage, "before-send.s3.CompleteMultipartUpload", fail),
        unavailable(),
    ):
        storage.write("a", Source(bytes(THREE_PARTS)), BINARY)
    assert tuple(dict.fromkeys(n for n, _ in requests))[-2:] == (
        "PutObject",
        "CompleteMultipartUpload",
    )
    with pytest.raises(FileNotFound):
        storage.stat("a")
    assert list(storage.list_unfinished()) == []


# DownloadMode.


@pytest.mark.parametrize("broken", ["cut", "hang"])
def test_a_download_that_breaks_off_is_an_outage(
    storage: S3Storage, proxy: FaultProxy, broken: str
) -> None:
    storage.write("a", Source(bytes(THREE_PARTS)), BINARY)
    getattr(proxy, broken)(received=8 * MIB)
    with impatient(storage, 2), closing(storage.open("a")) as reader:
        pieces = []
        with unavailable():
            pieces.extend(iter(lambda: reader.read(MIB), b""))
    assert proxy.broken.is_set()
    assert 0 < sum(map(len, pieces)) <= 8 * MIB
    proxy.work()
    assert contents(storage, "a") == bytes(THREE_PARTS), "later downloads are not disturbed"


def test_a_download_that_ends_early_is_an_outage() -> None:
    headers = {"Content-Length": "100", "Connection": "close"}
    with (
        answering(Answer(200, b"x" * 10, headers)) as (url, _),
        s3_storage(S3(url, "key", "secret"), "bucket") as storage,
        unavailable(),
    ):
        contents(storage, "a")


def test_a_download_that_is_left_early_does_not_disturb_others(
    seaweedfs: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_clients, "CONNECTIONS", 3)
    with s3_storage(seaweedfs, timeout=20) as storage:
        storage.write("a", Source(bytes(THREE_PARTS)), BINARY)
        storage.write("b", Source(b"b"), BINARY)
        for _ in range(8):  # More than the connections.
            with closing(storage.open("a")) as reader:
                assert reader.read(10) == bytes(10)
        assert contents(storage, "b") == b"b"


# Deletions.


@pytest.mark.parametrize("number", [1, 3])
def test_a_deletion_that_breaks_off_can_be_done_again(
    storage: S3Storage, proxy: FaultProxy, number: int
) -> None:
    names = list("abc")[:number]
    for name in names:
        storage.write(name, Source(b"x"), BINARY)
    proxy.cut(sent=0)
    with unavailable():
        storage.delete(*names)
    proxy.work()
    storage.delete(*names)
    assert keys(storage, "") == []
