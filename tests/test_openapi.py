"""The endpoints in Kinto's own description of its API, ``/v1/__api__``."""

from __future__ import annotations

from typing import Any

import pytest
from kinto.core.cornice import service
from kinto.core.views.openapi import openapi_view

from tests.backends import ON_MEMORY, Build

ATTACHMENT = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}/attachment"
FILE = "/attachments/{key}"


@pytest.fixture
def paths(app: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return described(app, monkeypatch)


def described(app: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    # Cornice knows the services of a process, which has one application, as a rule. So Kinto
    # makes the description once, and keeps it at its view.
    monkeypatch.setattr(service, "SERVICES", app.services)
    monkeypatch.setattr(openapi_view, "__json__", None, raising=False)
    monkeypatch.delattr(openapi_view, "__json__")
    return app.get("/__api__").json["paths"]


def parameters(operation: Any) -> dict[str, tuple[str, bool]]:
    return {
        parameter["name"]: (parameter["in"], parameter.get("required", False))
        for parameter in operation["parameters"]
    }


@ON_MEMORY
def test_has_all_methods(paths: Any) -> None:
    assert {"get", "post", "put", "delete"} <= set(paths[ATTACHMENT])
    assert "get" in paths[FILE]


@ON_MEMORY
def test_names_the_parts_of_the_path(paths: Any) -> None:
    for operation in ("get", "post", "put", "delete"):
        found = {**parameters(paths[ATTACHMENT][operation])}
        shared = {p["name"]: (p["in"], True) for p in paths[ATTACHMENT].get("parameters", [])}
        for name in ("bucket_id", "collection_id", "id"):
            assert {**found, **shared}[name][0] == "path"


@ON_MEMORY
def test_describes_the_form(paths: Any) -> None:
    post = paths[ATTACHMENT]["post"]
    found = parameters(post)
    assert found["attachment"] == ("formData", True)
    assert found["data"] == ("formData", False)
    assert found["permissions"] == ("formData", False)
    types = {p["name"]: p["type"] for p in post["parameters"] if p["in"] == "formData"}
    assert types["attachment"] == "file"


@ON_MEMORY
def test_describes_raw_bytes(paths: Any) -> None:
    found = parameters(paths[ATTACHMENT]["put"])
    assert found["filename"] == ("query", False)
    assert found["Content-Disposition"] == ("header", False)


@ON_MEMORY
def test_describes_conditions(paths: Any) -> None:
    for method in ("post", "put", "delete"):
        assert {"If-Match"} <= set(parameters(paths[ATTACHMENT][method]))
    for operation in (paths[ATTACHMENT]["get"], paths[FILE]["get"]):
        assert {"Range", "If-Range", "If-Match", "If-None-Match"} <= set(parameters(operation))


@ON_MEMORY
def test_names_the_answers(paths: Any) -> None:
    uploads = {"200", "201", "400", "401", "403", "404", "412", "413", "503", "507"}
    for method in ("post", "put"):
        assert uploads <= set(paths[ATTACHMENT][method]["responses"])
    assert {"204", "404", "412"} <= set(paths[ATTACHMENT]["delete"]["responses"])
    for operation in (paths[ATTACHMENT]["get"], paths[FILE]["get"]):
        assert {"200", "206", "302", "304", "404", "412", "416"} <= set(operation["responses"])


@ON_MEMORY
def test_operations_have_ids_of_their_own(paths: Any) -> None:
    ids = [
        operation["operationId"]
        for path in paths.values()
        for operation in path.values()
        if isinstance(operation, dict) and "operationId" in operation
    ]
    assert len(ids) == len(set(ids))


@ON_MEMORY
def test_of_a_readonly_server_has_what_it_does(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = described(build({"readonly": "true"}), monkeypatch)
    assert "get" in paths[ATTACHMENT]
    assert not {"post", "put", "delete"} & set(paths[ATTACHMENT])


@ON_MEMORY
def test_leaves_kinto_s_own_alone(paths: Any) -> None:
    assert {"get", "put", "patch", "delete"} <= set(paths[ATTACHMENT.removesuffix("/attachment")])
