"""Uploads in several requests, compared with uploads in one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import show
from benchmarks.bench import Bench
from benchmarks.bodies import KIB, MIB
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import kinto
from benchmarks.site import Site
from benchmarks.trial import Trial, Versus

COST = 1.5  # At most, relative to the upload in one request.
CHUNK = 8 * MIB
TINY = 200  # Requests in a turn.


@dataclass(frozen=True)
class Server:
    bench: Bench
    site: Site


@contextmanager
def _local(bench: Bench) -> Iterator[Server]:
    database = bench.postgresql.create_database()
    with kinto(bench.ours, bench.folder("chunks"), database=database) as server:
        yield Server(bench, Site(server).create())


@contextmanager
def _on_s3(bench: Bench) -> Iterator[Server]:
    options: dict[str, Any] = bench.seaweedfs.options(bench.seaweedfs.create_bucket())
    database = bench.postgresql.create_database()
    folder = bench.folder("chunks-s3")
    with kinto(bench.ours, folder, database=database, storage=options) as server:
        yield Server(bench, Site(server).create())


def groups(scale: Scale) -> list[Group[Server]]:
    size = show.size(scale.object)
    rows = [
        Row(f"upload {size} in chunks of {show.size(CHUNK)}", partial(_chunks, scale)),
        Row("PATCH of 1 KiB", partial(_tiny, scale)),
    ]
    return [
        Group("gunicorn, PostgreSQL, chunks", _local, rows),
        Group("gunicorn, PostgreSQL, SeaweedFS, chunks", _on_s3, rows),
    ]


def _chunks(scale: Scale, stand: Server) -> Trial:
    payload = stand.bench.payloads[scale.object]
    return Trial(
        {
            "POST": partial(stand.site.time_large, payload.multipart),
            "chunks": partial(stand.site.time_in_chunks, payload, CHUNK),
        },
        [Versus("POST", "chunks", bar=COST)],
        show.seconds,
        scale.heavy_turns,
    )


def _tiny(scale: Scale, stand: Server) -> Trial:
    """The time for each PATCH, with all requests of an upload in a row on one connection."""
    payload = stand.bench.payloads[TINY * KIB]
    one = stand.bench.payloads[KIB]

    def patch() -> float:
        return stand.site.time_in_chunks(payload, KIB) / TINY

    return Trial(
        {"PUT of 1 KiB": partial(stand.site.time_uploads, one.raw, 20), "PATCH": patch},
        [Versus("PUT of 1 KiB", "PATCH")],
        show.rate,
        scale.turns,
    )
