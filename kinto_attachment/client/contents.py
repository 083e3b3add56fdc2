"""The content of an attachment: the stored file, and the files compressed in it."""

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
    client did so before the upload (the record's ``original``), in this order.
    """

    stored: Attachment
    layers: tuple[Original, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Content:
        """:raises NotFoundError: the record has no attachment."""
        found = record.get(FIELD)
        if not isinstance(found, Mapping):
            raise NotFoundError(f"The record {record.get('id', '')} has no attachment")
        stored = attachment(found)
        layers = [stored.original] if stored.original else []
        packed = layers[-1] if layers else stored
        # Other clients may replace the file without removing the record's ``original``.
        zipped = packed.mimetype in GZIP_TYPES or packed.filename.endswith(".gz")
        if zipped and isinstance(record.get("original"), Mapping):
            layers.append(original(record["original"]))
        return cls(stored, tuple(layers))

    @property
    def inside(self) -> Attachment | Original:
        """The innermost file: the one that the user uploaded."""
        return self.layers[-1] if self.layers else self.stored


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
