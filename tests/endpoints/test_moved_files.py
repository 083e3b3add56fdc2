"""Files that are moved to another storage: links to them stay valid, and readers follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.errors import FileMissing
from tests.support.application import (
    ALICE,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    key_of,
    links_of,
    move_behind,
    put,
)
from tests.support.backends import ON_MEMORY, Build

pytestmark = ON_MEMORY

COLD = "/buckets/b/collections/cold"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cold")


@pytest.fixture
def app(build: Build, folder: Path) -> Any:
    return build(
        **{
            "storages.cold.base_path": str(folder),
            "resources.b.cold.storage": "cold",
        }
    )


def location(app: Any) -> str:
    return str(attachment_of(app)["location"])


def version(app: Any) -> str:
    (link,) = links_of(app)
    return f"{RECORD}/attachment/versions/{link.version}"


READERS: dict[str, Callable[[Any], str]] = {
    "the record's": lambda app: f"{RECORD}/attachment",
    "location": location,
    "version": version,
}


def move_before(app: Any, monkeypatch: pytest.MonkeyPatch, name: str, key: str) -> None:
    """Let the file be moved after the index was queried, and before the storage is."""
    files = app.app.registry.attachment_storages[""].files
    asked = getattr(files, name)

    def ask(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        move_behind(app.app.registry, key, "cold")
        return asked(*args, **kwargs)

    monkeypatch.setattr(files, name, ask)


@pytest.mark.parametrize("step", ["stat", "open"])
@pytest.mark.parametrize("reader", READERS)
def test_moved_while_it_is_read(
    app: Any, monkeypatch: pytest.MonkeyPatch, reader: str, step: str
) -> None:
    key = key_of(attach(app, content=CONTENT).json)
    path = READERS[reader](app)
    move_before(app, monkeypatch, step, key)
    answer = app.get(path, headers=ALICE, status=200)
    assert answer.body == CONTENT
    assert links_of(app)[0].storage == "cold"


def test_replaced_while_it_is_read(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(app, content=b"old")
    files = app.app.registry.attachment_storages[""].files
    stat = files.stat

    def replace_first(key: str) -> Any:
        monkeypatch.undo()
        attach(app, content=CONTENT)
        return stat(key)

    monkeypatch.setattr(files, "stat", replace_first)
    answer = app.get(f"{RECORD}/attachment", headers=ALICE, status="*")
    assert (answer.status_int, answer.body) == (200, CONTENT)


def test_a_missing_file_is_still_missing(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    key = key_of(attach(app, content=CONTENT).json)
    app.app.registry.attachment_storages[""].files.delete(key)
    answer = app.get(f"{RECORD}/attachment", headers=ALICE, status=404)
    assert answer.json["message"] == FileMissing.message
    assert caplog.text.count("The file of an attachment is missing") == 1
    app.delete(RECORD, headers=ALICE)


def test_moved_while_it_is_copied(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of(attach(app, content=CONTENT).json)
    put(app, COLD)
    move_before(app, monkeypatch, "open", key)
    copy = f"{COLD}/records/copy"
    app.post_json(f"{copy}/attachment", {"copy_from": RECORD}, headers=ALICE, status=201)
    assert app.get(f"{copy}/attachment", headers=ALICE).body == CONTENT


def test_signed_links_stay_valid(app: Any) -> None:
    key = key_of(attach(app, content=CONTENT).json)
    url = app.get(f"{RECORD}/attachment/url", headers=ALICE).json["data"]["url"]
    for storage in ("cold", ""):
        move_behind(app.app.registry, key, storage)
        assert app.get(url, status=200).body == CONTENT
    app.get(url.replace(key, key_of(attach(app, OTHER).json)), status=401)
