"""``/attachments/{key}``: one stored file, by the object key in its location."""

from __future__ import annotations

import time
from dataclasses import replace

from kinto.core import Service
from kinto.core.utils import msec_time
from pyramid.httpexceptions import HTTPForbidden
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from kinto_attachment.endpoints import downloads, openapi
from kinto_attachment.errors import FileNotFound
from kinto_attachment.files.locations import FILES_ROUTE, check_host, location_of
from kinto_attachment.files.permissions import may_read
from kinto_attachment.files.signed_links import LinkClaims, linked_file
from kinto_attachment.files.versions import may_read_earlier
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Request
from kinto_attachment.storage.storages import Storages
from kinto_attachment.uris import RecordURI

ROUTE = FILES_ROUTE
NO_RECORD = RecordURI("-", "-", "-")
PATH = "/attachments/{key:.+}"


def service() -> Service:
    file = Service(name=FILES_ROUTE, path=PATH, description="A stored file")
    # The view checks the permission: the file's records are found in the index.
    file.add_view(
        "GET",
        get_file,
        permission=NO_PERMISSION_REQUIRED,
        **openapi.download_of_file(),
    )
    return file


@downloads.following
def get_file(request: Request) -> Response:
    check_host(request)
    registry = request.registry
    key = request.matchdict["key"]
    signed = linked_file(request, key, request.GET.get("token", ""))
    link = signed[0] if signed else readable_link(request, key)
    storage = registry.attachment_storages[link.storage]
    file = downloads.StoredFile.find(storage, link.key, link.attachment)
    uri = RecordURI.parse(link.record)
    resolver = registry.attachment_collection_settings
    rules = resolver.of(request, uri.bucket_id, uri.collection_id)
    caching = downloads.PUBLIC if storage.public else downloads.PRIVATE
    if signed:
        file, caching = as_signed(file, signed[1])
    response = downloads.respond(request, file, rules, caching)
    location = location_of(request, storage, link.key)
    downloads.announce(request, response, link.record, {**link.attachment, "location": location})
    return response


def as_signed(
    file: downloads.StoredFile, claims: LinkClaims
) -> tuple[downloads.StoredFile, dict[str, str]]:
    """The file with the name and disposition of a signed link, and the headers for caches."""
    left = max(0, int(claims.expires - time.time()))
    is_saved = claims.disposition == "attachment"
    caching = {
        "Cache-Control": f"private, max-age={left}, immutable",
        **downloads.LINKED,
    }
    return replace(file, filename=claims.filename, is_saved=is_saved), caching


def readable_link(request: Request, key: str) -> Link:
    """The link of the file to a record that the user may read, if its storage is not public.

    Files that the user may not read look like files that do not exist.

    :raises HTTPForbidden: no such link, and the user is not authenticated.
    :raises FileNotFound: no such link.
    """
    links, storages = request.registry.attachment_links, request.registry.attachment_storages
    found = [link for link in links.of_key(key) if link.is_readable(msec_time())]
    all_public = all(storage.public for storage in storages)
    if not found and not all_public:
        may_read(request, str(NO_RECORD))  # This takes as long as for a file that exists.
    for link in found:
        if may_read_file(request, link, storages) and not links.is_of_earlier_life(link):
            return link
    if not all_public and request.authenticated_userid is None:
        raise HTTPForbidden()  # Kinto turns it into a 401.
    raise FileNotFound()


def may_read_file(request: Request, link: Link, storages: Storages) -> bool:
    """Whether a user may read the file of a link. Earlier files are readable as versions only."""
    if is_public(storages, link):
        return True
    if not may_read(request, link.record):
        return False
    return link.state != "kept" or may_read_earlier(request, RecordURI.parse(link.record))


def is_public(storages: Storages, link: Link) -> bool:
    """Whether everybody may read a file; False if its storage is no longer configured."""
    storage = storages.get(link.storage)
    return storage is not None and storage.public
