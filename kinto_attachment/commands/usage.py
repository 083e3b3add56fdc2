"""``kinto-attachment usage``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.selection import selection
from kinto_attachment.commands.server import CLEAN, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.reports import Progress, Report
from kinto_attachment.maintenance.usage import usage


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    report = usage(registry, selection(registry, arguments), progress=progress)
    return report, CLEAN
