"""``…/collections/{id}/attachments/rules``: what a page checks before it sends a file."""

from __future__ import annotations

from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.response import Response

from kinto_attachment.endpoints import openapi
from kinto_attachment.endpoints.attachment import outside_default_bucket
from kinto_attachment.endpoints.collection_context import CollectionContext
from kinto_attachment.endpoints.downloads import CURRENT
from kinto_attachment.files.direct_uploads import is_possible
from kinto_attachment.kinto_types import Request
from kinto_attachment.settings import CollectionSettings

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
    """What the server takes: limits in bytes, and extensions without their dots."""
    context: Any = request.context
    context.check_exists()
    resolver = request.registry.attachment_collection_settings
    found = resolver.of(request, context.uri.bucket_id, context.uri.collection_id)
    direct = is_possible(request.registry, found)
    response = Response(json={"data": {**as_json(found), "direct": direct}})
    response.headers.update(CURRENT)
    return response


def as_json(rules: CollectionSettings) -> dict[str, Any]:
    """The rules; ``max_size`` of 0 is no limit, and no extensions are all."""
    return {
        "max_size": rules.max_size,
        "min_size": rules.min_size,
        "extensions": sorted(rules.extensions),
        "gzipped": rules.gzipped,
        "content_encodings": sorted(rules.content_encodings),
        "versions": rules.keep_old_files,
    }
