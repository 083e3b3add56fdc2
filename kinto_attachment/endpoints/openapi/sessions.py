"""Uploads in several requests."""

from __future__ import annotations

from typing import Any

import colander

from kinto_attachment.endpoints.openapi.parts import (
    ACCESS,
    PRECONDITIONS,
    STORAGE,
    Arguments,
    EmptyResponse,
    FileRequest,
    errors,
    mapping,
    operation,
    text,
)
from kinto_attachment.endpoints.openapi.uploads import RAW_BODY, AttachmentResponse

TUS = (
    text("Tus-Resumable", "`1.0.0`: the protocol tus"),
    text("Upload-Length", "The size of the file, in bytes"),
    text("Upload-Offset", "The bytes of the file before those of this request"),
    text("Upload-Metadata", "`filename`, `filetype`, `data`, `permissions`, each in Base64"),
    text("Upload-Checksum", "`sha1` or `sha256`, a space, the digest of the body in Base64"),
)
# Of direct uploads only: tus sends headers, and maybe bytes.
DIRECT_UPLOAD: dict[str, Any] = {
    "name": "upload",
    "in": "body",
    "required": False,
    "description": "A direct upload, as `application/json`; tus has headers instead",
    "schema": {
        "type": "object",
        "required": ["attachment"],
        "properties": {
            "attachment": {
                "type": "object",
                "required": ["filename", "size"],
                "properties": {
                    "filename": {"type": "string"},
                    "size": {"type": "integer", "minimum": 0, "description": "Bytes"},
                    "mimetype": {"type": "string"},
                    "hash": {"type": "string", "description": "SHA-256, hexadecimal"},
                },
            },
            "data": {"type": "object", "description": "Attributes of the record"},
            "permissions": {"type": "object", "description": "Permissions of the record"},
            "expires_in": {
                "type": "integer",
                "minimum": 1,
                "maximum": 604800,
                "description": "How many seconds the URLs are valid",
            },
            "via": {"type": "string", "enum": ["storage", "kinto"]},
        },
    },
}
ENDS_OF_UPLOADS = errors(
    e409="Another offset, another protocol, or a concurrent change.",
    e410="The upload has expired, was cancelled, or has failed.",
    e423="Another request has taken over, the collection is locked, or the file is held.",
)


class UploadSchema(colander.MappingSchema):  # type: ignore[misc]
    """One of the unfinished uploads, or one that has ended."""

    id = colander.SchemaNode(colander.String())
    state = colander.SchemaNode(
        colander.String(), description="open, finishing, done, failed or expired"
    )
    filename = colander.SchemaNode(colander.String())
    offset = colander.SchemaNode(colander.Integer(), description="Durable bytes")
    expires_at = colander.SchemaNode(colander.Integer(), description="Ms since the epoch")


class PartSchema(colander.MappingSchema):  # type: ignore[misc]
    """A part of a direct upload, and the request that sends it."""

    number = colander.SchemaNode(colander.Integer())
    offset = colander.SchemaNode(colander.Integer())
    size = colander.SchemaNode(colander.Integer())
    method = colander.SchemaNode(colander.String(), description="PUT")
    url = colander.SchemaNode(colander.String())
    headers = mapping("headers")
    done = colander.SchemaNode(colander.Boolean(), description="Whether it has arrived")


class PartsSchema(colander.SequenceSchema):  # type: ignore[misc]
    part = PartSchema()


class DirectUploadSchema(UploadSchema):
    """A direct upload; while it is open, it has parts."""

    via = colander.SchemaNode(colander.String(), description="storage or kinto")
    url_expires_at = colander.SchemaNode(colander.Integer(), missing=colander.drop)
    parts = PartsSchema(missing=colander.drop)


class DirectUploadBody(colander.MappingSchema):  # type: ignore[misc]
    data = DirectUploadSchema()


class DirectUploadResponse(colander.MappingSchema):  # type: ignore[misc]
    body = DirectUploadBody()


class CreatedUploadResponse(DirectUploadResponse):
    header = mapping("header", text("Location", "The upload"))


class UnreadyUploadResponse(DirectUploadResponse):
    header = mapping("header", text("Retry-After", "Seconds"))


class UploadBody(colander.MappingSchema):  # type: ignore[misc]
    data = UploadSchema()


class UploadResponse(colander.MappingSchema):  # type: ignore[misc]
    body = UploadBody()


class UploadListBody(colander.MappingSchema):  # type: ignore[misc]
    data = colander.SequenceSchema(UploadSchema())


class UploadListResponse(colander.MappingSchema):  # type: ignore[misc]
    body = UploadListBody()
    header = mapping(
        "header",
        text("Next-Page", "URL of the next page, if there is one"),
        text("Total-Objects", "How many there are on all pages; HEAD only"),
        text("Total-Records", "The same"),
    )


def upload_creation() -> Arguments:
    responses = {
        "201": CreatedUploadResponse(
            description="The upload was created, at Location; only a direct one has a body."
        ),
        **errors(
            e400="The request, the file or the record is not valid.",
            e408="The bytes did not arrive in time.",
            e409="There was a concurrent change; retry.",
            e410="The upload has failed.",
            e412="Another version of the protocol, or the record does not match a precondition.",
            e413="The file is too large.",
            e415="The request speaks no protocol, or its body has another media type.",
            e423="Another request has taken over, the collection is locked, or the file is held.",
            e429="There are too many unfinished uploads.",
            e501="The server has no key to sign URLs with.",
            e507="The quota is exhausted, or the file storage is full.",
        ),
        **ACCESS,
        **STORAGE,
    }
    schema = FileRequest(mapping("header", *PRECONDITIONS, *TUS))
    schema.consumes = ("application/json", "application/offset+octet-stream")
    schema.parameters = (DIRECT_UPLOAD,)
    return operation("create_upload", schema, responses)


def upload_append() -> Arguments:
    return _upload("append_to_upload", _appended(), *TUS)


def upload_override() -> Arguments:
    override = text("X-HTTP-Method-Override", "`PATCH`, `HEAD` or `DELETE`")
    responses = {**_appended(), "200": EmptyResponse(description="The offset of the upload.")}
    return _upload("post_to_upload", responses, override, *TUS)


def upload_cancellation() -> Arguments:
    responses = {
        "204": EmptyResponse(description="The upload was cancelled."),
        **errors(
            e400="The request is not valid.",
            e404="Does not exist, or is somebody else's.",
            e410="The upload had ended before.",
            e412="Another version of the protocol.",
        ),
        **STORAGE,
    }
    return _upload("cancel_upload", responses)


def direct_bytes() -> Arguments:
    responses = {
        **_attached(),
        **errors(
            e408="The bytes did not arrive in time.",
            e413="The file is too large.",
            e415="The body has an encoding.",
        ),
    }
    query = mapping("querystring", text("token", "As it is in the URL of the part"))
    schema = FileRequest(query)
    schema.consumes, schema.parameters = ("application/octet-stream",), RAW_BODY
    return operation("put_bytes", schema, responses)


def upload_completion() -> Arguments:
    more = "The server is not ready: send the same request again, after Retry-After."
    responses = {"202": UnreadyUploadResponse(description=more), **_attached()}
    return _upload("complete_upload", responses)


def _attached() -> dict[str, Any]:
    return {
        "200": AttachmentResponse(description="The record was updated."),
        "201": AttachmentResponse(description="The record was created."),
        **errors(
            e400="The request, the file or the record is not valid.",
            e401="Not authenticated.",
            e403="Not allowed.",
            e404="Does not exist, or is somebody else's.",
            e412="The record does not match a precondition.",
            e413="The file is too large.",
            e507="The quota is exhausted, or the file storage is full.",
        ),
        **ENDS_OF_UPLOADS,
        **STORAGE,
    }


def upload_state() -> Arguments:
    responses = {
        "200": UploadResponse(description="The state of the upload."),
        **errors(
            e400="The request is not valid.",
            e404="Does not exist, or is somebody else's.",
            e409="HEAD: it was created by another protocol.",
            e410="HEAD: the upload has ended without a file.",
            e412="HEAD: another version of the protocol.",
            e415="HEAD: the request speaks no protocol.",
        ),
        **STORAGE,
    }
    return _upload("get_upload", responses)


def upload_list() -> Arguments:
    responses = {
        "200": UploadListResponse(description="A page of the unfinished uploads."),
        **errors(e400="The query is not valid."),
        **ACCESS,
        **STORAGE,
    }
    asked = mapping(
        "querystring",
        text("_limit", "How many there are on a page"),
        text("_token", "Where the page starts, as in `Next-Page`"),
    )
    return operation("list_uploads", FileRequest(asked), responses)


def _appended() -> dict[str, Any]:
    return {
        "204": EmptyResponse(description="The bytes are stored; after the last ones, the file."),
        **errors(
            e400="The request, the file or the record is not valid.",
            e401="Not authenticated.",
            e403="Not allowed.",
            e404="Does not exist, or is somebody else's.",
            e408="The bytes did not arrive in time.",
            e412="Another version of the protocol, or the record does not match a precondition.",
            e413="The file is too large.",
            e415="The body has another media type, or the request speaks no protocol.",
            e507="The quota is exhausted, or the file storage is full.",
        ),
        **ENDS_OF_UPLOADS,
        **STORAGE,
    }


def _upload(operation_id: str, responses: dict[str, Any], *headers: Any) -> Arguments:
    return operation(operation_id, FileRequest(mapping("header", *headers)), responses)
