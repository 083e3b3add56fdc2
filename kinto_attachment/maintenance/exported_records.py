"""Parsing the collections and records of an export, without checking the target.

Anybody may have written the export. Everything that this server would not write is refused, with
the line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import colander
from kinto.core.utils import msec_time
from kinto.views.buckets import Bucket
from kinto.views.collections import Collection, CollectionSchema
from kinto.views.records import Record

from kinto_attachment import names
from kinto_attachment.errors import InvalidForm
from kinto_attachment.kinto_types import KintoObject, Registry
from kinto_attachment.maintenance import exported
from kinto_attachment.maintenance.manifest import MIMETYPE
from kinto_attachment.metadata import FIELD, Attachment
from kinto_attachment.uris import CollectionURI

MAX_LINE = 16 * 1024 * 1024
MAX_DEPTH = 100
MAX_SIZE = 2**63 - 1
MAX_PRINCIPAL = 1000
DAY = 24 * 3600 * 1000
SHA256 = re.compile("[0-9a-f]{64}")
PERMISSIONS = {
    kind: frozenset(resource.permissions)
    for kind, resource in (("bucket", Bucket), ("collection", Collection), ("record", Record))
}
Permissions = dict[str, list[str]]


class Invalid(ValueError):
    """The export is invalid; the message is one line without its content."""


@dataclass(frozen=True)
class ExportedObject:
    """A bucket, a collection, or a record without its file."""

    data: KintoObject
    permissions: Permissions | None

    @property
    def id(self) -> str:
        return str(self.data["id"])


@dataclass(frozen=True)
class ExportedRecord(ExportedObject):
    """A record. The ``location`` of its file is empty; ``extra`` are members of other code."""

    file: Attachment | None
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class ExportedCollection:
    bucket: ExportedObject
    collection: ExportedObject
    has_permissions: bool
    records: int

    @property
    def uri(self) -> CollectionURI:
        return CollectionURI(self.bucket.id, self.collection.id)


class Parser:
    """Parses an export, whose ids have to be valid at the target."""

    def __init__(self, registry: Registry) -> None:
        self._ids = registry.id_generators
        self._latest = msec_time() + DAY

    def site(self, content: bytes) -> list[CollectionURI]:
        """The collections in ``export.json``.

        :raises Invalid:
        """
        value = self._described(content)
        named = value.get("collections")
        if not isinstance(named, list):
            raise Invalid("`collections` should be a list")
        found = []
        for each in named:
            if not isinstance(each, dict) or each.keys() != {"bucket", "collection"}:
                raise Invalid("each of `collections` should have a `bucket` and a `collection`")
            ids = self._id("bucket", each["bucket"]), self._id("collection", each["collection"])
            found.append(CollectionURI(*ids))
        if len({*found}) != len(found):
            raise Invalid("a collection is named twice")
        return found

    def collection(self, content: bytes) -> ExportedCollection:
        """The content of ``collection.json``.

        :raises Invalid:
        """
        value = self._described(content)
        records, has_permissions = value.get("records"), value.get("has_permissions")
        if type(records) is not int or type(has_permissions) is not bool:
            raise Invalid("`records` should be a number, and `has_permissions` true or false")
        bucket = self._object("bucket", value.get("bucket"))
        collection = self._object("collection", value.get("collection"))
        try:
            CollectionSchema().deserialize(collection.data)
        except colander.Invalid as error:
            raise Invalid(f"`collection`: Kinto refuses it: {first_of(error)}") from error
        return ExportedCollection(bucket, collection, has_permissions, records)

    def record(self, line: bytes) -> ExportedRecord:
        """A line of ``records.jsonl``.

        :raises Invalid:
        """
        found = self._object("record", loads(line))
        attachment = found.data.get(FIELD)
        if attachment is None:
            return ExportedRecord(found.data, found.permissions, None, {})
        file, extra = _file(attachment)
        return ExportedRecord(found.data, found.permissions, file, extra)

    def _described(self, content: bytes) -> dict[str, Any]:
        value = loads(content)
        if not isinstance(value, dict) or value.get("format") != exported.FORMAT:
            raise Invalid(f"`format` should be {exported.FORMAT}")
        return value

    def _object(self, kind: str, value: Any) -> ExportedObject:
        if not isinstance(value, dict) or not {"data"} <= value.keys() <= {"data", "permissions"}:
            raise Invalid(f"a {kind} should have `data`, and may have `permissions`")
        data = value["data"]
        if not isinstance(data, dict):
            raise Invalid("`data` should be an object")
        self._id(kind, data.get("id"))
        timestamp = data.get("last_modified")
        if type(timestamp) is not int or not 0 < timestamp <= self._latest:
            raise Invalid("`last_modified` should be in ms since the epoch, and not in the future")
        permissions = None
        if "permissions" in value:
            permissions = _permissions(kind, value["permissions"])
        return ExportedObject(data, permissions)

    def _id(self, kind: str, value: Any) -> str:
        generator = self._ids.get(kind, self._ids[""])
        if not isinstance(value, str) or not 0 < len(value) <= 255:
            raise Invalid(f"`id` of the {kind} should be a text of up to 255 characters")
        is_plain = names.printable(value) == value and not {*value} & {"*", "/"}
        if not is_plain or not generator.match(value):
            raise Invalid(f"`id` of the {kind} is none that the server allows")
        return value


def loads(content: bytes) -> Any:
    """JSON (RFC 8259) without anything that a database or another parser treats differently.

    :raises Invalid:
    """
    try:
        value = json.loads(
            content.decode(),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
        _check_texts(value)
    except RecursionError as error:
        raise Invalid("it is nested too deeply") from error
    except UnicodeError as error:
        raise Invalid("it is not UTF-8") from error
    except Invalid:
        raise
    except ValueError as error:
        raise Invalid("it is no JSON") from error
    return value


def first_of(error: colander.Invalid) -> str:
    return "; ".join(f"{name}: {text}" for name, text in error.asdict().items())[:500]


def _refuse_constant(text: str) -> NoReturn:
    raise Invalid(f"{text} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Invalid("it has a number that is too large")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Invalid("it has an object with two members of the same name")
    return found


def _check_texts(value: Any, depth: int = 0) -> None:
    """PostgreSQL cannot store NUL and lone surrogates."""
    if depth > MAX_DEPTH:
        raise Invalid("it is nested too deeply")
    if isinstance(value, str):
        if "\0" in value or (not value.isascii() and _has_surrogates(value)):
            raise Invalid("it has characters that cannot be stored")
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_texts(name, depth)
            _check_texts(member, depth + 1)
    elif isinstance(value, list):
        for member in value:
            _check_texts(member, depth + 1)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _permissions(kind: str, value: Any) -> Permissions:
    if not isinstance(value, dict) or not value.keys() <= PERMISSIONS[kind]:
        raise Invalid(f"`permissions` should have some of {', '.join(sorted(PERMISSIONS[kind]))}")
    for principals in value.values():
        if not isinstance(principals, list) or not all(map(_is_principal, principals)):
            raise Invalid("each of `permissions` should be a list of principals")
    return value


def _is_principal(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_PRINCIPAL
        and names.printable(value) == value.strip() == value
    )


def _file(value: Any) -> tuple[Attachment, dict[str, Any]]:
    if not isinstance(value, dict):
        raise Invalid("`attachment` should be an object")
    _check_described(value)
    original = value.get("original")
    if original is not None:
        if not isinstance(original, dict) or original.keys() - {*_KNOWN[:4]}:
            raise Invalid("`original` should have `filename`, `hash`, `mimetype` and `size`")
        _check_described(original)
    if value.get("encoding") not in (None, "gzip"):
        raise Invalid("`encoding` can only be gzip")
    extra = {name: member for name, member in value.items() if name not in _KNOWN}
    return Attachment.at("", value), extra


_KNOWN = ("filename", "hash", "mimetype", "size", "location", "original", "encoding")


def _check_described(value: Mapping[str, Any]) -> None:
    size, digest, filename, mimetype = (
        value.get(name) for name in ("size", "hash", "filename", "mimetype")
    )
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise Invalid("`size` of a file should be a number of bytes")
    if not isinstance(digest, str) or not SHA256.fullmatch(digest):
        raise Invalid("`hash` of a file should be a SHA-256 in hex")
    if not isinstance(mimetype, str) or not MIMETYPE.fullmatch(mimetype):
        raise Invalid("`mimetype` of a file should be a media type")
    try:
        is_clean = isinstance(filename, str) and names.clean_filename(filename) == filename
    except InvalidForm:
        is_clean = False
    if not is_clean:
        raise Invalid("`filename` of a file should be the name of a file, without folders")
