"""The versions of a record's attachment."""

from __future__ import annotations

import colander

from kinto_attachment.endpoints.openapi.downloads import NAMED, download
from kinto_attachment.endpoints.openapi.parts import (
    ACCESS,
    PRECONDITIONS,
    PROTECTION,
    STORAGE,
    Arguments,
    EmptyResponse,
    FileRequest,
    FileSchema,
    errors,
    mapping,
    operation,
    text,
)
from kinto_attachment.endpoints.openapi.uploads import UPLOADS


class VersionSchema(FileSchema):
    id = colander.SchemaNode(colander.String())
    encoding = text("encoding", "The Content-Encoding of the stored bytes")
    original = FileSchema(missing=colander.drop)
    created = colander.SchemaNode(colander.Integer(), description="When it was stored, in ms")
    state = colander.SchemaNode(colander.String(), description="`current` or `kept`")
    url = text("url", "A link without credentials, with `_urls`; may be null")
    url_expires_at = colander.SchemaNode(
        colander.Integer(), description="Until then, in ms", missing=colander.drop
    )


class VersionsSchema(colander.MappingSchema):  # type: ignore[misc]
    data = colander.SequenceSchema(VersionSchema())


class VersionsResponse(colander.MappingSchema):  # type: ignore[misc]
    body = VersionsSchema()
    header = mapping(
        "header",
        text("Next-Page", "URL of the next page, if there is one"),
        text("Total-Objects", "How many there are; HEAD only"),
        text("Total-Records", "The same"),
        text("Total-Bytes", "Their bytes; HEAD only"),
    )


def list_of_versions() -> Arguments:
    asked = mapping(
        "querystring",
        text("_limit", "How many there are on a page"),
        text("_token", "Where the page starts, as in `Next-Page`"),
        text("_urls", "Links to the files, and how long they are valid"),
    )
    responses = {
        "200": VersionsResponse(description="The versions, newest first."),
        **errors(e400="The request is not valid."),
        **ACCESS,
        **STORAGE,
    }
    return operation("list_versions", FileRequest(asked), responses)


def download_of_version() -> Arguments:
    return download("get_version", ACCESS, mapping("querystring", *NAMED))


def removal_of_version() -> Arguments:
    responses = {
        "204": EmptyResponse(description="The file was deleted."),
        **errors(
            e400="The request is not valid.",
            e409="It is the current file, or there was a concurrent change.",
            e412="The record does not match a precondition.",
        ),
        **PROTECTION,
        **ACCESS,
        **STORAGE,
    }
    schema = FileRequest(mapping("header", *PRECONDITIONS))
    return operation("delete_version", schema, responses)


def restoring() -> Arguments:
    gone = errors(e410="The file is in a storage that is not configured any more.")
    fields = mapping("body", mapping("data"), mapping("permissions"))
    schema = FileRequest(mapping("header", *PRECONDITIONS), fields)
    return operation("restore_version", schema, {**UPLOADS, **gone})
