"""The links that a command processes: of a bucket, a collection, a storage, a shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kinto_attachment.index.link import Link
from kinto_attachment.index.links import Links
from kinto_attachment.maintenance.shards import WHOLE, Shard
from kinto_attachment.uris import CollectionURI, RecordURI


@dataclass(frozen=True)
class Selection:
    """A selection of links. ``storage`` is the name in the index, empty for the default one."""

    bucket: str | None = None
    collection: str | None = None
    storage: str | None = None
    shard: Shard = WHOLE

    def pages(self, links: Links) -> Iterator[list[Link]]:
        """The links; each page has a separate transaction."""
        for page in self.shard.pages(links, self._parents):
            yield page if self.is_whole else [link for link in page if self._has(link)]

    def has_collection(self, uri: CollectionURI | RecordURI) -> bool:
        """Whether a collection, or the collection of a record, is selected."""
        is_in_bucket = self.bucket in (None, uri.bucket_id)
        return is_in_bucket and self.collection in (None, uri.collection_id)

    @property
    def is_whole(self) -> bool:
        """Whether all links of the shard are selected."""
        return self.bucket is None and self.collection is None and self.storage is None

    @property
    def _parents(self) -> str:
        if self.bucket is None:
            return ""
        collection = f"collections/{self.collection}/" if self.collection else ""
        return f"/buckets/{self.bucket}/{collection}"

    def _has(self, link: Link) -> bool:
        if self.storage not in (None, link.storage):
            return False
        return self.collection in (None, RecordURI.parse(link.record).collection_id)


EVERYTHING = Selection()


class Seen:
    """Recognizes the first link of each file; it remembers files of several records."""

    def __init__(self) -> None:
        self._shared: set[bytes] = set()

    def is_first(self, link: Link) -> bool:
        # All links of a file that several records have are marked.
        if not link.shared:
            return True
        digest = bytes.fromhex(link.version)[:8]
        is_first = digest not in self._shared
        self._shared.add(digest)
        return is_first
