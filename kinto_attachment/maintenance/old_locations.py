"""Locations of files from earlier configurations and other releases.

With the previous plugin, users who could write a record could also write its ``attachment``. So
these are only candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import quote, unquote

from kinto_attachment import names
from kinto_attachment.errors import InvalidKey
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.maintenance.linking import Candidate, Locate, by_location
from kinto_attachment.metadata import FIELD


def by_old_location(registry: Registry, old_base_urls: Iterable[str]) -> Locate:
    """Also try the given base URLs, and relative locations, in every storage."""
    own = by_location(registry)
    bases = [form for url in old_base_urls for form in _forms(url)]

    def locate(uri: str, record: KintoObject) -> list[Candidate]:
        keys = dict.fromkeys(_keys(record[FIELD]["location"], bases)) if is_text(record) else {}
        own_ones = [Candidate(each.storage, each.key, False) for each in own(uri, record)]
        storages = registry.attachment_storages
        return own_ones + [Candidate(each.name, key, False) for each in storages for key in keys]

    return locate


def is_text(record: KintoObject) -> bool:
    return isinstance(record[FIELD].get("location"), str)


def names_key(record: KintoObject, key: str) -> bool:
    """Whether a record's location ends with a key, quoted or not."""
    if not is_text(record):
        return False
    location: str = record[FIELD]["location"]
    return any(
        location == form or location.endswith(f"/{form}")
        for form in {key, quote(key, safe="/"), quote(key, safe="/+:@")}
    ) or unquote(location).endswith(f"/{key}")


def _forms(base_url: str) -> Iterator[str]:
    """A base URL in the forms in which it may have been joined to a key."""
    if base_url.endswith("/"):
        yield base_url
    else:
        yield f"{base_url}/"
        # Without a slash at its end, the other plugin replaces the last segment (RFC 3986 5.2).
        yield f"{base_url.rpartition('/')[0]}/"


def _keys(location: str, bases: Iterable[str]) -> Iterator[str]:
    """The keys that a location may contain: below one of the base URLs, or relative."""
    below = [location[len(base) :] for base in bases if location.startswith(base)]
    if "://" not in location:
        below.append(location.lstrip("/"))
    for path in below:
        for key in (unquote(path), path):  # It quotes keys only in some storages.
            with suppress(InvalidKey):
                yield names.check_key(key)
