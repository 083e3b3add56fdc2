"""Allowing code on the server, and nobody else, to write the ``attachment`` of records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kinto.core.errors import json_error_handler
from kinto.core.storage.memory import MemoryBasedStorage
from pyramid.httpexceptions import HTTPException

from kinto_attachment.files.ledger import (
    PLUGIN_FLAG,
    CollectedEvents,
    bucket_of,
    collection_of,
)
from kinto_attachment.kinto_types import Impacted, Request, ResourceEvent
from kinto_attachment.metadata import ABSENT, FIELD, same_json

ALLOWED = "kinto_attachment.allowed"
INSIDE = "kinto_attachment.inside_allowed_block"


@contextmanager
def allow_metadata_changes(request: Request) -> Iterator[None]:
    """Allow code on the server to write the ``attachment`` of records in this block.

    This applies to records whose changes are notified (``notify_resource_event``) inside the
    block.
    """
    before = {id(impacted) for impacted in _impacted(request)}
    nested = request.bound_data.get(INSIDE, False)
    request.bound_data[INSIDE] = True
    try:
        yield
    finally:
        request.bound_data[INSIDE] = nested
    allowed = request.bound_data.setdefault(ALLOWED, [])
    # The objects themselves, not their ids: Python reuses the ids of deleted objects.
    allowed += [impacted for impacted in _impacted(request) if id(impacted) not in before]


def _impacted(request: Request) -> Iterator[dict[str, Any]]:
    collected = request.bound_data.get("resource_events")
    for _, impacted, _ in collected.event_dict.values() if collected else ():
        yield from impacted


def is_allowed(request: Request) -> bool:
    """Whether code on the server, which says so, makes the writes of this request."""
    return bool(request.bound_data.get(INSIDE) or getattr(request, PLUGIN_FLAG, False))


def is_forged(new: Any, old: Any) -> bool:
    """Whether an attachment differs from the record's. None and ABSENT do not count."""
    return new is not None and new is not ABSENT and not same_json(new, old)


def refusal(request: Request, *uris: str) -> HTTPException:
    """Kinto's 400; each of its ``details`` has the URI of a record."""
    for uri in uris:
        description = "Attachment metadata cannot be modified."
        request.errors.add("body", name=FIELD, description=description, uri=uri)
    return json_error_handler(request)


def check(event: ResourceEvent) -> None:
    """Refuse changes of ``attachment`` that are not allowed.

    Changes by clients are refused earlier, so that only a part of a batch fails. This finds
    changes that were written in any other way.

    :raises HTTPBadRequest: an attachment was changed outside of allow_metadata_changes.
    """
    forged = [each for each in event.impacted_objects if _is_forged(event, each)]
    if forged:
        roll_back(event)
        uris = (f"{collection_of(event, each)}/records/{each['new']['id']}" for each in forged)
        raise refusal(event.request, *uris)


def before_and_after(impacted: Impacted) -> tuple[Any, Any]:
    """The new and the old attachment object of a record; None if it has or had none."""
    return impacted["new"].get(FIELD), (impacted.get("old") or {}).get(FIELD)


def _is_forged(event: ResourceEvent, impacted: Impacted) -> bool:
    new, old = before_and_after(impacted)
    if not is_forged(new, old):
        return False
    if _is_flagged(event, impacted):
        return False
    return all(impacted is not other for other in event.request.bound_data.get(ALLOWED, ()))


def _is_flagged(event: ResourceEvent, impacted: Impacted) -> bool:
    """Whether another plugin set the flag by which existing plugins write attachments."""
    collected = event.request.bound_data.get("resource_events")
    if isinstance(collected, CollectedEvents):
        return collected.is_by_plugin(impacted)
    return bool(getattr(event.request, PLUGIN_FLAG, False))


def roll_back(event: ResourceEvent) -> None:
    """Undo the change on a memory backend; a database rolls it back because of the error."""
    backend = event.request.registry.storage
    if not isinstance(backend, MemoryBasedStorage):
        return
    for impacted in reversed(event.impacted_objects):  # A batch may write a record twice.
        resource_name, parent_id = _place_of(event, impacted)
        object_id = impacted["new"]["id"]
        if impacted.get("old"):
            backend.update(resource_name, parent_id, object_id, impacted["old"])
        else:
            backend.delete(resource_name, parent_id, object_id, with_deleted=False)


def _place_of(event: ResourceEvent, impacted: Impacted) -> tuple[str, str]:
    """The resource name and the parent id of an object in Kinto's storage."""
    match event.payload["resource_name"]:
        case "bucket":
            return "bucket", ""
        case "collection":
            return "collection", bucket_of(event, impacted)
    return "record", collection_of(event, impacted)
