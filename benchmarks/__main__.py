"""Run the benchmarks, print the results as a table, and write them to a file."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, report, trial
from benchmarks.bench import Bench, bench
from benchmarks.groups import every
from benchmarks.report import Line
from benchmarks.row import Group
from benchmarks.scale import FULL, QUICK

RESULTS = Path(__file__).with_name("RESULTS.md")
NOTES = Path(__file__).with_name("NOTES.md")


def main() -> int:
    options = _options()
    # On SIGTERM, the servers are stopped, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    groups = every(QUICK if options.quick else FULL)
    wanted = re.compile(options.rows, re.IGNORECASE)
    if options.list:
        print("\n".join(f"{group.where}: {row.name}" for group in groups for row in group.rows))
        return 0
    table: list[Line] = []
    with bench() as tools:
        facts = machine.describe(tools.peer)
        print("\n".join(f"{name}: {value}" for name, value in facts), flush=True)
        for group in groups:
            table += _measure(group, wanted, tools, options.repeat)
    load = " ".join(f"{load:.2f}" for load in os.getloadavg())
    facts.append(("Load average at the end", load))
    print(f"\n{report.terminal(table)}")
    if options.output:
        notes = NOTES.read_text("utf-8") if NOTES.exists() else ""
        options.output.write_text(report.markdown(facts, table, notes), "utf-8")
        print(f"\nWritten to {options.output}")
    return 0


def _measure(
    group: Group[Any], wanted: re.Pattern[str], tools: Bench, repeat: int | None
) -> list[Line]:
    rows = [row for row in group.rows if wanted.search(f"{group.where}: {row.name}")]
    if not rows:
        return []
    lines = []
    try:
        with group.stand(tools) as stand:
            for row in rows:
                started = time.monotonic()
                try:
                    it = row.trial(stand)
                    found = report.lines(row.name, group.where, it, trial.run(it, repeat))
                except Exception as error:  # noqa: BLE001  A failing row must not end the others.
                    found = [report.failure(row.name, group.where, error)]
                lines += found
                elapsed = time.monotonic() - started
                print(f"\n{group.where}: {row.name} ({elapsed:.0f} s)")
                print(report.terminal(found), flush=True)
    except Exception as error:  # noqa: BLE001
        print(f"\n{group.where}: {error}", flush=True)
        done = len({line.cells[0] for line in lines})
        lines += [report.failure(row.name, group.where, error) for row in rows[done:]]
    return lines


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rows",
        metavar="PATTERN",
        default="",
        help="run only rows whose 'WHERE: WHAT' (see --list) matches this regular expression",
    )
    parser.add_argument("--quick", action="store_true", help="use smaller sizes and fewer turns")
    parser.add_argument("--repeat", type=int, metavar="N", help="number of turns for each row")
    parser.add_argument("--list", action="store_true", help="print the rows and exit")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"write the results to this file (default for all rows: {RESULTS.name})",
    )
    options = parser.parse_args()
    if not (options.rows or options.quick or options.repeat or options.output):
        options.output = RESULTS
    return options


if __name__ == "__main__":
    sys.exit(main())
