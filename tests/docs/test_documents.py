"""The documents are well-formed, their links work, and they agree with the code."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path
from posixpath import normpath
from urllib.parse import urlsplit

import pytest

from kinto_attachment.options import BACKENDS, OPTIONS
from kinto_attachment.setting_values import PREFIX
from kinto_attachment.settings import Settings
from tests.support import ROOT, documents, waiting

DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "docs")
    for path in (ROOT / folder).glob("*.rst")
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_well_formed_and_its_links_lead_to_files(name: str) -> None:
    for link in documents.links(name):
        parts = urlsplit(link)
        if not parts.scheme:
            path = (ROOT / name).parent.joinpath(parts.path)
            assert path.is_file(), link
            target = str(path.resolve().relative_to(ROOT))
            assert not parts.fragment or parts.fragment in documents.parse(target).ids, link


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_rows_of_tables_are_whole(name: str) -> None:
    """If a first cell had a second line, that would be a separate row."""
    for table in documents.tables(name):
        for row in table:
            assert row[-1], row
            assert not row[0].endswith(","), row


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
        for head, *rows in documents.tables("docs/settings.rst")
        if head[0] == "setting"
        for row in rows
    ]
    assert [(name, default) for name, default, _ in rows] == [
        (f"{option.name} *" if option.per_collection else option.name, as_written(option.default))
        for option in OPTIONS
    ]
    assert all(meaning for _, _, meaning in rows)


def test_aliases_of_settings_are_documented() -> None:
    text = (ROOT / "docs" / "settings.rst").read_text("utf-8")
    missing = [
        alias for option in OPTIONS for alias in option.aliases if f"``{alias}``" not in text
    ]
    assert missing == []


def as_written(default: object) -> str:
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_make_targets_in_documents_exist() -> None:
    helped = subprocess.run(
        ["make", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=waiting.SECONDS,
    )
    targets = set(re.findall(r"make ([a-z0-9-]+)", helped.stdout))
    for name in DOCUMENTS:
        blocks = "\n".join(documents.code_blocks(name, "shell"))
        assert set(re.findall(r"^make ([a-z0-9-]+)", blocks, re.M)) <= targets, name


def test_the_modules_that_make_runs_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    modules = set(re.findall(r"\$\(BIN\)/python -m ([\w.]+)", makefile))
    assert len(modules) >= 6
    assert [name for name in sorted(modules) if find_spec(name) is None] == []


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


def test_the_index_names_every_document() -> None:
    listed = {normpath(f"docs/{link}") for link in documents.links("docs/index.rst")}
    assert set(DOCUMENTS) - listed == {"docs/index.rst"}


def test_the_figures_in_the_readme_are_those_of_the_benchmarks() -> None:
    (rows,) = [rows for head, *rows in documents.tables("README.rst") if head[0] == "figure"]
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8")
    figures = [figure for _, *figures in rows for figure in figures]
    assert len(figures) >= 10
    assert [figure for figure in figures if figure not in results] == []


def test_the_figures_of_the_comparison_are_those_of_the_benchmarks() -> None:
    (rows,) = [r for head, *r in documents.tables("docs/comparison.rst") if head[0] == "feature"]
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8")
    figures = [cell for row in rows for cell in row if re.fullmatch(r"[\d.]+ (?:ms|MiB)", cell)]
    assert len(figures) >= 8
    assert [figure for figure in figures if figure not in results] == []


def test_the_helpers_that_the_contributors_are_told_of_exist() -> None:
    (rows,) = [rows for head, *rows in documents.tables("CONTRIBUTING.rst") if head[0] == "helper"]
    names = [name.rpartition(".")[2] for row in rows for name in row[0].split(", ")]
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert len(names) >= 5
    assert [n for n in names if not re.search(rf"^(def|class) {n}\b", sources, re.M)] == []


def test_the_hosted_workflow_runs_the_oldest_and_the_newest_python() -> None:
    classifiers = metadata("kinto-attachment").get_all("Classifier", ())
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    (matrix,) = re.findall(r"python: \[(.*)\]", workflow)
    assert re.findall(r"[\d.]+", matrix) == [versions[0], versions[-1]]
