"""The records of one collection, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import kinto_http
from kinto_http.utils import quote

from kinto_attachment.client.contents import Content
from kinto_attachment.client.remote_file import open_content
from kinto_attachment.client.session import Session

Record = str | Mapping[str, Any]
"""A record, or its id. If it is a record, its attachment is not looked up again."""


class CollectionRecords:
    """The part of ``AttachmentClient`` that finds records and their files.

    >>> client.upload("hello", io.BytesIO(b"Hello!"), filename="hello.txt").size
    6
    """

    session: Session
    kinto: kinto_http.Client

    def open(self, record: Record) -> BinaryIO:
        """Open the record's file for reading, without downloading all of it.

        Each read requests a range from the server. A file that was compressed is decompressed
        while it is read; seeking in it is slow.

        >>> with client.open("hello") as file:
        ...     file.seek(-2, io.SEEK_END), file.read()
        (4, b'o!')
        """
        return open_content(self.session, self._endpoint(record), self.content(record))

    def content(self, record: Record) -> Content:
        """The attachment of a record, and the files that are compressed in it."""
        if not isinstance(record, str):
            return Content.of(record)
        endpoint = self.kinto.get_endpoint("record", id=record)
        answer, _ = self.session.request("get", endpoint)
        return Content.of(answer["data"])

    def _endpoint(self, record: Record) -> str:
        record_id = record if isinstance(record, str) else record["id"]
        endpoint: str = self.kinto.get_endpoint("attachment", id=record_id)
        return endpoint

    def _uri(self, record: Record) -> str:
        """The URI of a record, without the API version."""
        record_id = record if isinstance(record, str) else record["id"]
        endpoint: str = self.kinto.get_endpoint("record", id=record_id)
        return endpoint


def fields_of(
    data: Mapping[str, Any] | None, permissions: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The part of a record that a request writes in addition to the file."""
    fields = {"data": dict(data or {}), "permissions": dict(permissions or {})}
    return {name: value for name, value in fields.items() if value}


def conditions_of(safe: bool, if_match: int | str | None) -> dict[str, str]:
    """The headers that make a request depend on the state of its record."""
    if if_match is not None:
        return {"If-Match": quote(if_match)}
    return {"If-None-Match": "*"} if safe else {}
