"""``kinto-attachment download``: downloads the files of a collection to a folder."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kinto_attachment.client import command, lookup
from kinto_attachment.client.arguments import add_options
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.command import Job
from kinto_attachment.client.contents import Content
from kinto_attachment.client.errors import ClientError, ConflictError, NotFoundError
from kinto_attachment.client.folder import Folder
from kinto_attachment.client.jobs import Stop
from kinto_attachment.client.outcomes import Outcome, Report
from kinto_attachment.client.sources import BLOCK
from kinto_attachment.metadata import Attachment, Original

DESCRIPTION = """\
Download the files of a collection's records into a folder, and keep it up to date.

A file with the right hash is skipped, and one with another hash is replaced. The next run only
requests records that changed since then and those that failed, and resumes interrupted
downloads. Compressed files are decompressed. Files of deleted records are kept. Files that
`upload -r` sent from folders are written to folders with the same names.
"""
EXAMPLES = """\
  %(prog)s --auth alice:secret --collection docs -f docs/
  %(prog)s -s https://kinto.example.com/v1 -b site -c pictures -j 4 -f pictures/
  %(prog)s --auth alice:secret --collection docs -f docs/ --since 0
"""


def add_download_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "-f",
        "--folder",
        type=Path,
        default=Path(),
        help="folder for the files (default: the current one)",
    )
    parser.add_argument(
        "--since",
        type=_timestamp,
        metavar="TIMESTAMP",
        help="download records that changed since this time in milliseconds, instead of since "
        "the last run (see FOLDER/.last_sync); 0 means all",
    )


def download(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    return command.run(arguments, Download)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_download_arguments(parser)
    return download(parser.parse_args(argv))


class Download:
    """The state of a running command."""

    def __init__(
        self, arguments: argparse.Namespace, client: AttachmentClient, report: Report, stop: Stop
    ) -> None:
        self._client = client
        self._report = report
        self._stop = stop
        self._folder = Folder(arguments.folder, _source(client))
        last = self._folder.sync.timestamp
        self._since = last if arguments.since is None else arguments.since
        self._timestamp: int | None = None
        self._failed = set(self._folder.sync.failed)

    def plan(self) -> Iterator[Job]:
        seen: set[str] = set()
        for page in self._changes():
            seen.update(record["id"] for record in page)
            yield from self._jobs(page)
        again = lookup.by_id(self._client, sorted(self._failed - seen))
        self._failed &= seen | set(again)  # The others no longer exist.
        yield from self._jobs(again.values())

    def done(self, outcome: Outcome) -> None:
        record = str(outcome.record)
        if outcome.result == "failed":
            self._failed.add(record)
        else:
            self._failed.discard(record)

    def end(self, *, whole: bool) -> None:
        sync = self._folder.sync
        if whole:
            sync.timestamp = self._timestamp
        sync.failed = sorted(self._failed)
        self._folder.save()

    def _changes(self) -> Iterator[list[dict[str, Any]]]:
        filters: dict[str, Any] = {"has_attachment": True, "_fields": lookup.FIELDS}
        since = {"_since": self._since} if self._since else {}
        for page, timestamp in self._client.pages(**filters, **since):
            if self._timestamp is None:
                self._timestamp = timestamp
                if self._since and timestamp < self._since:
                    self._report.note(
                        "The collection was recreated or restored: all records are checked"
                    )
                    self._since = 0
                    yield from self._changes()
                    return
            yield page

    def _jobs(self, records: Iterable[Any]) -> Iterator[Job]:
        jobs = [self._job(record) for record in records if record.get("attachment") is not None]
        yield from jobs

    def _job(self, record: dict[str, Any]) -> Job:
        try:
            content = Content.of(record)
        except ClientError as error:
            return partial(command.failure, record["id"], str(error), record["id"])
        path = self._folder.place(record["id"], content.inside.filename, record.get("path"))
        self._report.expect(content.stored.size)
        work = partial(self._download, record, content, path)
        return command.job(self._name(path), record["id"], work)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder.path).as_posix()

    def _download(self, record: dict[str, Any], content: Content, path: Path) -> Outcome:
        inside = content.inside
        name = self._name(path)
        outcome = partial(Outcome, name, record=record["id"])
        with self._report.transfer(name, content.stored.size) as transfer:
            if _is_there(path, inside):
                why = "already there"
                return outcome(result="skipped", size=inside.size, hash=inside.hash, why=why)

            def progress(done: int, total: int) -> None:
                self._stop.check()
                transfer.progress(done, total)

            path.parent.mkdir(parents=True, exist_ok=True)
            part = self._folder.partial_file(record["id"], content.stored.hash)
            try:
                stored = self._client.download(record, path, progress, partial_file=part)
            except (ConflictError, NotFoundError):
                # The file was replaced after the records were requested.
                content = self._client.content(record["id"])
                inside = content.inside
                stored = self._client.download(record["id"], path, progress)
        return outcome(result="downloaded", size=inside.size, hash=inside.hash, sent=stored.size)


def _source(client: AttachmentClient) -> str:
    """The URL of the collection, with the real id of the default bucket."""
    endpoint = client.kinto.get_endpoint("collection")
    if client.kinto.bucket_name == "default":
        root, _ = client.session.request("get", "/")
        real = root.get("user", {}).get("bucket", "default")
        endpoint = client.kinto.get_endpoint("collection", bucket=real)
    return f"{client.session.server_url.rstrip('/')}{endpoint}"


def _is_there(path: Path, expected: Attachment | Original) -> bool:
    if not path.is_file() or path.stat().st_size != expected.size:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, BLOCK), b""):
            digest.update(chunk)
    return digest.hexdigest() == expected.hash


def _timestamp(text: str) -> int:
    number = int(text.strip('"'))  # It may be copied from an ETag.
    if number < 0:
        raise argparse.ArgumentTypeError("should not be negative")
    return number


if __name__ == "__main__":
    sys.exit(main())
