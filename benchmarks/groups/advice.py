"""What an operator can set, and what it brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from benchmarks import nginx, show
from benchmarks.bench import Bench
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import Kinto, kinto
from benchmarks.site import Crowd, Site
from benchmarks.trial import Trial, Versus

UNBUFFERED = "proxy_request_buffering off; proxy_http_version 1.1;"
RECEIVE = {"recv_bytes": "262144"}  # waitress takes 8 KiB at a time.
CLIENTS, UPLOADS = 16, 20


@dataclass(frozen=True)
class Sites:
    """The same, set in two ways."""

    bench: Bench
    plain: Site
    tuned: Site


def groups(scale: Scale) -> list[Group[Sites]]:
    large, many = f"upload {show.size(scale.large)}", f"uploads per second, {CLIENTS} clients"
    upload = Row(large, partial(_upload, scale))
    crowd = partial(_many, scale)
    return [
        Group("waitress, recv_bytes = 262144", _waitress, [upload]),
        Group("nginx, proxy_request_buffering off", _nginx, [upload]),
        Group("gunicorn, PostgreSQL, 2 workers for 1", _workers, [Row(many, crowd)]),
    ]


@contextmanager
def _waitress(bench: Bench) -> Iterator[Sites]:
    with (
        kinto(bench.ours, bench.folder("plain"), engine="waitress") as plain,
        kinto(bench.ours, bench.folder("tuned"), engine="waitress", waitress=RECEIVE) as tuned,
    ):
        yield Sites(bench, Site(plain).create(), Site(tuned).create())


@contextmanager
def _nginx(bench: Bench) -> Iterator[Sites]:
    nginx.program()  # Before anything is started in vain.
    with (
        kinto(bench.ours, bench.folder("behind")) as behind,
        nginx.nginx(bench.folder("nginx"), behind) as buffered,
        nginx.nginx(bench.folder("nginx"), behind, UNBUFFERED) as unbuffered,
    ):
        Site(behind).create()
        yield Sites(bench, _through(behind, buffered), _through(behind, unbuffered))


def _through(behind: Kinto, port: int) -> Site:
    return Site(replace(behind, port=port))


@contextmanager
def _workers(bench: Bench) -> Iterator[Sites]:
    one, two = bench.postgresql.create_database(), bench.postgresql.create_database()
    with (
        kinto(bench.ours, bench.folder("one"), database=one, workers=1) as plain,
        kinto(bench.ours, bench.folder("two"), database=two, workers=2) as tuned,
    ):
        yield Sites(bench, Site(plain).create(), Site(tuned).create())


def _upload(scale: Scale, stand: Sites) -> Trial:
    body = stand.bench.payloads[scale.large].multipart
    return Trial(
        {
            "as it comes": partial(stand.plain.time_large, body),
            "set": partial(stand.tuned.time_large, body),
        },
        [Versus("as it comes", "set", "speed")],
        show.seconds,
        scale.heavy_turns,
    )


def _many(scale: Scale, stand: Sites) -> Trial:
    body = stand.bench.payloads[scale.small].multipart
    one, two = (Crowd(site, body, CLIENTS, UPLOADS) for site in (stand.plain, stand.tuned))
    return Trial(
        {"as it comes": one.time, "set": two.time},
        [Versus("as it comes", "set", "speed")],
        show.rate,
        scale.heavy_turns,
    )
