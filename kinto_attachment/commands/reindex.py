"""``kinto-attachment reindex``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.server import CLEAN, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.reindex import reindex
from kinto_attachment.maintenance.reports import Progress, Report


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    if not arguments.claim:  # Which is refused.
        check_files_are_known(registry)
    report = reindex(registry, claim=arguments.claim, progress=progress)
    return report, FOUND if report.found else CLEAN
