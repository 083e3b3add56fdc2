"""Writes in several requests: what the backends have in common."""

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

# A process that dies loses at most so much of what a request has sent; a slow client loses at
# most what it has sent in so many seconds.
CHECKPOINT_BYTES = 32 * 1024 * 1024
CHECKPOINT_SECONDS = 5.0

# What is going to arrive within so many seconds may be sent on while it arrives.
SOON_SECONDS = 1.0

# Where object stores keep what belongs to a Partial; its id follows. check_key refuses such keys.
PARTIALS_FOLDER = ".kinto-attachment/uploads/"

# Chunks with lower numbers than that were removed before, or are left to gc.
RECENT_CHUNKS = 100


class Pace:
    """Tells when it is time for a checkpoint."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._size = 0
        self._since = time.monotonic()

    def add(self, size: int) -> None:
        self._size += size

    @property
    def is_due(self) -> bool:
        """Whether there is so much, or something for so long, that has not been told yet."""
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
    """Go on when something of a finished file could not be removed."""
    try:
        yield
    except StorageError as error:
        message = "What is left of the upload of %s stays for gc: %s"
        logger.warning(message, partial.key, error.reason, exc_info=True)


def abandoned(partial: Partial) -> Iterator[int]:
    """The numbers of recent chunks that a Partial does not have, as others were not kept.

    Their writers are out of force. Each append asks for them, so the recent ones are enough.
    """
    number = partial.details["number"]
    kept = {chunk for chunk, _ in partial.details["chunks"]}
    return (each for each in range(max(0, number - RECENT_CHUNKS), number) if each not in kept)
