"""Refusing to delete buckets if Kinto would also delete records of other buckets.

The files of those records would remain, and ``gc`` would delete them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from kinto_attachment.errors import DeletesMore
from kinto_attachment.kinto_types import Registry

logger = logging.getLogger(__name__)


def refuse_deletion(registry: Registry, uris: Iterable[str]) -> None:
    """Refuse to delete buckets or collections, before or after Kinto has done so.

    :raises DeletesMore: Kinto would also delete, or has deleted, records of other buckets.
    """
    for uri in uris:
        if "/collections/" in uri:
            continue  # Kinto deletes their records without a pattern.
        bucket_id = uri.removeprefix("/buckets/")
        others = registry.attachment_links.look_alikes.of(bucket_id)
        if others:
            # The error does not name the other buckets, which the client may not be allowed to
            # see.
            logger.warning(
                "The bucket %s is not deleted: Kinto would delete the records of %s, too.",
                bucket_id,
                ", ".join(others),
            )
            raise DeletesMore()
