"""The commands for operators in the documents work as they are written, on a small site."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pyramid.threadlocal import manager

from kinto_attachment import cli
from kinto_attachment.maintenance import application
from tests.docs.test_documents import DOCUMENTS
from tests.maintenance.test_adopt import configured
from tests.support import ROOT
from tests.support.application import ALICE, attach, put_collection
from tests.support.backends import ON_POSTGRESQL, Build
from tests.support.documents import code_blocks

FILES = "https://files.example.com/"
HELD = "/buckets/main/collections/docs/records/hello"


def commands() -> list[str]:
    """The commands in examples and in sentences."""
    blocks = [
        re.sub(r" \| .*", "", " ".join(line.split()))
        for name in DOCUMENTS
        for block in code_blocks(name, "shell")
        for line in block.replace("\\\n", " ").splitlines()
        # A move leaves a copy until it is certain that nothing reads it.
        if re.match(r"kinto-attachment (?!move)[\w-]+ .*--ini", line)
    ]
    text = "".join((ROOT / name).read_text("utf-8") for name in DOCUMENTS)
    inline = re.findall(r"``(kinto-attachment [\w-]+(?: --\S+)* --ini kinto\.ini)``", text)
    assert len(blocks) >= 12
    assert len(inline) >= 4
    return sorted({*blocks, *inline})


@pytest.fixture
def in_the_folder(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A site with the held file that the examples name, and the folder of its configuration."""
    app = build(base_url=FILES)
    put_collection(app, HELD.rpartition("/records/")[0])
    attach(app, HELD)
    hold = {"data": {"until": None, "reason": "An audit"}}
    app.put_json(f"{HELD}/attachment/hold", hold, headers=ALICE, status=200)
    ini = configured(app, tmp_path)
    with ini.open("a") as file:
        file.write(f"kinto.attachment.base_url = {FILES}\n")
    shutil.copy(ini, tmp_path / "without-archive.ini")
    (tmp_path / "objects.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    # All commands share one application, which they use in different ways.
    monkeypatch.setattr(application, "open_application", cache(application.open_application))
    yield app
    app.delete(f"{HELD}/attachment/hold", headers=ALICE, status="*")


@ON_POSTGRESQL
def test_each_of_them_finds_nothing_wrong(
    in_the_folder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands():
        _, *arguments = shlex.split(command)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="HTTPS is not enabled")
            status = cli.main(arguments)
            manager.clear()
        output = capsys.readouterr()
        assert status == 0, f"{command}\n{output.out}\n{output.err}"
        assert ("--quiet" in arguments) == (output.out == ""), command
