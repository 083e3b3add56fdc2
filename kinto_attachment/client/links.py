"""Links to files that need no credentials."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from kinto_attachment.client.records import CollectionRecords, Record

EXPIRES_IN = 600  # Seconds.


@dataclass(frozen=True)
class FileLink:
    """A URL that works without credentials, and when it expires, in ms since the epoch."""

    url: str
    expires_at: int


class FileLinks(CollectionRecords):
    """The part of ``AttachmentClient`` that requests links.

    >>> client.upload("hello", io.BytesIO(b"Hello!"), filename="hello.txt").size
    6
    """

    def url(
        self,
        record: Record,
        *,
        expires_in: int | str = EXPIRES_IN,
        disposition: str | None = None,
        filename: str | None = None,
        version: str | None = None,
    ) -> str:
        """A URL of a record's file that needs no credentials.

        It works for ``expires_in``: seconds, or a time such as ``"1h"``. ``disposition`` is
        ``attachment`` or ``inline``, ``filename`` the name to save the file under, and ``version``
        the id of an earlier version.

        >>> url = client.url("hello", expires_in="1h", filename="greeting.txt")
        >>> requests.get(url, timeout=30).text
        'Hello!'

        :raises NotFoundError: the record does not exist, or has no such file.
        """
        return self.link(
            record,
            expires_in=expires_in,
            disposition=disposition,
            filename=filename,
            version=version,
        ).url

    def link(
        self,
        record: Record,
        *,
        expires_in: int | str = EXPIRES_IN,
        disposition: str | None = None,
        filename: str | None = None,
        version: str | None = None,
    ) -> FileLink:
        """The URL and the time when it expires.

        >>> client.link("hello").expires_at > time.time() * 1000
        True
        """
        file = f"/versions/{quote(version, safe='')}" if version is not None else ""
        asked = {"expires_in": expires_in, "disposition": disposition, "filename": filename}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        endpoint = f"{self._endpoint(record)}{file}/url?{query}"
        answer, _ = self.session.request("get", endpoint)
        return FileLink(answer["data"]["url"], answer["data"]["expires_at"])
