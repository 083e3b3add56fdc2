"""The site has the documents as pages, and its build reports broken links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kinto_attachment
from kinto_attachment import client, storage
from kinto_attachment.storage import testing as contracts
from tests.support import ROOT, waiting

CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "docs" / "_ext")!r})
extensions = ["document_links", "index_page", "dead_links"]
repository_url = "https://example.com/"
"""
INDEX = """
Pages
=====

For users
---------

- `The first <first.rst>`__: a page
- `Read me <../README.rst>`__: what includes the file
- `A program <../program.py>`__: what is no page
"""
FIRST = """
The first page
==============

A section
---------

See `second.rst <second.rst>`__, `its section <second.rst#a-section>`__ and
`the code <../program.py>`__.

`Nothing <gone.rst>`__ and `nowhere <second.rst#nowhere>`__.
"""
SECOND = """
The second page
===============

A section
---------

Text.
"""
README = "A project\n=========\n\nSee `docs/first.rst <docs/first.rst>`__.\n"
FILES = {
    "README.rst": README,
    "program.py": "",
    "docs/conf.py": CONF,
    "docs/index.rst": INDEX,
    "docs/first.rst": FIRST,
    "docs/second.rst": SECOND,
    "docs/project/readme.rst": ".. include:: ../../README.rst\n",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, list[str]]:
    """The folder of a small site with mistakes, the status of the build, and its messages."""
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "--no-color"]
    command += ["docs", "html"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=waiting.SECONDS
    )
    return folder / "html", done.returncode, done.stderr.splitlines()


def test_what_leads_nowhere_fails_the_build(built: tuple[Path, int, list[str]]) -> None:
    _, status, remarks = built
    assert status == 1
    found = [remark.partition("WARNING: ")[2] for remark in remarks]
    assert sorted(filter(None, found)) == [
        "dead link in first.html: gone.rst",
        "dead link in first.html: second.html#nowhere",
        "document isn't included in any toctree [toc.not_included]",
        "no such file: gone.rst",
    ]


def test_links_between_files_lead_to_pages(built: tuple[Path, int, list[str]]) -> None:
    folder = built[0]
    first = texts((folder / "first.html").read_text())
    assert first["second.html"] == ["The second page"]
    assert first["second.html#a-section"] == ["its section"]
    assert "the code" in first["https://example.com/program.py"]
    readme = texts((folder / "project" / "readme.html").read_text())
    assert "The first page" in readme["../first.html"]


def test_the_index_is_the_navigation(built: tuple[Path, int, list[str]]) -> None:
    text = (built[0] / "second.html").read_text()
    assert re.findall(r'<span class="caption-text">(.*?)</span>', text) == ["For users"]
    found = texts(text)
    assert found["first.html"] == ["The first"]
    assert found["project/readme.html"] == ["Read me"]
    assert found["https://example.com/program.py"] == ["A program"]


def texts(page: str) -> dict[str, list[str]]:
    """The texts of the links on a page, by their addresses."""
    found: dict[str, list[str]] = {}
    pattern = r'<a class="reference [^>]*href="([^"]*)"[^>]*>(.*?)</a>'
    for address, text in re.findall(pattern, page):
        found.setdefault(address, []).append(re.sub(r"<[^>]*>", "", text))
    return found


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("plugins", kinto_attachment.__all__),
        ("client", client.__all__),
        ("storages", contracts.__all__),
        ("storages", [capability.__name__ for capability in storage.CAPABILITIES]),
    ],
    ids=["plugins", "client", "contracts", "capabilities"],
)
def test_the_reference_has_what_is_public(page: str, names: list[str]) -> None:
    text = (ROOT / "docs" / "reference" / f"{page}.rst").read_text("utf-8")
    listed = re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)(?:\(\))?$", text, re.M)
    assert sorted(set(names) - set(listed)) == []
