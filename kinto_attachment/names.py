"""Filenames of clients, object keys made from them, and both in headers and URLs."""

from __future__ import annotations

import mimetypes
import os.path
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from urllib.parse import quote, unquote, unquote_to_bytes
from uuid import uuid4

from kinto_attachment.errors import InvalidBody, InvalidForm, InvalidKey

# The limit of file systems. Longer ones make headers that web servers refuse: nginx has 4 KiB for
# all headers, and a byte of a name may become eight in a redirect to a signed URL.
MAX_FILENAME_BYTES = 255
MAX_SAFE_NAME_BYTES = 200  # Leaves room for a number or a prefix, within the 255 of file systems.
MAX_EXTENSION_BYTES = 32  # Longer ones are not taken for extensions.
MAX_NUMBER = 10_000
MAX_MEDIA_TYPE_LENGTH = 255

# The media types of compressed files: the type of their content is not that of the bytes.
COMPRESSED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
    "br": "application/x-brotli",
}

MAX_KEY_BYTES = 1024  # S3 and Google Cloud Storage: object keys of up to 1,024 bytes of UTF-8.
MAX_SEGMENT_BYTES = 255  # Linux: NAME_MAX.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  RFC 9110 5.6.2
# RFC 6838 4.2 is narrower than RFC 9110 8.3.1: it leaves out ``*/*``, a range rather than a type.
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
_MEDIA_PARAMETER = rf'[ \t]*;[ \t]*({_TOKEN}=(?:{_TOKEN}|"(?:[ !#-\[\]-~]|\\["\\])*"))'
_DISPOSITION_TYPE = re.compile(rf"[ \t]*{_TOKEN}[ \t]*")
_DISPOSITION_PARAMETER = re.compile(
    rf';[ \t]*({_TOKEN})[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^ \t;"]+)[ \t]*', re.S
)
_EXTENDED_VALUE = re.compile(
    r"(utf-8|iso-8859-1)'[^']*'((?:[!#$&+.^_`|~0-9a-z-]|%[0-9a-f]{2})*)", re.I
)
_INVISIBLE_MARKS = re.compile(r"[\u034f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Embeddings, overrides and isolates (UAX 9): with these, ``gnp.exe`` is shown as ``exe.png``.
_BIDIRECTIONAL_CONTROLS = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"  # RFC 8187 3.2.1, beside letters and digits.


def check_key(key: str) -> str:
    """Return ``key`` if every backend can store a file under it.

    A key consists of segments joined by ``/``. No segment is empty or starts with a dot (so that
    no key means ``..`` or a hidden file) or has a control character or a backslash. The lengths
    are those that all backends support.

    :raises InvalidKey: otherwise.
    """
    try:
        encoded = key.encode("utf-8")
    except UnicodeEncodeError as error:  # Lone surrogates.
        raise InvalidKey() from error
    if not 0 < len(encoded) <= MAX_KEY_BYTES:
        raise InvalidKey()
    for segment in key.split("/"):
        if (
            not segment
            or segment.startswith(".")
            or len(segment.encode("utf-8")) > MAX_SEGMENT_BYTES
        ):
            raise InvalidKey()
    if _FORBIDDEN.search(key):
        raise InvalidKey()
    return key


def clean_filename(raw: str) -> str:
    """The filename of a client, without folders.

    Bidirectional controls are removed here, before the extension is checked.

    :raises InvalidForm: the name is empty, too long, or has control characters.
    """
    raw = _BIDIRECTIONAL_CONTROLS.sub("", raw)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in raw):
        raise InvalidForm("body: Filename has control characters.")
    name = _last_segment(raw)
    if name in ("", ".", ".."):
        raise InvalidForm("body: Filename is required.")
    if len(name.encode("utf-8")) > MAX_FILENAME_BYTES:
        raise InvalidForm(f"body: Filename is longer than {MAX_FILENAME_BYTES} bytes.")
    return name


def printable(name: str) -> str:
    """The name without control characters, bidirectional controls and lone surrogates."""
    kept = (c for c in name if unicodedata.category(c) not in ("Cc", "Cs"))
    return _BIDIRECTIONAL_CONTROLS.sub("", "".join(kept))


def shortened(name: str, suffix: str = "") -> str:
    """The name and ``suffix``, with the stem truncated to at most 255 bytes of UTF-8 in all."""
    stem, dotted = os.path.splitext(name)
    if len(dotted.encode("utf-8")) > MAX_EXTENSION_BYTES:
        stem, dotted = name, ""
    dotted += suffix
    return truncated(stem, MAX_FILENAME_BYTES - len(dotted.encode("utf-8"))) + dotted


def truncated(text: str, size: int) -> str:
    """The beginning of a text, at most ``size`` bytes of UTF-8."""
    return text.encode("utf-8")[:size].decode("utf-8", "ignore")


def extension(filename: str) -> str:
    """What follows the last dot, in lower case; empty for ``name``, ``name.`` and ``.hidden``."""
    return os.path.splitext(_last_segment(filename))[1][1:].lower()


def safe_name(filename: str) -> str:
    """A form of the name that is safe as the last segment of a key, in URLs and in shells.

    Letters, digits and marks of all scripts are kept (in NFC), and ``.``, ``_``, ``-`` and ``+``.
    The result has 1 to 200 bytes of UTF-8, and does not start with a dot or a dash.
    """
    name = unicodedata.normalize("NFC", _last_segment(filename))
    stem, dotted = os.path.splitext(name)
    stem = _safe_characters(stem).lstrip(".-")
    suffix = _safe_characters(dotted[1:])
    if len(suffix.encode("utf-8")) > MAX_EXTENSION_BYTES:
        stem, suffix = f"{stem}_{suffix}", ""
    dotted = f".{suffix}" if suffix else ""
    room = MAX_SAFE_NAME_BYTES - len(dotted.encode("utf-8"))
    stem = truncated(stem, room).rstrip(".")
    return (stem or "file") + dotted


def random_name(filename: str) -> str:
    """A random name (UUID 4) with the file's extension in lower case."""
    return str(uuid4()) + os.path.splitext(safe_name(filename))[1].lower()


def numbered(name: str) -> Iterator[str]:
    """``name``, ``stem-1.ext``, ``stem-2.ext`` …: candidates in case a name is taken."""
    yield name
    stem, dotted = os.path.splitext(name)
    for number in range(1, MAX_NUMBER):
        yield f"{stem}-{number}{dotted}"


def mimetype(filename: str, declared: str | None, by_extension: Mapping[str, str]) -> str:
    """The media type: the configured one for the extension, else the declared one, else a guess.

    ``by_extension`` has keys such as ``.txt``. A declared type that is malformed (RFC 9110 8.3.1)
    is ignored; its parameters are kept if all of them are well-formed ASCII.
    """
    return (
        by_extension.get("." + extension(filename))
        or _media_type(declared or "")
        or _guessed_type(filename)
    )


def media_type(declared: str) -> str:
    """A media type that a client names, in its normal form.

    :raises InvalidForm: it is none (RFC 9110 8.3.1).
    """
    normal = _media_type(declared)
    if normal is None:
        raise InvalidForm("body: mimetype should be a media type, such as text/plain")
    return normal


def content_disposition(filename: str, kind: str = "attachment") -> str:
    """The value of a response's ``Content-Disposition`` (RFC 6266), in ASCII.

    ``kind`` is ``attachment`` or ``inline``. Names written by other code may be too long, and
    are shortened.
    """
    if kind not in ("attachment", "inline"):
        raise ValueError(f"Not a disposition: {kind!r}")
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


def public_url(base_url: str, key: str) -> str:
    """The URL of a key under ``base_url``; relative if that is empty."""
    return _with_slash(base_url) + quote(key, safe="/")


def key_from_url(base_url: str, url: str) -> str | None:
    """The reverse of :func:`public_url`; None if the URL is not under ``base_url``."""
    base = _with_slash(base_url)
    quoted = url[len(base) :]
    absolute = not base and ":" in quoted.split("/")[0]
    if not url.startswith(base) or absolute or quoted.startswith("/") or re.search("[?#]", quoted):
        return None
    try:
        key = unquote(quoted, errors="strict")
    except UnicodeDecodeError:
        return None
    # public_url does not quote slashes.
    return key if key and key.count("/") == quoted.count("/") else None


@dataclass(frozen=True)
class Pattern:
    """A text with placeholders such as ``{bucket_id}``; values are inserted unchanged."""

    text: str
    parts: tuple[tuple[str, str | None], ...]  # Some literal text, and the field after it.

    @classmethod
    def parse(cls, text: str, fields: Collection[str]) -> Pattern:
        """:raises ValueError: an unbalanced brace, or a placeholder that is not in ``fields``."""
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"unbalanced brace in {text!r} ({error})") from error
        for _, field, spec, conversion in parsed:
            if field is not None and (field not in fields or spec or conversion):
                known = ", ".join(f"{{{name}}}" for name in sorted(fields))
                raise ValueError(f"unknown placeholder {{{field}}} in {text!r} (known: {known})")
        return cls(text, tuple((literal, field) for literal, field, _, _ in parsed))

    def format(self, **values: str) -> str:
        return "".join(
            literal if field is None else literal + values[field] for literal, field in self.parts
        )


def _last_segment(path: str) -> str:
    return re.split(r"[/\\]", path)[-1].strip()


def _safe_characters(text: str) -> str:
    """Remove invisible characters; replace runs of white space and unsafe characters by ``_``."""
    kept: list[str] = []
    for character in _INVISIBLE_MARKS.sub("", text):
        category = unicodedata.category(character)
        if category in ("Mn", "Mc"):
            if kept and kept[-1] != " ":  # Otherwise its base character was removed.
                kept.append(character)
        elif category[0] in "LN" or character in "._-+":
            kept.append(character)
        elif category[0] != "C" or character.isspace():
            kept.append(" ")
    return unicodedata.normalize("NFC", "_".join("".join(kept).split()))


def _media_type(declared: str) -> str | None:
    essence, semicolon, rest = declared.partition(";")
    essence = essence.strip(" \t").lower()
    if not _MEDIA_TYPE.fullmatch(essence) or len(declared) > MAX_MEDIA_TYPE_LENGTH:
        return None
    parameters = []
    if re.fullmatch(rf"(?:{_MEDIA_PARAMETER})*[ \t;]*", semicolon + rest):
        parameters = re.findall(_MEDIA_PARAMETER, semicolon + rest)
    return "; ".join([essence, *parameters])


def _guessed_type(filename: str) -> str:
    # The slash keeps a name such as ``data:text/html,`` from being taken for a URL.
    kind, encoding = mimetypes.guess_type("/" + _last_segment(filename))
    if encoding:
        kind = COMPRESSED.get(encoding)
    return kind or "application/octet-stream"


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


def _with_slash(base_url: str) -> str:
    return base_url if not base_url or base_url.endswith("/") else base_url + "/"
