"""The map of the package in docs/design.rst lists the existing folders and files."""

from __future__ import annotations

import re
from itertools import pairwise

from tests.support import ROOT, documents

PAGE = "docs/design.rst"
PACKAGE = ROOT / "kinto_attachment"
NAME = re.compile(r"[\w/]+(?:\.py|/)(?=[\s,)]|$)")


def rows() -> list[tuple[list[str], str]]:
    """The files in each row of the table, and their description."""
    (table,) = [rows for head, *rows in documents.tables(PAGE) if head == ["files", "contents"]]
    return [(NAME.findall(names), contents) for names, contents in table]


def test_the_map_has_what_the_package_has() -> None:
    there = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or any(path.glob("*.py"))
    }
    assert sorted(name for names, _ in rows() for name in names) == sorted(there)


def test_the_map_is_in_the_order_of_the_layers() -> None:
    """The order is the one that import-linter checks, from the top down."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (block,) = re.findall(r"^layers = \[\n(.*?)^\]", text, re.M | re.S)
    layers = {
        module: number
        for number, line in enumerate(re.findall(r'"(.*)"', block))
        for module in line.split(" | ")
    }
    numbers = [
        [layers.pop(name.removesuffix(".py").rstrip("/")) for name in names]
        for names, _ in rows()
        for names in [[name for name in names if name != "__init__.py"]]
    ]
    assert layers == {}
    assert [pair for pair in pairwise(numbers) if max(pair[0]) > min(pair[1])] == []


def test_the_files_that_the_page_names_exist() -> None:
    for names, contents in rows():
        for pattern in re.findall(r"[\w*]+\.py", contents):
            assert list((PACKAGE / names[0]).glob(pattern)), pattern
    text = documents.parse(PAGE).astext()
    named = set(re.findall(r"(?<![\w/])(?:\w+/)+\w+\.py\b", text))
    assert len(named) >= 10
    assert sorted(name for name in named if not is_there(name)) == []
    folders = set(re.findall(r"(?<![\w/])tests/\w+/", text))
    assert len(folders) >= 3
    assert sorted(name for name in folders if not (ROOT / name).is_dir()) == []


def is_there(name: str) -> bool:
    return (PACKAGE / name).is_file() or (ROOT / name).is_file()
