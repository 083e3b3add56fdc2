"""Writing buckets and collections from a command, and notifying listeners of its changes."""

from __future__ import annotations

from collections.abc import Mapping

import transaction
from kinto.core.events import ACTIONS, notify_resource_event
from kinto.core.storage import Sort
from kinto.core.storage.exceptions import UnicityError

from kinto_attachment.files.own_requests import request_about
from kinto_attachment.kinto_types import KintoObject, Registry, Request

Permissions = Mapping[str, list[str]]


def create_parent(
    registry: Registry, kind: str, uri: str, data: KintoObject, permissions: Permissions | None
) -> bool:
    """Create a bucket or a collection; False if it exists."""
    request, parent = request_about(registry, uri), uri.rpartition(f"/{kind}s/")[0]
    try:
        with transaction.manager:
            new = dated(registry, kind, parent, data)
            created = registry.storage.create(kind, parent, new)
            if permissions:
                registry.permission.replace_object_permissions(uri, permissions)
            note_change(request, kind, parent, created, None)
            notify(request)
    except UnicityError:
        return False
    notify(request, after_commit=True)
    return True


def replace_parent(registry: Registry, kind: str, uri: str, data: KintoObject) -> None:
    """Write the data of an existing collection."""
    request, parent = request_about(registry, uri), uri.rpartition(f"/{kind}s/")[0]
    with transaction.manager:
        old = registry.storage.get(kind, parent, data["id"])
        new = {name: value for name, value in data.items() if name != "last_modified"}
        written = registry.storage.update(kind, parent, data["id"], new)
        note_change(request, kind, parent, written, old)
        notify(request)
    notify(request, after_commit=True)


def dated(registry: Registry, kind: str, parent: str, data: KintoObject) -> KintoObject:
    """The object, without its timestamp if synchronizing clients would not notice the object.

    They ask for objects that are newer than theirs.
    """
    latest = registry.storage.list_all(
        resource_name=kind,
        parent_id=parent,
        sorting=[Sort("last_modified", -1)],
        limit=1,
        include_deleted=True,
    )
    new = {**data}
    if latest and latest[0]["last_modified"] >= new["last_modified"]:
        del new["last_modified"]
    return new


def note_change(
    request: Request, kind: str, parent: str, written: KintoObject, old: KintoObject | None
) -> None:
    """Collect a change of an object, for the notification of listeners."""
    notify_resource_event(
        request,
        parent,
        written["last_modified"],
        written,
        ACTIONS.CREATE if old is None else ACTIONS.UPDATE,
        old=old,
        resource_name=kind,
    )


def notify(request: Request, *, after_commit: bool = False) -> None:
    """Notify listeners of the changes: in the transaction, or after its commit."""
    for event in request.get_resource_events(after_commit=after_commit):
        request.registry.notify(event)
