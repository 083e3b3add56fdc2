"""The settings: parsed once at start-up into a frozen object, by the table of options."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pyramid.exceptions import ConfigurationError

from kinto_attachment.names import Pattern
from kinto_attachment.options import OPTIONS, STORAGE_OPTIONS, Option
from kinto_attachment.parsers import DEFAULT_STORAGE, boolean
from kinto_attachment.quota_settings import NAMES as QUOTAS, Quotas
from kinto_attachment.setting_values import (
    BY_NAME,
    PREFIX,
    full_name,
    known_option,
    parsed_value,
    value_of,
)
from kinto_attachment.storage_settings import (
    BACKEND,
    STORAGES,
    StorageSettings,
    storage_option,
    storages_of_environment,
)

RESOURCES = "resources."


@dataclass(frozen=True)
class CollectionSettings:
    """The options that apply to one collection; attributes have the options' names."""

    storage: str
    folder: Pattern | None
    randomize: bool
    filename_pattern: Pattern
    keep_old_files: bool
    max_versions: int
    kept_max_age: float
    max_age: float
    versions_permission: str
    linger: float
    extensions: frozenset[str]
    mimetypes: Mapping[str, str]
    max_size: int
    min_size: int
    gzipped: bool
    content_encodings: frozenset[str]
    client_metadata: str
    delete_on_omission: bool
    locked: bool
    hold: float
    direct: bool
    inline_types: frozenset[str]
    # The full names of settings for a bucket or a collection, by option.
    overrides: Mapping[str, str] = field(default_factory=dict, compare=False)

    def setting(self, option: str) -> str:
        """The full name of the setting that provides an option's value."""
        return self.overrides.get(option, full_name(option))


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
    server_secret: str = field(default="", repr=False)

    @cached_property
    def quotas(self) -> Quotas:
        return Quotas(self.values, self.overrides)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def are_set(self, option: str) -> bool:
        """Whether an option has a true value for the server, a bucket or a collection."""
        every = [self.values, *self.overrides.values()]
        return any(values.get(option) for values in every)

    def for_collection(
        self, bucket_id: str, collection_id: str, alias: str | None = None
    ) -> CollectionSettings:
        """The settings for a collection: the most specific one takes precedence.

        ``alias`` is another name of the bucket. Settings for its id take precedence.
        """
        if not self.overrides:
            return self._of_server
        names = [bucket_id] if alias is None else [alias, bucket_id]
        resources = [*((name,) for name in names), *((name, collection_id) for name in names)]
        own = [resource for resource in resources if resource in self.overrides]
        return self._merged(own) if own else self._of_server

    @cached_property
    def _of_server(self) -> CollectionSettings:
        """The settings of all collections without special settings."""
        return self._merged(())

    def _merged(self, resources: Iterable[tuple[str, ...]]) -> CollectionSettings:
        rules = {
            option.name: self.values[option.name]
            for option in OPTIONS
            if option.per_collection and option.name not in QUOTAS
        }
        overrides: dict[str, str] = {}
        for resource in resources:
            given = self.overrides[resource]
            # Quotas accumulate: that of the bucket applies in addition to that of the collection.
            own = {name: value for name, value in given.items() if name not in QUOTAS}
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
        of_storages.update((name, {}) for name in storages_of_environment())
        for name, value in given.items():
            if name.startswith(RESOURCES):
                resource, option = _resource_option(name)
                own = overrides.setdefault(resource, {})
                own_value = parsed_value(option, name, value)
                if own.setdefault(option.name, own_value) != own_value:
                    raise ConfigurationError(f"{full_name(name)} and its other name disagree.")
            elif name.startswith(STORAGES):
                storage, own_name = storage_option(name)
                of_storages.setdefault(storage, {})[own_name] = value
            elif name.startswith(BACKEND) or known_option(name, name, BY_NAME) in STORAGE_OPTIONS:
                of_storages[""][name] = value
        storages = {name: StorageSettings.parse(name, own) for name, own in of_storages.items()}
        others = (option for option in OPTIONS if option not in STORAGE_OPTIONS)
        values = {**storages[""].values, **{each.name: value_of(each, given) for each in others}}
        parsed = cls(
            values,
            storages,
            overrides,
            readonly=boolean(settings.get("readonly", False)),
            http_scheme=settings.get("http_scheme") or None,
            http_host=settings.get("http_host") or None,
            server_secret=str(settings.get("userid_hmac_secret") or ""),
        )
        _check_choices(parsed)
        _check_patterns(parsed)
        _check_sizes(parsed)
        return parsed


def _resource_option(name: str) -> tuple[tuple[str, ...], Option]:
    """Split ``resources.{bucket}[.{collection}].NAME``."""
    *resource, option = name.removeprefix(RESOURCES).split(".")
    if len(resource) not in (1, 2) or not all(resource):
        raise ConfigurationError(
            f"{full_name(name)} should be {full_name(RESOURCES)}BUCKET.NAME "
            f"or {full_name(RESOURCES)}BUCKET.COLLECTION.NAME."
        )
    scoped = {key: value for key, value in BY_NAME.items() if value.per_collection}
    return tuple(resource), known_option(option, name, scoped, "for a bucket or collection")


def _check_choices(settings: Settings) -> None:
    """Check that the storages for new files exist."""
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


def _check_patterns(settings: Settings) -> None:
    """Check that patterns with random names contain the random name."""
    for resource in [(), *settings.overrides]:
        bucket_id, collection_id = (*resource, "", "")[:2]
        rules = settings.for_collection(bucket_id, collection_id)
        if rules.randomize and "filename" not in rules.filename_pattern.fields:
            where = ".".join((*resource, "")) if resource else ""
            setting = full_name(f"{RESOURCES if where else ''}{where}filename_pattern")
            raise ConfigurationError(
                f"{setting}: with `randomize`, it should have {{filename}}, which stands for the "
                f"random name (it is {rules.filename_pattern.text!r})."
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
