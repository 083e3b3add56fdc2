"""Access to a bucket of S3: boto3 clients per process, errors translated."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pyramid.exceptions import ConfigurationError

from kinto_attachment.errors import (
    AttachmentError,
    FileNotFound,
    KeyTaken,
    StorageFull,
    StorageUnavailable,
)

from . import CHUNK_SIZE
from .pieces import Piece
from .wait_budget import (
    CLEANUP_TIMEOUT,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    is_too_late_to_retry,
    seconds_of_silence,
    within_budget,
)

try:
    from boto3.exceptions import Boto3Error
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError
except ImportError as error:
    raise ConfigurationError(
        'To store on S3, boto3 is needed: pip install "kinto-attachment[s3]"'
    ) from error

TRIES = 3
# For calls that clean up after a failure while a client waits: gc removes what they leave.
CLEANUP_TRIES = 2
# Keys in boto3's context of a call: when its last try began, and the seconds lost before it.
BEGUN, LOST = "kinto_attachment.begun", "kinto_attachment.lost"
CONNECTIONS = 50

FULL = {"InsufficientStorage", "QuotaExceeded", "QuotaExceededException", "XMinioStorageFull"}
FAILURES = (BotoCoreError, ClientError, Boto3Error, HTTPError, OSError)
NO_BUCKET = "The bucket of kinto.attachment.aws.bucket_name does not exist."


class S3Bucket:
    """Can be used from any thread, before and after a fork; connects with the first call.

    ``timeout`` is in seconds, for connecting, for each block sent and for each response.
    ``tries`` is how often a call is tried at most; less often if each try fails slowly.
    """

    def __init__(
        self,
        name: str,
        *,
        access_key: str | None = None,
        secret_key: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        use_path_style: bool = False,
        timeout: float | None = None,
        tries: int | None = None,
    ) -> None:
        self.name = name
        self._credentials = {
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key,
        }
        self._region = region
        self._endpoint_url = endpoint_url
        self._use_path_style = use_path_style
        self._timeout = timeout
        self._tries = tries
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[tuple[int, bool], Any] = {}
        self._seen = False
        self._refuses_taken_keys: bool | None = None

    def client(self, *, cleanup: bool = False) -> Any:
        """boto3's client; the one for ``cleanup`` gives up sooner."""
        # Per process: a child must not use the connections of its parent.
        name = (os.getpid(), cleanup)
        with self._lock:
            if name not in self._clients:
                self._clients[name] = self._build(cleanup)
            return self._clients[name]

    @property
    def is_aws(self) -> bool:
        """Whether this is Amazon S3, and not a compatible server."""
        host = urlsplit(self.client().meta.endpoint_url).hostname or ""
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

    def call(
        self,
        operation: str,
        *,
        tolerating: Collection[str] = (),
        cleanup: bool = False,
        **parameters: Any,
    ) -> dict[str, Any]:
        """The response to an operation on this bucket; empty for error codes in ``tolerating``.

        :raises FileNotFound, KeyTaken, StorageUnavailable, StorageFull: with boto3's error as
            the cause.
        """
        try:
            with within_budget(parameters.get("Body"), cleanup=cleanup), translated():
                method = getattr(self.client(cleanup=cleanup), operation)
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

    def head(self, key: str) -> dict[str, Any]:
        try:
            return self.call("head_object", Key=key)
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
        # boto3 sends a file only after the server's "100 Continue". That is good for a large one,
        # which the server may refuse; bytes are sent at once, which is faster for a small one.
        content = body if body.size > CHUNK_SIZE else body.getvalue()
        parameters = {"Key": key, "Body": content, "ChecksumCRC32": body.crc32, **headers}
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

    def check_free(self, key: str) -> None:
        """:raises KeyTaken: there is an object under this key."""
        with suppress(FileNotFound):
            self.head(key)
            raise KeyTaken()

    def _refuses(self, parameters: dict[str, Any]) -> bool:
        """Whether the server honours ``If-None-Match``: many ignore it silently.

        Found out by writing our own object a second time, with the same content.
        """
        try:
            self.call("put_object", IfNoneMatch="*", **parameters)
        except KeyTaken:
            return True
        return False

    def close(self) -> None:
        """Close idle connections; later calls open new ones."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

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

    @property
    def _addressing_style(self) -> str:
        if self._use_path_style:
            return "path"
        # By default, boto3 signs URLs of AWS for a host that redirects to the region's host, where
        # the signature is not valid. Other servers often have no host names for their buckets.
        return "auto" if self._endpoint_url else "virtual"

    def _build(self, cleanup: bool) -> Any:
        connect, read = self._timeout or CONNECT_TIMEOUT, self._timeout or READ_TIMEOUT
        tries = self._tries or TRIES
        if cleanup:
            connect, read = min(connect, CLEANUP_TIMEOUT), min(read, CLEANUP_TIMEOUT)
            tries = min(tries, CLEANUP_TRIES)
        config = Config(
            connect_timeout=connect,
            read_timeout=read,
            retries={"mode": "standard", "total_max_attempts": tries},
            max_pool_connections=CONNECTIONS,
            signature_version="s3v4",
            s3={"addressing_style": self._addressing_style},
            # Every piece is sent with a checksum in a header. By default, boto3 would send it in a
            # transfer encoding that many S3-compatible servers do not support.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # Not boto3's default session, which other code may use in another thread.
        self._session = self._session or Session()
        region = self._region or self._session.region_name
        if self._endpoint_url and not region:
            region = "us-east-1"  # Signatures contain a region; only AWS checks it.
        with translated():
            client = self._session.client(
                "s3",
                **self._credentials,
                region_name=region,
                endpoint_url=self._endpoint_url,
                config=config,
            )
        stop = partial(stop_trying, cleanup=cleanup)
        client.meta.events.register("before-call.s3", start_clock)
        client.meta.events.register_first("needs-retry.s3", stop)
        return client


def start_clock(params: dict[str, Any], **_: Any) -> None:
    params["context"].update({BEGUN: time.monotonic(), LOST: 0.0})


def stop_trying(
    operation: Any,
    request_dict: dict[str, Any],
    response: tuple[Any, dict[str, Any]] | None,
    caught_exception: Exception | None,
    cleanup: bool,
    **_: Any,
) -> None:
    """Raise an error that boto3 would retry, if too much time was lost in silence."""
    context = request_dict["context"]
    context[LOST] += seconds_of_silence(context[BEGUN], request_dict["body"])
    context[BEGUN] = time.monotonic()
    if not is_too_late_to_retry(context[LOST], cleanup=cleanup):
        return
    if caught_exception is not None:
        raise caught_exception
    if response is not None and response[0].status_code >= 500:
        raise ClientError(response[1], operation.name)


@contextmanager
def translated() -> Iterator[None]:
    """Translate boto3's errors to ours."""
    try:
        yield
    except FAILURES as error:
        raise _ours(error) from error


def error_code(error: BaseException) -> str:
    """S3's code for an error, or an empty text if the error does not come from S3."""
    cause = error.__cause__
    return str(cause.response["Error"].get("Code")) if isinstance(cause, ClientError) else ""


def _ours(error: Exception) -> AttachmentError:
    if not isinstance(error, ClientError):
        return StorageUnavailable()
    code = error.response["Error"].get("Code")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchBucket":
        return StorageUnavailable(NO_BUCKET)
    if code in FULL or status == 507:
        return StorageFull()
    if status == 404 and code != "NoSuchUpload":
        return FileNotFound()
    if status == 412:
        return KeyTaken()
    return StorageUnavailable()
