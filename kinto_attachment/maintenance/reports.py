"""What a command tells about its work: its progress, and a report at the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol


class Progress(Protocol):
    """Called during the work."""

    def __call__(self, step: str, count: int, total: int | None = None, /) -> None:
        """The name of a step, how many items it has processed, and of about how many."""
        ...


def no_progress(step: str, count: int, total: int | None = None) -> None:
    """For callers that do not show the progress."""


@dataclass
class Report:
    """Base of the commands' reports: lists are findings, by kind; numbers are statistics."""

    @property
    def found(self) -> bool:
        """Whether there are findings of any kind."""
        return any(value for value in asdict(self).values() if isinstance(value, list))
