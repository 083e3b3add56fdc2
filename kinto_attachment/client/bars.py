"""Progress bars: one for each current transfer, and one for all files."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from kinto_attachment.client.outcomes import Report, Transfer
from kinto_attachment.terminal import printable

NAME_WIDTH = 30
PAUSE = 0.05  # Seconds between updates of a bar.


class BarReport(Report):
    """Prints a line for each completed file, above progress bars."""

    def __init__(self) -> None:
        super().__init__()
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(highlight=False, markup=False, emoji=False),
            transient=True,
        )
        self._all = self.bars.add_task("all files", total=0)
        self._lock = threading.Lock()
        self._done = self._total = 0

    def __enter__(self) -> BarReport:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bars.stop()
        super().__exit__(kind, error, traceback)

    def expect(self, size: int) -> None:
        self.add(0, size)

    def transfer(self, name: str, size: int) -> Transfer:
        return Bar(self, name, size)

    def line(self, text: str) -> None:
        self.bars.console.print(printable(text), soft_wrap=True)

    note = line

    def add(self, done: int, total: int) -> None:
        """Add to the number of transferred bytes, and to the total."""
        with self._lock:
            self._done += done
            self._total += total
            self.bars.update(self._all, completed=self._done, total=self._total)


class Bar(Transfer):
    """The bar of one file, shown from its first bytes to its last."""

    def __init__(self, report: BarReport, name: str, size: int) -> None:
        self._report = report
        self._name = printable(name)
        self._done, self._total = 0, size
        self._task: TaskID | None = None
        self._moved = 0.0

    def __exit__(self, *exc_info: object) -> None:
        # If the file was skipped or failed, its remaining bytes are no longer expected.
        self._move(self._done, self._done)
        if self._task is not None:
            self._report.bars.remove_task(self._task)

    def progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._moved < PAUSE and done < total:
            return
        self._moved = now
        if self._task is None:
            short = self._name[-NAME_WIDTH:]
            self._task = self._report.bars.add_task(short, total=total)
        self._move(done, total)
        self._report.bars.update(self._task, completed=done, total=total)

    def _move(self, done: int, total: int) -> None:
        self._report.add(done - self._done, total - self._total)
        self._done, self._total = done, total
