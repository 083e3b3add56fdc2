"""The options of the commands, one file per command. Nothing here imports a server."""

from __future__ import annotations

import argparse


def add_options_of_all(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ini", required=True, metavar="FILE", help="Kinto's configuration file")
    parser.add_argument("--json", action="store_true", help="print the report as a JSON object")
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="print no progress, and nothing if everything is in order",
    )
    parser.add_argument(
        "--debug", action="store_true", help="print tracebacks and the log of all libraries"
    )
