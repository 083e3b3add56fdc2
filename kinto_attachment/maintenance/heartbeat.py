"""The heartbeat: whether the storage takes a file, gives it back and deletes it."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from kinto_attachment.errors import AttachmentError
from kinto_attachment.storage import FileStorage

logger = logging.getLogger(__name__)

FOLDER = "__heartbeat__"
CONTENT = b"kinto_attachment"


def check(storage: FileStorage, *, readonly: bool) -> Callable[[Any], bool]:
    """The function that Kinto calls, in a thread that it waits for only so long."""

    def heartbeat(request: Any) -> bool:
        if readonly:
            return True
        # The name is random: the processes of all machines do this at the same time.
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
            logger.exception("The attachments' storage fails")
            return False
        return same

    return heartbeat
