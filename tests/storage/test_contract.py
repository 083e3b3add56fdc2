"""Tests of the contract: it must fail for storages that each break one rule."""

from __future__ import annotations

import gzip
import inspect
import io
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from uuid import uuid4

import pytest

from kinto_attachment.errors import (
    AttachmentError,
    FileNotFound,
    InvalidKey,
    KeyTaken,
    StorageUnavailable,
    UploadIncomplete,
)
from kinto_attachment.names import content_disposition
from kinto_attachment.storage import (
    CHUNK_SIZE,
    SITE_KEY,
    ArrivedPart,
    FileStat,
    Partial,
    PartRequest,
    Reader,
    Unfinished,
    check_key,
)
from kinto_attachment.storage.memory import MemoryStorage
from kinto_attachment.storage.testing import (
    ContinuesWritesContract,
    CopiesFilesContract,
    HasPathsContract,
    KeepsSiteContract,
    KnowsHashesContract,
    ListsFilesContract,
    ListsUnfinishedContract,
    SignsUrlsContract,
    StorageContract,
    UploadsDirectlyContract,
)
from tests.support import waiting
from tests.support.direct_memory import DirectMemory
from tests.support.sampling import sampled


class WholeContract(
    ListsFilesContract,
    CopiesFilesContract,
    ListsUnfinishedContract,
    ContinuesWritesContract,
    KeepsSiteContract,
    KnowsHashesContract,
    SignsUrlsContract,
    UploadsDirectlyContract,
    HasPathsContract,
):
    """All rules of the contract."""


RULES = [name for name in dir(WholeContract) if name.startswith("test_")]
BROKEN: list[tuple[str, type[MemoryStorage]]] = []

# How a test fails; anything else would be a mistake in this file.
FAILURES = (
    *(AssertionError, pytest.fail.Exception, AttachmentError),
    *(AttributeError, ConnectionRefusedError, HTTPError, KeyError, TypeError),
)


def breaks(rule: str) -> Callable[[type[MemoryStorage]], type[MemoryStorage]]:
    def register(storage: type[MemoryStorage]) -> type[MemoryStorage]:
        BROKEN.append((rule, storage))
        return storage

    return register


def check(
    rule: str,
    storage: type[MemoryStorage],
    contract: type[StorageContract] = WholeContract,
) -> None:
    """Run one test of the contract with all its parameters, as pytest does."""
    test = getattr(contract(), rule)
    names = inspect.signature(test).parameters
    for arguments in parameters(test):
        made = storage()
        if "broken_storage" in names:
            made.outage = ConnectionRefusedError("played")
        broken = made
        if "storage" in names and "broken_storage" in names:
            broken, made.outage = storage(), None
            broken.outage = ConnectionRefusedError("played")
        fixtures = {"storage": made, "broken_storage": broken, "folder": "folder"}
        given = {name: fixture for name, fixture in fixtures.items() if name in names}
        test(**given, **arguments)


def parameters(test: Any) -> Iterator[dict[str, Any]]:
    marks = [mark.args for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for values in itertools.product(*(values for _, values in marks)):
        arguments: dict[str, Any] = {}
        for (names, _), value in zip(marks, values, strict=True):
            arguments.update(
                {names: value} if isinstance(names, str) else zip(names, value, strict=True)
            )
        yield arguments


class Complete(DirectMemory):
    """A storage with every capability: it also has files in a folder, and signs URLs."""

    base: Path
    signed: dict[str, Signed]

    def signed_url(
        self, key: str, expires: int, filename: str, disposition: str, content_type: str
    ) -> str:
        check_key(key)
        token = uuid4().hex
        header = content_disposition(filename, disposition)
        headers = {"Content-Type": content_type, "Content-Disposition": header}
        self.signed[f"/{token}"] = Signed(self, key, headers)
        return f"{self.server}/{token}"

    def path(self, filename: str) -> str:
        check_key(filename)
        path = self.base / sha256(f"{id(self)} {filename}".encode()).hexdigest()
        if filename in self._files:
            path.write_bytes(self._files[filename][1])
        return str(path)

    def delete(self, *keys: str) -> bool:
        for key in keys:
            Path(self.path(key)).unlink(missing_ok=True)
        return super().delete(*keys)


@dataclass
class Signed:
    """The file and headers of a signed URL."""

    storage: Complete
    key: str
    headers: dict[str, str]


class SignedUrls(BaseHTTPRequestHandler):
    """The server of signed URLs: anyone who has one may GET the file."""

    def do_GET(self) -> None:
        signed = Complete.signed[self.path]
        try:
            content = signed.storage.open(signed.key).read()
        except FileNotFound:
            self.send_error(404)
            return
        self.send_response(200)
        for name, value in signed.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_PUT(self) -> None:
        storage, partial, part = Complete.asked[self.path]
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if storage.take_part(partial, part, content) else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def signed_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    Complete.base, Complete.signed = tmp_path_factory.mktemp("paths"), {}
    Complete.asked = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), SignedUrls) as server:
        Complete.server = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield
        server.shutdown()
        waiting.join(thread)


# Capabilities.


@breaks("test_each_capability_has_its_contract")
class SignsNothing(MemoryStorage):
    path = Complete.path


@breaks("test_each_capability_has_its_contract")
class HasNoPaths(MemoryStorage):
    signed_url = Complete.signed_url


@breaks("test_each_capability_has_its_contract")
class DiscardsNothing(Complete):
    discard_unfinished = None  # type: ignore[assignment]


# Writing.


@breaks("test_a_disposition_can_be_given")
class TakesNoDisposition(MemoryStorage):
    def write(self, key: str, reader: Reader, content_type: str) -> FileStat:  # type: ignore[override]
        return super().write(key, reader, content_type)


@breaks("test_an_encoding_can_be_given")
class Decompresses(MemoryStorage):
    def open(self, key: str, start: int = 0, end: int | None = None) -> io.BytesIO:
        content = super().open(key).read()
        plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        return io.BytesIO(plain[start:end])


@breaks("test_what_is_written_is_read_back")
class DropsTheLastPartialChunk(MemoryStorage):
    def _publish(self, key: str, content: bytes, content_type: str) -> FileStat:
        whole = len(content) // CHUNK_SIZE * CHUNK_SIZE
        return super()._publish(key, content[:whole] if whole else content, content_type)


@breaks("test_what_is_written_is_read_back")
class TakesAnEmptyFileForNone(MemoryStorage):
    def stat(self, key: str) -> FileStat:
        found = super().stat(key)
        if not found.size:
            raise FileNotFound()
        return found


@breaks("test_what_is_written_is_read_back")
class RewindsTheReader(MemoryStorage):
    def write(self, key: str, reader: Any, *args: Any, **kwargs: Any) -> FileStat:
        reader.seek(0)
        return super().write(key, reader, *args, **kwargs)


@breaks("test_memory_does_not_grow_with_the_file")
class ReadsAllAtOnce(MemoryStorage):
    def write(self, key: str, reader: Reader, *args: Any, **kwargs: Any) -> FileStat:
        return super().write(key, io.BytesIO(reader.read()), *args, **kwargs)


@breaks("test_memory_does_not_grow_with_the_file")
class GivesAllAtOnce(MemoryStorage):
    def open(self, key: str, start: int = 0, end: int | None = None) -> io.BytesIO:
        class Greedy(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read()

        return Greedy(super().open(key, start, end).read())


@breaks("test_a_short_read_is_not_the_end")
class StopsAtAShortRead(MemoryStorage):
    def write(self, key: str, reader: Reader, *args: Any, **kwargs: Any) -> FileStat:
        pieces = [reader.read(CHUNK_SIZE)]
        while len(pieces[-1]) == CHUNK_SIZE:
            pieces.append(reader.read(CHUNK_SIZE))
        return super().write(key, io.BytesIO(b"".join(pieces)), *args, **kwargs)


class Remembers:
    """A reader that keeps the bytes that it has read."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.content = b""

    def read(self, size: int = -1, /) -> bytes:
        piece = self.reader.read(size)
        self.content += piece
        return piece


@breaks("test_a_failing_reader_leaves_nothing")
class KeepsHalfFiles(MemoryStorage):
    def write(self, key: str, reader: Reader, *args: Any, **kwargs: Any) -> FileStat:
        kept = Remembers(reader)
        try:
            return super().write(key, kept, *args, **kwargs)
        except ConnectionResetError:
            self._publish(key, kept.content, "")
            raise


@breaks("test_a_failing_reader_leaves_nothing")
class TranslatesTheReadersErrors(MemoryStorage):
    def write(self, *args: Any, **kwargs: Any) -> FileStat:
        try:
            return super().write(*args, **kwargs)
        except OSError as error:
            raise StorageUnavailable() from error


class LeavesDrafts(MemoryStorage):
    """It leaves drafts of writes that end with ``error``."""

    error: type[Exception]

    def __init__(self) -> None:
        super().__init__()
        self.drafts: list[Unfinished] = []

    def write(self, key: str, *args: Any, **kwargs: Any) -> FileStat:
        try:
            return super().write(key, *args, **kwargs)
        except self.error:
            self.drafts.append(Unfinished("draft", key, 0, datetime.now(timezone.utc)))
            raise

    def list_unfinished(self) -> Iterator[Unfinished]:
        return iter(self.drafts)


@breaks("test_a_failing_reader_leaves_nothing")
class LeavesDraftsOfFailedWrites(LeavesDrafts):
    error = ConnectionResetError


@breaks("test_a_taken_key_is_never_overwritten")
@breaks("test_one_of_two_racing_writers_wins")
class LeavesDraftsOfLostRaces(LeavesDrafts):
    error = KeyTaken


@breaks("test_a_file_appears_whole")
class ShowsFilesWhileTheyAreWritten(MemoryStorage):
    def write(self, key: str, reader: Reader, content_type: str, **kwargs: Any) -> FileStat:
        self._publish(key, b"", content_type)
        content = b"".join(iter(lambda: reader.read(CHUNK_SIZE), b""))
        self.delete(key)
        return self._publish(key, content, content_type)


@breaks("test_a_taken_key_is_never_overwritten")
class Overwrites(MemoryStorage):
    def write(self, key: str, *args: Any, **kwargs: Any) -> FileStat:
        self.delete(key)
        return super().write(key, *args, **kwargs)


@breaks("test_a_taken_key_is_never_overwritten")
class TakesTheSameContentForTheSameFile(MemoryStorage):
    def write(self, key: str, reader: Reader, *args: Any, **kwargs: Any) -> FileStat:
        kept = Remembers(reader)
        content = kept.read(CHUNK_SIZE)
        if key in self._files and self._files[key][1] == content:
            return self.stat(key)
        return super().write(key, io.BytesIO(content), *args, **kwargs)


@breaks("test_one_of_two_racing_writers_wins")
class LooksFirstAndWritesThen(MemoryStorage):
    def _publish(self, key: str, content: bytes, content_type: str) -> FileStat:
        self.delete(key)
        return super()._publish(key, content, content_type)


@breaks("test_a_key_below_another_is_taken_or_free")
class MakesRoomForAFolder(MemoryStorage):
    def write(self, key: str, *args: Any, **kwargs: Any) -> FileStat:
        if "/" in key:
            self.delete(key.rpartition("/")[0])
        return super().write(key, *args, **kwargs)


@breaks("test_a_key_below_another_is_taken_or_free")
class SaysUnavailableForAFolder(MemoryStorage):
    def write(self, key: str, *args: Any, **kwargs: Any) -> FileStat:
        if any(other.startswith(f"{key}/") for other in self._files):
            raise StorageUnavailable()
        return super().write(key, *args, **kwargs)


# Reading.


class OpensWrongly(MemoryStorage):
    """It returns another range than the requested one."""

    def given(self, start: int, end: int | None, size: int) -> tuple[int, int | None]:
        raise NotImplementedError

    def open(self, key: str, start: int = 0, end: int | None = None) -> io.BytesIO:
        return super().open(key, *self.given(start, end, self.stat(key).size))


@breaks("test_open_gives_the_range_and_no_more")
class IncludesTheEnd(OpensWrongly):
    def given(self, start: int, end: int | None, size: int) -> tuple[int, int | None]:
        return start, end if end is None else end + 1


@breaks("test_open_gives_the_range_and_no_more")
class TakesAnEmptyRangeForNone(OpensWrongly):
    def given(self, start: int, end: int | None, size: int) -> tuple[int, int | None]:
        return (start, end) if end is None or start < end else (0, None)


@breaks("test_open_gives_the_range_and_no_more")
class WrapsAroundPastTheEnd(OpensWrongly):
    def given(self, start: int, end: int | None, size: int) -> tuple[int, int | None]:
        return start % (size or 1), end


@breaks("test_open_gives_the_range_and_no_more")
class RefusesPastTheEnd(OpensWrongly):
    def given(self, start: int, end: int | None, size: int) -> tuple[int, int | None]:
        if start >= size > 0:
            raise FileNotFound()
        return start, end


@breaks("test_a_missing_file_is_not_found")
class RaisesWhatItsDictionaryRaises(MemoryStorage):
    def stat(self, key: str) -> FileStat:
        return self._files[key][0]


@breaks("test_a_missing_file_is_not_found")
class FindsNothingLazily(MemoryStorage):
    def open(self, key: str, start: int = 0, end: int | None = None) -> io.BytesIO:
        return super().open(key, start, end) if self.exists(key) else io.BytesIO()


@breaks("test_a_missing_file_is_not_found")
class ForgetsCauses(MemoryStorage):
    def _find(self, key: str) -> tuple[FileStat, bytes]:
        self._reach(key)
        if key not in self._files:
            raise FileNotFound()
        return super()._find(key)


@breaks("test_a_folder_is_not_a_file")
class FindsFolders(MemoryStorage):
    def stat(self, key: str) -> FileStat:
        for other in self._files:
            if other.startswith(f"{key}/"):
                return FileStat(key, 0, datetime.now(timezone.utc))
        return super().stat(key)


@breaks("test_a_folder_is_not_a_file")
class DeletesFolders(MemoryStorage):
    def delete(self, *keys: str) -> bool:
        below = [other for key in keys for other in self._files if other.startswith(f"{key}/")]
        return super().delete(*keys, *below)


@breaks("test_the_content_type_is_kept")
class ForgetsContentTypes(MemoryStorage):
    def stat(self, key: str) -> FileStat:
        return replace(super().stat(key), content_type="application/octet-stream")


@breaks("test_no_content_type_is_invented")
class InventsContentTypes(MemoryStorage):
    def stat(self, key: str) -> FileStat:
        found = super().stat(key)
        return found if "." in key else replace(found, content_type="text/plain")


class TellsTheTimeWrongly(MemoryStorage):
    def time(self) -> datetime:
        raise NotImplementedError

    def stat(self, key: str) -> FileStat:
        return replace(super().stat(key), modified=self.time())


@breaks("test_modified_is_the_time_of_writing_in_utc")
class TellsNoTimeZone(TellsTheTimeWrongly):
    def time(self) -> datetime:
        return datetime.now(timezone.utc).replace(tzinfo=None)


@breaks("test_modified_is_the_time_of_writing_in_utc")
class TellsAnotherTimeZone(TellsTheTimeWrongly):
    def time(self) -> datetime:
        return datetime.now(timezone(timedelta(hours=5)))


@breaks("test_modified_is_the_time_of_writing_in_utc")
class TellsAnotherTime(TellsTheTimeWrongly):
    def time(self) -> datetime:
        return datetime.now(timezone.utc) - timedelta(hours=5)


@breaks("test_the_url_is_made_of_the_quoted_key")
class QuotesNothing(MemoryStorage):
    def url(self, filename: str) -> str:
        return self.base_url + filename


# Deleting.


@breaks("test_deleting_twice_is_fine")
class InsistsOnWhatItDeletes(MemoryStorage):
    def delete(self, *keys: str) -> bool:
        for key in keys:
            self._find(key)
        return super().delete(*keys)


@breaks("test_deleting_twice_is_fine")
class DeletesAllForNoKeys(MemoryStorage):
    def delete(self, *keys: str) -> bool:
        return super().delete(*(keys or self._files))


@breaks("test_thousands_are_deleted_at_once")
class DeletesTheFirstThousand(MemoryStorage):
    def delete(self, *keys: str) -> bool:
        return super().delete(*keys[:1000])


# Keys.


class RenamesKeys(MemoryStorage):
    def stored_as(self, key: str) -> str:
        raise NotImplementedError

    def _publish(self, key: str, content: bytes, content_type: str) -> FileStat:
        return super()._publish(self.stored_as(key), content, content_type)

    def _find(self, key: str) -> tuple[FileStat, bytes]:
        self._reach(key)
        return super()._find(self.stored_as(key))

    def delete(self, *keys: str) -> bool:
        self._reach(*keys)
        return super().delete(*map(self.stored_as, keys))


@breaks("test_unusual_keys_are_keys_like_others")
class StripsSpaces(RenamesKeys):
    def stored_as(self, key: str) -> str:
        return key.replace(" ", "_")


@breaks("test_unusual_keys_are_keys_like_others")
class ShortensKeys(RenamesKeys):
    def stored_as(self, key: str) -> str:
        return key[:900]


@breaks("test_keys_that_look_alike_are_different")
class UnquotesKeys(RenamesKeys):
    def stored_as(self, key: str) -> str:
        return key.replace("+", " ").replace("%20", " ")


@breaks("test_keys_that_look_alike_are_different")
class IgnoresCase(RenamesKeys):
    def stored_as(self, key: str) -> str:
        return key.lower()


class LetsHostileKeysThrough(MemoryStorage):
    """In one of its methods."""

    hostile = "../x"


@breaks("test_a_hostile_key_is_invalid_in_every_method")
class WritesHostileKeys(LetsHostileKeysThrough):
    def write(self, key: str, *args: Any, **kwargs: Any) -> FileStat:
        return super().write("harmless" if key == self.hostile else key, *args, **kwargs)


@breaks("test_a_hostile_key_is_invalid_in_every_method")
class DoesNotFindHostileKeys(LetsHostileKeysThrough):
    def stat(self, key: str) -> FileStat:
        try:
            return super().stat(key)
        except InvalidKey as error:
            raise FileNotFound() from error


@breaks("test_a_hostile_key_is_invalid_in_every_method")
class OpensHostileKeys(LetsHostileKeysThrough):
    def open(self, key: str, start: int = 0, end: int | None = None) -> io.BytesIO:
        return io.BytesIO() if key == self.hostile else super().open(key, start, end)


@breaks("test_a_hostile_key_is_invalid_in_every_method")
class DeletesHostileKeys(LetsHostileKeysThrough):
    def delete(self, *keys: str) -> bool:
        return super().delete(*(key for key in keys if key != self.hostile))


@breaks("test_a_hostile_key_is_invalid_in_every_method")
class DeletesUpToTheHostileKey(LetsHostileKeysThrough):
    def delete(self, *keys: str) -> bool:
        for key in keys:
            super().delete(key)
        return True


@breaks("test_a_copy_needs_a_source_and_valid_keys")
class CopiesFromHostileKeys(LetsHostileKeysThrough):
    def copy(self, source: str, target: str) -> FileStat:
        return super().copy("folder/a" if source == self.hostile else source, target)


@breaks("test_a_copy_needs_a_source_and_valid_keys")
class CopiesToHostileKeys(LetsHostileKeysThrough):
    def copy(self, source: str, target: str) -> FileStat:
        return super().copy(source, "folder/c" if target == self.hostile else target)


# Listing, copying, cleaning up.


@breaks("test_a_listing_is_complete")
class ListsAllButTheLast(MemoryStorage):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        yield from [*super().list(prefix)][:-1]


@breaks("test_thousands_are_deleted_at_once")
class ListsOnePage(MemoryStorage):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        return itertools.islice(super().list(prefix), 1000)


@breaks("test_thousands_are_deleted_at_once")
class ListsTheLastOfAPageTwice(MemoryStorage):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        for number, found in enumerate(super().list(prefix), start=1):
            yield found
            if number == 1000:
                yield found


@breaks("test_a_listing_is_by_prefix")
class ListsByFolder(MemoryStorage):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        return super().list(f"{prefix}/" if prefix and not prefix.endswith("/") else prefix)


@breaks("test_a_listing_is_by_prefix")
class ListsOneLevel(MemoryStorage):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        return (found for found in super().list(prefix) if "/" not in found.key[len(prefix) :])


@breaks("test_a_listing_is_by_prefix")
class ResolvesThePrefix(MemoryStorage):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        return super().list("" if ".." in prefix else prefix)


@breaks("test_a_copy_is_a_new_file")
class CopiesTheTime(MemoryStorage):
    def copy(self, source: str, target: str) -> FileStat:
        stat, content = self._find(source)
        copied = super().copy(source, target)
        old = stat.modified - timedelta(minutes=5)
        self._files[target] = (replace(copied, modified=old), content)
        return copied


@breaks("test_a_copy_is_a_new_file")
class Renames(MemoryStorage):
    def copy(self, source: str, target: str) -> FileStat:
        self.delete(target)
        self._files[target] = self._files[source]
        return replace(self.stat(target), key=target)

    def delete(self, *keys: str) -> bool:
        gone = [self._files[key] for key in keys if key in self._files]
        linked = [key for key, file in self._files.items() if file in gone]
        return super().delete(*keys, *linked)


@breaks("test_a_copy_is_a_new_file")
class ForgetsTheContentTypeOfCopies(MemoryStorage):
    def copy(self, source: str, target: str) -> FileStat:
        return self._publish(target, self._find(source)[1], "application/octet-stream")


@breaks("test_a_copy_never_overwrites")
class CopiesOverFiles(MemoryStorage):
    def copy(self, source: str, target: str) -> FileStat:
        stat, content = self._find(source)
        self.delete(target)
        return self._publish(target, content, stat.content_type)


@breaks("test_a_copy_never_overwrites")
class TakesACopyOntoItselfForDone(MemoryStorage):
    def copy(self, source: str, target: str) -> FileStat:
        return self.stat(source) if source == target else super().copy(source, target)


@breaks("test_a_copy_needs_a_source_and_valid_keys")
class CopiesNothing(MemoryStorage):
    def copy(self, source: str, target: str) -> FileStat:
        if not self.exists(source):
            return self._publish(target, b"", "")
        return super().copy(source, target)


@breaks("test_discarding_what_is_gone_is_fine")
class InsistsOnWhatItDiscards(MemoryStorage):
    def discard_unfinished(self, unfinished: Unfinished) -> None:
        raise FileNotFound()


# Files that arrive in chunks.

Checkpoint = Callable[[Partial], None]


@breaks("test_a_file_arrives_in_chunks")
class FinishesTheLastChunk(MemoryStorage):
    def append(
        self, partial: Partial, reader: Reader, checkpoint: Checkpoint, **options: Any
    ) -> Partial:
        return super().append(self.take_over(partial), reader, checkpoint, **options)

    def finish(self, partial: Partial) -> FileStat:
        chunks = partial.details["chunks"][-1:]
        size = sum(size for _, size in chunks)
        return super().finish(
            replace(partial, size=size, details={**partial.details, "chunks": chunks})
        )


@breaks("test_a_file_arrives_in_chunks")
class ForgetsTheContentTypeOfChunks(MemoryStorage):
    def begin(self, id: str, key: str, content_type: str, **kwargs: Any) -> Partial:
        return super().begin(id, key, "application/octet-stream", **kwargs)


@breaks("test_a_file_arrives_in_chunks")
class LeavesChunks(MemoryStorage):
    def discard(self, partial: Partial) -> None:
        self._reach(partial.key)


@breaks("test_there_is_no_file_before_the_finish")
class ShowsWhatHasArrived(MemoryStorage):
    def append(
        self, partial: Partial, reader: Reader, checkpoint: Checkpoint, **options: Any
    ) -> Partial:
        ended = super().append(partial, reader, checkpoint, **options)
        self._files[ended.key] = (FileStat(ended.key, 0, datetime.now(timezone.utc)), b"")
        return ended


@breaks("test_what_is_kept_stays_small")
class KeepsEachChunk(MemoryStorage):
    def append(
        self, partial: Partial, reader: Reader, checkpoint: Checkpoint, **options: Any
    ) -> Partial:
        details = {**partial.details, "all": [*partial.details.get("all", []), "x" * 60]}
        return super().append(replace(partial, details=details), reader, checkpoint, **options)


@breaks("test_checkpoints_come_from_time_to_time")
class TellsNothing(MemoryStorage):
    def append(
        self, partial: Partial, reader: Reader, checkpoint: Checkpoint, **options: Any
    ) -> Partial:
        return super().append(partial, reader, lambda _: None, **options)


@breaks("test_checkpoints_come_from_time_to_time")
class TellsTooEarly(MemoryStorage):
    def append(
        self, partial: Partial, reader: Reader, checkpoint: Checkpoint, **options: Any
    ) -> Partial:
        first = reader.read(CHUNK_SIZE)
        checkpoint(partial)
        rest = b"".join(iter(lambda: reader.read(CHUNK_SIZE), b""))
        return super().append(partial, io.BytesIO(first + rest), checkpoint, **options)


@breaks("test_what_arrives_counts_and_not_the_length")
class BelievesTheLength(MemoryStorage):
    def append(
        self,
        partial: Partial,
        reader: Reader,
        checkpoint: Checkpoint,
        *,
        length: int | None = None,
    ) -> Partial:
        content = b"".join(iter(lambda: reader.read(CHUNK_SIZE), b""))
        known = content if length is None else content[:length].ljust(length, b"\0")
        return super().append(partial, io.BytesIO(known), checkpoint)


@breaks("test_a_failing_reader_costs_what_no_checkpoint_has_told")
class TranslatesTheErrorsOfChunks(MemoryStorage):
    def append(self, *args: Any, **options: Any) -> Partial:
        try:
            return super().append(*args, **options)
        except OSError as error:
            raise StorageUnavailable() from error


@breaks("test_an_append_that_is_not_kept_was_none")
class GoesOnWhereItWas(MemoryStorage):
    """It ignores what its caller has kept."""

    def begin(self, id: str, *args: Any, **kwargs: Any) -> Partial:
        self.latest = super().begin(id, *args, **kwargs)
        return self.latest

    def append(
        self, partial: Partial, reader: Reader, checkpoint: Checkpoint, **options: Any
    ) -> Partial:
        begun = replace(partial, size=self.latest.size, details=self.latest.details)
        self.latest = super().append(begun, reader, checkpoint, **options)
        return replace(self.latest, size=partial.size + self.latest.size - begun.size)

    def finish(self, partial: Partial) -> FileStat:
        return super().finish(self.latest)


@breaks("test_a_writer_that_was_taken_over_changes_nothing")
class FinishesWhatIsThere(MemoryStorage):
    """It finishes the stored chunks, not what its caller has kept."""

    def finish(self, partial: Partial) -> FileStat:
        chunks = sorted(item for item in self._chunks.items() if item[0][0] == partial.id)
        content = b"".join(bytes(chunk) for _, chunk in chunks)
        return self._publish(partial.key, content, "")


@breaks("test_a_writer_that_begins_late_changes_nothing")
@breaks("test_two_writers_at_once_are_not_mixed")
class LetsAllWritersShareAChunk(MemoryStorage):
    def take_over(self, partial: Partial) -> Partial:
        return partial


@breaks("test_a_writer_may_be_taken_over_again_and_again")
class RunsOutOfNumbers(MemoryStorage):
    def take_over(self, partial: Partial) -> Partial:
        number = partial.details["number"] % 8 + 1
        return replace(partial, details={**partial.details, "number": number})


@breaks("test_a_finish_can_be_repeated")
class FinishesOnce(MemoryStorage):
    def finish(self, partial: Partial) -> FileStat:
        if partial.key in self._files:
            raise KeyTaken()
        return super().finish(partial)


@breaks("test_a_taken_key_is_not_overwritten_by_a_finish")
class FinishesOverFiles(MemoryStorage):
    def finish(self, partial: Partial) -> FileStat:
        self._files.pop(partial.key, None)
        return super().finish(partial)


@breaks("test_a_taken_key_is_not_overwritten_by_a_finish")
class TakesAFileOfThatSizeForItsOwn(MemoryStorage):
    def finish(self, partial: Partial) -> FileStat:
        found = self._files.get(partial.key)
        return found[0] if found and found[0].size == partial.size else super().finish(partial)


@breaks("test_what_is_discarded_is_gone")
class KeepsWhatIsDiscarded(LeavesChunks):
    pass


@breaks("test_what_is_discarded_is_gone")
class DiscardsFinishedFiles(MemoryStorage):
    def finish(self, partial: Partial) -> FileStat:
        stat = super().finish(partial)
        self._chunks.clear()
        return stat

    def discard(self, partial: Partial) -> None:
        super().discard(partial)
        if not any(id == partial.id for id, _ in self._chunks):
            self._files.pop(partial.key, None)


@breaks("test_what_is_unfinished_tells_what_it_belongs_to")
class TellsNoPartial(MemoryStorage):
    def list_unfinished(self) -> Iterator[Unfinished]:
        return (replace(found, partial_id="") for found in super().list_unfinished())


@breaks("test_a_hostile_key_is_not_begun")
class BeginsHostileKeys(LetsHostileKeysThrough):
    def begin(self, id: str, key: str, *args: Any, **kwargs: Any) -> Partial:
        return super().begin(id, "a" if key == self.hostile else key, *args, **kwargs)


@breaks("test_an_outage_is_told_by_each_step")
class DiscardsInAnOutage(MemoryStorage):
    def discard(self, partial: Partial) -> None:
        if not self.outage:
            super().discard(partial)


# Signed URLs.


@breaks("test_the_site_is_kept_as_it_was_written")
class AppendsToTheSite(MemoryStorage):
    def write_site(self, content: bytes, *, replace: bool) -> bool:
        before = self._site or b""
        return super().write_site(before + content if replace else content, replace=replace)


@breaks("test_the_site_is_replaced_only_on_purpose")
class ReplacesTheSite(MemoryStorage):
    def write_site(self, content: bytes, *, replace: bool) -> bool:
        return super().write_site(content, replace=True)


@breaks("test_the_site_is_none_of_the_files")
class ListsTheSite(MemoryStorage):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        yield from super().list(prefix)
        if self._site is not None and SITE_KEY.startswith(prefix):
            yield FileStat(SITE_KEY, len(self._site), datetime.now(timezone.utc))


@breaks("test_an_outage_is_told_by_the_site")
class KnowsNoSiteInAnOutage(MemoryStorage):
    def read_site(self) -> bytes | None:
        return self._site


class SignsWrongly(Complete):
    """It signs something else than requested."""

    def changed(self, asked: dict[str, Any]) -> None:
        raise NotImplementedError

    def signed_url(self, *asked: Any) -> str:
        names = ("key", "expires", "filename", "disposition", "content_type")
        changed = dict(zip(names, asked, strict=True))
        self.changed(changed)
        return super().signed_url(**changed)


@breaks("test_a_signed_url_serves_the_file")
class ShowsInPlace(SignsWrongly):
    def changed(self, asked: dict[str, Any]) -> None:
        asked["disposition"] = "inline"


@breaks("test_a_signed_url_serves_the_file")
class ForgetsTheFilename(SignsWrongly):
    def changed(self, asked: dict[str, Any]) -> None:
        asked["filename"] = "download"


@breaks("test_a_signed_url_serves_the_file")
class ForgetsTheContentType(SignsWrongly):
    def changed(self, asked: dict[str, Any]) -> None:
        asked["content_type"] = "application/octet-stream"


@breaks("test_unusual_keys_can_be_signed")
class QuotesTwice(SignsWrongly):
    def changed(self, asked: dict[str, Any]) -> None:
        asked["key"] = quote(asked["key"])


@breaks("test_a_signed_url_of_no_file_is_an_error")
class ServesEmptyFilesForNone(SignsWrongly):
    def changed(self, asked: dict[str, Any]) -> None:
        if not self.exists(asked["key"]):
            self._publish(asked["key"], b"", "")


@breaks("test_a_hostile_key_is_not_signed")
class SignsHostileKeys(SignsWrongly):
    def changed(self, asked: dict[str, Any]) -> None:
        asked["key"] = asked["key"].replace("..", "up")


# Direct uploads.


@breaks("test_a_file_is_sent_in_parts")
class ForgetsTheTypeOfDirectFiles(Complete):
    def begin_direct(self, id: str, key: str, content_type: str, **options: Any) -> Partial:
        return super().begin_direct(id, key, "text/html", **options)


@breaks("test_a_file_is_sent_in_parts")
class KeepsPartsAfterTheFinish(Complete):
    def check_parts(self, partial: Partial) -> None:
        super().check_parts(partial)
        if not self.exists(partial.key):
            parts = self.parts[partial.id]
            self._publish(partial.key, b"".join(parts.values()), partial.details["type"])


@breaks("test_a_file_is_sent_in_parts")
class JoinsPartsAsTheyCame(Complete):
    def finish_direct(self, partial: Partial) -> str:
        if partial.id in self.parts:
            came = list(self.parts[partial.id].values())
            self.parts[partial.id] = dict(enumerate(came, 1))
        return super().finish_direct(partial)


@breaks("test_what_is_finished_cannot_be_exchanged")
class TakesPartsOfFinishedFiles(Complete):
    def take_part(self, partial: Partial, part: PartRequest, content: bytes) -> bool:
        if partial.id in self.finished:
            self._files[partial.key] = (self.stat(partial.key), content)
            return True
        return super().take_part(partial, part, content)


@breaks("test_missing_parts_are_waited_for")
class FinishesWithoutThem(Complete):
    def finish_direct(self, partial: Partial) -> str:
        found = self.parts.get(partial.id, {})
        partial.details["length"] = sum(map(len, found.values()))
        return super().finish_direct(partial)


@breaks("test_another_size_is_not_finished")
class TakesAnySize(Complete):
    def take_part(self, partial: Partial, part: PartRequest, content: bytes) -> bool:
        self.parts[partial.id][part.number] = content
        return True

    def check_parts(self, partial: Partial) -> None:
        if not self.arrived_parts(partial):
            raise UploadIncomplete()


@breaks("test_a_part_that_is_sent_twice_is_there_once")
class AppendsToParts(Complete):
    def take_part(self, partial: Partial, part: PartRequest, content: bytes) -> bool:
        before = self.parts[partial.id].get(part.number, b"")
        self.parts[partial.id][part.number] = (before + content)[-part.size - 5 :][: part.size]
        return True


@breaks("test_a_storage_vouches_for_what_it_has")
class VouchesForWhatItIsTold(Complete):
    def take_part(self, partial: Partial, part: PartRequest, content: bytes) -> bool:
        self.parts[partial.id][part.number] = content
        return True

    def finish_direct(self, partial: Partial) -> str:
        super().finish_direct(partial)
        return str(partial.details["hash"])


@breaks("test_a_hash_of_many_parts_is_known")
class VouchesForTheFirstPart(Complete):
    def finish_direct(self, partial: Partial) -> str:
        first = sha256(self.parts[partial.id][1]).hexdigest()
        super().finish_direct(partial)
        return first


@breaks("test_a_taken_key_is_not_overwritten_by_a_direct_finish")
class FinishesOverOthers(Complete):
    def finish_direct(self, partial: Partial) -> str:
        self._files.pop(partial.key, None)
        return super().finish_direct(partial)


@breaks("test_a_direct_upload_that_is_discarded_is_gone")
class GoesOnWithWhatIsDiscarded(Complete):
    def discard(self, partial: Partial) -> None:
        self._reach(partial.key)


@breaks("test_a_hostile_key_is_not_begun_directly")
class BeginsHostileKeysDirectly(Complete):
    def begin_direct(self, id: str, key: str, *args: Any, **options: Any) -> Partial:
        return super().begin_direct(id, "harmless", *args, **options)


@breaks("test_an_outage_is_told_by_each_step_of_a_direct_upload")
class SeesNoPartsInAnOutage(Complete):
    def arrived_parts(self, partial: Partial) -> dict[int, ArrivedPart]:
        return {} if self.outage else super().arrived_parts(partial)


# Paths.


@breaks("test_the_path_leads_to_the_file")
class HasRelativePaths(Complete):
    def path(self, filename: str) -> str:
        return os.path.relpath(super().path(filename))


@breaks("test_the_path_leads_to_the_file")
class HasOnePathForAll(Complete):
    def path(self, filename: str) -> str:
        path = self.base / "the-only-one"
        path.write_bytes(b"")
        return str(path)


@breaks("test_the_path_leads_to_the_file")
class LeavesFilesWhereTheyWere(Complete):
    delete = MemoryStorage.delete


@breaks("test_a_hostile_key_has_no_path")
class HasPathsOfHostileKeys(Complete):
    def path(self, filename: str) -> str:
        return str(self.base / filename)


# Failures and threads.


class FailsWrongly(MemoryStorage):
    def _reach(self, *keys: str) -> None:
        try:
            super()._reach(*keys)
        except StorageUnavailable as error:
            raise self.failure(error) from None

    def failure(self, error: StorageUnavailable) -> BaseException:
        raise NotImplementedError


@breaks("test_an_outage_is_told_with_its_cause")
class FailsAsItsLibraryFails(FailsWrongly):
    def failure(self, error: StorageUnavailable) -> BaseException:
        return error.__cause__ or error


@breaks("test_an_outage_is_told_with_its_cause")
class FailsWithoutCause(FailsWrongly):
    def failure(self, error: StorageUnavailable) -> BaseException:
        return StorageUnavailable()


@breaks("test_an_outage_is_told_with_its_cause")
class FailsAsIfNothingWereThere(FailsWrongly):
    def failure(self, error: StorageUnavailable) -> BaseException:
        not_found = FileNotFound()
        not_found.__cause__ = error
        return not_found


class CoreOnly(MemoryStorage):
    """Missing methods are ``None``, as in other Python protocols."""

    list = copy = list_unfinished = discard_unfinished = None  # type: ignore[assignment]
    read_site = write_site = has_hash = None  # type: ignore[assignment]
    begin = take_over = append = finish = discard = None  # type: ignore[assignment]


class FailsInSilence(MemoryStorage):
    """In one of its methods."""


@breaks("test_an_outage_is_told_by_a_listing")
class ListsNothingInAnOutage(FailsInSilence):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        return iter(()) if self.outage else super().list(prefix)


@breaks("test_an_outage_is_told_with_its_cause")
class DeletesInAnOutage(FailsInSilence):
    def delete(self, *keys: str) -> bool:
        return self.outage is not None or super().delete(*keys)


@breaks("test_an_outage_is_told_with_its_cause")
class DeniesInAnOutage(FailsInSilence):
    def exists(self, filename: str) -> bool:
        return self.outage is None and super().exists(filename)


@breaks("test_an_outage_is_told_by_a_copy")
class CopiesInAnOutage(FailsInSilence):
    def copy(self, source: str, target: str) -> FileStat:
        if self.outage:
            return FileStat(target, 0, datetime.now(timezone.utc))
        return super().copy(source, target)


@breaks("test_an_outage_is_told_when_looking_for_remains")
class FinishesInAnOutage(FailsInSilence):
    def list_unfinished(self) -> Iterator[Unfinished]:
        return iter(())


@breaks("test_eight_threads_do_not_disturb_each_other")
class SharesItsBuffer(MemoryStorage):
    buffer = b""

    def write(self, key: str, reader: Reader, *args: Any, **kwargs: Any) -> FileStat:
        self.buffer = b""
        while chunk := reader.read(CHUNK_SIZE):
            self.buffer += chunk
        return super().write(key, io.BytesIO(self.buffer), *args, **kwargs)


@sampled(3, "rule")  # Like the memory storage, with its own tests.
@pytest.mark.parametrize("rule", RULES)
def test_the_whole_one_follows(rule: str) -> None:
    check(rule, Complete)


CORE_RULES = [name for name in dir(StorageContract) if name.startswith("test_")]


@pytest.mark.parametrize("rule", CORE_RULES)
def test_a_storage_without_capabilities_follows(rule: str) -> None:
    check(rule, CoreOnly, StorageContract)


@pytest.mark.parametrize(
    "contract", WholeContract.__bases__, ids=[base.__name__ for base in WholeContract.__bases__]
)
def test_no_contract_can_be_left_out(contract: type[StorageContract]) -> None:
    others = tuple(base for base in WholeContract.__bases__ if base is not contract)
    partial = type("PartialContract", others, {})
    with pytest.raises(AssertionError, match=f"run {contract.__name__}, too"):
        check("test_each_capability_has_its_contract", Complete, partial)


@breaks("test_no_wrong_hash_is_vouched_for")
class VouchesForAnything(MemoryStorage):
    def has_hash(self, key: str, digest: str) -> bool:
        self.stat(key)
        return True


@breaks("test_no_hash_of_what_is_not_there")
class VouchesForGhosts(MemoryStorage):
    def has_hash(self, key: str, digest: str) -> bool:
        self._reach(key)
        return False


@breaks("test_an_outage_is_told_by_hashes")
class VouchesInAnOutage(MemoryStorage):
    def has_hash(self, key: str, digest: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("rule", "storage"), BROKEN, ids=[storage.__name__ for _, storage in BROKEN]
)
def test_the_broken_one_is_caught(rule: str, storage: type[MemoryStorage]) -> None:
    with pytest.raises(FAILURES):
        check(rule, storage)


def test_each_rule_has_its_breaker() -> None:
    assert {rule for rule, _ in BROKEN} == set(RULES)
