"""Writes in several requests, on Google Cloud Storage."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from kinto_attachment.errors import FileNotFound, KeyTaken, StorageError, StorageUnavailable

from . import CHUNK_SIZE, FileStat, Partial, Reader, Unfinished, check_key
from .gcloud_bucket import GoogleBucket
from .gcloud_upload import NewObject
from .partials import PARTIALS_FOLDER, Pace, left_to_gc, partial_of, replaced

COMPOSED_AT_ONCE = 32  # Google's limit. Unneeded objects are deleted in batches of this size.
MUCH_GARBAGE = 64
STANDARD = "STANDARD"


class GooglePartials:
    """The part of ``GoogleStorage`` that continues writes.

    ``pieces`` of a Partial are triples of an object's random name, its size and its level. The
    bytes between two checkpoints are an object of level 0. 32 objects of a level are composed into
    one of the next, and in the end all into the file, without sending a byte again.
    """

    acl: str | None
    cache_control: str | None
    storage_class: str | None
    kms_key: str | None
    _bucket: GoogleBucket
    _create_bucket: Callable[[], None]
    _new: Callable[..., NewObject]
    _delete_all: Callable[[Sequence[str]], bool]

    largest_partial = 5 * 1024**4

    def begin(
        self,
        id: str,
        key: str,
        content_type: str,
        *,
        disposition: str = "",
        length: int | None = None,
    ) -> Partial:
        check_key(key)
        self._create_bucket()
        with suppress(FileNotFound):
            self._bucket.find(key)
            raise KeyTaken()
        kept = {"type": content_type, "disposition": disposition}
        return Partial(id, key, 0, {**kept, "pieces": [], "garbage": []})

    def take_over(self, partial: Partial) -> Partial:
        return partial  # Objects are never overwritten: each has a new name.

    def append(
        self,
        partial: Partial,
        reader: Reader,
        checkpoint: Callable[[Partial], None],
        *,
        length: int | None = None,
    ) -> Partial:
        check_key(partial.key)
        partial = self._tidied(partial)
        while first := reader.read(CHUNK_SIZE):
            stretch = Stretch(first, reader)
            name, size = self._store(partial, stretch)
            pieces = [*partial.details["pieces"], [name, size, 0]]
            partial = self._merged(replaced(partial, partial.size + size, pieces=pieces))
            if stretch.has_ended:
                break
            checkpoint(partial)
        return partial

    def finish(self, partial: Partial) -> FileStat:
        new = self._file(partial)
        if not self._is_finished(partial):
            try:
                self._compose_file(partial, new)
            except (KeyTaken, FileNotFound, StorageError) as error:
                # The response may have been lost, or another call was faster.
                if not self._is_finished(partial):
                    if isinstance(error, FileNotFound):  # A piece.
                        raise StorageUnavailable() from error
                    raise
        new.set_acl()
        with left_to_gc(partial):
            self._remove_hidden(partial)
        stored = datetime.now(timezone.utc)
        return FileStat(partial.key, partial.size, stored, partial.details["type"])

    def discard(self, partial: Partial) -> None:
        check_key(partial.key)
        self._remove_hidden(partial)

    def list_unfinished(self) -> Iterator[Unfinished]:
        """Pieces; Google does not list other unfinished uploads, and removes them after a week."""
        for blob in self._bucket.list(PARTIALS_FOLDER):
            name, size, stored = blob.name, blob.size, blob.time_created.astimezone(timezone.utc)
            id = partial_of(name)
            yield Unfinished(name, name, size, stored, is_private=True, partial_id=id)

    def discard_unfinished(self, unfinished: Unfinished) -> None:
        if unfinished.id.startswith(PARTIALS_FOLDER):
            self._delete_all([unfinished.id])

    def _file(self, partial: Partial) -> NewObject:
        details = partial.details
        headers = {"content_type": details["type"], "content_disposition": details["disposition"]}
        return self._new(partial.key, token=partial.id, **headers)

    def _piece(self, partial: Partial) -> tuple[str, NewObject]:
        """A new hidden object: without an ACL, and of the class with the cheapest deletion.

        An object that is composed of others has their class, and their content type.
        """
        name = secrets.token_hex(8)
        key = f"{folder_of(partial)}{name}"
        properties = {
            "content_type": partial.details["type"],
            "storage_class": STANDARD if self.storage_class else None,
        }
        # With the file's own token: a copy has it from its original, until it gets its own.
        new = NewObject(self._bucket, key, None, self.kms_key, token=partial.id, **properties)
        return name, new

    def _store(self, partial: Partial, reader: Reader) -> tuple[str, int]:
        name, new = self._piece(partial)
        try:
            new.send(reader, partial.details["type"])
        except (KeyTaken, StorageUnavailable):
            if not new.exists_whole():
                raise
        return name, new.size

    def _compose(self, partial: Partial, pieces: list[list[Any]]) -> list[Any]:
        """Compose up to 32 pieces into one of the next level."""
        name, new = self._piece(partial)
        try:
            new.compose(keys_of(partial, pieces), size_of(pieces))
        except FileNotFound as error:
            raise StorageUnavailable() from error
        except (KeyTaken, StorageUnavailable):
            if not new.exists_whole():
                raise
        return [name, new.size, pieces[0][2] + 1]

    def _merged(self, partial: Partial) -> Partial:
        pieces, garbage = partial.details["pieces"], partial.details["garbage"]
        while True:
            last = pieces[-COMPOSED_AT_ONCE:]
            if len(last) < COMPOSED_AT_ONCE or len({level for *_, level in last}) > 1:
                return replaced(partial, pieces=pieces, garbage=garbage)
            pieces = [*pieces[:-COMPOSED_AT_ONCE], self._compose(partial, last)]
            garbage = [*garbage, *(name for name, *_ in last)]

    def _compose_file(self, partial: Partial, new: NewObject) -> None:
        pieces = partial.details["pieces"]
        if not pieces:
            new.send(Stretch(b"", None), partial.details["type"])
            return
        while len(pieces) > COMPOSED_AT_ONCE:
            first, rest = pieces[:COMPOSED_AT_ONCE], pieces[COMPOSED_AT_ONCE:]
            pieces = [self._compose(partial, first), *rest]
        if not self.storage_class and not self.kms_key:
            new.compose(keys_of(partial, pieces), size_of(pieces))
            return
        # Only a copy can get another class, or a key by its name.
        whole = pieces if len(pieces) == 1 else [self._compose(partial, pieces)]
        new.copy(self._bucket.find(*keys_of(partial, whole)))

    def _is_finished(self, partial: Partial) -> bool:
        """:raises KeyTaken: another file has the key."""
        try:
            found = self._bucket.find(check_key(partial.key))
        except FileNotFound:
            return False
        if (found.metadata or {}).get("upload") != partial.id or found.size != partial.size:
            raise KeyTaken()
        return True

    def _tidied(self, partial: Partial) -> Partial:
        garbage = partial.details["garbage"]
        if len(garbage) < MUCH_GARBAGE:
            return partial
        self._delete_all([f"{folder_of(partial)}{name}" for name in garbage])
        return replaced(partial, garbage=[])

    def _remove_hidden(self, partial: Partial) -> None:
        self._delete_all([blob.name for blob in self._bucket.list(folder_of(partial))])


class Stretch:
    """The bytes of a reader until the next checkpoint."""

    def __init__(self, first: bytes, reader: Reader | None) -> None:
        self.has_ended = reader is None
        self._next = first
        self._reader = reader
        self._pace = Pace()

    def read(self, size: int = -1, /) -> bytes:
        data, self._next = self._next[:size], self._next[size:]
        if not data and self._reader is not None and not self._pace.is_due:
            data = self._reader.read(size)
            self.has_ended = not data
            if self.has_ended:
                self._reader = None
        self._pace.add(len(data))
        return data


def folder_of(partial: Partial) -> str:
    return f"{PARTIALS_FOLDER}{partial.id}/"


def keys_of(partial: Partial, pieces: list[list[Any]]) -> list[str]:
    return [f"{folder_of(partial)}{name}" for name, *_ in pieces]


def size_of(pieces: list[list[Any]]) -> int:
    return sum(size for _, size, _ in pieces)
