"""Clients that generators make from ``/v1/__api__``, against a live server."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.support import ROOT, live
from tests.support.application import ALICE, sha256
from tests.support.description import only_ours

MODULES = ROOT / "node_modules"

COMPILER_OPTIONS = {
    "strict": True,
    "skipLibCheck": True,
    "target": "es2022",
    "module": "nodenext",
    "types": [],
}

# Java runs for a few seconds only: these options halve the processor time.
QUICK_JAVA = (
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC "
    "-XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
)
# Only the calls that are tried here are generated; no documents and no tests.
GENERATED = "models,apis=Attachments,supportingFiles," + ",".join(
    f"{name}=false" for name in ("modelDocs", "apiDocs", "modelTests", "apiTests")
)

CONTENT = bytes(range(256)) * 3
PLACE = {"bucket_id": "b", "collection_id": "c"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    folder = tmp_path_factory.mktemp("files")
    with live.kinto({"base_path": str(folder)}) as server, live.Client(server) as alice:
        assert alice.put("/buckets/b") == 201
        assert alice.put("/buckets/b/collections/c") == 201
        yield server


@pytest.fixture(scope="module")
def description(server: live.Server) -> Any:
    return requests.get(f"{server.url}/__api__", timeout=90).json()


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "NODE_NO_WARNINGS": "1", "JAVA_TOOL_OPTIONS": QUICK_JAVA},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def typescript(description: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled client, which allows the calls that the description allows."""
    assert (MODULES / "openapi-fetch").is_dir(), 'run "make node_modules/.installed" first'
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "api.json").write_text(json.dumps(description))
    shutil.copy(ROOT / "tests" / "support" / "openapi_fetch.ts", folder)
    run(MODULES / ".bin/swagger2openapi", "api.json", "-o", "api3.json", cwd=folder)
    # The types of Kinto's own calls, which nothing here uses, would take longer than ours.
    converted = only_ours(json.loads((folder / "api3.json").read_text()))
    (folder / "api3.json").write_text(json.dumps(converted))
    run(MODULES / ".bin/openapi-typescript", "api3.json", "-o", "api.d.ts", cwd=folder)
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": COMPILER_OPTIONS}))
    run(MODULES / ".bin/tsc", cwd=folder)
    return folder / "openapi_fetch.js"


def test_typescript_sends_and_reads_bytes(server: live.Server, typescript: Path) -> None:
    content = b64encode(CONTENT).decode()
    result = json.loads(run("node", typescript, server.url, ALICE["Authorization"], content))
    for name in ("put", "posted"):
        uploaded = result[name]
        assert uploaded["status"] == 201
        assert (uploaded["hash"], uploaded["size"]) == (sha256(CONTENT), len(CONTENT))
    assert (result["put"]["filename"], result["posted"]["filename"]) == ("put.bin", "form.bin")
    assert [b64decode(read) for read in result["read"]] == [CONTENT, CONTENT]
    assert b64decode(result["part"]) == CONTENT[250:]
    assert (result["removed"], result["gone"]["code"]) == ([204, True], 404)


@pytest.fixture(scope="module")
def python(
    description: Any, server: live.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("python")
    (folder / "api.json").write_text(json.dumps(description))
    generator = Path(sys.executable).with_name("openapi-generator-cli")
    options = ("--generator-name", "python", "--package-name", "generated_client")
    options += ("--global-property", GENERATED)
    run(generator, "generate", "-i", "api.json", *options, "-o", "out", cwd=folder)
    sys.path.insert(0, str(folder / "out"))
    try:
        module = importlib.import_module("generated_client")
    finally:
        sys.path.remove(str(folder / "out"))
    configuration = module.Configuration(server.url, username="alice", password="secret")
    with module.ApiClient(configuration) as api_client:
        yield module.AttachmentsApi(api_client)


def test_python_sends_and_reads_bytes(python: Any) -> None:
    put = python.put_file(**PLACE, id="py-put", file=CONTENT, filename="put.bin")
    posted = python.attach_file(
        **PLACE, id="py-form", attachment=("form.bin", CONTENT), data='{"title": "a form"}'
    )
    assert (put.filename, posted.filename) == ("put.bin", "form.bin")
    for uploaded in (put, posted):
        assert (uploaded.hash, uploaded.size) == (sha256(CONTENT), len(CONTENT))
        key = urlsplit(uploaded.location).path.removeprefix("/v1/attachments/")
        assert python.get_file(key) == CONTENT
    for record in ("py-put", "py-form"):
        assert python.get_attachment(**PLACE, id=record) == CONTENT
    assert python.get_attachment(**PLACE, id="py-put", range="bytes=250-") == CONTENT[250:]


def test_python_removes_and_is_told_what_was_wrong(python: Any) -> None:
    python.put_file(**PLACE, id="py", file=CONTENT, filename="a.bin")
    assert python.detach_file(**PLACE, id="py") is None
    with pytest.raises(Exception, match="404") as raised:
        python.get_attachment(**PLACE, id="py")
    assert raised.value.data.errno == 110
