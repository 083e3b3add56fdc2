"""The table, on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.trial import Costs, Show, Spread, Trial, Versus, compare, reached

HEADERS = ("What", "Where", "Beside", "takes", "Contender", "takes", "Ratio", "Spread", "Bar", "")
Verdict = Literal["reached", "missed", ""]


@dataclass(frozen=True)
class Line:
    """One line of the table, as text."""

    cells: tuple[str, ...]

    @property
    def missed(self) -> bool:
        return self.cells[-1].startswith("missed")


def lines(what: str, where: str, trial: Trial, costs: Costs) -> list[Line]:
    """The lines for the results of a trial."""
    return [_line(what, where, trial, costs, line) for line in trial.lines]


def failure(what: str, where: str, error: BaseException) -> Line:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:200].replace("|", "/")
    return Line((what, where, *[""] * 7, f"not measured: {text}"))


def _line(what: str, where: str, trial: Trial, costs: Costs, line: Versus) -> Line:
    spread = compare(costs, line)
    shown = _shown(line, trial.show)
    base, contender = (Spread.of(costs[name]).median for name in (line.base, line.contender))
    verdict = reached(spread, line)
    if verdict and trial.failed():
        verdict = False
    remarks = [*([] if verdict is None else ["reached" if verdict else "missed"]), trial.note()]
    return Line(
        (
            what,
            where,
            *(("", "") if line.kind == "itself" else (line.base, trial.show(base))),
            line.contender,
            trial.show(contender),
            shown(spread.median),
            f"{shown(spread.low)} – {shown(spread.high)}",
            _bar(line, shown),
            "; ".join(filter(None, remarks)),
        )
    )


def _shown(line: Versus, show: Show) -> Show:
    if line.kind == "itself":
        return show
    if line.kind == "difference":
        return lambda value: f"{value * 1000:+.2f} ms"
    suffix = "speed" if line.kind == "speed" else "cost"
    return lambda value: f"{value:.2f} × {suffix}" if value >= 0.1 else f"{value:.2g} × {suffix}"


def _bar(line: Versus, shown: Show) -> str:
    if line.bar is None:
        return ""
    return f"{'≥' if line.kind == 'speed' else '≤'} {shown(line.bar)}"


def terminal(table: Iterable[Line]) -> str:
    rows = [HEADERS, *(line.cells for line in table)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADERS) - 1)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def markdown(machine: Sequence[tuple[str, str]], table: Iterable[Line], remarks: str) -> str:
    def row(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join(
        [
            "# Benchmark results",
            "",
            INTRODUCTION,
            "",
            *(f"- {name}: {value}" for name, value in machine),
            "",
            row(HEADERS),
            row("---" for _ in HEADERS),
            *(row(line.cells) for line in table),
            "",
            remarks,
        ]
    )


INTRODUCTION = """\
Written by `python -m benchmarks`. After a warm-up round, contenders take turns (A B A B …). Each
line compares them within each turn: the ratio is the median over the turns, and the spread is its
quartiles. A *cost* is time or memory: less is better. A *speed* is the base's time divided by the
contender's time: more is better. Ours syncs the file and the folder to the disk before it
responds. The peer, the plugin of the same name on PyPI, does not. Absolute figures depend on the
machine and its load. Ratios depend less on them.\
"""
