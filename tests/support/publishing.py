"""A plugin that publishes: copies records, their attachments included, to another collection.

Like real ones, it writes through Kinto's storage, and notifies the change on a request that has
the flag. ``POST /publish`` with ``{"copies": {source URI: target URI}}``. With ``"ids_of": URI``,
the events have the ids of another record, like those of plugins that change several resources in
one request.

``POST /withdraw`` with ``{"uris": [URI, …]}`` deletes records, collections or buckets in the same
way.
"""

from __future__ import annotations

from typing import Any

from kinto.core.events import ACTIONS, notify_resource_event
from kinto.core.storage.exceptions import ObjectNotFoundError
from pyramid.security import NO_PERMISSION_REQUIRED


def includeme(config: Any) -> None:
    for view in (publish, withdraw):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(
            view,
            route_name=view.__name__,
            request_method="POST",
            renderer="json",
            permission=NO_PERMISSION_REQUIRED,
        )


def publish(request: Any) -> dict[str, int]:
    ids_of = request.json.get("ids_of")
    pairs = request.json["copies"].items()
    return {"copied": sum(copy(request, *pair, ids_of) for pair in pairs)}


def copy(request: Any, source: str, target: str, ids_of: str | None = None) -> bool:
    """Copy a record; False if there is nothing to copy."""
    storage = request.registry.storage
    parent, _, object_id = source.rpartition("/records/")
    try:
        record = storage.get("record", parent, object_id)
    except ObjectNotFoundError:
        return False
    parent, _, object_id = target.rpartition("/records/")
    _, _, bucket_id, _, collection_id, _, told_id = (ids_of or target).split("/")
    try:
        old = storage.get("record", parent, object_id)
    except ObjectNotFoundError:
        old = None
    data = {**record, "id": object_id}
    del data["last_modified"]
    written = storage.update("record", parent, object_id, data)
    # Kinto uses the id of the request's object as that of the notified object.
    id_name = "id" if "id" in request.matchdict else "record_id"
    request._attachment_auto_save = True
    notify_resource_event(
        request,
        parent_id=parent,
        timestamp=written["last_modified"],
        data=written,
        action=ACTIONS.CREATE if old is None else ACTIONS.UPDATE,
        old=old,
        resource_name="record",
        resource_data={
            "bucket_id": bucket_id,
            "collection_id": collection_id,
            id_name: told_id,
        },
    )
    return True


def withdraw(request: Any) -> dict[str, int]:
    return {"deleted": sum(delete(request, uri) for uri in request.json["uris"])}


def delete(request: Any, uri: str) -> bool:
    parent, plural, object_id = uri.rsplit("/", 2)
    resource_name = plural.removesuffix("s")
    storage = request.registry.storage
    old = storage.get(resource_name, parent, object_id)
    deleted = storage.delete(resource_name, parent, object_id)
    request.registry.permission.delete_object_permissions(uri, f"{uri}/*")
    names = uri.strip("/").split("/")
    parents = {
        f"{name[:-1]}_id": value for name, value in zip(names[::2], names[1::2], strict=True)
    }
    notify_resource_event(
        request,
        parent_id=parent,
        timestamp=deleted["last_modified"],
        data=deleted,
        action=ACTIONS.DELETE,
        old=old,
        resource_name=resource_name,
        resource_data=parents,
    )
    return True
