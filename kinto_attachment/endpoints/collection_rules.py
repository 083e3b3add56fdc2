"""``…/collections/{id}/attachments/rules``: the limits that pages check before an upload."""

from __future__ import annotations

from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.response import Response

from kinto_attachment.endpoints import openapi
from kinto_attachment.endpoints.attachment import outside_default_bucket
from kinto_attachment.endpoints.collection_context import CollectionContext
from kinto_attachment.endpoints.downloads import CURRENT
from kinto_attachment.endpoints.upload_answers import PROTOCOLS
from kinto_attachment.files import quotas
from kinto_attachment.files.direct_uploads import is_possible
from kinto_attachment.files.locks import is_locked
from kinto_attachment.index.totals import Totals
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.quota_settings import Quota
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage import ContinuesWrites

ROUTE = "collection-attachments-rules"
PATH = "/buckets/{bucket_id}/collections/{collection_id}/attachments/rules"


def service(*, default_bucket: bool) -> Service:
    rules = Service(
        name=ROUTE,
        path=outside_default_bucket(PATH) if default_bucket else PATH,
        description="The rules for new files of a collection",
        factory=CollectionContext,
    )
    rules.add_view("GET", get_rules, permission=DYNAMIC, **openapi.rules())
    return rules


def get_rules(request: Request) -> Response:
    """What the server accepts: limits in bytes, and extensions without dots."""
    context: Any = request.context
    context.check_exists()
    resolver = request.registry.attachment_collection_settings
    found = resolver.of(request, context.uri.bucket_id, context.uri.collection_id)
    now = {
        "resumable": protocols(request.registry, found),
        "direct": is_possible(request.registry, found),
        "locked": is_locked(found, context.current_object),
    }
    quota = quotas.tightest(request, context.uri.bucket_id, context.uri.collection_id)
    response = Response(json={"data": as_json(found) | now | quota_json(quota)})
    response.headers.update(CURRENT)
    return response


def protocols(registry: Registry, rules: CollectionSettings) -> list[str]:
    """The protocols for uploads in several requests."""
    files = registry.attachment_storages[rules.storage].files
    can = isinstance(files, ContinuesWrites) and not rules.gzipped
    can = can and not registry.attachment_settings.readonly
    return [each.name for each in PROTOCOLS] if can else []


def as_json(rules: CollectionSettings) -> dict[str, Any]:
    """The rules. ``max_size`` 0 is no limit, an empty list allows all extensions."""
    return {
        "max_size": rules.max_size,
        "min_size": rules.min_size,
        "extensions": sorted(rules.extensions),
        "gzipped": rules.gzipped,
        "content_encodings": sorted(rules.content_encodings),
        "versions": rules.keep_old_files,
        "hold": int(rules.hold),
    }


def quota_json(found: tuple[Quota, Totals] | None) -> dict[str, int | None]:
    """The quota with the least space left; 0 is no limit, and then nothing was counted."""
    if found is None:
        return {"quota_bytes": 0, "used_bytes": None, "quota_files": 0, "used_files": None}
    quota, used = found
    return {
        "quota_bytes": quota.bytes,
        "used_bytes": used.bytes,
        "quota_files": quota.files,
        "used_files": used.files,
    }
