"""The options of ``kinto-attachment uploads``."""

from __future__ import annotations

import argparse

from kinto_attachment.commands.arguments.selections import add_place

DESCRIPTION = (
    "List the unfinished uploads in several requests, with the stored bytes of each. "
    "gc removes those that have expired."
)
EPILOG = "Exit code: 0 the uploads were listed; 2 after an error."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser)
