from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid_storage.exceptions import FileNotAllowed as StorageFileNotAllowed
from pyramid_storage.interfaces import IFileStorage
from pyramid_storage.registry import register_file_storage_impl
from webtest import TestApp

from kinto_attachment.errors import (
    FileNotAllowed,
    InvalidKey,
    KeyTaken,
    StorageUnavailable,
)
from kinto_attachment.storage import FileStorage
from kinto_attachment.storage.local import LocalStorage
from kinto_attachment.storage.memory import MemoryStorage
from kinto_attachment.storage.samples import contents, keys

BASE_URL = "https://cdn.example/files"


@pytest.fixture(params=[MemoryStorage, LocalStorage])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> FileStorage:
    if request.param is MemoryStorage:
        return MemoryStorage(BASE_URL)
    return LocalStorage(str(tmp_path / "files"), BASE_URL)


def field(filename: str, content: bytes = b"content") -> Any:
    """A file field of a form, as from a web framework."""
    return SimpleNamespace(filename=filename, file=io.BytesIO(content))


class TestSave:
    def test_a_form_field_is_stored_under_a_safe_name(self, storage: FileStorage) -> None:
        key = storage.save(field("C:\\my dir\\тест file.txt"))
        assert key == "тест_file.txt"
        assert contents(storage, key) == b"content"
        assert storage.stat(key).content_type == "text/plain"

    def test_from_its_start(self, storage: FileStorage) -> None:
        upload = field("a.txt")
        upload.file.read()
        assert contents(storage, storage.save(upload)) == b"content"

    def test_into_a_folder(self, storage: FileStorage) -> None:
        assert storage.save(field("a.txt"), folder="b/c") == "b/c/a.txt"
        assert storage.exists("b/c/a.txt")

    def test_a_taken_name_gets_a_number(self, storage: FileStorage) -> None:
        saved = [storage.save(field("a.txt", content)) for content in (b"1", b"2", b"3")]
        assert saved == ["a.txt", "a-1.txt", "a-2.txt"]
        assert [contents(storage, key) for key in saved] == [b"1", b"2", b"3"]

    def test_when_all_numbers_are_taken(
        self, storage: FileStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kinto_attachment.names.filenames.MAX_NUMBER", 2)
        storage.save(field("a.txt"))
        storage.save(field("a.txt"))
        with pytest.raises(KeyTaken):
            storage.save(field("a.txt"))

    def test_under_a_random_name(self, storage: FileStorage) -> None:
        saved = {storage.save(field("a.TXT"), randomize=True) for _ in range(3)}
        assert len(saved) == 3
        assert all(len(key) == 36 + 4 and key.endswith(".txt") for key in saved)

    @pytest.mark.parametrize("folder", ["../outside", "/etc", "a/../../b", ".hidden"])
    def test_no_folder_leads_out(self, storage: FileStorage, folder: str) -> None:
        with pytest.raises(InvalidKey):
            storage.save(field("a.txt"), folder=folder)
        assert keys(storage, "") == []

    def test_an_open_file(self, storage: FileStorage) -> None:
        assert storage.save_file(io.BytesIO(b"x"), "a.txt", folder="b") == "b/a.txt"

    def test_a_local_file(self, storage: FileStorage, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"local")
        key = storage.save_filename(str(tmp_path / "a.txt"), folder="b")
        assert key == "b/a.txt"
        assert contents(storage, key) == b"local"


class TestExtensions:
    def test_the_default_group_is_what_pyramid_storage_says(self, storage: FileStorage) -> None:
        assert storage.file_allowed(field("a.PDF"))
        assert not storage.file_allowed(field("a.exe"))
        assert not storage.file_allowed(field("a"))
        assert storage.extension_allowed("png")
        assert storage.extension_allowed(".png")

    def test_others_by_call(self, storage: FileStorage) -> None:
        assert storage.filename_allowed("a.exe", extensions=("exe",))
        assert not storage.filename_allowed("a.pdf", extensions=("exe",))
        assert storage.filename_allowed("a", extensions=()), "no extensions: any"

    def test_any(self) -> None:
        assert MemoryStorage(extensions="any").filename_allowed("a.exe")

    def test_what_is_not_allowed_is_not_stored(self, storage: FileStorage) -> None:
        with pytest.raises(StorageFileNotAllowed) as caught:
            storage.save(field("a.exe"))
        assert isinstance(caught.value, FileNotAllowed)
        assert storage.save(field("a.exe"), extensions=("exe",)) == "a.exe"
        assert keys(storage, "") == ["a.exe"]


def test_urls_are_below_the_base_url(storage: FileStorage) -> None:
    assert storage.url("a/é b.txt") == "https://cdn.example/files/a/%C3%A9%20b.txt"


def test_an_outage_is_not_an_absence() -> None:
    storage = MemoryStorage()
    storage.outage = OSError("down")
    with pytest.raises(StorageUnavailable):
        storage.exists("a")


def test_a_view_written_for_pyramid_storage_works(storage: FileStorage) -> None:
    def view(request: Any) -> dict[str, Any]:
        files = request.attachment
        key = files.save(request.POST["file"], folder="uploads")
        answer = {"key": key, "url": files.url(key), "exists": files.exists(key)}
        answer["deleted"] = files.delete(key)
        return {**answer, "still exists": files.exists(key)}

    with Configurator(settings={"storage.name": "attachment"}) as config:
        register_file_storage_impl(config, storage)
        config.add_view(view, renderer="json")
    app = TestApp(config.make_wsgi_app())
    assert app.post("/", upload_files=[("file", "a.txt", b"content")]).json == {
        "key": "uploads/a.txt",
        "url": "https://cdn.example/files/uploads/a.txt",
        "exists": True,
        "deleted": True,
        "still exists": False,
    }
    assert config.registry.getUtility(IFileStorage) is storage
    assert IFileStorage.providedBy(storage)
