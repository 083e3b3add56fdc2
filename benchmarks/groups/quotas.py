"""Uploads per second into a bucket and a collection, with and without quotas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import show
from benchmarks.bench import Bench
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import kinto
from benchmarks.site import Crowd, Site
from benchmarks.trial import Trial, Versus

UPLOADS = {1: 40, 16: 20}  # The number of clients, and the uploads of each.
BAR = 0.9
QUOTAS = {"quota_bytes": "100G", "resources.bench.files.quota_bytes": "100G"}


@dataclass(frozen=True)
class Both:
    """The same server twice, with quotas and without."""

    bench: Bench
    counted: Site
    plain: Site


def groups(scale: Scale) -> list[Group[Both]]:
    rows = [
        Row(f"quotas, {clients} clients", partial(_trial, scale, clients)) for clients in UPLOADS
    ]
    return [Group("gunicorn, PostgreSQL, 2 workers", _stand, rows)]


@contextmanager
def _stand(bench: Bench) -> Iterator[Both]:
    def database() -> str:
        return bench.postgresql.create_database()

    with (
        kinto(
            bench.ours,
            bench.folder("counted"),
            database=database(),
            settings=QUOTAS,
            workers=2,
            threads=8,
        ) as counted,
        kinto(
            bench.ours, bench.folder("plain"), database=database(), workers=2, threads=8
        ) as plain,
    ):
        yield Both(bench, Site(counted).create(), Site(plain).create())


def _trial(scale: Scale, clients: int, stand: Both) -> Trial:
    body = stand.bench.payloads[scale.small].multipart
    counted = Crowd(stand.counted, body, clients, UPLOADS[clients])
    plain = Crowd(stand.plain, body, clients, UPLOADS[clients])
    return Trial(
        {"without": plain.time, "quotas": counted.time},
        [Versus("without", "quotas", "speed", BAR)],
        show.rate,
        scale.turns,
        note=lambda: f"{counted.errors} errors in {counted.attempts}",
        failed=lambda: counted.errors + plain.errors > 0,
    )
