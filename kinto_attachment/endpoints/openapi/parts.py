"""The common parts of the descriptions of endpoints."""

from __future__ import annotations

from typing import Any

import colander
from kinto.core.errors import ErrorSchema

from kinto_attachment.endpoints.openapi.summaries import SUMMARIES

Arguments = dict[str, Any]


class FileRequest(colander.MappingSchema):  # type: ignore[misc]
    """A request schema, with properties of the operation that Cornice does not support.

    ``consumes`` and ``produces`` are media types; ``parameters`` are those that carry a file, or
    JSON with null in it. ``permission`` is what the operation requires.
    """

    summary: str = ""
    permission: str = ""
    consumes: tuple[str, ...] = ()
    produces: tuple[str, ...] = ("application/json",)
    parameters: tuple[dict[str, Any], ...] = ()


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


class ErrorResponse(colander.MappingSchema):  # type: ignore[misc]
    body = ErrorSchema()


class EmptyResponse(colander.MappingSchema):  # type: ignore[misc]
    """A response without a body."""


class RawResponse(colander.MappingSchema):  # type: ignore[misc]
    """A response whose ``schema`` Cornice cannot make."""

    schema: dict[str, Any] = {}


class FileResponse(RawResponse):
    """A response whose body is a file or a part of one."""

    schema = {"type": "file"}


PRECONDITIONS = (
    text("If-Match", "The record's ETag that is expected"),
    text("If-None-Match", "`*`: only if the record does not exist"),
)
DIGESTS = (
    text("Content-Digest", "RFC 9530"),
    text("Repr-Digest", "RFC 9530"),
    text("Content-MD5", "Base64 of the MD5"),
)


def errors(**descriptions: str) -> dict[str, Any]:
    """From ``e404="…"`` to responses by status."""
    return {
        status.removeprefix("e"): ErrorResponse(description=description)
        for status, description in descriptions.items()
    }


# There is no ``default``: all statuses are listed.
ACCESS = errors(e401="Not authenticated.", e403="Not allowed.", e404="Does not exist.")
# What a lock or a hold refuses.
PROTECTION = errors(e423="The collection is locked, or the file is held (errno 121).")
STORAGE = errors(e503="The file storage or the database does not answer.")


def operation(operation_id: str, schema: Any, responses: dict[str, Any]) -> Arguments:
    """The arguments of a Cornice view. The schema is not validated, as there is no validator."""
    schema.summary, schema.permission = SUMMARIES[operation_id]
    return {
        "operation_id": operation_id,
        "schema": schema,
        "response_schemas": responses,
        "tags": ["Attachments"],
    }
