"""The settings of one storage: the default one, or one with a name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kinto.core.utils import read_env
from pyramid.exceptions import ConfigurationError

from kinto_attachment.options import BACKENDS, STORAGE_OPTIONS
from kinto_attachment.parsers import DEFAULT_STORAGE, storage_name
from kinto_attachment.setting_values import BY_NAME, full_name, known_option, value_of

STORAGES = "storages."
BACKEND = "backend."  # The prefix of the options of a third-party storage.


@dataclass(frozen=True)
class StorageSettings:
    """The options of one storage, by name.

    ``name`` is the name in the index: empty for the default storage.
    """

    name: str
    values: Mapping[str, Any]
    own_options: Mapping[str, Any] = field(default_factory=dict)  # Of the class, unparsed.

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @cached_property
    def backend(self) -> str:
        """The name of the option that chooses the backend."""
        return next(name for name in BACKENDS if self.values[name])

    def full_name(self, option: str) -> str:
        """The full name of one of this storage's settings."""
        return full_name(_storage_prefix(self.name) + option)

    def backend_options(self, known: Iterable[str]) -> dict[str, str]:
        """The options of the class that ``backend`` names, as texts.

        ``known`` are the names that are also looked up in the environment.
        """
        names = {**dict.fromkeys(known, ""), **self.own_options}
        found = {
            name: _as_text(read_env(self.full_name(BACKEND + name), value))
            for name, value in names.items()
        }
        return {name: value for name, value in found.items() if value}

    @classmethod
    def parse(cls, name: str, given: Mapping[str, Any]) -> StorageSettings:
        """:raises ConfigurationError: a setting is unknown or invalid, or one is missing."""
        known = {key: option for key, option in BY_NAME.items() if option in STORAGE_OPTIONS}
        prefix = _storage_prefix(name)
        own_options = {}
        for option, value in given.items():
            if option.startswith(BACKEND):
                own_options[option.removeprefix(BACKEND)] = value
            else:
                known_option(option, prefix + option, known, "for a storage")
        values = {option.name: value_of(option, given, prefix) for option in STORAGE_OPTIONS}
        parsed = cls(name, values, own_options)
        _check_storage(parsed)
        return parsed


def storage_option(name: str) -> tuple[str, str]:
    """Split ``storages.{storage}.NAME``."""
    storage, dot, option = name.removeprefix(STORAGES).partition(".")
    if not dot or not option:
        raise ConfigurationError(
            f"{full_name(name)} should be {full_name(STORAGES)}STORAGE.NAME, with the name of the "
            "storage and that of a setting."
        )
    if storage == DEFAULT_STORAGE:
        raise ConfigurationError(
            f"{full_name(name)}: the setting of the default storage is {full_name(option)}."
        )
    try:
        return storage_name(storage), option
    except ValueError as error:
        raise ConfigurationError(f"{full_name(name)}: {storage!r} {error}.") from error


def storages_of_environment() -> list[str]:
    """The names of storages with settings in environment variables."""
    prefix = _in_environment(full_name(STORAGES))
    options = {_in_environment(name) for name, o in BY_NAME.items() if o in STORAGE_OPTIONS}
    own = _in_environment(BACKEND)
    found = []
    for variable in sorted(os.environ):
        name, _, option = variable.removeprefix(prefix).partition("_")
        if variable.startswith(prefix) and (option in options or option.startswith(own)):
            found.append(storage_option(f"{STORAGES}{name.lower()}.{option.lower()}")[0])
    return found


def _as_text(value: object) -> str:
    # Kinto parses settings as JSON if possible: ``true`` becomes a boolean.
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _storage_prefix(name: str) -> str:
    return f"{STORAGES}{name}." if name else ""


def _in_environment(name: str) -> str:
    return name.replace(".", "_").upper()  # As Kinto's read_env does.


def _check_storage(settings: StorageSettings) -> None:
    name_of = settings.full_name
    chosen = [name for name in BACKENDS if settings[name]]
    if len(chosen) != 1:
        known = ", ".join(map(name_of, BACKENDS))
        got = " and ".join(map(name_of, chosen)) or "none"
        raise ConfigurationError(f"Set one storage, exactly: one of {known} (set: {got}).")
    if settings.own_options and settings.backend != "backend":
        option = next(iter(settings.own_options))
        raise ConfigurationError(
            f"{name_of(BACKEND + option)} is an option of the class that {name_of('backend')} "
            "names, which is not set."
        )
    if bool(settings["aws.access_key"]) != bool(settings["aws.secret_key"]):
        raise ConfigurationError(
            f"Set both {name_of('aws.access_key')} and {name_of('aws.secret_key')}, or neither."
        )
    if settings["aws.kms_key_id"] and settings["aws.encryption"] != "aws:kms":
        raise ConfigurationError(
            f"{name_of('aws.kms_key_id')} needs {name_of('aws.encryption')} = aws:kms."
        )
    if settings.name and settings["base_url"] == "":
        raise ConfigurationError(
            f"{name_of('base_url')} is empty: only files of the default storage can have relative "
            "locations, since clients prepend one address to all of them."
        )
