"""The endpoints in Kinto's own description of its API, ``/v1/__api__``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.application import ALICE, COLLECTION, RECORD, attach
from tests.support.backends import ON_MEMORY, Build
from tests.support.description import (
    ARCHIVE,
    ATTACHMENT,
    ATTACHMENTS,
    FILE,
    RULES,
    described,
    only_ours,
)


@pytest.fixture
def description(app: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return described(app, monkeypatch)


@pytest.fixture
def paths(description: Any) -> Any:
    return description["paths"]


def ours(paths: Any) -> list[Any]:
    """Our operations."""
    methods = [(ATTACHMENT, name) for name in ("get", "post", "put", "delete")]
    others = [(path, "get") for path in (ATTACHMENTS, ARCHIVE, RULES, FILE)]
    others.append((ATTACHMENTS, "post"))
    return [paths[path][method] for path, method in [*methods, *others]]


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
def test_is_valid(description: Any) -> None:
    # Every process that runs tests imports this file, but only one needs this package.
    from openapi_spec_validator import OpenAPIV2SpecValidator

    # One of Kinto's own paths is invalid. The specification and its JSON Schema allow the type
    # "file" for a response, but this validator has further rules for every schema.
    errors = OpenAPIV2SpecValidator(only_ours(description)).iter_errors()
    assert [error for error in errors if error.instance != "file"] == []


@ON_MEMORY
@pytest.mark.parametrize("path", [ATTACHMENT, ATTACHMENTS])
def test_describes_the_form(paths: Any, path: str) -> None:
    post = paths[path]["post"]
    assert post["consumes"] == ["multipart/form-data"]
    found = parameters(post)
    assert found["attachment"] == ("formData", True)
    assert found["data"] == ("formData", False)
    assert found["permissions"] == ("formData", False)
    types = {p["name"]: p["type"] for p in post["parameters"] if p["in"] == "formData"}
    assert types["attachment"] == "file"


@ON_MEMORY
def test_describes_raw_bytes(paths: Any) -> None:
    put = paths[ATTACHMENT]["put"]
    assert put["consumes"] == ["application/octet-stream"]
    found = parameters(put)
    assert found["filename"] == ("query", False)
    assert found["Content-Disposition"] == ("header", False)
    (body,) = [parameter for parameter in put["parameters"] if parameter["in"] == "body"]
    assert (body["name"], body["required"]) == ("file", True)
    assert body["schema"] == {"type": "string", "format": "binary"}


@ON_MEMORY
def test_describes_files(paths: Any) -> None:
    for operation in (paths[ATTACHMENT]["get"], paths[FILE]["get"]):
        assert operation["produces"] == ["application/octet-stream", "*/*", "application/json"]
        for status in ("200", "206"):
            assert operation["responses"][status]["schema"] == {"type": "file"}


@ON_MEMORY
def test_describes_answers_without_a_body(paths: Any) -> None:
    for operation in ours(paths):
        for status in {"204", "302", "304"} & set(operation["responses"]):
            assert "schema" not in operation["responses"][status]


@ON_MEMORY
def test_describes_errors(paths: Any) -> None:
    for operation in ours(paths):
        for status, response in operation["responses"].items():
            if status >= "400":
                properties = {"code", "errno", "error", "message", "info", "details"}
                assert set(response["schema"]["properties"]) == properties


@ON_MEMORY
def test_says_that_credentials_are_taken(description: Any) -> None:
    for operation in ours(description["paths"]):
        assert operation["security"] == [{"basicauth": []}]
    assert description["securityDefinitions"]["basicauth"] == {"type": "basic"}


@ON_MEMORY
def test_describes_conditions(paths: Any) -> None:
    for method in ("post", "put", "delete"):
        assert {"If-Match"} <= set(parameters(paths[ATTACHMENT][method]))
    for operation in (paths[ATTACHMENT]["get"], paths[FILE]["get"]):
        assert {"Range", "If-Range", "If-Match", "If-None-Match"} <= set(parameters(operation))


@ON_MEMORY
def test_names_the_answers(paths: Any) -> None:
    """It names all of them, without a "default"."""
    access = {"400", "401", "403", "404", "412", "503"}
    for method in ("post", "put"):
        uploads = {"200", "201", "408", "409", "413", "415", "423", "507"}
        assert set(paths[ATTACHMENT][method]["responses"]) == access | uploads
    created = access | uploads - {"200"}
    assert set(paths[ATTACHMENTS]["post"]["responses"]) == created
    assert set(paths[ATTACHMENT]["delete"]["responses"]) == access | {"204", "409", "423"}
    for operation in (paths[ATTACHMENT]["get"], paths[FILE]["get"]):
        downloads = {"200", "206", "302", "304", "416"}
        # The answer is the same for what may not be read and what does not exist.
        refusals = access - {"403"} if operation is paths[FILE]["get"] else access
        assert set(operation["responses"]) == refusals | downloads


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
    paths = described(build({"readonly": "true"}), monkeypatch)["paths"]
    assert "get" in paths[ATTACHMENT]
    assert not {"post", "put", "delete"} & set(paths[ATTACHMENT])
    assert "post" not in paths.get(ATTACHMENTS, {})


@ON_MEMORY
def test_leaves_kinto_s_own_alone(paths: Any) -> None:
    assert {"get", "put", "patch", "delete"} <= set(paths[ATTACHMENT.removesuffix("/attachment")])


@ON_MEMORY
def test_describes_listings(paths: Any) -> None:
    listing = paths[ATTACHMENTS]["get"]
    asked = {"filename", "like_filename", "in_id", "_since", "_limit", "_token", "state"}
    assert asked <= set(parameters(listing))
    headers = listing["responses"]["200"]["headers"]
    assert {"Next-Page", "Total-Objects", "Total-Bytes"} <= set(headers)
    archive = paths[ARCHIVE]["get"]
    assert archive["produces"] == ["application/zip", "application/json"]
    assert archive["responses"]["200"]["schema"] == {"type": "file"}
    assert "like_filename" in parameters(archive)


@ON_MEMORY
def test_tells_what_each_operation_requires(paths: Any) -> None:
    found = [
        operation
        for path in paths.values()
        for operation in path.values()
        if isinstance(operation, dict) and operation.get("tags") == ["Attachments"]
    ]
    assert len(found) > 20
    for operation in found:
        assert operation["summary"]
        assert operation["description"].startswith("Requires ")


@ON_MEMORY
def test_describes_holds(app: Any, paths: Any) -> None:
    """Null is described for generated clients."""
    hold = paths[f"{ATTACHMENT}/hold"]
    (body,) = [each for each in hold["put"]["parameters"] if each["in"] == "body"]
    assert body["required"]
    wanted = body["schema"]["properties"]["data"]
    assert wanted["required"] == ["until"]
    described = hold["put"]["responses"]["200"]["schema"]["properties"]["data"]
    attach(app)
    url = f"{RECORD}/attachment/hold"
    answer = app.put_json(url, {"data": {"until": None}}, headers=ALICE).json["data"]
    assert set(answer) == set(described["properties"])
    for name, value in answer.items():
        assert value is not None or described["properties"][name]["x-nullable"]


@ON_MEMORY
def test_describes_direct_uploads(paths: Any) -> None:
    post = paths[f"{ATTACHMENT}/uploads"]["post"]
    (body,) = [each for each in post["parameters"] if each["in"] == "body"]
    assert set(body["schema"]["properties"]) == {
        "attachment", "data", "permissions", "expires_in", "via"
    }  # fmt: skip
    assert not body["required"]
    assert "Location" in post["responses"]["201"]["headers"]
    completion = paths[f"{ATTACHMENT}/uploads/{{upload}}/complete"]["post"]
    assert "Retry-After" in completion["responses"]["202"]["headers"]


@ON_MEMORY
def test_describes_rules(app: Any, paths: Any) -> None:
    data = paths[RULES]["get"]["responses"]["200"]["schema"]["properties"]["data"]
    answer = app.get(f"{COLLECTION}/attachments/rules", headers=ALICE).json["data"]
    assert set(answer) == set(data["properties"])
