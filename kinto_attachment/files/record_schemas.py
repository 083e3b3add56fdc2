"""Checking the data of a record before its file is received.

Kinto checks everything again when it writes the record, with the attachment.
"""

from __future__ import annotations

from typing import Any

import colander
from kinto.core.errors import raise_invalid
from kinto.core.resource.schema import PermissionsSchema
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.schema_validation import (
    RefResolutionError,
    ValidationError,
    validate_from_bucket_schema_or_400,
    validate_schema,
)
from kinto.views.records import Record
from pyramid.settings import asbool

from kinto_attachment.kinto_types import KintoObject, Request
from kinto_attachment.metadata import FIELD

SETTING = "experimental_collection_schema_validation"
# Kinto's own fields, which schemas do not cover. The attachment is not known yet.
IGNORED = ("last_modified", Record.schema_field, "__permissions__", FIELD)


def check_attributes(
    request: Request, data: dict[str, Any] | None, permissions: dict[str, Any] | None
) -> None:
    """Check the attributes and permissions of the request's record, as far as they are known.

    :raises HTTPBadRequest: as Kinto would raise it.
    """
    if "id" in (data or {}):
        check_id(request, (data or {})["id"])
    if permissions is not None:
        check_permissions(request, permissions)
    if asbool(request.registry.settings.get(SETTING)):
        check_schemas(request, {**(request.context.record or {}), **(data or {})})


def check_id(request: Request, given: object) -> None:
    if given != request.context.uri.record_id:
        description = "Object id does not match existing object"
        raise_invalid(request, name="data.id", description=description)


def check_permissions(request: Request, permissions: dict[str, Any]) -> None:
    try:
        PermissionsSchema(name="permissions", permissions=Record.permissions).deserialize(
            permissions
        )
    except colander.Invalid as error:
        for name, description in error.asdict().items():
            request.errors.add("body", name, description)
        raise_invalid(request, location="body", name="permissions", description="Invalid")


def check_whole(request: Request, record: KintoObject, collection: KintoObject) -> None:
    """Check a record with its attachment as Kinto does when it writes one.

    The bucket has to exist, or to be in what Kinto has bound to the request.

    :raises HTTPBadRequest: as Kinto would raise it.
    """
    if not asbool(request.registry.settings.get(SETTING)):
        return
    try:
        if "schema" in collection:
            ignored = tuple(name for name in IGNORED if name != FIELD)
            validate_schema(record, collection["schema"], id_field="id", ignore_fields=ignored)
            record[Record.schema_field] = collection["last_modified"]
    except ValidationError as error:
        raise_invalid(request, name=error.field, description=error.message)
    except RefResolutionError as error:
        raise_invalid(request, name="schema", description=str(error))
    ignored = ("last_modified", Record.schema_field, "__permissions__")
    validate_from_bucket_schema_or_400(
        record, resource_name="record", request=request, id_field="id", ignore_fields=ignored
    )


def check_schemas(request: Request, record: dict[str, Any]) -> None:
    """Check a record without its attachment by the schemas of its collection and its bucket."""
    uri = request.context.uri
    try:
        collection = request.registry.storage.get("collection", uri.bucket, uri.collection_id)
    except ObjectNotFoundError:  # It will be created along with the record.
        return
    record = {"id": uri.record_id, **record}
    try:
        if "schema" in collection:
            validate_schema(record, collection["schema"], id_field="id", ignore_fields=IGNORED)
    except ValidationError as error:
        raise_invalid(request, name=error.field, description=error.message)
    except RefResolutionError as error:
        raise_invalid(request, name="schema", description=str(error))
    validate_from_bucket_schema_or_400(
        record, resource_name="record", request=request, id_field="id", ignore_fields=IGNORED
    )
