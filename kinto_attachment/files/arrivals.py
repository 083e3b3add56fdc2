"""The ways in which a file can arrive, such as a form. The steps that follow are the same for all.

Each way is a small class. It checks the request before the body is read, stores the file, and
returns its attachment with the other fields for the record. To add one, implement
:class:`Arrival` and pass the class to :func:`attach`.
"""

from __future__ import annotations

from typing import Protocol

from kinto_attachment.errors import InvalidForm
from kinto_attachment.files import quotas, records
from kinto_attachment.files.forms import MAX_FIELD_SIZE, FilePart, read_form
from kinto_attachment.files.ledger import Ledger, Received
from kinto_attachment.files.transactions import in_batch, restart_transaction
from kinto_attachment.files.uploads import IncomingFile, rules_of, store
from kinto_attachment.http.encodings import encoding_of
from kinto_attachment.http.multipart import boundary_of
from kinto_attachment.http.streams import DIGEST_HEADERS, ClaimedDigests, HashingReader
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import Attachment
from kinto_attachment.names import disposition_filename
from kinto_attachment.wsgi.bodies import body_of, check_length

# The other bytes of a form: two text fields, part headers, boundaries.
FORM_OVERHEAD = 2 * MAX_FIELD_SIZE + 64 * 1024


class Arrival(Protocol):
    """A way in which a file can arrive for the record of a request."""

    def __init__(self, request: Request) -> None: ...

    def check(self) -> None:
        """Check everything that is known before the body is read.

        :raises AttachmentError: refused; nothing has been read.
        """
        ...

    def receive(self) -> Received:
        """Store the file; called once, even if the request is repeated.

        :raises AttachmentError: refused; nothing remains stored.
        """
        ...


class FormArrival:
    """The file of a form, with the fields ``data`` and ``permissions``."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._content_type = request.headers.get("Content-Type", "")
        # Digests in the headers of the request are those of the whole form.
        self._claims = claims_of(request)

    def check(self) -> None:
        boundary_of(self._content_type)
        encoding_of(self._request.headers.get("Content-Encoding", ""), ())
        check_length(self._request, rules_of(self._request).max_size, overhead=FORM_OVERHEAD)

    def receive(self) -> Received:
        body = body_of(self._request)
        hashed = HashingReader(body, self._claims.algorithms)
        form = read_form(hashed if self._claims else body, self._content_type, self._store)
        self._claims.check(hashed)
        return Received(form.file, form.data, form.permissions)

    def _store(self, part: FilePart) -> Attachment:
        claims = ClaimedDigests.parse(part.headers)
        incoming = IncomingFile(part.filename, part.content_type, part.reader, claims)
        return store(self._request, incoming)


class NewRecordArrival(FormArrival):
    """A form for a new record, whose id Kinto makes."""

    def receive(self) -> Received:
        return without_id(super().receive())


class BodyArrival:
    """The request's body is the file."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._encoding = ""
        self._claims = claims_of(request)
        self._filename = requested_filename(request)

    def check(self) -> None:
        rules = rules_of(self._request)
        supported = () if rules.gzipped else rules.content_encodings
        header = self._request.headers.get("Content-Encoding", "")
        self._encoding = encoding_of(header, supported)
        check_length(self._request, rules.max_size, rules.min_size)

    def receive(self) -> Received:
        declared_type = self._request.headers.get("Content-Type")
        body = body_of(self._request)
        incoming = IncomingFile(
            self._filename,
            declared_type,
            body,
            self._claims,
            self._request.content_length,
            self._encoding,
        )
        return Received(store(self._request, incoming))


def attach(request: Request, kind: type[Arrival]) -> tuple[records.Written, Attachment]:
    """Receive a file, and write its record.

    :raises AttachmentError, HTTPException: refused; neither file nor record have changed.
    """
    received = receive_once(request, kind)
    return write(request, received), received.attachment


def write(request: Request, received: Received) -> records.Written:
    """Write the record of a file that has been stored.

    :raises AttachmentError, HTTPException: refused; the file is deleted if the request fails.
    """
    attachment = received.attachment.to_json()
    key = Ledger.of(request).key_of(str(request.context.uri), attachment)
    if key is not None:  # Kinto's log has a line for each request, with what is bound to it.
        request.log_context(attachment_key=key, attachment_bytes=attachment["size"])
    with quotas.entered(request, attachment):
        return records.write(request, received.data, received.permissions, attachment)


def receive_once(request: Request, kind: type[Arrival]) -> Received:
    """Store the file of a request, unless an earlier attempt of the request has stored it."""
    ledger = Ledger.of(request)
    if ledger.received is None or in_batch(request):
        arrival = kind(request)
        arrival.check()
        quotas.look(request)
        restart_transaction(request)
        ledger.received = arrival.receive()
    return ledger.received


def claims_of(request: Request) -> ClaimedDigests:
    """The digests that the headers of a request claim.

    :raises InvalidBody: a header is malformed.
    """
    headers = request.headers  # WebOb finds a header faster than it lists all of them.
    found = {name: headers[name] for name in DIGEST_HEADERS if name in headers}
    return ClaimedDigests.parse(found)


def without_id(received: Received) -> Received:
    """The data of a request for a new record, whose id Kinto makes.

    :raises InvalidForm: it has an id.
    """
    if "id" in (received.data or {}):
        raise InvalidForm(
            "data.id in body: the server makes the id; to choose it, upload to the record"
        )
    return received


def requested_filename(request: Request) -> str:
    """The filename of a raw body, from ``Content-Disposition`` or else from ``?filename=``."""
    header = request.headers.get("Content-Disposition")
    name = disposition_filename(header) if header else None
    name = name or request.GET.get("filename")
    if not name:
        raise InvalidForm("body: Filename is required.")
    return str(name)
