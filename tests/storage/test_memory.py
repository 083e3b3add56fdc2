from __future__ import annotations

import pytest

from kinto_attachment.storage import CopiesFiles, HasPaths, ListsFiles, ListsUnfinished, SignsUrls
from kinto_attachment.storage.memory import MemoryStorage
from kinto_attachment.storage.testing import (
    ContinuesWritesContract,
    CopiesFilesContract,
    KeepsSiteContract,
    KnowsHashesContract,
    ListsFilesContract,
    ListsUnfinishedContract,
)


class TestMemoryStorage(
    ListsFilesContract,
    CopiesFilesContract,
    ListsUnfinishedContract,
    ContinuesWritesContract,
    KeepsSiteContract,
    KnowsHashesContract,
):
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage(base_url="https://cdn.example/files/")

    @pytest.fixture
    def broken_storage(self) -> MemoryStorage:
        storage = MemoryStorage()
        storage.outage = ConnectionRefusedError("played")
        return storage

    def test_capabilities(self, storage: MemoryStorage) -> None:
        assert isinstance(storage, ListsFiles)
        assert isinstance(storage, CopiesFiles)
        assert isinstance(storage, ListsUnfinished)
        assert not isinstance(storage, SignsUrls)
        assert not isinstance(storage, HasPaths)
