"""Creating the bucket and the collection that records are uploaded to."""

from __future__ import annotations

from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.errors import ConflictError, NotAllowedError, NotFoundError


def create(client: AttachmentClient) -> None:
    """Create missing parents, if the user may do so; otherwise, the uploads will fail."""
    is_there = _create(client, "collection")
    # The default bucket is created with the first request to it.
    if not is_there and client.kinto.bucket_name != "default" and _create(client, "bucket"):
        _create(client, "collection")


def _create(client: AttachmentClient, kind: str) -> bool:
    """Create a bucket or collection; False if it may still be missing."""
    endpoint = client.kinto.get_endpoint(kind)
    try:
        client.session.request("put", endpoint, data={}, headers={"If-None-Match": "*"})
    except ConflictError:
        return True
    except (NotAllowedError, NotFoundError):
        return False
    return True
