"""The capability ``attachments`` in ``/v1/``."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.storage import CopiesFiles, ListsFiles, SignsUrls
from tests.support.backends import EVERYWHERE, ON_MEMORY, Build

pytestmark = EVERYWHERE


def capability(app: Any) -> dict[str, Any]:
    found: dict[str, Any] = app.get("/").json["capabilities"]["attachments"]
    return found


def test_says_what_the_server_does(app: Any) -> None:
    found = capability(app)
    assert found["version"] == version("kinto-attachment")
    assert found["description"]
    assert found["url"].startswith("https://")
    assert found["base_url"] == ""
    assert found["gzipped"] is False
    assert found["max_size"] == 0
    assert found["min_size"] == 0
    assert found["content_encodings"] == []


def test_says_what_the_storage_can_do(app: Any) -> None:
    found = capability(app)
    storage = app.app.registry.attachment_storages.default.files
    assert found["ranges"] is True
    assert found["signed_urls"] is isinstance(storage, SignsUrls)
    assert found["lists_files"] is isinstance(storage, ListsFiles)
    assert found["copies_files"] is isinstance(storage, CopiesFiles)


@ON_MEMORY
def test_says_what_is_set(build: Build) -> None:
    found = capability(
        build(
            gzipped="true",
            max_size="12",
            min_size="3",
            content_encodings="gzip",
            base_url="https://cdn.example.com",
        )
    )
    assert found["gzipped"] is True
    assert found["max_size"] == 12
    assert found["min_size"] == 3
    assert found["content_encodings"] == ["gzip"]
    assert found["base_url"] == "https://cdn.example.com/"


@ON_MEMORY
@pytest.mark.parametrize(
    ("options", "advertised"),
    [
        ({"extra.base_url": "https://a.example.com"}, "https://a.example.com/"),
        (
            {"extra.base_url": "https://a.example.com/x", "base_url": "https://b.example.com"},
            "https://a.example.com/x/",
        ),
        ({"extra.base_url": "", "base_url": "https://b.example.com"}, ""),
    ],
)
def test_says_the_extra_base_url(build: Build, options: dict[str, str], advertised: str) -> None:
    assert capability(build(**options))["base_url"] == advertised


def test_gives_no_secrets_away(app: Any) -> None:
    """It contains no folder, bucket or key."""
    assert set(capability(app)) == {
        "version",
        "description",
        "url",
        "base_url",
        "gzipped",
        "max_size",
        "min_size",
        "content_encodings",
        "versions",
        "direct",
        "ranges",
        "signed_urls",
        "lists_files",
        "copies_files",
        "storages",
        "resumable",
        "links",
        "quotas",
        "holds",
    }
    assert set(capability(app)["storages"]["default"]) == {
        "base_url",
        "ranges",
        "signed_urls",
        "lists_files",
        "copies_files",
    }


@ON_MEMORY
def test_tells_of_each_storage(build: Build, tmp_path: Path) -> None:
    app = build(
        base_url="https://a.example.com",
        **{
            "storages.cold.base_path": str(tmp_path),
            "storages.cold.extra.base_url": "https://b.example.com",
            "storages.cold.public": "true",
            "storages.warm.backend": "kinto_attachment.storage.memory.MemoryStorage",
        },
    )
    found = capability(app)
    plain = {name: found[name] for name in found["storages"]["default"]}
    assert found["storages"]["default"] == plain
    urls = {name: storage["base_url"] for name, storage in found["storages"].items()}
    assert urls == {
        "default": "https://a.example.com/",
        "cold": "https://b.example.com/",
        "warm": "",
    }
