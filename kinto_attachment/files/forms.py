"""The form of an upload: JSON fields and one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kinto.core.resource import has_null_character
from kinto.core.utils import json
from multipart import MultipartSegment

from kinto_attachment.errors import InvalidForm, TooLarge
from kinto_attachment.http.multipart import parts
from kinto_attachment.http.streams import CHUNK_SIZE, Reader
from kinto_attachment.names import disposition_filename

FILE_FIELD = "attachment"
JSON_FIELDS = ("data", "permissions")
MAX_FIELD_SIZE = 1024 * 1024
MAX_NESTING = 100  # Kinto and its backends process values recursively.

_EXTENDED_FILENAME = re.compile(r";[ \t]*filename\*", re.I)

T = TypeVar("T")
JSONObject = dict[str, Any]


@dataclass(frozen=True)
class FilePart:
    """The form's file, before its bytes are read.

    ``filename`` is unchanged from the client and may contain folders. Names in ``headers`` are
    lowercase. ``reader`` may return fewer bytes than asked for, and ends with the part.
    """

    filename: str
    content_type: str | None
    headers: Mapping[str, str]
    reader: Reader


@dataclass(frozen=True)
class Form(Generic[T]):
    """A complete form: what ``on_file`` returned, and the JSON fields if they were sent."""

    file: T
    data: JSONObject | None
    permissions: JSONObject | None


def read_form(
    body: Reader,
    content_type: str,
    on_file: Callable[[FilePart], T],
    *,
    chunk_size: int = CHUNK_SIZE,
) -> Form[T]:
    """Parse a form whose parts may come in any order; pass its file on as it arrives.

    ``on_file`` is called once, and has to read the file. Errors may be raised after it has
    returned; the caller has to undo its effects. Without an error, the body is read to its end.

    :raises InvalidBody: not a well-formed multipart/form-data body.
    :raises InvalidForm: the fields are not those of the endpoint.
    :raises TooLarge: a field or a header exceeds its limit.
    """
    files: list[T] = []
    fields: dict[str, JSONObject] = {}
    for part, reader in parts(body, content_type, chunk_size=chunk_size):
        seen = {*fields, *([FILE_FIELD] if files else [])}
        _check_part(part, seen)
        if part.name == FILE_FIELD:
            files.append(on_file(_file_part(part, reader)))
        else:
            fields[part.name] = read_json(part.name, reader)
    if not files:
        raise InvalidForm("Attachment missing.")
    return Form(files[0], fields.get("data"), fields.get("permissions"))


def read_json(name: str, reader: Reader, *, optional: bool = False) -> JSONObject:
    """A JSON object, parsed as Kinto parses the body of a record write.

    If it is ``optional``, an empty text is an empty object.

    :raises InvalidForm: it is not a JSON object.
    :raises TooLarge: it has more than :data:`MAX_FIELD_SIZE` bytes.
    """
    text = _field(name, reader)
    return {} if optional and not text.strip() else json_object(name, text)


def _check_part(part: MultipartSegment, seen: Collection[str]) -> None:
    """Refuse a part before its content is read."""
    name = part.name[:100]
    if not name:
        raise InvalidForm("body: A form field has no name.")
    if name in seen:
        raise InvalidForm(f"body: {name!r} field should be sent only once.")
    if name not in (FILE_FIELD, *JSON_FIELDS):
        if part.filename is not None:
            raise InvalidForm(
                f"body: the file should be in the field {FILE_FIELD!r}, not {name!r}"
            )
        raise InvalidForm(f"body: {name!r} not in {JSON_FIELDS}")
    if name in JSON_FIELDS and part.filename is not None and not _is_json(part):
        raise InvalidForm(f"body: {name!r} field should be passed as form data, not files")
    # RFC 7578 4.7 deprecates it. Ignoring it would store Base64 text instead of the file.
    encoding = part.header("Content-Transfer-Encoding", "binary").strip().lower()
    if encoding not in ("binary", "8bit", "7bit"):
        raise InvalidForm(f"body: {name!r} field has a Content-Transfer-Encoding.")


def _is_json(part: MultipartSegment) -> bool:
    # Pages can only give a field a type by making it a Blob, which gets a filename.
    content_type: str = part.header("Content-Type", "")
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _file_part(part: MultipartSegment, reader: Reader) -> FilePart:
    headers: dict[str, str] = {}
    for name, value in part.headerlist:
        headers[name.lower()] = ", ".join(filter(None, [headers.get(name.lower()), value]))
    filename = part.filename
    if _EXTENDED_FILENAME.search(headers["content-disposition"]):
        # Not allowed in forms (RFC 7578 4.2), but some clients use it.
        filename = disposition_filename(headers["content-disposition"])
    if not filename:
        raise InvalidForm("body: Filename is required.")
    return FilePart(filename, headers.get("content-type"), headers, reader)


def _field(name: str, reader: Reader) -> str:
    content = bytearray()
    while chunk := reader.read(CHUNK_SIZE):
        content += chunk
        if len(content) > MAX_FIELD_SIZE:
            raise TooLarge(f"body: {name!r} field exceeds the limit of {MAX_FIELD_SIZE} bytes.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidForm(f"body: {name} is not valid JSON (not UTF-8)") from error


def json_object(name: str, text: str) -> JSONObject:
    """Parsed as Kinto parses the body of a record write: no NaN, no lone surrogates.

    :raises InvalidForm: it is not a JSON object, or Kinto could not store it.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidForm(f"body: {name} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise InvalidForm(f"body: {name} is not a JSON object")
    if _is_nested_too_deep(value):
        raise InvalidForm(f"body: {name} is nested more than {MAX_NESTING} levels deep")
    if "\\u0000" in text and has_null_character(value):  # PostgreSQL cannot store it.
        raise InvalidForm(f"body: {name} has an invalid character 0x00")
    return value


def _is_nested_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_NESTING):
        inner = [item for item in level if isinstance(item, dict | list)]
        level = [
            child
            for item in inner
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(level)
