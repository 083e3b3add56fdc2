"""``kinto-attachment cp``: attaches the file of a record to another record."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kinto_attachment.client import one_off
from kinto_attachment.client.arguments import add_collection, add_connection
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.terminal import printable

DESCRIPTION = """\
Attach the file of the record SOURCE to the record TARGET of a collection, without sending it.
Within a storage, both records share the file. SOURCE is the id of a record of the collection, or
the URI of any record.
"""
EXAMPLES = """\
  %(prog)s --auth alice:secret --collection docs hello greeting
  %(prog)s --auth alice:secret --collection public /buckets/main/collections/drafts/records/r r
"""


def add_cp_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser, DESCRIPTION, EXAMPLES)
    add_collection(parser)
    parser.add_argument("source", metavar="SOURCE", help="id or URI of a record with a file")
    parser.add_argument("target", metavar="TARGET", help="id of the record that gets the file")
    parser.add_argument("--version", metavar="ID", help="copy this version of SOURCE")
    parser.add_argument("--safe", action="store_true", help="TARGET must not exist")


def cp(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    return one_off.run(arguments, lambda client: _copy(client, arguments))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_cp_arguments(parser)
    return cp(parser.parse_args(argv))


def _copy(client: AttachmentClient, arguments: argparse.Namespace) -> None:
    source = arguments.source
    if not source.startswith("/"):
        source = client.kinto.get_endpoint("record", id=source)
    attachment = client.copy_from(
        source, arguments.target, version=arguments.version, safe=arguments.safe
    )
    print(printable(f"{arguments.target}  {attachment.size}  {attachment.filename}"))


if __name__ == "__main__":
    sys.exit(main())
