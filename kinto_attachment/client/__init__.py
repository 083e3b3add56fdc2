"""The Python client for the attachments of Kinto records, installed by the extra ``client``.

It only uses HTTP. This layer may use ``names`` and the layers below it.

>>> from kinto_attachment.client import AttachmentClient, FileStore
"""

from __future__ import annotations

from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.errors import (
    ClientError,
    ConflictError,
    MismatchError,
    NotAllowedError,
    NotFoundError,
    QuotaError,
    RejectedError,
    UnavailableError,
)
from kinto_attachment.client.file_store import FileStore
from kinto_attachment.client.links import FileLink
from kinto_attachment.client.lists import Change
from kinto_attachment.client.retries import Retries

__all__ = [
    "AttachmentClient",
    "Change",
    "ClientError",
    "ConflictError",
    "FileLink",
    "FileStore",
    "MismatchError",
    "NotAllowedError",
    "NotFoundError",
    "QuotaError",
    "RejectedError",
    "Retries",
    "UnavailableError",
]
