"""A cluster of Kinto servers, simulated on one machine: ``make cluster``.

Two servers behind nginx share a PostgreSQL and a SeaweedFS with a master, three volume servers, a
filer and an S3 server. Each file has two copies. Every part is a separate process, to be killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support import live, nginx, services
from tests.support.documents import code_blocks
from tests.support.faults import HOST
from tests.support.services import S3, _folder, _free_port, _program, _reaper, _stopping, _wait

SERVERS, WORKERS, THREADS = 2, 2, 8
VOLUMES = 3
# One more copy of each file, on another server of the same rack.
REPLICATION = "001"

WELCOME = """
  Two Kinto servers are running behind nginx on {url}
  Records are in PostgreSQL, files in a SeaweedFS of {volumes} volume servers. Each file has two
  copies. Ctrl-C stops all of them.

  Attach a file from another terminal:

    curl -u alice:secret -F attachment=@README.rst \\
        {url}/buckets/default/collections/docs/records/first/attachment

  Run a command beside the servers:

    kinto-attachment gc --dry-run --ini {ini}

  Kill a part, and look at what still works:

{parts}
"""


@dataclass(frozen=True)
class ObjectStore:
    """SeaweedFS as several processes; ``volumes`` are those that store the content."""

    s3: S3
    volumes: list[subprocess.Popen[bytes]]


@dataclass(frozen=True)
class Cluster:
    """``url`` is that of nginx, and ends with ``/v1``."""

    url: str
    servers: list[live.Server]
    store: ObjectStore


@contextlib.contextmanager
def cluster(settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Run everything until the end of the ``with`` block; ``settings`` are the plugin's."""
    with contextlib.ExitStack() as stack:
        postgresql = stack.enter_context(services.postgresql())
        store = stack.enter_context(object_store())
        url = f"http://{HOST}:{_free_port()}/v1"
        storage = store.s3.options(store.s3.create_bucket())
        database = postgresql.create_database()
        servers = [
            stack.enter_context(
                live.kinto(
                    {**storage, **(settings or {})},
                    database=database,
                    workers=WORKERS,
                    threads=THREADS,
                    settings={"kinto.http_host": url.split("/")[2]},
                )
            )
            for _ in range(SERVERS)
        ]
        folder = stack.enter_context(_folder("nginx"))
        stack.enter_context(nginx.running(folder, configuration(url, servers), f"{url}/"))
        yield Cluster(url, servers, store)


def configuration(url: str, servers: list[live.Server]) -> str:
    """The configuration in the documents, with the addresses of this cluster."""
    (text,) = code_blocks("docs/cluster.rst", "nginx")
    changed = text.replace("listen 80;", f"listen {url.split('/')[2]};")
    for number, server in enumerate(servers, 1):
        changed = changed.replace(f"10.0.0.1{number}:8000", f"{HOST}:{server.port}")
    return changed


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    master, filer, gateway, *volumes = _ports(3 + VOLUMES)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder("seaweedfs-cluster"))

        def run(name: str, port: int, ready: str, *arguments: str) -> subprocess.Popen[bytes]:
            (folder / name).mkdir()
            command = [_program("weed"), "-logtostderr=true", *arguments, f"-ip.bind={HOST}"]
            environ = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
            return stack.enter_context(
                _process(folder / name, [*command, f"-port={port}"], port, ready, environ)
            )

        run(
            *("master", master, "/cluster/healthz", "master", f"-mdir={folder / 'master'}"),
            *(f"-ip={HOST}", f"-defaultReplication={REPLICATION}", "-telemetry=false"),
        )
        running = [
            run(
                *(f"volume{number}", port, "/healthz", "volume", f"-ip={HOST}", "-rack=r1"),
                *(f"-dir={folder / f'volume{number}'}", "-max=100", f"-master={HOST}:{master}"),
            )
            for number, port in enumerate(volumes, 1)
        ]
        run(
            *("filer", filer, "/healthz", "filer", f"-ip={HOST}", f"-master={HOST}:{master}"),
            *(f"-defaultStoreDir={folder / 'filer'}", f"-defaultReplicaPlacement={REPLICATION}"),
            f"-localSocket={folder / 'filer.sock'}",
        )
        run(
            *("s3", gateway, "/healthz", "s3", "-port.iceberg=0", f"-filer={HOST}:{filer}"),
            f"-localSocket={folder / 's3.sock'}",
        )
        yield ObjectStore(S3(f"http://{HOST}:{gateway}", access_key, secret_key), running)


@contextlib.contextmanager
def _process(
    folder: Path, command: list[str], port: int, ready: str, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a part of the object store, and wait until it answers on the path ``ready``."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder), **environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us: we stop it cleanly.
        )
        with _stopping(process), _reaper(process.pid, "KILL", folder):
            if not _wait(process, f"http://{HOST}:{port}{ready}"):
                text = (folder / "log").read_text("utf-8", "replace")[-4000:]
                raise RuntimeError(f"{command[2]} does not start:\n{text}")
            yield process


def _ports(count: int) -> list[int]:
    """Free ports whose gRPC ports, 10,000 above, are free too."""
    found: list[int] = []
    while len(found) < count:
        # Below the range of ports that the kernel uses for outgoing connections.
        port = random.randrange(11_000, 22_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in (port, port + 10_000):
                stack.enter_context(socket.create_server((HOST, number)))
            found += [port] if port not in found else []
    return found


def main() -> int:
    if nginx.program() is None:
        sys.exit("nginx is not installed (try: apt install nginx).")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with cluster() as running:
        kills = {f"Kinto {server.port}": server.process.pid for server in running.servers}
        kills |= {f"a volume server {p.pid}": p.pid for p in running.store.volumes}
        parts = "\n".join(f"    kill -9 -{pid}  # {name}" for name, pid in kills.items())
        ini = running.servers[0].ini
        print(WELCOME.format(url=running.url, volumes=VOLUMES, ini=ini, parts=parts), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
