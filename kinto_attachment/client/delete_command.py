"""``kinto-attachment delete``: deletes the files of records, but not the records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial

from kinto_attachment.client import command
from kinto_attachment.client.arguments import add_options
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.command import Job
from kinto_attachment.client.folder import local_folders
from kinto_attachment.client.jobs import Stop
from kinto_attachment.client.outcomes import Outcome, Report

DESCRIPTION = """\
Delete the files of the given records of a collection, or of all its records. The records stay.
"""
EXAMPLES = """\
  %(prog)s --collection docs first second
  %(prog)s -s https://kinto.example.com/v1 -b site -c pictures --all --dry-run
"""


def add_delete_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, DESCRIPTION, EXAMPLES)
    parser.add_argument("records", nargs="*", metavar="RECORD", help="the id of a record")
    parser.add_argument("--all", action="store_true", help="the files of all records")
    parser.add_argument("--dry-run", action="store_true", help="report without deleting anything")


def delete(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    return command.run(arguments, Delete)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_delete_arguments(parser)
    return delete(parser.parse_args(argv))


class Delete:
    """The state of a running command."""

    def __init__(
        self, arguments: argparse.Namespace, client: AttachmentClient, report: Report, stop: Stop
    ) -> None:
        if bool(arguments.records) == arguments.all:
            raise ValueError("Name the records whose files to delete, or use --all")
        self._arguments = arguments
        self._client = client

    def plan(self) -> Iterator[Job]:
        for record in self._records():
            yield command.job(record, record, partial(self._delete, record))

    def done(self, outcome: Outcome) -> None:
        pass

    def end(self, *, whole: bool) -> None:
        pass

    def _records(self) -> Iterator[str]:
        if not self._arguments.all:
            yield from dict.fromkeys(self._arguments.records)
            return
        # All are read first: each deletion moves its record to the end of the list.
        found = list(self._client.records(has_attachment=True, _fields="attachment"))
        yield from (record["id"] for record in found if record.get("attachment") is not None)

    def _delete(self, record: str) -> Outcome:
        found = self._client.kinto.get_record(id=record)["data"]
        content = self._client.content(found)
        attachment = content.stored
        # Files in several folders may have the same filename.
        folders = local_folders(found.get("path"), content.inside.filename)
        name = folders + attachment.filename
        outcome = partial(Outcome, name, record=record, size=attachment.size)
        if self._arguments.dry_run:
            return outcome(result="skipped", hash=attachment.hash, why="would be deleted")
        self._client.remove(record)
        return outcome(result="deleted", hash=attachment.hash)


if __name__ == "__main__":
    sys.exit(main())
