"""Filenames of clients, and safe names made from them."""

from __future__ import annotations

import hmac
import os.path
import re
import unicodedata
from collections.abc import Iterator
from uuid import uuid4

from kinto_attachment.errors import InvalidForm

# The limit of file systems. Longer ones make headers that web servers refuse: nginx has 4 KiB for
# all headers, and a byte of a name may become eight in a redirect to a signed URL.
MAX_FILENAME_BYTES = 255
MAX_SAFE_NAME_BYTES = 200  # Leaves room for a number or a prefix, within the 255 of file systems.
MAX_EXTENSION_BYTES = 32  # Longer ones are not treated as extensions.
MAX_NUMBER = 10_000

RANDOM_NAME = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(\.[^/]+)?"
)
RANDOM_LENGTH = 28  # Characters before the last eight digits.

_SAFE_ASCII = re.compile(r"[A-Za-z0-9._+-]*")
_INVISIBLE_MARKS = re.compile(r"[\u034f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Embeddings, overrides and isolates (UAX 9): with these, ``gnp.exe`` is shown as ``exe.png``.
_BIDIRECTIONAL_CONTROLS = re.compile(r"[\u202a-\u202e\u2066-\u2069]")


def clean_filename(raw: str) -> str:
    """The filename of a client, without folders.

    Bidirectional controls are removed here, before the extension is checked.

    :raises InvalidForm: the name is empty, too long, or has control characters.
    """
    raw = _BIDIRECTIONAL_CONTROLS.sub("", raw)
    # Printable names have none, which Python checks quickly.
    if not raw.isprintable() and _has_controls(raw):
        raise InvalidForm("body: Filename has control characters.")
    name = last_segment(raw)
    if name in ("", ".", ".."):
        raise InvalidForm("body: Filename is required.")
    if len(name.encode("utf-8")) > MAX_FILENAME_BYTES:
        raise InvalidForm(f"body: Filename is longer than {MAX_FILENAME_BYTES} bytes.")
    return name


def _has_controls(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


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
    """The text after the last dot in lower case; empty for ``name``, ``name.`` and ``.hidden``."""
    return os.path.splitext(last_segment(filename))[1][1:].lower()


def inner_name(filename: str) -> str | None:
    """The name of the file in a compressed one, ``b.txt`` for ``b.txt.gz``; None for others."""
    inner, dotted = os.path.splitext(last_segment(filename))
    return inner if dotted.lower() == ".gz" and extension(inner) else None


def safe_name(filename: str) -> str:
    """A form of the name that is safe as the last segment of a key, in URLs and in shells.

    Letters, digits and marks of all scripts are kept (in NFC), and ``.``, ``_``, ``-`` and ``+``.
    The result has 1 to 200 bytes of UTF-8, and does not start with a dot or a dash.
    """
    name = unicodedata.normalize("NFC", last_segment(filename))
    stem, dotted = os.path.splitext(name)
    stem = _safe_characters(stem).lstrip(".-")
    suffix = _safe_characters(dotted[1:])
    if len(suffix.encode("utf-8")) > MAX_EXTENSION_BYTES:
        stem, suffix = f"{stem}_{suffix}", ""
    dotted = f".{suffix}" if suffix else ""
    room = MAX_SAFE_NAME_BYTES - len(dotted.encode("utf-8"))
    stem = truncated(stem, room).rstrip(".")
    return (stem or "file") + dotted


def random_name(filename: str, owner: str = "") -> str:
    """A random name (UUID 4) with the file's extension in lower case.

    The last eight digits are derived from the others and the ``owner``, who can recognize the
    name. 90 bits are random.
    """
    head = str(uuid4())[:RANDOM_LENGTH]
    return head + _seal(head, owner) + os.path.splitext(safe_name(filename))[1].lower()


def is_name_of(owner: str, name: str) -> bool:
    """Whether a name was made by :func:`random_name` for this owner.

    One in four billion other random names matches by chance.
    """
    return bool(RANDOM_NAME.fullmatch(name)) and name[RANDOM_LENGTH:36] == _seal(
        name[:RANDOM_LENGTH], owner
    )


def numbered(name: str) -> Iterator[str]:
    """``name``, ``stem-1.ext``, ``stem-2.ext`` …: candidates in case a name is taken."""
    yield name
    stem, dotted = os.path.splitext(name)
    for number in range(1, MAX_NUMBER):
        yield f"{stem}-{number}{dotted}"


def last_segment(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].strip()


def _seal(head: str, owner: str) -> str:
    return hmac.digest(owner.encode(), head.encode(), "sha256").hex()[:8]


def _safe_characters(text: str) -> str:
    """Remove invisible characters; replace runs of white space and unsafe characters by ``_``."""
    if _SAFE_ASCII.fullmatch(text):
        return text
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
