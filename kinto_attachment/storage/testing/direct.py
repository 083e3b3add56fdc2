"""The tests for storages to which clients send the bytes of files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener
from uuid import uuid4

import pytest

from kinto_attachment.errors import (
    FileNotFound,
    InvalidKey,
    KeyTaken,
    UploadIncomplete,
    WrongLength,
)
from kinto_attachment.storage import ListsUnfinished, Partial, PartRequest, UploadsDirectly
from kinto_attachment.storage.samples import (
    BINARY,
    HOSTILE_KEYS,
    MIB,
    TIMEOUT,
    Source,
    assert_contents,
    contents,
)

from .core import StorageContract

PART = 5 * MIB


class Upload:
    """The data that a caller keeps about a file, as JSON."""

    def __init__(
        self, storage: Any, key: str, length: int, content_type: str = BINARY, sha256: str = ""
    ) -> None:
        self.storage = storage
        begun = storage.begin_direct(
            uuid4().hex, key, content_type, length=length, part_size=PART, sha256=sha256
        )
        self.kept = json.dumps(asdict(begun))

    @property
    def partial(self) -> Partial:
        return Partial(**json.loads(self.kept))

    @property
    def requests(self) -> list[PartRequest]:
        requests: list[PartRequest] = self.storage.part_requests(self.partial, 60)
        return requests

    def send(self, content: bytes) -> None:
        for part in self.requests:
            assert send(part, content[part.offset :][: part.size]) < 300

    def finish(self) -> str:
        vouched: str = self.storage.finish_direct(self.partial)
        return vouched


class UploadsDirectlyContract(StorageContract):
    """Files in parts that clients with their URLs send.

    Except the expiry and forgery of URLs, which only real servers check.
    """

    capability = UploadsDirectly

    @pytest.mark.parametrize("size", [0, 10, PART, 2 * PART + 3])
    def test_a_file_is_sent_in_parts(self, storage: Any, folder: str, size: int) -> None:
        content = os.urandom(size)
        upload = Upload(storage, f"{folder}/a.txt", size, "text/plain")
        parts = upload.requests
        assert [part.number for part in parts] == list(range(1, len(parts) + 1))
        ends = [part.offset + part.size for part in parts]
        assert [part.offset for part in parts] == [0, *ends[:-1]]
        assert ends[-1] == size
        for part in reversed(parts):
            assert send(part, content[part.offset :][: part.size]) < 300
        found = storage.arrived_parts(upload.partial)
        assert {number: each.size for number, each in found.items()} == {
            part.number: part.size for part in parts
        }
        assert all(each.modified.utcoffset() is not None for each in found.values())
        storage.check_parts(upload.partial)
        assert not storage.exists(f"{folder}/a.txt")
        assert upload.finish() in ("", hashlib.sha256(content).hexdigest())
        stored = storage.stat(f"{folder}/a.txt")
        assert (stored.size, stored.content_type) == (size, "text/plain")
        assert_contents(storage, f"{folder}/a.txt", content)
        self.assert_nothing_of_direct(storage, upload)

    @pytest.mark.parametrize("size", [0, 10, PART + 3])
    def test_what_is_finished_cannot_be_exchanged(
        self, storage: Any, folder: str, size: int
    ) -> None:
        content = os.urandom(size)
        upload = Upload(storage, f"{folder}/a", size)
        before = upload.requests
        upload.send(content)
        for _ in range(3):
            upload.finish()
            for part in (*before, *upload.requests):
                assert send(part, b"x" * part.size) >= 400
            assert_contents(storage, f"{folder}/a", content)
        with pytest.raises(FileNotFound):
            storage.arrived_parts(upload.partial)

    def test_missing_parts_are_waited_for(self, storage: Any, folder: str) -> None:
        content = os.urandom(PART + 3)
        upload = Upload(storage, f"{folder}/a", len(content))
        for number, part in enumerate(upload.requests):
            assert [*storage.arrived_parts(upload.partial)] == [*range(1, number + 1)]
            for step in (storage.check_parts, storage.finish_direct):
                with pytest.raises(UploadIncomplete):
                    step(upload.partial)
            assert not storage.exists(f"{folder}/a")
            assert send(part, content[part.offset :][: part.size]) < 300
        upload.finish()
        assert_contents(storage, f"{folder}/a", content)

    @pytest.mark.parametrize("size", [9, 11])
    def test_another_size_is_not_finished(self, storage: Any, folder: str, size: int) -> None:
        upload = Upload(storage, f"{folder}/a", 10)
        (part,) = upload.requests
        status = send(part, b"x" * size)
        for step in (storage.check_parts, storage.finish_direct):
            with pytest.raises(UploadIncomplete if status >= 400 else WrongLength):
                step(upload.partial)
        assert not storage.exists(f"{folder}/a")

    def test_a_part_that_is_sent_twice_is_there_once(self, storage: Any, folder: str) -> None:
        upload = Upload(storage, f"{folder}/a", PART + 10)
        first, last = upload.requests
        assert send(last, b"y" * 10) < 300
        assert send(first, b"x" * PART) < 300
        assert send(last, b"z" * 10) < 300
        upload.finish()
        found = contents(storage, f"{folder}/a")
        assert found[:PART] == b"x" * PART
        assert found[PART:] in (b"y" * 10, b"z" * 10), "never a mixture"

    @pytest.mark.parametrize("sent", [b"0123456789", b"9876543210"])
    def test_a_storage_vouches_for_what_it_has(
        self, storage: Any, folder: str, sent: bytes
    ) -> None:
        wanted = hashlib.sha256(b"0123456789").hexdigest()
        upload = Upload(storage, f"{folder}/a", 10, sha256=wanted)
        (part,) = upload.requests
        if send(part, sent) >= 400:
            assert sent != b"0123456789"
            with pytest.raises(UploadIncomplete):
                upload.finish()
        else:
            assert upload.finish() in ("", hashlib.sha256(sent).hexdigest())
            assert_contents(storage, f"{folder}/a", sent)

    def test_a_hash_of_many_parts_is_known(self, storage: Any, folder: str) -> None:
        """No storage can compare it before all parts have arrived."""
        content = os.urandom(PART + 10)
        wanted = hashlib.sha256(content).hexdigest()
        upload = Upload(storage, f"{folder}/a", len(content), sha256=wanted)
        upload.send(content)
        assert upload.finish() in ("", wanted)

    @pytest.mark.parametrize("size", [10, PART + 3])
    def test_a_taken_key_is_not_overwritten_by_a_direct_finish(
        self, storage: Any, folder: str, size: int
    ) -> None:
        upload = Upload(storage, f"{folder}/a", size)
        upload.send(b"y" * size)
        storage.write(f"{folder}/a", Source(b"x" * size), BINARY)
        for _ in range(2):
            with pytest.raises(KeyTaken):
                upload.finish()
        with pytest.raises(KeyTaken):
            Upload(storage, f"{folder}/a", size)
        storage.discard(upload.partial)
        assert_contents(storage, f"{folder}/a", b"x" * size)
        self.assert_nothing_of_direct(storage, upload)

    @pytest.mark.parametrize("size", [0, 10])
    def test_a_direct_upload_that_is_discarded_is_gone(
        self, storage: Any, folder: str, size: int
    ) -> None:
        upload = Upload(storage, f"{folder}/a", size)
        parts = upload.requests
        upload.send(b"x" * size)
        for _ in range(2):
            storage.discard(upload.partial)
            self.assert_absent(storage, f"{folder}/a")
            self.assert_nothing_of_direct(storage, upload)
        for step in (storage.arrived_parts, storage.check_parts, storage.finish_direct):
            with pytest.raises(FileNotFound):
                step(upload.partial)
        assert send(parts[0], b"x" * size) >= 400
        again = Upload(storage, f"{folder}/a", 5)
        again.send(b"again")
        again.finish()
        storage.discard(again.partial)
        assert_contents(storage, f"{folder}/a", b"again")

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    def test_a_hostile_key_is_not_begun_directly(self, storage: Any, key: str) -> None:
        with pytest.raises(InvalidKey):
            storage.begin_direct(uuid4().hex, key, BINARY, length=1, part_size=PART)

    def test_an_outage_is_told_by_each_step_of_a_direct_upload(
        self, storage: Any, broken_storage: Any, folder: str
    ) -> None:
        upload = Upload(storage, f"{folder}/a", 10)
        upload.send(b"x" * 10)
        partial = upload.partial
        steps: dict[str, Callable[[], object]] = {
            "begin_direct": lambda: Upload(broken_storage, f"{folder}/b", 10),
            "arrived_parts": lambda: broken_storage.arrived_parts(partial),
            "check_parts": lambda: broken_storage.check_parts(partial),
            "finish_direct": lambda: broken_storage.finish_direct(partial),
            "discard": lambda: broken_storage.discard(partial),
        }
        for name, step in steps.items():
            self.assert_tells_of_an_outage(name, step)
        upload.finish()
        assert_contents(storage, f"{folder}/a", b"x" * 10)

    def assert_nothing_of_direct(self, storage: Any, upload: Upload) -> None:
        partial = upload.partial
        if isinstance(storage, ListsUnfinished):
            left = [
                found
                for found in storage.list_unfinished()
                if found.partial_id == partial.id or found.key == partial.key
            ]
            assert left == []


def send(part: PartRequest, content: bytes) -> int:
    """PUT the bytes of a part, as a client without credentials; the status of the answer."""
    # Without a type, urllib sends that of a form.
    headers = {"Content-Type": BINARY, **part.headers}
    request = Request(part.url, data=content, headers=headers, method="PUT")
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code
