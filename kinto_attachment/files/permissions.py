"""Who may read a record, asked of Kinto's own policy."""

from __future__ import annotations

from typing import Any

from kinto.authorization import RouteFactory
from kinto.core.authorization import DYNAMIC
from kinto.core.utils import build_request


class _Readable(RouteFactory):  # type: ignore[misc]
    """Stands for any record, to ask Kinto's policy whether the user may read it."""

    resource_name = "record"
    required_permission = "read"

    def __init__(self, request: Any, record_uri: str) -> None:
        super().__init__(request)
        self.permission_object_id = record_uri


def may_read(request: Any, record_uri: str) -> bool:
    """Whether the user has the ``read`` permission on a record, by whatever grants it."""
    return bool(request.has_permission(DYNAMIC, _Readable(request, record_uri)))


def may_read_now(request: Any, record_uri: str) -> bool:
    """Whether they have it by now: a request remembers the groups that its user was in."""
    return may_read(build_request(request, {"path": record_uri}), record_uri)
