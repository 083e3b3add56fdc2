"""One setting: its full name, and the source of its value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from kinto.core.utils import read_env
from pyramid.exceptions import ConfigurationError

from kinto_attachment.options import OPTIONS, Option
from kinto_attachment.parsers import base_url
from kinto_attachment.quantities import text

PREFIX = "attachment."  # Kinto strips its own ``kinto.`` from the names of settings.

# Settings from other releases.
GONE = {
    "use_content_encoding": "delete this line. Files are stored and sent as they came; `gzipped` "
    "has the server compress them.",
}

BY_NAME = {name: option for option in OPTIONS for name in (option.name, *option.aliases)}


def full_name(name: str) -> str:
    """The full name of a setting, as in an ini file."""
    return f"kinto.{PREFIX}{name}"


def value_of(option: Option, given: Mapping[str, Any], prefix: str = "") -> Any:
    """The option's value from the settings, the environment or its default.

    ``prefix`` is the common prefix of the settings in ``given``.

    :raises ConfigurationError: it is set to different values under two names, or is invalid.
    """
    names = (option.name, *option.aliases)
    found = {name: read_env(full_name(prefix + name), given.get(name)) for name in names}
    parsed = {
        name: parsed_value(option, prefix + name, value)
        for name, value in found.items()
        if value is not None and (text(value) or option.parse is base_url)
    }
    if not parsed:
        return option.parse(option.default) if option.default is not None else None
    if any(value != next(iter(parsed.values())) for value in parsed.values()):
        raise ConfigurationError(
            " and ".join(full_name(prefix + name) for name in parsed) + " disagree."
        )
    return next(iter(parsed.values()))


def parsed_value(option: Option, name: str, value: object) -> Any:
    try:
        return option.parse(value)
    except ValueError as error:
        shown = "" if option.is_secret else f" (it is {value!r})"
        message = f"{full_name(name)}: {error}{shown}."
        if option.is_secret:
            raise ConfigurationError(message) from None
        raise ConfigurationError(message + _without_comment(option, name, value)) from error


def _without_comment(option: Option, name: str, value: object) -> str:
    """A hint, if the value is invalid only because of a comment after it."""
    before = re.split(r"\s[;#]", text(value), maxsplit=1)[0].strip()
    if before == text(value):
        return ""
    try:
        option.parse(before)
    except ValueError:
        return ""
    return f" A comment has to be on a line of its own. Write: {full_name(name)} = {before}"


def known_option(option: str, name: str, known: Mapping[str, Option], where: str = "") -> Option:
    """The option of this name among those known, which are those for ``where``."""
    if option in known:
        return known[option]
    if option in GONE:
        raise ConfigurationError(f"{full_name(name)}: {GONE[option]}")
    message = f"{full_name(name)} is not a setting of kinto_attachment"
    if option in BY_NAME:
        message += f" {where}"
    likely = difflib.get_close_matches(option, known, n=1)
    if likely:
        message += f". Did you mean {full_name(name.removesuffix(option) + likely[0])}?"
    raise ConfigurationError(message)
