"""Storages on the servers of ``tests.support.services``, and the files that tests write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from kinto_attachment.storage.gcloud import GoogleStorage
from kinto_attachment.storage.gcloud_bucket import GoogleBucket
from kinto_attachment.storage.s3 import S3Storage
from kinto_attachment.storage.samples import BINARY, MIB, Source, contents
from tests.support import waiting
from tests.support.services import S3, GoogleEmulator

PART = 5 * MIB  # The smallest that S3 accepts.
THREE_PARTS = 11 * MIB
THREE_BLOCKS = 17 * MIB  # As they are sent to Google.


@contextmanager
def s3_storage(server: S3, bucket: str = "", **changes: Any) -> Iterator[S3Storage]:
    """A storage in a new bucket, or in the given one."""
    options: dict[str, Any] = {
        "part_size": PART,
        "endpoint_url": server.endpoint_url,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "region": server.region,
    }
    storage = S3Storage(bucket or server.create_bucket(), **{**options, **changes})
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def google_storage(
    server: GoogleEmulator,
    bucket: str = "",
    *,
    timeout: float = 20,
    last_try: float = waiting.SECONDS,
    **changes: Any,
) -> Iterator[GoogleStorage]:
    """A storage in a new bucket, or in the given one."""
    storage = GoogleStorage(bucket or server.create_bucket(), **changes)
    storage._bucket = GoogleBucket(
        storage.bucket_name,
        credentials=changes.get("credentials"),
        timeout=(timeout, timeout),
        last_try=last_try,
    )
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def impatient(storage: Any, seconds: float, last_try: float = 0.5) -> Iterator[None]:
    """Within this context, a storage times out after so many seconds, and retries only briefly.

    Calls that succeed belong outside: a server may be silent for moments on a busy machine.
    """
    if isinstance(storage, S3Storage):
        target, changes = storage._bucket._clients, {"_timeout": seconds, "_tries": 1}
    else:
        target, retry = storage._bucket, DEFAULT_RETRY.with_timeout(last_try)
        changes = {"_timeout": (seconds, seconds), "retry": retry}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setattr(target, name, value)
        storage.close()  # The next call creates clients with these settings.
        yield
    storage.close()


def calls(storage: Any) -> dict[str, Callable[[], object]]:
    """One call of each method that reaches the server."""
    return {
        "write": lambda: storage.write("a", Source(b"x"), BINARY),
        "write a large file": lambda: storage.write("a", Source(bytes(9 * MIB)), BINARY),
        "open": lambda: contents(storage, "a"),
        "stat": lambda: storage.stat("a"),
        "delete": lambda: storage.delete("a"),
        "delete two": lambda: storage.delete("a", "b"),
        "list": lambda: list(storage.list()),
        "copy": lambda: storage.copy("a", "b"),
        "list_unfinished": lambda: list(storage.list_unfinished()),
    }


@contextmanager
def recorded(storage: S3Storage) -> Iterator[list[tuple[str, dict[str, str]]]]:
    """The operations that are sent, with their headers in lower case."""
    sent: list[tuple[str, dict[str, str]]] = []

    def note(request: Any, event_name: str, **_: Any) -> None:
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        sent.append((event_name.rpartition(".")[2], headers))

    with hooked(storage, "before-send.s3", note):
        yield sent


@contextmanager
def hooked(
    storage: S3Storage, event: str, hook: Callable[..., Any], *, early: bool | None = None
) -> Iterator[None]:
    """Let ``hook`` see, change or answer the requests of an event of boto3.

    ``early``: only requests for parts that are sent while they arrive, or only the others.
    """
    clients = storage._bucket._clients
    events = [
        clients.get(early=kind).meta.events for kind in (False, True) if early in (None, kind)
    ]
    for each in events:
        each.register(event, hook)
    try:
        yield
    finally:
        for each in events:
            each.unregister(event, hook)


def answer(status: int, code: str) -> Callable[..., AWSResponse]:
    """A hook for ``before-send`` that answers as a server of S3 with this error would."""
    body = f"<Error><Code>{code}</Code><Message>Told to.</Message></Error>".encode()

    def respond(request: Any, **_: Any) -> AWSResponse:
        raw = SimpleNamespace(stream=lambda: iter([body]))
        return AWSResponse(request.url, status, {"Content-Type": "application/xml"}, raw)

    return respond
