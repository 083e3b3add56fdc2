"""``/attachments/{key}``: one stored file, by the object key in its location."""

from __future__ import annotations

from typing import Any

from kinto.core import Service
from kinto.core.utils import msec_time
from pyramid.httpexceptions import HTTPForbidden
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from kinto_attachment.endpoints import downloads, openapi
from kinto_attachment.errors import FileNotFound
from kinto_attachment.files.collection_settings import CollectionSettingsResolver
from kinto_attachment.files.locations import FILES_ROUTE, check_host
from kinto_attachment.files.permissions import may_read
from kinto_attachment.index.links import Link, Links
from kinto_attachment.uris import RecordURI

ROUTE = FILES_ROUTE
NO_RECORD = RecordURI("-", "-", "-")
PATH = "/attachments/{key:.+}"


def service() -> Service:
    file = Service(name=FILES_ROUTE, path=PATH, description="A stored file")
    # Whether the user may read is a question to the index, asked by the view.
    file.add_view(
        "GET",
        get_file,
        permission=NO_PERMISSION_REQUIRED,
        **openapi.download_of_file(),
    )
    return file


def get_file(request: Any) -> Response:
    check_host(request)
    registry = request.registry
    public = registry.attachment_settings["public"]
    link = readable_link(request, request.matchdict["key"], public=public)
    file = downloads.StoredFile.find(registry.attachment_storage, link.key, link.dump())
    uri = RecordURI.parse(link.record)
    resolver: CollectionSettingsResolver = registry.attachment_collection_settings
    rules = resolver.of(request, uri.bucket_id, uri.collection_id)
    caching = downloads.PUBLIC if public else downloads.PRIVATE
    response = downloads.respond(request, file, rules, caching)
    downloads.announce(request, response, link.record, link.dump())
    return response


def readable_link(request: Any, key: str, *, public: bool) -> Link:
    """A record that points at the file and that the user may read.

    Whether there is a file that they may not read is not to be told from the answer.

    :raises HTTPForbidden: there is none, and the user has not said who they are.
    :raises FileNotFound: there is none.
    """
    links: Links = request.registry.attachment_links
    found = [link for link in links.of_key(key) if link.is_readable(msec_time())]
    if not found and not public:
        may_read(request, str(NO_RECORD))  # It takes as long as for a file that exists.
    for link in found:
        if public or may_read(request, link.record):
            return link
    if not public and request.authenticated_userid is None:
        raise HTTPForbidden()  # Kinto makes a 401 of it.
    raise FileNotFound()
