"""Parsers of the options' values. Each raises ValueError with a description of valid values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pyramid_storage.extensions import GROUPS

from kinto_attachment.errors import InvalidKey
from kinto_attachment.names import Pattern, check_key
from kinto_attachment.quantities import text

DEFAULT_STORAGE = "default"  # The name of the unnamed storage in settings.


def boolean(value: object) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True}
    known |= {"false": False, "no": False, "off": False, "0": False}
    try:
        return known[text(value).lower()]
    except KeyError:
        raise ValueError("should be true or false") from None


def one_of(*known: str) -> Callable[[object], str]:
    """A parser of one of a few words."""

    def chosen(value: object) -> str:
        if text(value) not in known:
            raise ValueError(f"should be {' or '.join(known)}")
        return text(value)

    return chosen


def signing_keys(value: object) -> tuple[bytes, ...]:
    keys = tuple(key.encode() for key in text(value).split())
    if any(len(key) < 32 for key in keys):
        raise ValueError("should be keys of 32 bytes or more, separated by spaces")
    return keys


def file_mode(value: object) -> int:
    # Kinto may have parsed ``0640`` as the number 640.
    if not re.fullmatch(r"(0o?)?[0-7]{3}", text(value)):
        raise ValueError("should be an octal file mode such as 0640")
    mode = int(text(value).removeprefix("0o"), 8)
    if not mode & 0o400:
        raise ValueError("should let the server itself read its files, as 0400 does")
    return mode


def base_url(value: object) -> str:
    url = text(value)
    return url if not url or url.endswith("/") else url + "/"


def base_urls(value: object) -> tuple[str, ...]:
    urls = tuple(base_url(url) for url in text(value).split())
    if any(not re.match(r"https?://[^/?#]+/", url) or re.search(r"[?#]", url) for url in urls):
        raise ValueError("should be URLs with http:// or https://, separated by spaces")
    return urls


def extensions(value: object) -> frozenset[str]:
    """pyramid_storage's groups and names, joined by ``+``; the empty set allows any."""
    # pyramid_storage does not parse this: it ignores empty parts, so that ``+`` would allow any
    # file, and treats a group with a leading space as an extension.
    parts = [part.split() for part in text(value).lower().split("+")]
    if not all(parts):
        raise ValueError("should name extensions or groups, or be `any`")
    found = [name for part in parts for name in part]
    if "any" in found:
        if len(found) > 1:
            raise ValueError("`any` cannot be combined with others")
        return frozenset()
    for name in found:
        if not re.fullmatch(r"\.?[\w~-]+", name):
            raise ValueError(f"{name!r} is not what can follow the last dot of a filename")
    return frozenset(ext for name in found for ext in GROUPS.get(name, [name.removeprefix(".")]))


def mimetypes(value: object) -> Mapping[str, str]:
    types = {}
    for entry in text(value).rstrip("; ").split(";"):
        extension, separator, mimetype = (part.strip() for part in entry.partition(":"))
        if not separator or not re.fullmatch(r"\.[^\s./]+", extension):
            raise ValueError(f"{entry!r} should be `.extension:type/subtype`")
        if not re.fullmatch(r"[\w.+-]+/[\w.+-]+", mimetype):
            raise ValueError(f"{mimetype!r} is not a type/subtype")
        types[extension.lower()] = mimetype
    return types


def folder(value: object) -> Pattern:
    pattern = Pattern.parse(text(value), fields={"bucket_id", "collection_id", "id", "fan"})
    try:
        sample = pattern.format(bucket_id="b", collection_id="c", id="r", fan="00")
        check_key(sample.strip("/"))
    except InvalidKey:
        raise ValueError("should be a relative folder without hidden or empty parts") from None
    return pattern


def filename_pattern(value: object) -> Pattern:
    pattern = Pattern.parse(text(value), fields={"filename", "datetime", "rid", "id"})
    if "/" in text(value):
        raise ValueError("should have no slash (use `folder`)")
    return pattern


def media_types(value: object) -> frozenset[str]:
    """Media types and ``type/*``; the empty set by ``none``."""
    found = frozenset(re.split(r"[\s,]+", text(value).lower())) - {""}
    if not found:
        raise ValueError("should name types, or be `none`")
    if found == {"none"}:
        return frozenset()
    for name in sorted(found):
        if not re.fullmatch(r"[a-z0-9][\w.+-]*/([\w.+-]+|\*)", name):
            raise ValueError(f"{name!r} is neither type/subtype nor type/*")
    return found


def encodings(value: object) -> frozenset[str]:
    """The supported values of ``Content-Encoding``; the empty set by ``none``."""
    known = {"gzip": frozenset({"gzip"}), "none": frozenset[str]()}
    try:
        return known[text(value).lower()]
    except KeyError:
        raise ValueError("should be gzip or none") from None


@dataclass(frozen=True)
class DownloadMode:
    """How downloads are sent; ``prefix`` is nginx's internal location for x-accel-redirect.

    ``proxy`` is another name for ``stream``, for storages that are servers themselves.
    """

    mode: str
    prefix: str = ""


def download_mode(value: object) -> DownloadMode:
    mode, _, prefix = text(value).partition(":")
    if mode not in ("stream", "proxy", "redirect", "x-sendfile", "x-accel-redirect"):
        raise ValueError(
            "should be stream, redirect, proxy, x-accel-redirect:/prefix/ or x-sendfile"
        )
    if (mode == "x-accel-redirect") != bool(prefix) or (prefix and not prefix.startswith("/")):
        raise ValueError("x-accel-redirect (and no other) takes a location: `:/prefix/`")
    if mode == "proxy":
        mode = "stream"
    return DownloadMode(mode, prefix if not prefix or prefix.endswith("/") else prefix + "/")


def dotted_name(value: object) -> str:
    name = text(value)
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        raise ValueError("should be the dotted name of a class, such as package.module.Class")
    return name


def storage(value: object) -> str:
    """The name of a storage in the index: empty for the default one."""
    name = text(value)
    return "" if name == DEFAULT_STORAGE else storage_name(name)


def storage_name(name: str) -> str:
    # Names of settings and of environment variables contain dots and underscores.
    if not re.fullmatch(r"[a-z][a-z0-9]{0,31}", name):
        raise ValueError("should be the name of a storage: lower-case letters and digits")
    return name


def s3_class(value: object) -> str:
    """A storage class of S3, or of a compatible server, from which objects are read at once."""
    name = text(value)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ValueError("should be the name of a storage class, such as STANDARD_IA")
    if name in ("GLACIER", "DEEP_ARCHIVE"):
        raise ValueError("objects of this class have to be restored before they can be read")
    return name


encryption = one_of("AES256", "aws:kms")
# Objects of these classes can be read without a restore.
google_class = one_of("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")


def kms_key_id(value: object) -> str:
    """The id, the alias or the ARN of a key of AWS KMS."""
    name = text(value)
    if not re.fullmatch(r"[A-Za-z0-9:/_-]{1,2048}", name):
        raise ValueError("should be the id, the alias or the ARN of a key")
    return name


def google_key(value: object) -> str:
    name = text(value)
    if not re.fullmatch(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+", name):
        raise ValueError("should be projects/P/locations/L/keyRings/R/cryptoKeys/K")
    return name
