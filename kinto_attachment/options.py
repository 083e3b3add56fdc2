"""The table of options: names, parsers, defaults and descriptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kinto_attachment.parsers import (
    base_url,
    base_urls,
    boolean,
    dotted_name,
    download_mode,
    encodings,
    encryption,
    extensions,
    file_mode,
    filename_pattern,
    folder,
    google_class,
    google_key,
    kms_key_id,
    media_types,
    mimetypes,
    one_of,
    s3_class,
    signing_keys,
    storage,
)
from kinto_attachment.quantities import (
    age,
    bytes_of_part,
    duration,
    longest_link,
    number,
    part_size,
    seconds,
    size,
    text,
    within,
)

PIECE_SIZE = 8 * 1024 * 1024  # Bytes of a large file that are sent to a storage in one call.
WEEK = 7 * 24 * 3600  # The longest validity of signed URLs at S3 and Google.
# Types that a browser shows without running scripts: no HTML, no SVG, no XML.
INLINE_TYPES = "image/avif image/gif image/jpeg image/png image/webp audio/* video/* text/plain"


@dataclass(frozen=True, eq=False)  # Compared by identity: each row exists once.
class Option:
    """A row of the settings table; ``default`` has the form of an ini file."""

    name: str
    parse: Callable[[object], Any]
    default: object
    help: str
    per_collection: bool = False
    aliases: tuple[str, ...] = ()
    is_secret: bool = False  # No message shows its value.


# The options that each of several storages has.
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
    Option(
        "folder",
        folder,
        None,
        "pattern with `{bucket_id}`, `{collection_id}`, `{id}`, `{fan}`",
        True,
    ),
    Option("randomize", boolean, True, "store under a random name, keeping the extension", True),
    Option(
        "filename_pattern",
        filename_pattern,
        "{filename}",
        "name to store under, with `{filename}`, `{datetime}`, `{rid}`",
        True,
    ),
    Option("keep_old_files", boolean, False, "keep the file on replace and delete", True),
    Option("max_versions", number, 0, "files kept for each record; 0: no limit", True),
    Option(
        "kept_max_age",
        duration,
        0,
        "how long files are kept; gc deletes older ones; 0: for ever",
        True,
    ),
    Option("max_age", duration, 0, "gc detaches files that are older; 0: never", True),
    Option(
        "versions_permission",
        one_of("write", "read"),
        "write",
        "permission on the record to read its earlier files: `write` or `read`",
        True,
    ),
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
    Option(
        "quota_bytes",
        size,
        0,
        "bytes that a bucket or a collection may hold, each bucket if set for all; 0: no limit",
        True,
    ),
    Option("quota_files", number, 0, "files that it may hold; 0: no limit", True),
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
    Option("locked", boolean, False, "clients cannot change files", True),
    Option("hold", duration, 0, "how long new files are held; 0: not at all", True),
    Option(
        "fast_records",
        boolean,
        True,
        "write the records of uploads without sub-requests, by our own SQL",
    ),
    Option("body_timeout", duration, "30s", "time without a byte of a body; 0: no limit"),
    Option("body_min_rate", size, 1024, "bytes a second of a body; 0: no limit"),
    Option(
        "uploads.idle_age", age, "24h", "an unfinished upload expires so long after its last byte"
    ),
    Option(
        "uploads.max_age", age, "7d", "an unfinished upload expires so long after its creation"
    ),
    Option(
        "uploads.max_unfinished",
        within(1, 10_000, "1 to 10,000"),
        100,
        "unfinished uploads that a user may have in a collection",
    ),
    Option("direct", boolean, True, "take uploads by signed URLs, to the storage itself", True),
    Option(
        "direct.part_size",
        bytes_of_part,
        "64M",
        "bytes in each part of a direct upload, 5M to 5G; more in very large files",
    ),
    Option(
        "signing_keys",
        signing_keys,
        "",
        "keys of links, 32 bytes or more each, separated by spaces: the first signs, all verify; "
        "unset: one made of `kinto.userid_hmac_secret`",
        is_secret=True,
    ),
    Option("links.max_age", longest_link, "7d", "the longest validity of links, 1 s to 7 days"),
    Option("inline_types", media_types, INLINE_TYPES, "mimetypes shown in place; or `none`", True),
)
BACKENDS = ("base_path", "aws.bucket_name", "gcloud.bucket_name", "backend")
