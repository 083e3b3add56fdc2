"""All rows, in the order of the table."""

from __future__ import annotations

from typing import Any

from benchmarks.groups import (
    advice,
    buckets,
    downloads,
    links,
    lists,
    memory,
    quotas,
    resumable,
    s3,
    scripts,
    signed_links,
    throughput,
    uploads,
    versions,
)
from benchmarks.row import Group
from benchmarks.scale import Scale


def every(scale: Scale) -> list[Group[Any]]:
    return [
        *uploads.groups(scale),
        *throughput.groups(scale),
        *quotas.groups(scale),
        *memory.groups(scale),
        *downloads.groups(scale),
        *s3.groups(scale),
        *resumable.groups(scale),
        *links.groups(scale),
        *lists.groups(scale),
        *signed_links.groups(scale),
        *versions.groups(scale),
        *buckets.groups(scale),
        *scripts.groups(scale),
        *advice.groups(scale),
    ]
