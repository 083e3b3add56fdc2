"""A storage backend for Kinto that is neither the PostgreSQL nor the memory one.

It keeps its objects in memory, which its interface does not show. ``kinto.storage_backend`` names
this module.
"""

from __future__ import annotations

from typing import Any

from kinto.core.storage import StorageBase
from kinto.core.storage.memory import Storage as MemoryStorage

METHODS = (
    "initialize_schema",
    "flush",
    "resource_timestamp",
    "all_resources_timestamps",
    "create",
    "get",
    "update",
    "delete",
    "delete_all",
    "purge_deleted",
    "list_all",
    "count_all",
    "trim_objects",
)


class OtherStorage(StorageBase):  # type: ignore[misc]
    def __init__(self) -> None:
        kept = MemoryStorage()
        for name in METHODS:
            setattr(self, name, getattr(kept, name))


def load_from_config(config: Any) -> OtherStorage:
    return OtherStorage()
