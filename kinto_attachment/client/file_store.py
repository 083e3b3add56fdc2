"""A key-value store for files, on top of records."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from kinto_attachment import names
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.errors import NotFoundError
from kinto_attachment.client.forms import Progress
from kinto_attachment.client.links import EXPIRES_IN
from kinto_attachment.client.receiving import Writable
from kinto_attachment.client.sources import Readable, Reads
from kinto_attachment.metadata import Attachment

MAX_KEY_BYTES = 1024  # The limit of S3. In a URL, a key takes twice that, which servers accept.
LIST_LIMIT = 1000
ID = "key-"
AFTER = "g"  # Sorts after all hexadecimal digits.

Value = bytes | bytearray | memoryview | str | os.PathLike[str] | Reads


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

    def set(
        self,
        key: str,
        value: Value,
        *,
        mimetype: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Store bytes, a text or a file of any size under a key, replacing what is there.

        A text is stored in UTF-8. A file is a ``Path``, or any object with ``read``, which is read
        from its current position.

        >>> store.set("notes/today.txt", "Grüße")
        >>> store.get("notes/today.txt").decode()
        'Grüße'
        """
        if isinstance(value, str):
            value = value.encode("utf-8")
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = io.BytesIO(value)
        self.set_file(key, value, mimetype=mimetype, progress=progress)

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
        self.client.upload(
            record_id(key),
            file,
            _data(key),
            mimetype=mimetype,
            filename=_filename(key),
            progress=progress,
        )

    def upload_url(
        self, key: str, size: int, *, mimetype: str | None = None, expires_in: int = 3600
    ) -> str:
        """A URL with which anybody can store ``size`` bytes under a key, once, with ``PUT``.

        It is valid for ``expires_in`` seconds; see ``AttachmentClient.upload_url``.

        >>> url = store.upload_url("letters/june.txt", size=5)
        >>> requests.put(url, data=b"Dear!", timeout=10).status_code
        201
        >>> store.get("letters/june.txt")
        b'Dear!'
        >>> store.delete("letters/june.txt")
        """
        return self.client.upload_url(
            record_id(key),
            _filename(key),
            size,
            _data(key),
            mimetype=mimetype,
            expires_in=expires_in,
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

    def stat(self, key: str) -> Attachment:
        """The size, the hash and the media type of the file under a key, without the file.

        >>> store.stat("pictures/cat.txt").size
        4

        :raises NotFoundError: there is no such key.
        """
        try:
            return self.client.stat(record_id(key))
        except NotFoundError as error:
            raise _missing(key) from error

    def signed_url(
        self,
        key: str,
        *,
        expires_in: int | str = EXPIRES_IN,
        disposition: str | None = None,
        filename: str | None = None,
    ) -> str:
        """A URL of the file under a key that needs no credentials.

        The arguments are those of :meth:`.AttachmentClient.url`.

        >>> requests.get(store.signed_url("pictures/cat.txt"), timeout=30).text
        'Meow'

        :raises NotFoundError: there is no such key.
        """
        try:
            return self.client.url(
                record_id(key),
                expires_in=expires_in,
                disposition=disposition,
                filename=filename,
            )
        except NotFoundError as error:
            raise _missing(key) from error

    def copy(self, key: str, target: str) -> None:
        """Copy the file of a key to another key, replacing the file of that key.

        >>> store.copy("notes/today.txt", "notes/older/monday.txt")

        :raises NotFoundError: there is no such key.
        """
        try:
            self.client.copy(
                record_id(key), record_id(target), _data(target), filename=_filename(target)
            )
        except NotFoundError as error:
            raise _missing(key) from error

    def delete(self, key: str) -> None:
        """Delete the file under a key, and its record.

        >>> store.delete("notes/today.txt")
        >>> store.delete("notes/older/monday.txt")
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

    def list(
        self, prefix: str | None = None, recursive: bool = True, start_after: str | None = None
    ) -> list[str]:
        """Up to 1,000 keys that start with ``prefix``, sorted by their UTF-8 bytes.

        Unless ``recursive``, keys with a ``/`` after the prefix are grouped into folders: each
        folder has one entry, which ends with that ``/``. ``start_after`` is the entry before the
        first one.

        >>> store.list("rep")
        ['reports/2025.csv']
        >>> store.list(recursive=False)
        ['reports/']
        """
        return list(islice(self.iter_list(prefix, recursive, start_after), LIST_LIMIT))

    def iter_list(
        self, prefix: str | None = None, recursive: bool = True, start_after: str | None = None
    ) -> Iterator[str]:
        """The same for all keys, page by page.

        >>> list(store.iter_list())
        ['reports/2025.csv']
        """
        prefix = prefix or ""
        # A text without the prefix is never equal to the folder, which starts with the prefix.
        is_folder = not recursive and start_after == _folder(start_after or "", prefix)
        after: dict[str, str] | None = _behind(start_after, is_folder=is_folder)
        while after is not None:
            after = yield from self._until_folder_ends(prefix, recursive, after)

    def _until_folder_ends(
        self, prefix: str, recursive: bool, after: dict[str, str]
    ) -> Generator[str, None, dict[str, str] | None]:
        """The entries; returns where to continue if a folder has more keys than one call reads."""
        first = ID + prefix.encode("utf-8").hex()
        # A ``min_id`` in ``after`` is the end of a folder, which is not before ``first``.
        filters: dict[str, Any] = {"min_id": first, "lt_id": first + AFTER, **after}
        folder = None
        fields = "attachment.hash"
        for page, _ in self.client.pages(**filters, _sort="id", _fields=fields, _limit=LIST_LIMIT):
            for key in _keys_of(page):
                if folder is not None and key.startswith(folder):
                    continue
                folder = None if recursive else _folder(key, prefix)
                yield folder or key
            if folder is not None:
                return _behind(folder, is_folder=True)
        return None


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


def _data(key: str) -> dict[str, str]:
    """The record's other fields. Kinto and PostgreSQL refuse NUL in texts."""
    return {"key": key} if "\0" not in key else {}


def _keys_of(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for record in records:
        key = key_of(record["id"])
        if key is not None and record.get("attachment"):
            yield key


def _folder(key: str, prefix: str) -> str | None:
    """The key, which has the prefix, up to the first ``/`` after it, if there is one."""
    name, slash, _ = key[len(prefix) :].partition("/")
    return f"{prefix}{name}/" if slash else None


def _behind(key: str | None, *, is_folder: bool) -> dict[str, str]:
    """The filter for the keys after a key, or after all those in a folder."""
    if not key:
        return {}
    encoded = ID + key.encode("utf-8").hex()
    return {"min_id": encoded + AFTER} if is_folder else {"gt_id": encoded}


def _filename(key: str) -> str:
    """The filename in the record: the key's last segment, if that can be a filename."""
    printable = "".join(c for c in re.split(r"[/\\]", key)[-1] if c.isprintable()).strip()
    return names.shortened(printable) if printable not in ("", ".", "..") else "file"


def _missing(key: str) -> NotFoundError:
    return NotFoundError(f"No file has the key {key!r}")
