"""Run Kinto with attachments, to try it out: ``make serve``.

Files go to a local folder, or to a storage server that runs as long as Kinto does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
STORAGES = {"local": None, "s3": "seaweedfs", "moto": "moto", "gcloud": "gcs"}

WELCOME = """
  Kinto with attachments is running on {url}
  Files are {files}. Records are in memory. Ctrl-C stops it.

  In a browser: {link}

  Attach a file from another terminal:

    curl -u alice:secret -F attachment=@{example} {record}/attachment

  Read the record, then the file:

    curl -u alice:secret {record}
    curl -u alice:secret -L {record}/attachment

  A browser can open the location in the answer, too.
"""
INCLUDES = "kinto.plugins.default_bucket kinto.plugins.admin kinto_attachment"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--storage", choices=STORAGES, default="local")
    parser.add_argument("--admin", type=Path, help="the folder of a build of kinto-admin")
    options = parser.parse_args()
    check_port(options.port)
    with storage(options.storage) as (files, environ):
        url = f"http://127.0.0.1:{options.port}/v1"
        record = f"{url}/buckets/default/collections/docs/records/first"
        example = ROOT / "README.rst"
        link = f"{url}/admin/" if options.admin else f"{url}/"
        shown = {"url": url, "link": link, "files": files, "record": record, "example": example}
        print(WELCOME.format(**shown), flush=True)
        # The locations of files start with this address.
        name = {"KINTO_HTTP_HOST": f"127.0.0.1:{options.port}"}
        return run(options.port, {**name, **admin(options.admin), **environ})


def admin(build: Path | None) -> dict[str, str]:
    """The environment variables with which Kinto serves a build of kinto-admin."""
    if build is None:
        return {}
    return {"KINTO_INCLUDES": INCLUDES, "KINTO_ADMIN_ASSETS_PATH": str(build.resolve())}


def check_port(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        sys.exit(f"Port {port} is in use. Use another one: make serve PORT={port + 1}")


def run(port: int, environ: dict[str, str]) -> int:
    program = str(Path(sys.executable).with_name("kinto"))
    ini = str(Path(__file__).with_name("serve.ini"))
    command = [program, "start", "--ini", ini, "--port", str(port)]
    # Without KINTO_INI, Kinto logs an error at the first request.
    environ = {**os.environ, "KINTO_INI": ini, **environ}
    kinto = subprocess.Popen(command, env=environ)  # noqa: S603
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        return kinto.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        kinto.terminate()
        kinto.wait()


@contextlib.contextmanager
def storage(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """A description of where the files are, and the environment variables for Kinto."""
    service = STORAGES[name]
    if service is None:
        yield f"in {ROOT / 'var' / 'files'}", {}
        return
    from tests.support import services

    with getattr(services, service)() as server:
        bucket = server.create_bucket()
        settings = {"base_path": "", **server.options(bucket)}
        environ = {
            f"KINTO_ATTACHMENT_{option.replace('.', '_').upper()}": value
            for option, value in settings.items()
        }
        if name == "gcloud":
            environ["STORAGE_EMULATOR_HOST"] = server.url
        yield f"in bucket {bucket} of a {name} server that stops too", environ


if __name__ == "__main__":
    sys.exit(main())
