"""The progress of a command, and its report at the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol


class Progress(Protocol):
    """Called during the work."""

    def __call__(self, step: str, count: int, total: int | None = None, /) -> None:
        """The name of a step, the number of processed items, and the approximate total."""
        ...


def no_progress(step: str, count: int, total: int | None = None) -> None:
    """For callers that do not show the progress."""


class RecordFinding(dict[str, Any]):
    """A skipped record and the reason: an object in JSON, and a line for people."""

    def __str__(self) -> str:
        return f"{self['record']}: {self['reason']}"


@dataclass
class Report:
    """Base of the commands' reports: lists are findings, by kind; numbers are statistics.

    Lists that are ``for_information`` are not findings.
    """

    for_information: ClassVar[tuple[str, ...]] = ()

    @property
    def found(self) -> bool:
        """Whether there are findings of any kind."""
        return any(
            value
            for name, value in asdict(self).items()
            if isinstance(value, list) and name not in self.for_information
        )
