"""The commands in docs/listing.rst work as they are written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.endpoints.test_listing import RIGHTS
from tests.support import live
from tests.support.documents import code_blocks, tables

SERVER = "http://127.0.0.1:8888/v1"


def test_the_commands_work(tmp_path: Path) -> None:
    blocks = code_blocks("docs/listing.rst", "shell")
    assert len(blocks) == 8
    with live.kinto({"base_path": str(tmp_path / "files")}) as server:
        for block in blocks:
            script = block.replace(SERVER, server.url).replace("curl ", "curl -sS --fail ")
            subprocess.run(
                ["sh", "-e", "-c", script],
                cwd=tmp_path,
                env=dict(os.environ),
                check=True,
                timeout=60,
            )
    assert (tmp_path / "docs.zip").read_bytes().count(b"Hello!") == 1


def test_the_table_of_permissions_is_the_one_that_the_tests_have() -> None:
    (rows,) = [rows for head, *rows in tables("docs/listing.rst") if head[0] == "permission"]
    documented = {tuple(map(int, statuses)) for _, *statuses in rows}
    assert documented == {statuses for _, _, statuses in RIGHTS}
