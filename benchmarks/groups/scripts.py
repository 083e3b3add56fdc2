"""How much faster ``upload.py`` is with several files at a time."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import show
from benchmarks.bench import Bench
from benchmarks.bodies import KIB
from benchmarks.distance import distance
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import Kinto, kinto
from benchmarks.trial import Trial, Versus

FILES = 500
SIZE = 64 * KIB
JOBS = 4
BAR = 2.5
AWAY = 0.005  # In seconds, each way, as for a server in the same country.

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "upload.py"


@dataclass
class Stand:
    """A server, and the files to upload to it."""

    server: Kinto
    files: Path
    collections: Iterator[int] = field(default_factory=itertools.count)
    cpu: dict[int, tuple[float, float, float]] = field(default_factory=dict)

    def upload(self, jobs: int, port: int) -> float:
        """Seconds to upload all files to a new collection, including the start of the script."""
        command = [
            *(sys.executable, str(SCRIPT), "--quiet", "--recursive", "--jobs", str(jobs)),
            *("--server", f"http://127.0.0.1:{port}/v1", "--auth", "alice:secret"),
            *("--bucket", "scripts", "--collection", f"c{next(self.collections)}"),
            str(self.files),
        ]
        before, start = self._cpu(), time.perf_counter()
        subprocess.run(command, check=True)
        elapsed = time.perf_counter() - start
        server, client = (now - then for now, then in zip(self._cpu(), before, strict=True))
        self.cpu[jobs] = (elapsed, server, client)
        return elapsed

    def _cpu(self) -> tuple[float, float]:
        """The processor time of the server and of finished scripts so far, in seconds."""
        server = sum(sum(worker.cpu_times()[:2]) for worker in self.server.workers())
        ours = resource.getrusage(resource.RUSAGE_CHILDREN)
        return server, ours.ru_utime + ours.ru_stime

    def bound(self) -> str:
        """What limits the fastest run, from the figures of the last turn."""
        elapsed, server, client = self.cpu[JOBS]
        return (
            f"--jobs {JOBS}: server {server:.2f} s and script {client:.2f} s of processor time"
            f" in {elapsed:.2f} s on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )


def groups(scale: Scale) -> list[Group[Stand]]:
    return [
        _group(scale, "gunicorn, memory", {}),
        _group(scale, "gunicorn, PostgreSQL, 2 workers", {"workers": 2, "postgresql": True}),
    ]


def _group(scale: Scale, where: str, options: dict[str, Any]) -> Group[Stand]:
    name = f"upload.py, {FILES} files of {show.size(SIZE)}"
    rows = [
        Row(name, partial(_trial, scale, 0.0)),
        Row(f"{name}, {2 * AWAY * 1000:.0f} ms away", partial(_trial, scale, AWAY)),
    ]
    return Group(where, partial(_stand, **options), rows)


@contextmanager
def _stand(bench: Bench, *, postgresql: bool = False, **options: Any) -> Iterator[Stand]:
    files = bench.folder("files")
    for number in range(FILES):
        (files / f"{number:03}.bin").write_bytes(os.urandom(SIZE))
    database = bench.postgresql.create_database() if postgresql else None
    settings = {"extensions": "any"}
    with kinto(
        bench.ours, bench.folder("scripts"), database=database, settings=settings, **options
    ) as server:
        yield Stand(server, files)


def _trial(scale: Scale, away: float, stand: Stand) -> Trial:
    def time_jobs(jobs: int) -> float:
        with distance(stand.server.port, away) if away else _here(stand.server.port) as port:
            return stand.upload(jobs, port)

    return Trial(
        {"one by one": partial(time_jobs, 1), f"--jobs {JOBS}": partial(time_jobs, JOBS)},
        [Versus("one by one", f"--jobs {JOBS}", "speed", BAR)],
        show.seconds,
        scale.heavy_turns,
        note=stand.bound,
    )


@contextmanager
def _here(port: int) -> Iterator[int]:
    yield port
