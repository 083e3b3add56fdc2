"""The installed package works with its dependencies; modules import only what they may."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kinto_attachment import cli
from tests.support import ROOT, forking, waiting
from tests.support.application import RECORD

PACKAGE = ROOT / "kinto_attachment"
VERSION = re.findall(r'version="([^"]+)"', (ROOT / "setup.py").read_text("utf-8"))[0]
MODULES = sorted(PACKAGE.rglob("*.py"))

# The only modules that may import a library: those that need its extra.
EXCLUSIVE = {
    "boto3": "storage/s3*.py",
    "botocore": "storage/s3*.py",
    "s3transfer": "storage/s3*.py",
    "google": "storage/gcloud*.py",
    "kinto_http": "client/*.py",
    "rich": "client/*.py",
}
GONE = ("cgi", "pkg_resources")  # Removed from Python 3.13 and new versions of setuptools.

# A minimal server: files in a folder, no libraries of extras, no docstrings.
LEAST = f"""
import json, sys
for name in {list(EXCLUSIVE)!r}:
    sys.modules[name] = None  # Importing it fails.
import kinto, webtest
app = webtest.TestApp(kinto.main({{}}, **{{
    "kinto.includes": "kinto_attachment",
    "kinto.attachment.base_path": sys.argv[1],
    "kinto.attachment.extensions": "text",
    "kinto.storage_backend": "kinto.core.storage.memory",
    "kinto.permission_backend": "kinto.core.permission.memory",
    "kinto.cache_backend": "kinto.core.cache.memory",
    "kinto.userid_hmac_secret": "test",
    "kinto.bucket_create_principals": "system.Everyone",
}}))
app.put("/v1/buckets/b")
app.put("/v1/buckets/b/collections/c")
answers = []
for name in ("setup.exe", "hello.txt"):
    files = [("attachment", name, b"Hello")]
    answer = app.post("/v1{RECORD}/attachment", upload_files=files, status="*")
    read = app.get("/v1{RECORD}/attachment", status="*")
    answers.append([answer.status_code, answer.json.get("message"), read.text])
print(json.dumps(answers))
"""


def imported(module: Path) -> Iterator[str]:
    """The full names of the modules that a file imports anywhere."""
    package = ".".join(module.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: 1 - node.level or None]) if node.level else ""
            origin = ".".join(filter(None, [base, node.module]))
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_what_it_may(module: Path) -> None:
    for name in imported(module):
        top = name.split(".")[0]
        assert top not in GONE
        assert module.match(str(PACKAGE / EXCLUSIVE[top])) if top in EXCLUSIVE else True


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The responses of the minimal server to two uploads."""
    folder = tmp_path_factory.mktemp("least")
    command = [sys.executable, "-OO", "-W", "ignore", "-c", LEAST, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=waiting.SECONDS
    )
    return json.loads(done.stdout)


def test_a_local_folder_needs_no_extra(answers: Any) -> None:
    _, (status, _, content) = answers
    assert (status, content) == (201, "Hello")


def test_refusals_have_their_messages_without_docstrings(answers: Any) -> None:
    (status, message, read), _ = answers
    assert (status, message) == (
        400,
        "body: File extension is not allowed. The setting is kinto.attachment.extensions.",
    )
    assert json.loads(read)["code"] == 404


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="kinto-attachment")
    assert command.load() is cli.main


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist, as by an installer that has only the sdist."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    shutil.copytree(PACKAGE, source / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.rst", "LICENSE"):
        shutil.copy(ROOT / name, source)
    sdist = build("sdist", source, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", sdist.with_name(sdist.name.removesuffix(".tar.gz")), folder)


def build(kind: str, source: Path, folder: Path) -> Path:
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = forking.run(
        command, cwd=source, capture_output=True, text=True, check=True, timeout=waiting.SECONDS
    )
    return folder / done.stdout.splitlines()[-1]


def test_the_wheel_is_newer_than_the_other_distribution(wheel: Path) -> None:
    """Otherwise, ``pip install -U`` would replace this plugin by the one on PyPI."""
    assert wheel.name == f"kinto_attachment-{VERSION}-py3-none-any.whl"
    assert [*map(int, VERSION.split("."))] >= [10, 0, 0]
    assert (ROOT / "CHANGELOG.rst").read_text("utf-8").splitlines()[4].startswith(VERSION)


def test_the_description_on_a_package_index_has_whole_links(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        description = message_from_bytes(archive.read(name)).get_payload()
    links = re.findall(r"<(\S+)>`_", str(description))
    files = [re.sub(r"^https://github\.com/\S+?/blob/main/", "", link) for link in links]
    assert len(files) >= 20
    for link, file in zip(links, files, strict=True):
        assert urlsplit(link).scheme == "https", link
        assert link == file or (ROOT / file).is_file(), link


def test_the_wheel_has_everything(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:  # As an installer does.
        archive.extractall(tmp_path)
    installed = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py")}
    assert installed == {path.relative_to(ROOT) for path in MODULES}
    assert (tmp_path / PACKAGE.name / "py.typed").exists()
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-m", "kinto_attachment.cli", "--version"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=waiting.SECONDS,
    )
    assert done.stdout.strip().endswith(VERSION)


def test_no_message_has_people_install_the_other_distribution() -> None:
    """A name without a checkout would install the distribution on PyPI."""
    documents = [*ROOT.glob("*.rst"), *ROOT.glob("docs/*.rst"), *MODULES]
    for path in documents:
        named = re.findall(r"pip install [^`\n]*kinto-attachment.*", path.read_text("utf-8"))
        told = [each for each in named if "installs the other one" not in each]
        assert not told, path
