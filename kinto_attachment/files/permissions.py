"""The user's permissions on a record or a collection, from Kinto's policy."""

from __future__ import annotations

from kinto.authorization import RouteFactory
from kinto.core.authorization import DYNAMIC
from kinto.core.utils import build_request

from kinto_attachment.kinto_types import KintoObject, Request


class _Wanted(RouteFactory):  # type: ignore[misc]
    """A context for Kinto's policy: a permission on a given object."""

    # Kinto asks for ``read`` on the parent instead of ``write`` on an object that does not exist.
    current_object: KintoObject = {}

    def __init__(self, request: Request, uri: str, permission: str) -> None:
        super().__init__(request)
        self.resource_name = "record" if "/records/" in uri else "collection"
        self.permission_object_id = uri
        self.required_permission = permission


def may(request: Request, permission: str, uri: str) -> bool:
    """Whether the user has a permission on a record or a collection, directly or inherited."""
    return bool(request.has_permission(DYNAMIC, _Wanted(request, uri, permission)))


def may_now(request: Request, permission: str, uri: str) -> bool:
    """The same with the user's current groups. A request caches those from its start."""
    return may(build_request(request, {"path": uri}), permission, uri)


def may_read(request: Request, record_uri: str) -> bool:
    """Whether the user has the ``read`` permission on a record."""
    return may(request, "read", record_uri)


def may_read_now(request: Request, record_uri: str) -> bool:
    """The same at this moment."""
    return may_now(request, "read", record_uri)
