"""The documents are well-formed, lead somewhere, and say what the code does."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import metadata
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kinto_attachment.options import BACKENDS, OPTIONS
from kinto_attachment.settings import PREFIX, Settings
from tests.support import ROOT, documents

DOCUMENTS = ["README.rst", "CHANGELOG.rst", *(f"docs/{p.name}" for p in (ROOT / "docs").iterdir())]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_well_formed_and_its_links_lead_to_files(name: str) -> None:
    for link in documents.links(name):
        if not urlsplit(link).scheme:
            assert (ROOT / name).parent.joinpath(link).is_file(), link


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_settings_in_examples_are_accepted(name: str) -> None:
    for example in documents.code_blocks(name, "ini"):
        found = dict(re.findall(r"^kinto\.(attachment\.\S+) *= *(.*?) *$", example, re.M))
        storages = {f"{PREFIX}{key}" for key in BACKENDS}
        if not storages & {re.sub(r"aws\.bucket$", "aws.bucket_name", key) for key in found}:
            found[f"{PREFIX}base_path"] = "/somewhere"
        Settings.parse(found)


def test_the_settings_table_is_the_one_that_the_code_has() -> None:
    rows = [
        row
        for head, *rows in documents.tables("README.rst")
        if head[0] == "setting"
        for row in rows
    ]
    assert [(name, default) for name, default, _ in rows] == [
        (f"{option.name} *" if option.per_collection else option.name, as_written(option.default))
        for option in OPTIONS
    ]
    assert all(meaning for _, _, meaning in rows)


def test_aliases_of_settings_are_documented() -> None:
    text = (ROOT / "README.rst").read_text("utf-8")
    missing = [
        alias for option in OPTIONS for alias in option.aliases if f"``{alias}``" not in text
    ]
    assert missing == []


def as_written(default: object) -> str:
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_make_targets_in_documents_exist() -> None:
    helped = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    targets = set(re.findall(r"make ([a-z0-9-]+)", helped.stdout))
    for name in DOCUMENTS:
        blocks = "\n".join(documents.code_blocks(name, "shell"))
        assert set(re.findall(r"^make ([a-z0-9-]+)", blocks, re.M)) <= targets, name


def test_the_extras_in_documents_exist() -> None:
    extras = set(metadata("kinto-attachment").get_all("Provides-Extra", ()))
    for name in DOCUMENTS:
        blocks = "\n".join(documents.code_blocks(name, "shell"))
        named = re.findall(r"pip install [^#\n]*\[([\w,]+)\]", blocks)
        assert {extra for group in named for extra in group.split(",")} <= extras, name


@pytest.mark.parametrize("name", [*DOCUMENTS, "setup.py", "Makefile", "package.json"])
def test_no_document_names_this_machine(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


def test_the_tests_that_the_documents_name_exist() -> None:
    text = (ROOT / "docs" / "security.rst").read_text("utf-8")
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text)
    assert len(named) >= 20
    for path, name in named:
        source = (ROOT / path).read_text("utf-8")
        assert not name or re.search(rf"^(class|def) {name}\b", source, re.M), f"{path}::{name}"
