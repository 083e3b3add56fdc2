"""Making an earlier file the current one of a record, which may have been deleted."""

from __future__ import annotations

from kinto_attachment.errors import VersionUnavailable
from kinto_attachment.files.copying import fields_of, share
from kinto_attachment.files.ledger import Ledger, Received
from kinto_attachment.files.sources import Source
from kinto_attachment.files.versions import find, versions_of, versions_of_deleted
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Request


class RestoreArrival:
    """The version in the request's path; the body may have JSON for the record."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def check(self) -> None:
        self._version()

    def receive(self) -> Received:
        fields = fields_of(self._request, optional=True)
        source = Source.of(self._version())
        attachment = source.attachment(self._request)
        share(self._request, source, attachment)
        return Received(attachment, fields.get("data"), fields.get("permissions"))

    def _version(self) -> Link:
        version = changeable_version(self._request)
        if version.storage not in self._request.registry.attachment_storages:
            raise VersionUnavailable()
        return version


def changeable_version(request: Request) -> Link:
    """The version in a request's path, if the user may write the record.

    :raises FileNotFound: the version does not exist, or a batch has deleted it.
    """
    context, links = request.context, request.registry.attachment_links
    of_record = versions_of_deleted if context.record is None else versions_of
    deleted = {link.id for link in Ledger.of(request).deleted_versions}
    versions = [each for each in of_record(links, str(context.uri)) if each.id not in deleted]
    return find(versions, request.matchdict["version"])
