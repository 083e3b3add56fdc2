"""The endpoints as ``/v1/__api__`` describes them (OpenAPI 2.0)."""

from __future__ import annotations

from typing import Any

import colander
from kinto.core.cornice_swagger.swagger import ParameterHandler
from kinto.core.errors import ErrorSchema
from kinto.core.openapi import OpenAPI

Arguments = dict[str, Any]


class FormParameterHandler(ParameterHandler):  # type: ignore[misc]
    """Adds the form fields that a request schema has, which Cornice's own handler cannot."""

    def from_schema(self, schema_node: Any) -> list[dict[str, Any]]:
        fields = getattr(schema_node, "form_fields", ())
        return [*super().from_schema(schema_node), *(dict(field) for field in fields)]


def text(name: str, description: str) -> Any:
    return colander.SchemaNode(
        colander.String(), name=name, description=description, missing=colander.drop
    )


def mapping(name: str, *children: Any) -> Any:
    return colander.SchemaNode(colander.Mapping(), *children, name=name)


class FileSchema(colander.MappingSchema):  # type: ignore[misc]
    filename = colander.SchemaNode(colander.String())
    hash = colander.SchemaNode(colander.String(), description="SHA-256, hexadecimal")
    mimetype = colander.SchemaNode(colander.String())
    size = colander.SchemaNode(colander.Integer(), description="Bytes")


class AttachmentSchema(FileSchema):
    location = colander.SchemaNode(colander.String(), description="URL of the stored file")
    original = FileSchema(missing=colander.drop)


class AttachmentResponse(colander.MappingSchema):  # type: ignore[misc]
    body = AttachmentSchema()
    header = mapping(
        "header",
        text("Location", "The record"),
        text("ETag", "The record's new timestamp"),
        text("Last-Modified", "The same as a date"),
    )


class ErrorResponse(colander.MappingSchema):  # type: ignore[misc]
    body = ErrorSchema()


class PlainResponse(colander.MappingSchema):  # type: ignore[misc]
    """A response whose body is no JSON, if it has one."""


PRECONDITIONS = (
    text("If-Match", "The record's ETag that is expected"),
    text("If-None-Match", "`*`: only if the record does not exist"),
)
DIGESTS = (
    text("Content-Digest", "RFC 9530"),
    text("Repr-Digest", "RFC 9530"),
    text("Content-MD5", "Base64 of the MD5"),
)
FORM_FIELDS = (
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


def errors(**descriptions: str) -> dict[str, Any]:
    """From ``e404="…"`` to responses by status."""
    return {
        status.removeprefix("e"): ErrorResponse(description=description)
        for status, description in descriptions.items()
    }


ACCESS = errors(e401="Not authenticated.", e403="Not allowed.", e404="There is none.")
STORAGE = errors(e503="The file storage does not answer.", default="An unexpected error.")
UPLOADS = {
    "200": AttachmentResponse(description="The record was updated."),
    "201": AttachmentResponse(description="The record was created."),
    **errors(
        e400="The request, the file or the record is not valid.",
        e409="Another request came between, retry.",
        e412="The record is not as expected.",
        e413="The file is too large.",
        e507="The file storage is full.",
    ),
    **ACCESS,
    **STORAGE,
}
DOWNLOADS = {
    "200": PlainResponse(description="The file."),
    "206": PlainResponse(description="The part that was asked for."),
    "302": PlainResponse(description="The file is at this signed URL."),
    "304": PlainResponse(description="The file is the one that the client has."),
    **errors(e412="The file is not the expected one.", e416="There are no such bytes."),
    **ACCESS,
    **STORAGE,
}


def upload_of_form() -> Arguments:
    schema = colander.MappingSchema()
    schema.add(mapping("header", *PRECONDITIONS))
    schema.form_fields = FORM_FIELDS
    return _operation("attach_file", schema, UPLOADS)


def upload_of_body() -> Arguments:
    schema = colander.MappingSchema()
    disposition = text("Content-Disposition", "With the `filename` of the file")
    schema.add(mapping("header", disposition, *PRECONDITIONS, *DIGESTS))
    schema.add(mapping("querystring", text("filename", "Instead of Content-Disposition")))
    body = colander.SchemaNode(colander.String(), name="body", description="The file")
    schema.add(body)
    return _operation("put_file", schema, UPLOADS)


def removal() -> Arguments:
    schema = colander.MappingSchema()
    schema.add(mapping("header", *PRECONDITIONS))
    responses = {
        "204": PlainResponse(description="The record has no attachment now."),
        **errors(e400="A header is not valid.", e412="The record is not as expected."),
        **ACCESS,
        **STORAGE,
    }
    return _operation("detach_file", schema, responses)


def download(operation_id: str) -> Arguments:
    schema = colander.MappingSchema()
    schema.add(
        mapping(
            "header",
            text("Range", "Part of the file, in bytes"),
            text("If-Range", "The range only of this file (ETag or date)"),
            text("If-Match", "Only if it is one of these files (ETags)"),
            text("If-None-Match", "Only if it is none of these files (ETags)"),
            text("If-Modified-Since", "Only if it is newer"),
            text("If-Unmodified-Since", "Only if it is not newer"),
        )
    )
    return _operation(operation_id, schema, DOWNLOADS)


def _operation(operation_id: str, schema: Any, responses: dict[str, Any]) -> Arguments:
    """Arguments of a Cornice view; without a validator, the schema only describes."""
    return {
        "operation_id": operation_id,
        "schema": schema,
        "response_schemas": responses,
        "tags": ["Attachments"],
    }


def describe_forms() -> None:
    """Have Kinto's description include form fields."""
    OpenAPI.parameters = FormParameterHandler
