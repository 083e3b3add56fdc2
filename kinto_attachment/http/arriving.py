"""The bytes of one request for an upload in several requests."""

from __future__ import annotations

import hashlib

from kinto_attachment.errors import AttachmentError, QuotaExceeded, TooLarge
from kinto_attachment.http.saved_hashes import SavedHash
from kinto_attachment.http.streams import BaseReader, ClaimedDigests, Reader


class Arriving(BaseReader):
    """Hashes the bytes, continuing ``saved``, and treats a body that breaks off as one that ends.

    So the bytes that arrived are kept. Afterwards, ``error`` is the reason why the body broke off.
    ``left`` is the largest number of bytes to come. If ``saved`` is None, the hash cannot be
    continued.
    """

    def __init__(
        self, body: Reader, saved: SavedHash | None, left: int | None, claims: ClaimedDigests
    ) -> None:
        self._body = body
        self._saved = saved
        self._left = left
        self._hashes = {
            name: hashlib.new(name, usedforsecurity=False) for name in claims.algorithms
        }
        self.size = 0
        self.error: AttachmentError | None = None

    def saved(self) -> str | None:
        """The state of the hash of all bytes of the file so far."""
        return None if self._saved is None else self._saved.save()

    def check(self, claims: ClaimedDigests) -> None:
        """:raises AttachmentError: the body broke off, or does not have a digest."""
        if self.error is not None:
            raise self.error
        for claim in claims.claims:
            if self._hashes[claim.algorithm].digest() != claim.digest:
                raise claim.mismatch(self.size)

    def _read(self, size: int) -> bytes:
        """:raises TooLarge, QuotaExceeded: there are too many bytes; none of these is kept."""
        if self.error is not None:
            return b""
        try:
            data = self._body.read(size)
        except QuotaExceeded:
            raise
        except AttachmentError as error:
            self.error = error
            return b""
        self.size += len(data)
        if self._left is not None and self.size > self._left:
            raise TooLarge("body: There are more bytes than the file may have.")
        if self._saved is not None:
            self._saved.update(data)
        for value in self._hashes.values():
            value.update(data)
        return data
