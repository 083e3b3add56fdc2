"""The capabilities that storages may have, and the data that they exchange with callers.

Each capability is a small protocol, which callers check for with ``isinstance``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from kinto_attachment.http.streams import Reader


class ClosableReader(Reader, Protocol):
    """A reader with a resource: a file descriptor or a connection."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class FileStat:
    """A stored file: its object key, its size in bytes, when it was written (UTC)."""

    key: str
    size: int
    modified: datetime
    content_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Unfinished:
    """A part of an unfinished file.

    Its writer is still writing or has died, or it belongs to a :class:`Partial`.
    """

    id: str
    key: str
    size: int
    modified: datetime
    # Whether it is in a place that only this plugin writes to, and not in one with the uploads of
    # other programs.
    is_private: bool = False
    # The id of the Partial that it was stored for; empty if there is none, or if only the key
    # tells which one it is.
    partial_id: str = ""


@runtime_checkable
class SignsUrls(Protocol):
    def signed_url(
        self, key: str, expires: int, filename: str, disposition: str, content_type: str
    ) -> str:
        """A URL from which anybody can GET the file for ``expires`` seconds.

        The response has the ``Content-Disposition`` made of ``disposition``
        (``attachment`` or ``inline``) and ``filename``, and the media type ``content_type``.
        """
        ...


@runtime_checkable
class ListsFiles(Protocol):
    def list(self, prefix: str = "") -> Iterator[FileStat]:
        """All finished files whose key starts with ``prefix``, in any order."""
        ...


@runtime_checkable
class KnowsHashes(Protocol):
    """A storage that knows the SHA-256 of some files."""

    def has_hash(self, key: str, digest: str) -> bool:
        """Whether the storage confirms the SHA-256 (in hex) of the current file.

        :raises FileNotFound:
        """
        ...


@runtime_checkable
class CopiesFiles(Protocol):
    def copy(self, source: str, target: str) -> FileStat:
        """Copy a file without reading its bytes into this process.

        :raises KeyTaken: there is a file at ``target``, which stays as it is.
        :raises FileNotFound: there is no file at ``source``.
        """
        ...


@runtime_checkable
class ListsUnfinished(Protocol):
    def list_unfinished(self) -> Iterator[Unfinished]:
        """Temporary files and incomplete multipart uploads, including those still in progress."""
        ...

    def discard_unfinished(self, unfinished: Unfinished) -> None:
        """Remove one of them, which may already have been removed."""
        ...


@dataclass(frozen=True)
class Partial:
    """The durable bytes of a file that comes in several requests.

    It can be written as JSON. ``id`` is random (128 bits, in hex), ``size`` is the number of
    durable bytes, and only the backend understands ``details``.
    """

    id: str
    key: str
    size: int = 0
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class ContinuesWrites(Protocol):
    """Writes that one process begins and another one, possibly on another machine, continues.

    The backend keeps no state between two calls. The caller keeps the last :class:`Partial`. Bytes
    that are not part of it are garbage. They never become a part of the file, even if their writer
    is still running.
    """

    # The size of the largest file that can be written in this way; 0 is no limit.
    largest_partial: int

    def begin(
        self,
        id: str,
        key: str,
        content_type: str,
        *,
        disposition: str = "",
        length: int | None = None,
    ) -> Partial:
        """Begin a file. There is none under its key before :meth:`finish`.

        ``length`` is the file's size in bytes, if it is known.

        :raises KeyTaken, InvalidKey, StorageUnavailable, StorageFull:
        """
        ...

    def take_over(self, partial: Partial) -> Partial:
        """The Partial for the next writer if the last one may still be running.

        Call it unless :meth:`append` has returned and its result was kept. It does no I/O. The
        result has to be kept before the writer begins, so that two writers never get the same one.
        """
        ...

    def append(
        self,
        partial: Partial,
        reader: Reader,
        checkpoint: Callable[[Partial], None],
        *,
        length: int | None = None,
    ) -> Partial:
        """Append all bytes of ``reader``, durably.

        Regularly, and before a change to data that another writer might still use, ``checkpoint``
        is called with the durable Partial, which includes every byte read so far. It may raise an
        exception to end the call. An exception from the reader also ends it.

        ``length`` is the expected number of bytes of the reader, if known. The reader may have
        more or fewer, so only the speed may depend on it.

        :raises StorageUnavailable, StorageFull: the last argument of checkpoint, or else
            ``partial``, can be taken over. Also raised if it was taken over and the bytes that
            this writer continues were removed.
        """
        ...

    def finish(self, partial: Partial) -> FileStat:
        """Store the file under its key, whole and durable. It may be called again afterwards.

        :raises KeyTaken, StorageUnavailable, StorageFull: it can be tried again.
        """
        ...

    def discard(self, partial: Partial) -> None:
        """Remove everything that was stored for the file, except what :meth:`finish` stored.

        It may be gone already, wholly or in part.
        """
        ...


@dataclass(frozen=True)
class PartRequest:
    """A part of a file, and the PUT with which a client sends it to the storage.

    The client has no credentials, and sends ``headers``, which pages of a browser may set.
    """

    number: int  # From 1 on.
    offset: int
    size: int
    url: str
    headers: dict[str, str]


@dataclass(frozen=True)
class ArrivedPart:
    """A part that a storage has received: its size in bytes, and when it arrived (UTC)."""

    size: int
    modified: datetime


@runtime_checkable
class UploadsDirectly(Protocol):
    """Files whose bytes clients send to the storage in parts, to signed URLs.

    The backend keeps no state between two calls. The caller keeps the :class:`Partial`.
    """

    # The size of the largest file that can be sent in this way; 0 is no limit.
    largest_direct: int

    def begin_direct(
        self,
        id: str,
        key: str,
        content_type: str,
        *,
        disposition: str = "",
        length: int,
        part_size: int,
        sha256: str = "",
    ) -> Partial:
        """Begin a file of ``length`` bytes. There is none under its key before the finish.

        The headers with which the file is served are set here, and not by the client. Parts have
        ``part_size`` bytes, or more if there would be too many. ``sha256`` is the hash of the file
        in hex, if known. A single part with other bytes is then refused.

        :raises KeyTaken, InvalidKey, StorageUnavailable, StorageFull:
        """
        ...

    def part_requests(self, partial: Partial, expires: int) -> list[PartRequest]:
        """The requests with which clients send the parts, valid for ``expires`` seconds.

        Each accepts only its size. After the file was finished or discarded, none of them stores
        anything, whenever it was signed.

        :raises StorageUnavailable: the backend cannot sign.
        """
        ...

    def arrived_parts(self, partial: Partial) -> dict[int, ArrivedPart]:
        """The parts that are stored, by their numbers.

        :raises FileNotFound: the file is finished or discarded.
        :raises StorageUnavailable:
        """
        ...

    def check_parts(self, partial: Partial) -> None:
        """Check that exactly the parts of the file are stored.

        :raises FileNotFound: the file is finished or discarded.
        :raises UploadIncomplete, WrongLength: parts are missing; there are others.
        :raises StorageUnavailable:
        """
        ...

    def finish_direct(self, partial: Partial) -> str:
        """Store the file under its key, whole and durable. It may be called again afterwards.

        :returns: the SHA-256 of the file in hex if the storage knows it, or an empty text.
        :raises FileNotFound: the file is discarded.
        :raises UploadIncomplete, WrongLength: as :meth:`check_parts`.
        :raises KeyTaken, StorageUnavailable, StorageFull: it can be tried again.
        """
        ...

    def discard(self, partial: Partial) -> None:
        """Remove everything that was stored for the file, except what the finish stored.

        It may be gone already, wholly or in part.
        """
        ...


@runtime_checkable
class KeepsSite(Protocol):
    """A small object that identifies the site to which the storage belongs.

    It is not one of the files: it has no key, and is neither listed nor served.
    """

    def read_site(self) -> bytes | None:
        """Its content; None if it does not exist."""
        ...

    def write_site(self, content: bytes, *, replace: bool) -> bool:
        """Write all of it or nothing. Unless ``replace``, an object that is there stays.

        :returns: False if there was one that stays.
        """
        ...


@runtime_checkable
class HasPaths(Protocol):
    def path(self, filename: str) -> str:
        """The absolute path of the file on this machine."""
        ...


CAPABILITIES: tuple[type, ...] = (
    SignsUrls,
    ListsFiles,
    CopiesFiles,
    ListsUnfinished,
    ContinuesWrites,
    UploadsDirectly,
    KeepsSite,
    KnowsHashes,
    HasPaths,
)
