"""Changing the name or media type of a stored file."""

from __future__ import annotations

from typing import Any

from kinto_attachment import names
from kinto_attachment.errors import AttachmentChanged, InvalidForm
from kinto_attachment.files.forms import read_json
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.stored_records import stored_record
from kinto_attachment.files.transactions import restart_transaction
from kinto_attachment.files.uploads import check_extension, rules_of
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD, same_json
from kinto_attachment.wsgi.bodies import body_of

FIELDS = {"filename", "mimetype"}


def rename(request: Request, attachment: dict[str, Any]) -> dict[str, Any]:
    """The attachment object with the changes in the request's JSON body.

    For a compressed file, the original gets the new name and type, and the stored file the name
    with ``.gz``.

    :raises InvalidForm, FileNotAllowed: the body is invalid, or the extension is not allowed.
    :raises AttachmentChanged: the record's file was replaced while the body arrived.
    """
    restart_transaction(request)
    changes = _changes(request)
    _check_unchanged(request, attachment)
    if "filename" in changes:
        changes["filename"] = names.clean_filename(changes["filename"])
        check_extension(request, rules_of(request), changes["filename"])
    if "mimetype" in changes:
        changes["mimetype"] = names.media_type(changes["mimetype"])
    if not isinstance(attachment.get("original"), dict):
        return {**attachment, **changes}
    renamed = {**attachment, "original": {**attachment["original"], **changes}}
    if "filename" in changes:
        renamed["filename"] = names.shortened(changes["filename"], ".gz")
    return renamed


def _check_unchanged(request: Request, attachment: dict[str, Any]) -> None:
    """This is checked again when the record is locked."""
    uri = str(request.context.uri)
    record = stored_record(request.registry, uri)
    if not same_json((record or {}).get(FIELD), attachment):
        raise AttachmentChanged()
    Ledger.of(request).renamed[uri] = attachment


def _changes(request: Request) -> dict[str, str]:
    data = read_json("body", body_of(request)).get("data")
    if not isinstance(data, dict) or not data or not data.keys() <= FIELDS:
        raise InvalidForm("data in body: should have `filename`, `mimetype` or both")
    if not all(isinstance(value, str) for value in data.values()):
        raise InvalidForm("data in body: should have texts")
    return dict(data)
