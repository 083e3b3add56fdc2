"""The outcome for each file, and reports of outcomes as text or JSON."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Literal

from kinto_attachment.terminal import printable

Result = Literal["uploaded", "downloaded", "deleted", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """``size`` and ``hash`` are those of the uncompressed file.

    ``sent`` is the number of bytes sent over the network; ``why`` is a text for users.
    """

    file: str
    result: Result
    record: str | None = None
    size: int = 0
    hash: str | None = None
    sent: int = 0
    why: str = ""


class Transfer:
    """The display of a current transfer; this base class shows nothing."""

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        """Show the number of transferred bytes, and the total."""


class Report:
    """Prints a line for each outcome, and counts them.

    With ``quiet``, only failures are printed. Failures and notes go to stderr, others to stdout.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.counts: Counter[str] = Counter()
        self.sent = 0
        self._start = time.monotonic()

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.summarize()

    def expect(self, size: int) -> None:
        """Add to the bytes that are to be transferred."""

    def transfer(self, name: str, size: int) -> Transfer:
        """A context manager for a transfer whose ``size`` was announced to :meth:`expect`."""
        return Transfer()

    def show(self, outcome: Outcome) -> None:
        self.counts[outcome.result] += 1
        self.sent += outcome.sent
        if outcome.result == "failed":
            self.note(f"failed: {outcome.file}: {outcome.why}")
        elif not self.quiet:
            details = outcome.why or readable(outcome.size)
            self.line(f"{outcome.result}: {outcome.file} ({details})")

    def summarize(self) -> None:
        if not self.quiet:
            self.line(self.summary())

    def summary(self) -> str:
        counts = ", ".join(f"{count} {result}" for result, count in self.counts.items())
        return f"{counts or 'nothing to do'}; {readable(self.sent)} in {self.seconds():.1f} s"

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def line(self, text: str) -> None:
        print(printable(text), flush=True)

    def note(self, text: str) -> None:
        """Print a message that is neither a result nor an error."""
        print(printable(text), file=sys.stderr, flush=True)


class JsonReport(Report):
    """Prints a JSON object per line: one for each file, and a summary at the end."""

    def show(self, outcome: Outcome) -> None:
        self.counts[outcome.result] += 1
        self.sent += outcome.sent
        if outcome.result == "failed" or not self.quiet:
            print(json.dumps(asdict(outcome)), flush=True)

    def summarize(self) -> None:
        summary = {**self.counts, "sent": self.sent, "seconds": round(self.seconds(), 3)}
        print(json.dumps({"summary": summary}), flush=True)


def readable(size: float) -> str:
    """A size in bytes as a text with units, in powers of 1,000."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
