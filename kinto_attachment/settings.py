"""The settings: parsed once at start-up into a frozen object, by the table of options."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kinto.core.utils import read_env
from pyramid.exceptions import ConfigurationError

from kinto_attachment.names import Pattern
from kinto_attachment.options import (
    BACKENDS,
    DEFAULT_STORAGE,
    OPTIONS,
    STORAGE_OPTIONS,
    Option,
    base_url,
    boolean,
    storage_name,
    text,
)

PREFIX = "attachment."  # Kinto strips its own ``kinto.`` from the names of settings.
RESOURCES = "resources."
STORAGES = "storages."
BACKEND = "backend."  # The prefix of the options of a third-party storage.

_BY_NAME = {name: option for option in OPTIONS for name in (option.name, *option.aliases)}


@dataclass(frozen=True)
class CollectionSettings:
    """The options that apply to one collection; attributes have the options' names."""

    storage: str
    folder: Pattern | None
    randomize: bool
    filename_pattern: Pattern
    keep_old_files: bool
    linger: float
    extensions: frozenset[str]
    mimetypes: Mapping[str, str]
    max_size: int
    min_size: int
    gzipped: bool
    content_encodings: frozenset[str]
    client_metadata: str
    delete_on_omission: bool
    inline_types: frozenset[str]
    # Where options come from that are set for a bucket or a collection: full names, by option.
    overrides: Mapping[str, str] = field(default_factory=dict, compare=False)

    def setting(self, option: str) -> str:
        """The full name of the setting that an option has its value from."""
        return self.overrides.get(option, full_name(option))


@dataclass(frozen=True)
class StorageSettings:
    """The options of one storage, by name.

    ``name`` is as the index has it: empty for the default storage.
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

        ``known`` are the names for which the environment is asked, too.
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
        known = {key: option for key, option in _BY_NAME.items() if option in STORAGE_OPTIONS}
        prefix = _storage_prefix(name)
        own_options = {}
        for option, value in given.items():
            if option.startswith(BACKEND):
                own_options[option.removeprefix(BACKEND)] = value
            else:
                _known(option, prefix + option, known, "for a storage")
        values = {option.name: _value(option, given, prefix) for option in STORAGE_OPTIONS}
        parsed = cls(name, values, own_options)
        _check_storage(parsed)
        return parsed


@dataclass(frozen=True)
class Settings:
    """All options by name, those of each storage, and the overrides for buckets and collections.

    ``storages`` begins with the default one, whose options are also among all options.
    """

    values: Mapping[str, Any]
    storages: Mapping[str, StorageSettings]
    overrides: Mapping[tuple[str, ...], Mapping[str, Any]] = field(default_factory=dict)
    readonly: bool = False
    # Kinto's own settings, which take precedence over the Host header.
    http_scheme: str | None = None
    http_host: str | None = None

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def for_collection(
        self, bucket_id: str, collection_id: str, alias: str | None = None
    ) -> CollectionSettings:
        """The settings for a collection: the most specific one takes precedence.

        ``alias`` is another name of the bucket; settings for its id take precedence.
        """
        names = [bucket_id] if alias is None else [alias, bucket_id]
        rules = {
            option.name: self.values[option.name] for option in OPTIONS if option.per_collection
        }
        overrides: dict[str, str] = {}
        for resource in (*((name,) for name in names), *((name, collection_id) for name in names)):
            own = self.overrides.get(resource, {})
            rules |= own
            overrides |= {name: resource_name(resource, name) for name in own}
        rules["mimetypes"] = rules["mimetypes"] or {}
        return CollectionSettings(**rules, overrides=overrides)

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Settings:
        """Read Kinto's settings (and its environment variables).

        :raises ConfigurationError: the message names the setting, and suggests one for a typo.
        """
        given = {k.removeprefix(PREFIX): v for k, v in settings.items() if k.startswith(PREFIX)}
        overrides: dict[tuple[str, ...], dict[str, Any]] = {}
        of_storages: dict[str, dict[str, Any]] = {"": {}}
        of_storages.update((name, {}) for name in _storages_of_environment())
        for name, value in given.items():
            if name.startswith(RESOURCES):
                resource, option = _resource_option(name)
                own = overrides.setdefault(resource, {})
                parsed_value = _parsed(option, name, value)
                if own.setdefault(option.name, parsed_value) != parsed_value:
                    raise ConfigurationError(f"{full_name(name)} and its other name disagree.")
            elif name.startswith(STORAGES):
                storage, own_name = _storage_option(name)
                of_storages.setdefault(storage, {})[own_name] = value
            elif name.startswith(BACKEND) or _known(name, name, _BY_NAME) in STORAGE_OPTIONS:
                of_storages[""][name] = value
        storages = {name: StorageSettings.parse(name, own) for name, own in of_storages.items()}
        others = (option for option in OPTIONS if option not in STORAGE_OPTIONS)
        values = {**storages[""].values, **{each.name: _value(each, given) for each in others}}
        parsed = cls(
            values,
            storages,
            overrides,
            readonly=boolean(settings.get("readonly", False)),
            http_scheme=settings.get("http_scheme") or None,
            http_host=settings.get("http_host") or None,
        )
        _check_choices(parsed)
        _check_sizes(parsed)
        return parsed


def _as_text(value: object) -> str:
    # Kinto parses settings as JSON if possible: ``true`` becomes a boolean.
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _storage_prefix(name: str) -> str:
    return f"{STORAGES}{name}." if name else ""


def _storage_option(name: str) -> tuple[str, str]:
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


def _storages_of_environment() -> list[str]:
    """The names of storages that environment variables have settings of."""
    prefix = _in_environment(full_name(STORAGES))
    options = {_in_environment(name) for name, o in _BY_NAME.items() if o in STORAGE_OPTIONS}
    own = _in_environment(BACKEND)
    found = []
    for variable in sorted(os.environ):
        name, _, option = variable.removeprefix(prefix).partition("_")
        if variable.startswith(prefix) and (option in options or option.startswith(own)):
            found.append(_storage_option(f"{STORAGES}{name.lower()}.{option.lower()}")[0])
    return found


def _in_environment(name: str) -> str:
    return name.replace(".", "_").upper()  # As Kinto's read_env does.


def _value(option: Option, given: Mapping[str, Any], prefix: str = "") -> Any:
    """The option's value from the settings, the environment or its default.

    ``prefix`` is what the names of the settings have in front of those in ``given``.

    :raises ConfigurationError: it is set to different values under two names, or is invalid.
    """
    names = (option.name, *option.aliases)
    found = {name: read_env(full_name(prefix + name), given.get(name)) for name in names}
    parsed = {
        name: _parsed(option, prefix + name, value)
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


def _parsed(option: Option, name: str, value: object) -> Any:
    try:
        return option.parse(value)
    except ValueError as error:
        raise ConfigurationError(f"{full_name(name)}: {error} (it is {value!r}).") from error


def _resource_option(name: str) -> tuple[tuple[str, ...], Option]:
    """Split ``resources.{bucket}[.{collection}].NAME``."""
    *resource, option = name.removeprefix(RESOURCES).split(".")
    if len(resource) not in (1, 2) or not all(resource):
        raise ConfigurationError(
            f"{full_name(name)} should be {full_name(RESOURCES)}BUCKET.NAME "
            f"or {full_name(RESOURCES)}BUCKET.COLLECTION.NAME."
        )
    scoped = {key: value for key, value in _BY_NAME.items() if value.per_collection}
    return tuple(resource), _known(option, name, scoped, "for a bucket or collection")


def _known(option: str, name: str, known: Mapping[str, Option], where: str = "") -> Option:
    """The option of this name among those known, which are those for ``where``."""
    if option in known:
        return known[option]
    message = f"{full_name(name)} is not a setting of kinto_attachment"
    if option in _BY_NAME:
        message += f" {where}"
    likely = difflib.get_close_matches(option, known, n=1)
    if likely:
        message += f". Did you mean {full_name(name.removesuffix(option) + likely[0])}?"
    raise ConfigurationError(message)


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


def _check_choices(settings: Settings) -> None:
    """Check that the storages exist which get new files."""
    chosen = {"storage": settings["storage"]} | {
        f"{RESOURCES}{'.'.join(resource)}.storage": options["storage"]
        for resource, options in settings.overrides.items()
        if "storage" in options
    }
    for setting, name in chosen.items():
        if name not in settings.storages:
            known = [known or DEFAULT_STORAGE for known in settings.storages]
            message = f"{full_name(setting)}: there is no storage {name!r} ({', '.join(known)})."
            likely = difflib.get_close_matches(name, known, n=1)
            raise ConfigurationError(message + (f" Did you mean {likely[0]}?" if likely else ""))


def _check_sizes(settings: Settings) -> None:
    for resource in [(), *settings.overrides]:
        bucket_id, collection_id = (*resource, "", "")[:2]
        rules = settings.for_collection(bucket_id, collection_id)
        if 0 < rules.max_size < rules.min_size:
            raise ConfigurationError(
                f"{rules.setting('min_size')} is larger than {rules.setting('max_size')}: "
                "no file could be stored."
            )


def resource_name(resource: tuple[str, ...], name: str) -> str:
    """The full name of a setting for a bucket or a collection."""
    return full_name(f"{RESOURCES}{'.'.join((*resource, name))}")


def full_name(name: str) -> str:
    """The full name of a setting, as in an ini file."""
    return f"kinto.{PREFIX}{name}"
