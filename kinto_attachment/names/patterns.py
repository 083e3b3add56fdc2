"""Patterns of names in settings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from string import Formatter


@dataclass(frozen=True)
class Pattern:
    """A text with placeholders such as ``{bucket_id}``; values are inserted unchanged."""

    text: str
    parts: tuple[tuple[str, str | None], ...]  # Literal text, and the field that follows it.

    @classmethod
    def parse(cls, text: str, fields: Collection[str]) -> Pattern:
        """:raises ValueError: an unbalanced brace, or a placeholder that is not in ``fields``."""
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"unbalanced brace in {text!r} ({error})") from error
        for _, field, spec, conversion in parsed:
            if field is not None and (field not in fields or spec or conversion):
                known = ", ".join(f"{{{name}}}" for name in sorted(fields))
                raise ValueError(f"unknown placeholder {{{field}}} in {text!r} (known: {known})")
        return cls(text, tuple((literal, field) for literal, field, _, _ in parsed))

    @property
    def fields(self) -> set[str]:
        """The names of the placeholders."""
        return {field for _, field in self.parts if field is not None}

    def format(self, **values: str) -> str:
        return "".join(
            literal if field is None else literal + values[field] for literal, field in self.parts
        )
