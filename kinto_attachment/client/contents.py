"""The content of an attachment: the stored file and the compressed files inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinto_attachment.client.errors import ClientError, NotFoundError
from kinto_attachment.metadata import FIELD, Attachment, Original

GZIP_TYPES = ("application/gzip", "application/x-gzip")


@dataclass(frozen=True)
class Content:
    """``stored`` is the attachment; ``layers`` are the files that result from decompressing it.

    There is a layer if the server compressed the file (``attachment.original``), and one if the
    client did so before the upload (the record's ``original``), in this order. If the bytes are
    stored with a ``Content-Encoding``, None comes first, because the decoded file is not
    described.
    """

    stored: Attachment
    layers: tuple[Original | None, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Content:
        """:raises NotFoundError: the record has no attachment."""
        found = record.get(FIELD)
        if not isinstance(found, Mapping):
            raise NotFoundError(f"The record {record.get('id', '')} has no attachment")
        stored = attachment(found)
        layers: list[Original | None] = [None] if stored.encoding else []
        if stored.original:
            layers.append(stored.original)
        packed = stored.original or stored
        # Other clients may replace the file without removing the record's ``original``.
        zipped = packed.mimetype in GZIP_TYPES or packed.filename.endswith(".gz")
        if zipped and isinstance(record.get("original"), Mapping):
            layers.append(original(record["original"]))
        return cls(stored, tuple(layers))

    @property
    def inside(self) -> Attachment | Original:
        """The innermost file that is described: the one that the user uploaded."""
        return (self.layers and self.layers[-1]) or self.stored


def attachment(found: Mapping[str, Any]) -> Attachment:
    """The attachment object of a server's response.

    :raises ClientError: an attribute is missing or has the wrong type.
    """
    packed = found.get("original")
    return Attachment(
        filename=_text(found, "filename"),
        hash=_text(found, "hash"),
        location=_text(found, "location"),
        mimetype=_text(found, "mimetype"),
        size=_size(found),
        original=original(packed) if isinstance(packed, Mapping) else None,
        encoding="gzip" if found.get("encoding") == "gzip" else None,
    )


def original(found: Mapping[str, Any]) -> Original:
    return Original(
        filename=_text(found, "filename"),
        hash=_text(found, "hash"),
        mimetype=_text(found, "mimetype"),
        size=_size(found),
    )


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise ClientError(f"The attachment has no {name}")
    return value


def _size(found: Mapping[str, Any]) -> int:
    value = found.get("size")
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ClientError("The attachment has no size")
    return value
