"""Files as responses, and links to them."""

from __future__ import annotations

from typing import Any

import colander

from kinto_attachment.endpoints.openapi.parts import (
    ACCESS,
    STORAGE,
    Arguments,
    EmptyResponse,
    FileRequest,
    FileResponse,
    errors,
    mapping,
    operation,
    text,
)

NAMED = (
    text("disposition", "`inline` or `attachment`"),
    text("filename", "The name to save it under"),
)


CONDITIONS = mapping(
    "header",
    text("Range", "Part of the file, in bytes"),
    text("If-Range", "The range only of this file (ETag or date)"),
    text("If-Match", "Only if it is one of these files (ETags)"),
    text("If-None-Match", "Only if it is none of these files (ETags)"),
    text("If-Modified-Since", "Only if it is newer"),
    text("If-Unmodified-Since", "Only if it is not newer"),
)


class LinkSchema(colander.MappingSchema):  # type: ignore[misc]
    data = mapping(
        "data",
        colander.SchemaNode(colander.String(), name="url"),
        colander.SchemaNode(colander.Integer(), name="expires_at", description="ms"),
    )


LINKS = errors(
    e400="The query has an invalid value.",
    e501="The server has no key to sign links with.",
)


class LinkResponse(colander.MappingSchema):  # type: ignore[misc]
    body = LinkSchema()


# A file is sent with the media type that it was uploaded with.
FILE_TYPES = ("application/octet-stream", "*/*", "application/json")
# Files that may not be read look like files that do not exist.
FILE_ACCESS = errors(
    e401="Not authenticated, whether or not the file exists.",
    e404="There is no such file that the user may read.",
)
DOWNLOADS = {
    "200": FileResponse(description="The file."),
    "206": FileResponse(description="The requested part of the file."),
    "302": EmptyResponse(description="The file is at this signed URL."),
    "304": EmptyResponse(description="The client's copy is up to date."),
    **errors(
        e400="The request is not valid.",
        e412="The file does not match a precondition.",
        e416="The file has no byte of the requested range.",
    ),
    **STORAGE,
}


def download_of_record() -> Arguments:
    return download("get_attachment", ACCESS, mapping("querystring", *NAMED))


def download_of_file() -> Arguments:
    return download("get_file", FILE_ACCESS)


def link_to_file() -> Arguments:
    return link("get_attachment_url", *NAMED)


def link_to_version() -> Arguments:
    return link("get_version_url", *NAMED)


def link(operation_id: str, *parameters: Any) -> Arguments:
    validity = text("expires_in", "How long it is valid, such as `600` (seconds) or `1h`")
    asked = mapping("querystring", validity, *parameters)
    responses = {
        "200": LinkResponse(description="A link that needs no credentials."),
        **ACCESS,
        **LINKS,
        **STORAGE,
    }
    return operation(operation_id, FileRequest(asked), responses)


def download(operation_id: str, access: dict[str, Any], *also: Any) -> Arguments:
    schema = FileRequest(*also, CONDITIONS)
    schema.produces = FILE_TYPES
    return operation(operation_id, schema, {**DOWNLOADS, **access})
