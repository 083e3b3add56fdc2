"""The tests of keys, which all methods take."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from kinto_attachment.errors import InvalidKey
from kinto_attachment.storage.samples import (
    BINARY,
    HOSTILE_KEYS,
    LOOKALIKE_KEYS,
    UNUSUAL_KEYS,
    Source,
    assert_contents,
    contents,
)

from .base import StorageTests


class KeyTests(StorageTests):
    """Keys are distinguished by each byte, and invalid ones are refused."""

    @pytest.mark.parametrize("name", UNUSUAL_KEYS)
    def test_unusual_keys_are_keys_like_others(self, storage: Any, folder: str, name: str) -> None:
        key = f"{folder}/{name}"
        assert storage.write(key, Source(name.encode()), BINARY).key == key
        assert_contents(storage, key, name.encode())
        assert storage.stat(key).key == key
        self.assert_listed(storage, folder, [key])
        assert storage.url(key).endswith(quote(key))
        storage.delete(key)
        self.assert_absent(storage, key)

    def test_keys_that_look_alike_are_different(self, storage: Any, folder: str) -> None:
        written = [f"{folder}/{name}" for name in LOOKALIKE_KEYS]
        for key in written:
            storage.write(key, Source(key.encode()), BINARY)
        assert [contents(storage, key) for key in written] == [key.encode() for key in written]
        self.assert_listed(storage, folder, sorted(written))

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    def test_a_hostile_key_is_invalid_in_every_method(
        self, storage: Any, folder: str, key: str
    ) -> None:
        storage.write(f"{folder}/a", Source(b"x"), BINARY)
        with pytest.raises(InvalidKey):
            storage.write(key, Source(b"x"), BINARY)
        for method in (storage.stat, storage.open, storage.delete):
            with pytest.raises(InvalidKey):
                method(key)
        with pytest.raises(InvalidKey):
            storage.delete(f"{folder}/a", key)
        assert not storage.exists(key)
        assert storage.exists(f"{folder}/a"), "nothing is deleted when a key is invalid"
