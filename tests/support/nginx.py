"""nginx with a configuration from the documents."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.services import _reaper, _stopping, _wait

PLACES = "/usr/sbin:/usr/local/sbin"  # Not in every PATH.

CONFIG = """\
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    include /etc/nginx/mime.types;
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""


def program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ['PATH']}:{PLACES}")


@contextlib.contextmanager
def running(folder: Path, server: str, url: str, user: str = "root") -> Iterator[None]:
    """Run nginx under a user, if root runs this, until the end of the ``with`` block.

    ``server`` is the configuration from the documents; it answers ``url`` when it is ready.
    """
    command = program()
    assert command, "nginx is not installed"
    # nginx can change its user only if root starts it.
    user = f"user {user};" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, server=server, user=user))
    errors = folder / "error.log"
    process = subprocess.Popen(
        [command, "-p", f"{folder}", "-e", f"{errors}", "-c", f"{config}"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Its workers would outlive a killed master.
    )
    with _stopping(process), _reaper(-process.pid, "KILL", folder):
        try:
            assert _wait(process, url), errors.read_text()
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
