"""The preconditions of a request for a record, before its body is read."""

from __future__ import annotations

import re

from kinto.core.errors import raise_invalid

from kinto_attachment.files.kinto_errors import modified_meanwhile
from kinto_attachment.files.permissions import may_read_now
from kinto_attachment.kinto_types import Request


def check_preconditions(request: Request) -> None:
    """Check the preconditions before the body is read. Kinto checks them again afterwards.

    :raises HTTPPreconditionFailed: as Kinto does for the record itself.
    """
    record = request.context.record
    if_match = timestamp_header(request, "If-Match")
    if_none_match = timestamp_header(request, "If-None-Match")
    modified = record is not None and if_match not in ("", "*", str(record["last_modified"]))
    if (if_none_match == "*" and record) or (if_match and record is None) or modified:
        readable = record is not None and may_read_now(request, str(request.context.uri))
        raise modified_meanwhile(record if readable else None)


def timestamp_header(request: Request, name: str) -> str:
    """A record's ETag without its quotes, ``*``, or an empty text if there is no header.

    :raises HTTPBadRequest: it is none of these.
    """
    value = request.headers.get(name, "").strip()
    if value and value != "*" and not re.fullmatch(r'"\d{1,19}"', value):
        description = "The value should be integer between double quotes."
        raise_invalid(request, location="header", name=name, description=description)
    return str(value.strip('"'))
