"""``make s3`` and ``make moto`` start a server, and print how to use it in Kinto."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from kinto_attachment.settings import Settings
from tests.support import ROOT, forking, waiting


@pytest.mark.moto
def test_a_server_to_try_things_out_prints_settings() -> None:
    command = [sys.executable, "-m", "tests.support.services", "moto"]
    server = forking.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        lines = [waiting.line_of(server)]
        assert server.stdout is not None
        while lines[-1] and "Ctrl-C" not in lines[-1]:
            lines.append(server.stdout.readline())
        server.send_signal(signal.SIGINT)
        assert server.wait(waiting.SECONDS) == 0
    finally:
        server.kill()
        server.wait(waiting.SECONDS)
        if server.stdout:
            server.stdout.close()
    address = re.fullmatch(
        r"A server at (http://127\.0\.0\.1:\d+) with an empty bucket is running\.\n", lines[0]
    )
    found = dict(
        line.strip().removeprefix("kinto.").split(" = ") for line in lines if " = " in line
    )
    settings = Settings.parse(found)
    assert address
    assert settings["aws.endpoint_url"] == address[1]
    assert settings["aws.bucket_name"]
