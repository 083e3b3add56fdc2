"""The tests for storages that know hashes."""

from __future__ import annotations

import os
from functools import partial
from hashlib import sha256
from typing import Any

import pytest

from kinto_attachment.errors import FileNotFound
from kinto_attachment.storage import KnowsHashes
from kinto_attachment.storage.samples import BINARY, MIB, Source

from .core import StorageContract


class KnowsHashesContract(StorageContract):
    """Tests of the hashes that a storage knows; it may know none."""

    capability = KnowsHashes

    @pytest.mark.parametrize("size", [0, 10, 9 * MIB])
    def test_no_wrong_hash_is_vouched_for(self, storage: Any, folder: str, size: int) -> None:
        content = os.urandom(size)
        storage.write(f"{folder}/a", Source(content), BINARY)
        assert storage.has_hash(f"{folder}/a", sha256(content).hexdigest()) in (True, False)
        other = sha256(content + b"x").hexdigest()
        assert storage.has_hash(f"{folder}/a", other) is False

    def test_no_hash_of_what_is_not_there(self, storage: Any, folder: str) -> None:
        with pytest.raises(FileNotFound):
            storage.has_hash(f"{folder}/ghost", sha256(b"").hexdigest())

    def test_an_outage_is_told_by_hashes(self, broken_storage: Any, folder: str) -> None:
        ask = partial(broken_storage.has_hash, f"{folder}/a", sha256(b"").hexdigest())
        self.assert_tells_of_an_outage("has_hash", ask)
