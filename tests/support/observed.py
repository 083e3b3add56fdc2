"""The observable results of a server: events when they are fired, and everything stored."""

from __future__ import annotations

import contextlib
import gzip
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

import sqlalchemy
import transaction
from pyramid.events import NewRequest

# Headers that depend on a clock or the length of a number.
UNTOLD = ("Content-Length", "Date")

OBJECTS = """
SELECT parent_id, resource_name, id, as_epoch(last_modified) AS last_modified, data, deleted
  FROM objects
"""
TIMESTAMPS = """
SELECT parent_id, resource_name, as_epoch(last_modified) AS last_modified FROM timestamps
"""
RIGHTS = "SELECT object_id, permission, principal FROM access_control_entries"
MEMBERS = "SELECT user_id, principal FROM user_principals"


def event_of(event: Any) -> dict[str, Any]:
    """An event with everything that a subscriber can read."""
    request = event.request
    told: dict[str, Any] = {"class": type(event).__name__, "method": request.method}
    if not hasattr(event, "payload"):  # Our own event.
        return told | {k: v for k, v in sorted(vars(event).items()) if k != "request"}
    # Only the endpoint may read a body that is arriving.
    has_body = not hasattr(request.environ["wsgi.input"], "misread")
    return told | {
        "payload": event.payload,
        "impacted": event.impacted_objects,
        "url": request.url,
        "matchdict": dict(request.matchdict or {}),
        "service": request.current_service and request.current_service.name,
        "headers": {k: v for k, v in sorted(request.headers.items()) if k not in UNTOLD},
        "body": request.body.decode("latin-1") if has_body else None,
        "validated": getattr(request, "validated", None),
        "errors": list(getattr(request, "errors", [])),
        "user": request.prefixed_userid,
        "principals": sorted(request.prefixed_principals),
        # Plugins that simulate a request have no service.
        "resource": request.current_service and request.current_resource_name,
        "has_parent": hasattr(request, "parent"),
        "has_context": hasattr(request, "context"),
    }


def rows_of(registry: Any) -> dict[str, Any]:
    """The rows of Kinto's storage and permission backends, and the stored files."""
    storage, permission = registry.storage, registry.permission
    with transaction.manager:
        if hasattr(storage, "client"):
            objects = query(storage, OBJECTS)
            timestamps = query(storage, TIMESTAMPS)
        else:
            objects, timestamps = list(remembered(storage)), list(stamped(storage))
        if hasattr(permission, "client"):
            rights = [" ".join(row.values()) for row in query(permission, RIGHTS)]
            rights += [" ".join(row.values()) for row in query(permission, MEMBERS)]
        else:
            rights = list(granted(permission))
    rank(objects, timestamps)
    return {
        "objects": objects,
        "timestamps": timestamps,
        "rights": rights,
        "files": [
            {"storage": storage.name, "key": file.key, "content": content(storage.files, file.key)}
            for storage in registry.attachment_storages
            for file in storage.files.list()
        ],
    }


def query(backend: Any, statement: str) -> list[dict[str, Any]]:
    with backend.client.connect(readonly=True) as session:
        return [dict(row._mapping) for row in session.execute(sqlalchemy.text(statement))]


def remembered(storage: Any) -> Iterator[dict[str, Any]]:
    """The objects of a memory backend, as rows."""
    for stored, deleted in ((storage._store, False), (storage._cemetery, True)):
        for parent, resources in stored.items():
            for name, objects in resources.items():
                for key, each in objects.items():
                    data = {k: v for k, v in each.items() if k not in ("id", "last_modified")}
                    yield {
                        "parent_id": parent,
                        "resource_name": name,
                        "id": key,
                        "last_modified": each["last_modified"],
                        "data": data,
                        "deleted": deleted,
                    }


def stamped(storage: Any) -> Iterator[dict[str, Any]]:
    for parent, resources in storage._timestamps.items():
        for name, timestamp in resources.items():
            yield {"parent_id": parent, "resource_name": name, "last_modified": timestamp}


def granted(permission: Any) -> Iterator[str]:
    for key, principals in permission._store.items():
        yield from (f"{key} {principal}" for principal in principals)


def rank(*tables: list[dict[str, Any]]) -> None:
    """Replace timestamps by their order among those of the same parent, which are unique.

    The rows of the index have random timestamps.
    """
    found: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    rows = [row for table in tables for row in table]
    for row in rows:
        found[row["parent_id"], row["resource_name"]].add(row["last_modified"])
    ranks = {
        parent: {timestamp: n for n, timestamp in enumerate(sorted(each))}
        for parent, each in found.items()
    }
    for row in rows:
        parent = row["parent_id"], row["resource_name"]
        is_ours = row["resource_name"].startswith("attachment")
        row["last_modified"] = None if is_ours else ranks[parent][row["last_modified"]]


def content(files: Any, key: str) -> str:
    with contextlib.closing(files.open(key)) as reader:
        return content_of(b"".join(iter(lambda: reader.read(65536), b"")))


def content_of(data: bytes) -> str:
    """Short texts, or a checksum that is too short to look like a random name.

    Compressed files and archives contain a time.
    """
    if data.startswith(b"\x1f\x8b"):
        with contextlib.suppress(OSError, EOFError):
            return f"compressed: {content_of(gzip.decompress(data))}"
    if data.startswith(b"PK"):
        return f"an archive of {len(data)} bytes"
    if len(data) <= 200 and data.isascii():
        return data.decode()
    return f"{len(data)} bytes, {crc32(data):08x}"


def plain(value: Any) -> Any:
    """The value as in JSON, without the order of fields and sets."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in sorted(value.items(), key=str)}
    if isinstance(value, set | frozenset):
        return sorted((plain(each) for each in value), key=repr)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, str | int | float | None):
        return value
    return str(value)


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
