"""Deletions of many objects at once, which Kinto reads first and then deletes.

Kinto's event pairs what was deleted with what had been read, by their positions. If another
request writes one of the objects in between, or creates one, the positions differ: the event tells
that an object was deleted which still exists, and so would its files be.
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
    """Give each object that was deleted what it was before.

    :raises IntegrityError: Kinto has not read one of them; the request is repeated. A memory
        backend, which rolls nothing back, knows nothing but the id of such an object.
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
    """A deleted object as it was; empty if the event has paired it with another one."""
    old: dict[str, Any] = impacted["old"] or {}
    return old if old.get("id") == impacted["new"]["id"] else {}


@contextmanager
def repeated(request: Request) -> Iterator[None]:
    """Have the request repeated if Kinto finds nothing to pair a deleted object with.

    :raises IntegrityError: more was deleted than had been read.
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
    """Whether nothing is rolled back."""
    return isinstance(request.registry.storage, MemoryBasedStorage)


def _is_of_events(error: BaseException) -> bool:
    """Whether an error was raised by the function that makes Kinto's events."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code is notify_resource_event.__code__
