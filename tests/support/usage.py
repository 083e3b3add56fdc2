"""The usage of buckets and collections: by the counters, and counted."""

from __future__ import annotations

from typing import Any

import transaction


def miscounted(registry: Any, links: list[Any] | None = None) -> list[str]:
    """Counters of quotas that differ from the real sums.

    ``links`` are all links, if they have been read.
    """
    with transaction.manager:
        return miscounts(registry, links)


def miscounts(registry: Any, links: list[Any] | None = None) -> list[str]:
    """The same, in the current transaction."""
    usage = registry.attachment_usage
    found: list[str] = []
    counted = usage.known(usage.scopes())
    if not counted:
        return found
    links = linked(registry) if links is None else links
    sessions = begun(registry)
    for scope, said in counted.items():
        summed = held_by(links, sessions, scope)
        if (said.files, said.bytes) != summed:
            found.append(f"counted in {scope}: {said}, but there is {summed}")
    return found


def held(registry: Any, scope: str) -> tuple[int, int]:
    """Files and bytes in a bucket or a collection, one by one."""
    with transaction.manager:
        return held_by(linked(registry), begun(registry), scope)


def linked(registry: Any) -> list[Any]:
    """All links."""
    return [link for page in registry.attachment_links.under() for link in page]


def begun(registry: Any) -> list[Any]:
    """All upload sessions."""
    return [each for page in registry.attachment_sessions.pages() for each in page]


def held_by(links: list[Any], sessions: list[Any], scope: str) -> tuple[int, int]:
    files = {link.key: link.size for link in links if is_in(scope, link.record)}
    unfinished = [each for each in sessions if is_in(scope, each.record) and each.partial]
    return len(files), sum(files.values()) + sum(map(size_of, unfinished))


def size_of(session: Any) -> int:
    """The durable bytes of an unfinished upload, or all that the storage may accept for it."""
    size = session.length if session.via == "storage" else session.partial["size"]
    return int(size)


def is_in(scope: str, record: str) -> bool:
    return record.startswith(f"{scope}/")
