"""Another way in which files arrive: in several requests, when all bytes have arrived."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from kinto.core.utils import msec_time

from kinto_attachment.errors import DigestMismatch, UploadGone
from kinto_attachment.files.arrivals import Arrival, attach, receive_once
from kinto_attachment.files.ledger import Ledger, NewFile, Received
from kinto_attachment.files.locations import location_of
from kinto_attachment.files.uploads import check_extension, describe, rules_of
from kinto_attachment.http import saved_hashes
from kinto_attachment.http.streams import CHUNK_SIZE, HashingReader
from kinto_attachment.index.session import KINTO, Session
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import Attachment
from kinto_attachment.storage import ContinuesWrites, FileStorage, Partial
from kinto_attachment.wsgi.bodies import check_size


class SessionArrival:
    """The file of the session that the request's ledger names."""

    def __init__(self, request: Request) -> None:
        session = Ledger.of(request).session
        assert session is not None  # noqa: S101 - the request is about one.
        # From here on, a refusal of the file ends the session.
        Ledger.of(request).attaching = session
        self._request = request
        self._session: Session = session

    def check(self) -> None:
        """Check everything again that may have changed since the upload began."""
        rules = rules_of(self._request)
        check_extension(self._request, rules, self._session.filename)
        check_size(self._session.size, rules.max_size, rules.min_size)

    def receive(self) -> Received:
        session = self._session
        storage = self._request.registry.attachment_storages[session.storage]
        if not session.via:  # Otherwise it is finished, and read.
            assert isinstance(storage.files, ContinuesWrites)  # noqa: S101 - it has begun the file.
            storage.files.finish(Partial(**(session.partial or {})))
        sha256 = self._sha256(storage.files)
        location = location_of(self._request, storage, session.key)
        attachment = Attachment(session.filename, sha256, location, session.mimetype, session.size)
        file = NewFile(session.key, session.record, storage=storage.name, is_of_session=True)
        describe(self._request, file, attachment)
        return Received(attachment, copied(session.data), copied(session.permissions))

    def _sha256(self, files: FileStorage) -> str:
        """The hash, after comparing it with the client's digests.

        The file is only read if the hash could not be saved, or if a digest has another algorithm.

        :raises DigestMismatch: the bytes do not match the client's digests.
        """
        session = self._session
        known = {"sha256": session.sha256} if session.sha256 else self._saved()
        wanted = {algorithm for _, algorithm, _ in session.claims}
        if "sha256" not in known or session.has_other_claims:
            known = read_back(files, session.key, wanted)
        for header, algorithm, digest in session.claims:
            if known[algorithm] != digest:
                raise DigestMismatch(
                    f"{header} does not match the {algorithm} digest of the uploaded file."
                )
        return known["sha256"]

    def _saved(self) -> dict[str, str]:
        state = self._session.hash
        saved = None if state is None else saved_hashes.sha256(state)
        return {} if saved is None else {"sha256": saved.hexdigest()}


def attach_session(request: Request, kind: type[Arrival] = SessionArrival) -> tuple[Session, bool]:
    """Attach the file of the request's upload to the record, unless this has been done.

    The transaction that writes the record also updates the session. It locks the session first, so
    the second of two requests that attach the same file finds the session done.

    :returns: the session, and whether this request has attached the file.
    :raises AttachmentError, HTTPException: the file stays stored for another attempt.
    """
    ledger = Ledger.of(request)
    session = ledger.session
    assert session is not None  # noqa: S101
    receive_once(request, kind)
    ledger.attaching = session
    sessions = request.registry.attachment_sessions
    with sessions.alone():
        locked = sessions.lock(session.record, session.upload)
        if locked is not None and locked.state == "done":
            return locked, False
        if locked is None or locked.state != ("open" if session.via == KINTO else "finishing"):
            for file in ledger.new_files.values():
                file.is_of_session = False  # It belongs to nobody.
            raise UploadGone()
        written, attachment = attach(request, kind)
        key = ledger.key_of(session.record, attachment.to_json())
        result = {
            "status": written.status,
            "etag": written.etag,
            "last_modified": written.last_modified,
            "attachment": attachment.to_json(),
        }
        idle = request.registry.attachment_settings["uploads.idle_age"]
        expires = msec_time() + int(idle * 1000)
        done = replace(locked, state="done", result=result, expires=expires, writer="")
        done = replace(done, key=key or locked.key, partial=None, counted=0)
        # Its bytes now count as those of the record's file.
        with request.registry.attachment_usage.alone():
            sessions.put(replace(done, data=None, permissions=None, hash=None))
            request.registry.attachment_usage.resized(locked.record, -locked.counted)
    if session.key:
        ledger.when_committed(ledger.reserved, session.key)
    return done, True


def read_back(files: FileStorage, key: str, algorithms: set[str]) -> dict[str, str]:
    """The digests of a stored file in hex: SHA-256, and others."""
    with contextlib.closing(files.open(key)) as file:
        reader = HashingReader(file, algorithms - {"sha256"})
        while reader.read(CHUNK_SIZE):
            pass
    return {name: reader.digest(name).hex() for name in {"sha256", *algorithms}}


def copied(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A copy that may be changed, like the data of a form."""
    return None if value is None else deepcopy(dict(value))
