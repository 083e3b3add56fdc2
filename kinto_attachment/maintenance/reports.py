"""What a command tells about its work: its progress, and a report at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

Progress = Callable[[str, int], None]
"""Called during the work with the name of a step, and how many items it has processed."""


def no_progress(step: str, count: int) -> None:
    """For callers that do not show the progress."""


@dataclass
class Report:
    """Base of the commands' reports: lists are findings, by kind; numbers are statistics."""

    @property
    def found(self) -> bool:
        """Whether there are findings of any kind."""
        return any(value for value in asdict(self).values() if isinstance(value, list))
