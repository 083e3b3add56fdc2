"""Which settings apply to a collection; ``resources.default`` applies to all default buckets.

The id of a default bucket is a hash of its owner's id, so the id does not reveal the kind.
"""

from __future__ import annotations

from types import SimpleNamespace

from kinto.plugins.default_bucket import default_bucket_id

from kinto_attachment.files.ledger import Ledger
from kinto_attachment.index.objects import Objects
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.quota_settings import DEFAULT, UUID, Quota, parts_of
from kinto_attachment.settings import CollectionSettings, Settings
from kinto_attachment.uris import CollectionURI, RecordURI

ROW_ID = "default"


class CollectionSettingsResolver:
    """Finds the settings of a collection.

    The database is read only if there are settings for ``default``, once per request and bucket.

    A default bucket is recognized by its owner, who has the ``write`` permission, or by a row in
    the database: users who may write the bucket could revoke the owner's permission.
    """

    def __init__(self, settings: Settings, registry: Registry, *, default_bucket: bool) -> None:
        self._settings = settings
        self._registry = registry
        self._rows = Objects(registry.storage, "attachment-default-bucket")
        self.names_default = default_bucket and any(
            resource[0] == DEFAULT for resource in settings.overrides
        )

    def of(self, request: Request, bucket_id: str, collection_id: str) -> CollectionSettings:
        if self.names_default:
            self.is_default(request, bucket_id)
        return self._of(Ledger.of(request), bucket_id, collection_id)

    def without_user(
        self, uri: RecordURI | CollectionURI, ledger: Ledger | None = None
    ) -> CollectionSettings:
        """The same without asking whether the bucket is the current user's.

        ``ledger`` caches whether the bucket is a default bucket.
        """
        return self._of(Ledger() if ledger is None else ledger, uri.bucket_id, uri.collection_id)

    def _of(self, ledger: Ledger, bucket_id: str, collection_id: str) -> CollectionSettings:
        alias = DEFAULT if self._is_default(ledger, None, bucket_id) else None
        return self._settings.for_collection(bucket_id, collection_id, alias)

    def quota(self, ledger: Ledger, scope: str) -> Quota:
        """The quota of a bucket or a collection, given by its URI."""
        bucket_id, _ = parts_of(scope)
        is_default = self._is_default(ledger, None, bucket_id)
        return self._settings.quotas.of(scope, is_default=is_default)

    def is_default(self, request: Request, bucket_id: str) -> bool:
        """Whether ``resources.default`` applies to a bucket; False if it has no settings."""
        return self._is_default(Ledger.of(request), request, bucket_id)

    def is_own(self, request: Request | None, bucket_id: str) -> bool:
        """Whether a bucket is the default bucket of the current user."""
        return self._is_of(getattr(request, "prefixed_userid", None), bucket_id)

    def remember(self, bucket_id: str) -> None:
        """Write the row that marks this as a default bucket."""
        if not self._is_remembered(bucket_id):
            self._rows.create(_parent(bucket_id), ROW_ID, {})

    def forget(self, bucket_id: str) -> None:
        self._rows.delete(_parent(bucket_id), ROW_ID)

    def _is_default(self, ledger: Ledger, request: Request | None, bucket_id: str) -> bool:
        if not self.names_default or not UUID.fullmatch(bucket_id):
            return False
        known = ledger.default_buckets
        if bucket_id not in known:
            known[bucket_id] = (
                self.is_own(request, bucket_id)
                or self._is_remembered(bucket_id)
                or self._is_owned_by_writer(bucket_id)
            )
        return known[bucket_id]

    def _is_remembered(self, bucket_id: str) -> bool:
        return bool(self._rows.list(_parent(bucket_id)))

    def _is_owned_by_writer(self, bucket_id: str) -> bool:
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
