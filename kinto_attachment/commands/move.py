"""``kinto-attachment move``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.selection import selection
from kinto_attachment.commands.server import CLEAN, ERROR, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.application import (
    CommandError,
    check_files_are_known,
    chosen_storage,
)
from kinto_attachment.maintenance.move import move
from kinto_attachment.maintenance.reports import Progress, Report


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    check_files_are_known(registry)
    target = chosen_storage(registry, arguments.to, option="--to")
    assert target is not None  # noqa: S101 - the option is required.
    if chosen_storage(registry, arguments.storage) == target:
        raise CommandError("--storage and --to are the same storage")
    report = move(
        registry,
        target,
        selection(registry, arguments),
        rate=arguments.rate,
        keep=arguments.keep,
        dry_run=arguments.dry_run,
        progress=progress,
    )
    if report.failed or report.errors:
        return report, ERROR
    found = report.found or report.elsewhere or (arguments.dry_run and report.files)
    return report, FOUND if found else CLEAN
