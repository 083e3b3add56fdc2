"""``…/records/{id}/attachment/versions``: a record's current and earlier files."""

from __future__ import annotations

from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from kinto.core.utils import msec_time
from pyramid.response import Response

from kinto_attachment.endpoints import attachment, downloads, openapi
from kinto_attachment.endpoints.attachment import NoContent, outside_default_bucket
from kinto_attachment.endpoints.context import VersionsContext
from kinto_attachment.endpoints.pages import Page
from kinto_attachment.endpoints.preconditions import check_preconditions
from kinto_attachment.endpoints.protection import refuse_locked_record
from kinto_attachment.endpoints.validity import WITH_LINKS, linker_of
from kinto_attachment.errors import VersionInUse
from kinto_attachment.files.holds import refuse_loss
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.restoring import RestoreArrival, changeable_version
from kinto_attachment.files.signed_links import Linker
from kinto_attachment.files.sources import Source
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.files.versions import find, readable_versions
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Request

LIST_ROUTE = "attachment-versions"
ROUTE = "attachment-version"
RESTORE_ROUTE = "attachment-restore"
LIST_PATH = f"{attachment.PATH}/versions"
PATH = f"{LIST_PATH}/{{version}}"
RESTORE_PATH = f"{PATH}/restore"


def services(*, readonly: bool, default_bucket: bool) -> list[Service]:
    def service(name: str, path: str, description: str) -> Service:
        path = outside_default_bucket(path) if default_bucket else path
        return Service(name=name, path=path, description=description, factory=VersionsContext)

    versions = service(LIST_ROUTE, LIST_PATH, "The current and the earlier files of a record")
    version = service(ROUTE, PATH, "One of them")
    restore = service(RESTORE_ROUTE, RESTORE_PATH, "Make it the current file again")
    versions.add_view("GET", get_versions, permission=DYNAMIC, **openapi.list_of_versions())
    version.add_view("GET", get_version, permission=DYNAMIC, **openapi.download_of_version())
    if not readonly:
        described = openapi.removal_of_version()
        version.add_view("DELETE", delete_version, permission=DYNAMIC, **described)
        restore.add_view("POST", post_restore, permission=DYNAMIC, **openapi.restoring())
    return [versions, version, restore]


def get_versions(request: Request) -> Response:
    """The versions that the user may read, newest first, page by page."""
    linker = linker_of(request)
    page = Page.of(request, readable(request), lambda version: version.age, (int, int, str))
    response = Response(json={"data": [json_of(version, linker) for version in page.items]})
    response.headers.update({**downloads.CURRENT, **page.headers()})
    if linker:
        response.headers.update(WITH_LINKS)
    if request.method == "HEAD":
        response.headers["Total-Bytes"] = str(sum(version.size for version in page.all_items))
    return response


@downloads.following
def get_version(request: Request) -> Response:
    """The bytes of one version."""
    uri, version = request.context.uri, find(readable(request), request.matchdict["version"])
    storage = request.registry.attachment_storages[version.storage]
    file = downloads.StoredFile.find(storage, version.key, version.attachment)
    file = downloads.as_requested(request, file)
    response = downloads.respond(request, file, rules_of(request), downloads.PRIVATE)
    metadata = Source.of(version).attachment(request).to_json()
    downloads.announce(request, response, str(uri), metadata)
    return response


def post_restore(request: Request) -> Response:
    """Make a version the current file; a deleted record is created again."""
    return attachment.upload(request, RestoreArrival)


def delete_version(request: Request) -> Response:
    """Delete an earlier file for good."""
    check_preconditions(request)
    refuse_locked_record(request)
    version, ledger = changeable_version(request), Ledger.of(request)
    restored = any(file.link == version for file in ledger.shared_files)
    if version.state == "current" or restored:
        raise VersionInUse()
    refuse_loss(request.registry, [version], msec_time())
    ledger.deleted_versions.append(version)
    return NoContent()


# The steps.


def readable(request: Request) -> list[Link]:
    """The versions that the user may read.

    :raises HTTPNotFound: the record does not exist, and there are no versions of it.
    """
    context = request.context
    exists = context.record is not None
    versions = readable_versions(request, context.uri, exists=exists)
    if not versions:
        context.existing_record()
    return versions


def json_of(version: Link, linker: Linker | None = None) -> dict[str, Any]:
    more = {"id": version.version, "created": version.created, "state": version.state}
    return version.attachment | more | (linker.members(version) if linker else {})
