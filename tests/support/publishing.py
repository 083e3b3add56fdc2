"""A plugin that publishes: copies records, their attachments included, to another collection.

It does so as such plugins do: it writes through Kinto's storage, and notifies the change on a
request that carries the flag. ``POST /publish`` with ``{"copies": {source URI: target URI}}``.
With ``"ids_of": URI`` the events carry the ids of another record, as those do of plugins that
change several resources in one request.
"""

from __future__ import annotations

from typing import Any

from kinto.core.events import ACTIONS, notify_resource_event
from kinto.core.storage.exceptions import ObjectNotFoundError
from pyramid.security import NO_PERMISSION_REQUIRED


def includeme(config: Any) -> None:
    config.add_route("publish", "/publish")
    config.add_view(
        publish,
        route_name="publish",
        request_method="POST",
        renderer="json",
        permission=NO_PERMISSION_REQUIRED,
    )


def publish(request: Any) -> dict[str, int]:
    ids_of = request.json.get("ids_of")
    pairs = request.json["copies"].items()
    return {"copied": sum(copy(request, *pair, ids_of) for pair in pairs)}


def copy(request: Any, source: str, target: str, ids_of: str | None = None) -> bool:
    """False when there is nothing to copy."""
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
    # Kinto takes the id of the request's own object for that of the object notified.
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
