"""``…/collections/{id}/attachments.zip/url``: a link to the archive without credentials."""

from __future__ import annotations

from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.response import Response

from kinto_attachment.endpoints import collection_archive, openapi
from kinto_attachment.endpoints.attachment import outside_default_bucket
from kinto_attachment.endpoints.collection_context import FilesContext
from kinto_attachment.endpoints.link import answer
from kinto_attachment.endpoints.validity import validity
from kinto_attachment.files.archive_links import VALIDITY, signed_archive
from kinto_attachment.files.list_queries import ListQuery
from kinto_attachment.kinto_types import Request

ROUTE = "collection-attachments-archive-url"
PATH = f"{collection_archive.PATH}/url"


def service(*, default_bucket: bool) -> Service:
    link = Service(
        name=ROUTE,
        path=outside_default_bucket(PATH) if default_bucket else PATH,
        description="A link to the files of a collection in one archive",
        factory=FilesContext,
    )
    link.add_view("GET", get_link, permission=DYNAMIC, **openapi.link_to_archive())
    return link


def get_link(request: Request) -> Response:
    """A link to the archive of the files that the query selects."""
    context: Any = request.context
    context.check_exists()
    ListQuery.of_all(request, VALIDITY)
    route, seconds = collection_archive.ROUTE, validity(request, VALIDITY)
    made = signed_archive(request, route, context.uri, context.current_object, seconds)
    return answer(made)
