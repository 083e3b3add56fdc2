"""Only code on the server may write the ``attachment`` of records, and has to ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kinto.core.errors import raise_invalid
from kinto.core.storage.memory import MemoryBasedStorage

from kinto_attachment.files.ledger import PLUGIN_FLAG, CollectedEvents, collection_of
from kinto_attachment.kinto_types import Impacted, Request, ResourceEvent
from kinto_attachment.metadata import FIELD, same_json

ALLOWED = "kinto_attachment.allowed"


@contextmanager
def allow_metadata_changes(request: Request) -> Iterator[None]:
    """Allow code on the server to write the ``attachment`` of records in this block.

    Holds for the records whose changes are notified (``notify_resource_event``) inside the block.
    """
    before = {id(impacted) for impacted in _impacted(request)}
    yield
    allowed = request.bound_data.setdefault(ALLOWED, [])
    # The objects themselves, not their ids: Python reuses the id of an object that is gone.
    allowed += [impacted for impacted in _impacted(request) if id(impacted) not in before]


def _impacted(request: Request) -> Iterator[dict[str, Any]]:
    collected = request.bound_data.get("resource_events")
    for _, impacted, _ in collected.event_dict.values() if collected else ():
        yield from impacted


def check(event: ResourceEvent) -> None:
    """Refuse changes of ``attachment`` that are not allowed.

    :raises HTTPBadRequest: an attachment was changed outside of allow_metadata_changes.
    """
    if any(_is_forged(event, impacted) for impacted in event.impacted_objects):
        _roll_back(event)
        description = "Attachment metadata cannot be modified."
        raise_invalid(event.request, name=FIELD, description=description)


def before_and_after(impacted: Impacted) -> tuple[Any, Any]:
    """The new attachment object of a record and the old one; None if it has or had none."""
    return impacted["new"].get(FIELD), (impacted.get("old") or {}).get(FIELD)


def _is_forged(event: ResourceEvent, impacted: Impacted) -> bool:
    new, old = before_and_after(impacted)
    if new is None or same_json(new, old):
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


def _roll_back(event: ResourceEvent) -> None:
    """Undo the change on a memory backend; a database rolls it back because of the error."""
    backend = event.request.registry.storage
    if not isinstance(backend, MemoryBasedStorage):
        return
    for impacted in reversed(event.impacted_objects):  # A batch may write a record twice.
        parent = {"resource_name": "record", "parent_id": collection_of(event, impacted)}
        object_id = impacted["new"]["id"]
        if impacted.get("old"):
            backend.update(object_id=object_id, obj=impacted["old"], **parent)
        else:
            backend.delete(object_id=object_id, with_deleted=False, **parent)
