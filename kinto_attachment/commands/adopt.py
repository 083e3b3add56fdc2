"""``kinto-attachment adopt``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.server import CLEAN, FOUND, on_server
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance import adopt, manifest, rollback
from kinto_attachment.maintenance.application import chosen_storage
from kinto_attachment.maintenance.reports import Progress, Report


@on_server
def run(
    registry: Registry, arguments: argparse.Namespace, progress: Progress
) -> tuple[Report, int]:
    chosen_storage(registry, None)
    report: Report
    if arguments.back:
        report = rollback.back(registry, dry_run=arguments.dry_run, progress=progress)
    elif arguments.forget:
        report = rollback.forget(registry, dry_run=arguments.dry_run, progress=progress)
    elif arguments.manifest:
        # Bytes that are not UTF-8 become surrogates; the lines that contain them are refused.
        with open(arguments.manifest, encoding="utf-8-sig", errors="surrogateescape") as lines:
            report = manifest.register(
                registry,
                lines,
                verify=arguments.verify,
                dry_run=arguments.dry_run,
                progress=progress,
            )
    else:
        report = adopt.adopt(
            registry,
            old_base_urls=arguments.old_base_url,
            verify=arguments.verify,
            dry_run=arguments.dry_run,
            progress=progress,
        )
    return report, FOUND if report.found else CLEAN
