"""Undoing changes by other plugins to held files on backends that cannot roll back.

Changes through Kinto's views are refused earlier. A plugin that writes to a memory backend has
already done so when its change is notified. The change is then undone, as far as the event
describes it.
"""

from __future__ import annotations

from kinto_attachment.errors import Held
from kinto_attachment.files import guard, holds
from kinto_attachment.files.ledger import bucket_of, collection_of
from kinto_attachment.kinto_types import ResourceEvent
from kinto_attachment.metadata import FIELD
from kinto_attachment.uris import RecordURI


def refuse(event: ResourceEvent) -> None:
    """Refuse to change or delete objects whose files are held.

    :raises Held: a file is held, and the change was undone.
    """
    known = event.request.registry.attachment_holds
    if known.rolls_back or not known.is_known:
        return
    try:
        _check(event)
    except Held:
        guard.roll_back(event)
        raise


def _check(event: ResourceEvent) -> None:
    request, resource_name = event.request, event.payload["resource_name"]
    deleted = event.payload["action"] == "delete"
    for impacted in event.impacted_objects:
        object_id = impacted["new"]["id"]
        if resource_name == "bucket":
            holds.refuse_deletion_below(request.registry, f"/buckets/{object_id}")
        elif resource_name == "collection":
            uri = f"{bucket_of(event, impacted)}/collections/{object_id}"
            holds.refuse_deletion_below(request.registry, uri)
        else:
            record = RecordURI.parse(f"{collection_of(event, impacted)}/records/{object_id}")
            old = (impacted.get("old") or {}).get(FIELD)
            if deleted:
                holds.refuse_deletion(request, record, old)
            else:
                holds.refuse_change(request, record, old, impacted["new"].get(FIELD))
