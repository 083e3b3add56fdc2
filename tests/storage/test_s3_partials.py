"""Files that arrive in chunks on S3: requests, calls that fail, processes that are killed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from kinto_attachment.errors import KeyTaken, StorageUnavailable, TooLarge
from kinto_attachment.storage import (
    Partial,
    arriving_piece,
    partials,
    s3_open_upload,
    s3_partial_writer,
)
from kinto_attachment.storage.partials import PARTIALS_FOLDER
from kinto_attachment.storage.s3 import S3Storage
from kinto_attachment.storage.s3_partial_writer import LARGEST_FILE, segment_size
from kinto_attachment.storage.samples import BINARY, MIB, Source, contents, keys
from tests.support import forking, waiting
from tests.support.faults import FaultProxy
from tests.support.objects import answer, hooked, recorded, s3_storage
from tests.support.sampling import every_case
from tests.support.services import S3

ID = "0123456789abcdef" * 2
PART = 5 * MIB

ON_BOTH = pytest.mark.parametrize(
    "server",
    [
        pytest.param("moto", marks=pytest.mark.moto),
        pytest.param("seaweedfs", marks=pytest.mark.seaweedfs),
    ],
    indirect=True,
)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def storage(server: S3) -> Iterator[S3Storage]:
    with s3_storage(server, part_size=PART) as storage:
        yield storage


class Upload:
    """A caller that keeps the checkpoints."""

    def __init__(self, storage: S3Storage, key: str = "a", **options: Any) -> None:
        self.storage = storage
        self.partial = storage.begin(ID, key, BINARY, **options)

    def keep(self, partial: Partial) -> None:
        self.partial = Partial(**json.loads(json.dumps(asdict(partial))))

    def append(self, content: bytes | Source, length: int | None = None) -> None:
        """``length`` is the announced length, if it differs from the real one."""
        source = content if isinstance(content, Source) else Source(content)
        length = len(source.content) if length is None else length
        self.keep(self.storage.append(self.partial, source, self.keep, length=length))

    def take_over(self) -> None:
        self.keep(self.storage.take_over(self.partial))

    def finish(self) -> None:
        self.storage.finish(self.partial)


def hidden(storage: S3Storage) -> list[str]:
    """The objects on the server that are not files."""
    client, bucket = storage.s3_client, storage.bucket_name
    objects = client.list_objects_v2(Bucket=bucket, Prefix=".").get("Contents", [])
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return [found["Key"] for found in [*objects, *uploads]]


# Requests.


@ON_BOTH
def test_whole_parts_are_sent_once_and_nothing_else(storage: S3Storage) -> None:
    content = os.urandom(4 * PART)
    with recorded(storage) as requests:
        upload = Upload(storage)
        for first in range(0, len(content), 2 * PART):
            upload.append(content[first : first + 2 * PART])
        upload.finish()
    names = [name for name, _ in requests]
    # And those of the first request, which show that moto does not return checksums.
    assert 4 <= names.count("UploadPart") <= 6
    assert "GetObject" not in names
    # The empty object that claims the key, and maybe a second one to check that this works.
    assert names.count("PutObject") <= 2
    assert contents(storage, "a") == content
    assert hidden(storage) == []


@ON_BOTH
def test_small_pieces_are_merged_as_they_grow(storage: S3Storage) -> None:
    """A piece costs about one request, and there are only a few objects at a time."""
    content, step = os.urandom(100 * 1024), 1024
    with recorded(storage) as requests:
        upload = Upload(storage)
        most = 0
        for first in range(0, len(content), step):
            upload.append(content[first : first + step])
            if first % (20 * step) == 0:
                most = max(most, len(hidden(storage)))
        sent = sum(int(head["content-length"]) for name, head in requests if name == "PutObject")
        upload.finish()
    assert most <= 8 + s3_partial_writer.MUCH_GARBAGE + 8
    assert sent <= len(content) * 8
    names = [name for name, _ in requests]
    assert names.count("DeleteObjects") <= 100 / s3_partial_writer.MUCH_GARBAGE * 2 + 1
    assert "CreateMultipartUpload" not in names, "a small file is put at once"
    assert contents(storage, "a") == content
    assert hidden(storage) == []


@ON_BOTH
@pytest.mark.parametrize("size", [10, 2 * PART + 10])
def test_the_file_has_the_headers_it_is_served_with(server: S3, size: int) -> None:
    with s3_storage(server, part_size=PART, cache_control="max-age=60") as storage:
        upload = Upload(storage, disposition='inline; filename="e"')
        upload.append(bytes(size))
        upload.finish()
        found = server.client().head_object(Bucket=storage.bucket_name, Key="a")
    assert found["ContentType"] == BINARY
    assert found["ContentDisposition"] == 'inline; filename="e"'
    assert found["CacheControl"] == "max-age=60"


@pytest.mark.parametrize("size", [10, 2 * PART + 10])
def test_each_request_that_creates_an_object_has_its_class_and_encryption(
    moto: S3, size: int
) -> None:
    options = {"storage_class": "STANDARD_IA", "encryption": "aws:kms", "kms_key_id": "alias/f"}
    with (
        s3_storage(moto, part_size=PART, acl="public-read", **options) as storage,
        recorded(storage) as requests,
    ):
        upload = Upload(storage)
        upload.append(bytes(size))
        before = len(requests)
        aside = [headers for name, headers in requests if name == "PutObject"]
        upload.finish()
        created = [headers for name, headers in requests if name == "CreateMultipartUpload"]
        created += [headers for name, headers in requests[before:] if name == "PutObject"]
    assert len(aside) == 1
    assert created
    for headers in [*aside, *created]:
        assert headers["x-amz-server-side-encryption"] == "aws:kms"
        assert headers["x-amz-server-side-encryption-aws-kms-key-id"].endswith("alias/f")
    # Temporary objects have no ACL, and would cost more in a class for long storage.
    assert "x-amz-acl" not in aside[0]
    assert "x-amz-storage-class" not in aside[0]
    for headers in created:
        assert headers["x-amz-acl"] == "public-read"
        assert headers["x-amz-storage-class"] == "STANDARD_IA"


@ON_BOTH
@pytest.mark.parametrize("size", [10, 2 * PART + 10])
def test_on_aws_the_condition_is_enough(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("kinto_attachment.storage.s3_bucket.S3Bucket.is_aws", True)
    upload = Upload(storage)
    upload.append(b"x" * size)
    with recorded(storage) as requests:
        upload.finish()
    last = "PutObject" if size == 10 else "CompleteMultipartUpload"
    conditions = [headers.get("if-none-match") for name, headers in requests if name == last]
    assert conditions == ["*"]
    assert contents(storage, "a") == b"x" * size
    upload.finish()


# Parts that are sent while they arrive.

UPLOAD_PART = "before-send.s3.UploadPart"


@contextmanager
def sent_early(storage: S3Storage, act: Callable[..., Any] | None = None) -> Iterator[list[int]]:
    """The numbers of the parts that are sent before all of their bytes have arrived."""
    numbers: list[int] = []

    def note(request: Any, **_: Any) -> Any:
        query = dict(parse_qsl(urlsplit(request.url).query))
        numbers.append(int(query["partNumber"]))
        return act(request=request) if act else None

    with hooked(storage, UPLOAD_PART, note, early=True):
        yield numbers


def waits_at(position: int, moment: Callable[[], bool]) -> Callable[[int], None]:
    """For a reader: wait at this position until a condition holds."""

    def wait(reached: int) -> None:
        if reached == position:
            waiting.until(moment, pause=0.001)

    return wait


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
@pytest.mark.seaweedfs
def test_a_part_is_sent_while_its_bytes_arrive(storage: S3Storage) -> None:
    content = os.urandom(3 * PART + 10)
    upload = Upload(storage)
    with sent_early(storage) as numbers, recorded(storage) as requests:
        waits = waits_at(PART + 4 * MIB, lambda: len(numbers) == 2)
        upload.append(Source(content, on_read=waits))
    assert numbers == [1, 2, 3]
    assert [name for name, _ in requests].count("UploadPart") == 3, "nothing is sent twice"
    upload.finish()
    assert contents(storage, "a") == content
    assert hidden(storage) == []


@ON_BOTH
@pytest.mark.parametrize("arrives", [MIB + 1, 4 * MIB, PART + 3 * MIB])
def test_a_part_that_breaks_off_is_kept_as_far_as_it_came(
    storage: S3Storage, arrives: int
) -> None:
    content = os.urandom(3 * PART)
    upload = Upload(storage)
    with sent_early(storage) as numbers:

        def begun() -> bool:
            # The first one shows that moto does not return the checksum.
            return len(numbers) > arrives // PART or not storage._bucket.vouches_for_parts

        waits = waits_at(arrives, begun)
        upload.append(Source(content[:arrives], on_read=waits), length=len(content))
    assert upload.partial.size == arrives
    for end in (arrives + 1, len(content)):
        upload.append(content[upload.partial.size : end])
    upload.finish()
    assert contents(storage, "a") == content
    assert hidden(storage) == []


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
@pytest.mark.seaweedfs
def test_a_client_that_stalls_holds_no_connection_to_s3(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of the part sent until then do not become a part."""
    monkeypatch.setattr(arriving_piece, "PATIENCE", 0.05)
    content, failed = os.urandom(2 * PART), []
    upload = Upload(storage)
    with hooked(storage, "needs-retry.s3", lambda **_: failed.append(1), early=True):
        upload.append(Source(content, on_read=waits_at(3 * MIB, lambda: bool(failed))))
    main = upload.partial.details["main"]
    assert [run[:3] for run in main["runs"]] == [[2, 2, PART]], "its number is lost"
    upload.finish()
    assert contents(storage, "a") == content


@ON_BOTH
def test_a_slow_client_is_waited_for(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts are sent when they are complete."""
    monkeypatch.setattr(partials, "SOON_SECONDS", 0)
    upload = Upload(storage)
    with sent_early(storage) as numbers:
        upload.append(bytes(2 * PART))
    assert numbers == []
    upload.finish()
    assert contents(storage, "a") == bytes(2 * PART)


@ON_BOTH
@pytest.mark.parametrize(
    ("status", "code", "tries"),
    [(400, "InvalidRequest", 1), (403, "AccessDenied", 1), (400, "IncompleteBody", 3)],
)
def test_a_server_that_refuses_such_parts_gets_them_whole(
    storage: S3Storage, status: int, code: str, tries: int
) -> None:
    """It is not tried again; a server that has only lost a body is."""
    content = os.urandom(3 * PART)
    upload = Upload(storage)
    with sent_early(storage, answer(status, code)) as numbers:
        for start in range(0, len(content), PART):
            upload.append(content[start : start + PART])
    assert len(numbers) == tries
    upload.finish()
    assert contents(storage, "a") == content


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
@pytest.mark.seaweedfs
def test_a_part_that_was_changed_on_its_way_does_not_count(server: S3) -> None:
    """It is not signed, so S3 accepts it; but S3 returns the CRC-32 of the received bytes."""
    content = b"original" * (PART // 8)
    with FaultProxy(server.address) as proxy:
        direct = replace(server, endpoint_url=proxy.url)
        with s3_storage(direct, server.create_bucket(), part_size=PART) as storage:
            upload = Upload(storage)
            proxy.corrupt(b"original", b"Original")
            with sent_early(storage) as numbers, pytest.raises(StorageUnavailable):
                upload.append(content)
            assert numbers == [1]
            proxy.work()
            upload.take_over()
            upload.append(content)
            upload.finish()
            assert contents(storage, "a") == content


@ON_BOTH
def test_aws_gets_no_part_before_it_is_whole(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS refuses parts without the kind of checksum that the upload was created with."""
    monkeypatch.setattr("kinto_attachment.storage.s3_bucket.S3Bucket.is_aws", True)
    upload = Upload(storage)
    with sent_early(storage) as numbers:
        upload.append(bytes(2 * PART))
    assert numbers == []


# Large files.


def test_ten_thousand_parts_are_enough() -> None:
    """Also if thousands of numbers are lost to writers that were superseded."""
    sizes = [segment_size(number) for number in range(2001, s3_open_upload.LAST_PART + 1)]
    assert sizes == sorted(sizes)
    assert max(sizes) <= 5 * 1024 * MIB, "S3 copies no more at once"
    assert 2000 * PART + sum(sizes) > 2 * LARGEST_FILE
    # Every other number is lost.
    assert sum(sizes[::2]) > LARGEST_FILE


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if files were larger, and interrupted more often."""
    monkeypatch.setattr(s3_partial_writer, "DIRECT_PARTS", 1)
    monkeypatch.setattr(s3_partial_writer, "SEGMENT_SIZE", 2 * PART)


@ON_BOTH
@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("taken_over", [False, True])
def test_later_parts_are_segments_that_s3_copies(storage: S3Storage, taken_over: bool) -> None:
    content = os.urandom(6 * PART + 1000)
    with recorded(storage) as requests:
        upload = Upload(storage)
        for first in range(0, len(content), 7 * MIB):
            upload.append(content[first : first + 7 * MIB])
            if taken_over:
                upload.take_over()
        upload.finish()
    names = [name for name, _ in requests]
    assert names.count("UploadPartCopy") >= 3
    assert contents(storage, "a") == content
    assert hidden(storage) == []


@ON_BOTH
def test_a_file_that_needs_too_many_parts_is_too_large(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_open_upload, "LAST_PART", 2)
    upload = Upload(storage)
    upload.append(bytes(2 * PART + 1))
    with pytest.raises(TooLarge):
        upload.append(bytes(PART))
    monkeypatch.setattr(s3_partial_writer, "LARGEST_FILE", 3 * PART)
    with pytest.raises(TooLarge):
        upload.append(bytes(PART))
    storage.discard(upload.partial)
    assert hidden(storage) == []


@ON_BOTH
def test_memory_holds_no_more_than_a_few_parts(storage: S3Storage) -> None:
    """Even if the request is long and the server is slow."""

    class Counting(Source):
        def read(self, size: int = -1, /) -> bytes:
            most.append(self.position - sum(arrived))
            return super().read(size)

    most: list[int] = []
    arrived: list[int] = []
    upload = Upload(storage)
    with hooked(storage, "after-call.s3.UploadPart", lambda **_: arrived.append(PART)):
        storage.append(upload.partial, Counting(bytes(10 * PART)), upload.keep)
    assert max(most) <= 6 * PART


# Calls that fail.

STEPS = (
    *("HeadObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy", "PutObject"),
    *("GetObject", "ListParts", "CompleteMultipartUpload", "DeleteObjects", "ListObjectsV2"),
)


def at_step(number: int, act: Callable[..., Any]) -> tuple[list[str], Callable[..., Any]]:
    seen: list[str] = []

    def hook(request: Any, event_name: str, **kwargs: Any) -> Any:
        seen.append(event_name.rpartition(".")[2])
        return act(request=request, **kwargs) if len(seen) == number else None

    return seen, hook


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
@pytest.mark.seaweedfs
def test_each_call_can_fail_and_be_done_again(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_partial_writer, "DIRECT_PARTS", 1)
    monkeypatch.setattr(s3_partial_writer, "SEGMENT_SIZE", PART)
    # A part and a segment; with every case, two segments.
    content = os.urandom((3 if every_case() else 2) * PART + 2000)
    ends = [1000, 2000, PART, len(content) - PART + 1, len(content)]
    # Once without a failure, to learn the calls and the server's features.
    number, seen = 0, ["HeadObject"] * 2
    with s3_storage(server, part_size=PART, num_retries=1) as storage:
        while number <= len(seen):
            calls, hook = at_step(number, answer(500, "InternalError"))
            with hooked(storage, "before-send.s3", hook):
                upload = begun(storage)
                for end in ends:
                    append_at_last(upload, content, end)
                finish_at_last(upload)
            assert contents(storage, "a") == content
            storage.delete("a")
            storage.discard(upload.partial)  # As gc does.
            assert hidden(storage) == []
            seen = seen if number else calls
            number = next_call(number, seen)
    assert len(seen) > 20
    assert {*seen} >= {*STEPS}


def next_call(number: int, seen: list[str]) -> int:
    """The next call to fail: in a sample, each kind of call and one in twelve."""
    number += 1
    while number <= len(seen) and seen[number - 1] in seen[: number - 1]:
        if every_case() or number % 12 == 0:
            break
        number += 1
    return number


def begun(storage: S3Storage) -> Upload:
    try:
        return Upload(storage)
    except StorageUnavailable:
        return Upload(storage)


def append_at_last(upload: Upload, content: bytes, end: int) -> None:
    try:
        upload.append(content[upload.partial.size : end])
    except StorageUnavailable:
        upload.take_over()
        upload.append(content[upload.partial.size : end])


def finish_at_last(upload: Upload) -> None:
    try:
        upload.finish()
    except StorageUnavailable:
        upload.finish()


@ON_BOTH
@pytest.mark.parametrize("size", [10, 3 * PART])
def test_another_file_that_comes_first_stays(storage: S3Storage, size: int) -> None:
    """Even at the moment when the file is stored."""

    def overtake(**_: Any) -> None:
        events.unregister("before-send.s3.PutObject", overtake)
        events.unregister("before-send.s3.ListParts", overtake)
        storage.write("a", Source(b"y" * size), BINARY)

    upload = Upload(storage)
    upload.append(b"x" * size)
    events = storage.s3_client.meta.events
    events.register("before-send.s3.PutObject", overtake)
    with pytest.raises(KeyTaken):
        upload.finish()
    assert contents(storage, "a") == b"y" * size
    storage.discard(upload.partial)
    assert contents(storage, "a") == b"y" * size
    assert hidden(storage) == []


@ON_BOTH
def test_a_claim_is_discarded_with_its_upload(storage: S3Storage) -> None:
    upload = Upload(storage)
    upload.append(bytes(2 * PART))
    fail = answer(500, "InternalError")
    with (
        hooked(storage, "before-send.s3.CompleteMultipartUpload", fail),
        pytest.raises(StorageUnavailable),
    ):
        upload.finish()
    storage.discard(upload.partial)
    assert keys(storage, "") == []
    assert hidden(storage) == []


@pytest.mark.parametrize("server", ["moto"], indirect=True)
@pytest.mark.moto
def test_a_part_that_is_lost_is_an_outage(storage: S3Storage) -> None:
    """SeaweedFS keeps both parts, and uses the one with the right checksum."""
    upload = Upload(storage)
    upload.append(bytes(PART + 10))
    target = {"Bucket": storage.bucket_name, "Key": "a"}
    client = storage.s3_client
    upload_id = upload.partial.details["main"]["id"]
    client.upload_part(**target, UploadId=upload_id, PartNumber=1, Body=b"other")
    with pytest.raises(StorageUnavailable):
        upload.finish()
    assert not storage.exists("a") or storage.stat("a").size == 0
    (aside,) = (key for key in hidden(storage) if key.startswith(PARTIALS_FOLDER))
    client.delete_object(Bucket=storage.bucket_name, Key=aside)
    upload.take_over()
    with pytest.raises(StorageUnavailable):
        upload.append(bytes(PART))


# Processes that are killed.

KILLED = """
import json, os, signal, sys, time
from dataclasses import asdict
from pathlib import Path
from kinto_attachment.storage import Partial, partials
from kinto_attachment.storage.s3 import S3Storage

options, action, step, path, size = json.loads(sys.argv[1])
partials.CHECKPOINT_BYTES = 2 * options["part_size"]
storage, path, seen = S3Storage(**options), Path(path), []

def kill(event_name, **_):
    seen.append(event_name)
    if len(seen) == step:
        os.kill(os.getpid(), signal.SIGKILL)

def keep(partial):
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(partial)))
    draft.replace(path)

class Reader:
    left = size
    def read(self, wanted):
        given = min(wanted, self.left)
        self.left -= given
        if action == "arrive" and size - self.left >= step:
            deadline = time.monotonic() + 100
            while not seen and time.monotonic() < deadline:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL if seen else signal.SIGTERM)
        return b"b" * given

partial = Partial(**json.loads(path.read_text()))
if action == "arrive":
    early = storage._bucket._clients.get(early=True)
    early.meta.events.register("before-send.s3", lambda **_: seen.append(1))
else:
    storage.s3_client.meta.events.register("after-call.s3", kill)
if action != "finish":
    keep(storage.append(partial, Reader(), keep, length=size))
if action == "finish":
    storage.finish(partial)
"""


@pytest.mark.parametrize(
    ("action", "step"),
    [("append", 3), ("append", 5), ("arrive", PART + 3 * MIB), ("finish", 3)],
)
def test_a_killed_process_costs_what_no_checkpoint_has_told(
    seaweedfs: S3, tmp_path: Path, action: str, step: int
) -> None:
    """It is killed after the response to that call, or after so many bytes have arrived."""
    with s3_storage(seaweedfs, part_size=PART) as storage:
        upload = Upload(storage)
        upload.append(b"a" * 1000)
        size = 5 * PART
        if action == "finish":
            upload.append(b"b" * size)
        kept = tmp_path / "kept"
        kept.write_text(json.dumps(asdict(upload.partial)))
        options = {
            "bucket_name": storage.bucket_name,
            "endpoint_url": seaweedfs.endpoint_url,
            "access_key": seaweedfs.access_key,
            "secret_key": seaweedfs.secret_key,
            "region": seaweedfs.region,
            "part_size": PART,
        }
        given = json.dumps([options, action, step, str(kept), size])
        command = [sys.executable, "-W", "ignore", "-c", KILLED, given]
        done = forking.run(command, timeout=waiting.SECONDS, capture_output=True)
        assert done.returncode == -9, done.stderr
        upload.keep(Partial(**json.loads(kept.read_text())))
        assert upload.partial.size < size + 1000 or action == "finish"
        upload.take_over()
        upload.append(b"b" * (size + 1000 - upload.partial.size))
        upload.finish()
        assert contents(storage, "a") == b"a" * 1000 + b"b" * size
        storage.discard(upload.partial)
        assert hidden(storage) == []
        assert keys(storage, "") == ["a"]
