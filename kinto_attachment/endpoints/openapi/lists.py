"""The files of a collection."""

from __future__ import annotations

from typing import Any

import colander

from kinto_attachment.endpoints.openapi.downloads import CONDITIONS, DOWNLOADS, link
from kinto_attachment.endpoints.openapi.parts import (
    ACCESS,
    STORAGE,
    Arguments,
    EmptyResponse,
    FileRequest,
    FileResponse,
    FileSchema,
    RawResponse,
    errors,
    mapping,
    operation,
    text,
)


class ListedSchema(FileSchema):
    """Unknown values of a file are null, which OpenAPI 2.0 cannot express."""

    record = colander.SchemaNode(colander.String(), description="URI of the record")
    id = colander.SchemaNode(colander.String(), description="Id of the record")
    last_modified = colander.SchemaNode(
        colander.Integer(), description="Of the record; not of kept files", missing=colander.drop
    )
    state = colander.SchemaNode(colander.String(), description="`current` or `kept`")
    url = text("url", "A link without credentials, with `_urls`")
    url_expires_at = colander.SchemaNode(
        colander.Integer(), description="Until then, in ms", missing=colander.drop
    )


class ListedFiles(colander.SequenceSchema):  # type: ignore[misc]
    file = ListedSchema()


class ListingSchema(colander.MappingSchema):  # type: ignore[misc]
    data = ListedFiles()


class ListingResponse(colander.MappingSchema):  # type: ignore[misc]
    body = ListingSchema()
    header = mapping(
        "header",
        text("ETag", "The timestamp of the collection's records"),
        text("Next-Page", "URL of the next page, if there is one"),
        text("Total-Objects", "How many files there are on all pages; HEAD only"),
        text("Total-Records", "The same"),
        text("Total-Bytes", "Their bytes; HEAD only"),
        text("Quota-Bytes", "The quota that leaves the least, if there is one; HEAD only"),
        text("Quota-Left", "How many bytes it leaves; HEAD only"),
    )


INTEGER, BOOLEAN = {"type": "integer"}, {"type": "boolean"}
TEXTS = {"type": "array", "items": {"type": "string"}}
USED = {"type": "integer", "x-nullable": True, "description": "Null without a quota"}
RULES = {
    "max_size": INTEGER,
    "min_size": INTEGER,
    "extensions": TEXTS,
    "gzipped": BOOLEAN,
    "content_encodings": TEXTS,
    "versions": BOOLEAN,
    "hold": INTEGER,
    "resumable": TEXTS,
    "direct": BOOLEAN,
    "locked": BOOLEAN,
    "quota_bytes": INTEGER,
    "used_bytes": USED,
    "quota_files": INTEGER,
    "used_files": USED,
}


class RulesResponse(RawResponse):
    schema = {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"type": "object", "required": [*RULES], "properties": RULES}},
    }


def filters() -> tuple[Any, ...]:
    """The filters of listings. Each field may have others of Kinto's, such as ``not_``."""
    return (
        text("filename", "Only files with this name"),
        text("like_filename", "Only files with such a name; `*` stands for anything"),
        text("mimetype", "Only files of this media type"),
        text("hash", "Only the file with this SHA-256"),
        text("in_id", "Only those of these records, ids with commas in between"),
        text("min_size", "Only files of so many bytes or more"),
        text("max_size", "Only files of so many bytes or less"),
        text("_since", "Only those of records that were changed after this timestamp"),
    )


def listing() -> Arguments:
    asked = mapping(
        "querystring",
        *filters(),
        text("state", "`current` (default) or `kept`"),
        text("_limit", "How many there are on a page"),
        text("_token", "Where the page starts, as in `Next-Page`"),
        text("_urls", "Links to the files, and how long they are valid"),
    )
    responses = {
        "200": ListingResponse(description="A page of the files."),
        "304": EmptyResponse(description="No record has changed."),
        **errors(e400="The query is not valid."),
        **ACCESS,
        **STORAGE,
    }
    conditions = mapping("header", text("If-None-Match", "The ETag of an earlier response"))
    return operation("list_files", FileRequest(asked, conditions), responses)


def archive() -> Arguments:
    schema = FileRequest(mapping("querystring", *filters()), CONDITIONS)
    schema.produces = ("application/zip", "application/json")
    # All but the first are for a bundle, which is a stored file.
    responses = {
        **DOWNLOADS,
        "200": FileResponse(description="The files in a ZIP archive."),
        **errors(
            e400="The query is not valid.",
            e413="These are too many files.",
            e500="The first file is missing.",
        ),
        **ACCESS,
    }
    return operation("get_archive", schema, responses)


def link_to_archive() -> Arguments:
    return link("get_archive_url", *filters())


def rules() -> Arguments:
    bad = errors(e400="The request is not valid.")
    responses = {"200": RulesResponse(description="The rules."), **bad, **ACCESS, **STORAGE}
    return operation("get_rules", FileRequest(), responses)
