"""``R/attachment/url`` and ``R/attachment/versions/{version}/url``: links without credentials."""

from __future__ import annotations

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.response import Response

from kinto_attachment.endpoints import attachment, openapi, versions
from kinto_attachment.endpoints.attachment import outside_default_bucket
from kinto_attachment.endpoints.context import RecordContext, VersionsContext
from kinto_attachment.endpoints.downloads import requested_disposition
from kinto_attachment.endpoints.validity import WITH_LINKS, validity
from kinto_attachment.errors import FileNotFound
from kinto_attachment.files.signed_links import Linker, SignedLink, is_linked
from kinto_attachment.files.sources import current_link
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.files.versions import find
from kinto_attachment.index.link import Link
from kinto_attachment.kinto_types import Request
from kinto_attachment.metadata import FIELD

ROUTE = "attachment-url"
VERSION_ROUTE = "attachment-version-url"
PATH = f"{attachment.PATH}/url"
VERSION_PATH = f"{versions.PATH}/url"


def services(*, default_bucket: bool) -> list[Service]:
    def service(name: str, path: str, description: str, factory: type) -> Service:
        path = outside_default_bucket(path) if default_bucket else path
        return Service(name=name, path=path, description=description, factory=factory)

    link = service(ROUTE, PATH, "A link to the file attached to a record", RecordContext)
    link.add_view("GET", get_link, permission=DYNAMIC, **openapi.link_to_file())
    version = service(VERSION_ROUTE, VERSION_PATH, "A link to a version of it", VersionsContext)
    described = openapi.link_to_version()
    version.add_view("GET", get_link_to_version, permission=DYNAMIC, **described)
    return [link, version]


def get_link(request: Request) -> Response:
    """A link to the record's current file, under its own name or the query's."""
    metadata = request.context.existing_record().get(FIELD)
    current = current_link(request.registry, str(request.context.uri))
    if current is None or not isinstance(metadata, dict):
        raise FileNotFound("The record has no attachment.")
    return link_to(request, current)


def get_link_to_version(request: Request) -> Response:
    """A link to one of the record's versions."""
    version = find(versions.readable(request), request.matchdict["version"])
    if not is_linked(version):
        raise FileNotFound("The record was deleted, and links to its files no longer work.")
    return link_to(request, version)


# The steps.


def link_to(request: Request, link: Link) -> Response:
    linker = Linker(request, rules_of(request), validity(request))
    return answer(linker.link(link, *requested_disposition(request)))


def answer(made: SignedLink) -> Response:
    response = Response(json={"data": {"url": made.url, "expires_at": made.expires_at}})
    response.headers.update(WITH_LINKS)
    return response
