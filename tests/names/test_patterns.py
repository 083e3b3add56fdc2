from __future__ import annotations

import re

import pytest

from kinto_attachment.names import (
    Pattern,
)


class TestPattern:
    FIELDS = frozenset({"bucket_id", "collection_id"})

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", ""),
            ("plain", "plain"),
            ("{bucket_id}/{collection_id}", "b/{c}"),
            ("{{x}}-{bucket_id}{bucket_id}", "{x}-bb"),
        ],
    )
    def test_puts_values_in_as_they_are(self, text: str, expected: str) -> None:
        pattern = Pattern.parse(text, self.FIELDS)
        assert pattern.format(bucket_id="b", collection_id="{c}") == expected

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("{bucket}", "{bucket}"),
            ("{}", "{}"),
            ("{0}", "{0}"),
            ("{ bucket_id }", "{ bucket_id }"),
            ("{bucket_id.__class__}", "{bucket_id.__class__}"),
            ("{bucket_id[0]}", "{bucket_id[0]}"),
            ("{bucket_id!r}", "{bucket_id}"),
            ("{bucket_id:>10}", "{bucket_id}"),
        ],
    )
    def test_names_a_placeholder_it_does_not_know(self, text: str, named: str) -> None:
        with pytest.raises(ValueError, match=re.escape(f"unknown placeholder {named} in")) as info:
            Pattern.parse(text, self.FIELDS)
        assert "known: {bucket_id}, {collection_id}" in str(info.value)

    @pytest.mark.parametrize("text", ["{", "}", "{bucket_id", "a}b", "{bucket_id!}", "{a{b}"])
    def test_refuses_a_brace_without_its_other_half(self, text: str) -> None:
        with pytest.raises(ValueError, match=re.escape(repr(text))):
            Pattern.parse(text, self.FIELDS)
