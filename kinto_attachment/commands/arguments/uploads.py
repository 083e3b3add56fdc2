"""The options of ``kinto-attachment uploads``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_place

DESCRIPTION = (
    "List the uploads in several requests that are not finished, and how many "
    "bytes are stored of each. Those that expire are removed by gc."
)
EPILOG = "Exit code: 0 listed; 2 an error."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser)
