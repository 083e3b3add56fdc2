"""A caller that continues writes, as a server does for uploads in several requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.storage import ListsUnfinished, Partial
from kinto_attachment.storage.samples import BINARY, Source


class TakenOver(Exception):
    """The caller's exception for a writer that may no longer write."""


# The errors for a writer that was taken over, whose bytes may have been removed.
LATE = (TakenOver, StorageUnavailable)


class Upload:
    """The data that a caller keeps about a file: as JSON, and only from the current writer."""

    def __init__(self, storage: Any, key: str, content_type: str = BINARY, **options: Any) -> None:
        self.storage = storage
        self.lock = threading.Lock()
        self.writer: object = None
        self.checkpoints = 0
        self.keep(storage.begin(uuid4().hex, key, content_type, **options))

    @property
    def partial(self) -> Partial:
        return Partial(**json.loads(self.kept))

    def keep(self, partial: Partial) -> None:
        self.kept = json.dumps(asdict(partial))

    def take_over(self) -> None:
        """Let another writer take over."""
        self.keep(self.storage.take_over(self.partial))
        self.writer = None

    def append(
        self,
        source: bytes | Source,
        at_checkpoint: Callable[[], object] = lambda: None,
        length: int | None = None,
    ) -> None:
        """The write of one request; the ``length`` that it announces may be wrong.

        :raises TakenOver: another writer has taken over in the meantime.
        """
        source = source if isinstance(source, Source) else Source(source)
        length = len(source.content) if length is None else length
        with self.lock:
            if self.writer:
                self.take_over()
            begun, self.writer = self.partial, uuid4()
            writer = self.writer

        def checkpoint(partial: Partial) -> None:
            at_checkpoint()
            with self.lock:
                if self.writer != writer:
                    raise TakenOver
                assert (partial.id, partial.key) == (begun.id, begun.key)
                assert partial.size - begun.size == source.given, "all that was read is durable"
                self.checkpoints += 1
                self.keep(partial)

        ended = self.storage.append(begun, source, checkpoint, length=length)
        checkpoint(ended)
        self.writer = None

    def finish(self) -> Any:
        return self.storage.finish(self.partial)

    def left(self) -> list[Any]:
        """The unfinished parts of the file. If only the key identifies them, it is unique."""
        partial = self.partial
        return [
            found
            for found in self.storage.list_unfinished()
            if found.partial_id == partial.id
            or (not found.partial_id and found.key == partial.key)
        ]

    def assert_nothing_is_left(self) -> None:
        if isinstance(self.storage, ListsUnfinished):
            assert self.left() == []

    def discard_what_is_left(self) -> None:
        """The bytes that hanging writers have stored can be found.

        The finished file has to stay unchanged: read it after this.
        """
        if isinstance(self.storage, ListsUnfinished):
            for found in self.left():
                self.storage.discard_unfinished(found)
            assert self.left() == []
