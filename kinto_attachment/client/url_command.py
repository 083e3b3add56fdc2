"""``kinto-attachment url``: prints a link to a record's file that needs no credentials."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from kinto_attachment.client import one_off
from kinto_attachment.client.arguments import add_collection, add_connection
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.terminal import printable

DESCRIPTION = """\
Print a link to the file of a record. Anybody who has the link can read the file, without
credentials, until it expires.
"""
EXAMPLES = """\
  %(prog)s --auth alice:secret --collection docs hello
  %(prog)s --auth alice:secret --collection docs --expires-in 7d --disposition attachment hello
"""


def add_url_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser, DESCRIPTION, EXAMPLES)
    add_collection(parser)
    parser.add_argument("record", metavar="RECORD", help="id of the record")
    parser.add_argument(
        "--expires-in",
        default="600",
        metavar="TIME",
        help="how long it works: seconds, or 90s, 30m, 1h, 7d",
    )
    parser.add_argument(
        "--disposition",
        choices=("inline", "attachment"),
        help="whether browsers show the file or save it; unset: as the server's settings say",
    )
    parser.add_argument("--filename", metavar="NAME", help="the name to save the file under")
    parser.add_argument(
        "--version", metavar="ID", help="a version of the file, as `versions` prints it"
    )
    parser.add_argument(
        "--json", action="store_true", help="print an object, with the time in ms when it expires"
    )


def url(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    return one_off.run(arguments, lambda client: _url(client, arguments))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_url_arguments(parser)
    return url(parser.parse_args(argv))


def _url(client: AttachmentClient, arguments: argparse.Namespace) -> None:
    made = client.link(
        arguments.record,
        expires_in=arguments.expires_in,
        disposition=arguments.disposition,
        filename=arguments.filename,
        version=arguments.version,
    )
    print(printable(json.dumps(asdict(made)) if arguments.json else made.url))


if __name__ == "__main__":
    sys.exit(main())
