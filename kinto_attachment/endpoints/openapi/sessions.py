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
ENDS_OF_UPLOADS = errors(
    e409="Another offset, another protocol, or a concurrent change.",
    e410="The upload has expired, was cancelled, or has failed.",
    e423="Another request has taken over the upload.",
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


class UploadBody(colander.MappingSchema):  # type: ignore[misc]
    data = UploadSchema()


class UploadResponse(colander.MappingSchema):  # type: ignore[misc]
    body = UploadBody()


class UploadListBody(colander.MappingSchema):  # type: ignore[misc]
    data = colander.SequenceSchema(UploadSchema())


class UploadListResponse(colander.MappingSchema):  # type: ignore[misc]
    body = UploadListBody()


def upload_creation() -> Arguments:
    responses = {
        "201": DirectUploadResponse(
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
            e423="Another request has taken over the upload.",
            e429="There are too many unfinished uploads.",
            e501="The server has no key to sign URLs with.",
            e507="The file storage is full.",
        ),
        **ACCESS,
        **STORAGE,
    }
    return _upload("create_upload", responses, *PRECONDITIONS, *TUS)


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
    responses = {"202": DirectUploadResponse(description=more), **_attached()}
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
            e507="The file storage is full.",
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
        "200": UploadListResponse(description="The unfinished uploads."),
        **ACCESS,
        **STORAGE,
    }
    return _upload("list_uploads", responses)


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
            e507="The file storage is full.",
        ),
        **ENDS_OF_UPLOADS,
        **STORAGE,
    }


def _upload(operation_id: str, responses: dict[str, Any], *headers: Any) -> Arguments:
    return operation(operation_id, FileRequest(mapping("header", *headers)), responses)
