"""The options of ``kinto-attachment bundle``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_selection
from kinto_attachment.commands.arguments.writing import add_dry_run

DESCRIPTION = (
    "Store an archive of each collection whose data ask for one, if the collection has changed "
    "since the last archive. Clients get it while it is fresh; otherwise, an archive is made for "
    "each request. It can run while the server is running, and can be repeated."
)
EPILOG = (
    "Exit code: 0 all bundles are fresh, except those of collections that kept changing; "
    "1 collections with too many files, missing or damaged files, or invalid data; "
    "2 after an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_dry_run(parser, "report without storing anything")
