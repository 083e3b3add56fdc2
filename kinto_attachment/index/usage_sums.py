"""The usage of a bucket or a collection, summed up from links and upload sessions.

A file of several records counts once in a bucket or a collection. Of an upload in several
requests, the durable bytes count.
"""

from __future__ import annotations

from typing import Any

from kinto.core.storage.postgresql import Storage as PostgreSQLStorage

from kinto_attachment.index.patterns import literally
from kinto_attachment.index.queries import LinkQueries
from kinto_attachment.index.sessions import Sessions
from kinto_attachment.index.totals import Totals

# The id of a link begins with the 64 digits that identify its file.
SUM = """
    SELECT COALESCE(SUM(files), 0) AS files, COALESCE(SUM(bytes), 0) AS bytes FROM (
        SELECT 1 AS files,
               MAX(CASE WHEN jsonb_typeof(data->'size') = 'number'
                        THEN CAST(data->>'size' AS BIGINT) ELSE 0 END) AS bytes
          FROM objects
         WHERE resource_name = 'attachment' AND parent_id LIKE :links AND NOT deleted
         GROUP BY left(id, 64)
        UNION ALL
        SELECT 0, CAST(data->>'counted' AS BIGINT)
          FROM objects
         WHERE resource_name = 'attachment-upload'
           AND (parent_id = :uploads OR parent_id LIKE :uploads_below)
           AND NOT deleted
    ) AS stored
"""


class UsageSums:
    """The sums in a Kinto storage backend, as the caller's transaction sees them."""

    def __init__(self, backend: Any, page_size: int) -> None:
        self._backend = backend
        self._links = LinkQueries(backend, page_size)
        self._sessions = Sessions(backend, page_size)

    def of(self, scope: str) -> Totals:
        """The sum of a bucket or a collection, given by its URI."""
        if isinstance(self._backend, PostgreSQLStorage):
            return self._of_database(scope)
        files = {
            link.key: int(link.size or 0)
            for page in self._links.under(f"{scope}/")
            for link in page
        }
        arrived = sum(
            session.counted
            for page in self._sessions.pages()
            for session in page
            if session.record.startswith(f"{scope}/")
        )
        return Totals(len(files), sum(files.values()) + arrived)

    def _of_database(self, scope: str) -> Totals:
        from sqlalchemy import text

        uploads, below = f"attachments-upload:{scope}", literally(f"{scope}/")
        with self._backend.client.connect() as session:
            row = session.execute(
                text(SUM),
                {
                    "links": f"attachments:{below}%",
                    "uploads": uploads,
                    "uploads_below": f"attachments-upload:{below}%",
                },
            ).one()
        return Totals(int(row.files), int(row.bytes))
