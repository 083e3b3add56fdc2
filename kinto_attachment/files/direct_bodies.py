"""The bytes of a direct upload that are sent to the server, to a URL with a token."""

from __future__ import annotations

from typing import cast

from kinto.core.authorization import DYNAMIC
from kinto.core.utils import msec_time
from pyramid.httpexceptions import HTTPForbidden

from kinto_attachment.errors import DigestMismatch, UploadNotFound, WrongLength
from kinto_attachment.files import quotas
from kinto_attachment.files.acting_users import act_as
from kinto_attachment.files.direct_uploads import is_for
from kinto_attachment.files.ledger import Ledger, Received
from kinto_attachment.files.session_arrival import copied
from kinto_attachment.files.target import SessionTarget
from kinto_attachment.files.transactions import separate_transaction
from kinto_attachment.files.upload_sessions import living
from kinto_attachment.files.uploads import (
    Accepted,
    IncomingFile,
    check_extension,
    rules_of,
    store_accepted,
)
from kinto_attachment.http.encodings import encoding_of
from kinto_attachment.http.streams import Claim, ClaimedDigests
from kinto_attachment.index.session import KINTO, Session
from kinto_attachment.kinto_types import Request
from kinto_attachment.wsgi.bodies import body_of, check_size

NOT_FOUND = "There is no such upload, or its URL has expired."


class DirectArrival:
    """The request's body is the file of the session that the request's ledger names."""

    def __init__(self, request: Request) -> None:
        session = Ledger.of(request).session
        assert session is not None  # noqa: S101 - the request is about one.
        self._request = request
        self._session: Session = session

    def check(self) -> None:
        request, session = self._request, self._session
        encoding_of(request.headers.get("Content-Encoding", ""), ())
        if (request.content_length or 0) != session.length:
            raise WrongLength(f"The upload is one of {session.length} bytes.")
        rules = rules_of(request)
        check_extension(request, rules, session.filename)
        check_size(session.length or 0, rules.max_size, rules.min_size)

    def receive(self) -> Received:
        session = self._session
        storage = self._request.registry.attachment_storages[session.storage]
        rules = rules_of(self._request)
        # The size after compression is not known.
        size = None if rules.gzipped else session.length
        allowance = quotas.check_file(self._request, size)
        accepted = Accepted(rules, storage, session.filename, session.mimetype, allowance)
        reader = body_of(self._request)
        incoming = IncomingFile(
            session.filename, session.mimetype, reader, claims_of(session), session.length
        )
        try:
            attachment = store_accepted(self._request, accepted, incoming)
        except DigestMismatch:
            Ledger.of(self._request).attaching = session  # It ends with this answer.
            raise
        sent = attachment.original or attachment
        if sent.size != session.length:
            raise WrongLength(f"The upload is one of {session.length} bytes.")
        return Received(attachment, copied(session.data), copied(session.permissions))


def session_of_token(request: Request, upload: str) -> Session:
    """The session of the request's token; the request then acts as the session's owner.

    :raises UploadNotFound: the token is not valid, or not for this upload.
    :raises UploadGone: the upload has ended without a file.
    :raises HTTPForbidden: its owner may no longer write the record.
    """
    registry = request.registry
    with separate_transaction(request):
        session = registry.attachment_sessions.get(str(request.context.uri), upload)
        token = request.GET.get("token", "")
        if session is None or session.via != KINTO or not is_for(registry, token, session):
            raise UploadNotFound(NOT_FOUND)
        session = living(request, session.seen_at(msec_time()))
        act_as(request, session.owner)
        target = cast(SessionTarget, request.context)
        target.session = session
        if not request.has_permission(DYNAMIC, target):
            raise HTTPForbidden()
    return session


def claims_of(session: Session) -> ClaimedDigests:
    return ClaimedDigests(
        tuple(
            Claim(header, algorithm, bytes.fromhex(digest))
            for header, algorithm, digest in session.claims
        )
    )
