"""Whether the cost of an upload is independent of the number of attachments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import fill, show
from benchmarks.bench import Bench
from benchmarks.bodies import Body
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import kinto
from benchmarks.site import Site
from benchmarks.trial import Trial, Versus

BAR = 1.1
BATCH = 10
OPERATIONS = {
    "upload": Site.time_uploads,
    "replace": Site.time_replaces,
    "delete": Site.time_deletes,
}


@dataclass(frozen=True)
class Filled:
    """A server for each plugin and each number of links."""

    bench: Bench
    sites: Mapping[tuple[str, int], Site]


@contextmanager
def _stand(scale: Scale, bench: Bench) -> Iterator[Filled]:
    sites = {}
    contenders = (("peer", bench.peer, fill.PEER), ("ours", bench.ours, fill.OURS))
    with ExitStack() as stack:
        for name, environment, layout in contenders:
            for count in scale.links:
                url = bench.postgresql.create_database()
                folder = bench.folder("links")
                server = stack.enter_context(kinto(environment, folder, database=url))
                site = Site(server).create()
                fill.fill(url, layout, site.bucket, site.collection, count)
                sites[name, count] = site
        yield Filled(bench, sites)


def groups(scale: Scale) -> list[Group[Filled]]:
    few, *more = scale.links
    rows = [
        Row(
            f"{operation} {show.size(scale.small)}, {few:,} to {more[-1]:,} links",
            partial(_trial, scale, operation),
        )
        for operation in OPERATIONS
    ]
    return [Group("gunicorn, PostgreSQL", partial(_stand, scale), rows)]


def _trial(scale: Scale, operation: str, stand: Filled) -> Trial:
    body: Body = stand.bench.payloads[scale.small].multipart
    few, *more = scale.links
    return Trial(
        {
            f"{name}, {count:,}": partial(OPERATIONS[operation], site, body, BATCH)
            for (name, count), site in stand.sites.items()
        },
        [
            Versus(
                f"{name}, {few:,}",
                f"{name}, {count:,}",
                bar=BAR if name == "ours" and count == more[-1] else None,
            )
            for name in ("peer", "ours")
            for count in more
        ]
        + [Versus(f"peer, {count:,}", f"ours, {count:,}") for count in scale.links],
        show.seconds,
        scale.turns,
    )
