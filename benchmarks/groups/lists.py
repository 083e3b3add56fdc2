"""Pages of the list of a collection's files, at the beginning and at the end of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import fill, show
from benchmarks.bench import Bench
from benchmarks.client import BadAnswer
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import kinto
from benchmarks.site import Site
from benchmarks.trial import Trial, Versus

# As many as are on a page if a client does not say, and as many as a web page may show at once.
PAGES = (500, 100)
REQUESTS = 20
BAR = 0.020  # Seconds.
OLDEST = 1577836800000  # As the records are filled in: one each millisecond from 2020 on.


@dataclass(frozen=True)
class Filled:
    site: Site

    def time(self, path: str, expected: int) -> float:
        """The median of several requests in a row on one connection."""
        times = []
        with self.site.server.client() as client:
            for _ in range(REQUESTS):
                started = time.perf_counter()
                answer = client.expect(200, "GET", f"/v1{self.site.collection}/{path}")
                times.append(time.perf_counter() - started)
        if len(answer.json()["data"]) != expected:
            raise BadAnswer(f"{path}: {len(answer.json()['data'])} items")
        return statistics.median(times)


@contextmanager
def _stand(count: int, bench: Bench) -> Iterator[Filled]:
    url = bench.postgresql.create_database()
    with kinto(bench.ours, bench.folder("lists"), database=url) as server:
        site = Site(server).create()
        fill.fill(url, fill.OURS, site.bucket, site.collection, count)
        yield Filled(site)


def groups(scale: Scale) -> list[Group[Filled]]:
    count = scale.links[-1]
    rows = [Row(f"list {page} of {count:,} files", partial(_trial, scale, page)) for page in PAGES]
    return [Group("gunicorn, PostgreSQL", partial(_stand, count), rows)]


def _trial(scale: Scale, page: int, stand: Filled) -> Trial:
    limit = f"_limit={page}"
    last = f"{limit}&_token={OLDEST + page + 1}"
    return Trial(
        {
            "Kinto's records": partial(stand.time, f"records?{limit}", page),
            "first page": partial(stand.time, f"attachments?{limit}", page),
            "last page": partial(stand.time, f"attachments?{last}", page),
        },
        [
            Versus("Kinto's records", "first page"),
            Versus("Kinto's records", "first page", "itself", BAR),
            Versus("Kinto's records", "last page"),
            Versus("Kinto's records", "last page", "itself", BAR),
        ],
        show.seconds,
        scale.turns,
    )
