"""How both commands run: plan, work in threads, report, and end in order."""

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

DONE, FAILED, INTERRUPTED = 0, 1, 130

Job = Callable[[], Outcome]


class Command(Protocol):
    def plan(self) -> Iterator[Job]:
        """What there is to do, looked up while it is being done."""
        ...

    def done(self, outcome: Outcome) -> None:
        """Called for each outcome, in the thread that plans."""
        ...

    def end(self, *, whole: bool) -> None:
        """Called at last; not ``whole`` when something came between, Ctrl-C for one."""
        ...


Make = Callable[[argparse.Namespace, AttachmentClient, Report, Stop], Command]


def run(arguments: argparse.Namespace, make: Make) -> int:
    """Run the command that ``make`` makes; its exit code."""
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
        print(reason(error), file=sys.stderr)
        return FAILED
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
    """The work on one file, whose failure is an outcome and no reason to stop."""
    return partial(_attempt, name, record, work)


def _attempt(name: str, record: str | None, work: Callable[[], Outcome]) -> Outcome:
    try:
        return work()
    except (ClientError, OSError, ValueError) as error:
        return failure(name, reason(error), record)


def failure(name: str, why: str, record: str | None = None) -> Outcome:
    return Outcome(name, "failed", record, why=why)


def reason(error: Exception) -> str:
    """What went wrong, without Python's numbers and without the path, which is named already."""
    return str(getattr(error, "strerror", None) or error)
