"""Everything that can be told of a server after some requests, without what is random or a time.

Two ways to do the same are the same if what is observed is equal.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import transaction
from pyramid.events import NewRequest

from tests.support.application import links_of, outbox, records, stored_content, stored_files

RANDOM_KEY = re.compile(r"[A-Za-z0-9_-]{20,}(?=\.[a-z.]{1,8}\b)")
# An id of a link, which is made of the key.
DIGEST = re.compile(r'(?<="Attachment-Version": ")[0-9a-f]{64}')
TIMESTAMP = re.compile(r"\b1[789]\d{11}\b")
LAST_MODIFIED = re.compile(r'"Last-Modified": "[^"]+"')
# Of our own rows. Timestamps of records are compared by their order.
TIMES = ("created", "attached", "retired", "until", "hold", "life")
# Headers that a request id, a clock or the length of a number is in.
UNTOLD = ("Content-Length", "Date")


def observe(app: Any, action: Callable[[Any], Any]) -> list[str]:
    """What an action answers, and what it leaves behind; ``action`` returns responses."""
    registry = app.app.registry
    registry.seen.clear()
    responses = action(app)
    answers = [
        {
            "status": response.status,
            "headers": {k: v for k, v in response.headers.items() if k not in UNTOLD},
            "body": response.text,
        }
        for response in responses
    ]
    told = {
        "answers": answers,
        "events": [event_of(event) for event in registry.seen],
        "records": records(app),
        "permissions": permissions(registry),
        "links": [
            {k: v for k, v in sorted(vars(link).items()) if k not in TIMES}
            for link in sorted(links_of(app), key=lambda link: (link.record, link.attached))
        ],
        "outbox": len(outbox(app)),
        "history": history(registry),
        "timestamps": timestamp_of(registry),
        "files": sorted(stored_content(app, key).decode("latin-1") for key in stored_files(app)),
    }
    return normal(told)


def event_of(event: Any) -> dict[str, Any]:
    request = event.request
    told: dict[str, Any] = {"class": type(event).__name__, "method": request.method}
    if not hasattr(event, "payload"):  # One of our own.
        return told | {k: v for k, v in sorted(vars(event).items()) if k != "request"}
    return told | {
        "payload": event.payload,
        "impacted": event.impacted_objects,
        "url": request.url,
        "matchdict": dict(request.matchdict),
        "service": request.current_service.name,
        "headers": {k: v for k, v in sorted(request.headers.items()) if k not in UNTOLD},
        "body": request.body.decode(),
        "validated": {k: str(v) for k, v in sorted(request.validated.items())},
        "errors": list(request.errors),
        "user": request.prefixed_userid,
        "principals": sorted(request.prefixed_principals),
        "resource": request.current_resource_name,
        "has_parent": hasattr(request, "parent"),
        "has_context": hasattr(request, "context"),
    }


def permissions(registry: Any) -> dict[str, Any]:
    with transaction.manager:
        uris = ["/buckets/b", "/buckets/b/collections/c"]
        uris += [f"/buckets/b/collections/c/records/{name}" for name in ("r", "other", "s")]
        found = registry.permission.get_objects_permissions(uris)
        return {
            uri: {name: sorted(who) for name, who in sorted(each.items())}
            for uri, each in zip(uris, found, strict=True)
        }


def history(registry: Any) -> list[Any]:
    with transaction.manager:
        rows = registry.storage.list_all(resource_name="history", parent_id="/buckets/b")
    rows.sort(key=lambda row: row["last_modified"])
    for row in rows:
        for name in ("id", "last_modified", "date"):
            del row[name]
        held = row["target"].get("permissions", {})
        row["target"]["permissions"] = {name: sorted(who) for name, who in sorted(held.items())}
    return list(rows)


def timestamp_of(registry: Any) -> int:
    with transaction.manager:
        return int(registry.storage.resource_timestamp("record", "/buckets/b/collections/c"))


def normal(told: Any) -> list[str]:
    """The same without random names, and with timestamps as ranks: lines, to be compared."""
    text = json.dumps(told, sort_keys=True, default=str, indent=1)
    for pattern in (RANDOM_KEY, DIGEST):
        found: dict[str, str] = {}
        text = pattern.sub(lambda match: found.setdefault(match[0], f"random{len(found)}"), text)  # noqa: B023
    times = sorted(set(TIMESTAMP.findall(text)))
    text = TIMESTAMP.sub(lambda match: f"time{times.index(match[0])}", text)
    return LAST_MODIFIED.sub("", text).splitlines()


@contextlib.contextmanager
def subrequests(app: Any) -> Iterator[list[str]]:
    """The methods and paths of the sub-requests that are made."""
    made: list[str] = []

    def note(event: Any) -> None:
        if hasattr(event.request, "parent"):
            made.append(f"{event.request.method} {event.request.path}")

    registry = app.app.registry
    registry.registerHandler(note, (NewRequest,))
    try:
        yield made
    finally:
        registry.unregisterHandler(note, (NewRequest,))
