"""``kinto-attachment uploads``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.selection import place
from kinto_attachment.commands.server import CLEAN, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import check_files_are_known
from kinto_attachment.maintenance.reports import Progress, Report
from kinto_attachment.maintenance.uploads import uploads


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    return uploads(registry, place(arguments), progress=progress), CLEAN
