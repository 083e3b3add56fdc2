"""A large object on an S3 server, through the plugin and directly."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from benchmarks import show
from benchmarks.bench import Bench
from benchmarks.bodies import MIB, Payload
from benchmarks.client import Client, Slice
from benchmarks.download import Download
from benchmarks.memory import peak_over_idle
from benchmarks.row import Group, Row
from benchmarks.scale import Scale
from benchmarks.servers import kinto
from benchmarks.site import Site
from benchmarks.trial import Trial, Versus

UPLOAD, DIRECT, DOWNLOAD = 1.15, 1.1, 1.3  # At most, relative to boto3 alone.
PARALLEL = 4  # Parts that a client sends at a time.
MEMORY = 64 * MIB
KEY = "straight"


class Nowhere:
    """A file that drops what is written to it."""

    def write(self, data: bytes) -> int:
        return len(data)


@dataclass(frozen=True)
class Storage:
    """Our server on an S3 server, and boto3 on the same bucket."""

    bench: Bench
    ours: Site
    client: Any
    bucket: str

    def upload(self, payload: Payload) -> float:
        with payload.file.open("rb") as file:
            started = time.perf_counter()
            self.client.upload_fileobj(file, self.bucket, KEY)
            return time.perf_counter() - started

    def upload_directly(self, payload: Payload) -> float:
        """Seconds until the file is attached, including the time to read it again and hash it."""
        record = self.ours.record()
        file = {"filename": "picture.jpg", "size": payload.size}
        body = json.dumps({"attachment": file}).encode()
        with self.ours.server.client() as client, ThreadPoolExecutor(PARALLEL) as pool:
            started = time.perf_counter()
            headers = {"Content-Type": "application/json"}
            answer = client.expect(201, "POST", f"{record}/attachment/uploads", headers, body)
            list(pool.map(partial(send_part, payload), answer.json()["data"]["parts"]))
            complete = f"{urlsplit(answer.headers['location']).path}/complete"
            while client.expect((201, 202), "POST", complete).status == 202:
                pass
            elapsed = time.perf_counter() - started
            client.expect((200, 204), "DELETE", f"{record}/attachment")
        return elapsed

    def download(self) -> float:
        started = time.perf_counter()
        self.client.download_fileobj(self.bucket, KEY, Nowhere())
        return time.perf_counter() - started


def send_part(payload: Payload, part: dict[str, Any]) -> None:
    url = urlsplit(part["url"])
    content = Slice(payload.file, part["offset"], part["size"])
    with Client(url.port or 80, authorization="") as client:
        headers = {"Host": url.netloc, **part["headers"]}
        client.expect(200, part["method"], f"{url.path}?{url.query}", headers, content)


@contextmanager
def _stand(bench: Bench) -> Iterator[Storage]:
    bucket = bench.seaweedfs.create_bucket()
    options = bench.seaweedfs.options(bucket)
    proxy = {"downloads": "proxy"}
    with kinto(bench.ours, bench.folder("s3"), storage=options, settings=proxy) as server:
        yield Storage(bench, Site(server).create(), bench.seaweedfs.client(), bucket)


def groups(scale: Scale) -> list[Group[Storage]]:
    size = show.size(scale.object)
    rows = [
        Row(f"upload {size}", partial(_upload, scale)),
        Row(f"direct upload of {size}", partial(_direct, scale)),
        Row(f"download {size} by proxy", partial(_download, scale)),
        Row(f"peak memory, upload {size}", partial(_memory, scale)),
    ]
    return [Group("gunicorn, SeaweedFS", _stand, rows)]


def _upload(scale: Scale, stand: Storage) -> Trial:
    payload = stand.bench.payloads[scale.object]
    return Trial(
        {
            "boto3 alone": partial(stand.upload, payload),
            "ours": partial(stand.ours.time_large, payload.multipart),
            "ours, PUT": partial(stand.ours.time_large, payload.raw),
        },
        [Versus("boto3 alone", name, bar=UPLOAD) for name in ("ours", "ours, PUT")],
        show.seconds,
        scale.heavy_turns,
    )


def _direct(scale: Scale, stand: Storage) -> Trial:
    payload = stand.bench.payloads[scale.object]
    return Trial(
        {
            "boto3 alone": partial(stand.upload, payload),
            "ours, direct": partial(stand.upload_directly, payload),
        },
        [Versus("boto3 alone", "ours, direct", bar=DIRECT)],
        show.seconds,
        scale.heavy_turns,
    )


def _download(scale: Scale, stand: Storage) -> Trial:
    payload = stand.bench.payloads[scale.object]
    stand.upload(payload)
    record = stand.ours.uploaded(payload.raw)
    download = Download(stand.ours.server.port, f"{record}/attachment", payload)
    download.verify()
    return Trial(
        {"boto3 alone": stand.download, "ours": download.time},
        [Versus("boto3 alone", "ours", bar=DOWNLOAD)],
        show.seconds,
        scale.heavy_turns,
    )


def _memory(scale: Scale, stand: Storage) -> Trial:
    payload = stand.bench.payloads[scale.object]
    stand.ours.uploaded(stand.bench.payloads[scale.small].raw)
    peak = partial(
        peak_over_idle, stand.ours.server, partial(stand.ours.uploaded, payload.multipart)
    )
    lines = [Versus("ours", "ours", "itself", MEMORY)]
    return Trial({"ours": peak}, lines, show.memory, 1, warm_up=False)
