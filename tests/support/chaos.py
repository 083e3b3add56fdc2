"""Break and kill servers for minutes, and look for lost and leaked files: ``make chaos``.

Each trial prints what it did. The run fails if any file is lost, or left after gc.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from kinto_attachment.maintenance import gc as maintenance
from tests.consistency import test_faults, test_links_races
from tests.support import invariants, live, load, races, sampling, services, waiting
from tests.support.interleavings import Orders, at_random

# Longer than any request of the load takes, so that gc can run at the same time.
GRACE = timedelta(seconds=15)
WORKERS, THREADS = 2, 8


@dataclass
class Options:
    seconds: float
    seed: int
    postgresql: services.PostgreSQL
    seaweedfs: services.S3
    folder: Path

    def files(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def storage(self, kind: str) -> dict[str, str]:
        if kind == "local":
            return {"base_path": str(self.files())}
        return self.seaweedfs.options(self.seaweedfs.create_bucket())


Trial = Callable[[Options], Iterator[str]]


def races_of_all_pairs(options: Options) -> Iterator[str]:
    """Every pair of requests, in every order with one switch between them."""
    for keep in ("false", "true"):
        folder = options.files()
        with races.server(options.postgresql, folder, keep_old_files=keep) as app:
            orders = sum(races.meet(app, pair, Orders(preemptions=1)) for pair in races.PAIRS)
        yield f"keep_old_files = {keep}: {len(races.PAIRS)} pairs in {orders} orders"


def races_of_many(options: Options) -> Iterator[str]:
    """Three and four requests at once, in random orders."""
    choose = load.random.Random(options.seed)
    until, count = time.monotonic() + options.seconds, 0
    with races.server(options.postgresql, options.files()) as app:
        while time.monotonic() < until:
            operations = choose.choices(races.OPERATIONS, k=choose.choice((3, 4)))
            orders = [at_random(choose.randrange(2**32)) for _ in range(10)]
            count += races.meet(app, operations, orders)
    yield f"{count} meetings"


def races_on_one_file(options: Options) -> Iterator[str]:
    """Transactions on the index, in every order with two switches between them."""
    with races.server(options.postgresql, options.files()) as app:
        registry = test_links_races.on_memory(app.app.registry)
        for name, case in test_links_races.TWO.items():
            orders = Orders(preemptions=2)
            test_links_races.meet(registry, *case, orders)
            yield f"{name}: {orders.count} orders"


def faults(options: Options) -> Iterator[str]:
    """A failure of each kind at every step of every request, on both storages."""
    for kind in ("local", "seaweedfs"):
        with test_faults.site(options.storage(kind), options.postgresql, options.files()) as site:
            for how in ("error", "bug", "conflict", "kill"):
                steps = sum(
                    test_faults.break_every_step(site, action, how)  # type: ignore[arg-type]
                    for action in test_faults.ACTIONS
                )
                yield f"{kind}, {how}: before and after {steps} steps"


def kills(options: Options) -> Iterator[str]:
    """kill -9 of workers in a loop, under load; then gc."""
    for kind in ("local", "seaweedfs"):
        with loaded(options, kind) as (server, registry, clients):
            with clients.running():
                killed = load.kill_workers(server, after(options.seconds), options.seed)
            yield f"{kind}: {killed} workers killed, {told(clients)}"
            load.wait_for_quiet(registry)
            yield f"{kind}: {settle(registry)}"


def gc_under_load(options: Options) -> Iterator[str]:
    """Two gc at once, again and again, under load."""
    with loaded(options, "local") as (_, registry, clients):
        stop, reports, failures = threading.Event(), [], []

        def collect() -> None:
            while not stop.is_set():
                try:
                    reports.append(maintenance.gc(registry, grace=GRACE, orphan_age=GRACE))
                except Exception as error:  # noqa: BLE001 - reported below.
                    failures.append(error)

        with clients.running():
            collectors = [threading.Thread(target=collect) for _ in range(2)]
            for collector in collectors:
                collector.start()
            time.sleep(options.seconds)
            stop.set()
            for collector in collectors:
                collector.join(waiting.SECONDS)
        yield f"{len(reports)} times gc, {told(clients)}"
        errors = [error for report in reports for error in report.errors]
        missing = [uri for report in reports for uri in report.missing]
        assert not failures + errors, failures + errors
        assert not missing, missing
        yield settle(registry)


def history(options: Options) -> Iterator[str]:
    """With the history plugin, whose entries of one bucket conflict with each other."""
    includes = ["kinto.plugins.history", "tests.support.publishing"]
    with loaded(options, "local", includes) as (_, registry, clients):
        with clients.running():
            time.sleep(options.seconds / 4)
        yield told(clients)
        yield settle(registry)


TRIALS: list[Trial] = [
    races_of_all_pairs,
    races_of_many,
    races_on_one_file,
    faults,
    kills,
    gc_under_load,
    history,
]


@contextlib.contextmanager
def loaded(
    options: Options, kind: str, includes: list[str] | None = None
) -> Iterator[tuple[live.Server, Any, load.Load]]:
    database = options.postgresql.create_database()
    with (
        live.kinto(
            {**options.storage(kind), **load.SETTINGS},
            workers=WORKERS,
            threads=THREADS,
            preload=True,
            database=database,
            includes=includes or ["tests.support.publishing"],
        ) as server,
        invariants.inside(server) as registry,
    ):
        load.prepare(server)
        yield server, registry, load.Load(server, clients=WORKERS * THREADS, seed=options.seed)
    options.postgresql.drop_database(database)


def after(seconds: float) -> Callable[[int], bool]:
    """A condition that is true once this time has passed."""
    until = time.monotonic() + seconds
    return lambda _: time.monotonic() > until


def told(clients: load.Load) -> str:
    return ", ".join(
        f"{count} times {status or 'no answer'}"
        for status, count in sorted(clients.answers.items())
        if count
    )


def settle(registry: Any) -> str:
    lost = invariants.lost(registry)
    assert not lost, lost
    report = invariants.collect(registry)
    lost, left = invariants.lost(registry), invariants.left(registry)
    assert not lost + left, lost + left
    collected = len(report.finished) + len(report.unlinked) + len(report.unfinished)
    return f"none lost of {len(invariants.links(registry))}; gc removed {collected}, none left"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each trial that is timed")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(names())}")
    arguments = parser.parse_args()
    chosen = [trial for trial in TRIALS if trial.__name__ in (arguments.trials or names())]
    if len(chosen) != len(arguments.trials or TRIALS):
        parser.error(f"the trials are {', '.join(names())}")
    logging.disable(logging.CRITICAL)  # Failures are intended.
    sampling.try_every_case()
    warnings.simplefilter("ignore")
    print(f"Seed {arguments.seed}.", flush=True)
    with (
        services.postgresql() as postgresql,
        services.seaweedfs() as seaweedfs,
        tempfile.TemporaryDirectory(prefix="kinto-attachment-chaos-") as folder,
    ):
        options = Options(arguments.seconds, arguments.seed, postgresql, seaweedfs, Path(folder))
        results = [run(trial, options) for trial in chosen]
    print(f"\n{sum(results)} of {len(results)} trials without a file lost or left.")
    return 0 if all(results) else 1


def names() -> list[str]:
    return [trial.__name__ for trial in TRIALS]


def run(trial: Trial, options: Options) -> bool:
    print(f"\n{trial.__name__}: {trial.__doc__}", flush=True)
    started = time.monotonic()
    try:
        for line in trial(options):
            print(f"  {line}", flush=True)
    except Exception:  # noqa: BLE001 - it is printed, and the next trial runs.
        traceback.print_exc(file=sys.stdout)
        print("  FAILED", flush=True)
        return False
    print(f"  {time.monotonic() - started:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
