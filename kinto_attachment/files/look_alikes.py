"""Buckets are not deleted if Kinto would delete records of other buckets with them.

The files of such records would be left, and ``gc`` would delete them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from kinto_attachment.errors import DeletesMore
from kinto_attachment.kinto_types import Registry

logger = logging.getLogger(__name__)


def refuse_deletion(registry: Registry, uris: Iterable[str]) -> None:
    """Refuse to delete buckets or collections, before or after Kinto has done so.

    :raises DeletesMore: there are other buckets that it would delete, or has deleted, from.
    """
    for uri in uris:
        if "/collections/" in uri:
            continue  # Kinto deletes their records without a pattern.
        bucket_id = uri.removeprefix("/buckets/")
        others = registry.attachment_links.look_alikes.of(bucket_id)
        if others:
            # Clients are not told the names of buckets that they may not be allowed to see.
            logger.warning(
                "The bucket %s is not deleted: Kinto would delete the records of %s, too.",
                bucket_id,
                ", ".join(others),
            )
            raise DeletesMore()
