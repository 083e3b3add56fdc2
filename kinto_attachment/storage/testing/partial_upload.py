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
    """The caller's, for a writer that may not write any more."""


# What a writer gets that was taken over: what it goes on with may be gone.
LATE = (TakenOver, StorageUnavailable)


class Upload:
    """What a caller keeps of a file: as JSON, and from the writer that may write, only."""

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
        """Whoever writes now may not write any more."""
        self.keep(self.storage.take_over(self.partial))
        self.writer = None

    def append(
        self,
        source: bytes | Source,
        at_checkpoint: Callable[[], object] = lambda: None,
        length: int | None = None,
    ) -> None:
        """What one request does; it tells the ``length`` that it expects, which may be wrong.

        :raises TakenOver: by another one in the meantime.
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
        """What is unfinished of it. Where only the key tells, nobody else may have that key."""
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
        """What hung writers have stored for nothing can be found.

        The finished file has to stay as it is: read it after this.
        """
        if isinstance(self.storage, ListsUnfinished):
            for found in self.left():
                self.storage.discard_unfinished(found)
            assert self.left() == []
