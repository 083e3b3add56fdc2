"""The tests that every storage has to pass."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from kinto_attachment.storage import CAPABILITIES
from kinto_attachment.storage.samples import (
    BINARY,
    TIMEOUT,
    Source,
    assert_contents,
    contents,
    in_threads,
    write_many,
)

from .keys import KeyTests
from .reading import ReadingTests
from .writing import WritingTests

# Object stores list or delete no more at once.
AT_ONCE = 1_000


class StorageContract(WritingTests, ReadingTests, KeyTests):
    """One test per rule: the rules of writing, reading and keys, and those below."""

    def test_each_capability_has_its_contract(self, storage: Any) -> None:
        """The server advertises and uses all capabilities that a storage implements."""
        checked = {base.__dict__.get("capability") for base in type(self).__mro__}
        for capability in CAPABILITIES:
            implemented, name = isinstance(storage, capability), capability.__name__
            assert implemented or capability not in checked, f"the storage lacks {name}"
            assert not implemented or capability in checked, f"run {name}Contract, too"

    def test_deleting_twice_is_fine(self, storage: Any, folder: str) -> None:
        storage.write(f"{folder}/a", Source(b"x"), BINARY)
        storage.write(f"{folder}/b", Source(b"x"), BINARY)
        assert storage.delete(f"{folder}/a") is True
        self.assert_absent(storage, f"{folder}/a")
        assert storage.delete(f"{folder}/a", f"{folder}/ghost") in (True, False)
        storage.delete()
        assert_contents(storage, f"{folder}/b", b"x")

    def test_thousands_are_deleted_at_once(self, storage: Any, folder: str) -> None:
        written = write_many(storage, folder, AT_ONCE + AT_ONCE // 10)
        storage.write(f"{folder}/z", Source(b"x"), BINARY)
        self.assert_listed(storage, folder, [*written, f"{folder}/z"])
        assert storage.delete(*written) is True
        self.assert_listed(storage, folder, [f"{folder}/z"])
        edges = (written[0], written[AT_ONCE - 1], written[AT_ONCE], written[-1])
        assert not any(map(storage.exists, edges))
        assert storage.exists(f"{folder}/z")

    def test_an_outage_is_told_with_its_cause(self, broken_storage: Any, folder: str) -> None:
        key = f"{folder}/a"
        calls: dict[str, Callable[[], object]] = {
            "write": lambda: broken_storage.write(key, Source(b"x"), BINARY),
            "open": lambda: contents(broken_storage, key),
            "stat": lambda: broken_storage.stat(key),
            "exists": lambda: broken_storage.exists(key),
            "delete": lambda: broken_storage.delete(key),
        }
        for name, call in calls.items():
            self.assert_tells_of_an_outage(name, call)

    def test_eight_threads_do_not_disturb_each_other(self, storage: Any, folder: str) -> None:
        all_read = threading.Barrier(8, timeout=TIMEOUT)

        def meet(position: int) -> None:
            if position == 0:
                all_read.wait()

        def live(number: int) -> bool:
            for turn in range(5):
                key, content = f"{folder}/{number}/{turn}", os.urandom(100_000 + number)
                # Only in the first round. Later, threads would wait for those that have failed.
                storage.write(key, Source(content, 50_000, bool if turn else meet), BINARY)
                assert storage.stat(key).size == len(content)
                assert_contents(storage, key, content)
                self.assert_listed(storage, f"{folder}/{number}/", [key])
                storage.delete(key)
            return True

        assert in_threads(8, live, range(8)) == [True] * 8
        self.assert_listed(storage, folder, [])
