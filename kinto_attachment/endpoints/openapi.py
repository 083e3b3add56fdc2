"""The endpoints as ``/v1/__api__`` describes them (OpenAPI 2.0)."""

from __future__ import annotations

from typing import Any

import colander
from kinto.core.cornice_swagger.swagger import CorniceSwagger
from kinto.core.errors import ErrorSchema
from kinto.core.openapi import OpenAPI

Arguments = dict[str, Any]


class FileRequest(colander.MappingSchema):  # type: ignore[misc]
    """A request schema, with properties of the operation that Cornice does not support.

    ``consumes`` and ``produces`` are media types; ``parameters`` are those that carry a file.
    """

    consumes: tuple[str, ...] = ()
    produces: tuple[str, ...] = ("application/json",)
    parameters: tuple[dict[str, Any], ...] = ()


def text(name: str, description: str) -> Any:
    return colander.SchemaNode(
        colander.String(), name=name, description=description, missing=colander.drop
    )


def mapping(name: str, *children: Any) -> Any:
    return colander.SchemaNode(colander.Mapping(), *children, name=name)


def of_the_record() -> Any:
    return mapping(
        "header",
        text("Location", "The record"),
        text("ETag", "The record's new timestamp"),
        text("Last-Modified", "The same as a date"),
    )


class FileSchema(colander.MappingSchema):  # type: ignore[misc]
    filename = colander.SchemaNode(colander.String())
    hash = colander.SchemaNode(colander.String(), description="SHA-256, hexadecimal")
    mimetype = colander.SchemaNode(colander.String())
    size = colander.SchemaNode(colander.Integer(), description="Bytes")


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


class ListedSchema(FileSchema):
    """What is not known of a file is null, which OpenAPI 2.0 cannot say."""

    record = colander.SchemaNode(colander.String(), description="URI of the record")
    id = colander.SchemaNode(colander.String(), description="Id of the record")
    last_modified = colander.SchemaNode(
        colander.Integer(), description="Of the record; not of kept files", missing=colander.drop
    )
    state = colander.SchemaNode(colander.String(), description="`current` or `kept`")


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
    )


class RulesSchema(colander.MappingSchema):  # type: ignore[misc]
    data = mapping("data")


class RulesResponse(colander.MappingSchema):  # type: ignore[misc]
    body = RulesSchema()


class LinkSchema(colander.MappingSchema):  # type: ignore[misc]
    data = mapping(
        "data",
        colander.SchemaNode(colander.String(), name="url"),
        colander.SchemaNode(colander.Integer(), name="expires_at", description="ms"),
    )


class LinkResponse(colander.MappingSchema):  # type: ignore[misc]
    body = LinkSchema()


class ErrorResponse(colander.MappingSchema):  # type: ignore[misc]
    body = ErrorSchema()


class EmptyResponse(colander.MappingSchema):  # type: ignore[misc]
    """A response without a body."""


class FileResponse(colander.MappingSchema):  # type: ignore[misc]
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
# A file is sent with the media type that it was uploaded with.
FILE_TYPES = ("application/octet-stream", "*/*", "application/json")


def errors(**descriptions: str) -> dict[str, Any]:
    """From ``e404="…"`` to responses by status."""
    return {
        status.removeprefix("e"): ErrorResponse(description=description)
        for status, description in descriptions.items()
    }


# There is no ``default``: all statuses are listed.
ACCESS = errors(e401="Not authenticated.", e403="Not allowed.", e404="Does not exist.")
# Files that may not be read look like files that do not exist.
FILE_ACCESS = errors(
    e401="Not authenticated, whether or not the file exists.",
    e404="There is no such file that the user may read.",
)
STORAGE = errors(e503="The file storage or the database does not answer.")
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
        e507="The file storage is full.",
    ),
    **ACCESS,
    **STORAGE,
}
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


def upload_of_form() -> Arguments:
    schema = FileRequest(mapping("header", *PRECONDITIONS, *DIGESTS))
    schema.consumes, schema.parameters = ("multipart/form-data",), FORM_FIELDS
    return _operation("attach_file", schema, UPLOADS)


def upload_for_new_record() -> Arguments:
    schema = FileRequest(mapping("header", *PRECONDITIONS, *DIGESTS))
    schema.consumes, schema.parameters = ("multipart/form-data",), FORM_FIELDS
    responses = {**UPLOADS, "201": RecordResponse(description="The record was created.")}
    del responses["200"]
    return _operation("create_record_with_file", schema, responses)


def upload_of_body() -> Arguments:
    disposition = text("Content-Disposition", "With the `filename` of the file")
    encoding = text("Content-Encoding", "`gzip`, where the server allows it")
    schema = FileRequest(
        mapping("header", disposition, encoding, *PRECONDITIONS, *DIGESTS),
        mapping("querystring", text("filename", "Instead of Content-Disposition")),
    )
    schema.consumes, schema.parameters = ("application/octet-stream",), RAW_BODY
    return _operation("put_file", schema, UPLOADS)


def removal() -> Arguments:
    responses = {
        "204": EmptyResponse(description="The attachment was removed."),
        **errors(
            e400="The request is not valid.",
            e409="There was a concurrent change; retry.",
            e412="The record does not match a precondition.",
        ),
        **ACCESS,
        **STORAGE,
    }
    return _operation("detach_file", FileRequest(mapping("header", *PRECONDITIONS)), responses)


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
        **ACCESS,
        **STORAGE,
    }
    schema = FileRequest(mapping("header", *PRECONDITIONS), mapping("body", changes))
    return _operation("rename_file", schema, responses)


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
        "201": EmptyResponse(description="The upload was created, at Location."),
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
    return _operation(operation_id, FileRequest(mapping("header", *headers)), responses)


def download_of_record() -> Arguments:
    asked = mapping(
        "querystring",
        text("disposition", "`inline` or `attachment`"),
        text("filename", "The name to save it under"),
    )
    return _download("get_attachment", ACCESS, asked)


def download_of_file() -> Arguments:
    return _download("get_file", FILE_ACCESS)


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
    )
    responses = {
        "200": ListingResponse(description="A page of the files."),
        "304": EmptyResponse(description="No record has changed."),
        **errors(e400="The query is not valid."),
        **ACCESS,
        **STORAGE,
    }
    conditions = mapping("header", text("If-None-Match", "The ETag of an earlier response"))
    return _operation("list_files", FileRequest(asked, conditions), responses)


def archive() -> Arguments:
    schema = FileRequest(mapping("querystring", *filters()))
    schema.produces = ("application/zip", "application/json")
    responses = {
        "200": FileResponse(description="The files in a ZIP archive."),
        **errors(e400="The query is not valid.", e413="These are too many files."),
        **ACCESS,
        **STORAGE,
    }
    return _operation("get_archive", schema, responses)


def rules() -> Arguments:
    bad = errors(e400="The request is not valid.")
    responses = {"200": RulesResponse(description="The rules."), **bad, **ACCESS, **STORAGE}
    return _operation("get_rules", FileRequest(), responses)


def link_to_file() -> Arguments:
    asked = mapping(
        "querystring",
        text("expires_in", "How long it is valid, such as `600` (seconds) or `1h`"),
        text("disposition", "`inline` or `attachment`"),
        text("filename", "The name to save it under"),
    )
    responses = {
        "200": LinkResponse(description="A link that needs no credentials."),
        **ACCESS,
        **errors(
            e400="The query has an invalid value.",
            e501="The server has no key to sign links with.",
        ),
    }
    return _operation("get_attachment_url", FileRequest(asked), responses)


def _download(operation_id: str, access: dict[str, Any], *also: Any) -> Arguments:
    schema = FileRequest(
        *also,
        mapping(
            "header",
            text("Range", "Part of the file, in bytes"),
            text("If-Range", "The range only of this file (ETag or date)"),
            text("If-Match", "Only if it is one of these files (ETags)"),
            text("If-None-Match", "Only if it is none of these files (ETags)"),
            text("If-Modified-Since", "Only if it is newer"),
            text("If-Unmodified-Since", "Only if it is not newer"),
        ),
    )
    schema.produces = FILE_TYPES
    return _operation(operation_id, schema, {**DOWNLOADS, **access})


def _operation(operation_id: str, schema: Any, responses: dict[str, Any]) -> Arguments:
    """The arguments of a Cornice view. The schema is not validated, as there is no validator."""
    return {
        "operation_id": operation_id,
        "schema": schema,
        "response_schemas": responses,
        "tags": ["Attachments"],
    }


def describe_files() -> None:
    """Add bodies that are files to Kinto's OpenAPI description."""
    OpenAPI._extract_operation_from_view = _described


def _described(self: Any, view: Any, args: Arguments) -> dict[str, Any]:
    operation: dict[str, Any] = CorniceSwagger._extract_operation_from_view(self, view, args)
    request = args.get("schema")
    if isinstance(request, FileRequest):
        operation["produces"] = list(request.produces)
        if request.consumes:
            operation["consumes"] = list(request.consumes)
        operation.setdefault("parameters", [])
        operation["parameters"] += [dict(parameter) for parameter in request.parameters]
        # Kinto describes operations without a permission as not needing credentials.
        operation["security"] = [
            {name: list(roles)} for name, roles in self.security_roles.items()
        ]
    for status, response in args.get("response_schemas", {}).items():
        if isinstance(response, FileResponse):
            operation["responses"][status]["schema"] = dict(response.schema)
    return operation
