"""The OpenAPI description of an application (``/v1/__api__``)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kinto.core.cornice import service
from kinto.core.views.openapi import openapi_view

ATTACHMENT = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}/attachment"
ATTACHMENTS = "/buckets/{bucket_id}/collections/{collection_id}/attachments"
ARCHIVE = f"{ATTACHMENTS}.zip"
RULES = f"{ATTACHMENTS}/rules"
VERSIONS = f"{ATTACHMENT}/versions"
VERSION = f"{VERSIONS}/{{version}}"
RESTORE = f"{VERSION}/restore"
FILE = "/attachments/{key}"


def described(app: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    # It takes 0.1 seconds, and never changes.
    if not hasattr(app, "description"):
        app.description = _description(app, monkeypatch)
    return json.loads(app.description)


def _description(app: Any, monkeypatch: pytest.MonkeyPatch) -> bytes:
    # Cornice keeps the services per process, which usually has one application. So Kinto creates
    # the description once, and keeps it at its view.
    monkeypatch.setattr(service, "SERVICES", app.services)
    monkeypatch.setattr(openapi_view, "__json__", None, raising=False)
    monkeypatch.delattr(openapi_view, "__json__")
    description: bytes = app.get("/__api__").body
    return description


UPLOADS = f"{ATTACHMENT}/uploads"
UPLOAD = f"{UPLOADS}/{{upload}}"


def only_ours(description: Any) -> Any:
    """The description without Kinto's own paths."""
    paths = {path: item for path, item in description["paths"].items() if "/attachment" in path}
    return {**description, "paths": paths}
