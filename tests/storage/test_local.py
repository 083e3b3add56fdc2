from __future__ import annotations

import os
from pathlib import Path

import pytest

from kinto_attachment.storage.local import LocalStorage
from kinto_attachment.storage.testing import StorageContract


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> LocalStorage:
        return LocalStorage(str(tmp_path / "files"), base_url="https://cdn.example/files/")

    @pytest.fixture
    def broken_storage(self, tmp_path: Path) -> LocalStorage:
        # A link to itself: the one error of a disk that even root gets.
        os.symlink(tmp_path / "loop", tmp_path / "loop")
        return LocalStorage(str(tmp_path / "loop"))
