"""The time of one upload, one replacement and one deletion."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import show
from benchmarks.bodies import Payload
from benchmarks.floors import sink, time_copy, time_synced
from benchmarks.pair import Pair, pair
from benchmarks.processor import time_processor
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import Engine, Kinto
from benchmarks.site import Site
from benchmarks.trial import Cost, Trial, Versus

BATCH = 20  # The number of requests in a turn. Their median counts.
# The bars for a small file, new and replaced, as a share of the peer's time.
MEMORY, POSTGRESQL = (1.0, 1.1), (0.65, 0.7)


def groups(scale: Scale) -> list[Group[Pair]]:
    single = {"workers": 1, "threads": 8}
    both = {"workers": 2, "threads": 8, "postgresql": True}
    return [
        _group("gunicorn, memory", [*_small(scale, *MEMORY), *_large(scale, "gunicorn")], single),
        _group("gunicorn, PostgreSQL", _small(scale, *POSTGRESQL), both),
        _group(
            "waitress, memory",
            [*_small(scale, *MEMORY), *_large(scale, "waitress")],
            {"engine": "waitress"},
        ),
    ]


def _group(where: str, rows: list[Row[Pair]], options: dict[str, Any]) -> Group[Pair]:
    return Group(where, lambda bench: pair(bench, **options), rows)


def _small(scale: Scale, new: float, replaced: float) -> list[Row[Pair]]:
    name = show.size(scale.small)
    return [
        Row(f"upload {name}", partial(_new, scale, new)),
        Row(f"upload {name} beside a plain record", partial(_beside_record, scale)),
        Row(f"replace {name}", partial(_replace, scale, replaced)),
        Row(f"delete {name}", partial(_delete, scale)),
        Row(f"processor time, upload {name}", partial(_processor, scale, _upload_small)),
        Row(f"processor time, replace {name}", partial(_processor, scale, _replace_small)),
    ]


def _large(scale: Scale, engine: Engine) -> list[Row[Pair]]:
    # The lowest speed relative to the peer, or the highest cost relative to the floor.
    bars = {
        ("gunicorn", scale.huge): (6.0, 1.6),
        ("waitress", scale.large): (4.0, None),
    }
    return [
        Row(
            f"upload {show.size(size)}",
            partial(_upload, scale, engine, size, *bars.get((engine, size), (None, None))),
        )
        for size in (scale.medium, scale.large, scale.huge)
    ]


def _new(scale: Scale, bar: float, stand: Pair) -> Trial:
    payload = stand.bench.payloads[scale.small]
    return _times(
        scale,
        {
            "peer": partial(stand.peer.time_uploads, payload.multipart, BATCH),
            "ours": partial(stand.ours.time_uploads, payload.multipart, BATCH),
            "ours, PUT": partial(stand.ours.time_uploads, payload.raw, BATCH),
            # Every durable upload through Kinto includes this.
            "plain record": partial(stand.peer.time_records, BATCH),
        },
        [
            Versus("peer", "ours", bar=bar),
            Versus("peer", "ours, PUT", bar=bar),
            Versus("peer", "plain record"),
        ],
    )


def _beside_record(scale: Scale, stand: Pair) -> Trial:
    payload = stand.bench.payloads[scale.small]
    folder = stand.bench.folder("synced")
    return _times(
        scale,
        {
            "plain record": partial(stand.ours.time_records, BATCH),
            "ours": partial(stand.ours.time_uploads, payload.multipart, BATCH),
            "write and sync": partial(time_synced, payload.file.read_bytes(), folder, BATCH),
            "client alone": partial(_client_alone, stand, payload, BATCH),
        },
        [
            Versus("plain record", "ours", "difference", bar=1.3e-3),
            Versus("plain record", "ours"),
            Versus("ours", "write and sync"),
            Versus("ours", "client alone"),
        ],
    )


def _replace(scale: Scale, bar: float, stand: Pair) -> Trial:
    payload = stand.bench.payloads[scale.small]
    return _times(
        scale,
        {
            "peer": partial(stand.peer.time_replaces, payload.multipart, BATCH),
            "ours": partial(stand.ours.time_replaces, payload.multipart, BATCH),
        },
        [Versus("peer", "ours", bar=bar)],
    )


def _delete(scale: Scale, stand: Pair) -> Trial:
    payload = stand.bench.payloads[scale.small]
    return _times(
        scale,
        {
            "peer": partial(stand.peer.time_deletes, payload.multipart, BATCH),
            "ours": partial(stand.ours.time_deletes, payload.multipart, BATCH),
        },
        [Versus("peer", "ours")],
    )


def _upload_small(site: Site, payload: Payload) -> object:
    return site.time_uploads(payload.multipart, BATCH)


def _replace_small(site: Site, payload: Payload) -> object:
    return site.time_replaces(payload.multipart, BATCH)


def _processor(scale: Scale, work: Callable[[Site, Payload], object], stand: Pair) -> Trial:
    payload = stand.bench.payloads[scale.small]

    def cost(site: Site) -> Cost:
        database = stand.bench.postgresql if stand.on_postgresql else None
        upload = partial(work, site, payload)
        return partial(time_processor, site.server, database, upload, BATCH)

    contenders = {"peer": cost(stand.peer), "ours": cost(stand.ours)}
    return _times(scale, contenders, [Versus("peer", "ours")])


def _times(scale: Scale, contenders: dict[str, Cost], lines: list[Versus]) -> Trial:
    return Trial(contenders, lines, show.seconds, scale.turns)


def _upload(
    scale: Scale, engine: Engine, size: int, speed: float | None, cost: float | None, stand: Pair
) -> Trial:
    payload = stand.bench.payloads[size]
    floor = stand.bench.folder("floor")
    contenders = {
        "peer": partial(stand.peer.time_large, payload.multipart),
        "ours": partial(stand.ours.time_large, payload.multipart),
        "ours, PUT": partial(stand.ours.time_large, payload.raw),
        "sha256sum+cp+sync": partial(time_copy, payload.file, floor),
        "client alone": partial(_client_alone, stand, payload, 1),
    }
    lines = [
        Versus("peer", "ours", "speed", bar=speed),
        Versus("peer", "ours, PUT", "speed", bar=speed),
        Versus("sha256sum+cp+sync", "ours", bar=cost),
        Versus("sha256sum+cp+sync", "ours, PUT", bar=cost),
        Versus("ours", "client alone"),
    ]
    if engine == "waitress":  # It reads the whole body before it calls the application.
        contenders["waitress alone"] = partial(stand.ours.time_received, payload.multipart)
        lines.append(Versus("ours", "waitress alone"))
    turns = scale.turns if size < scale.large else scale.heavy_turns
    return Trial(contenders, lines, show.seconds, turns)


def _client_alone(stand: Pair, payload: Payload, count: int) -> float:
    """The same uploads to a server that drops them."""
    with sink() as port:
        ours = stand.ours.server
        nowhere = Kinto("sink", port, ours.folder, ours.files, ours.process)
        return Site(nowhere).time_uploads(payload.multipart, count)
