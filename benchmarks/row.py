"""A row of the results, and a group of rows that share their servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.bench import Bench
from benchmarks.trial import Trial

Stand = TypeVar("Stand")


@dataclass(frozen=True)
class Row(Generic[Stand]):
    name: str
    trial: Callable[[Stand], Trial]


@dataclass(frozen=True)
class Group(Generic[Stand]):
    """``stand`` starts the servers. It is only called if a row of the group is selected."""

    where: str
    stand: Callable[[Bench], AbstractContextManager[Stand]]
    rows: Sequence[Row[Stand]]
