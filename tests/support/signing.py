"""A plugin that signs off collections, with the same locks as Remote Settings' signer.

A change of a record marks its collection. A change of the collection's status copies all its
records to another one: ``PATCH /buckets/b/collections/c`` with
``{"data": {"status": "to-publish"}}``. Both happen in listeners of ``ResourceChanged``, in the
request's transaction.
"""

from __future__ import annotations

from typing import Any

from kinto.core.events import ACTIONS, ResourceChanged, notify_resource_event
from kinto.core.storage.exceptions import ObjectNotFoundError

SOURCE, TARGET = "/buckets/b/collections/c", "/buckets/b/collections/public"
BUCKET = "/buckets/b"
WRITTEN = (ACTIONS.CREATE, ACTIONS.UPDATE)


def includeme(config: Any) -> None:
    config.add_subscriber(
        mark, ResourceChanged, for_resources=("record",), for_actions=(*WRITTEN, ACTIONS.DELETE)
    )
    config.add_subscriber(
        publish, ResourceChanged, for_resources=("collection",), for_actions=WRITTEN
    )


def mark(event: Any) -> None:
    if event.payload["collection_id"] == "c":
        storage = event.request.registry.storage
        collection = storage.get("collection", BUCKET, "c")
        storage.update("collection", BUCKET, "c", {**collection, "status": "work-in-progress"})


def publish(event: Any) -> None:
    storage = event.request.registry.storage
    for impacted in event.impacted_objects:
        if impacted["new"].get("status") != "to-publish":
            continue
        for record in storage.list_all("record", SOURCE):
            copy(event.request, record)
        collection = storage.get("collection", BUCKET, "c")
        storage.update("collection", BUCKET, "c", {**collection, "status": "signed"})


def copy(request: Any, record: dict[str, Any]) -> None:
    storage = request.registry.storage
    try:
        old = storage.get("record", TARGET, record["id"])
    except ObjectNotFoundError:
        old = None
    data = {name: value for name, value in record.items() if name != "last_modified"}
    written = storage.update("record", TARGET, record["id"], data)
    request._attachment_auto_save = True
    # Kinto uses the id of the request's object as that of the notified object.
    id_name = "id" if "id" in request.matchdict else "record_id"
    notify_resource_event(
        request,
        parent_id=TARGET,
        timestamp=written["last_modified"],
        data=written,
        action=ACTIONS.CREATE if old is None else ACTIONS.UPDATE,
        old=old,
        resource_name="record",
        resource_data={"bucket_id": "b", "collection_id": "public", id_name: record["id"]},
    )
