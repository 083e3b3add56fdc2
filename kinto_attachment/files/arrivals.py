"""The ways in which a file comes to a record. What follows is the same for all of them.

A way is a small class: it says what is refused before the body is read, and turns what arrives
into an attachment, with what came along for the record. Another one is written by implementing
:class:`Arrival` and handing it to :func:`attach`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from kinto_attachment.errors import InvalidForm
from kinto_attachment.files import records
from kinto_attachment.files.forms import MAX_FIELD_SIZE, FilePart, read_form
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.transactions import in_batch, restart_transaction
from kinto_attachment.files.uploads import IncomingFile, rules_of, store
from kinto_attachment.http.streams import ClaimedDigests, HashingReader
from kinto_attachment.metadata import Attachment
from kinto_attachment.names import disposition_filename
from kinto_attachment.wsgi.bodies import body_of, check_length

# What a form has besides the file: two text fields, part headers, boundaries.
FORM_OVERHEAD = 2 * MAX_FIELD_SIZE + 64 * 1024


@dataclass(frozen=True)
class Received:
    """A stored file, and what came along with it for its record."""

    attachment: Attachment
    data: dict[str, Any] | None = None
    permissions: dict[str, Any] | None = None


class Arrival(Protocol):
    """A way in which a file comes to the record that a request is about."""

    def __init__(self, request: Any) -> None: ...

    def check(self) -> None:
        """Refuse what can be refused before the first byte of the file.

        :raises AttachmentError: nothing has been read.
        """
        ...

    def receive(self) -> Received:
        """Store the file; called once, even when the request is repeated.

        :raises AttachmentError: nothing is left.
        """
        ...


class FormArrival:
    """The file of a form, with ``data`` and ``permissions`` beside it."""

    def __init__(self, request: Any) -> None:
        self._request = request
        # In the headers of the request, they are those of the whole form.
        self._claims = ClaimedDigests.parse(request.headers)

    def check(self) -> None:
        limit = rules_of(self._request).max_size
        check_length(self._request, limit, overhead=FORM_OVERHEAD)

    def receive(self) -> Received:
        body = body_of(self._request)
        hashed = HashingReader(body, self._claims.algorithms)
        content_type = self._request.headers.get("Content-Type", "")
        form = read_form(hashed if self._claims else body, content_type, self._store)
        self._claims.check(hashed)
        return Received(form.file, form.data, form.permissions)

    def _store(self, part: FilePart) -> Attachment:
        claims = ClaimedDigests.parse(part.headers)
        incoming = IncomingFile(part.filename, part.content_type, part.reader, claims)
        return store(self._request, incoming)


class BodyArrival:
    """The request's body, as it is."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._claims = ClaimedDigests.parse(request.headers)
        self._filename = _requested_filename(request)

    def check(self) -> None:
        check_length(self._request, rules_of(self._request).max_size)

    def receive(self) -> Received:
        declared_type = self._request.headers.get("Content-Type")
        body = body_of(self._request)
        incoming = IncomingFile(self._filename, declared_type, body, self._claims)
        return Received(store(self._request, incoming))


def attach(request: Any, kind: type[Arrival]) -> tuple[records.Written, Attachment]:
    """Receive a file, and write the record that it is for."""
    received = _receive_once(request, kind)
    attachment = received.attachment.to_json()
    written = records.write(request, received.data, received.permissions, attachment)
    return written, received.attachment


def _receive_once(request: Any, kind: type[Arrival]) -> Received:
    ledger = Ledger.of(request)
    if ledger.received is None or in_batch(request):
        arrival = kind(request)
        arrival.check()
        restart_transaction(request)
        ledger.received = arrival.receive()
    received: Received = ledger.received
    return received


def _requested_filename(request: Any) -> str:
    """The name of a raw body: ``Content-Disposition``, else ``?filename=``."""
    header = request.headers.get("Content-Disposition")
    name = disposition_filename(header) if header else None
    name = name or request.GET.get("filename")
    if not name:
        raise InvalidForm("body: Filename is required.")
    return str(name)
