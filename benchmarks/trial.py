"""Contenders take turns, and the ratio within each turn counts."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

# Every figure is a cost (seconds, seconds per upload, bytes), so less is better.
Cost = Callable[[], float]
Show = Callable[[float], str]
Kind = Literal["cost", "speed", "difference", "itself"]


@dataclass(frozen=True)
class Versus:
    """One line of the table: ``contender`` compared with ``base``.

    A cost is divided by that of the base, and a speed is the inverse. The bar is the highest
    cost or the lowest speed. A difference and the contender ``itself`` are not ratios. They
    have the unit of the figures.
    """

    base: str
    contender: str
    kind: Kind = "cost"
    bar: float | None = None


@dataclass(frozen=True)
class Trial:
    """Contenders by name, and the lines that compare them.

    ``note`` and ``failed`` are called at the end.
    """

    contenders: Mapping[str, Cost]
    lines: Sequence[Versus]
    show: Show
    repeat: int
    warm_up: bool = True
    note: Callable[[], str] = str
    failed: Callable[[], object] = bool  # Whether the timed operation has failed.


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


Costs = Mapping[str, Sequence[float]]


def run(trial: Trial, repeat: int | None = None) -> Costs:
    """Each contender's costs, turn by turn."""
    costs: dict[str, list[float]] = {name: [] for name in trial.contenders}
    for turn in range(-1 if trial.warm_up else 0, repeat or trial.repeat):
        # The order alternates, so that both inherit the other's cache and its clean disk.
        names = list(trial.contenders)
        for name in names if turn % 2 else reversed(names):
            os.sync()  # Otherwise, its fsync would write what others left dirty.
            cost = trial.contenders[name]()
            if turn >= 0:
                costs[name].append(cost)
    return costs


def compare(costs: Costs, line: Versus) -> Spread:
    """The median, over the turns, of what the line compares."""
    pairs = zip(costs[line.base], costs[line.contender], strict=True)
    if line.kind == "difference":
        return Spread.of([cost - base for base, cost in pairs])
    if line.kind == "itself":
        return Spread.of(costs[line.contender])
    if line.kind == "speed":
        return Spread.of([base / cost for base, cost in pairs])
    return Spread.of([cost / base for base, cost in pairs])


def reached(spread: Spread, line: Versus) -> bool | None:
    """None if the line has no bar."""
    if line.bar is None:
        return None
    return spread.median >= line.bar if line.kind == "speed" else spread.median <= line.bar
