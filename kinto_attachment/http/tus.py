"""tus 1.0.0 (https://tus.io/protocols/resumable-upload), the core and most extensions.

Concatenation is left out, because it uploads each part of a file as a separate upload.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from kinto_attachment.errors import (
    InvalidBody,
    InvalidForm,
    MethodNotAllowed,
    TooLarge,
    UnsupportedType,
    UnsupportedVersion,
    UploadComplete,
    WrongOffset,
)
from kinto_attachment.http.encodings import encoding_of
from kinto_attachment.http.ranges import http_date
from kinto_attachment.http.streams import CHECKSUM_HEADER, Claim, ClaimedDigests
from kinto_attachment.http.upload_steps import (
    LARGEST,
    Answer,
    Append,
    Cancel,
    Create,
    Head,
    Inspect,
    Limits,
    Progress,
    Step,
    size,
)

VERSION = "1.0.0"
EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "termination",
)
CHECKSUMS = ("sha1", "sha256")  # The names are also hashlib's.
MEDIA_TYPE = "application/offset+octet-stream"
MAX_METADATA = 4096  # Bytes of the header.

OVERRIDE = "X-HTTP-Method-Override"

# A pair of Upload-Metadata. The text only recommends ASCII for keys; others are refused, since the
# header is sent back as it is.
_PAIR = re.compile(r"([!-+\--~]+)(?: ([A-Za-z0-9+/]*={0,2}))?")


class Tus:
    """``json_object`` parses JSON in metadata, given its name; it raises InvalidForm."""

    name = f"tus/{VERSION}"
    ends_at_length = True

    def __init__(self, json_object: Callable[[str, str], dict[str, Any]]) -> None:
        self._json_object = json_object

    def recognizes(self, head: Head) -> bool:
        return "Tus-Resumable" in head

    def read(self, head: Head) -> Step:
        method = method_of(head)
        version = head.get("Tus-Resumable")
        # Clients that know no protocol can also cancel an upload.
        if version != VERSION and not (version is None and method == "DELETE"):
            raise UnsupportedVersion(f"Tus-Resumable should be {VERSION}.")
        if not head.of_upload:
            if method == "POST":
                return self._creation(head)
            raise MethodNotAllowed("OPTIONS, POST")
        if method == "PATCH":
            return _append(head)
        if method == "HEAD":
            return Inspect()
        if method == "DELETE":
            return Cancel()
        raise MethodNotAllowed("DELETE, HEAD, OPTIONS, PATCH")

    def answer(self, step: Step, progress: Progress, limits: Limits) -> Answer:
        headers = {**_headers(), **_expiry(progress), **progress.attached_headers}
        if isinstance(step, Cancel):
            return Answer(204, _headers())
        headers["Upload-Offset"] = str(told_offset(progress))
        if isinstance(step, Create):
            return Answer(201, {**headers, "Location": progress.url})
        if isinstance(step, Append):
            return Answer(204, headers)
        if progress.length is None:
            headers["Upload-Defer-Length"] = "1"
        else:
            headers["Upload-Length"] = str(progress.length)
        if progress.notes:
            headers["Upload-Metadata"] = progress.notes
        return Answer(200, headers)

    def refuse(
        self,
        head: Head,
        error: Exception,
        body: dict[str, Any],
        progress: Progress | None,
        limits: Limits,
    ) -> Answer:
        # Without Upload-Offset, which clients trust in any response.
        headers = _headers()
        if isinstance(error, UploadComplete):  # tus has one status for every wrong offset.
            body = {**body, "code": WrongOffset.status, "errno": WrongOffset.errno.value}
            body["error"] = "Conflict"
        if progress is not None:
            headers |= _expiry(progress)
        if isinstance(error, UnsupportedVersion):
            headers["Tus-Version"] = VERSION
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = error.allowed
        if isinstance(error, TooLarge) and limits.max_size:
            headers["Tus-Max-Size"] = str(limits.max_size)
        return Answer(int(body["code"]), headers, body)

    def announce(self, limits: Limits) -> Answer:
        headers = {
            **_headers(),
            "Tus-Version": VERSION,
            "Tus-Extension": ",".join(EXTENSIONS),
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        }
        if limits.max_size:
            headers["Tus-Max-Size"] = str(limits.max_size)
        return Answer(204, headers)

    def _creation(self, head: Head) -> Create:
        if "Upload-Concat" in head:
            # As separate uploads, the parts would replace each other.
            raise InvalidBody("Upload-Concat: the server does not concatenate uploads.")
        length = _length(head)
        deferred = head.get("Upload-Defer-Length")
        if deferred not in (None, "1"):
            raise InvalidBody("Upload-Defer-Length should be 1.")
        if (length is None) == (deferred is None):
            raise InvalidBody("Either Upload-Length or Upload-Defer-Length is required.")
        if head.has_content:
            _check_content(head)
        if length is not None and length < (head.content_length or 0):
            raise TooLarge("body: There are more bytes than Upload-Length tells.")
        header = head.get("Upload-Metadata") or ""
        metadata = parse_metadata(header)
        return Create(
            length=length,
            filename=_text(metadata, "filename") or "",
            mimetype=_text(metadata, "filetype") or None,
            data=self._object(metadata, "data"),
            permissions=self._object(metadata, "permissions"),
            has_content=head.has_content,
            complete=length == 0,
            notes=header,
            claims=_claims(head),
            file_claims=head.claims("Repr-Digest"),
        )

    def _object(self, metadata: dict[str, bytes], key: str) -> dict[str, Any] | None:
        text = _text(metadata, key)
        if text is None:
            return None
        try:
            return self._json_object(key, text)
        except InvalidForm as error:
            raise InvalidBody(f"Upload-Metadata: {error}") from error


def method_of(head: Head) -> str:
    """The intended method of a request, since some clients cannot send all methods.

    tus lets the header replace any method. Here, it only replaces POST, which such clients send,
    because requests that look safe to caches, proxies and browsers have to be safe.
    """
    override = head.get(OVERRIDE)
    return override.upper() if override and head.method == "POST" else head.method


def told_offset(progress: Progress) -> int:
    """The offset that clients are told.

    They take the offset at the end for success. So it is one byte less until the file is attached,
    and they send the last byte again.
    """
    length = progress.length
    if progress.state == "done" or not length:
        return progress.offset
    return min(progress.offset, length - 1)


def parse_metadata(header: str) -> dict[str, bytes]:
    """The pairs of an ``Upload-Metadata``; an empty header has none.

    :raises InvalidBody: it is too long or malformed, or has a key twice.
    """
    if len(header) > MAX_METADATA:
        raise InvalidBody(f"Upload-Metadata has more than {MAX_METADATA} bytes.")
    metadata: dict[str, bytes] = {}
    for pair in header.split(",") if header else ():
        match = _PAIR.fullmatch(pair.strip(" "))
        if not match:
            raise InvalidBody("Upload-Metadata is malformed.")
        key, value = match[1], match[2] or ""
        if key in metadata:
            raise InvalidBody(f"Upload-Metadata has {key} twice.")
        try:
            metadata[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidBody(f"Upload-Metadata: the value of {key} is not base64.") from error
    return metadata


def _append(head: Head) -> Append:
    _check_content(head)
    offset = head.get("Upload-Offset")
    if offset is None:
        raise InvalidBody("Upload-Offset is required.")
    return Append(
        offset=_offset(offset),
        length=_length(head),
        claims=_claims(head),
        file_claims=head.claims("Repr-Digest"),
    )


def _check_content(head: Head) -> None:
    if head.media_type != MEDIA_TYPE:
        raise UnsupportedType(f"Content-Type should be {MEDIA_TYPE}.")
    encoding_of(head.get("Content-Encoding") or "", ())


def _length(head: Head) -> int | None:
    value = head.get("Upload-Length")
    return None if value is None else size(value, "Upload-Length")


def _offset(value: str) -> int:
    try:
        return size(value, "Upload-Offset")
    except TooLarge:
        return LARGEST  # A number, and the wrong one for every upload: a conflict.


def _claims(head: Head) -> ClaimedDigests:
    """The digests of the request's content that the headers claim."""
    others = head.claims("Content-Digest", "Content-MD5").claims
    value = head.get(CHECKSUM_HEADER)
    if value is None:
        return ClaimedDigests(others)
    algorithm, _, encoded = value.partition(" ")
    if algorithm not in CHECKSUMS:
        raise InvalidBody(f"{CHECKSUM_HEADER}: the algorithms are {', '.join(CHECKSUMS)}.")
    return ClaimedDigests((Claim.decode(CHECKSUM_HEADER, algorithm, encoded), *others))


def _text(metadata: dict[str, bytes], key: str) -> str | None:
    try:
        return metadata[key].decode("utf-8") if key in metadata else None
    except UnicodeDecodeError as error:
        raise InvalidBody(f"Upload-Metadata: the value of {key} is not UTF-8.") from error


def _headers() -> dict[str, str]:
    return {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}


def _expiry(progress: Progress) -> dict[str, str]:
    if progress.state not in ("open", "finishing"):
        return {}
    expires = datetime.fromtimestamp(progress.expires // 1000, timezone.utc)
    return {"Upload-Expires": http_date(expires)}
