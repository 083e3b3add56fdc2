"""Writes in several requests, in a local folder.

The bytes are in chunks, which are files in the folder for unfinished files. A writer locks its
chunk, and the lock ends with the process. The next writer continues the last chunk if it gets the
lock. Otherwise, because a writer hangs, it begins another chunk. So a file is nearly always one
chunk, which only has to be renamed at the end.

A late writer may find a chunk to which others have appended, or that has become the file. It has
to call a checkpoint before it truncates such a chunk, and may do so only with the lock.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial as partial_function

from kinto_attachment.errors import KeyTaken, UploadBusy
from kinto_attachment.names import check_key

from . import CHUNK_SIZE, FileStat, Partial, Reader
from .disk import (
    OCCUPIED,
    FileReader,
    LockedFile,
    open_file,
    rename_to_free,
    translated,
    unlink,
)
from .local_folders import LocalFolders
from .partials import Pace, abandoned, replaced

# Seconds to wait for another call that finishes the same file, and between two checks.
PATIENCE, PAUSE = 2.0, 0.02

_NAME = re.compile(r"([0-9a-f]{32})\.\w+")


class LocalPartials(LocalFolders):
    """The part of ``LocalStorage`` that continues writes.

    ``chunks`` of a Partial are pairs of a number and a size; ``number`` is that of the chunk which
    the next writer may begin, and nobody else.
    """

    path: Callable[[str], str]
    stat: Callable[[str], FileStat]
    _unfinished: str
    _hidden_path: Callable[[str, str], str]
    _check_free: Callable[[str], None]

    largest_partial = 0

    def begin(
        self,
        id: str,
        key: str,
        content_type: str,
        *,
        disposition: str = "",
        length: int | None = None,
    ) -> Partial:
        self._check_free(self.path(key))
        return Partial(id, key, 0, {"number": 0, "chunks": []})

    def take_over(self, partial: Partial) -> Partial:
        return replaced(partial, number=partial.details["number"] + 1)

    def append(
        self,
        partial: Partial,
        reader: Reader,
        checkpoint: Callable[[Partial], None],
        *,
        length: int | None = None,
    ) -> Partial:
        check_key(partial.key)
        with translated():
            self._remove_abandoned(partial)
            chunk = self._last_chunk(partial) or self._new_chunk(partial)
        with chunk.file as file:
            if file.size != chunk.kept:
                checkpoint(partial)
            with translated():
                file.cut(chunk.kept)
            pace = Pace()
            while data := reader.read(CHUNK_SIZE):
                with translated():
                    file.write(data)
                pace.add(len(data))
                if pace.is_due:
                    self._sync_chunk(chunk)
                    checkpoint(chunk.extended(partial))
                    pace.restart()
            self._sync_chunk(chunk)
            ended = chunk.extended(partial)
            with translated():
                file.close()
        return ended

    def finish(self, partial: Partial) -> FileStat:
        path, whole = self.path(partial.key), self._piece(partial, "whole")
        with translated(), self._finishing(partial):
            if not self._is_published(partial, path, whole):
                if lstat_file(whole) is None:
                    self._make_whole(partial, whole)
                self._remove_chunks(partial)
                with translated(OCCUPIED, KeyTaken):
                    folder = os.path.dirname(path)
                    self._in_folder(folder, lambda: rename_to_free(whole, path))
            # Also if another call has published the file, because it may have died before this.
            self._sync_folder(os.path.dirname(path))
            unlink(whole)
        return self.stat(partial.key)

    def discard(self, partial: Partial) -> None:
        check_key(partial.key)
        with translated():
            self._remove_chunks(partial)
            for name in ("whole", "lock"):
                unlink(self._piece(partial, name))

    def _piece(self, partial: Partial, name: str | int) -> str:
        """The path of a file that belongs to a Partial."""
        piece = f"{partial.id}.{name}"
        if not _NAME.fullmatch(piece):
            raise ValueError(f"not the id of a Partial: {partial.id!r}")
        return self._hidden_path(piece, partial.key)

    def _last_chunk(self, partial: Partial) -> Chunk | None:
        """The last chunk; None if there is none, or if its writer is still writing."""
        for number, size in partial.details["chunks"][-1:]:
            with suppress(BlockingIOError):
                return Chunk(number, size, LockedFile(self._piece(partial, number)))
        return None

    def _new_chunk(self, partial: Partial) -> Chunk:
        number = partial.details["number"]
        path = self._piece(partial, number)
        open_file = partial_function(LockedFile, path, create=True)
        return Chunk(number, 0, self._in_folder(self._unfinished, open_file), is_new=True)

    def _remove_abandoned(self, partial: Partial) -> None:
        """Remove the chunks of earlier writers that were not kept, which nobody else looks for.

        Otherwise, requests that fail again and again would fill the disk.
        """
        for number in abandoned(partial):
            unlink(self._piece(partial, number))

    def _sync_chunk(self, chunk: Chunk) -> None:
        with translated():
            chunk.file.sync(durable=self.durable)
            if chunk.is_new:
                self._sync_folder(self._unfinished)
                chunk.is_new = False

    @contextmanager
    def _finishing(self, partial: Partial) -> Iterator[None]:
        """Only one finishes at a time; :raises UploadBusy: another one does, and for long."""
        path = self._piece(partial, "lock")
        with self._awaited(path):
            try:
                yield
            finally:
                unlink(path)

    def _awaited(self, path: str) -> LockedFile:
        """A locked file, waiting for others that have the lock."""
        open_file = partial_function(LockedFile, path, create=True)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                file: LockedFile = self._in_folder(self._unfinished, open_file)
                return file
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise UploadBusy() from error
            time.sleep(PAUSE)

    def _is_published(self, partial: Partial, path: str, whole: str) -> bool:
        """Whether a call before this one has given the file its name.

        :raises KeyTaken: another file has it.
        """
        with translated(OCCUPIED, KeyTaken):
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                return False
        made = lstat_file(whole)
        if made is not None:
            is_own = os.path.samestat(found, made)
        else:  # The chunks are removed before the file gets its name.
            chunks = partial.details["chunks"]
            is_own = (
                stat.S_ISREG(found.st_mode)
                and found.st_size == partial.size
                and not any(os.path.lexists(self._piece(partial, number)) for number, _ in chunks)
            )
        if not is_own:
            raise KeyTaken()
        return True

    def _make_whole(self, partial: Partial, whole: str) -> None:
        """Combine the chunks into one durable file."""
        first, *rest = partial.details["chunks"] or [[partial.details["number"], 0]]
        with self._first_chunk(partial, first) as file:
            for number, size in rest:
                with read_chunk(self._piece(partial, number), size) as chunk:
                    file.fill_from_file(chunk)
            file.touch()
            found = file.sync(self.file_mode, durable=self.durable)
            if found.st_size != partial.size:
                raise OSError(f"{found.st_size} of {partial.size} bytes are left: {file.path}")
            # With the lock: a writer that gets it afterwards does not find the chunk.
            os.rename(file.path, whole)
            file.close()
        self._sync_folder(self._unfinished)

    def _first_chunk(self, partial: Partial, chunk: list[int]) -> LockedFile:
        """The file to append the other chunks to: the first one, or a copy if that is in use."""
        number, size = chunk
        path = self._piece(partial, number)
        try:
            first = LockedFile(path, create=not partial.size)
        except BlockingIOError:
            copy = LockedFile(self._piece(partial, "copy"), create=True)
            copy.cut(0)
            with read_chunk(path, size) as source:
                copy.fill_from_file(source)
            return copy
        first.cut(size)
        return first

    def _remove_chunks(self, partial: Partial) -> None:
        for name in ("copy", *range(partial.details["number"] + 1)):
            unlink(self._piece(partial, name))


@dataclass
class Chunk:
    """A chunk that one request appends to; ``kept`` is how many of its bytes are the file's."""

    number: int
    kept: int
    file: LockedFile
    is_new: bool = False

    def extended(self, partial: Partial) -> Partial:
        """The Partial with what was appended to it."""
        size = partial.size + self.file.size - self.kept
        others = [chunk for chunk in partial.details["chunks"] if chunk[0] != self.number]
        number = max(partial.details["number"], self.number + 1)
        return replaced(
            partial, size, number=number, chunks=[*others, [self.number, self.file.size]]
        )


def read_chunk(path: str, size: int) -> FileReader:
    return FileReader(open_file(path, os.O_RDONLY | os.O_NOFOLLOW), 0, size)


def lstat_file(path: str) -> os.stat_result | None:
    """The stat of a regular file; None if there is none, or something else."""
    with suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode):
            return found
    return None


def partial_of(name: str) -> str:
    """The id of the Partial that a file of the hidden folder belongs to, or an empty text."""
    match = _NAME.fullmatch(name.partition(":")[0])
    return match[1] if match else ""
