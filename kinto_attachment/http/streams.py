"""Readers that wrap other readers: each passes the bytes on and does one thing with them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from kinto_attachment.errors import DigestMismatch, InvalidBody, TooLarge, TooSmall, WrongChecksum

# gunicorn receives this much at once, and copies the rest after each smaller read.
CHUNK_SIZE = 1024 * 1024
GZIP_FORMAT = 16 + zlib.MAX_WBITS

# RFC 9530 names -> hashlib names; others are ignored, as the RFC requires.
DIGEST_ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512", "md5": "md5"}

# The headers that claim digests, as WebOb spells them.
DIGEST_HEADERS = ("Content-Digest", "Repr-Digest", "Content-Md5")

# From tus, which has another status for a mismatch.
CHECKSUM_HEADER = "Upload-Checksum"

_KEY = r"[a-z*][a-z0-9_.*-]*"
# The part of RFC 8941 3.2 that a dictionary of byte sequences needs.
_DIGEST_MEMBER = re.compile(rf"({_KEY})=:([A-Za-z0-9+/=]*):(?:; *{_KEY}(?:=[^ ,;\"]+)?)*")


class Reader(Protocol):
    """A source of bytes that is read once, from the start to the end."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, possibly fewer; ``b""`` only at the end."""
        ...


class BaseReader:
    """Base of the readers; as with files, a negative size reads everything that is left."""

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(partial(self._read, CHUNK_SIZE), b""))
        return self._read(size) if size else b""

    def _read(self, size: int) -> bytes:
        raise NotImplementedError


class ChunksReader(BaseReader):
    """Reads from chunks of any sizes, as they are made."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def _read(self, size: int) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class HashingReader(BaseReader):
    """Counts and hashes the bytes: SHA-256, and ``algorithms`` (hashlib names) in addition."""

    def __init__(self, reader: Reader, algorithms: Iterable[str] = ()) -> None:
        self._reader = reader
        self._hashes = {
            name: hashlib.new(name, usedforsecurity=False) for name in ("sha256", *algorithms)
        }
        self.size = 0

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes read so far, in hex."""
        return self._hashes["sha256"].hexdigest()

    def digest(self, name: str) -> bytes:
        """The digest of the bytes read so far, by one of the given algorithms."""
        return self._hashes[name].digest()

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        self.size += len(data)
        for value in self._hashes.values():
            value.update(data)
        return data


class LimitedReader(BaseReader):
    """Raises TooLarge at the first byte above ``limit``, TooSmall at an end below ``least``.

    0 is no limit.
    """

    def __init__(self, reader: Reader, limit: int, least: int = 0) -> None:
        self._reader = reader
        self._limit = limit
        self._least = least
        self._size = 0

    def _read(self, size: int) -> bytes:
        """:raises TooLarge, TooSmall: also on every later read."""
        data = self._reader.read(size)
        self._size += len(data)
        if 0 < self._limit < self._size:
            raise TooLarge(f"body: File size exceeds the limit of {self._limit} bytes.")
        if not data and self._size < self._least:
            raise TooSmall(f"body: File size is below the minimum of {self._least} bytes.")
        return data


class BoundedReader(BaseReader):
    """Raises ``error`` at the first byte above ``limit``, and on every later read."""

    def __init__(self, reader: Reader, limit: int, error: Exception) -> None:
        self._reader = reader
        self._left = limit
        self._error = error

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise self._error
        return data


class GzipReader(BaseReader):
    """The bytes of the inner reader, gzipped; the same input gives the same output.

    Holds one chunk and its compressed form in memory, however large the file.
    """

    def __init__(self, reader: Reader, level: int = 6) -> None:
        self._reader = reader
        # zlib writes a gzip header without a filename and with a time of 0 (RFC 1952 2.3.1).
        self._compressor = zlib.compressobj(level, zlib.DEFLATED, GZIP_FORMAT)
        self._ready = b""
        self._position = 0
        self._ended = False

    def _read(self, size: int) -> bytes:
        while self._position == len(self._ready) and not self._ended:
            data = self._reader.read(CHUNK_SIZE)
            self._ended = not data
            self._ready = self._compressor.compress(data) if data else self._compressor.flush()
            self._position = 0
        start, self._position = self._position, min(self._position + size, len(self._ready))
        return self._ready[start : self._position]


@dataclass(frozen=True)
class Claim:
    """A digest that a header claims; ``algorithm`` is a name of hashlib."""

    header: str
    algorithm: str
    digest: bytes

    @classmethod
    def decode(cls, header: str, algorithm: str, encoded: str) -> Claim:
        """The claim of a digest in base64.

        :raises InvalidBody: it is malformed, or has another length than the algorithm's.
        """
        try:
            digest = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidBody(f"{header} is malformed.") from error
        if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
            raise InvalidBody(f"{header} has a digest of the wrong length.")
        return cls(header, algorithm, digest)

    def mismatch(self, size: int) -> DigestMismatch:
        """The error for ``size`` bytes that have another digest."""
        kind = WrongChecksum if self.header == CHECKSUM_HEADER else DigestMismatch
        return kind(
            f"{self.header} does not match the {self.algorithm} digest"
            f" of the {size} bytes received."
        )


@dataclass(frozen=True)
class ClaimedDigests:
    """The digests that a client claims in ``Content-Digest``, ``Repr-Digest`` or ``Content-MD5``.

    All three are of the whole content that the headers belong to (RFC 9530 2 and 3; a request's
    representation is its content). So the headers of a PUT of raw bytes are compared with the
    file, the headers of a multipart request with its whole body including boundaries, and the
    headers of the form's file part with the file.
    """

    claims: tuple[Claim, ...] = ()

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> ClaimedDigests:
        """The claims in ``headers``, whose names may be in any case.

        :raises InvalidBody: a header is malformed; unknown algorithms are ignored.
        """
        claims: list[Claim] = []
        for name, value in headers.items():
            if name.lower() in ("content-digest", "repr-digest"):
                claims += _digest_fields(name, value)
            elif name.lower() == "content-md5":
                # Headers of a form's part may end in white space.
                claims.append(Claim.decode(name, "md5", value.strip()))
        return cls(tuple(claims))

    def __bool__(self) -> bool:
        return bool(self.claims)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that a :class:`HashingReader` needs for the check."""
        return tuple({claim.algorithm: None for claim in self.claims})

    def dump(self) -> tuple[tuple[str, str, str], ...]:
        """The claims as header, algorithm, and digest in hex."""
        return tuple((each.header, each.algorithm, each.digest.hex()) for each in self.claims)

    def check(self, reader: HashingReader) -> None:
        """:raises DigestMismatch: a digest of the bytes read differs from the claimed one."""
        for claim in self.claims:
            if reader.digest(claim.algorithm) != claim.digest:
                raise claim.mismatch(reader.size)


def _digest_fields(header: str, value: str) -> Iterator[Claim]:
    members = (member.strip(" \t") for member in value.split(","))
    for member in filter(None, members):
        match = _DIGEST_MEMBER.fullmatch(member)
        if not match:
            raise InvalidBody(f"{header} is malformed.")
        if match[1] in DIGEST_ALGORITHMS:
            # RFC 8941 4.2.7: padding may be missing.
            padded = match[2] + "=" * (-len(match[2]) % 4)
            yield Claim.decode(header, DIGEST_ALGORITHMS[match[1]], padded)
