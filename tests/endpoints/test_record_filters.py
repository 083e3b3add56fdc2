"""Kinto's filters on records work with the members of an attachment, as in docs/listing.rst."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.application import ALICE, COLLECTION, attach, put
from tests.support.backends import ON_EACH_DATABASE
from tests.support.documents import code_blocks

URL = f"{COLLECTION}/records"
HAS = "has_attachment.size=true"


@pytest.fixture
def filled(app: Any) -> Any:
    for name, content, filename, tags in (
        ("hello", b"x" * 7, "hello.txt", ["letters"]),
        ("picture", b"x" * 20, "cat.png", ["cats", "animals"]),
        ("dog", b"x" * 2, "dog.png", ["dogs", "animals"]),
    ):
        attach(app, f"{URL}/{name}", content, filename, data={"tags": tags})
    put(app, f"{URL}/bare", data={"tags": ["animals"]})
    attach(app, f"{URL}/removed")
    app.delete(f"{URL}/removed/attachment", headers=ALICE)
    return app


def found(app: Any, query: str) -> list[str]:
    return [record["id"] for record in app.get(f"{URL}?{query}", headers=ALICE).json["data"]]


@ON_EACH_DATABASE
class TestFilters:
    def test_select(self, filled: Any) -> None:
        for query, expected in (
            ("attachment.mimetype=text/plain", "hello"),
            ("attachment.filename=cat.png", "picture"),
            (f"{HAS}&gt_attachment.size=5", "hello picture"),
            (f"{HAS}&lt_attachment.size=5", "dog"),
            (f"{HAS}&like_attachment.filename=*.png", "dog picture"),
            (f"{HAS}&in_attachment.mimetype=image/png,image/gif", "dog picture"),
            ("contains_tags=animals", "bare dog picture"),
            (f"{HAS}&contains_tags=animals", "dog picture"),
            ('contains_any_tags=["cats","letters"]', "hello picture"),
        ):
            assert sorted(found(filled, query)) == expected.split(), query

    def test_what_has_a_file(self, filled: Any) -> None:
        assert sorted(found(filled, HAS)) == ["dog", "hello", "picture"]
        assert sorted(found(filled, "has_attachment=true")) == [
            "dog", "hello", "picture", "removed",
        ]  # fmt: skip
        everything = found(filled, "gt_attachment.size=5")
        assert {"bare", "removed"} <= set(everything)

    def test_sort(self, filled: Any) -> None:
        query = f"{HAS}&_sort=-attachment.size&_limit=2"
        assert found(filled, query) == ["picture", "hello"]

    def test_the_examples_of_the_page(self, filled: Any) -> None:
        (block,) = [
            block for block in code_blocks("docs/listing.rst", "shell") if "$URL?" in block
        ]
        queries = re.findall(r'"\$URL\?(.*)"', block)
        assert len(queries) == 5
        for query in queries:
            assert "hello" in found(filled, query), query
