"""Which options hold in a collection, where ``resources.default`` names everybody's own bucket.

The id of a default bucket is a hash of its owner's, and tells nothing by itself.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from kinto.plugins.default_bucket import default_bucket_id

from kinto_attachment.files.ledger import Ledger
from kinto_attachment.index.objects import Objects
from kinto_attachment.settings import CollectionSettings, Settings

DEFAULT = "default"
MARK = "default"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class CollectionSettingsResolver:
    """Tells which settings hold in a collection.

    It asks the database only where settings name ``default``, and once per request.

    A bucket is known for a default bucket by a row, too: whoever may write it could take away
    the permission that tells whose it is.
    """

    def __init__(self, settings: Settings, registry: Any, *, default_bucket: bool) -> None:
        self._settings = settings
        self._registry = registry
        self._rows = Objects(registry.storage, "attachment-default-bucket")
        self.names_default = default_bucket and any(
            resource[0] == DEFAULT for resource in settings.overrides
        )

    def of(self, request: Any, bucket_id: str, collection_id: str) -> CollectionSettings:
        self.is_default(request, bucket_id)
        return self.noted(Ledger.of(request), bucket_id, collection_id)

    def noted(self, ledger: Ledger, bucket_id: str, collection_id: str) -> CollectionSettings:
        """The same where the user does not matter, or was asked about before."""
        also = DEFAULT if self._is_default(ledger, None, bucket_id) else None
        return self._settings.for_collection(bucket_id, collection_id, also)

    def is_default(self, request: Any, bucket_id: str) -> bool:
        """Whether ``resources.default`` holds there; False where nothing is set for it."""
        return self._is_default(Ledger.of(request), request, bucket_id)

    def is_own(self, request: Any, bucket_id: str) -> bool:
        """Whether it is the default bucket of the user who asks."""
        return self._is_of(getattr(request, "prefixed_userid", None), bucket_id)

    def mark(self, bucket_id: str) -> None:
        if not self._is_marked(bucket_id):
            self._rows.create(_parent(bucket_id), MARK, {})

    def unmark(self, bucket_id: str) -> None:
        self._rows.delete(_parent(bucket_id), MARK)

    def _is_default(self, ledger: Ledger, request: Any, bucket_id: str) -> bool:
        if not self.names_default or not UUID.fullmatch(bucket_id):
            return False
        known = ledger.default_buckets
        if bucket_id not in known:
            known[bucket_id] = (
                self.is_own(request, bucket_id)
                or self._is_marked(bucket_id)
                or self._is_a_writer_s(bucket_id)
            )
        return known[bucket_id]

    def _is_marked(self, bucket_id: str) -> bool:
        return bool(self._rows.list(_parent(bucket_id)))

    def _is_a_writer_s(self, bucket_id: str) -> bool:
        writers = self._registry.permission.get_object_permission_principals(
            f"/buckets/{bucket_id}", "write"
        )
        return any(self._is_of(writer, bucket_id) for writer in writers)

    def _is_of(self, principal: str | None, bucket_id: str) -> bool:
        if principal is None:
            return False
        owner = SimpleNamespace(registry=self._registry, prefixed_userid=principal)
        return bool(default_bucket_id(owner) == bucket_id)


def _parent(bucket_id: str) -> str:
    return f"attachments-default-bucket:{bucket_id}"
