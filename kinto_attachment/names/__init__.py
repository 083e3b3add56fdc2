"""Names: filenames, object keys, media types, and how they are written in headers and URLs.

All functions work on strings alone. This layer may use ``errors`` and ``metadata``.
"""

from .dispositions import content_disposition, disposition_filename, disposition_type
from .filenames import (
    RANDOM_NAME,
    clean_filename,
    extension,
    inner_name,
    is_name_of,
    numbered,
    printable,
    random_name,
    safe_name,
    shortened,
    truncated,
)
from .keys import check_key, key_from_url, public_url
from .media_types import media_type, mimetype, sendable_type
from .patterns import Pattern

__all__ = [
    "RANDOM_NAME",
    "Pattern",
    "check_key",
    "clean_filename",
    "content_disposition",
    "disposition_filename",
    "disposition_type",
    "extension",
    "inner_name",
    "is_name_of",
    "key_from_url",
    "media_type",
    "mimetype",
    "numbered",
    "printable",
    "public_url",
    "random_name",
    "safe_name",
    "sendable_type",
    "shortened",
    "truncated",
]
