"""Users who act with a token from the server instead of their credentials.

Authorization, events and history all ask Kinto's security policy who the user is. The policy here
answers first. So the request has its user everywhere, with the groups of that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyramid.authorization import Authenticated, Everyone
from pyramid.interfaces import PHASE2_CONFIG, IAuthorizationPolicy, ISecurityPolicy

from kinto_attachment.index.session import ANONYMOUS
from kinto_attachment.kinto_types import Configurator, Request

AFTER_POLICIES = PHASE2_CONFIG + 1
# The attribute of requests with the principal of their user. No header can set it.
ACTS_AS = "kinto_attachment_acts_as"


@dataclass(frozen=True)
class Identity:
    """As pyramid_multiauth has it."""

    userid: str
    groups: list[str]


def act_as(request: Request, principal: str) -> None:
    """Let a request and its sub-requests act as a user, whatever credentials it has."""
    setattr(request, ACTS_AS, principal)
    kind, _, userid = principal.partition(":")
    anonymous = principal == ANONYMOUS
    # Kinto makes the user's principal from these.
    request.authn_type = None if anonymous else kind
    request.selected_userid = None if anonymous else userid
    request.log_context(uid=request.selected_userid, authn_type=request.authn_type)


def acting(request: Request) -> str | None:
    """The principal of the user that a request acts as; None if it uses credentials."""
    asked: Request | None = request
    while asked is not None:
        principal: str | None = getattr(asked, ACTS_AS, None)
        if principal is not None:
            if asked is not request:
                act_as(request, principal)
            return principal
        asked = getattr(asked, "parent", None)
    return None


class ActingUsers:
    """Kinto's security policy, extended to requests that act as a user."""

    def __init__(self, policy: Any, groupfinder: Any) -> None:
        self._policy = policy
        self._groupfinder = groupfinder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def identity(self, request: Request) -> Any:
        principal = acting(request)
        if principal is None:
            return self._policy.identity(request)
        if principal == ANONYMOUS:
            return None
        userid = principal.partition(":")[2]
        groups = self._groupfinder(userid, request) if self._groupfinder else []
        return Identity(userid, [*(groups or ())])

    def authenticated_userid(self, request: Request) -> Any:
        principal = acting(request)
        if principal is None:
            return self._policy.authenticated_userid(request)
        return None if principal == ANONYMOUS else principal.partition(":")[2]

    def effective_principals(self, request: Request) -> Any:
        if acting(request) is None:
            return self._policy.effective_principals(request)
        identity = self.identity(request)
        if identity is None:
            return {Everyone}
        return {Everyone, Authenticated, identity.userid, *identity.groups}

    def permits(self, request: Request, context: object, permission: str) -> Any:
        if acting(request) is None:
            return self._policy.permits(request, context, permission)
        authorization = request.registry.queryUtility(IAuthorizationPolicy)
        return authorization.permits(context, self.effective_principals(request), permission)


def let_users_act(config: Configurator) -> None:
    """Put :class:`ActingUsers` in front of Kinto's security policy, once that is set."""
    groupfinder = config.maybe_dotted(config.get_settings().get("multiauth.groupfinder"))

    def wrap() -> None:
        policy = config.registry.queryUtility(ISecurityPolicy)
        config.registry.registerUtility(ActingUsers(policy, groupfinder), ISecurityPolicy)

    # Pyramid's views keep the policy that is set when they are added.
    config.action("kinto_attachment.acting_users", wrap, order=AFTER_POLICIES)
