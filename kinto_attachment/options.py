"""The table of options: names, parsers, defaults and descriptions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyramid_storage.extensions import GROUPS

from kinto_attachment.errors import InvalidKey
from kinto_attachment.names import Pattern, check_key

PIECE_SIZE = 8 * 1024 * 1024  # Bytes of a large file that are sent to a storage in one call.
MAX_TIMEOUT = 600  # Seconds.
DEFAULT_STORAGE = "default"  # In settings, the name of the storage that has no other.
WEEK = 7 * 24 * 3600  # The longest validity of signed URLs at S3 and Google.
# Types that a browser shows without running scripts: no HTML, no SVG, no XML.
INLINE_TYPES = "image/avif image/gif image/jpeg image/png image/webp audio/* video/* text/plain"


def text(value: object) -> str:
    # Kinto parses settings as JSON if possible: ``folder = 2024`` becomes a number.
    return str(value).strip()


def boolean(value: object) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True}
    known |= {"false": False, "no": False, "off": False, "0": False}
    try:
        return known[text(value).lower()]
    except KeyError:
        raise ValueError("should be true or false") from None


def number(value: object) -> int:
    try:
        parsed = int(text(value))
    except ValueError:
        raise ValueError("should be a whole number") from None
    if parsed < 0:
        raise ValueError("should not be negative")
    return parsed


def within(least: int, most: int, shown: str = "") -> Callable[[object], int]:
    """A parser of whole numbers between two bounds; messages show the bounds as ``shown``."""

    def bounded(value: object) -> int:
        parsed = number(value)
        if not least <= parsed <= most:
            raise ValueError(f"should be {shown or f'{least} to {most}'}")
        return parsed

    return bounded


def one_of(*known: str) -> Callable[[object], str]:
    """A parser of one of a few words."""

    def chosen(value: object) -> str:
        if text(value) not in known:
            raise ValueError(f"should be {' or '.join(known)}")
        return text(value)

    return chosen


def seconds(value: object) -> float:
    try:
        parsed = float(text(value))
    except ValueError:
        raise ValueError("should be a number of seconds") from None
    if not 0 < parsed <= MAX_TIMEOUT:  # This also refuses NaN.
        raise ValueError(f"should be more than 0, and {MAX_TIMEOUT} at most")
    return parsed


def duration(value: object) -> float:
    """Seconds, from a number of them or from a number with a unit: ``90s``, ``30m``, ``1h``."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([smhd]?)", text(value))
    if match is None:
        raise ValueError("should be a time such as 90s, 30m, 1h or 7d")
    parsed = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    if parsed > 36500 * 86400:  # Larger values overflow in sockets and dates.
        raise ValueError("should not be more than 100 years")
    return parsed


def size(value: object) -> int:
    """A number of bytes such as ``512``, ``64K``, ``10M`` or ``1G``, in powers of 1,024."""
    match = re.fullmatch(r"([0-9]{1,18})([KMG]?)", text(value))
    if match is None:
        raise ValueError("should be a number of bytes like 512, 64K, 10M or 1G")
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
    return int(match[1]) * units[match[2]]


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
    # Not parsed by pyramid_storage: it ignores empty parts, so that ``+`` would allow any file,
    # and takes a group with a space before it for an extension.
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
    for entry in text(value).split(";"):
        extension, separator, mimetype = (part.strip() for part in entry.partition(":"))
        if not separator or not re.fullmatch(r"\.[^\s./]+", extension):
            raise ValueError(f"{entry!r} should be `.extension:type/subtype`")
        if not re.fullmatch(r"[\w.+-]+/[\w.+-]+", mimetype):
            raise ValueError(f"{mimetype!r} is not a type/subtype")
        types[extension.lower()] = mimetype
    return types


def folder(value: object) -> Pattern:
    pattern = Pattern.parse(text(value), fields={"bucket_id", "collection_id", "fan"})
    try:
        check_key(pattern.format(bucket_id="b", collection_id="c", fan="00").strip("/"))
    except InvalidKey:
        raise ValueError("should be a relative folder without hidden or empty parts") from None
    return pattern


def filename_pattern(value: object) -> Pattern:
    pattern = Pattern.parse(text(value), fields={"filename", "datetime", "rid"})
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
    """The name of a storage as the index has it: empty for the default one."""
    name = text(value)
    return "" if name == DEFAULT_STORAGE else storage_name(name)


def storage_name(name: str) -> str:
    # Neither dots nor underscores: names of settings and of environment variables have them.
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
# The objects of all of them can be read at once.
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


# The limits of S3 for all parts of a file but the last.
part_size = within(5 * 2**20, 5 * 2**30, "5 MiB (5242880) to 5 GiB")


@dataclass(frozen=True)
class Option:
    """One row of the settings table; ``default`` is as in an ini file."""

    name: str
    parse: Callable[[object], Any]
    default: object
    help: str
    per_collection: bool = False
    aliases: tuple[str, ...] = ()


# What each of several storages has of its own.
STORAGE_OPTIONS = (
    Option("base_path", text, None, "store in this folder (local)"),
    Option("file_mode", file_mode, None, "mode of stored files (local); unset: by the umask"),
    Option("aws.bucket_name", text, None, "store in this S3 bucket", aliases=("aws.bucket",)),
    Option("aws.access_key", text, None, "unset: AWS's own chain (role, environment, profile)"),
    Option("aws.secret_key", text, None, "goes with `aws.access_key`"),
    Option("aws.region", text, None, "AWS region"),
    Option("aws.endpoint_url", text, None, "URL of an S3-compatible server"),
    Option("aws.host", text, None, "host of an S3-compatible server"),
    Option("aws.port", within(1, 65535), None, "its port"),
    Option("aws.is_secure", boolean, True, "whether it speaks HTTPS"),
    Option("aws.use_path_style", boolean, False, "bucket name in the path, not in the host"),
    Option("aws.acl", text, None, "canned ACL of new objects; unset: the bucket's default"),
    Option("aws.cache_control", text, None, "Cache-Control of new objects"),
    Option("aws.storage_class", s3_class, None, "storage class of new objects, `STANDARD_IA`"),
    Option("aws.encryption", encryption, None, "`AES256` or `aws:kms`; unset: the bucket's"),
    Option("aws.kms_key_id", kms_key_id, None, "key for `aws:kms`; unset: AWS's own"),
    Option("aws.num_retries", within(1, 10), None, "tries of a failing call; unset: 3"),
    Option("aws.timeout", seconds, None, "seconds to connect and to read; unset: 5 and 10"),
    Option("aws.part_size", part_size, PIECE_SIZE, "bytes in each part of a large file"),
    Option("gcloud.bucket_name", text, None, "store in this Google Cloud Storage bucket"),
    Option("gcloud.credentials", text, None, "service account file; unset: Google's own chain"),
    Option("gcloud.project", text, None, "Google Cloud project"),
    Option("gcloud.acl", text, None, "predefined ACL of new objects; unset: the bucket's default"),
    Option("gcloud.auto_create_bucket", boolean, False, "create the bucket when it is missing"),
    Option("gcloud.auto_create_acl", text, None, "predefined ACL of a bucket so created"),
    Option("gcloud.cache_control", text, None, "Cache-Control of new objects"),
    Option("gcloud.storage_class", google_class, None, "storage class of new objects"),
    Option("gcloud.kms_key", google_key, None, "Cloud KMS key of new objects"),
    Option("gcloud.uniform_bucket_level_access", boolean, False, "the bucket has no object ACLs"),
    Option("gcloud.timeout", seconds, None, "seconds to connect and to read; unset: 5 and 10"),
    Option("backend", dotted_name, None, "store by this class, `package.module.Class`"),
    Option(
        "base_url",
        base_url,
        None,
        "public URL of the files; empty: relative locations; "
        "unset: `{server}/v1/attachments/{key}`",
    ),
    Option(
        "former_base_urls",
        base_urls,
        "",
        "earlier values of `base_url`, and of the server's own address with `/v1/attachments/`",
    ),
    Option("public", boolean, False, "serve `/v1/attachments/{key}` without credentials"),
    Option("extra.base_url", base_url, None, "what the capability advertises as `base_url`"),
    Option(
        "downloads",
        download_mode,
        None,
        "`stream` (local), `redirect` (S3, Google), `proxy`, `x-accel-redirect:/prefix/`, "
        "`x-sendfile`",
    ),
    Option(
        "signed_url_ttl", within(1, WEEK), 300, "seconds that a signed URL is valid, 1 to a week"
    ),
)
OPTIONS = (
    *STORAGE_OPTIONS,
    Option(
        "storage",
        storage,
        "default",
        "which of several storages gets new files, by its name",
        True,
    ),
    Option("folder", folder, None, "pattern with `{bucket_id}`, `{collection_id}`, `{fan}`", True),
    Option("randomize", boolean, True, "store under a random name, keeping the extension", True),
    Option(
        "filename_pattern",
        filename_pattern,
        "{filename}",
        "name to store under, with `{filename}`, `{datetime}`, `{rid}`",
        True,
    ),
    Option("keep_old_files", boolean, False, "keep the file on replace and delete", True),
    Option(
        "linger",
        duration,
        0,
        "how long a file that was replaced can still be read, or copied by plugins",
        True,
    ),
    Option(
        "extensions",
        extensions,
        "default",
        "groups and extensions joined by `+`, or `any`",
        True,
    ),
    Option("mimetypes", mimetypes, None, "`.ext:type;.ext:type`", True),
    Option(
        "max_size",
        number,
        0,
        "bytes; 0: no limit (lifts a wider one)",
        True,
        aliases=("max_size_bytes",),
    ),
    Option("min_size", number, 0, "bytes; smaller files are refused", True),
    Option("gzipped", boolean, False, "compress files on the server", True),
    Option(
        "content_encodings",
        encodings,
        "none",
        "Content-Encodings that a PUT may have: `gzip`, or `none`",
        True,
    ),
    Option(
        "client_metadata",
        one_of("refuse", "ignore"),
        "refuse",
        "what a different `attachment` in a client's record does: `refuse` or `ignore`",
        True,
    ),
    Option(
        "delete_on_omission",
        boolean,
        True,
        "a PUT of a record without `attachment` deletes the file",
        True,
    ),
    Option("body_timeout", duration, "30s", "time without a byte of a body; 0: no limit"),
    Option("body_min_rate", size, 1024, "bytes a second of a body; 0: no limit"),
    Option("inline_types", media_types, INLINE_TYPES, "mimetypes shown in place; or `none`", True),
)
BACKENDS = ("base_path", "aws.bucket_name", "gcloud.bucket_name", "backend")
