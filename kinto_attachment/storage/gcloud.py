"""Objects in a bucket of Google Cloud Storage."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid_storage.extensions import resolve_extensions

from kinto_attachment import names
from kinto_attachment.errors import (
    FileNotFound,
    InvalidKey,
    KeyTaken,
    StorageUnavailable,
)

from . import SITE_KEY, ClosableReader, FileStat, FileStorage, Reader, check_key
from .wait_budget import CONNECT_TIMEOUT, READ_TIMEOUT

try:
    from google.cloud.storage.acl import ACL
    from pyramid_storage.gcloud import GoogleCloudStorage

    from .gcloud_bucket import BatchOfAnswers, GoogleBucket
    from .gcloud_download import Download, get
    from .gcloud_errors import translated
    from .gcloud_partials import GooglePartials
    from .gcloud_signing import signer, signs_until
    from .gcloud_upload import NewObject
except (ImportError, RuntimeError) as error:  # The latter is pyramid_storage's.
    raise ConfigurationError(
        "To store on Google Cloud Storage, its library is needed: pip install google-cloud-storage"
    ) from error

logger = logging.getLogger(__name__)

DELETED_AT_ONCE = 100  # What Google advises.
JSON = "application/json"


class GoogleStorage(GooglePartials, FileStorage, GoogleCloudStorage):  # type: ignore[misc]
    """Stores each file as one object of a bucket, under its key.

    ``credentials`` is the path of a service account's key file; without it, Google's default
    credentials are used. Predefined ACLs are sent only if they are set, and so are
    ``storage_class`` and ``kms_key`` (a Cloud KMS key's full name). With ``auto_create_bucket``,
    the first write creates the bucket if it does not exist. ``timeout`` is in seconds, for
    connecting (default: 5) and for each response (default: 10).
    """

    def __init__(
        self,
        bucket_name: str,
        *,
        credentials: str | None = None,
        project: str | None = None,
        acl: str | None = None,
        base_url: str = "",
        extensions: str = "default",
        auto_create_bucket: bool = False,
        auto_create_acl: str | None = None,
        cache_control: str | None = None,
        storage_class: str | None = None,
        kms_key: str | None = None,
        uniform_bucket_level_access: bool = False,
        timeout: float | None = None,
    ) -> None:
        if uniform_bucket_level_access and (acl or auto_create_acl):
            raise ConfigurationError(
                "A bucket with kinto.attachment.gcloud.uniform_bucket_level_access has no ACLs: "
                "unset kinto.attachment.gcloud.acl and kinto.attachment.gcloud.auto_create_acl."
            )
        self.bucket_name = bucket_name
        self.acl = predefined("acl", acl)
        self.base_url = base_url
        self.extensions = resolve_extensions(extensions)
        self.auto_create_bucket = auto_create_bucket
        self.auto_create_acl = predefined("auto_create_acl", auto_create_acl)
        self.cache_control = cache_control
        self.storage_class = storage_class
        self.kms_key = kms_key
        self.uniform_bucket_level_access = uniform_bucket_level_access
        self._bucket = GoogleBucket(
            bucket_name,
            credentials=credentials,
            project=project,
            timeout=(timeout or CONNECT_TIMEOUT, timeout or READ_TIMEOUT),
        )
        self._created = False

    def get_connection(self) -> Any:
        """Google's client; pyramid_storage calls it by this name."""
        return self._bucket.client()

    def get_bucket(self, bucket_name: str | None = None) -> Any:
        return self._bucket.client().bucket(bucket_name or self.bucket_name)

    @property
    def place(self) -> str:
        return f"gs://{self.bucket_name}/"

    def write(
        self,
        key: str,
        reader: Reader,
        content_type: str,
        *,
        disposition: str = "",
        encoding: str = "",
    ) -> FileStat:
        new = self._new(check_key(key), content_disposition=disposition, content_encoding=encoding)
        self._create_bucket()
        try:
            new.send(reader, content_type)
        except (KeyTaken, StorageUnavailable):
            if not new.exists_whole():
                raise
        return FileStat(key, new.size, datetime.now(timezone.utc), content_type)

    def open(self, key: str, start: int = 0, end: int | None = None) -> ClosableReader:
        check_key(key)
        if end is not None and end <= start:  # HTTP cannot express an empty range.
            self.stat(key)
            return io.BytesIO()
        headers = {}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        try:
            with translated():
                response = self._bucket.retry(get)(self._bucket, key, headers)
        except FileNotFound:
            self._bucket.check()
            raise
        return Download(response) if response is not None else io.BytesIO()

    def stat(self, key: str) -> FileStat:
        return file_stat(self._bucket.find(check_key(key)))

    def delete(self, *keys: str) -> bool:
        """Delete files, up to 100 per call.

        :raises StorageUnavailable: ``details`` is Google's status for each key not deleted.
        """
        for key in keys:
            check_key(key)
        return self._delete(keys[0]) if len(keys) == 1 else self._delete_all(keys)

    def list(self, prefix: str = "") -> Iterator[FileStat]:
        for blob in self._bucket.list(prefix):
            with suppress(
                InvalidKey
            ):  # From web consoles, which create folders as objects named "a/".
                check_key(blob.name)
                yield file_stat(blob)

    def copy(self, source: str, target: str) -> FileStat:
        origin = self._bucket.find(check_key(source))
        if check_key(target) == source:
            raise KeyTaken()
        new = self._new(
            target,
            content_type=origin.content_type,
            content_disposition=origin.content_disposition,
            content_encoding=origin.content_encoding,
            cache_control=origin.cache_control,
        )
        try:
            new.copy(origin)
        except (KeyTaken, StorageUnavailable):
            if not new.exists_whole():
                raise
        return FileStat(target, new.size, datetime.now(timezone.utc), origin.content_type)

    def read_site(self) -> bytes | None:
        try:
            with translated():
                response = self._bucket.retry(get)(self._bucket, SITE_KEY, {})
        except FileNotFound:
            if self.auto_create_bucket and not self._created:
                return None
            self._bucket.check()
            return None
        with closing(Download(response)) as body:
            return body.read()

    def write_site(self, content: bytes, *, replace: bool) -> bool:
        self._create_bucket()
        if replace:
            with translated():
                self._bucket.blob(SITE_KEY, kms_key_name=self.kms_key).upload_from_string(
                    content, content_type=JSON, checksum="crc32c", retry=self._bucket.retry
                )
            return True
        # Without an ACL: this is not a file, which clients read.
        new = NewObject(self._bucket, SITE_KEY, None, self.kms_key)
        try:
            new.send(io.BytesIO(content), JSON)
        except (KeyTaken, StorageUnavailable) as error:
            if new.exists_whole():
                return True
            if isinstance(error, KeyTaken):
                return False
            raise
        return True

    def signed_url(
        self, key: str, expires: int, filename: str, disposition: str, content_type: str
    ) -> str:
        blob = self._bucket.blob(check_key(key))
        with translated():
            url: str = blob.generate_signed_url(
                version="v4",
                expiration=timedelta(seconds=expires),
                response_disposition=names.content_disposition(filename, disposition),
                response_type=content_type,
                **signer(self._bucket.session().credentials),
            )
        return url

    def signs_until(self) -> datetime | None:
        with translated():
            return signs_until(self._bucket.session().credentials)

    def close(self) -> None:
        """Close idle connections; later calls open new ones."""
        self._bucket.close()

    def _new(self, key: str, *, token: str = "", **properties: str | None) -> NewObject:
        properties = {
            "cache_control": self.cache_control,
            "storage_class": self.storage_class,
            **properties,
        }
        return NewObject(self._bucket, key, self.acl, self.kms_key, token=token, **properties)

    def _create_bucket(self) -> None:
        if self.auto_create_bucket and not self._created:
            self._bucket.create(
                acl=self.auto_create_acl, uniform_access=self.uniform_bucket_level_access
            )
            self._created = True

    def _delete(self, key: str) -> bool:
        try:
            with translated():
                self._bucket.blob(key).delete(retry=self._bucket.retry)
        except FileNotFound:
            self._bucket.check()
            return False
        return True

    def _delete_all(self, keys: Sequence[str]) -> bool:
        found = False
        left: dict[str, int] = {}
        for first in range(0, len(keys), DELETED_AT_ONCE):
            some = keys[first : first + DELETED_AT_ONCE]
            statuses = dict(zip(some, self._delete_some(some), strict=True))
            found |= any(status < 300 for status in statuses.values())
            left |= {k: status for k, status in statuses.items() if 300 <= status != 404}
        if left:
            logger.error("Google Cloud Storage did not delete: %s", left)
            raise StorageUnavailable(details=left) from RuntimeError(f"Not deleted: {left}")
        return found

    def _delete_some(self, keys: Sequence[str]) -> Sequence[int]:
        """Delete up to 100 files in one call; returns the HTTP status for each of them."""
        batch = BatchOfAnswers(self._bucket.client())
        with translated(ValueError), batch:  # The response is not multipart.
            for key in keys:
                self._bucket.blob(key).delete(retry=None)
        return [answer.status_code for answer in batch.answers]


def file_stat(blob: Any) -> FileStat:
    created = blob.time_created.astimezone(timezone.utc)
    return FileStat(blob.name, blob.size, created, blob.content_type)


def predefined(setting: str, acl: str | None) -> str | None:
    """The name of a predefined ACL in the JSON API.

    :raises ConfigurationError: there is no predefined ACL of this name.
    """
    try:
        name: str | None = ACL.validate_predefined(acl)
    except ValueError as error:
        raise ConfigurationError(f"kinto.attachment.gcloud.{setting}: {error}.") from error
    return name
