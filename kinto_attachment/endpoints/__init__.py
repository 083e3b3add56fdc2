"""The endpoints: one file per resource, and what they share.

Each view is a list of steps. This layer may use ``files`` and the layers below it, but neither
``maintenance`` nor the client.
"""

from __future__ import annotations

from kinto.core import Service

from kinto_attachment.endpoints import (
    archive_link,
    attachment,
    collection_archive,
    collection_attachments,
    collection_rules,
    hold,
    link,
    stored_file,
    uploads,
    versions,
)


def services(*, readonly: bool, default_bucket: bool) -> list[Service]:
    """The Cornice services; create them after Kinto has read its settings for CORS."""
    return [
        attachment.service(readonly=readonly, default_bucket=default_bucket),
        collection_attachments.service(readonly=readonly, default_bucket=default_bucket),
        collection_archive.service(default_bucket=default_bucket),
        archive_link.service(default_bucket=default_bucket),
        collection_rules.service(default_bucket=default_bucket),
        *link.services(default_bucket=default_bucket),
        hold.service(readonly=readonly, default_bucket=default_bucket),
        *versions.services(readonly=readonly, default_bucket=default_bucket),
        stored_file.service(),
        *uploads.services(readonly=readonly, default_bucket=default_bucket),
    ]
