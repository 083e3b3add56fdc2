"""The content of a collection: its records, its files, and their changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import kinto_http

from kinto_attachment.client import contents
from kinto_attachment.client.session import Session
from kinto_attachment.metadata import FIELD, Attachment

PAGE = 1000


@dataclass(frozen=True)
class Change:
    """A record that was changed: its file now, None if it has none or was ``deleted``.

    ``last_modified`` is the record's timestamp in ms.
    """

    id: str
    last_modified: int
    attachment: Attachment | None
    deleted: bool = False


class CollectionLists:
    """The part of ``AttachmentClient`` that lists.

    >>> client.upload("report", "report.csv", {"year": 2025}).filename
    'report.csv'
    """

    session: Session
    kinto: kinto_http.Client

    def records(self, **parameters: Any) -> Iterator[dict[str, Any]]:
        """The collection's records, page by page; ``parameters`` are Kinto's filters.

        >>> [record["id"] for record in client.records(year=2025, _fields="year")]
        ['report']
        """
        for page, _ in self.pages(**parameters):
            yield from page

    def pages(self, **parameters: Any) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """The same in pages, each with the timestamp of the collection at that time."""
        endpoint = self.kinto.get_endpoint("records")
        parameters.setdefault("_limit", PAGE)
        while endpoint:
            answer, headers = self.session.request("get", endpoint, params=parameters or None)
            yield answer["data"], int(headers["ETag"].strip('"'))
            endpoint, parameters = (
                headers.get("Next-Page"),
                {},
            )  # They are part of the URL of the next page.

    def files(self, **parameters: Any) -> Iterator[dict[str, Any]]:
        """The collection's files, the newest first, page by page; ``parameters`` are filters.

        These are the items of the server's list: the attachment object, the record's ``id``, and
        more (docs/listing.rst). With ``state="kept"``, they are earlier files. A list of values
        makes one filter of each value; all of them have to match.

        >>> [item["id"] for item in client.files(like_filename="*.csv")]
        ['report']
        """
        endpoint = self.kinto.get_endpoint("records").removesuffix("/records") + "/attachments"
        # kinto-http would join several values.
        endpoint += "?" + urlencode({"_limit": PAGE, **parameters}, doseq=True)
        while endpoint:
            answer, headers = self.session.request("get", endpoint)
            yield from answer["data"]
            endpoint = headers.get("Next-Page", "")

    def changes(self, since: int = 0) -> Iterator[Change]:
        """The records that were changed after a timestamp, in the order of their changes.

        Each record occurs once, in its current state. Deleted records and records without a file
        are included, because they may have had a file. To continue later, keep the
        ``last_modified`` of the last change.

        >>> seen = 0
        >>> for change in client.changes(since=seen):
        ...     seen = change.last_modified
        >>> client.remove("report")
        >>> [(change.id, change.attachment) for change in client.changes(since=seen)]
        [('report', None)]
        """
        fields = f"{FIELD},deleted"
        # Without ``_since``, Kinto leaves out what was deleted.
        for record in self.records(_since=since, _sort="last_modified", _fields=fields):
            found = record.get(FIELD)
            yield Change(
                record["id"],
                record["last_modified"],
                contents.attachment(found) if isinstance(found, Mapping) else None,
                deleted=bool(record.get("deleted")),
            )
