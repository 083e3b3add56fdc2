"""What storages exchange with their callers, and the capabilities that they may have.

Each capability is a small protocol, which callers check for with ``isinstance``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from kinto_attachment.http.streams import Reader


class ClosableReader(Reader, Protocol):
    """A reader that holds a resource: a file descriptor or a connection."""

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
    """A part of a file that is not finished.

    Its writer is at work or has died, or it belongs to a :class:`Partial`.
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
    """A storage that checks the SHA-256 of some files by itself."""

    def has_hash(self, key: str, digest: str) -> bool:
        """Whether the storage vouches for the SHA-256 (in hex) of a whole file, as it is now.

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
        """Remove one of them; it may be gone already."""
        ...


@dataclass(frozen=True)
class Partial:
    """A file of which the bytes come in several requests, as far as they are durable.

    It can be written as JSON. ``id`` is random (128 bits, in hex), ``size`` is the number of
    durable bytes, and only the backend understands ``details``.
    """

    id: str
    key: str
    size: int = 0
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class ContinuesWrites(Protocol):
    """Writes that one process begins and another one, maybe on another machine, goes on with.

    The backend keeps no state between two calls: whoever calls keeps the last :class:`Partial`.
    What was stored, but is not part of the Partial that was kept, is garbage. It never becomes a
    part of the file, even if its writer still runs.
    """

    # The largest file that can be written in this way, in bytes; 0 is no limit.
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
        """What the next writer gets if the last one may still be running.

        Call it unless :meth:`append` has returned, and what it returned was kept. It does no I/O.
        The result has to be kept before the writer begins, so that no two writers ever get the
        same.
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

        From time to time, and before anything is changed that another writer might still use,
        ``checkpoint`` is called with what is durable at that moment, which includes every byte
        that was read by then. It may raise to end the call. What the reader raises ends it too.

        ``length`` is how many bytes the reader is expected to have, if that is known. It may
        have more or fewer, so that nothing but speed may depend on it.

        :raises StorageUnavailable, StorageFull: what checkpoint was last called with, or else
            ``partial``, can be taken over. Also if that was done, and what this writer goes on
            with is gone.
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
    """A part of a file, and the PUT by which a client sends it to the storage itself.

    The client has no credentials, and sends ``headers``, which pages of a browser may set.
    """

    number: int  # From 1 on.
    offset: int
    size: int
    url: str
    headers: dict[str, str]


@dataclass(frozen=True)
class ArrivedPart:
    """A part that a storage has got: its size in bytes, and when it came (UTC)."""

    size: int
    modified: datetime


@runtime_checkable
class UploadsDirectly(Protocol):
    """Files whose bytes clients send to the storage itself, in parts, by signed URLs.

    The backend keeps no state between two calls: whoever calls keeps the :class:`Partial`.
    """

    # The largest file that can be sent in this way, in bytes; 0 is no limit.
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

        What the file is served with is set here, and not by the client. Parts have ``part_size``
        bytes, or more if there would be too many. ``sha256`` is the hash of the file in hex, if
        it is known: a single part with other bytes is then refused.

        :raises KeyTaken, InvalidKey, StorageUnavailable, StorageFull:
        """
        ...

    def part_requests(self, partial: Partial, expires: int) -> list[PartRequest]:
        """How clients send the parts, for ``expires`` seconds: each in its size only.

        Once the file is finished or discarded, none of them stores anything, whenever it was
        signed.

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
        """Whether all parts are stored, and nothing else.

        :raises FileNotFound: the file is finished or discarded.
        :raises UploadIncomplete, WrongLength: parts are missing; there are others.
        :raises StorageUnavailable:
        """
        ...

    def finish_direct(self, partial: Partial) -> str:
        """Store the file under its key, whole and durable. It may be called again afterwards.

        :returns: the SHA-256 of the file in hex, if the storage vouches for it; else it is empty.
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
    """A small object that tells which site the storage belongs to.

    It is not one of the files: no key leads to it, and it is neither listed nor served.
    """

    def read_site(self) -> bytes | None:
        """Its content; None if there is none."""
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
