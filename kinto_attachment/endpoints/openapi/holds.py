"""The hold of a record's file."""

from __future__ import annotations

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


class HoldSchema(colander.MappingSchema):  # type: ignore[misc]
    """What is not set is null, which OpenAPI 2.0 cannot say."""

    since = colander.SchemaNode(colander.Integer(), description="When it began, in ms")


class HoldBody(colander.MappingSchema):  # type: ignore[misc]
    data = HoldSchema()


class HoldResponse(colander.MappingSchema):  # type: ignore[misc]
    body = HoldBody()


HELD = HoldResponse(description="The hold.")
CHANGES = errors(
    e400="The request is not valid.",
    e409="There was a concurrent change; retry.",
    e412="The record does not match a precondition.",
    e423="The file is held until a later date.",
)


def hold_of_file() -> Arguments:
    bad = errors(e400="The request is not valid.")
    return operation("get_hold", FileRequest(), {"200": HELD, **bad, **ACCESS, **STORAGE})


def holding() -> Arguments:
    wanted = mapping("body", mapping("data", text("reason", "Why, in one line")))
    schema = FileRequest(mapping("header", *PRECONDITIONS), wanted)
    late = errors(e408="The body did not arrive in time.", e413="The body is too large.")
    return operation("hold_file", schema, {"200": HELD, **CHANGES, **late, **ACCESS, **STORAGE})


def end_of_hold() -> Arguments:
    responses = {
        "204": EmptyResponse(description="The hold has ended."),
        **CHANGES,
        **ACCESS,
        **STORAGE,
    }
    return operation("end_hold", FileRequest(mapping("header", *PRECONDITIONS)), responses)
