"""Links that need no credentials: their cost, and downloads by them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from benchmarks import fill, nginx, show
from benchmarks.bench import Bench
from benchmarks.bodies import Payload
from benchmarks.client import BadAnswer, Client
from benchmarks.download import Download
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import kinto
from benchmarks.site import Site
from benchmarks.trial import Trial, Versus

PAGE = 500
REQUESTS, PAGES = 20, 5
BATCH = 3  # Downloads in a row on one connection.
HANDED_OVER = 0.95  # As a share of the speed of nginx.


@dataclass(frozen=True)
class Filled:
    """Two servers: one signs its links itself, the other one returns links presigned by S3."""

    own: Site
    presigned: Site

    def time_page(self, site: Site, query: str) -> float:
        return self._time(site, f"{site.collection}/attachments?_limit={PAGE}{query}", PAGES)

    def time_one(self, site: Site, suffix: str) -> float:
        with site.server.client() as client:
            first = client.expect(200, "GET", f"/v1{site.collection}/attachments?_limit=1")
        return self._time(site, f"{first.json()['data'][0]['record']}{suffix}", REQUESTS)

    def _time(self, site: Site, path: str, requests: int) -> float:
        """The median of several requests in a row on one connection."""
        times = []
        with site.server.client() as client:
            for _ in range(requests):
                started = time.perf_counter()
                client.expect(200, "GET", f"/v1{path}")
                times.append(time.perf_counter() - started)
        return statistics.median(times)


@dataclass(frozen=True)
class Redirected:
    """A download of a record's file that its server redirects to the storage."""

    server: int
    path: str
    size: int

    def time(self) -> float:
        started = time.perf_counter()
        with Client(self.server) as client:
            target = urlsplit(client.expect(302, "GET", self.path).headers["location"])
        assert target.port is not None
        path, host = f"{target.path}?{target.query}", {"Host": target.netloc}  # Host is signed.
        with Client(target.port, authorization="") as storage:
            answer = storage.expect(200, "GET", path, host)
        if answer.size != self.size:
            raise BadAnswer(f"{self.path}: {answer.size} bytes instead of {self.size}")
        return time.perf_counter() - started


@dataclass(frozen=True)
class Downloads:
    """A server behind nginx, which also serves its files, and one on SeaweedFS."""

    bench: Bench
    behind: Site
    nginx: int
    redirecting: Site


@contextmanager
def _lists(bench: Bench) -> Iterator[Filled]:
    storage = bench.seaweedfs.options(bench.seaweedfs.create_bucket())
    urls = [bench.postgresql.create_database() for _ in range(2)]
    with (
        kinto(bench.ours, bench.folder("own"), database=urls[0]) as own,
        kinto(bench.ours, bench.folder("s3"), database=urls[1], storage=storage) as presigned,
    ):
        sites = [Site(server).create() for server in (own, presigned)]
        for url, site in zip(urls, sites, strict=True):
            fill.fill(url, fill.OURS, site.bucket, site.collection, PAGE)
        yield Filled(*sites)


@contextmanager
def _downloads(bench: Bench) -> Iterator[Downloads]:
    nginx.program()  # Fails early if nginx is missing.
    handed = {
        "base_url": f"http://127.0.0.1{nginx.PLAIN}",
        "downloads": f"x-accel-redirect:{nginx.PROTECTED}",
    }
    storage = bench.seaweedfs.options(bench.seaweedfs.create_bucket())
    with (
        kinto(bench.ours, bench.folder("behind"), settings=handed) as behind,
        kinto(bench.ours, bench.folder("redirecting"), storage=storage) as redirecting,
        nginx.nginx(bench.folder("nginx"), behind) as port,
    ):
        yield Downloads(bench, Site(behind).create(), port, Site(redirecting).create())


def groups(scale: Scale) -> list[Group[Filled] | Group[Downloads]]:
    costs = [
        Row("signed link", partial(_one, scale)),
        Row(f"{PAGE} signed links", partial(_many, scale)),
    ]
    size = show.size(scale.object)
    downloads = [
        Row(f"download {size} by signed link", partial(_by_link, scale)),
        Row(f"download {size}, redirected", partial(_redirected, scale)),
    ]
    return [
        Group("gunicorn, PostgreSQL, SeaweedFS", _lists, costs),
        Group("gunicorn, nginx, SeaweedFS", _downloads, downloads),
    ]


def _one(scale: Scale, stand: Filled) -> Trial:
    return Trial(
        {
            "the record": partial(stand.time_one, stand.own, ""),
            "own link": partial(stand.time_one, stand.own, "/attachment/url"),
            "presigned": partial(stand.time_one, stand.presigned, "/attachment/url"),
        },
        [Versus("the record", "own link"), Versus("the record", "presigned")],
        show.seconds,
        scale.turns,
    )


def _many(scale: Scale, stand: Filled) -> Trial:
    return Trial(
        {
            "list": partial(stand.time_page, stand.own, ""),
            "own links": partial(stand.time_page, stand.own, "&_urls=600"),
            "presigned": partial(stand.time_page, stand.presigned, "&_urls=600"),
        },
        [
            Versus("list", "own links", "difference"),
            Versus("list", "presigned", "difference"),
        ],
        show.seconds,
        scale.turns,
    )


def _by_link(scale: Scale, stand: Downloads) -> Trial:
    payload = stand.bench.payloads[scale.object]
    record = stand.behind.uploaded(payload.raw)
    with stand.behind.server.client() as client:
        made = client.expect(200, "GET", f"{record}/attachment/url?expires_in=1h").json()["data"]
    token = urlsplit(made["url"])
    path = f"{token.path}?{token.query}"
    alone = _alone(stand, record, payload)
    linked = Download(stand.nginx, path, payload, authorization="")
    linked.verify()
    name = "own link, X-Accel-Redirect"
    return Trial(
        {"nginx alone": partial(alone.time, BATCH), name: partial(linked.time, BATCH)},
        [Versus("nginx alone", name, "speed", HANDED_OVER)],
        show.seconds,
        scale.turns,
    )


def _redirected(scale: Scale, stand: Downloads) -> Trial:
    """Separate from links, since SeaweedFS still works after a download and would slow them."""
    payload = stand.bench.payloads[scale.object]
    alone = _alone(stand, stand.behind.uploaded(payload.raw), payload)
    path = f"{stand.redirecting.uploaded(payload.raw)}/attachment"
    redirected = Redirected(stand.redirecting.server.port, path, payload.size)
    return Trial(
        {"nginx alone": alone.time, "redirect to SeaweedFS": redirected.time},
        [Versus("nginx alone", "redirect to SeaweedFS", "speed")],
        show.seconds,
        scale.heavy_turns,
    )


def _alone(stand: Downloads, record: str, payload: Payload) -> Download:
    """A download of a record's file from nginx alone."""
    path = stand.behind.location(record)
    alone = Download(stand.nginx, path, payload, authorization="")
    alone.verify()
    return alone
