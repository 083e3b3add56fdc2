"""The options of ``kinto-attachment bundle``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_selection
from kinto_attachment.commands.arguments.writing import add_dry_run

DESCRIPTION = (
    "Store an archive of each collection whose data ask for one, if the collection has changed "
    "since the last one. Clients get it as long as it is fresh, instead of one that is made for "
    "each of them. It can run while the server is running, and again."
)
EPILOG = (
    "Exit code: 0 all bundles are fresh, but for those of collections that did not stop changing; "
    "1 collections with too many files, with files that are missing or damaged, or with data that "
    "are not valid; 2 an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    add_dry_run(parser, "report without storing anything")
