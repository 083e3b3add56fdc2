"""The heartbeat: writes, reads and deletes a file on each storage."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from uuid import uuid4

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import AttachmentError, cause
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.storage.storages import Storage

logger = logging.getLogger(__name__)

FOLDER = "__heartbeat__"
CONTENT = b"kinto_attachment"


class Failure(dict[str, object]):
    """A result that names the failure, where Kinto expects False."""

    def __bool__(self) -> bool:
        return False


def check(storage: Storage, *, readonly: bool) -> Callable[[Request], bool]:
    """The heartbeat function for Kinto, which calls it in a thread and with a timeout."""

    def heartbeat(request: Request) -> bool:
        if readonly:
            return True
        # A random name, since all processes on all machines may do this at the same time.
        key = f"{FOLDER}/{uuid4()}.txt"
        files = storage.files
        try:
            files.write(key, io.BytesIO(CONTENT), "text/plain")
            try:
                reader = files.open(key)
                try:
                    same = reader.read(len(CONTENT) + 1) == CONTENT
                finally:
                    reader.close()
            finally:
                files.delete(key)
        except (AttachmentError, OSError) as error:
            message = "The attachments' storage %r failed its heartbeat: %s"
            logger.exception(message, storage.title, cause(error))
            return False
        return same

    return heartbeat


def observe_uploads(registry: Registry) -> None:
    """Report the number and the bytes of unfinished uploads to the metrics."""
    count, size = registry.attachment_sessions.unfinished_totals(msec_time())
    registry.metrics.observe("attachments.unfinished_uploads", count)
    registry.metrics.observe("attachments.unfinished_bytes", size)


def check_storages(registry: Registry) -> Callable[[Request], bool | Failure]:
    """The heartbeat function that finds storages with files that are no longer configured."""

    def heartbeat(request: Request) -> bool | Failure:
        with transaction.manager:
            used = registry.attachment_links.used_storages.names()
            observe_uploads(registry)
        missing = sorted(name for name in used if name not in registry.attachment_storages)
        if not missing:
            return True
        logger.error("There are files in storages that are not configured: %s", missing)
        return Failure(not_configured=missing)

    return heartbeat
