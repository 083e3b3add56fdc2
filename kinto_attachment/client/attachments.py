"""The client for the attachments of a collection's records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import kinto_http
from kinto_http.utils import quote

from kinto_attachment import names
from kinto_attachment.client import contents, receiving
from kinto_attachment.client.contents import Content
from kinto_attachment.client.errors import ConflictError, MismatchError, NotFoundError
from kinto_attachment.client.forms import Form, Progress
from kinto_attachment.client.receiving import Writable
from kinto_attachment.client.remote_file import RemoteReader, open_content
from kinto_attachment.client.retries import Retries
from kinto_attachment.client.session import TIMEOUT, Session
from kinto_attachment.client.sources import Readable, Source
from kinto_attachment.http.streams import Reader
from kinto_attachment.metadata import Attachment, Original

Record = str | Mapping[str, Any]
"""A record, or its id. A record's attachment is taken as the record has it, not looked up."""

PAGE = 1000


class AttachmentClient:
    """Uploads and downloads the files of one collection; may be shared by threads.

    ``auth`` is whatever kinto-http takes: a pair of user and password, ``"user:password"``,
    ``"Bearer token"``, an object of requests. ``retries`` is how often a request is sent
    again when the connection breaks or the server is busy. ``kinto`` is a kinto-http client
    on the same session, for everything that is not about files.

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
    ) -> None:
        policy = Retries(retries) if isinstance(retries, int) else retries
        self.session = Session(server_url, auth, retries=policy, timeout=timeout)
        self.kinto = kinto_http.Client(session=self.session, bucket=bucket, collection=collection)

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
    ) -> Attachment:
        """Attach a file, by its path or open for reading, and set attributes of its record.

        The record is created when there is none; attributes that ``data`` does not name stay.
        With ``safe``, there has to be none; with ``if_match``, it has to have this
        ``last_modified``.

        >>> client.upload("report", "report.csv", {"year": 2025}).filename
        'report.csv'
        >>> client.upload("report", "report.csv", safe=True)
        Traceback (most recent call last):
        kinto_attachment.client.errors.ConflictError: 412 Precondition Failed: Resource was ...

        :raises ConflictError: see above; nothing has changed.
        :raises MismatchError: the file has changed while it was sent; nothing else has.
        :raises RejectedError: the server takes no such file.
        """
        conditions = _conditions(safe, if_match)
        with Source.of(file) as source:
            name = filename or source.name
            if not name:
                raise ValueError("A file without a name needs a filename")
            kind = mimetype or names.mimetype(name, None, {})
            form = Form(source, name, kind, _fields(data, permissions), progress)
            return self._send(record_id, form, conditions)

    def download(
        self,
        record: Record,
        target: Writable,
        progress: Progress | None = None,
        *,
        partial_file: Path | None = None,
    ) -> Attachment:
        """Write a record's file to a path, or to a file open for writing.

        What was compressed by the server, or before the upload, is decompressed. The target
        gets the bytes once they have the announced size and hash. ``partial_file`` keeps what
        has come of a download that breaks off; the next one with the same goes on from there.

        >>> client.download("hello", "copy.txt").size
        6
        >>> Path("copy.txt").read_text()
        'Hello!'

        :raises NotFoundError: no such record, or it has no attachment.
        :raises ConflictError: the file is no longer the one that ``record`` says.
        :raises MismatchError: size or hash are not as announced; the target is as it was.
        """
        try:
            return self._download(record, target, progress, partial_file)
        except ConflictError:
            if not isinstance(record, str):
                raise
            # Somebody has replaced the file since we looked at the record: look again.
            return self._download(record, target, progress, partial_file)

    def open(self, record: Record) -> BinaryIO:
        """The record's file, to be read here and there without downloading all of it.

        Reading goes over the network, by ranges of what is asked for. A file that was
        compressed is decompressed while it is read; to seek in it is slow.

        >>> with client.open("hello") as file:
        ...     file.seek(-2, io.SEEK_END), file.read()
        (4, b'o!')
        """
        return open_content(self.session, self._endpoint(record), self.content(record))

    def stat(self, record: Record) -> Attachment:
        """What the record says of its file, which is not looked at.

        >>> client.stat("hello").hash[:8]
        '334d016f'

        :raises NotFoundError: no such record, or it has no attachment.
        """
        return self.content(record).stored

    def exists(self, record: Record) -> bool:
        """Whether there is such a record, and it has an attachment.

        >>> client.exists("hello"), client.exists("bye")
        (True, False)
        """
        try:
            self.stat(record)
        except NotFoundError:
            return False
        return True

    def copy(
        self,
        record: Record,
        target_id: str,
        data: Mapping[str, Any] | None = None,
        permissions: Mapping[str, Any] | None = None,
        *,
        safe: bool = False,
    ) -> Attachment:
        """Attach a record's file to another record too: the bytes come and go, through here.

        >>> client.copy("hello", "hello-again").filename
        'hello.txt'
        """
        inside = self.content(record).inside
        with self.open(record) as file:
            source = Source(file, 0, inside.size, inside.hash)
            form = Form(source, inside.filename, inside.mimetype, _fields(data, permissions))
            return self._send(target_id, form, _conditions(safe, None))

    def remove(self, record: Record) -> None:
        """Detach the record's file, and delete it; the record stays.

        >>> client.remove("hello-again")
        >>> client.exists("hello-again")
        False

        :raises NotFoundError: no such record.
        """
        self.session.request("delete", self._endpoint(record))

    def records(self, **parameters: Any) -> Iterator[dict[str, Any]]:
        """The collection's records, page by page; ``parameters`` are Kinto's filters.

        >>> [record["id"] for record in client.records(year=2025, _fields="year")]
        ['report']
        """
        for page, _ in self.pages(**parameters):
            yield from page

    def pages(self, **parameters: Any) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """The same as lists, each with the collection's timestamp when it was made."""
        endpoint = self.kinto.get_endpoint("records")
        parameters.setdefault("_limit", PAGE)
        while endpoint:
            answer, headers = self.session.request("get", endpoint, params=parameters or None)
            yield answer["data"], int(headers["ETag"].strip('"'))
            endpoint, parameters = headers.get("Next-Page"), {}  # The next page's URL has them.

    def content(self, record: Record) -> Content:
        """What a record's file is, and what is packed in it."""
        if not isinstance(record, str):
            return Content.of(record)
        endpoint = self.kinto.get_endpoint("record", id=record)
        answer, _ = self.session.request("get", endpoint)
        return Content.of(answer["data"])

    def _download(
        self, record: Record, target: Writable, progress: Progress | None, part: Path | None
    ) -> Attachment:
        content = self.content(record)
        endpoint = self._endpoint(record)

        def read_from(start: int) -> Reader:
            return RemoteReader(self.session, endpoint, content.stored, start)

        receiving.receive(content, read_from, target, progress, part)
        return content.stored

    def _endpoint(self, record: Record) -> str:
        record_id = record if isinstance(record, str) else record["id"]
        endpoint: str = self.kinto.get_endpoint("attachment", id=record_id)
        return endpoint

    def _send(self, record_id: str, form: Form, conditions: Mapping[str, str]) -> Attachment:
        headers = {"Content-Type": form.content_type, **conditions}
        sent = form.source.sha256
        try:
            response = self.session.send("POST", self._endpoint(record_id), headers, form)
            attachment = contents.attachment(response.json())
        except ConflictError as error:
            # The first attempt may have succeeded, and its answer been lost.
            if error.attempts == 1 or not self._has(record_id, sent):
                raise
            attachment = self.stat(record_id)
        if _received(attachment).hash != sent:
            raise MismatchError("The server has stored other bytes than were sent")
        return attachment

    def _has(self, record_id: str, sha256: str) -> bool:
        try:
            return _received(self.stat(record_id)).hash == sha256
        except NotFoundError:
            return False


def _received(attachment: Attachment) -> Attachment | Original:
    """What the server got: it may have compressed it since."""
    return attachment.original or attachment


def _fields(
    data: Mapping[str, Any] | None, permissions: Mapping[str, Any] | None
) -> dict[str, Any]:
    fields = {"data": dict(data or {}), "permissions": dict(permissions or {})}
    return {name: value for name, value in fields.items() if value}


def _conditions(safe: bool, if_match: int | str | None) -> dict[str, str]:
    if if_match is not None:
        return {"If-Match": quote(if_match)}
    return {"If-None-Match": "*"} if safe else {}
