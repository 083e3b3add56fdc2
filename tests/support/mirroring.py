"""A plugin that copies each record of a collection to another one when it is written.

It sets the flag of plugins that write attachments, in its own listener.
"""

from __future__ import annotations

from typing import Any

from kinto.core.events import ACTIONS, ResourceChanged

from tests.support.publishing import copy

SOURCE, TARGET = "/buckets/b/collections/c", "/buckets/b/collections/mirror"


def includeme(config: Any) -> None:
    written = (ACTIONS.CREATE, ACTIONS.UPDATE)
    config.add_subscriber(mirror, ResourceChanged, for_resources=("record",), for_actions=written)


def mirror(event: Any) -> None:
    if event.payload["collection_id"] == "c":
        for impacted in event.impacted_objects:
            record_id = impacted["new"]["id"]
            copy(event.request, f"{SOURCE}/records/{record_id}", f"{TARGET}/records/{record_id}")
