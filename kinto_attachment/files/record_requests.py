"""The request to Kinto that writes a record, and Kinto's response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from kinto.core.utils import build_request, json
from pyramid.interfaces import IRequestExtensions
from pyramid.request import Request as PyramidRequest, apply_request_extensions

from kinto_attachment.files import locks
from kinto_attachment.files.guard import is_allowed
from kinto_attachment.files.record_bodies import MERGE_PATCH
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.metadata import FIELD

# Headers of the upload that mean something else, or nothing, at the record's endpoint. Kinto does
# not read all of them today (for example Content-Encoding), but none of them applies to its JSON.
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
JSON = "application/json; charset=utf-8"


def _variable(header: str) -> str:
    """The name of a header in a WSGI environment."""
    return f"HTTP_{header.upper().replace('-', '_')}"


@lru_cache(maxsize=128)
def _header(variable: str) -> str:
    """The header that a variable of a WSGI environment contains; empty if it contains none."""
    if variable not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        variable = variable[5:] if variable.startswith("HTTP_") else ""
    return variable.replace("_", "-").title()


DROPPED = {_variable(header) for header in (*NOT_FORWARDED, *PRECONDITIONS)}


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


@dataclass(frozen=True)
class RequestKind:
    """A class of requests with the attributes and methods that Kinto adds to requests.

    Pyramid makes such a class for each request, which takes longer than the rest of a request.
    """

    request_class: type[PyramidRequest]
    methods: Mapping[str, Any]
    descriptors: Mapping[str, Any] = field(default_factory=dict)  # The class already has them.

    @classmethod
    def of(cls, registry: Registry) -> RequestKind:
        extensions = registry.queryUtility(IRequestExtensions)
        example = PyramidRequest.blank("/")
        apply_request_extensions(example, extensions)
        return cls(type(example), extensions.methods)

    def build(self, request: Request, method: str, uri: str, body: dict[str, Any]) -> Request:
        """The result of Kinto's ``build_request``, for a request below the version's prefix."""
        made = self.request_class.blank(
            f"/{request.registry.route_prefix}{uri}".encode().decode("latin-1"),
            POST=json.dumps(body).encode(),
            content_type=JSON,
            method=method,
        )
        made.environ.update(
            {name: value for name, value in request.environ.items() if name.startswith("HTTP_")}
        )
        made.registry = request.registry
        apply_request_extensions(made, self)
        made.parent = request
        return cast(Request, made)


def record_request(
    request: Request,
    uri: str,
    body: dict[str, Any],
    *,
    exists: bool,
    kind: RequestKind | None = None,
) -> Request:
    """The sub-request that writes a record: PATCH if it exists, PUT if it does not.

    Kinto makes it, or a ``kind``, which is faster.
    """
    method = "PATCH" if exists else "PUT"
    if kind is None:
        described = {"method": method, "path": uri, "body": body}
        subrequest = cast(Request, build_request(request, described))
    else:
        subrequest = kind.build(request, method, uri, body)
    environ, preconditions = subrequest.environ, request.context.preconditions
    for variable in DROPPED:
        environ.pop(variable, None)
    environ.update({_variable(name): value for name, value in preconditions.items()})
    if not exists and not preconditions:
        environ["HTTP_IF_NONE_MATCH"] = "*"  # PUT would replace a record.
    if body["data"][FIELD] is None and not rules_of(request).delete_on_omission:
        # A client's copy of the record must not contain a null, which would delete a later file.
        subrequest.headers["Content-Type"] = MERGE_PATCH
    subrequest.bound_data = request.bound_data
    setattr(subrequest, locks.BY_CLIENT, not is_allowed(request))
    return subrequest


def headers_of(request: Request) -> dict[str, str]:
    """``dict(request.headers)`` of a request, in less time than WebOb takes."""
    named = ((_header(variable), value) for variable, value in request.environ.items())
    return {name: value for name, value in named if name}
