"""Objects in a bucket of Amazon S3 or of an S3-compatible server."""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from pyramid.exceptions import ConfigurationError
from pyramid_storage.extensions import resolve_extensions
from pyramid_storage.s3 import S3FileStorage

from kinto_attachment import names
from kinto_attachment.errors import FileNotFound, InvalidKey, KeyTaken, StorageUnavailable

from . import SITE_KEY, ClosableReader, FileStat, FileStorage, Reader, check_key
from .pieces import PIECE_SIZE, Piece

try:
    from .s3_bucket import S3Bucket
    from .s3_clients import S3Clients
    from .s3_direct import S3Direct
    from .s3_download import Download
    from .s3_errors import translated
    from .s3_upload import NewObject, abort
except ImportError as error:
    raise ConfigurationError("To store on S3, boto3 is needed: pip install boto3") from error

logger = logging.getLogger(__name__)

DELETED_AT_ONCE = 1000  # A limit of S3.
BINARY = "application/octet-stream"
JSON = "application/json"
ENCRYPTION = ("ServerSideEncryption", "SSEKMSKeyId")
# Storage classes of AWS whose objects can be read at once; compatible servers have others.
CLASSES = (
    *("STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"),
    *("REDUCED_REDUNDANCY", "EXPRESS_ONEZONE", "OUTPOSTS", "SNOW"),
)
KEPT_HEADERS = ("ContentType", "ContentDisposition", "ContentEncoding", "CacheControl")


class S3Storage(S3Direct, FileStorage, S3FileStorage):  # type: ignore[misc]
    """Stores each file as one object of a bucket, under its key.

    Without ``access_key``, boto3's default credentials are used. ``acl`` is sent only if it is
    set, since many buckets refuse any ACL, and so are ``storage_class``, ``encryption``
    (``AES256`` or ``aws:kms``) and ``kms_key_id``. ``num_retries`` is how often a call is tried
    at most (default: 3); ``timeout`` is in seconds, for connecting (default: 5) and for each
    response (default: 10). Files larger than ``part_size`` bytes (at least 5 MiB) are sent in
    parts of that size: up to five are in memory at a time, and a file can have 10,000.
    """

    def __init__(
        self,
        bucket_name: str,
        *,
        acl: str | None = None,
        storage_class: str | None = None,
        encryption: str | None = None,
        kms_key_id: str | None = None,
        base_url: str = "",
        extensions: str = "default",
        access_key: str | None = None,
        secret_key: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        is_secure: bool = True,
        use_path_style: bool = False,
        num_retries: int | None = None,
        timeout: float | None = None,
        cache_control: str | None = None,
        part_size: int = PIECE_SIZE,
    ) -> None:
        self.bucket_name = bucket_name
        self.acl = acl
        self.base_url = base_url
        self.extensions = resolve_extensions(extensions)
        # For everything that creates an object: a put, the creation of a multipart upload, a copy.
        self._created_with = {
            "ACL": acl,
            "CacheControl": cache_control,
            "StorageClass": storage_class,
            "ServerSideEncryption": encryption,
            "SSEKMSKeyId": kms_key_id,
        }
        self._part_size = part_size
        clients = S3Clients(
            access_key=access_key,
            secret_key=secret_key,
            region=region,
            endpoint_url=endpoint(endpoint_url, host, port, is_secure),
            use_path_style=use_path_style,
            timeout=timeout,
            tries=num_retries,
        )
        if storage_class and clients.server == "aws" and storage_class not in CLASSES:
            raise ConfigurationError(
                f"kinto.attachment.aws.storage_class: {storage_class!r} is not one of "
                f"{', '.join(CLASSES)}."
            )
        self._place = f"s3://{clients.server}/{bucket_name}/"
        self._bucket = S3Bucket(bucket_name, clients)
        self._leftovers: deque[dict[str, Any]] = deque(maxlen=100)

    @property
    def s3_client(self) -> Any:
        """boto3's client; pyramid_storage calls it by this name."""
        return self._bucket.client()

    @property
    def place(self) -> str:
        # Names of buckets are unique on AWS, whatever the region.
        return self._place

    def write(
        self,
        key: str,
        reader: Reader,
        content_type: str,
        *,
        disposition: str = "",
        encoding: str = "",
    ) -> FileStat:
        headers = self._headers(
            {
                "ContentType": content_type,
                "ContentDisposition": disposition,
                "ContentEncoding": encoding,
            }
        )
        new = NewObject(self._bucket, check_key(key), headers, self._leftovers)
        new.send(reader, self._part_size)
        self._discard_leftovers()
        return FileStat(key, new.size, datetime.now(timezone.utc), content_type)

    def open(self, key: str, start: int = 0, end: int | None = None) -> ClosableReader:
        check_key(key)
        if end is not None and end <= start:  # HTTP cannot express an empty range.
            self.stat(key)
            return io.BytesIO()
        parameters: dict[str, Any] = {}
        if start or end is not None:
            parameters["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        answer = self._bucket.call(
            "get_object",
            tolerating=["InvalidRange"],  # The range starts at the end of the file or after it.
            Key=key,
            **parameters,
        )
        return Download(answer["Body"]) if answer else io.BytesIO()

    def stat(self, key: str) -> FileStat:
        found = self._bucket.head(check_key(key))
        modified = found["LastModified"].astimezone(timezone.utc)
        return FileStat(key, found["ContentLength"], modified, found.get("ContentType", BINARY))

    def delete(self, *keys: str) -> bool:
        """Delete files, up to 1,000 per call; S3 does not say whether they existed.

        :raises StorageUnavailable: ``details`` is S3's error code for each key not deleted.
        """
        for key in keys:
            check_key(key)
        self._delete_all(keys)
        return True

    def list(self, prefix: str = "") -> Iterator[FileStat]:
        """The files, without their content types: listings of S3 do not have them."""
        for page in self._bucket.pages("list_objects_v2", Prefix=prefix):
            for found in page.get("Contents", ()):
                with suppress(
                    InvalidKey
                ):  # From web consoles, which create folders as objects named "a/".
                    key = check_key(found["Key"])
                    modified = found["LastModified"].astimezone(timezone.utc)
                    yield FileStat(key, found["Size"], modified)

    def copy(self, source: str, target: str) -> FileStat:
        found = self._bucket.head(check_key(source))
        if check_key(target) == source:
            raise KeyTaken()
        headers = self._headers({name: found.get(name) for name in KEPT_HEADERS})
        new = NewObject(self._bucket, target, headers, self._leftovers)
        new.copy(source, found["ContentLength"])
        content_type = found.get("ContentType", BINARY)
        return FileStat(target, new.size, datetime.now(timezone.utc), content_type)

    def read_site(self) -> bytes | None:
        try:
            return self._bucket.get(SITE_KEY)
        except FileNotFound:
            return None

    def write_site(self, content: bytes, *, replace: bool) -> bool:
        headers = {**self._hidden_headers(), "ContentType": JSON}
        if replace:
            self._bucket.call("put_object", Key=SITE_KEY, Body=content, **headers)
            return True
        piece = Piece()
        piece.fill(io.BytesIO(content))
        try:
            self._bucket.create(SITE_KEY, piece, **headers)
        except KeyTaken:
            return False
        return True

    def signed_url(
        self, key: str, expires: int, filename: str, disposition: str, content_type: str
    ) -> str:
        with translated():
            url: str = self._bucket.client().generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self.bucket_name,
                    "Key": check_key(key),
                    "ResponseContentDisposition": names.content_disposition(filename, disposition),
                    "ResponseContentType": content_type,
                },
                ExpiresIn=expires,
            )
        return url

    def signs_until(self) -> datetime | None:
        return self._bucket.credentials_expire()

    def close(self) -> None:
        """Close idle connections; later calls open new ones."""
        self._bucket.close()

    def _headers(self, given: dict[str, str | None]) -> dict[str, Any]:
        headers = {**self._created_with, **given}
        return {name: value for name, value in headers.items() if value}

    def _hidden_headers(self) -> dict[str, Any]:
        # Without an ACL or a storage class that is slow to read, which are for files.
        encryption = {name: self._created_with[name] for name in ENCRYPTION}
        return {name: value for name, value in encryption.items() if value}

    def _delete_all(self, keys: Sequence[str]) -> None:
        left: dict[str, str] = {}
        for first in range(0, len(keys), DELETED_AT_ONCE):
            left |= self._delete_some(keys[first : first + DELETED_AT_ONCE])
        if left:
            logger.error("S3 did not delete: %s", left)
            raise StorageUnavailable(details=left) from RuntimeError(f"Not deleted: {left}")

    def _delete_some(self, keys: Sequence[str]) -> dict[str, str]:
        """Delete up to 1,000 files in one call; returns the error codes of those not deleted."""
        if len(keys) == 1:
            self._bucket.call("delete_object", tolerating=["NoSuchKey"], Key=keys[0])
            return {}
        objects = [{"Key": key} for key in keys]
        answer = self._bucket.call("delete_objects", Delete={"Objects": objects, "Quiet": True})
        failed = {error["Key"]: error.get("Code", "") for error in answer.get("Errors", ())}
        return {key: code for key, code in failed.items() if code != "NoSuchKey"}

    def _discard_leftovers(self) -> None:
        # These could not be aborted while S3 was unavailable. Now it responds again.
        while self._leftovers:
            target = self._leftovers.popleft()
            if not abort(self._bucket, target):
                self._leftovers.append(target)
                return


def endpoint(
    endpoint_url: str | None, host: str | None, port: int | None, is_secure: bool
) -> str | None:
    """The URL of the server; ``None`` is AWS.

    :raises ConfigurationError: the settings contradict each other, or make no URL.
    """
    if not endpoint_url and not host:
        if port:
            raise ConfigurationError("kinto.attachment.aws.port needs kinto.attachment.aws.host.")
        # boto3 reads these variables too, but we need to know the endpoint.
        return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint_url and host:
        raise ConfigurationError(
            "Set kinto.attachment.aws.endpoint_url or kinto.attachment.aws.host, not both."
        )
    scheme = "https" if is_secure else "http"
    url = endpoint_url or f"{scheme}://{host}" + (f":{port}" if port else "")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"Not the URL of an S3 server: {url!r}.")
    return url
