"""The settings: parsed once at start-up into a frozen object, by the table of options."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kinto.core.utils import read_env
from pyramid.exceptions import ConfigurationError

from kinto_attachment.names import Pattern
from kinto_attachment.options import BACKENDS, OPTIONS, Option, base_url, boolean, text

PREFIX = "attachment."  # Kinto strips its own ``kinto.`` from the names of settings.
RESOURCES = "resources."
BACKEND = "backend."  # The prefix of the options of a third-party storage.

_BY_NAME = {name: option for option in OPTIONS for name in (option.name, *option.aliases)}


@dataclass(frozen=True)
class CollectionSettings:
    """The options that apply to one collection; attributes have the options' names."""

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
class Settings:
    """All options by name, and the overrides for buckets and collections."""

    values: Mapping[str, Any]
    overrides: Mapping[tuple[str, ...], Mapping[str, Any]] = field(default_factory=dict)
    own_options: Mapping[str, Any] = field(
        default_factory=dict
    )  # Of a third-party storage, unparsed.
    readonly: bool = False
    # Kinto's own settings, which take precedence over the Host header.
    http_scheme: str | None = None
    http_host: str | None = None

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @cached_property
    def backend(self) -> str:
        """The name of the option that chooses the storage."""
        return next(name for name in BACKENDS if self.values[name])

    def backend_options(self, known: Iterable[str]) -> dict[str, str]:
        """The options of the class that ``backend`` names, as texts.

        ``known`` are the names for which the environment is asked, too.
        """
        names = {**dict.fromkeys(known, ""), **self.own_options}
        found = {
            name: _as_text(read_env(f"kinto.{PREFIX}{BACKEND}{name}", value))
            for name, value in names.items()
        }
        return {name: value for name, value in found.items() if value}

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
        values: dict[str, Any] = {}
        overrides: dict[tuple[str, ...], dict[str, Any]] = {}
        own_options: dict[str, Any] = {}
        for name, value in given.items():
            if name.startswith(RESOURCES):
                resource, option = _resource_option(name)
                own = overrides.setdefault(resource, {})
                parsed_value = _parsed(option, name, value)
                if own.setdefault(option.name, parsed_value) != parsed_value:
                    raise ConfigurationError(f"{full_name(name)} and its other name disagree.")
            elif name.startswith(BACKEND):
                own_options[name.removeprefix(BACKEND)] = value
            else:
                _known(name, name, _BY_NAME)
        for option in OPTIONS:
            values[option.name] = _value(option, given)
        parsed = cls(
            values,
            overrides,
            own_options,
            readonly=boolean(settings.get("readonly", False)),
            http_scheme=settings.get("http_scheme") or None,
            http_host=settings.get("http_host") or None,
        )
        _check_backends(parsed)
        _check_sizes(parsed)
        return parsed


def _as_text(value: object) -> str:
    # Kinto parses settings as JSON if possible: ``true`` becomes a boolean.
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _value(option: Option, given: Mapping[str, Any]) -> Any:
    """The option's value from the settings, the environment or its default.

    :raises ConfigurationError: it is set to different values under two names, or is invalid.
    """
    names = (option.name, *option.aliases)
    found = {name: read_env(f"kinto.{PREFIX}{name}", given.get(name)) for name in names}
    parsed = {
        name: _parsed(option, name, value)
        for name, value in found.items()
        if value is not None and (text(value) or option.parse is base_url)
    }
    if not parsed:
        return option.parse(option.default) if option.default is not None else None
    if any(value != next(iter(parsed.values())) for value in parsed.values()):
        raise ConfigurationError(
            " and ".join(f"{full_name(name)}" for name in parsed) + " disagree."
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
    return tuple(resource), _known(option, name, scoped)


def _known(option: str, name: str, known: Mapping[str, Option]) -> Option:
    if option in known:
        return known[option]
    message = f"{full_name(name)} is not a setting of kinto_attachment"
    if option in _BY_NAME:
        message += " for a bucket or collection"
    likely = difflib.get_close_matches(option, known, n=1)
    if likely:
        message += f". Did you mean {full_name(name.removesuffix(option) + likely[0])}?"
    raise ConfigurationError(message)


def _check_backends(settings: Settings) -> None:
    chosen = [name for name in BACKENDS if settings[name]]
    if len(chosen) != 1:
        known = ", ".join(full_name(name) for name in BACKENDS)
        got = " and ".join(full_name(name) for name in chosen) or "none"
        raise ConfigurationError(f"Set one storage, exactly: one of {known} (set: {got}).")
    if settings.own_options and settings.backend != "backend":
        name = next(iter(settings.own_options))
        raise ConfigurationError(
            f"{full_name(BACKEND + name)} is an option of the class that "
            f"{full_name('backend')} names, which is not set."
        )
    if bool(settings["aws.access_key"]) != bool(settings["aws.secret_key"]):
        raise ConfigurationError(
            f"Set both {full_name('aws.access_key')} and {full_name('aws.secret_key')}, "
            "or neither."
        )


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
