"""``kinto-attachment upload``: uploads files and folders, to one record for each file."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import unquote, urlsplit

from kinto_attachment import names
from kinto_attachment.client import command, local_files, lookup, parents
from kinto_attachment.client.arguments import add_options
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.command import Job
from kinto_attachment.client.contents import Content
from kinto_attachment.client.errors import ClientError, NotAllowedError, NotFoundError
from kinto_attachment.client.forms import Progress
from kinto_attachment.client.jobs import Stop
from kinto_attachment.client.local_files import LocalFile
from kinto_attachment.client.lookup import Found
from kinto_attachment.client.outcomes import Outcome, Report, readable
from kinto_attachment.client.sources import BLOCK, Source
from kinto_attachment.http.streams import GzipReader
from kinto_attachment.metadata import Attachment, Original

DESCRIPTION = """\
Upload files to the records of a collection, one record for each file.

The id of the record is the MD5 of the filename, written as a UUID. If this record does not exist,
a record whose attachment has the same filename is used. A second run skips files that have not
changed. The bucket and the collection are created if they do not exist and the user may do so.
A file above 64 MiB is sent in several requests: after an interruption, the same command continues.
"""
EXAMPLES = """\
  %(prog)s --auth alice:secret --collection docs README.rst
  %(prog)s -s https://kinto.example.com/v1 -a alice -b site -c pictures -r -j 4 pictures/
  %(prog)s --auth "Bearer 3fa8" --collection dumps --gzip --json *.csv
"""

RANDOMIZED = """\
The server stores files under random names. The filenames are only in the records. To have them
in the locations too, set in its configuration:
  kinto.attachment.resources.{bucket}.{collection}.randomize = false"""

BATCH = 50  # Files whose records are looked up together.


def add_upload_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, DESCRIPTION, EXAMPLES)
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, or a folder with -r")
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="upload the files in folders"
    )
    parser.add_argument(
        "--force", action="store_true", help="upload files that the server already has, too"
    )
    parser.add_argument(
        "--gzip",
        action="store_true",
        help="compress each file before sending it; the record's `original` describes the file",
    )
    parser.add_argument(
        "--direct",
        action="store_true",
        help="send the bytes to the server's storage, not through the server",
    )
    parser.add_argument(
        "--keep-filenames",
        action="store_true",
        help="warn if the server does not store files under their own names; its setting "
        "`randomize = false` makes it do so",
    )
    parser.add_argument(
        "--mimetype",
        metavar="TYPE",
        help="media type of all files, instead of the ones that belong to their names",
    )


def upload(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    return command.run(arguments, Upload)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_upload_arguments(parser)
    return upload(parser.parse_args(argv))


class Upload:
    """The state of a running command."""

    def __init__(
        self, arguments: argparse.Namespace, client: AttachmentClient, report: Report, stop: Stop
    ) -> None:
        self._arguments = arguments
        self._client = client
        self._report = report
        self._stop = stop
        self._targets: dict[str, LocalFile] = {}
        self._renamed = False

    def plan(self) -> Iterator[Job]:
        found = local_files.find(self._arguments.files, recursive=self._arguments.recursive)
        files = list(dict.fromkeys(found))
        self._report.expect(sum(file.size for file in files))
        parents.create(self._client)
        remaining = iter(files)
        while batch := list(islice(remaining, BATCH)):
            records = self._records([file for file in batch if not file.problem])
            for file in batch:
                yield self._job(file, records.get(file))

    def done(self, outcome: Outcome) -> None:
        pass

    def end(self, *, whole: bool) -> None:
        if self._renamed and self._arguments.keep_filenames:
            for line in RANDOMIZED.format(**vars(self._arguments)).splitlines():
                self._report.note(line)

    def _records(self, files: list[LocalFile]) -> dict[LocalFile, Found]:
        """The records of earlier uploads of the files."""
        ids = {file: lookup.record_id(file.name) for file in files}
        try:
            by_id = lookup.by_id(self._client, ids.values())
            # In folders, many files may have the same name.
            others = {
                file: lookup.sent_name(file.name)
                for file, record_id in ids.items()
                if record_id not in by_id and not file.nested
            }
            by_name = lookup.by_name(self._client, others.values())
        except (NotAllowedError, NotFoundError):  # The user may have no read permission.
            return {}
        found = {file: by_id.get(record_id) for file, record_id in ids.items()}
        found |= {file: by_name.get(name) for file, name in others.items()}
        return {file: record for file, record in found.items() if record is not None}

    def _job(self, file: LocalFile, found: Found | None) -> Job:
        record_id = found["id"] if found else lookup.record_id(file.name)
        problem = file.problem
        if not problem and (other := self._targets.setdefault(record_id, file)) is not file:
            problem = f"{other.path} has the same name, and therefore the same record"
        if problem:
            self._report.expect(-file.size)
            return partial(command.failure, str(file.path), problem)
        work = partial(self._upload, file, record_id, found)
        return command.job(str(file.path), record_id, work)

    def _upload(self, file: LocalFile, record_id: str, found: Found | None) -> Outcome:
        path = str(file.path)
        with Source.of(file.path) as source, self._report.transfer(path, file.size) as transfer:
            outcome = partial(
                Outcome, path, record=record_id, size=source.size, hash=source.sha256
            )
            if not self._arguments.force and _is_there(found, source):
                return outcome(result="skipped", why="already there")

            arrived: list[int] = []  # The bytes that the server had at first, from an earlier run.

            def progress(done: int, total: int) -> None:
                self._stop.check()
                if not arrived:
                    arrived.append(done)
                transfer.progress(done, total)

            size = self._send(file, source, record_id, found, progress)
            before = arrived[0] if arrived else 0
            why = f"continued after {readable(before)}" if before else ""
            return outcome(result="uploaded", sent=size - before, why=why)

    def _send(
        self,
        file: LocalFile,
        source: Source,
        record_id: str,
        found: Found | None,
        progress: Progress,
    ) -> int:
        """Upload the file; returns its size, compressed if it is."""
        name = lookup.sent_name(file.name)
        mimetype = self._arguments.mimetype or names.mimetype(name, None, {})
        with contextlib.ExitStack() as stack:
            data: dict[str, Any] = {"path": file.name} if file.nested else {}
            if self._arguments.gzip:
                original = Original(name, source.sha256, mimetype, source.size)
                data["original"] = asdict(original)
                source = stack.enter_context(_packed(source, self._stop))
                name, mimetype = names.shortened(name, ".gz"), "application/gzip"
            elif found and found.get("original"):
                data["original"] = None  # The file was compressed by the last upload.
            attachment = self._client.upload(
                record_id,
                source,
                data,
                mimetype=mimetype,
                filename=name,
                progress=progress,
                direct=self._arguments.direct,
            )
            self._renamed |= not _keeps_name(attachment, name)
            return source.size


def _is_there(found: Found | None, source: Source) -> bool:
    try:
        inside = Content.of(found or {}).inside
    except ClientError:
        return False
    return (inside.hash, inside.size) == (source.sha256, source.size)


@contextlib.contextmanager
def _packed(source: Source, stop: Stop) -> Iterator[Source]:
    with tempfile.TemporaryFile() as file:
        reader = GzipReader(source.file)
        while chunk := reader.read(BLOCK):
            stop.check()
            file.write(chunk)
        file.seek(0)
        with Source.of(file) as packed:
            yield packed


def _keeps_name(attachment: Attachment, name: str) -> bool:
    """Whether the stored file is named after the uploaded one."""
    stored = unquote(urlsplit(attachment.location).path)
    stem = os.path.splitext(names.safe_name(name))[0]
    return stem in stored.rpartition("/")[2]


if __name__ == "__main__":
    sys.exit(main())
