"""The first and the last pages of the list of a collection's files."""

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

# The default number of files on a page, and a number that a web page might show at once.
PAGES = (500, 100)
REQUESTS = 20
BAR = 0.020  # In seconds.
OLDEST = 1577836800000  # Records are created one per millisecond, starting in 2020.


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
