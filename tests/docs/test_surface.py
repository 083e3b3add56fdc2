"""Everything that the project offers is documented, and listed in a table with its tests."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

import kinto_attachment
from kinto_attachment import cli, client
from kinto_attachment.options import OPTIONS
from tests.support import ROOT, documents
from tests.support.backends import ON_MEMORY, Build
from tests.support.description import described, only_ours

TABLE = "tests/surface.rst"
TABLES = ("Endpoints", "Settings", "Commands", "Python", "Client", "JavaScript", "Metrics")
METHODS = ("get", "put", "post", "delete", "patch")


@cache  # Collecting tests does not need them, and this takes half a second.
def rows() -> dict[str, dict[str, list[str]]]:
    """The tests of each entry of each table, by the title of the table."""
    found = {}
    for section in documents.sections(TABLE):
        title, ((_, *lines),) = section
        found[title] = {name: tests.split() for name, tests in lines}
    return found


def settings() -> set[str]:
    return {name for option in OPTIONS for name in (option.name, *option.aliases)}


def commands() -> set[str]:
    """``gc --grace``: the command, and the long form of its option."""
    found = set()
    for name, parser in parsers():
        for action in parser._actions:
            if action.dest not in ("help", "command"):
                option = action.option_strings[-1] if action.option_strings else action.metavar
                found.add(f"{name} {option}")
    return found


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    subparsers: Any = argparse.ArgumentParser().add_subparsers()
    for name in cli.SERVER_COMMANDS:
        cli.add_server_command(subparsers, name, "", chosen=True)
    for name in cli.CLIENT_COMMANDS:
        cli.add_client_command(subparsers, name, "", chosen=True)
    yield from subparsers.choices.items()


def metrics() -> set[str]:
    sources = (path.read_text("utf-8") for path in (ROOT / "kinto_attachment").rglob("*.py"))
    return {
        name
        for text in sources
        for name in re.findall(
            r'(?:\.(?:count|observe)\(|metric_of\([\w.]+,)\s*"([\w.]+\.\w+)"', text
        )
    }


def javascript() -> set[str]:
    """The classes of the module, and the methods of its client."""
    text = (ROOT / "js" / "kinto-attachment.js").read_text("utf-8")
    names = re.findall(r"^export \w+ (\w+)|^  (?:async )?([a-z]\w*)\(.* \{$", text, re.M)
    return {name for pair in names for name in pair if name} - {"constructor"}


@pytest.mark.parametrize(
    ("table", "find"),
    [
        ("Settings", settings),
        ("Commands", commands),
        ("Python", lambda: set(kinto_attachment.__all__)),
        ("Client", lambda: set(client.__all__)),
        ("JavaScript", javascript),
        ("Metrics", metrics),
    ],
    ids=["settings", "commands", "python", "client", "javascript", "metrics"],
)
def test_the_table_has_what_the_code_has(table: str, find: Callable[[], set[str]]) -> None:
    surface = find()
    assert surface
    assert set(rows()[table]) == surface


@ON_MEMORY
def test_the_table_has_the_endpoints(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = only_ours(described(build(), monkeypatch))["paths"]
    endpoints = {
        f"{method.upper()} {path}"
        for path, item in paths.items()
        for method in item
        if method in METHODS
    }
    assert set(rows()["Endpoints"]) == endpoints


def test_the_tables() -> None:
    assert tuple(rows()) == TABLES


@pytest.mark.parametrize("table", TABLES)
def test_each_entry_has_tests_that_exist(table: str) -> None:
    for entry, tests in rows()[table].items():
        assert tests, f"{entry} has no test"
        for test in tests:
            path, _, name = test.partition("::")
            assert name in names_in(path), f"{entry}: {test}"


@pytest.mark.parametrize("table", TABLES)
def test_each_entry_is_documented(table: str) -> None:
    text = documentation()
    for entry in rows()[table]:
        # For endpoints, only what follows the record's own URL.
        name = re.sub(r"^(\w+) /buckets/.*/attachment(/.*)?$", r"\1 R/attachment\2", entry)
        name = re.sub(r"^(\w+) /buckets/.*/(attachments(?:[./].*)?)$", r"\1 C/\2", name)
        name = re.sub(r"^GET /attachments", "GET /v1/attachments", name)
        name = name if table == "Endpoints" else name.rpartition(" ")[2]
        assert re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text), f"{entry}: {name}"


@cache
def names_in(path: str) -> set[str]:
    nodes = ast.parse((ROOT / path).read_text("utf-8")).body
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@cache
def documentation() -> str:
    files = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]
    return "\n".join(path.read_text("utf-8") for path in files)
