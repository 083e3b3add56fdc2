"""Files that arrive in chunks on Google Cloud Storage: requests, and calls that fail."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest
import requests

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.storage import Partial, gcloud_partials
from kinto_attachment.storage.gcloud import GoogleStorage
from kinto_attachment.storage.gcloud_bucket import BoundedSession
from kinto_attachment.storage.samples import Source, contents, keys
from tests.support.objects import google_storage
from tests.support.sampling import one_in, sampled
from tests.support.services import GoogleEmulator

ID = "0123456789abcdef" * 2


class Upload:
    """A caller that keeps the checkpoints."""

    def __init__(self, storage: GoogleStorage) -> None:
        self.storage = storage
        self.partial = storage.begin(ID, "a", "text/plain", disposition='inline; filename="e"')

    def keep(self, partial: Partial) -> None:
        self.partial = Partial(**json.loads(json.dumps(asdict(partial))))

    def append(self, content: bytes) -> None:
        self.keep(self.storage.append(self.partial, Source(content), self.keep))

    def finish(self) -> None:
        self.storage.finish(self.partial)


def hidden(storage: GoogleStorage) -> list[str]:
    return [found.key for found in storage.list_unfinished()]


@contextmanager
def failing_at(number: int, *, after: bool = False) -> Iterator[list[str]]:
    """Break the connection in one request, or before its response; yields all requests."""
    seen: list[str] = []
    send = BoundedSession.request

    def request(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(f"{method} {url}")
        fails = len(seen) == number
        if fails and not after:
            raise requests.ConnectionError("played")
        answer = send(self, method, url, *args, **kwargs)
        if fails:
            raise requests.ConnectionError("played")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BoundedSession, "request", request)
        yield seen


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, as if there were more pieces."""
    monkeypatch.setattr(gcloud_partials, "COMPOSED_AT_ONCE", 3)
    monkeypatch.setattr(gcloud_partials, "MUCH_GARBAGE", 5)


def test_pieces_are_composed_and_tidied(gcs: GoogleEmulator) -> None:
    content = os.urandom(200)
    with google_storage(gcs, cache_control="max-age=60") as storage:
        upload, most = Upload(storage), 0
        for position in range(len(content)):
            upload.append(content[position : position + 1])
            if position % 20 == 0:
                most = max(most, len(hidden(storage)))
        assert most <= 2 * gcloud_partials.COMPOSED_AT_ONCE + 2 * gcloud_partials.MUCH_GARBAGE
        upload.finish()
        assert contents(storage, "a") == content
        assert hidden(storage) == []
        found = gcs.client().bucket(storage.bucket_name).get_blob("a")
    assert found.content_type == "text/plain"
    assert found.content_disposition == 'inline; filename="e"'
    assert found.cache_control == "max-age=60"


@pytest.mark.parametrize(
    "options",
    [{"storage_class": "COLDLINE"}, {"kms_key": "projects/p/locations/l/keyRings/r/cryptoKeys/k"}],
    ids=["class", "key"],
)
def test_the_file_has_its_class_and_key(gcs: GoogleEmulator, options: dict[str, str]) -> None:
    """Pieces are deleted soon, so their class is one without costs for that."""
    with google_storage(gcs, **options) as storage:
        upload = Upload(storage)
        for content in (b"a" * 1000, b"b"):
            upload.append(content)
        sent: list[Any] = []
        session = storage._bucket.session()
        session.hooks["response"].append(lambda response, *_, **__: sent.append(response.request))
        upload.finish()
        assert contents(storage, "a") == b"a" * 1000 + b"b"
        assert hidden(storage) == []
    copying = [request for request in sent if "/rewriteTo/" in request.url]
    (copied,) = copying
    if "kms_key" in options:
        assert "destinationKmsKeyName" in copied.url
    else:
        assert json.loads(copied.body)["storageClass"] == "COLDLINE"
        composing = [
            request for request in sent if request.url.partition("?")[0].endswith("compose")
        ]
        assert json.loads(composing[0].body)["destination"]["storageClass"] == "STANDARD"


@sampled(2, "after", "options")
@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("options", [{}, {"storage_class": "COLDLINE"}], ids=["plain", "class"])
def test_each_call_can_fail_and_be_done_again(
    gcs: GoogleEmulator, after: bool, options: dict[str, str]
) -> None:
    content = os.urandom(22)

    def attempt(number: int) -> list[str]:
        with failing_at(number, after=after) as seen:
            try:
                upload = Upload(storage)
            except StorageUnavailable:
                upload = Upload(storage)
            while upload.partial.size < len(content):
                before = upload.partial.size
                try:
                    upload.append(content[before : before + 2])
                except StorageUnavailable:
                    upload.append(content[before : before + 2])
            try:
                upload.finish()
            except StorageUnavailable:
                upload.finish()
        assert contents(storage, "a") == content
        storage.delete("a")
        storage.discard(upload.partial)  # As gc does.
        assert hidden(storage) == keys(storage, "") == []
        return seen

    with google_storage(gcs, last_try=0, **options) as storage:
        calls = attempt(0)
        assert len(calls) > 15
        for number in range(1, len(calls) + 1, one_in(2)):
            attempt(number)
