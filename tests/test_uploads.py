"""POST and PUT R/attachment."""

from __future__ import annotations

from typing import Any

import pytest

from tests.application import (
    CONTENT,
    RECORD,
    attach,
    attachment_of,
    key_of,
    put_collection,
    put_raw,
    read,
    sha256,
    stored_files,
)


@pytest.fixture(autouse=True)
def collection(app: Any) -> None:
    put_collection(app)


def test_attaches_a_file_to_a_new_record(app: Any) -> None:
    response = attach(app, status=201)
    attachment = response.json
    assert attachment == attachment_of(app)
    assert attachment["hash"] == sha256(CONTENT)
    assert stored_files(app) == {key_of(attachment)}
    assert read(app) == CONTENT
    assert response.headers["Location"] == f"http://localhost/v1{RECORD}"


def test_raw(app: Any) -> None:
    attachment = put_raw(app, status=201).json
    assert read(app, attachment["location"]) == CONTENT
    put_raw(app, content=b"other", status=200)
    assert read(app) == b"other"
    app.delete(
        f"{RECORD}/attachment", headers={"Authorization": "Basic YWxpY2U6c2VjcmV0"}, status=204
    )
