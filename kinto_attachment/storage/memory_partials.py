"""Writes in several requests, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone

from kinto_attachment.errors import KeyTaken, StorageUnavailable

from . import CHUNK_SIZE, FileStat, Partial, Reader, Unfinished
from .partials import Pace, abandoned, replaced


class Chunk(bytearray):
    """Bytes of a Partial; ``modified`` is when the last ones were appended."""

    modified = datetime.now(timezone.utc)


class MemoryPartials:
    """The part of :class:`MemoryStorage` that continues writes.

    A Partial consists of chunks. Only one writer can still be using the last chunk. A writer that
    takes over begins another one.
    """

    _files: dict[str, tuple[FileStat, bytes]]
    _reach: Callable[..., None]
    _publish: Callable[[str, bytes, str], FileStat]

    largest_partial = 0

    def __init__(self) -> None:
        # By the id of the Partial and the number of the chunk.
        self._chunks: dict[tuple[str, int], Chunk] = {}

    def begin(
        self,
        id: str,
        key: str,
        content_type: str,
        *,
        disposition: str = "",
        length: int | None = None,
    ) -> Partial:
        self._reach(key)
        if key in self._files:
            raise KeyTaken()
        # Pairs of number and size in ``chunks``.
        return Partial(id, key, 0, {"type": content_type, "number": 0, "chunks": []})

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
        self._reach(partial.key)
        number, chunks = partial.details["number"], partial.details["chunks"]
        kept = sum(size for other, size in chunks if other == number)
        before = [chunk for chunk in chunks if chunk[0] != number]
        for other in abandoned(partial):
            self._chunks.pop((partial.id, other), None)
        chunk = self._chunks.get((partial.id, number), Chunk())
        if len(chunk) < kept:
            raise StorageUnavailable() from LookupError(partial.id)
        self._chunks[partial.id, number] = chunk
        # Bytes that were not kept. Nobody else uses them, even if this writer began long ago.
        del chunk[kept:]
        size, pace = partial.size, Pace()
        while True:
            data = reader.read(CHUNK_SIZE)
            self._reach(partial.key)
            chunk += data
            chunk.modified = datetime.now(timezone.utc)
            size += len(data)
            pace.add(len(data))
            now = replaced(partial, size, chunks=[*before, [number, len(chunk)]])
            if not data:
                return now
            if pace.is_due:
                checkpoint(now)
                pace.restart()

    def finish(self, partial: Partial) -> FileStat:
        self._reach(partial.key)
        chunks = partial.details["chunks"]
        content = b"".join(self._chunks.get((partial.id, n), b"")[:size] for n, size in chunks)
        there = self._files.get(partial.key)
        is_done = not any((partial.id, number) in self._chunks for number, _ in chunks)
        if is_done and there and there[0].size == partial.size:
            return there[0]
        if len(content) != partial.size:
            raise StorageUnavailable() from LookupError(partial.id)
        stat = self._publish(partial.key, content, partial.details["type"])
        self.discard(partial)
        return stat

    def discard(self, partial: Partial) -> None:
        self._reach(partial.key)
        for name in [name for name in self._chunks if name[0] == partial.id]:
            self._chunks.pop(name, None)

    def list_unfinished(self) -> Iterator[Unfinished]:
        """The chunks. A write in one request leaves nothing when it fails."""
        self._reach()
        for (id, number), chunk in list(self._chunks.items()):
            name = f"{id}.{number}"
            yield Unfinished(name, "", len(chunk), chunk.modified, is_private=True, partial_id=id)

    def discard_unfinished(self, unfinished: Unfinished) -> None:
        self._reach()
        id, _, number = unfinished.id.partition(".")
        if number.isdigit():
            self._chunks.pop((id, int(number)), None)
