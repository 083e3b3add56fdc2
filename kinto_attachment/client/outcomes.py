"""What became of each file, and how to say so: in lines, in JSON."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Literal

REPLACED = "\N{REPLACEMENT CHARACTER}"

Result = Literal["uploaded", "downloaded", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """``size`` and ``hash`` are those of the file itself, whatever was compressed on the way.

    ``sent`` is the number of bytes that went over the network, ``why`` is for people.
    """

    file: str
    result: Result
    record: str | None = None
    size: int = 0
    hash: str | None = None
    sent: int = 0
    why: str = ""


class Transfer:
    """A file on its way; what is shown of it, where something is."""

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        """Bytes so far, of all that are to be sent."""


class Report:
    """Says what becomes of each file in a line of its own, and counts.

    With ``quiet``, only failures. Failures and notes go to stderr, the rest to stdout.
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
        """So many more bytes are to be transferred."""

    def transfer(self, name: str, size: int) -> Transfer:
        """To be entered while a file of ``size`` bytes, which were expected, is transferred."""
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
        """Something that should be known, though nothing failed."""
        print(printable(text), file=sys.stderr, flush=True)


class JsonReport(Report):
    """An object per line: one for each file, and a last one that sums up."""

    def show(self, outcome: Outcome) -> None:
        self.counts[outcome.result] += 1
        self.sent += outcome.sent
        if outcome.result == "failed" or not self.quiet:
            print(json.dumps(asdict(outcome)), flush=True)

    def summarize(self) -> None:
        summary = {**self.counts, "sent": self.sent, "seconds": round(self.seconds(), 3)}
        print(json.dumps({"summary": summary}), flush=True)


def printable(text: str) -> str:
    """Without what a terminal would obey: a file's name may be anybody's."""
    return "".join(c if c.isprintable() else REPLACED for c in text)


def readable(size: float) -> str:
    """A size in bytes, for people: powers of 1,000."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
