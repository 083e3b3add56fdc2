"""Whether the user may read a record, decided by Kinto's own policy."""

from __future__ import annotations

from kinto.authorization import RouteFactory
from kinto.core.authorization import DYNAMIC
from kinto.core.utils import build_request

from kinto_attachment.kinto_types import Request


class _Readable(RouteFactory):  # type: ignore[misc]
    """A context for Kinto's policy: reading a given record."""

    resource_name = "record"
    required_permission = "read"

    def __init__(self, request: Request, record_uri: str) -> None:
        super().__init__(request)
        self.permission_object_id = record_uri


class _Collection(RouteFactory):  # type: ignore[misc]
    """The same for writing a collection."""

    resource_name = "collection"
    required_permission = "write"
    current_object: dict[str, object] = {}  # One that is gone has no writers.

    def __init__(self, request: Request, collection: str) -> None:
        super().__init__(request)
        self.permission_object_id = collection


def may_read(request: Request, record_uri: str) -> bool:
    """Whether the user has the ``read`` permission on a record, directly or inherited."""
    return bool(request.has_permission(DYNAMIC, _Readable(request, record_uri)))


def may_write_collection(request: Request, collection: str) -> bool:
    """Whether the user has the ``write`` permission on a collection, which a URI names."""
    return bool(request.has_permission(DYNAMIC, _Collection(request, collection)))


def may_read_now(request: Request, record_uri: str) -> bool:
    """The same with the user's current groups: a request caches those of its beginning."""
    return may_read(build_request(request, {"path": record_uri}), record_uri)
