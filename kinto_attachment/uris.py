"""The URIs of Kinto's objects, without the API version, as in permissions and events."""

from __future__ import annotations

from dataclasses import dataclass


def ids_of(uri: str) -> list[str]:
    """The ids in the URI of a bucket, a collection or a record."""
    return uri.split("/")[2::2]


@dataclass(frozen=True)
class CollectionURI:
    """``/buckets/{bucket_id}/collections/{collection_id}``, the parent of its records."""

    bucket_id: str
    collection_id: str

    @property
    def bucket(self) -> str:
        """The URI of the bucket."""
        return f"/buckets/{self.bucket_id}"

    @property
    def records(self) -> str:
        """The prefix of the URIs of its records."""
        return f"{self}/records/"

    def __str__(self) -> str:
        return f"{self.bucket}/collections/{self.collection_id}"


@dataclass(frozen=True)
class RecordURI:
    """``/buckets/{bucket_id}/collections/{collection_id}/records/{record_id}``."""

    bucket_id: str
    collection_id: str
    record_id: str

    @classmethod
    def parse(cls, text: str) -> RecordURI:
        """:raises ValueError: the text is not the URI of a record."""
        match text.split("/"):
            case ["", "buckets", bucket_id, "collections", collection_id, "records", record_id]:
                # Kinto's backends treat it as a wildcard in the id of a parent, even for other
                # buckets.
                if "*" not in text:
                    return cls(bucket_id, collection_id, record_id)
        raise ValueError(f"Not the URI of a record: {text!r}")

    @property
    def bucket(self) -> str:
        """The URI of the bucket."""
        return f"/buckets/{self.bucket_id}"

    @property
    def collection(self) -> str:
        """The URI of the collection, which is the parent of the record in Kinto's storage."""
        return f"{self.bucket}/collections/{self.collection_id}"

    def __str__(self) -> str:
        return f"{self.collection}/records/{self.record_id}"
