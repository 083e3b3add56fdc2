"""``kinto-attachment uploads``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.server import CLEAN, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import warn_of_memory
from kinto_attachment.maintenance.reports import Progress, Report
from kinto_attachment.maintenance.uploads import uploads


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    warn_of_memory(registry)
    report = uploads(
        registry, bucket=arguments.bucket, collection=arguments.collection, progress=progress
    )
    return report, CLEAN
