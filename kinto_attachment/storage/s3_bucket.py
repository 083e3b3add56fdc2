"""Calls on a bucket of S3."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

from kinto_attachment.errors import AttachmentError, FileNotFound, KeyTaken, StorageUnavailable

from . import CHUNK_SIZE
from .pieces import Piece
from .s3_clients import S3Clients, is_of_aws
from .s3_download import Download
from .s3_errors import NO_BUCKET, error_code, translated
from .wait_budget import within_budget


class S3Bucket:
    """Can be used from any thread, before and after a fork; connects with the first call."""

    def __init__(self, name: str, clients: S3Clients) -> None:
        self.name = name
        self._clients = clients
        self._seen = False
        self._refuses_taken_keys: bool | None = None
        self._vouches_for_parts = True

    def client(self, *, cleanup: bool = False) -> Any:
        """boto3's client; the one for ``cleanup`` gives up sooner."""
        return self._clients.get(cleanup=cleanup)

    def credentials_expire(self) -> datetime | None:
        """When temporary credentials end, of a role for example; None for others."""
        return self._clients.credentials_expire()

    @property
    def is_aws(self) -> bool:
        """Whether this is Amazon S3, and not a compatible server."""
        return is_of_aws(self.client().meta.endpoint_url)

    @property
    def vouches_for_parts(self) -> bool:
        """Whether the server returns the CRC-32 of a part that was sent without one.

        Such a part can be sent while its bytes arrive. AWS refuses it.
        """
        return self._vouches_for_parts and not self.is_aws

    def does_not_vouch(self) -> None:
        self._vouches_for_parts = False

    def call(
        self,
        operation: str,
        *,
        tolerating: Collection[str] = (),
        cleanup: bool = False,
        early: bool = False,
        **parameters: Any,
    ) -> dict[str, Any]:
        """The response to an operation on this bucket; empty for error codes in ``tolerating``.

        ``cleanup`` and ``early`` choose the client, see :class:`S3Clients`.

        :raises FileNotFound, KeyTaken, StorageUnavailable, StorageFull: with boto3's error as
            the cause.
        """
        try:
            with within_budget(parameters.get("Body"), cleanup=cleanup), translated():
                method = getattr(self._clients.get(cleanup=cleanup, early=early), operation)
                answer: dict[str, Any] = method(Bucket=self.name, **parameters)
        except AttachmentError as error:
            if error_code(error) not in tolerating:
                raise
            return {}
        return answer

    def pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """The responses to an operation that returns its results in pages."""
        with translated():
            paginator = self.client().get_paginator(operation)
            answers = iter(paginator.paginate(Bucket=self.name, **parameters))
        while True:
            with translated():
                answer = next(answers, None)
            if answer is None:
                return
            yield answer

    def head(self, key: str, **parameters: Any) -> dict[str, Any]:
        try:
            return self.call("head_object", Key=key, **parameters)
        except FileNotFound:
            self._check()
            raise

    def create(self, key: str, body: Piece, **headers: Any) -> None:
        """Put an object in one step, without overwriting another one.

        :raises KeyTaken: there is an object under this key.
        """
        trusted = self.is_aws or self._refuses_taken_keys
        if not trusted:
            self.check_free(key)
        parameters = {"Key": key, **sent_body(body), **headers}
        if self._refuses_taken_keys is not False:
            answer = self.call(
                "put_object", tolerating=["NotImplemented"], IfNoneMatch="*", **parameters
            )
            if not trusted:
                body.seek(0)
                self._refuses_taken_keys = bool(answer) and self._refuses(parameters)
            if answer:
                return
        self.call("put_object", **parameters)

    def put(self, key: str, body: Piece, **headers: Any) -> None:
        """Put an object whose key nobody else uses."""
        self.call("put_object", Key=key, **sent_body(body), **headers)

    def get(self, key: str) -> bytes:
        """The content of a small object."""
        with closing(Download(self.call("get_object", Key=key)["Body"])) as body:
            return body.read()

    def check_free(self, key: str) -> None:
        """:raises KeyTaken: there is an object under this key."""
        with suppress(FileNotFound):
            self.head(key)
            raise KeyTaken()

    def _refuses(self, parameters: dict[str, Any]) -> bool:
        """Whether the server honours ``If-None-Match``: many ignore it silently.

        This is tested by writing an object a second time, with the same content.
        """
        try:
            self.call("put_object", IfNoneMatch="*", **parameters)
        except KeyTaken:
            return True
        return False

    def close(self) -> None:
        """Close idle connections; later calls open new ones."""
        self._clients.close()

    def _check(self) -> None:
        # The response to HEAD has no body, and so does not tell a missing bucket from a missing
        # object.
        if self._seen:
            return
        try:
            # 403: the bucket exists, but these credentials may only access its objects.
            self.call("head_bucket", tolerating=["403"])
        except FileNotFound as error:
            raise StorageUnavailable(NO_BUCKET) from error
        self._seen = True


def sent_body(body: Piece) -> dict[str, Any]:
    # boto3 sends a file only after the server's "100 Continue". That is good for a large one,
    # which the server may refuse; bytes are sent at once, which is faster for a small one.
    content = body if body.size > CHUNK_SIZE else body.getvalue()
    return {"Body": content, "ChecksumCRC32": body.crc32}
