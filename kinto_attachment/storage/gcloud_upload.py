"""Creating an object in a bucket of Google's, by upload or by copy; never overwrites."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from kinto_attachment.errors import FileNotFound, StorageError, StorageUnavailable

from . import Reader
from .gcloud_bucket import GoogleBucket
from .gcloud_errors import NO_BUCKET, translated
from .pieces import PIECE_SIZE, pieces


class NewObject:
    """An object that is being created; ``properties`` are attributes of Google's ``Blob``."""

    def __init__(
        self,
        bucket: GoogleBucket,
        key: str,
        acl: str | None,
        kms_key: str | None,
        *,
        token: str = "",
        **properties: str | None,
    ) -> None:
        self.key = key
        self.size = 0
        self._bucket = bucket
        self._acl = acl
        # Tells this object from one that another request created under the same key.
        self._token = token or uuid4().hex
        self._blob = bucket.blob(key, kms_key_name=kms_key)
        self._blob.metadata = {"upload": self._token}
        for name, value in properties.items():
            if value:
                setattr(self._blob, name, value)

    def send(self, reader: Reader, content_type: str) -> None:
        """Upload the bytes of a reader.

        :raises KeyTaken: there is an object under this key.
        """
        blocks = Blocks(reader)
        self.size = len(blocks.peek())
        several = self.size == PIECE_SIZE
        if several:
            self._blob.chunk_size = PIECE_SIZE
        try:
            # ValueError: Google stored only a part of a block, and the library cannot seek back.
            with translated(ValueError):
                self._blob.upload_from_file(
                    blocks,
                    size=None if several else self.size,
                    content_type=content_type,
                    predefined_acl=self._acl,
                    if_generation_match=0,
                    checksum="crc32c",
                    retry=self._bucket.retry,
                )
        except FileNotFound as error:
            raise StorageUnavailable(NO_BUCKET) from error
        except StorageError as failure:
            if blocks.failure is None or failure.__cause__ is not blocks.failure:
                raise
            # Errors that the reader raises are not translated.
            raise blocks.failure from blocks.failure.__cause__
        finally:
            self.size = max(self.size, blocks.position)

    def copy(self, origin: Any) -> None:
        """Let Google copy another object.

        :raises KeyTaken: there is an object under this key.
        """
        self.size = origin.size
        token = None
        while True:
            with translated():
                token, _, _ = self._blob.rewrite(
                    origin, token=token, if_generation_match=0, retry=self._bucket.retry
                )
            if token is None:
                break
        self.set_acl()

    def compose(self, keys: Sequence[str], size: int) -> None:
        """Let Google compose up to 32 objects, of ``size`` bytes in all; their class stays.

        :raises KeyTaken: there is an object under this key.
        :raises FileNotFound: one of them is missing.
        """
        self.size = size
        sources = [self._bucket.blob(key) for key in keys]
        with translated():
            self._blob.compose(sources, if_generation_match=0, retry=self._bucket.retry)

    def set_acl(self) -> None:
        """Copies and composed objects can only get an ACL afterwards."""
        if self._acl:
            with translated():
                self._blob.acl.save_predefined(self._acl)

    def exists_whole(self) -> bool:
        """Whether the object was created despite a failure.

        The response to a successful call may have been lost; and when the library retries, it
        finds the key taken by the object itself.
        """
        with suppress(FileNotFound, StorageError):
            found = self._bucket.find(self.key, cleanup=True)
            token = (found.metadata or {}).get("upload")
            return bool(token == self._token and found.size == self.size)
        return False


class Blocks:
    """A reader that returns full blocks, because Google's library treats a short read as the end.

    ``failure`` is the exception that the reader raised, if it did.
    """

    def __init__(self, reader: Reader) -> None:
        self.position = 0
        self.failure: Exception | None = None
        self._pieces = pieces(reader)
        self._next: bytes | None = None

    def peek(self) -> bytes:
        """The next block, of :data:`PIECE_SIZE` bytes unless it is the last one."""
        if self._next is None:
            try:
                piece = next(self._pieces, None)
            except Exception as error:
                self.failure = error
                raise
            self._next = piece.getvalue() if piece else b""
        return self._next

    def read(self, size: int) -> bytes:
        block, self._next = self.peek(), None
        self.position += len(block)
        return block

    def tell(self) -> int:
        return self.position
