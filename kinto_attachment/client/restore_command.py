"""``kinto-attachment restore``: makes a version the current file of a record."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kinto_attachment.client import one_off
from kinto_attachment.client.arguments import add_collection, add_connection
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.errors import NotFoundError
from kinto_attachment.terminal import printable

DESCRIPTION = """\
Make an earlier file of a record its current one again, without sending the file. VERSION is an id
that `kinto-attachment versions` prints, or the beginning of one. Without it, the newest file other
than the current one is restored, also that of a deleted record.
"""
EXAMPLES = """\
  %(prog)s --auth alice:secret --collection docs hello
  %(prog)s --auth alice:secret --collection docs hello 77ae1f
"""


def add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser, DESCRIPTION, EXAMPLES)
    add_collection(parser)
    parser.add_argument("record", metavar="RECORD", help="id of the record; it may be deleted")
    parser.add_argument("version", metavar="VERSION", nargs="?", help="id of the version")


def restore(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    return one_off.run(arguments, lambda client: _restore(client, arguments))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_restore_arguments(parser)
    return restore(parser.parse_args(argv))


def _restore(client: AttachmentClient, arguments: argparse.Namespace) -> None:
    version = _version(client, arguments.record, arguments.version)
    attachment = client.restore(arguments.record, version)
    print(printable(f"{arguments.record}  {attachment.size}  {attachment.filename}"))


def _version(client: AttachmentClient, record: str, start: str | None) -> str:
    """:raises NotFoundError, ValueError: there is no such version, or several."""
    kept = (version for version in client.versions(record) if version["state"] == "kept")
    if start is None:
        for version in kept:
            return str(version["id"])
        raise NotFoundError(f"{record} has no earlier file")
    every = [each["id"] for each in client.versions(record) if each["id"].startswith(start)]
    if len(every) > 1:
        raise ValueError(f"{len(every)} versions begin with {start}")
    if not every:
        raise NotFoundError(f"No version of {record} begins with {start}")
    return str(every[0])


if __name__ == "__main__":
    sys.exit(main())
