"""The hold of a record's file."""

from __future__ import annotations

from typing import Any

from kinto_attachment.endpoints.openapi.parts import (
    ACCESS,
    PRECONDITIONS,
    STORAGE,
    Arguments,
    EmptyResponse,
    FileRequest,
    RawResponse,
    errors,
    mapping,
    operation,
)

UNTIL = {"type": "integer", "x-nullable": True, "description": "In ms; null is an open end"}
REASON = {"type": "string", "x-nullable": True, "description": "Why, in one line"}
# The body of the request.
WANTED: dict[str, Any] = {
    "name": "hold",
    "in": "body",
    "required": True,
    "schema": {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "object",
                "required": ["until"],
                "properties": {"until": UNTIL, "reason": REASON},
            }
        },
    },
}


class HoldResponse(RawResponse):
    schema = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {
                "type": "object",
                "required": ["until", "date", "reason", "by", "since"],
                "properties": {
                    "until": UNTIL,
                    "date": {
                        "type": "integer",
                        "x-nullable": True,
                        "description": "The latest date that was set, in ms",
                    },
                    "reason": REASON,
                    "by": {
                        "type": "string",
                        "x-nullable": True,
                        "description": "Who set it last; null if a setting did",
                    },
                    "since": {"type": "integer", "description": "When it began, in ms"},
                },
            }
        },
    }


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
    schema = FileRequest(mapping("header", *PRECONDITIONS))
    schema.consumes, schema.parameters = ("application/json",), (WANTED,)
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
