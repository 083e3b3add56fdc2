"""The request to Kinto that writes a record, and what Kinto responds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from kinto.core.utils import build_request

from kinto_attachment.files import locks
from kinto_attachment.files.guard import is_allowed
from kinto_attachment.files.record_bodies import MERGE_PATCH
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD

# Headers of the upload that have no meaning, or another one, for the record's endpoint. Kinto does
# not read all of them today (Content-Encoding, for one), but none is about the JSON that it gets.
NOT_FORWARDED = (
    "Accept",
    "Content-Disposition",
    "Content-Encoding",
    "Content-MD5",
    "Expect",
    "Range",
    "Response-Behavior",
    "Transfer-Encoding",
)
PRECONDITIONS = ("If-Match", "If-None-Match")


@dataclass(frozen=True)
class Written:
    """Kinto's response to the write of a record: status 201 or 200, and the new timestamp."""

    status: int
    etag: str
    last_modified: str
    record: dict[str, Any]
    permissions: dict[str, Any]


def has_precondition(request: Request) -> bool:
    return bool(request.context.preconditions)


def record_request(request: Request, uri: str, body: dict[str, Any], *, exists: bool) -> Request:
    """The sub-request that writes a record: PATCH if it exists, PUT if it does not."""
    method = "PATCH" if exists else "PUT"
    subrequest = cast(
        Request, build_request(request, {"method": method, "path": uri, "body": body})
    )
    for header in (*NOT_FORWARDED, *PRECONDITIONS):
        subrequest.headers.pop(header, None)
    subrequest.headers.update(request.context.preconditions)
    if not exists and not has_precondition(request):
        subrequest.headers["If-None-Match"] = "*"  # PUT would replace a record.
    if body["data"][FIELD] is None and not rules_of(request).delete_on_omission:
        # No copy of the record at a client may have a null, which would delete a later file.
        subrequest.headers["Content-Type"] = MERGE_PATCH
    subrequest.bound_data = request.bound_data
    setattr(subrequest, locks.BY_CLIENT, not is_allowed(request))
    return subrequest
