"""Uploads in one request, and changes of an attachment."""

from __future__ import annotations

from typing import Any

import colander

from kinto_attachment.endpoints.openapi.parts import (
    ACCESS,
    DIGESTS,
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


def of_the_record() -> Any:
    return mapping(
        "header",
        text("Location", "The record"),
        text("ETag", "The record's new timestamp"),
        text("Last-Modified", "The same as a date"),
        text("Attachment-Version", "The id of the version that an upload made"),
    )


class AttachmentSchema(FileSchema):
    encoding = text("encoding", "The Content-Encoding of the stored bytes")
    location = colander.SchemaNode(colander.String(), description="URL of the stored file")
    original = FileSchema(missing=colander.drop)


class AttachmentResponse(colander.MappingSchema):  # type: ignore[misc]
    body = AttachmentSchema()
    header = of_the_record()


class RecordSchema(colander.MappingSchema):  # type: ignore[misc]
    data = mapping("data")
    permissions = mapping("permissions")


class RecordResponse(colander.MappingSchema):  # type: ignore[misc]
    body = RecordSchema()
    header = of_the_record()


FORM_FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "attachment", "in": "formData", "type": "file", "required": True},
    {
        "name": "data",
        "in": "formData",
        "type": "string",
        "required": False,
        "description": "JSON object: attributes of the record",
    },
    {
        "name": "permissions",
        "in": "formData",
        "type": "string",
        "required": False,
        "description": "JSON object: permissions of the record",
    },
)
RAW_BODY: tuple[dict[str, Any], ...] = (
    {
        "name": "file",
        "in": "body",
        "required": True,
        "description": "The file; its own media type may be sent instead",
        "schema": {"type": "string", "format": "binary"},
    },
)
UPLOADS = {
    "200": AttachmentResponse(description="The record was updated."),
    "201": AttachmentResponse(description="The record was created."),
    **errors(
        e400="The request, the file or the record is not valid.",
        e408="The file did not arrive in time.",
        e409="There was a concurrent change; retry.",
        e412="The record does not match a precondition.",
        e413="The file is too large.",
        e415="The body has another media type, or an encoding that is not supported.",
        e507="The quota is exhausted, or the file storage is full.",
    ),
    **PROTECTION,
    **ACCESS,
    **STORAGE,
}


def upload_of_form() -> Arguments:
    schema = FileRequest(mapping("header", *PRECONDITIONS, *DIGESTS))
    # OpenAPI 2.0 cannot describe the JSON of a copy beside the form.
    schema.consumes, schema.parameters = ("multipart/form-data",), FORM_FIELDS
    return operation("attach_file", schema, UPLOADS)


def upload_for_new_record() -> Arguments:
    schema = FileRequest(mapping("header", *PRECONDITIONS, *DIGESTS))
    schema.consumes, schema.parameters = ("multipart/form-data",), FORM_FIELDS
    responses = {**UPLOADS, "201": RecordResponse(description="The record was created.")}
    del responses["200"]
    return operation("create_record_with_file", schema, responses)


def upload_of_body() -> Arguments:
    disposition = text("Content-Disposition", "With the `filename` of the file")
    encoding = text("Content-Encoding", "`gzip`, where the server allows it")
    schema = FileRequest(
        mapping("header", disposition, encoding, *PRECONDITIONS, *DIGESTS),
        mapping("querystring", text("filename", "Instead of Content-Disposition")),
    )
    schema.consumes, schema.parameters = ("application/octet-stream",), RAW_BODY
    return operation("put_file", schema, UPLOADS)


def removal() -> Arguments:
    responses = {
        "204": EmptyResponse(description="The attachment was removed."),
        **errors(
            e400="The request is not valid.",
            e409="There was a concurrent change; retry.",
            e412="The record does not match a precondition.",
        ),
        **PROTECTION,
        **ACCESS,
        **STORAGE,
    }
    return operation("detach_file", FileRequest(mapping("header", *PRECONDITIONS)), responses)


def renaming() -> Arguments:
    changes = mapping("data", text("filename", "Its name"), text("mimetype", "Its media type"))
    responses = {
        "200": AttachmentResponse(description="The record was updated."),
        **errors(
            e400="The request, the name or the record is not valid.",
            e408="The body did not arrive in time.",
            e409="There was a concurrent change; retry.",
            e412="The record does not match a precondition.",
            e413="The body is too large.",
        ),
        **PROTECTION,
        **ACCESS,
        **STORAGE,
    }
    schema = FileRequest(mapping("header", *PRECONDITIONS), mapping("body", changes))
    return operation("rename_file", schema, responses)
