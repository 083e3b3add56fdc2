"""Bodies that are files, in Kinto's OpenAPI description."""

from __future__ import annotations

from typing import Any

from kinto.core.cornice_swagger.swagger import CorniceSwagger
from kinto.core.openapi import OpenAPI

from kinto_attachment.endpoints.openapi.parts import Arguments, FileRequest, RawResponse


def describe_files() -> None:
    """Add bodies that are files to Kinto's OpenAPI description."""
    OpenAPI._extract_operation_from_view = _described


def _described(self: Any, view: Any, args: Arguments) -> dict[str, Any]:
    operation: dict[str, Any] = CorniceSwagger._extract_operation_from_view(self, view, args)
    request = args.get("schema")
    if isinstance(request, FileRequest):
        operation["summary"] = request.summary
        operation["description"] = f"Requires {request.permission}."
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
        if isinstance(response, RawResponse):
            operation["responses"][status]["schema"] = dict(response.schema)
    return operation
