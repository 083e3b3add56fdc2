"""What buckets and collections hold: as the counters say, and as it is."""

from __future__ import annotations

from typing import Any

import transaction


def miscounted(registry: Any) -> list[str]:
    """Counters of quotas that are not the sums of what is there."""
    usage = registry.attachment_usage
    found = []
    with transaction.manager:
        counted = usage.known(usage.scopes())
    if not counted:
        return []
    linked, sessions = read(registry)
    for scope, said in counted.items():
        summed = held_by(linked, sessions, scope)
        if (said.files, said.bytes) != summed:
            found.append(f"counted in {scope}: {said}, but there is {summed}")
    return found


def held(registry: Any, scope: str) -> tuple[int, int]:
    """Files and bytes in a bucket or a collection, one by one."""
    return held_by(*read(registry), scope)


def read(registry: Any) -> tuple[list[Any], list[Any]]:
    """All links and all upload sessions."""
    with transaction.manager:
        linked = [link for page in registry.attachment_links.under() for link in page]
        sessions = [each for page in registry.attachment_sessions.pages() for each in page]
    return linked, sessions


def held_by(linked: list[Any], sessions: list[Any], scope: str) -> tuple[int, int]:
    files = {link.key: link.size for link in linked if is_in(scope, link.record)}
    begun = [each for each in sessions if is_in(scope, each.record) and each.partial]
    return len(files), sum(files.values()) + sum(map(size_of, begun))


def size_of(session: Any) -> int:
    """What is durable of an unfinished upload, or all that the storage may take for it."""
    size = session.length if session.via == "storage" else session.partial["size"]
    return int(size)


def is_in(scope: str, record: str) -> bool:
    return record.startswith(f"{scope}/")
