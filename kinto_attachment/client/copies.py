"""Copies of files between records."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from kinto_attachment.client import contents
from kinto_attachment.client.records import (
    CollectionRecords,
    Record,
    conditions_of,
    fields_of,
)
from kinto_attachment.client.resumable import NewUpload
from kinto_attachment.client.sources import Source
from kinto_attachment.client.uploads import Uploads
from kinto_attachment.metadata import Attachment


class RecordCopies(CollectionRecords):
    """The part of ``AttachmentClient`` that copies.

    >>> client.upload("hello", io.BytesIO(b"Hello!"), filename="hello.txt").size
    6
    """

    _uploads: Uploads

    def copy(
        self,
        record: Record,
        target_id: str,
        data: Mapping[str, Any] | None = None,
        permissions: Mapping[str, Any] | None = None,
        *,
        filename: str | None = None,
        safe: bool = False,
    ) -> Attachment:
        """Attach a record's file to another record, which shares it.

        It keeps its name, unless there is another ``filename``. Then, and if this client has
        compressed the file, it is downloaded and uploaded.

        >>> client.copy("hello", "hello-again").filename
        'hello.txt'
        """
        content = self.content(record)
        inside = content.inside
        keeps_name = filename in (None, inside.filename)
        if keeps_name and inside in (content.stored, content.stored.original):
            uri = self._uri(record)
            return self.copy_from(uri, target_id, data, permissions, safe=safe)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self.open(record))
            if content.layers and content.layers[-1] is None:  # Its size is not known.
                source = stack.enter_context(Source.of(file))
            else:
                source = Source(file, 0, inside.size, inside.hash)
            name = filename or inside.filename
            fields, conditions = fields_of(data, permissions), conditions_of(safe, None)
            new = NewUpload(source, name, inside.mimetype, fields, conditions)
            return self._uploads.send(target_id, new)

    def copy_from(
        self,
        uri: str,
        target_id: str,
        data: Mapping[str, Any] | None = None,
        permissions: Mapping[str, Any] | None = None,
        *,
        version: str | None = None,
        safe: bool = False,
    ) -> Attachment:
        """Attach the file of any record of the server, or one of its versions, to a record.

        ``uri`` is the one of the record, such as ``/buckets/main/collections/docs/records/hello``.
        No byte is sent.

        >>> uri = "/buckets/default/collections/docs/records/hello"
        >>> client.copy_from(uri, "greeting", {"title": "Hello"}).filename
        'hello.txt'

        :raises NotFoundError: there is no such record, file or version.
        :raises ConflictError: the record exists, with ``safe``.
        """
        body = {"copy_from": uri, **fields_of(data, permissions)}
        if version is not None:
            body["version"] = version
        endpoint, headers = self._endpoint(target_id), conditions_of(safe, None)
        answer, _ = self.session.request("post", endpoint, payload=body, headers=headers)
        return contents.attachment(answer)
