"""Reading and correcting the counters of quotas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import transaction

from kinto_attachment.files.ledger import Ledger
from kinto_attachment.index.totals import Totals
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import records
from kinto_attachment.quota_settings import parts_of


def recount(registry: Registry, progress: Callable[[int], None]) -> int:
    """Recount each bucket and collection with a quota; returns how many counters were wrong.

    Requests that change files there wait for at most one of the counts.
    """
    usage, wrong = registry.attachment_usage, 0
    for number, scope in enumerate(_scopes(registry), start=1):
        with transaction.manager:
            before, found = usage.recount(scope)
        wrong += before is not None and before != found
        progress(number)
    return wrong


def quotas(
    registry: Registry, bucket: str | None = None, collection: str | None = None
) -> list[dict[str, Any]]:
    """Each counter with its quota, or only those of one bucket or collection."""
    found, usage = [], registry.attachment_usage
    with transaction.manager:
        counted = usage.known(usage.scopes())
        ledger = Ledger()
        for scope, used in sorted(counted.items()):
            bucket_id, collection_id = parts_of(scope)
            if bucket in (None, bucket_id) and collection in (None, collection_id):
                quota = registry.attachment_collection_settings.quota(ledger, scope)
                found.append(_row(scope, used, quota.bytes, quota.files))
    return found


def _row(scope: str, used: Totals, quota_bytes: int, quota_files: int) -> dict[str, Any]:
    limits = {"quota_bytes": quota_bytes, "quota_files": quota_files}
    return {"of": scope, **asdict(used), **limits}


def _scopes(registry: Registry) -> list[str]:
    """The buckets and collections that have a counter, or need one."""
    rules = registry.attachment_settings.quotas
    with transaction.manager:
        found = {*registry.attachment_usage.scopes()}
    for collection in records.collections(registry) if rules else ():
        found.update(rules.counted(collection.bucket_id, collection.collection_id))
    return sorted(found)
