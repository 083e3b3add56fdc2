"""Uploads per second, of several clients at the same time."""

from __future__ import annotations

from functools import partial

from benchmarks import show
from benchmarks.pair import Pair, pair
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.site import Crowd
from benchmarks.trial import Trial, Versus

UPLOADS = {1: 40, 4: 20, 16: 20, 64: 10}  # The number of clients, and the uploads of each.
BAR = 1.7


def groups(scale: Scale) -> list[Group[Pair]]:
    return [
        Group("gunicorn, memory", pair, _rows(scale, {})),
        Group(
            "gunicorn, PostgreSQL, 2 workers",
            lambda bench: pair(bench, postgresql=True, workers=2, threads=8),
            _rows(scale, {16: BAR, 64: BAR}),
        ),
    ]


def _rows(scale: Scale, bars: dict[int, float]) -> list[Row[Pair]]:
    return [
        Row(
            f"uploads per second, {clients} clients" if clients > 1 else "uploads per second",
            partial(_trial, scale, clients, bars.get(clients)),
        )
        for clients in UPLOADS
    ]


def _trial(scale: Scale, clients: int, bar: float | None, stand: Pair) -> Trial:
    body = stand.bench.payloads[scale.small].multipart
    peer = Crowd(stand.peer, body, clients, UPLOADS[clients])
    ours = Crowd(stand.ours, body, clients, UPLOADS[clients])

    def errors() -> str:
        return ", ".join(
            f"{name}: {crowd.errors} errors in {crowd.attempts}"
            for name, crowd in (("peer", peer), ("ours", ours))
        )

    return Trial(
        {"peer": peer.time, "ours": ours.time},
        [Versus("peer", "ours", "speed", bar)],
        show.rate,
        scale.turns if clients == 1 else scale.heavy_turns,
        note=errors,
        failed=lambda: ours.errors > 0,
    )
