"""The peak memory of a server while it transfers a large file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from benchmarks import show
from benchmarks.bench import Bench
from benchmarks.bodies import MIB, Payload
from benchmarks.download import Download
from benchmarks.memory import peak_over_idle
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import Engine, kinto
from benchmarks.site import Site
from benchmarks.trial import Cost, Trial, Versus
from tests.support.environments import Environment

LIMIT = 32 * MIB
ENGINES: tuple[Engine, ...] = ("gunicorn", "waitress")

# Prepares everything, and returns the function to measure.
Work = Callable[[Site, Payload], Callable[[], object]]


def groups(scale: Scale) -> list[Group[Bench]]:
    return [Group(f"{engine}, memory", nullcontext, _rows(scale, engine)) for engine in ENGINES]


def _rows(scale: Scale, engine: Engine) -> list[Row[Bench]]:
    size = show.size(scale.huge)
    rows = {"upload": _upload, "upload to the default bucket": _default, "download": _download}
    return [
        Row(f"peak memory, {what} {size}", partial(trial, scale, engine))
        for what, trial in rows.items()
    ]


def _upload(scale: Scale, engine: Engine, bench: Bench) -> Trial:
    return _trial(
        {
            "peer": partial(_peak, scale, engine, bench, bench.peer, _post),
            "ours": partial(_peak, scale, engine, bench, bench.ours, _post),
            "ours, PUT": partial(_peak, scale, engine, bench, bench.ours, _put),
        },
        scale.heavy_turns // 2,
    )


def _default(scale: Scale, engine: Engine, bench: Bench) -> Trial:
    bucket = "/buckets/default"
    return _trial(
        {
            "peer": partial(_peak, scale, engine, bench, bench.peer, _post, bucket),
            "ours": partial(_peak, scale, engine, bench, bench.ours, _post, bucket),
        },
        1,
    )


def _download(scale: Scale, engine: Engine, bench: Bench) -> Trial:
    return _trial({"ours": partial(_peak, scale, engine, bench, bench.ours, _get)}, 1)


def _trial(contenders: dict[str, Cost], turns: int) -> Trial:
    base, *others = contenders
    lines = [
        line
        for name in others or [base]
        for line in (Versus(base, name), Versus(base, name, "itself", LIMIT))
        if line.kind == "itself" or name != base
    ]
    return Trial(contenders, lines, show.memory, turns, warm_up=False)


def _peak(
    scale: Scale,
    engine: Engine,
    bench: Bench,
    environment: Environment,
    work: Work,
    bucket: str = "/buckets/bench",
) -> float:
    """The peak of a new server. A second upload would reuse memory of the first one."""
    with kinto(environment, bench.folder("memory"), engine=engine) as server:
        site = Site(server, bucket, f"{bucket}/collections/files").create()
        site.uploaded(bench.payloads[scale.small].multipart)
        return peak_over_idle(server, work(site, bench.payloads[scale.huge]))


def _post(site: Site, payload: Payload) -> Callable[[], object]:
    return partial(site.uploaded, payload.multipart)


def _put(site: Site, payload: Payload) -> Callable[[], object]:
    return partial(site.uploaded, payload.raw)


def _get(site: Site, payload: Payload) -> Callable[[], object]:
    record = site.uploaded(payload.raw)
    return Download(site.server.port, f"{record}/attachment", payload).time
