"""Writes in several requests: the code that the backends share."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kinto_attachment.errors import StorageError

from . import Partial

logger = logging.getLogger(__name__)

# The most bytes of a request that are lost when a process dies, and the most seconds of a slow
# client's bytes.
CHECKPOINT_BYTES = 32 * 1024 * 1024
CHECKPOINT_SECONDS = 5.0

# Bytes that are expected within this many seconds may be forwarded while they arrive.
SOON_SECONDS = 1.0

# The prefix of the objects of Partials, followed by their ids. check_key refuses such keys.
PARTIALS_FOLDER = ".kinto-attachment/uploads/"

# Chunks with lower numbers were removed before, or are left to gc.
RECENT_CHUNKS = 100


class Pace:
    """Decides when a checkpoint is due."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._size = 0
        self._since = time.monotonic()

    def add(self, size: int) -> None:
        self._size += size

    @property
    def is_due(self) -> bool:
        """Whether there are so many bytes, or bytes so old, that a checkpoint is due."""
        waited = time.monotonic() - self._since
        return self._size >= CHECKPOINT_BYTES or (self._size > 0 and waited >= CHECKPOINT_SECONDS)

    def brings(self, size: int) -> bool:
        """Whether so many more bytes are going to arrive soon, and before a checkpoint is due.

        That is, if they come as fast as those before.
        """
        waited = time.monotonic() - self._since
        is_soon = waited * size <= SOON_SECONDS * self._size
        return is_soon and self._size + size <= CHECKPOINT_BYTES


def partial_of(key: str) -> str:
    """The id of the Partial that an object below PARTIALS_FOLDER belongs to."""
    return key.removeprefix(PARTIALS_FOLDER).partition("/")[0]


def replaced(partial: Partial, size: int | None = None, **details: Any) -> Partial:
    """A Partial with another size, and some other details."""
    size = partial.size if size is None else size
    return replace(partial, size=size, details={**partial.details, **details})


@contextmanager
def left_to_gc(partial: Partial) -> Iterator[None]:
    """Continue if the remains of a finished file could not be removed."""
    try:
        yield
    except StorageError as error:
        message = "What is left of the upload of %s stays for gc: %s"
        logger.warning(message, partial.key, error.reason, exc_info=True)


def abandoned(partial: Partial) -> Iterator[int]:
    """The numbers of recent chunks that a Partial does not have, as others were not kept.

    Their writers can no longer commit. Each append removes them, so recent ones are enough.
    """
    number = partial.details["number"]
    kept = {chunk for chunk, _ in partial.details["chunks"]}
    return (each for each in range(max(0, number - RECENT_CHUNKS), number) if each not in kept)
