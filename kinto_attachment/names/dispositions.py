"""Filenames in the header ``Content-Disposition``."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

from kinto_attachment.errors import InvalidBody

from .filenames import MAX_FILENAME_BYTES, printable, shortened
from .tokens import TOKEN

_DISPOSITION_TYPE = re.compile(rf"[ \t]*{TOKEN}[ \t]*")
_DISPOSITION_PARAMETER = re.compile(
    rf';[ \t]*({TOKEN})[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^ \t;"]+)[ \t]*', re.S
)
_EXTENDED_VALUE = re.compile(
    r"(utf-8|iso-8859-1)'[^']*'((?:[!#$&+.^_`|~0-9a-z-]|%[0-9a-f]{2})*)", re.I
)
# ASCII without the characters that clients parse differently.
_PLAIN = re.compile(r'(?:(?!["\\%/])[ -~])+')
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"  # RFC 8187 3.2.1, beside letters and digits.


def content_disposition(filename: str, kind: str = "attachment") -> str:
    """The value of a response's ``Content-Disposition`` (RFC 6266), in ASCII.

    ``kind`` is ``attachment`` or ``inline``. Names written by other code may be too long, and
    are shortened.
    """
    if kind not in ("attachment", "inline"):
        raise ValueError(f"Not a disposition: {kind!r}")
    if len(filename) <= MAX_FILENAME_BYTES and _PLAIN.fullmatch(filename):
        return f'{kind}; filename="{filename}"'
    name = shortened(printable(filename))
    if not name:
        return kind
    # RFC 6266 appendix D: clients parse quotes, backslashes and percents in ``filename``
    # differently.
    letters = (c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    # Shortened again: one character may decompose to eighteen.
    fallback = re.sub(r'[^ -~]|["\\%/]', "_", shortened("".join(letters)))
    header = f'{kind}; filename="{fallback}"'
    if fallback == name:
        return header
    return f"{header}; filename*=UTF-8''{quote(name, safe=_ATTRIBUTE_CHARACTERS)}"


def disposition_type(header: str) -> str:
    """The type of a disposition, such as ``inline``."""
    return header.partition(";")[0].strip().lower()


def disposition_filename(header: str) -> str | None:
    """The filename in a request's ``Content-Disposition``; ``filename*`` takes precedence.

    :raises InvalidBody: the header is malformed (RFC 6266 4.1, RFC 8187 3.2).
    """
    parameters = _disposition_parameters(header)
    if "filename*" in parameters:
        match = _EXTENDED_VALUE.fullmatch(parameters["filename*"])
        if not match:
            raise InvalidBody("Content-Disposition has an invalid filename*.")
        try:
            return unquote_to_bytes(match[2]).decode(match[1])
        except UnicodeDecodeError as error:
            raise InvalidBody("Content-Disposition has an invalid filename*.") from error
    value = parameters.get("filename")
    if value is None:
        return None
    if value.startswith('"'):
        # Only these two are escaped (RFC 9110 5.6.4); other backslashes are of Windows paths.
        value = re.sub(r'\\(["\\])', r"\1", value[1:-1])
    try:
        return value.encode("latin-1").decode("utf-8")  # WSGI passes header bytes as Latin-1.
    except UnicodeError:
        return value


def _disposition_parameters(header: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    header = header.rstrip(" \t;")
    match = _DISPOSITION_TYPE.match(header)
    while match and match.end() < len(header):
        match = _DISPOSITION_PARAMETER.match(header, match.end())
        if match:
            name = match[1].lower()
            if name in parameters:
                raise InvalidBody(f"Content-Disposition has {name} twice.")
            parameters[name] = match[2]
    if not match:
        raise InvalidBody("Content-Disposition is malformed.")
    return parameters
