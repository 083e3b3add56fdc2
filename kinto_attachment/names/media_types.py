"""Media types of files."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping

from kinto_attachment.errors import InvalidForm

from .filenames import extension, last_segment
from .tokens import TOKEN

MAX_MEDIA_TYPE_LENGTH = 255

# The types that clients send for files of unknown type. For example, curl calls every body of
# ``--data-binary`` a form.
UNTOLD_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")

# The media types of compressed files: the type of their content is not that of the bytes.
COMPRESSED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
    "br": "application/x-brotli",
}

_SENDABLE = re.compile(r"[\w!#$&^.+-]+/[ -~]+", re.ASCII)

# RFC 6838 4.2 is narrower than RFC 9110 8.3.1: it excludes ``*/*``, which is a range and not a
# type.
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
_MEDIA_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({TOKEN}=(?:{TOKEN}|"(?:[ !#-\[\]-~]|\\["\\])*"))')
_MEDIA_PARAMETERS = re.compile(rf"(?:{_MEDIA_PARAMETER.pattern})*[ \t;]*")


def mimetype(filename: str, declared: str | None, by_extension: Mapping[str, str]) -> str:
    """The media type: the configured one for the extension, else the declared one, else a guess.

    ``by_extension`` has keys such as ``.txt``. A declared type that is malformed (RFC 9110 8.3.1)
    is ignored; its parameters are kept if all of them are well-formed ASCII. One of
    :data:`UNTOLD_TYPES` is replaced by the guess, if there is one.
    """
    told = _media_type(declared or "")
    if told is None or told.partition(";")[0] in UNTOLD_TYPES:
        told = _guessed_type(filename) or told or UNTOLD_TYPES[0]
    return by_extension.get("." + extension(filename)) or told


def media_type(declared: str) -> str:
    """A media type from a client, normalized.

    :raises InvalidForm: it is not a media type (RFC 9110 8.3.1).
    """
    normal = _media_type(declared)
    if normal is None:
        raise InvalidForm("body: mimetype should be a media type, such as text/plain")
    return normal


def sendable_type(stored: str) -> str:
    """The media type of a file for a header: metadata may have been written by other code."""
    return stored if _SENDABLE.fullmatch(stored) else "application/octet-stream"


def _media_type(declared: str) -> str | None:
    essence, semicolon, rest = declared.partition(";")
    essence = essence.strip(" \t").lower()
    if not _MEDIA_TYPE.fullmatch(essence) or len(declared) > MAX_MEDIA_TYPE_LENGTH:
        return None
    parameters = []
    if rest and _MEDIA_PARAMETERS.fullmatch(semicolon + rest):
        parameters = _MEDIA_PARAMETER.findall(semicolon + rest)
    return "; ".join([essence, *parameters])


def _guessed_type(filename: str) -> str | None:
    # The slash prevents a name such as ``data:text/html,`` from being parsed as a URL.
    kind, encoding = mimetypes.guess_type("/" + last_segment(filename))
    if encoding:
        kind = COMPRESSED.get(encoding)
    return kind
