"""Whether the cost of versions is constant, and the additional cost of keeping files."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import fill, show
from benchmarks.bench import Bench
from benchmarks.bodies import Body
from benchmarks.client import Client
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import kinto
from benchmarks.site import Site
from benchmarks.trial import Trial, Versus

BAR = 1.1
BATCH = 10
VERSIONS = 10  # Of each record.
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Keeping:
    """A server that keeps files, and a record on it with several versions."""

    site: Site
    record: str

    @property
    def versions(self) -> str:
        return f"{self.record}/attachment/versions"

    def time_list(self) -> float:
        return self._each(lambda client, _: client.expect(200, "GET", self.versions))

    def time_restore(self) -> float:
        """The time to restore the oldest version, each time."""
        return self._each(
            lambda client, oldest: client.expect(200, "POST", f"{oldest}/restore", JSON, b"{}")
        )

    def time_replace(self, body: Body) -> float:
        """Each replacement drops the oldest version."""
        return self._each(lambda client, _: self.site.upload(client, body, self.record))

    def _each(self, work: Callable[[Client, str], object]) -> float:
        times = []
        with self.site.server.client() as client:
            for _ in range(BATCH):
                found = client.expect(200, "GET", self.versions).json()["data"]
                oldest = f"{self.versions}/{found[-1]['id']}"
                started = time.perf_counter()
                work(client, oldest)
                times.append(time.perf_counter() - started)
        return statistics.median(times)


@dataclass(frozen=True)
class Stand:
    """A server for each number of files."""

    body: Body
    sites: Mapping[int, Keeping]


@contextmanager
def _stand(scale: Scale, bench: Bench) -> Iterator[Stand]:
    body = bench.payloads[scale.small].multipart
    settings = {"keep_old_files": "true", "max_versions": str(VERSIONS)}
    sites = {}
    with ExitStack() as stack:
        for count in (scale.links[0], scale.links[-1]):
            url = bench.postgresql.create_database()
            folder = bench.folder("versions")
            server = stack.enter_context(
                kinto(bench.ours, folder, database=url, settings=settings)
            )
            site = Site(server).create()
            fill.fill(url, fill.OURS, site.bucket, site.collection, count)
            record = site.record()
            with server.client() as client:
                for _ in range(VERSIONS + 1):
                    site.upload(client, body, record)
            sites[count] = Keeping(site, record)
        yield Stand(body, sites)


def groups(scale: Scale) -> list[Group[Stand]]:
    few, many = scale.links[0], scale.links[-1]
    rows = [
        Row(f"{operation}, {few:,} to {many:,} files", partial(_trial, scale, operation))
        for operation in ("list versions", "restore", "replace and keep")
    ]
    return [Group("gunicorn, PostgreSQL", partial(_stand, scale), rows)]


def _trial(scale: Scale, operation: str, stand: Stand) -> Trial:
    few, many = stand.sites
    return Trial(
        {f"{count:,}": _timed(operation, stand, site) for count, site in stand.sites.items()},
        [Versus(f"{few:,}", f"{many:,}", bar=BAR)],
        show.seconds,
        scale.turns,
    )


def _timed(operation: str, stand: Stand, site: Keeping) -> Callable[[], float]:
    timed: dict[str, Callable[[], float]] = {
        "list versions": site.time_list,
        "restore": site.time_restore,
        "replace and keep": partial(site.time_replace, stand.body),
    }
    return timed[operation]
