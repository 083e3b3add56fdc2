"""The heartbeat: writes, reads and deletes a file on the storage."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from uuid import uuid4

from kinto_attachment.errors import AttachmentError
from kinto_attachment.kinto_types import Request
from kinto_attachment.storage import FileStorage

logger = logging.getLogger(__name__)

FOLDER = "__heartbeat__"
CONTENT = b"kinto_attachment"


def check(storage: FileStorage, *, readonly: bool) -> Callable[[Request], bool]:
    """The heartbeat function for Kinto, which calls it in a thread and with a timeout."""

    def heartbeat(request: Request) -> bool:
        if readonly:
            return True
        # A random name, since all processes on all machines may do this at the same time.
        key = f"{FOLDER}/{uuid4()}.txt"
        try:
            storage.write(key, io.BytesIO(CONTENT), "text/plain")
            try:
                reader = storage.open(key)
                try:
                    same = reader.read(len(CONTENT) + 1) == CONTENT
                finally:
                    reader.close()
            finally:
                storage.delete(key)
        except (AttachmentError, OSError):
            logger.exception("The attachments' storage failed its heartbeat")
            return False
        return same

    return heartbeat
