"""The common part of the tests of storages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from kinto_attachment.errors import FileNotFound, StorageError
from kinto_attachment.storage import ListsFiles, ListsUnfinished
from kinto_attachment.storage.samples import (
    keys,
)


class StorageTests:
    """Each test has its own folder, so tests may share a storage."""

    # Set by the contract of a capability, which is a subclass.
    capability: ClassVar[type | None] = None

    @pytest.fixture
    def storage(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def broken_storage(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def folder(self) -> str:
        return f"contract-{uuid4().hex}"

    def assert_tells_of_an_outage(self, name: str, call: Callable[[], object]) -> None:
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.__cause__ is not None, name

    def assert_absent(self, storage: Any, key: str) -> None:
        for read in (storage.stat, storage.open):
            with pytest.raises(FileNotFound):
                read(key)
        assert not storage.exists(key)
        if isinstance(storage, ListsFiles):
            assert key not in keys(storage, key)
        self.assert_nothing_unfinished(storage, key)

    def assert_listed(self, storage: Any, prefix: str, expected: list[str]) -> None:
        if isinstance(storage, ListsFiles):
            assert keys(storage, prefix) == expected

    def assert_nothing_unfinished(self, storage: Any, key: str) -> None:
        if isinstance(storage, ListsUnfinished):
            assert [draft for draft in storage.list_unfinished() if draft.key == key] == []
