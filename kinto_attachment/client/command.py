"""Running a command: planning jobs, running them in threads, and reporting."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from kinto_attachment.client import jobs
from kinto_attachment.client.arguments import client_of, reporting
from kinto_attachment.client.attachments import AttachmentClient
from kinto_attachment.client.errors import ClientError
from kinto_attachment.client.jobs import Stop
from kinto_attachment.client.outcomes import Outcome, Report
from kinto_attachment.terminal import printable

DONE, FAILED, ERROR, INTERRUPTED = 0, 1, 2, 130

Job = Callable[[], Outcome]


class Command(Protocol):
    def plan(self) -> Iterator[Job]:
        """The jobs, found while earlier ones are running."""
        ...

    def done(self, outcome: Outcome) -> None:
        """Called for each outcome, in the thread that plans."""
        ...

    def end(self, *, whole: bool) -> None:
        """Called at the end; ``whole`` is False if the command was interrupted or failed."""
        ...


CommandFactory = Callable[[argparse.Namespace, AttachmentClient, Report, Stop], Command]


def run(arguments: argparse.Namespace, make: CommandFactory) -> int:
    """Create and run a command; returns its exit code."""
    stop = Stop()
    try:
        with reporting(arguments) as report:
            _work(
                make(arguments, client_of(arguments, stop), report, stop),
                arguments.jobs,
                stop,
                report,
            )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ClientError, OSError, ValueError) as error:
        print(printable(reason(error)), file=sys.stderr)
        return ERROR
    return FAILED if report.counts["failed"] else DONE


def _work(command: Command, threads: int, stop: Stop, report: Report) -> None:
    whole = False
    try:
        with contextlib.closing(jobs.run(command.plan(), threads, stop)) as outcomes:
            for outcome in outcomes:
                report.show(outcome)
                command.done(outcome)
        whole = True
    finally:
        command.end(whole=whole)


def job(name: str, record: str | None, work: Callable[[], Outcome]) -> Job:
    """The work on one file. A failure is an outcome; other jobs continue."""
    return partial(_attempt, name, record, work)


def _attempt(name: str, record: str | None, work: Callable[[], Outcome]) -> Outcome:
    try:
        return work()
    except (ClientError, OSError, ValueError) as error:
        return failure(name, reason(error), record)


def failure(name: str, why: str, record: str | None = None) -> Outcome:
    return Outcome(name, "failed", record, why=why)


def reason(error: Exception) -> str:
    """The reason of an error, without the errno and the path of an OSError."""
    return str(getattr(error, "strerror", None) or error)
