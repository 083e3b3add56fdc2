"""Deletions of many objects, which Kinto first reads and then deletes.

Kinto's event pairs deleted objects with objects that had been read, by position. If another
request writes one of the objects in between, or creates one, the positions differ. The event then
says that an object was deleted that still exists, and its files would be deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kinto.core.events import notify_resource_event
from kinto.core.storage.exceptions import IntegrityError
from kinto.core.storage.memory import MemoryBasedStorage

from kinto_attachment.kinto_types import Request

CHANGED = "Objects to be deleted were written meanwhile."


def pair(request: Request, impacted: list[dict[str, Any]]) -> None:
    """Pair each deleted object with its state before the deletion.

    :raises IntegrityError: Kinto has not read one of them; the request is repeated. Memory
    backends cannot roll back; there, only the id of such an object is known.
    """
    before = {_id(each, "old"): each["old"] for each in impacted}
    for each in impacted:
        deleted = _id(each, "new")
        if deleted == _id(each, "old"):
            continue
        if deleted not in before and not _keeps_all(request):
            raise IntegrityError(message=CHANGED)
        each["old"] = before.get(deleted, {"id": deleted})


def old_of(impacted: dict[str, Any]) -> dict[str, Any]:
    """A deleted object before the deletion; empty if the event has paired it with another one."""
    old: dict[str, Any] = impacted["old"] or {}
    return old if old.get("id") == impacted["new"]["id"] else {}


@contextmanager
def repeated(request: Request) -> Iterator[None]:
    """Repeat the request if Kinto has no object to pair with a deleted one.

    :raises IntegrityError: more objects were deleted than had been read.
    """
    try:
        yield
    except IndexError as error:
        if _keeps_all(request) or not _is_of_events(error):
            raise
        raise IntegrityError(original=error, message=CHANGED) from error


def _id(impacted: dict[str, Any], name: str) -> Any:
    return (impacted[name] or {}).get("id")


def _keeps_all(request: Request) -> bool:
    """Whether the storage cannot roll back."""
    return isinstance(request.registry.storage, MemoryBasedStorage)


def _is_of_events(error: BaseException) -> bool:
    """Whether an error was raised by the function that makes Kinto's events."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code is notify_resource_event.__code__
