"""The files that a command processes, from its options."""

from __future__ import annotations

import argparse

from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import chosen_title
from kinto_attachment.maintenance.selection import Selection
from kinto_attachment.maintenance.shards import Shard


def place(arguments: argparse.Namespace) -> Selection:
    """What ``--bucket`` and ``--collection`` select."""
    return Selection(bucket=arguments.bucket, collection=arguments.collection)


def selection(registry: Registry, arguments: argparse.Namespace) -> Selection:
    """What these options select.

    :raises CommandError: no storage has this name.
    """
    return Selection(
        bucket=arguments.bucket,
        collection=arguments.collection,
        storage=chosen_title(registry, arguments.storage),
        shard=Shard(*arguments.shard),
    )
