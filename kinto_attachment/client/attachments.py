"""The client for the attachments of a collection's records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kinto_http

from kinto_attachment import names
from kinto_attachment.client import environment, receiving
from kinto_attachment.client.copies import RecordCopies
from kinto_attachment.client.errors import ConflictError, NotFoundError
from kinto_attachment.client.forms import Progress
from kinto_attachment.client.holds import FileHolds
from kinto_attachment.client.links import FileLinks
from kinto_attachment.client.lists import CollectionLists
from kinto_attachment.client.receiving import Writable
from kinto_attachment.client.records import Record, conditions_of, fields_of
from kinto_attachment.client.remote_file import RemoteReader
from kinto_attachment.client.resumable import NewUpload
from kinto_attachment.client.retries import Retries
from kinto_attachment.client.session import TIMEOUT, Session
from kinto_attachment.client.sources import Readable, Source
from kinto_attachment.client.uploads import Uploads
from kinto_attachment.client.versions import RecordVersions
from kinto_attachment.http.streams import Reader
from kinto_attachment.metadata import Attachment


class AttachmentClient(CollectionLists, RecordVersions, RecordCopies, FileHolds, FileLinks):
    """Uploads and downloads the files of one collection; threads may share it.

    ``auth`` has the forms that kinto-http accepts: a pair of user and password,
    ``"user:password"``, ``"Bearer token"``, or an auth object of requests. ``retries`` is how
    often a request is retried if the connection breaks or the server is busy. ``kinto`` is a
    kinto-http client with the same session, for everything else. ``ca_bundle`` is a file with the
    certificates to trust, for servers whose certificate is from a private authority.

    >>> client = AttachmentClient(server_url, "default", "docs", auth=("alice", "secret"))
    >>> attachment = client.upload("hello", io.BytesIO(b"Hello!"), filename="hello.txt")
    >>> attachment.mimetype, attachment.size
    ('text/plain', 6)
    >>> client.kinto.get_record(id="hello")["data"]["attachment"]["filename"]
    'hello.txt'
    """

    def __init__(
        self,
        server_url: str,
        bucket: str,
        collection: str,
        auth: Any = None,
        *,
        retries: int | Retries = 5,
        timeout: float = TIMEOUT,
        ca_bundle: str | None = None,
    ) -> None:
        policy = Retries.of(retries)
        self.session = Session(
            server_url, auth, retries=policy, timeout=timeout, ca_bundle=ca_bundle
        )
        self.kinto = kinto_http.Client(session=self.session, bucket=bucket, collection=collection)
        self._uploads = Uploads(self.session, self._endpoint, self.stat)

    @classmethod
    def from_env(cls, bucket: str, collection: str, **options: Any) -> AttachmentClient:
        """A client of the server ``KINTO_SERVER`` with the credentials ``KINTO_AUTH``.

        Without ``KINTO_AUTH``, requests are anonymous. ``options`` are those of the class.

        :raises ValueError: ``KINTO_SERVER`` is not set.
        """
        server = environment.server()
        if server is None:
            raise ValueError(f"{environment.SERVER} is not set")
        return cls(server, bucket, collection, environment.auth(), **options)

    def upload(
        self,
        record_id: str,
        file: Readable | Source,
        data: Mapping[str, Any] | None = None,
        permissions: Mapping[str, Any] | None = None,
        *,
        mimetype: str | None = None,
        filename: str | None = None,
        progress: Progress | None = None,
        safe: bool = False,
        if_match: int | str | None = None,
        resumable: bool | None = None,
        direct: bool = False,
    ) -> Attachment:
        """Attach a file, given as a path or open for reading, and set attributes of its record.

        The record is created if it does not exist; attributes that are not in ``data`` stay as
        they are. With ``safe``, the record must not exist; with ``if_match``, it must have this
        ``last_modified``.

        ``resumable`` uploads the file in several requests, and an upload that was interrupted
        continues where it was, also in another process. By default, files above 64 MiB are
        uploaded in this way if the server and the collection support it. ``progress`` is first
        called with the number of bytes that the server already has. ``direct`` sends the bytes to
        the server's storage, several parts at a time, instead of through the server; it continues
        in the same way.

        >>> client.upload("report", "report.csv", {"year": 2025}).filename
        'report.csv'
        >>> client.upload("report", "report.csv", safe=True)
        Traceback (most recent call last):
        kinto_attachment.client.errors.ConflictError: 412 Precondition Failed: Resource was ...

        :raises ConflictError: the record exists, or has another ``last_modified``; unchanged.
        :raises MismatchError: the file changed while it was sent; the record is unchanged.
        :raises RejectedError: the server refuses the file.
        """
        if direct and resumable:
            raise ValueError("An upload is either direct or resumable by tus")
        conditions = conditions_of(safe, if_match)
        with Source.of(file) as source:
            name = filename or source.name
            if not name:
                raise ValueError("The file has no name: set filename")
            kind = mimetype or names.mimetype(name, None, {})
            new = NewUpload(source, name, kind, fields_of(data, permissions), conditions)
            return self._uploads.send(record_id, new, progress, resumable=resumable, direct=direct)

    def upload_url(
        self,
        record_id: str,
        filename: str,
        size: int,
        data: Mapping[str, Any] | None = None,
        permissions: Mapping[str, Any] | None = None,
        *,
        mimetype: str | None = None,
        expires_in: int = 3600,
    ) -> str:
        """A URL with which anybody can attach a file of ``size`` bytes to a record, once.

        Whoever has it sends the bytes by ``PUT``, without credentials, within ``expires_in``
        seconds. The record is written with the permissions that this client's user has at that
        time.

        >>> url = client.upload_url("letter", "letter.txt", size=5)
        >>> requests.put(url, data=b"Dear!", timeout=10).status_code
        201
        """
        file = {"filename": filename, "size": size}
        if mimetype is not None:
            file["mimetype"] = mimetype
        body = {"attachment": file, "via": "kinto", "expires_in": expires_in}
        endpoint = f"{self._endpoint(record_id)}/uploads"
        body |= fields_of(data, permissions)
        answer, _ = self.session.request("post", endpoint, payload=body)
        url: str = answer["data"]["parts"][0]["url"]
        return url

    def download(
        self,
        record: Record,
        target: Writable,
        progress: Progress | None = None,
        *,
        partial_file: Path | None = None,
    ) -> Attachment:
        """Write a record's file to a path, or to a file open for writing.

        Files that were compressed by the server, or before the upload, are decompressed. The
        target is written after the size and the hash have been verified. ``partial_file`` keeps
        the bytes of an interrupted download; the next download with the same path resumes it.

        >>> client.download("hello", "copy.txt").size
        6
        >>> Path("copy.txt").read_text()
        'Hello!'

        :raises NotFoundError: the record does not exist, or has no attachment.
        :raises ConflictError: the file has been replaced since ``record`` was read.
        :raises MismatchError: size or hash are wrong; the target is unchanged.
        """
        try:
            return self._download(record, target, progress, partial_file)
        except ConflictError:
            if not isinstance(record, str):
                raise
            # The file was replaced after the record was read.
            return self._download(record, target, progress, partial_file)

    def stat(self, record: Record) -> Attachment:
        """The attachment of a record, without requesting the file.

        >>> client.stat("hello").hash[:8]
        '334d016f'

        :raises NotFoundError: the record does not exist, or has no attachment.
        """
        return self.content(record).stored

    def exists(self, record: Record) -> bool:
        """Whether the record exists and has an attachment.

        >>> client.exists("hello"), client.exists("bye")
        (True, False)
        """
        try:
            self.stat(record)
        except NotFoundError:
            return False
        return True

    def remove(self, record: Record) -> None:
        """Remove and delete the record's file; the record stays.

        >>> client.remove("report")
        >>> client.exists("report")
        False

        :raises NotFoundError: the record does not exist.
        """
        self.session.request("delete", self._endpoint(record))

    def _download(
        self, record: Record, target: Writable, progress: Progress | None, part: Path | None
    ) -> Attachment:
        content = self.content(record)
        endpoint = self._endpoint(record)

        def read_from(start: int) -> Reader:
            return RemoteReader(self.session, endpoint, content.stored, start)

        receiving.receive(content, read_from, target, progress, part)
        return content.stored
