"""Our server and the peer's, which differ only in the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.bench import Bench
from benchmarks.servers import kinto
from benchmarks.site import Site


@dataclass(frozen=True)
class Pair:
    bench: Bench
    ours: Site
    peer: Site
    on_postgresql: bool = False


@contextmanager
def pair(bench: Bench, *, postgresql: bool = False, **options: Any) -> Iterator[Pair]:
    """``options`` are those of ``servers.kinto``."""

    def database() -> str | None:
        return bench.postgresql.create_database() if postgresql else None

    with (
        kinto(bench.ours, bench.folder("ours"), database=database(), **options) as ours,
        kinto(bench.peer, bench.folder("peer"), database=database(), **options) as peer,
    ):
        yield Pair(bench, Site(ours).create(), Site(peer).create(), postgresql)
