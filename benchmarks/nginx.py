"""nginx, in front of our server and as the floor for downloads."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.servers import Kinto, Missing, free_port, running, wait

CONFIG = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /plain/ {{ alias {files}/; }}
    location /protected/ {{ internal; alias {files}/; }}
    location / {{ proxy_pass http://127.0.0.1:{behind}; {proxy} }}
  }}
}}
"""
PROTECTED = "/protected/"
PLAIN = "/plain/"


@contextlib.contextmanager
def nginx(folder: Path, behind: Kinto, proxy: str = "") -> Iterator[int]:
    """The port of an nginx before a server. It also serves the server's files under ``PLAIN``.

    ``proxy`` has more directives for proxied requests. Raises ``Missing`` without nginx.
    """
    command = [program(), "-p", str(folder), "-e", f"{folder}/error.log"]
    folder.mkdir(exist_ok=True)
    port = free_port()
    config = folder / "nginx.conf"
    # If started by root, its workers are another user, who cannot read a temporary folder.
    user = "user root;" if os.geteuid() == 0 else ""
    ports = {"port": port, "behind": behind.port}
    config.write_text(
        CONFIG.format(folder=folder, files=behind.files, user=user, proxy=proxy, **ports)
    )
    with running([*command, "-c", str(config)], folder) as process:
        wait(Kinto("nginx", port, folder, behind.files, process))
        yield port


def program() -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = shutil.which("nginx", path=path)
    if not found:
        raise Missing("nginx is not installed")
    return found
