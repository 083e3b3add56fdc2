"""Direct uploads: the server approves a file, and clients send the bytes to signed URLs.

The URLs lead to the storage or to the server (``direct_bodies.py``). ``direct_completion.py`` has
the steps that follow when the bytes are in the storage.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace

from kinto_attachment.errors import InvalidBody
from kinto_attachment.files.direct_activity import arrived_parts, sending
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.locations import UPLOAD_ROUTE, outermost
from kinto_attachment.files.session_creation import admit, keyed, new_session, save
from kinto_attachment.files.signatures import signing_of, valid_claims
from kinto_attachment.files.transactions import separate_transaction
from kinto_attachment.files.uploads import Accepted, disposition_of, rules_of
from kinto_attachment.http.upload_steps import Create
from kinto_attachment.index.session import DIRECT, KINTO, STORAGE, Session
from kinto_attachment.kinto_types import Registry, Request
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage import ArrivedPart, Partial, PartRequest, UploadsDirectly
from kinto_attachment.uris import RecordURI

PURPOSE = "upload"


@dataclass(frozen=True)
class Wanted:
    """What a client requests: ``urls_age`` is in seconds; ``via`` may be None."""

    step: Create
    urls_age: int
    via: str | None = None


@dataclass(frozen=True)
class Offer:
    """An open upload as its client sees it: the parts, and which of them have arrived.

    ``expires_at`` is when the URLs end, in ms since the epoch.
    """

    session: Session
    parts: list[PartRequest]
    arrived: frozenset[int]
    expires_at: int

    @property
    def offset(self) -> int:
        """The number of bytes that have arrived."""
        return sum(part.size for part in self.parts if part.number in self.arrived)


def is_possible(registry: Registry, rules: CollectionSettings) -> bool:
    """Whether direct uploads to a collection are possible at all."""
    if registry.attachment_settings.readonly or not rules.direct:
        return False
    return can_send(registry, rules) or registry.attachment_signatures is not None


def can_send(registry: Registry, rules: CollectionSettings) -> bool:
    """Whether clients can send the collection's files to the storage itself."""
    files = registry.attachment_storages[rules.storage].files
    return isinstance(files, UploadsDirectly) and not rules.gzipped


def create(request: Request, wanted: Wanted) -> Session:
    """Begin an upload. It is refused for the same reasons as a form.

    :raises AttachmentError, HTTPException: nothing was stored.
    """
    via, step = chosen_way(request, wanted.via), wanted.step
    registry, rules = request.registry, rules_of(request)
    files = registry.attachment_storages[rules.storage].files
    if via == STORAGE and isinstance(files, UploadsDirectly):
        accepted = admit(request, step, step.filename, files.largest_direct)
        session = begin(request, new_session(request, DIRECT, step, accepted), accepted)
    else:
        signing_of(registry)
        accepted = admit(request, step, step.filename, 0)
        session = new_session(request, DIRECT, step, accepted)
    session = replace(session, via=via, urls_age=wanted.urls_age)
    session = replace(session, expires=max(session.expires, urls_expire(registry, session)))
    save(request, session)
    Ledger.of(request).session = session
    return session


def chosen_way(request: Request, via: str | None) -> str:
    """:raises InvalidBody: the settings exclude it."""
    registry, rules = request.registry, rules_of(request)
    if not rules.direct:
        raise InvalidBody(f"{rules.setting('direct')} is off.")
    possible = can_send(registry, rules)
    if via == STORAGE and not possible:
        reason = "their storage cannot do it"
        if rules.gzipped:
            reason = f"{rules.setting('gzipped')} is set"
        raise InvalidBody(f"via in body: Files cannot be sent to the storage: {reason}.")
    return via or (STORAGE if possible else KINTO)


def begin(request: Request, session: Session, accepted: Accepted) -> Session:
    """Begin the file in the storage; gc removes it if the process dies before saving the row."""
    session = keyed(request, session, accepted)
    claimed = {algorithm: digest for _, algorithm, digest in session.claims}
    partial = sending(request.registry, session).begin_direct(
        session.id,
        session.key,
        accepted.mimetype,
        disposition=disposition_of(accepted.rules, accepted.filename, accepted.mimetype),
        length=session.length or 0,
        part_size=request.registry.attachment_settings["direct.part_size"],
        sha256=claimed.get("sha256", ""),
    )
    # From now on, the storage accepts this many bytes without asking the server.
    return replace(session, partial=asdict(partial), counted=session.length or 0)


def offer(request: Request, session: Session) -> Offer:
    """Fresh URLs for an open upload, which lives at least as long as they do."""
    registry = request.registry
    expires_at = urls_expire(registry, session)
    if expires_at > session.expires:
        session = prolonged(request, session, expires_at)
    if session.via == KINTO:
        return Offer(session, [own_part(request, session, expires_at)], frozenset(), expires_at)
    seconds = max(1, expires_at // 1000 - int(time.time()))
    arrived = arrived_parts(registry, session)
    partial = Partial(**(session.partial or {}))
    parts = sending(registry, session).part_requests(partial, seconds)
    done = {part.number for part in parts if size_of(arrived, part.number) == part.size}
    return Offer(session, parts, frozenset(done), expires_at)


def size_of(arrived: dict[int, ArrivedPart], number: int) -> int | None:
    return arrived[number].size if number in arrived else None


def urls_expire(registry: Registry, session: Session) -> int:
    """When URLs that are signed now expire: with the upload, or with temporary credentials."""
    now = int(time.time())
    oldest = session.created + int(registry.attachment_settings["uploads.max_age"] * 1000)
    expires = min((now + session.urls_age) * 1000, oldest)
    files = registry.attachment_storages[session.storage].files
    if session.via == STORAGE and (until := files.signs_until()) is not None:
        expires = min(expires, int(until.timestamp() * 1000))
    return expires


def prolonged(request: Request, session: Session, expires: int) -> Session:
    """The session with a later expiry, unless it has ended."""
    sessions = request.registry.attachment_sessions
    with separate_transaction(request), sessions.alone():
        locked = sessions.lock(session.record, session.upload)
        if locked is None or locked.state != "open":
            return session
        locked = replace(locked, expires=max(locked.expires, expires))
        sessions.put(locked)
    return locked


def own_part(request: Request, session: Session, expires_at: int) -> PartRequest:
    """The whole file as one part, which the server receives."""
    claims = {"upload": session.upload, "record": session.record, "expires": expires_at // 1000}
    token = signing_of(request.registry).sign(PURPOSE, claims)
    uri = RecordURI.parse(session.record)
    url = outermost(request).route_url(
        UPLOAD_ROUTE,
        bucket_id=uri.bucket_id,
        collection_id=uri.collection_id,
        id=uri.record_id,
        upload=session.upload,
        _query={"token": token},
    )
    return PartRequest(1, 0, session.length or 0, url, {})


def is_for(registry: Registry, token: str, session: Session) -> bool:
    """Whether a token was signed here for a session, and is still valid."""
    claims = valid_claims(registry, PURPOSE, token) or {}
    own = (session.upload, session.record)
    return (claims.get("upload"), claims.get("record")) == own
