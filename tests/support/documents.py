"""The project's documents, parsed, for the tests that compare them with the code."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from docutils import nodes
from docutils.core import publish_doctree

from tests.support import ROOT


@cache  # It takes a second, and the result is not changed.
def parse(name: str) -> nodes.document:
    """:raises docutils.utils.SystemMessage: for any message of docutils."""
    settings = {"report_level": 1, "halt_level": 1, "file_insertion_enabled": False}
    text = (ROOT / name).read_text("utf-8")
    return publish_doctree(text, source_path=name, settings_overrides=settings)


def code_blocks(name: str, language: str) -> list[str]:
    blocks = parse(name).findall(nodes.literal_block)
    return [block.astext() for block in blocks if language in block["classes"]]


def tables(name: str) -> Iterator[list[list[str]]]:
    """The rows of every table, as texts with single spaces; the head, if any, comes first."""
    yield from _tables(parse(name))


def _tables(node: nodes.Node) -> Iterator[list[list[str]]]:
    for table in node.findall(nodes.table):
        yield [
            [" ".join(entry.astext().split()) for entry in row.findall(nodes.entry)]
            for row in table.findall(nodes.row)
        ]


def sections(name: str) -> Iterator[tuple[str, list[list[list[str]]]]]:
    """The title of each section of a document with its tables, as from :func:`tables`."""
    for section in parse(name).findall(nodes.section):
        yield section.next_node(nodes.title).astext(), list(_tables(section))


def links(name: str) -> Iterator[str]:
    for reference in parse(name).findall(nodes.reference):
        if "refuri" in reference:
            yield reference["refuri"]
