"""The settings that an operator can change, and what they gain."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from benchmarks import nginx, show
from benchmarks.bench import Bench
from benchmarks.bodies import MIB, Body
from benchmarks.distance import distance
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import Kinto, kinto
from benchmarks.site import Crowd, Site
from benchmarks.trial import Trial, Versus
from tests.support.faults import HOST

UNBUFFERED = "proxy_request_buffering off; proxy_http_version 1.1;"
RECEIVE = {"recv_bytes": "262144"}  # waitress takes 8 KiB at a time.
ON_WAITRESS = 4.0  # As a multiple of the peer's speed.
AWAY = 0.02  # In seconds, each way.
PART_SIZE = 32 * MIB  # The default is 8 MiB.
CLIENTS, UPLOADS = 16, 20
FEW_THREADS, THREADS = 4, 16
SLOW_CLIENTS, SLOW = 8, 0.5  # The seconds that each body takes to arrive.


@dataclass(frozen=True)
class Sites:
    """The same site with two configurations, and the peer with the second one if it is needed."""

    bench: Bench
    plain: Site
    tuned: Site
    peer: Site | None = None


def groups(scale: Scale) -> list[Group[Sites]]:
    large, many = f"upload {show.size(scale.large)}", f"uploads per second, {CLIENTS} clients"
    upload = Row(large, partial(_upload, scale))
    crowd = partial(_many, scale)
    return [
        Group("waitress, recv_bytes = 262144", _waitress, [upload]),
        Group("nginx, proxy_request_buffering off", _nginx, [upload]),
        Group(
            f"gunicorn, SeaweedFS 40 ms away, aws.part_size = {PART_SIZE}",
            _parts,
            [Row(f"upload {show.size(scale.object)}", partial(_object, scale))],
        ),
        Group("gunicorn, PostgreSQL, 2 workers for 1", _workers, [Row(many, crowd)]),
        Group(
            f"gunicorn, memory, {THREADS} threads for {FEW_THREADS}",
            _threads,
            [
                Row(
                    f"plain record while {SLOW_CLIENTS} slow uploads come in",
                    partial(_slow, scale),
                )
            ],
        ),
    ]


@contextmanager
def _waitress(bench: Bench) -> Iterator[Sites]:
    with (
        kinto(bench.ours, bench.folder("plain"), engine="waitress") as plain,
        kinto(bench.ours, bench.folder("tuned"), engine="waitress", waitress=RECEIVE) as tuned,
        kinto(bench.peer, bench.folder("peer"), engine="waitress", waitress=RECEIVE) as peer,
    ):
        yield Sites(bench, Site(plain).create(), Site(tuned).create(), Site(peer).create())


@contextmanager
def _nginx(bench: Bench) -> Iterator[Sites]:
    nginx.program()  # Fails early if nginx is missing.
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
def _parts(bench: Bench) -> Iterator[Sites]:
    server = bench.seaweedfs
    bucket = server.create_bucket()
    with distance(server.address[1], AWAY) as port:
        options = {**server.options(bucket), "aws.endpoint_url": f"http://{HOST}:{port}"}
        with _sites(bench, options, {**options, "aws.part_size": str(PART_SIZE)}) as sites:
            yield sites


@contextmanager
def _sites(
    bench: Bench, options: Mapping[str, str], changed: Mapping[str, str]
) -> Iterator[Sites]:
    with (
        kinto(bench.ours, bench.folder("plain"), storage=options) as plain,
        kinto(bench.ours, bench.folder("tuned"), storage=changed) as tuned,
    ):
        yield Sites(bench, Site(plain).create(), Site(tuned).create())


@contextmanager
def _workers(bench: Bench) -> Iterator[Sites]:
    one, two = bench.postgresql.create_database(), bench.postgresql.create_database()
    with (
        kinto(bench.ours, bench.folder("one"), database=one, workers=1) as plain,
        kinto(bench.ours, bench.folder("two"), database=two, workers=2) as tuned,
    ):
        yield Sites(bench, Site(plain).create(), Site(tuned).create())


@contextmanager
def _threads(bench: Bench) -> Iterator[Sites]:
    with (
        kinto(bench.ours, bench.folder("few"), threads=FEW_THREADS) as plain,
        kinto(bench.ours, bench.folder("more"), threads=THREADS) as tuned,
    ):
        yield Sites(bench, Site(plain).create(), Site(tuned).create())


def _upload(scale: Scale, stand: Sites) -> Trial:
    return _uploads(scale, stand, stand.bench.payloads[scale.large].multipart)


def _object(scale: Scale, stand: Sites) -> Trial:
    return _uploads(scale, stand, stand.bench.payloads[scale.object].multipart)


def _uploads(scale: Scale, stand: Sites, body: Body) -> Trial:
    contenders = {
        "as it comes": partial(stand.plain.time_large, body),
        "set": partial(stand.tuned.time_large, body),
    }
    lines = [Versus("as it comes", "set", "speed")]
    if stand.peer is not None:
        contenders["peer, set"] = partial(stand.peer.time_large, body)
        lines.append(Versus("peer, set", "set", "speed", ON_WAITRESS))
    return Trial(contenders, lines, show.seconds, scale.heavy_turns)


def _many(scale: Scale, stand: Sites) -> Trial:
    body = stand.bench.payloads[scale.small].multipart
    one, two = (Crowd(site, body, CLIENTS, UPLOADS) for site in (stand.plain, stand.tuned))
    return Trial(
        {"as it comes": one.time, "set": two.time},
        [Versus("as it comes", "set", "speed")],
        show.rate,
        scale.heavy_turns,
    )


def _slow(scale: Scale, stand: Sites) -> Trial:
    body = stand.bench.payloads[scale.small].multipart
    return Trial(
        {
            "as it comes": partial(_beside_slow, stand.plain, body),
            "set": partial(_beside_slow, stand.tuned, body),
        },
        [Versus("as it comes", "set", "speed")],
        show.seconds,
        scale.heavy_turns,
    )


def _beside_slow(site: Site, body: Body) -> float:
    with ThreadPoolExecutor(SLOW_CLIENTS) as pool:
        uploads = [
            pool.submit(Crowd(site, body, clients=1, uploads=1, seconds=SLOW).time)
            for _ in range(SLOW_CLIENTS)
        ]
        time.sleep(SLOW / 10)  # By now, all heads have been sent.
        taken = site.time_records(1)
        for upload in uploads:
            upload.result()
    return taken
