"""``kinto-attachment release-hold``."""

from __future__ import annotations

import argparse
import getpass

from kinto_attachment.commands.server import CLEAN, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.release_hold import release_hold
from kinto_attachment.maintenance.reports import Progress, Report


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    report = release_hold(
        registry,
        arguments.record,
        by=getpass.getuser() if arguments.by is None else arguments.by,
        reason=arguments.reason,
        version=arguments.version,
        dry_run=arguments.dry_run,
    )
    return report, CLEAN
