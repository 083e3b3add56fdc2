"""The examples in docstrings and in the documentation run as written."""

from __future__ import annotations

import doctest
import io
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pytest
import requests

import kinto_attachment.client
from kinto_attachment.client import (
    AttachmentClient,
    FileStore,
    attachments,
    copies,
    file_store,
    links,
    lists,
    versions,
)
from tests.support import live, pasted, waiting
from tests.support.documents import code_blocks
from tests.support.scripts import AUTH, ROOT

OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


@pytest.fixture
def names(
    embedded: live.Server, collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """The environment of the examples: a server, and a folder with a file in it."""
    monkeypatch.chdir(tmp_path)
    Path("report.csv").write_text("a;b\n")
    client = AttachmentClient(embedded.url, "default", collection, AUTH)
    return {
        "io": io,
        "requests": requests,
        "time": time,
        "Path": Path,
        "AttachmentClient": AttachmentClient,
        "FileStore": FileStore,
        "server_url": embedded.url,
        "client": client,
        "store": FileStore(client),
    }


@pytest.mark.parametrize(
    "module", [kinto_attachment.client, attachments, copies, file_store, links, lists, versions]
)
def test_docstrings(module: ModuleType, names: dict[str, object]) -> None:
    # In the order of the text: later ones use results of earlier ones.
    examples = [
        test
        for test in doctest.DocTestFinder().find(module, extraglobs=names)
        if test.examples and test.lineno is not None
    ]
    assert examples
    for test in sorted(examples, key=lambda test: test.lineno or 0):
        test.globs = names
        run(test)


def test_documentation(names: dict[str, object]) -> None:
    text = (ROOT / "docs" / "client.rst").read_text("utf-8")
    text = text.replace("http://127.0.0.1:8888/v1", str(names["server_url"]))
    test = doctest.DocTestParser().get_doctest(text, names, "docs/client.rst", None, 0)
    assert len(test.examples) > 5
    run(test)


def run(test: doctest.DocTest) -> None:
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    failed, _ = runner.run(test, out=output.append, clear_globs=False)
    assert not failed, "".join(output)


def test_commands(embedded: live.Server, tmp_path: Path) -> None:
    server = "http://127.0.0.1:8888/v1"
    commands = [text for text in code_blocks("docs/client.rst", "shell") if server in text]
    commands = [text for text in commands if "kinto-attachment" in text]
    assert len(commands) == 8
    with pasted.environ() as environ:
        for text in commands:
            here = text.replace(server, embedded.url)
            run = subprocess.run(
                ["sh", "-e", "-c", here],
                cwd=tmp_path,
                env=environ,
                stdout=subprocess.PIPE,
                timeout=waiting.SECONDS,
                check=True,
            )
            if " versions " in here:
                versions = [line.split()[-2:] for line in run.stdout.decode().splitlines()[-4:-2]]
                assert versions == [["current", "letter.txt"], ["kept", "letter.txt"]]
    assert (tmp_path / "docs" / "report.csv").read_text() == "a,b\n"
    kept = AttachmentClient(embedded.url, "default", "kept", AUTH)
    with kept.open("greeting") as file:
        assert file.read() == b"First\n"


def test_tuspy(names: dict[str, object], embedded: live.Server) -> None:
    (code,) = [text for text in code_blocks("docs/client.rst", "python") if "tusclient" in text]
    code = code.replace("http://127.0.0.1:8888/v1", embedded.url)
    with live.Client(embedded) as alice:
        alice.put("/buckets/default/collections/docs")
        exec(compile(code, "docs/client.rst", "exec"), {})
        data = alice.request("GET", "/buckets/default/collections/docs/records/tuspy")[2]["data"]
    assert (data["year"], data["attachment"]["size"]) == (2025, 4)


def test_a_client_from_the_environment(
    embedded: live.Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [text for text in code_blocks("docs/client.rst", "python") if "from_env" in text]
    monkeypatch.setenv("KINTO_SERVER", embedded.url)
    monkeypatch.setenv("KINTO_AUTH", ":".join(AUTH))
    client = AttachmentClient.from_env("default", "docs")
    client.upload("from-env", io.BytesIO(b"content"), filename="env.txt")
    exec(compile(code, "docs/client.rst", "exec"), {})
    assert "from-env env.txt" in capsys.readouterr().err
