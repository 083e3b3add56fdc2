"""Deleting a bucket with many attachments."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import fill, show
from benchmarks.bench import Bench
from benchmarks.client import BadAnswer
from benchmarks.fill import Layout
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import kinto
from benchmarks.site import Site
from benchmarks.trial import Trial, Versus
from tests.support.environments import Environment

CONTENT = b"x" * 1024
CALL = 1000  # Keys in one bulk deletion.


@dataclass(frozen=True)
class Filled:
    """A server on which a bucket is filled and deleted repeatedly."""

    site: Site
    database: str
    layout: Layout | None

    def fill(self, count: int) -> None:
        self.site.create()
        fill.fill(self.database, self.layout, self.site.bucket, self.site.collection, count)

    def delete(self) -> float:
        with self.site.server.client() as client:
            started = time.perf_counter()
            client.expect(200, "DELETE", f"/v1{self.site.bucket}")
            return time.perf_counter() - started


@dataclass(frozen=True)
class OnDisk:
    ours: Filled
    peer: Filled
    plain: Filled


@contextmanager
def _on_disk(bench: Bench) -> Iterator[OnDisk]:
    with (
        _filled(bench, bench.ours, fill.OURS) as ours,
        _filled(bench, bench.peer, fill.PEER) as peer,
        _filled(bench, bench.ours, None) as plain,
    ):
        yield OnDisk(ours, peer, plain)


@contextmanager
def _filled(
    bench: Bench, environment: Environment, layout: Layout | None, **options: Any
) -> Iterator[Filled]:
    url = bench.postgresql.create_database()
    with kinto(environment, bench.folder("bucket"), database=url, **options) as server:
        yield Filled(Site(server), url, layout)


@dataclass(frozen=True)
class OnS3:
    ours: Filled
    client: Any
    bucket: str


@contextmanager
def _on_s3(bench: Bench) -> Iterator[OnS3]:
    bucket = bench.seaweedfs.create_bucket()
    storage = bench.seaweedfs.options(bucket)
    with _filled(bench, bench.ours, fill.OURS, storage=storage) as ours:
        yield OnS3(ours, bench.seaweedfs.client(), bucket)


def groups(scale: Scale) -> list[Group[Any]]:
    name = f"delete a bucket of {scale.bucket:,}"
    return [
        Group(
            "gunicorn, PostgreSQL",
            _on_disk,
            [
                Row(name, partial(_disk, scale)),
                Row(f"{name}, synced", partial(_synced, scale)),
            ],
        ),
        Group("gunicorn, PostgreSQL, SeaweedFS", _on_s3, [Row(name, partial(_s3, scale))]),
    ]


def _disk(scale: Scale, stand: OnDisk) -> Trial:
    return Trial(
        {
            "plain records": partial(_delete_plain, stand.plain, scale.bucket),
            "peer": partial(_delete_files, stand.peer, scale.bucket),
            "ours": partial(_delete_files, stand.ours, scale.bucket),
        },
        [Versus("peer", "ours", bar=0.75), Versus("plain records", "ours")],
        show.seconds,
        3,
    )


def _synced(scale: Scale, stand: OnDisk) -> Trial:
    """The same with files that have been synced to the disk."""
    return Trial(
        {
            "peer": partial(_delete_files, stand.peer, scale.bucket, synced=True),
            "ours": partial(_delete_files, stand.ours, scale.bucket, synced=True),
        },
        [Versus("peer", "ours")],
        show.seconds,
        3,
    )


def _delete_plain(filled: Filled, count: int) -> float:
    filled.fill(count)
    return filled.delete()


def _delete_files(filled: Filled, count: int, *, synced: bool = False) -> float:
    folder = filled.site.server.files
    filled.fill(count)
    for number in range(1, count + 1):
        (folder / fill.key(number)).write_bytes(CONTENT)
    if synced:
        os.sync()
    elapsed = filled.delete()
    if left := len(list(folder.rglob("*.jpg"))):
        raise BadAnswer(f"{filled.site.server.name} left {left} files of {count}")
    return elapsed


def _s3(scale: Scale, stand: OnS3) -> Trial:
    return Trial(
        {
            "boto3 alone": partial(_delete_objects, stand, scale.bucket),
            "ours": partial(_delete_attachments, stand, scale.bucket),
        },
        [Versus("boto3 alone", "ours")],
        show.seconds,
        2,
    )


def _put(stand: OnS3, count: int) -> list[str]:
    keys = [fill.key(number) for number in range(1, count + 1)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(
            lambda key: stand.client.put_object(Bucket=stand.bucket, Key=key, Body=CONTENT), keys
        ):
            pass
    return keys


def _delete_objects(stand: OnS3, count: int) -> float:
    keys = _put(stand, count)
    started = time.perf_counter()
    for start in range(0, count, CALL):
        objects = [{"Key": key} for key in keys[start : start + CALL]]
        stand.client.delete_objects(Bucket=stand.bucket, Delete={"Objects": objects})
    return time.perf_counter() - started


def _delete_attachments(stand: OnS3, count: int) -> float:
    _put(stand, count)
    stand.ours.fill(count)
    elapsed = stand.ours.delete()
    if left := stand.client.list_objects_v2(Bucket=stand.bucket).get("KeyCount"):
        raise BadAnswer(f"{left} objects are left")
    return elapsed
