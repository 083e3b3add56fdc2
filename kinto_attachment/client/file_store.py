"""A key-value store for files, on top of records."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from kinto_attachment import names
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.errors import NotFoundError
from kinto_attachment.client.forms import Progress
from kinto_attachment.client.receiving import Writable
from kinto_attachment.client.sources import Readable

MAX_KEY_BYTES = 1024  # The limit of S3. In a URL, a key takes twice that, which servers accept.
LIST_LIMIT = 1000
ID = "key-"
AFTER = "g"  # Sorts after all hexadecimal digits.


class FileStore:
    """A key-value store whose values are files; it may share its collection with other records.

    A key is any text of up to 1,024 bytes of UTF-8, including ``/`` and control characters. It is
    encoded in the id of its record, so that getting a file takes one request, and Kinto finds all
    keys with a prefix by its index on ids. The record's field ``key`` is for readers only. The
    collection has to allow the extensions of the keys' last segments, or all extensions:
    ``kinto.attachment.extensions = any``.

    >>> store = FileStore(client)
    >>> store.set("pictures/cat.txt", b"Meow")
    >>> store.get("pictures/cat.txt")
    b'Meow'
    """

    def __init__(self, client: AttachmentClient) -> None:
        self.client = client

    def set(self, key: str, value: bytes) -> None:
        """Store bytes under a key, replacing those that are there."""
        self.set_file(key, io.BytesIO(value))

    def set_file(
        self,
        key: str,
        file: Readable,
        *,
        mimetype: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Store a file of any size, given as a path or open for reading.

        >>> store.set_file("reports/2025.csv", "report.csv")
        """
        # Kinto and PostgreSQL refuse NUL in texts.
        data = {"key": key} if "\0" not in key else {}
        self.client.upload(
            record_id(key),
            file,
            data,
            mimetype=mimetype,
            filename=_filename(key),
            progress=progress,
        )

    def get(self, key: str) -> bytes:
        """The bytes under a key.

        >>> store.get("reports/1925.csv")
        Traceback (most recent call last):
        kinto_attachment.client.errors.NotFoundError: No file has the key 'reports/1925.csv'

        :raises NotFoundError: there is no such key.
        """
        file = io.BytesIO()
        self.get_file(key, file)
        return file.getvalue()

    def get_file(self, key: str, file: Writable, *, progress: Progress | None = None) -> None:
        """Write the file under a key to a path, or to a file open for writing.

        >>> store.get_file("reports/2025.csv", "copy.csv")

        :raises NotFoundError: there is no such key; nothing is written.
        """
        try:
            self.client.download(record_id(key), file, progress)
        except NotFoundError as error:
            raise _missing(key) from error

    def exists(self, key: str) -> bool:
        """
        >>> store.exists("pictures/cat.txt"), store.exists("pictures/dog.txt")
        (True, False)
        """
        return self.client.exists(record_id(key))

    def delete(self, key: str) -> None:
        """Delete the file under a key, and its record.

        >>> store.delete("pictures/cat.txt")
        >>> store.list()
        ['reports/2025.csv']

        :raises NotFoundError: there is no such key.
        """
        endpoint = self.client.kinto.get_endpoint("record", id=record_id(key))
        try:
            self.client.session.request("delete", endpoint)
        except NotFoundError as error:
            raise _missing(key) from error

    def list(self, prefix: str | None = None) -> list[str]:
        """Up to 1,000 keys that start with ``prefix``, sorted by their UTF-8 bytes.

        >>> store.list("rep")
        ['reports/2025.csv']
        """
        return list(islice(self._keys(prefix, LIST_LIMIT), LIST_LIMIT))

    def iter_list(self, prefix: str | None = None) -> Iterator[str]:
        """All keys that start with ``prefix``, sorted by their UTF-8 bytes, page by page.

        >>> list(store.iter_list())
        ['reports/2025.csv']
        """
        return self._keys(prefix, LIST_LIMIT)

    def _keys(self, prefix: str | None, page: int) -> Iterator[str]:
        first = ID + (prefix or "").encode("utf-8").hex()
        filters: dict[str, Any] = {"min_id": first, "lt_id": first + AFTER}
        fields = "attachment.hash"
        for record in self.client.records(**filters, _sort="id", _fields=fields, _limit=page):
            key = key_of(record["id"])
            if key is not None and record.get("attachment"):
                yield key


def record_id(key: str) -> str:
    """The id of a key's record; it preserves prefixes and the order of keys.

    :raises ValueError: the key is empty, too long, or not valid Unicode.
    """
    encoded = key.encode("utf-8")
    if not 0 < len(encoded) <= MAX_KEY_BYTES:
        raise ValueError(f"A key has 1 to {MAX_KEY_BYTES} bytes, not {len(encoded)}")
    return ID + encoded.hex()


def key_of(identifier: str) -> str | None:
    """The key of a record's id, None if the id was not made from a key."""
    if not re.fullmatch(rf"{ID}([0-9a-f]{{2}})+", identifier):
        return None
    try:
        return bytes.fromhex(identifier[len(ID) :]).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _filename(key: str) -> str:
    """The filename in the record: the key's last segment, if that can be a filename."""
    printable = "".join(c for c in re.split(r"[/\\]", key)[-1] if c.isprintable()).strip()
    return names.shortened(printable) if printable not in ("", ".", "..") else "file"


def _missing(key: str) -> NotFoundError:
    return NotFoundError(f"No file has the key {key!r}")
