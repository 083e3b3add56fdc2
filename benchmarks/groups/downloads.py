"""The speed of downloads from the server itself and through nginx."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks import nginx, show
from benchmarks.bench import Bench
from benchmarks.download import Download
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import kinto
from benchmarks.site import Site
from benchmarks.trial import Trial, Versus

STREAMED, HANDED_OVER = 0.5, 0.95  # As a share of the speed of nginx.
BATCH = 20
PLAIN = {"base_url": f"http://127.0.0.1{nginx.PLAIN}"}


@dataclass(frozen=True)
class Downloads:
    """Our server on gunicorn, on waitress, and behind nginx, which also serves its files."""

    bench: Bench
    gunicorn: Site
    waitress: Site
    behind: Site
    nginx: int


@contextmanager
def _stand(bench: Bench) -> Iterator[Downloads]:
    nginx.program()  # Fails early if nginx is missing.
    handed = {**PLAIN, "downloads": f"x-accel-redirect:{nginx.PROTECTED}"}
    with (
        kinto(bench.ours, bench.folder("gunicorn")) as gunicorn,
        kinto(bench.ours, bench.folder("waitress"), engine="waitress") as waitress,
        kinto(bench.ours, bench.folder("behind"), settings=handed) as behind,
        nginx.nginx(bench.folder("nginx"), behind) as port,
    ):
        yield Downloads(
            bench,
            gunicorn=Site(gunicorn).create(),
            waitress=Site(waitress).create(),
            behind=Site(behind).create(),
            nginx=port,
        )


def groups(scale: Scale) -> list[Group[Downloads]]:
    huge, medium, small = scale.huge, scale.medium, scale.small
    rows = [
        Row(f"download {show.size(huge)}", partial(_whole, scale)),
        Row(f"download {show.size(medium)} of {show.size(huge)}", partial(_part, scale)),
        Row(f"download {show.size(small)}", partial(_small, scale)),
    ]
    return [Group("gunicorn, waitress, nginx", _stand, rows)]


def _whole(scale: Scale, stand: Downloads) -> Trial:
    return _trial(stand, scale.huge, None, 1, scale.heavy_turns, bars=True)


def _part(scale: Scale, stand: Downloads) -> Trial:
    start = scale.huge // 2
    return _trial(stand, scale.huge, range(start, start + scale.medium), BATCH, scale.turns)


def _small(scale: Scale, stand: Downloads) -> Trial:
    return _trial(stand, scale.small, None, BATCH, scale.turns)


def _trial(
    stand: Downloads, size: int, part: range | None, count: int, turns: int, *, bars: bool = False
) -> Trial:
    payload = stand.bench.payloads[size]
    behind = stand.behind.uploaded(payload.raw)
    downloads = {
        "nginx alone": Download(stand.nginx, stand.behind.location(behind), payload, part),
        "X-Accel-Redirect": Download(stand.nginx, f"{behind}/attachment", payload, part),
    }
    for name, site in (("gunicorn", stand.gunicorn), ("waitress", stand.waitress)):
        path = f"{site.uploaded(payload.raw)}/attachment"
        downloads[name] = Download(site.server.port, path, payload, part)
    for download in downloads.values():
        download.verify()
    limits = {"X-Accel-Redirect": HANDED_OVER, "gunicorn": STREAMED, "waitress": STREAMED}
    return Trial(
        {name: partial(download.time, count) for name, download in downloads.items()},
        [
            Versus("nginx alone", name, "speed", limit if bars else None)
            for name, limit in limits.items()
        ],
        show.seconds,
        turns,
    )
