"""A request's record, collection and permissions, read together if the database supports it.

Kinto reads the user's groups as soon as it knows the user. By then, the overview has read them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from kinto.authorization import AuthorizationPolicy
from pyramid.interfaces import IAuthorizationPolicy
from pyramid_multiauth import MultiAuthPolicySelected

from kinto_attachment.index.overviews import Overview, Permission
from kinto_attachment.kinto_types import Configurator, Request, RequestEvent
from kinto_attachment.uris import RecordURI

# An attribute of requests whose overview is being read.
PENDING = "kinto_attachment_overview"
# The name under which Kinto caches the user's groups in bound_data, after the user's id.
PRINCIPALS = "_principals"
# The plugin's name for the permissions that Kinto's policy derives from a record's URI.
PERMISSIONS = "kinto_attachment.permissions"

Check = Callable[[Collection[str], Collection[Permission]], bool]


@dataclass
class Pending:
    uri: RecordURI
    is_last: bool
    found: Overview | None = None


def read_overview(request: Request, uri: RecordURI, *, is_last: bool = False) -> Overview:
    """The current data on which a write of a record depends: see :class:`Overviews`."""
    pending = Pending(uri, is_last)
    if request.registry.attachment_overviews.reads_rights:
        setattr(request, PENDING, pending)
        # Unless the user is already known or anonymous, this reads the overview.
        _ = request.authenticated_userid
    return pending.found or _read(request, pending)


def on_user_found(event: RequestEvent) -> None:
    """Read the overview, with the groups that Kinto is about to ask for."""
    request = event.request
    pending: Pending | None = getattr(request, PENDING, None)
    if pending is None or pending.found is not None:
        return
    pending.found = _read(request, pending)
    if pending.found.rights is not None and request.prefixed_userid is not None:
        name = f"{request.prefixed_userid}{PRINCIPALS}"
        request.bound_data.setdefault(name, set(pending.found.rights.groups))


def check_by(overview: Overview, ask: Check) -> Check:
    """Kinto's check of permissions, which asks the backend only for data outside the overview."""
    rights = overview.rights

    def check(principals: Collection[str], permissions: Collection[Permission]) -> bool:
        decided = None if rights is None else rights.decide(principals, permissions)
        return ask(principals, permissions) if decided is None else decided

    return check


def add_overviews(config: Configurator) -> None:
    """Kinto's own subscriber, which sets the user's id, comes first."""
    config.add_subscriber(on_user_found, MultiAuthPolicySelected)


def _read(request: Request, pending: Pending) -> Overview:
    overviews = request.registry.attachment_overviews
    user = request.prefixed_userid
    permissions = _permissions(request, pending.uri) if overviews.reads_rights else ()
    return overviews.of(pending.uri, user, permissions, is_last=pending.is_last)


def _permissions(request: Request, uri: RecordURI) -> tuple[Permission, ...]:
    """The permissions that Kinto will ask for, computed once before and after a body."""
    found: dict[RecordURI, tuple[Permission, ...]]
    found = request.bound_data.setdefault(PERMISSIONS, {})
    if uri not in found:
        policy = request.registry.queryUtility(IAuthorizationPolicy)
        found[uri] = ()
        if isinstance(policy, AuthorizationPolicy):
            records = f"{uri.collection}/records"
            found[uri] = (
                *policy.get_bound_permissions(records, "record:create"),
                *policy.get_bound_permissions(str(uri), "write"),
            )
    return found[uri]
