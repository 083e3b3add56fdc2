"""The current and the earlier files of a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kinto_attachment.client import contents
from kinto_attachment.client.records import CollectionRecords, Record
from kinto_attachment.metadata import Attachment


class RecordVersions(CollectionRecords):
    """The part of ``AttachmentClient`` about the versions of a record's file.

    >>> client.upload("hello", io.BytesIO(b"Hello!"), filename="hello.txt").size
    6
    """

    def versions(self, record: Record) -> Iterator[dict[str, Any]]:
        """The current and the earlier files of a record, newest first, page by page.

        Each has an ``id``, ``created`` (ms) and ``state``: ``current`` or ``kept``. The server
        keeps earlier ones with ``keep_old_files`` (docs/versions.rst).

        >>> [version["state"] for version in client.versions("hello")]
        ['current']
        """
        endpoint = f"{self._endpoint(record)}/versions"
        while endpoint:
            answer, headers = self.session.request("get", endpoint)
            yield from answer["data"]
            endpoint = headers.get("Next-Page", "")

    def restore(self, record: Record, version: str) -> Attachment:
        """Make a version the current file of a record. A deleted record is created again.

        >>> newest = next(client.versions("hello"))
        >>> client.restore("hello", newest["id"]).filename
        'hello.txt'

        :raises NotFoundError: there is no such version.
        """
        endpoint = f"{self._endpoint(record)}/versions/{version}/restore"
        answer, _ = self.session.request("post", endpoint)
        return contents.attachment(answer)

    def delete_version(self, record: Record, version: str) -> None:
        """Delete an earlier file of a record for good.

        :raises ClientError: it is the current file.
        :raises NotFoundError: there is no such version.
        """
        self.session.request("delete", f"{self._endpoint(record)}/versions/{version}")
