"""``kinto-attachment versions``: lists the current and the earlier files of a record."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from kinto_attachment.client import one_off
from kinto_attachment.client.arguments import add_collection, add_connection
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.terminal import printable

DESCRIPTION = """\
List the current and the earlier files of a record, newest first: the id of the version, when it
was stored, its size in bytes, whether it is current or kept, and the filename.
"""
EXAMPLES = """\
  %(prog)s --auth alice:secret --collection docs hello
"""


def add_versions_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser, DESCRIPTION, EXAMPLES)
    add_collection(parser)
    parser.add_argument("record", metavar="RECORD", help="id of the record; it may be deleted")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each version")


def versions(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    return one_off.run(arguments, lambda client: _list(client, arguments))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_versions_arguments(parser)
    return versions(parser.parse_args(argv))


def _list(client: AttachmentClient, arguments: argparse.Namespace) -> None:
    for version in client.versions(arguments.record):
        print(printable(json.dumps(version) if arguments.json else _line(version)), flush=True)


def _line(version: dict[str, Any]) -> str:
    stored = datetime.fromtimestamp(version["created"] / 1000, timezone.utc)
    when = stored.strftime("%Y-%m-%dT%H:%M:%SZ")
    what = f"{version['size']}  {version['state']}  {version['filename']}"
    return f"{version['id']}  {when}  {what}"


if __name__ == "__main__":
    sys.exit(main())
