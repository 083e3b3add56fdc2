"""The requests with which commands make changes: they have neither a client nor a user."""

from __future__ import annotations

from kinto.core.cornice.pyramidhook import wrap_request
from pyramid.events import NewRequest
from pyramid.request import Request as PyramidRequest, apply_request_extensions

from kinto_attachment.files.ledger import CollectedEvents
from kinto_attachment.files.transactions import EVENTS
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.uris import ids_of


def request_about(registry: Registry, uri: str, server: str = "http://localhost") -> Request:
    """A request about a bucket, a collection or a record; ``server`` is without the API version.

    Listeners receive it with the events, as for any other change.
    """
    path = f"/{registry.route_prefix}{uri}"
    request = PyramidRequest.blank(path, base_url=server, method="PATCH")
    request.registry = registry
    request.matched_route = None
    ids = ids_of(uri)
    names = ("bucket_id", "collection_id")[: len(ids) - 1]
    request.matchdict = dict(zip((*names, "id"), ids, strict=True))
    apply_request_extensions(request)
    wrap_request(NewRequest(request))  # Kinto's errors need that.
    request.bound_data[EVENTS] = CollectedEvents()
    made: Request = request
    return made
